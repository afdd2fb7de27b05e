"""Peers that find each other on the local network (BEP 14), and sessions that keep silent."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import namespaces
from swarm import wire_peer as wire
from swarm.namespaces import Namespace
from swarm.node import Content, Node, Target
from zest_hf._native.events import Kind, Outcome, PeerReady, Source
from zest_hf.core.ids import XetHash

WHY_NOT = namespaces.why_not()
needs_namespaces = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")
CONTENT = Content.random(20)


@pytest.fixture
def machines() -> Iterator[tuple[Namespace, Namespace]]:
    with namespaces.cable() as ends:
        yield ends


def lan_node(machine: Namespace, **options: object) -> Node:
    with machine.entered():
        return Node(**{"listen_host": "", "lsd": True, **options})


def announcement(port: int, info_hash: bytes) -> bytes:
    lines = ["BT-SEARCH * HTTP/1.1", "Host: 239.192.152.143:6771", f"Port: {port}", f"Infohash: {info_hash.hex()}"]
    return ("\r\n".join([*lines, "", "", ""])).encode()


@needs_namespaces
def test_two_machines_on_a_cable(machines: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    with lan_node(machines[0]) as holder, lan_node(machines[1]) as seeker:
        holder.share(CONTENT, tmp_path / "offered")
        holder.session.join(Kind.FILE, CONTENT.hash, announce=True)
        holder.until(lambda: holder.session.stats().swarms_loaded == 2)
        begun_s = time.monotonic()
        seeker.session.join(Kind.FILE, CONTENT.hash, announce=False)
        peer = seeker.wait(PeerReady)
        ready_s = time.monotonic() - begun_s
        with Target(tmp_path / "taken", CONTENT) as target:
            assert seeker.have(peer.peer, Kind.FILE, CONTENT.hash).outcome is Outcome.OK
            assert seeker.piece(peer.peer, target, 0, 1).outcome is Outcome.OK
        chunk_s = time.monotonic() - begun_s
        print(f"LSD: ready after {ready_s * 1000:.0f} ms, first chunk after {chunk_s * 1000:.0f} ms")
        assert chunk_s < 0.5
        holder.wait(PeerReady)
        assert {info.source for info in holder.session.peers()} <= {Source.LSD, Source.INCOMING}
        # One pair of peers, one connection, over whichever of their addresses.
        seeker.until(lambda: seeker.session.stats().dials_open == 0 and len(seeker.session.peers()) == 1)
        assert peer.address.rpartition(":")[0].strip("[]") != "127.0.0.1"


def test_two_on_one_machine(tmp_path: Path) -> None:
    """Over loopback, where the system lets multicast through."""
    with Node(lsd=True) as holder, Node(lsd=True) as seeker:
        holder.share(CONTENT, tmp_path / "offered")
        holder.session.join(Kind.FILE, CONTENT.hash, announce=True)
        holder.until(lambda: holder.session.stats().swarms_loaded == 2)
        seeker.session.join(Kind.FILE, CONTENT.hash, announce=False)
        assert seeker.have(seeker.wait(PeerReady).peer, Kind.FILE, CONTENT.hash).outcome is Outcome.OK


@needs_namespaces
def test_who_is_not_joined_is_not_found(machines: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    other = Content.random(3, seed=5)
    with lan_node(machines[0]) as holder, lan_node(machines[1]) as seeker:
        holder.share(CONTENT, tmp_path / "offered")
        holder.session.join(Kind.FILE, CONTENT.hash, announce=True)
        holder.session.leave(Kind.FILE, CONTENT.hash)
        holder.session.join(Kind.FILE, other.hash, announce=True)
        holder.until(lambda: holder.session.stats().swarms_joined == 1)
        seeker.session.join(Kind.FILE, CONTENT.hash, announce=False)
        seeker.session.join(Kind.FILE, other.hash, announce=False)
        seeker.wait(PeerReady)
        assert seeker.session.stats().peers_ready == 1
        # Connected it answers, joined or not.
        (info,) = seeker.session.peers()
        assert seeker.have(info.peer, Kind.FILE, CONTENT.hash).outcome is Outcome.OK


@needs_namespaces
def test_nonsense_on_the_lan(machines: tuple[Namespace, Namespace]) -> None:
    swarm = wire.file_swarm(CONTENT.hash)
    good = announcement(4000, swarm)
    nonsense = [
        b"",
        os.urandom(1400),
        good.replace(b"4000", b"0"),
        good.replace(b"4000", b"99999"),
        good.replace(b"4000", b"22"),
        good.replace(swarm.hex().encode(), b"z" * 40),
        good.replace(swarm.hex().encode(), b"ab" * 5000),
        announcement(4000, bytes(20)),
        *(announcement(4000, os.urandom(20)) for _ in range(200)),
        *(announcement(port, swarm) for port in range(2000, 2300)),
    ]
    with lan_node(machines[0]) as node, lan_node(machines[1]) as friend:
        node.session.join(Kind.FILE, CONTENT.hash, announce=True)
        node.until(lambda: node.session.stats().swarms_loaded == 2)
        with machines[1].entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(machines[1].address))
            for packet in nonsense:
                sender.sendto(packet, ("239.192.152.143", 6771))
        friend.session.join(Kind.FILE, CONTENT.hash, announce=True)
        node.wait(PeerReady)
        node.until(lambda: len(node.session.peers()) <= 12 + 1)


@needs_namespaces
@pytest.mark.parametrize("joins", [False, True], ids=["nothing joined", "everything off"])
def test_silence(machines: tuple[Namespace, Namespace], tmp_path: Path, joins: bool) -> None:
    """Not one packet: with everything on before the first join, and with everything off after it."""
    options = {"lsd": False} if joins else {"lsd": True, "dht": True, "trackers": ["http://10.77.0.2:7777/announce"]}
    with machines[0].capture() as frames, lan_node(machines[0], **options) as node:
        node.share(CONTENT, tmp_path / "offered")
        if joins:
            node.session.join(Kind.FILE, CONTENT.hash, announce=True)
            node.session.join(Kind.XORB, CONTENT.xorbs[0][0], announce=True)
        # As long as the first announcements would need, many times over.
        end_s = time.monotonic() + 1.5
        while time.monotonic() < end_s:
            node.pump(0.1)
    assert frames == []


@needs_namespaces
def test_the_capture_sees_what_is_said(machines: tuple[Namespace, Namespace]) -> None:
    """That the test before could fail. And of a hash nothing is said but its swarm's name."""
    hash_ = XetHash(os.urandom(32))
    with machines[0].capture() as frames, lan_node(machines[0], trackers=["http://10.77.0.2:7777/announce"]) as node:
        node.session.join(Kind.FILE, hash_, announce=True)
        node.until(lambda: node.session.trackers()[0].working is False)
    said = b"".join(frames)
    assert wire.file_swarm(hash_).hex().encode() in said
    assert hash_ not in said and hash_.hex().encode() not in said
