"""Bandwidth that is short: caps, fair parts, and more for who gives.

In real time, on machines that may have other things to do: then less goes through, and what was late comes in bursts.
What holds whatever happens is that the sum since the beginning is never above the cap, and, where it is counted by the
one who gives, that the parts are fair.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from swarm import wire_peer as wire
from swarm.node import Content, Node, Target, good, serve
from zest_hf._native.events import Kind, Outcome

CONTENT = Content.random(600, size=65536)
CAP = 6_000_000
BURST_S = 0.1
CHUNK_BYTES = 65536 + 256
"""The longest chunk, and what comes with it."""
PATIENCE_S = 30.0


@dataclass
class Taker:
    """A connection that asks for more than it can get, and counts what comes."""

    peer: wire.WirePeer
    bytes_got: int = 0

    def run(self) -> None:
        with contextlib.suppress(wire.HungUp, OSError):
            while True:
                self.bytes_got += len(self.peer.receive_raw(8192))


@contextlib.contextmanager
def takers(port: int, hosts: list[str]) -> Iterator[list[Taker]]:
    found: list[Taker] = []
    threads = []
    for host in hosts:
        connection = socket.create_connection(("127.0.0.1", port), wire.TIMEOUT_S, source_address=(host, 0))
        peer = wire.WirePeer(connection)
        peer.send_handshake(wire.NODE_SWARM)
        peer.receive_handshake()
        peer.extended_handshake()
        found.append(Taker(peer))
    for taker in found:
        for request in range(1, 100):
            taker.peer.send_zest(wire.range_request(request, wire.FILE, CONTENT.hash, 0, 600))
        threads.append(threading.Thread(target=taker.run))
        threads[-1].start()
    try:
        yield found
    finally:
        for taker in found:
            with contextlib.suppress(OSError):
                taker.peer.socket.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for taker in found:
            taker.peer.close()


class Budget:
    """What a cap allows from now on."""

    def __init__(self, bytes_s: float) -> None:
        self._spent = BURST_S * bytes_s + 2 * CHUNK_BYTES
        self._bytes_s, self._since_s = bytes_s, time.monotonic()

    def now(self) -> float:
        return self._spent + (time.monotonic() - self._since_s) * self._bytes_s

    def change(self, bytes_s: float) -> None:
        """After the session has taken the new cap."""
        self._spent, self._since_s, self._bytes_s = self.now(), time.monotonic(), bytes_s


def sent(node: Node) -> dict[str, int]:
    """Payload bytes by the host that was given them."""
    out: dict[str, int] = {}
    for peer in node.session.peers():
        host = peer.address.rpartition(":")[0]
        out[host] = out.get(host, 0) + peer.bytes_up
    return out


def parts(node: Node, hosts: int) -> list[float]:
    """Of what is sent from when all get something: the part of each host, in order."""
    node.until(lambda: len(sent(node)) == hosts and all(sent(node).values()), PATIENCE_S)
    before = sent(node)
    node.until(lambda: sum(sent(node).values()) - sum(before.values()) > 2 * CAP, PATIENCE_S)
    after = sent(node)
    given = [after[host] - before[host] for host in sorted(before)]
    return [one / sum(given) for one in given]


def test_a_cap_on_uploads(tmp_path: Path) -> None:
    """All bytes count, headers too; and another cap holds from when it is set."""
    with Node(max_up_bytes_s=CAP) as node:
        node.share(CONTENT, tmp_path / "offered")
        budget = Budget(CAP)
        with takers(node.port, ["127.0.0.1"] * 2) as two:

            def got() -> int:
                return sum(taker.bytes_got for taker in two)

            node.until(lambda: got() > 2 * CAP, PATIENCE_S)
            assert got() <= budget.now()
            node.session.set_caps(CAP // 3, None)
            node.session.peers()  # the answer comes after that
            budget.change(CAP // 3)
            before = got()
            node.until(lambda: got() - before > CAP // 2, PATIENCE_S)
            assert got() <= budget.now()
            node.session.set_caps(None, None)
            node.until(lambda: got() > budget.now() + 2 * CAP, PATIENCE_S)


def test_a_cap_on_downloads(tmp_path: Path) -> None:
    with Node() as seed, Node(max_down_bytes_s=CAP) as node, Target(tmp_path / "taken", CONTENT) as target:
        seed.share(CONTENT, tmp_path / "offered")
        peer = node.meet(seed.port)
        budget = Budget(CAP)
        for _ in range(3):
            node.ask(peer, target)
        node.until(lambda: node.session.stats().bytes_down > 2 * CAP, PATIENCE_S)
        assert node.session.stats().bytes_down <= budget.now()
        node.session.set_caps(None, None)
        node.until(lambda: node.session.stats().bytes_down > budget.now() + 2 * CAP, PATIENCE_S)


def test_three_leechers_get_equal_parts(tmp_path: Path) -> None:
    with Node(max_up_bytes_s=CAP) as node:
        node.share(CONTENT, tmp_path / "offered")
        with takers(node.port, ["127.0.0.1", "127.0.0.2", "127.0.0.3"]):
            assert parts(node, 3) == pytest.approx([1 / 3] * 3, rel=0.1)


def test_many_connections_gain_nothing(tmp_path: Path) -> None:
    with Node(max_up_bytes_s=CAP) as node:
        node.share(CONTENT, tmp_path / "offered")
        with takers(node.port, ["127.0.0.1", "127.0.0.2", "127.0.0.2", "127.0.0.2"]):
            assert parts(node, 2) == pytest.approx([1 / 2] * 2, rel=0.1)


def test_who_gives_gets_more(tmp_path: Path) -> None:
    """Not all of it: who only takes is served too."""
    gift = Content.random(20, seed=1)
    with (
        Node(max_up_bytes_s=CAP) as node,
        Node() as giver,
        Target(tmp_path / "gift", gift) as received,
        Target(tmp_path / "taken", CONTENT) as taken,
    ):
        node.share(CONTENT, tmp_path / "offered")
        giver.share(gift, tmp_path / "given")
        assert node.piece(node.meet(giver.port), received).outcome is Outcome.OK
        (connection,) = giver.session.peers()
        for _ in range(20):
            giver.ask(connection.peer, taken, timeout_s=60)
        with takers(node.port, ["127.0.0.2"]):
            assert parts(node, 2) == pytest.approx([4 / 5, 1 / 5], rel=0.15)


def test_a_session_that_waits_for_its_cap_closes_at_once(tmp_path: Path) -> None:
    """Ten seconds to the next chunk, in both directions."""
    with Node(max_up_bytes_s=6_000, max_down_bytes_s=6_000) as node, Node() as seed:
        node.share(CONTENT, tmp_path / "offered")
        with takers(node.port, ["127.0.0.1"]) as (taker,), Target(tmp_path / "taken", CONTENT) as target:
            seed.share(CONTENT, tmp_path / "source")
            node.ask(node.meet(seed.port), target)
            node.until(lambda: taker.bytes_got > 10_000 and node.session.stats().bytes_down > 0)
            began_s = time.monotonic()
            node.session.close()
            assert time.monotonic() - began_s < 2


# --- how a cap on downloads is kept ------------------------------------------------------------------------


def test_with_a_cap_a_piece_is_asked_for_in_parts(tmp_path: Path) -> None:
    content = Content.random(40, size=20000)
    asked: list[wire.Question] = []

    def script(peer: wire.WirePeer) -> None:
        while True:
            asked.append(peer.question())
            serve(peer, content, asked[-1])

    with (
        Node(max_down_bytes_s=1_000_000) as node,
        wire.WireServer(script) as server,
        Target(tmp_path / "taken", content) as target,
    ):
        assert node.piece(node.meet(server.port), target, 5, 40).outcome is Outcome.OK
        assert target.holds(5, 40)
    assert [question.first for question in asked] == [5, *(question.end_or_count for question in asked[:-1])]
    assert asked[-1].end_or_count == 40
    offsets = content.manifest.offset
    assert all(offsets(question.end_or_count) - offsets(question.first) <= 50_000 for question in asked)


def test_without_a_cap_a_piece_is_one_question(tmp_path: Path) -> None:
    """Also when the cap is lifted on the way: what is left is asked for at once."""
    content = Content.random(40, size=20000)
    asked: list[wire.Question] = []
    lift = threading.Event()

    def script(peer: wire.WirePeer) -> None:
        while True:
            asked.append(peer.question())
            if len(asked) == 2:
                assert lift.wait(wire.TIMEOUT_S)
            serve(peer, content, asked[-1])

    with Node() as node, wire.WireServer(script) as server, Target(tmp_path / "taken", content) as target:
        peer = node.meet(server.port)
        assert node.piece(peer, target).outcome is Outcome.OK
        assert [(question.first, question.end_or_count) for question in asked] == [(0, 40)]
        node.session.set_caps(None, 200_000)
        token = node.ask(peer, target)
        node.until(lambda: len(asked) == 2)
        node.session.set_caps(None, None)
        lift.set()
        assert node.ended(token).outcome is Outcome.OK
        assert 3 <= len(asked) <= 6


def test_waiting_for_the_cap_is_not_the_peers_silence(tmp_path: Path) -> None:
    content = Content([bytes([number]) * 60_000 for number in range(3)])
    with (
        Node(max_down_bytes_s=40_000) as node,
        wire.WireServer(good(content)) as server,
        Target(tmp_path / "taken", content) as target,
    ):
        assert node.piece(node.meet(server.port), target, timeout_s=1.0).outcome is Outcome.OK


def test_single_chunks_under_a_cap(tmp_path: Path) -> None:
    """A peer of BEP XET v1."""
    content = Content.random(80, size=20000)
    with (
        Node(max_down_bytes_s=1_000_000) as node,
        wire.WireServer(good(content), extensions={"ut_xet": wire.XET_ID}) as server,
        Target(tmp_path / "taken", content) as target,
    ):
        began_s = time.monotonic()
        assert node.piece(node.meet(server.port), target).outcome is Outcome.OK
        assert target.data == content.data
        assert time.monotonic() - began_s >= 0.9 * (len(content.data) / 1_000_000 - 0.1)


@pytest.mark.parametrize("end", ["not found", "cancel"])
def test_a_piece_that_ends_early_under_a_cap(tmp_path: Path, end: str) -> None:
    """The parts that have been asked for are taken back."""
    content = Content.random(40, size=20000)
    seen: list[wire.Question] = []

    def script(peer: wire.WirePeer) -> None:
        while len(seen) < 3:
            seen.append(peer.question())
        serve(peer, content, seen[0])
        if end == "not found":
            peer.send_zest(wire.range_end(seen[1].request, wire.NOT_FOUND))
        while True:
            seen.append(peer.question())
            if seen[-1].type == wire.HAVE_REQUEST:
                serve(peer, content, seen[-1])

    with (
        Node(max_down_bytes_s=1_000_000) as node,
        wire.WireServer(script) as server,
        Target(tmp_path / "taken", content) as target,
    ):
        peer = node.meet(server.port)
        token = node.ask(peer, target)
        if end == "cancel":
            first_end = content.manifest.offset
            node.until(lambda: len(seen) >= 3 and node.session.stats().bytes_down == first_end(seen[0].end_or_count))
            node.session.cancel_piece(peer, token)
        ended = node.ended(token)
        assert ended.outcome is (Outcome.NOT_FOUND if end == "not found" else Outcome.CANCELLED)
        assert ended.chunks_written == seen[0].end_or_count and target.holds(0, ended.chunks_written)
        assert node.have(peer, Kind.FILE, content.hash).outcome is Outcome.OK
        asked = {question.request for question in seen if question.type == wire.RANGE_REQUEST}
        cancelled = {question.request for question in seen if question.type == wire.CANCEL}
        answered = {seen[0].request, seen[1].request} if end == "not found" else {seen[0].request}
        assert cancelled == asked - answered and cancelled
