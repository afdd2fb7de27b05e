"""Peers that meet in the DHT, whose nodes are another program's."""

from __future__ import annotations

import importlib.util
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import dht_nodes
from swarm import wire_peer as wire
from swarm.dht_nodes import Dht
from swarm.node import Content, Node
from swarm.wire_peer import WireServer, bencode
from zest_hf._native.events import Kind, Outcome, PeerReady, Source
from zest_hf.core.ids import XetHash

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtorrent") is None, reason="PyPI has no libtorrent for this Python: no independent DHT"
)


@pytest.fixture
def dht() -> Iterator[Dht]:
    """A new one for each: in so small a network those who have left are among the nearest of every name for a while."""
    with dht_nodes.running() as nodes:
        yield nodes


def test_two_meet(dht: Dht, tmp_path: Path) -> None:
    content = Content.random(10, seed=1)
    options = {"dht": True, "dht_bootstrap": dht.bootstrap}
    with Node(**options) as holder, Node(**options) as seeker:
        holder.share(content, tmp_path / "offered")
        assert holder.session.stats().dht_nodes == 0  # nothing is begun before somebody joins
        holder.session.join(Kind.FILE, content.hash, announce=True)
        holder.until(lambda: holder.session.stats().dht_nodes > 0)
        assert dht.peers(wire.file_swarm(content.hash)) == [("127.0.0.1", holder.port)]
        begun_s = time.monotonic()
        seeker.session.join(Kind.FILE, content.hash, announce=False)
        peer = seeker.wait(PeerReady)
        print(f"DHT: ready after {(time.monotonic() - begun_s) * 1000:.0f} ms from a cold start")
        assert seeker.have(peer.peer, Kind.FILE, content.hash).outcome is Outcome.OK
        (info,) = seeker.session.peers()
        assert info.source is Source.DHT
        # To look is not to be seen.
        assert dht.peers(wire.file_swarm(content.hash)) == [("127.0.0.1", holder.port)]


def test_xorbs_need_no_torrent(dht: Dht, tmp_path: Path) -> None:
    content = Content.random(60, per_xorb=2)
    names = [wire.xorb_swarm(xorb) for xorb, _, _ in content.xorbs]
    options = {"dht": True, "dht_bootstrap": dht.bootstrap}
    with Node(**options) as holder, Node(**options) as seeker:
        holder.share(content, tmp_path / "offered")
        for xorb, _, _ in content.xorbs:
            holder.session.join(Kind.XORB, xorb, announce=True)
        assert dht.peers(names[-1]) == [("127.0.0.1", holder.port)]
        holder.until(lambda: dht.found(names) == len(names))
        stats = holder.session.stats()
        assert (stats.swarms_joined, stats.swarms_loaded) == (30, 1)
        seeker.session.join(Kind.XORB, content.xorbs[7][0], announce=False)
        peer = seeker.wait(PeerReady)
        assert seeker.have(peer.peer, Kind.XORB, content.xorbs[7][0]).outcome is Outcome.OK


def test_files_come_before_xorbs(dht: Dht) -> None:
    file = XetHash(os.urandom(32))
    with Node(dht=True, dht_bootstrap=dht.bootstrap) as node:
        for _ in range(400):
            node.session.join(Kind.XORB, XetHash(os.urandom(32)), announce=True)
        begun_s = time.monotonic()
        node.session.join(Kind.FILE, file, announce=True)
        assert dht.peers(wire.file_swarm(file)) == [("127.0.0.1", node.port)]
        # The xorbs alone take 20 s.
        assert time.monotonic() - begun_s < 8


def test_a_peer_of_another_program(dht: Dht) -> None:
    """One that is announced by another node, and one of a swarm that is left again."""
    name, left = XetHash(os.urandom(32)), XetHash(os.urandom(32))
    with WireServer(lambda _: None) as there, Node(dht=True, dht_bootstrap=dht.bootstrap) as node:
        for hash_ in (name, left):
            dht.announce(wire.xorb_swarm(hash_), there.port)
        assert dht.peers(wire.xorb_swarm(name))
        node.session.join(Kind.XORB, left, announce=False)
        node.session.leave(Kind.XORB, left)
        node.session.join(Kind.XORB, name, announce=False)
        node.wait(PeerReady)
        assert there.accepted == 1


def test_garbage_to_our_port(dht: Dht, tmp_path: Path) -> None:
    content = Content.random(10, seed=3)
    name = wire.file_swarm(content.hash)
    with Node(dht=True, dht_bootstrap=dht.bootstrap) as node:
        node.share(content, tmp_path / "offered")
        node.session.join(Kind.FILE, content.hash, announce=True)
        node.until(lambda: node.session.stats().dht_nodes > 0)
        query = {"t": b"aa", "y": b"q", "q": b"get_peers", "a": {"id": os.urandom(20), "info_hash": name}}
        nonsense = [
            b"",
            b"d",
            b"d1:" + b"a" * 1000,
            b"d" * 1400,
            bencode(query)[:-1],
            bencode({**query, "a": {}}),
            bencode({**query, "a": {"id": b"short", "info_hash": b""}}),
            bencode({"t": b"zz", "y": b"r", "r": {"id": os.urandom(20), "values": [b"abc", b"\x7f\0\0\1\0\x16"] * 50}}),
            bencode({"t": b"zz", "y": b"e", "e": [201, b"x" * 500]}),
            *(os.urandom(length % 1400) for length in range(0, 40_000, 97)),
        ]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for packet in nonsense:
                sender.sendto(packet, ("127.0.0.1", node.port))
        assert dht.peers(name) == [("127.0.0.1", node.port)]
        with Node(dht=True, dht_bootstrap=dht.bootstrap) as seeker:
            seeker.session.join(Kind.FILE, content.hash, announce=False)
            seeker.wait(PeerReady)


def test_an_entry_that_is_not_there() -> None:
    """Nobody answers: no harm, and a prompt end."""
    with Node(dht=True, dht_bootstrap=[("127.0.0.1", 9), ("no.such.name.invalid", 6881)]) as node:
        node.session.join(Kind.FILE, XetHash(os.urandom(32)), announce=True)
        node.pump(0.3)
        begun_s = time.monotonic()
        assert node.session.stats().dht_nodes == 0
        node.session.close()
        assert time.monotonic() - begun_s < 2
