"""Peers that learn of each other from a third."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from swarm import wire_peer as wire
from swarm.node import Content, Node
from swarm.wire_peer import WirePeer, WireServer
from zest_hf._native.events import Kind, Outcome, PeerReady, Source

CONTENT = Content.random(10)
SWARM = wire.file_swarm(CONTENT.hash)


def mapped(host: str) -> bytes:
    if ":" in host:
        return socket.inet_pton(socket.AF_INET6, host)
    return bytes(10) + b"\xff\xff" + socket.inet_aton(host)


def test_three_of_one_file(tmp_path: Path) -> None:
    with Node() as hub, Node() as first, Node() as second:
        for number, node in enumerate((hub, first, second)):
            node.share(CONTENT, tmp_path / f"{number}")
            node.session.join(Kind.FILE, CONTENT.hash, announce=False)
        peers = [node.meet(hub.port) for node in (first, second)]
        # They know nothing of each other as long as they have proved nothing.
        assert first.session.stats().peers_ready == 1
        for node, peer in zip((first, second), peers, strict=True):
            assert node.have(peer, Kind.FILE, CONTENT.hash).outcome is Outcome.OK
        met = first.wait(PeerReady)
        assert first.have(met.peer, Kind.FILE, CONTENT.hash).outcome is Outcome.OK
        second.wait(PeerReady)
        sources = {info.source for node in (first, second) for info in node.session.peers()}
        assert Source.PEX in sources
        for node in (hub, first, second):
            node.until(lambda node=node: node.session.stats().dials_open == 0)  # type: ignore[misc]
            assert node.session.stats().peers_ready == 2


def test_what_is_told_to_whom(tmp_path: Path) -> None:
    """The port that a caller gives, with its host; to who has proved to know the file, and once.

    Who comes is told first, the others only if he has not come to them himself.
    """
    with Node() as node:
        node.share(CONTENT, tmp_path / "offered")
        with (
            WirePeer.dial(node.port, listen_port=4444) as first,
            WirePeer.dial(node.port, listen_port=5555, host="127.0.0.2") as second,
            WirePeer.dial(node.port, listen_port=6666, host="127.0.0.3") as stranger,
        ):
            for peer in (first, second):
                peer.send_zest(peer.have_request(1, wire.FILE, CONTENT.hash))
                assert peer.receive_zest()[0] == wire.HAVE
            assert second.receive_zest() == wire.peers(SWARM, [(mapped("127.0.0.1"), 4444)])
            assert first.receive_zest() == wire.peers(SWARM, [(mapped("127.0.0.2"), 5555)])
            stranger.send_zest(stranger.have_request(1, wire.FILE, os.urandom(32)))
            assert stranger.receive_zest()[0] == wire.HAVE
            with WirePeer.dial(node.port, listen_port=7777, host="127.0.0.4") as third:
                third.send_zest(third.have_request(1, wire.FILE, CONTENT.hash))
                assert third.receive_zest()[0] == wire.HAVE
                told = third.receive_zest()
                assert told == wire.peers(SWARM, [(mapped("127.0.0.1"), 4444), (mapped("127.0.0.2"), 5555)])
                # Only the news.
                assert first.receive_zest() == wire.peers(SWARM, [(mapped("127.0.0.4"), 7777)])
            stranger.socket.settimeout(0.2)
            with pytest.raises(TimeoutError):
                stranger.receive_zest()


@pytest.mark.parametrize("proved", [False, True])
def test_who_is_believed(tmp_path: Path, proved: bool) -> None:
    """Who has not proved to know the object can send us nowhere."""
    with WireServer(lambda _: None) as there, Node() as node:
        node.share(CONTENT, tmp_path / "offered")
        node.session.join(Kind.FILE, CONTENT.hash, announce=True)
        with WirePeer.dial(node.port) as peer:
            if proved:
                peer.send_zest(peer.have_request(1, wire.FILE, CONTENT.hash))
                assert peer.receive_zest()[0] == wire.HAVE
            peer.send_zest(wire.peers(SWARM, [(mapped("127.0.0.1"), there.port), (mapped("127.0.0.1"), 22)]))
            # Answered after that.
            peer.send_zest(peer.have_request(2, wire.FILE, CONTENT.hash))
            assert peer.receive_zest()[0] == wire.HAVE
            if proved:
                node.until(lambda: there.accepted == 1)
                node.until(lambda: node.session.stats().peers_ready == 2)
            assert there.accepted == proved


def test_a_peer_that_names_the_whole_world(tmp_path: Path) -> None:
    """A hundred a minute are listened to, whatever it says, and few are dialled at a time."""
    with Node() as node, WireServer(lambda _: None) as there:
        node.share(CONTENT, tmp_path / "offered")
        node.session.join(Kind.FILE, CONTENT.hash, announce=True)
        with WirePeer.dial(node.port) as liar, WirePeer.dial(node.port, host="127.0.0.2") as honest:
            for peer in (liar, honest):
                peer.send_zest(peer.have_request(1, wire.FILE, CONTENT.hash))
                assert peer.receive_zest()[0] == wire.HAVE
            for part in range(100):
                crowd = [(mapped(f"127.9.{part}.{number + 1}"), 3000) for number in range(50)]
                liar.send_zest(wire.peers(SWARM, crowd))
            honest.send_zest(wire.peers(SWARM, [(mapped("127.0.0.1"), there.port)]))
            node.until(lambda: there.accepted == 1, deadline_s=30)
            assert node.session.stats().dials_open <= 12
