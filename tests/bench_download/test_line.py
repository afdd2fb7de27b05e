"""What a line does to packets, as a function of time; and the program that does it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zest_hf.bench.downloads import regression
from zest_hf.bench.downloads.carrier import carry
from zest_hf.bench.downloads.line import MTU_BYTES, QUEUE_S, Lane, Line, line_text

EARLY_S = 1e-9
PLAIN = Line(0.05, 0.0, 100.0, "cubic")

lines = st.builds(Line, st.floats(0, 2), st.just(0.0), st.floats(1, 500), st.just("cubic"))
packets = st.lists(st.tuples(st.floats(0, 0.02), st.integers(1, MTU_BYTES)), max_size=200)


@given(lines, packets)
def test_packets_keep_their_order_and_come_no_sooner_than_the_line_can(
    line: Line, gaps: list[tuple[float, int]]
) -> None:
    lane, now_s, found = Lane(line, 1), 0.0, []
    byte_s = 8e-6 / line.mbit_s
    for gap_s, size_bytes in gaps:
        now_s += gap_s
        arrival_s = lane.arrival_s(size_bytes, now_s)
        if arrival_s is not None:
            found.append((arrival_s, size_bytes))
            waited_s = arrival_s - now_s - line.delay_s / 2
            assert size_bytes * byte_s - EARLY_S <= waited_s <= QUEUE_S + EARLY_S
        else:
            # Only who finds the queue full is turned away.
            free_s = found[-1][0] - line.delay_s / 2
            assert free_s + size_bytes * byte_s - now_s > QUEUE_S - EARLY_S
    for (before_s, _), (after_s, size_bytes) in pairwise(found):
        assert after_s - before_s >= size_bytes * byte_s - EARLY_S
    assert lane.carried_bytes == sum(size for _, size in found)
    assert (lane.lost, lane.dropped) == (0, len(gaps) - len(found))


def test_an_idle_line_takes_half_the_delay_and_the_time_that_the_packet_needs() -> None:
    lane = Lane(PLAIN, 1)
    assert lane.arrival_s(1250, 7.0) == pytest.approx(7.0 + 1e-4 + 0.025)
    assert lane.arrival_s(1250, 7.0) == pytest.approx(7.0 + 2e-4 + 0.025)
    assert lane.arrival_s(1250, 8.0) == pytest.approx(8.0 + 1e-4 + 0.025)


def test_a_full_queue_holds_a_tenth_of_a_second_and_takes_more_when_it_has_sent_some() -> None:
    lane = Lane(PLAIN, 1)
    assert sum(lane.arrival_s(1250, 1.0) is not None for _ in range(2000)) == pytest.approx(1000, abs=1)
    assert lane.dropped == pytest.approx(1000, abs=1)
    assert sum(lane.arrival_s(1250, 1.05) is not None for _ in range(2000)) == pytest.approx(500, abs=1)


def test_packets_are_lost_by_chance_and_the_same_ones_each_time() -> None:
    def lost(seed: int) -> list[int]:
        lane = Lane(Line(0.0, 0.01, 100.0, "cubic"), seed)
        return [at for at in range(100_000) if lane.arrival_s(1250, at * 1e-3) is None]

    first = lost(1)
    assert len(first) == pytest.approx(1000, abs=5 * 1000**0.5)
    # One after the other neither less nor more often than by chance.
    assert sum(b - a == 1 for a, b in pairwise(first)) == pytest.approx(10, abs=5 * 10**0.5)
    assert lost(1) == first != lost(2)


@contextmanager
def carried(line: Line) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two far ends of what is carried, as devices would be: a packet is what one call sends."""
    with ExitStack() as stack:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
        stop, stopped = socket.socketpair()
        for one in (*(each for pair in pairs for each in pair), stop, stopped):
            stack.enter_context(one)
        for _, inner in pairs:
            inner.setblocking(False)
        (outer, inner), (other, other_inner) = pairs
        ends = inner.fileno(), other_inner.fileno()
        thread = threading.Thread(target=carry, args=(ends, stopped.fileno(), line))
        thread.start()
        try:
            yield outer, other
        finally:
            stop.send(b"x")
            thread.join()


def test_packets_come_through_as_they_were_both_ways() -> None:
    with carried(Line(0.04, 0.0, 500.0, "")) as (one, other):
        began_s = time.monotonic()
        for number in range(100):
            one.send(b"%d" % number)
            other.send(b"back %d" % number)
        assert [other.recv(2000) for _ in range(100)] == [b"%d" % number for number in range(100)]
        assert time.monotonic() - began_s >= 0.02
        assert [one.recv(2000) for _ in range(100)] == [b"back %d" % number for number in range(100)]
        one.send(bytes(MTU_BYTES))
        assert other.recv(2000) == bytes(MTU_BYTES)


def test_what_was_lost_does_not_come() -> None:
    line = Line(0.0, 0.5, 500.0, "")
    lane = Lane(line, 1)
    kept = [number for number in range(100) if lane.arrival_s(3, number) is not None]
    with carried(line) as (one, other):
        for number in range(100):
            one.send(b"%03d" % number)
        assert [int(other.recv(2000)) for _ in kept] == kept


def test_a_line_is_named_in_what_was_measured() -> None:
    def value(**line: object) -> dict[str, Any]:
        options: dict[str, Any] = {"megabytes": 300, "files": 4, "tls": True}
        return {"base": "hf_xet", "options": options | ({"line": line} if line else {})}

    over = value(**Line(0.05, 0.001, 100.0, "bbr").json)
    text = ", over a line of 100 Mbit/s, 50 ms, 0.1 % lost, bbr"
    assert line_text(over["options"]["line"]) == text
    assert regression.measured(over) == f"300 MB in 4 files, over TLS{text}, against hf_xet"
    different = [Line(0.05, 0.0, 100.0, "bbr"), Line(0.04, 0.001, 100.0, "bbr"), Line(0.05, 0.001, 99.0, "bbr")]
    named = {regression.measured(value(**each.json)) for each in [*different, Line(0.05, 0.001, 100.0, "cubic")]}
    assert len(named | {regression.measured(value()), regression.measured(over)}) == 6
