"""Upload that is short: caps, fair parts, and more for who gives. In real time, so with margins."""

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
from swarm.node import Content, Node, Target
from zest_hf._native.session import Outcome

CONTENT = Content.random(600, size=65536)
CAP = 6_000_000


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


def rates(takers: list[Taker], seconds: float) -> list[float]:
    """Bytes per second of each in the time that follows."""
    before, began_s = [taker.bytes_got for taker in takers], time.monotonic()
    time.sleep(seconds)
    took_s = time.monotonic() - began_s
    return [(taker.bytes_got - start) / took_s for taker, start in zip(takers, before, strict=True)]


def test_a_cap_on_uploads(tmp_path: Path) -> None:
    """All bytes count, headers too; and another cap holds from when it is set."""
    with Node(max_up_bytes_s=CAP) as node:
        node.share(CONTENT, tmp_path / "offered")
        with takers(node.port, ["127.0.0.1"] * 2) as two:
            assert sum(rates(two, 2.5)) == pytest.approx(CAP, rel=0.1)
            node.session.set_caps(CAP // 3, None)
            rates(two, 0.3)
            assert sum(rates(two, 1.5)) == pytest.approx(CAP // 3, rel=0.1)
            node.session.set_caps(None, None)
            rates(two, 0.2)
            assert sum(rates(two, 0.5)) > 10 * CAP


def test_a_cap_on_downloads(tmp_path: Path) -> None:
    with Node() as seed, Node() as node, Target(tmp_path / "taken", CONTENT) as target:
        seed.share(CONTENT, tmp_path / "offered")
        peer = node.meet(seed.port)
        node.session.set_caps(None, CAP)
        for _ in range(3):
            node.ask(peer, target)
        node.until(lambda: node.session.stats().bytes_down > CAP // 2)
        before, began_s = node.session.stats().bytes_down, time.monotonic()
        time.sleep(2)
        rate = (node.session.stats().bytes_down - before) / (time.monotonic() - began_s)
        assert rate == pytest.approx(CAP, rel=0.1)


def test_three_leechers_get_equal_parts(tmp_path: Path) -> None:
    with Node(max_up_bytes_s=CAP) as node:
        node.share(CONTENT, tmp_path / "offered")
        with takers(node.port, ["127.0.0.1", "127.0.0.2", "127.0.0.3"]) as three:
            for rate in rates(three, 2.5):
                assert rate == pytest.approx(CAP / 3, rel=0.2)


def test_many_connections_gain_nothing(tmp_path: Path) -> None:
    with Node(max_up_bytes_s=CAP) as node:
        node.share(CONTENT, tmp_path / "offered")
        with takers(node.port, ["127.0.0.1", "127.0.0.2", "127.0.0.2", "127.0.0.2"]) as four:
            modest, *greedy = rates(four, 2.5)
            assert modest == pytest.approx(CAP / 2, rel=0.2)
            assert sum(greedy) == pytest.approx(CAP / 2, rel=0.2)


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
        giver.until(lambda: giver.session.stats().bytes_down > 0)
        with takers(node.port, ["127.0.0.2"]) as (taker,):
            before, began_s = giver.session.stats().bytes_down, time.monotonic()
            (rate,) = rates([taker], 2.5)
            given_back = (giver.session.stats().bytes_down - before) / (time.monotonic() - began_s)
        assert rate == pytest.approx(CAP / 5, rel=0.2)
        assert given_back == pytest.approx(CAP * 4 / 5, rel=0.2)
