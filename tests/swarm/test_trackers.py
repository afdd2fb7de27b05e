"""Peers that meet at trackers: a real one, and scripted ones that lie, are silent, or say too much."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from swarm import wire_peer as wire
from swarm.node import Content, Node, Target
from swarm.trackers import HttpTracker, UdpTracker, opentracker, opentracker_program, peers_answer
from swarm.wire_peer import WirePeer, WireServer
from zest_hf._native.events import Kind, Outcome, PeerBanned, PeerReady, Source
from zest_hf.core.ids import XetHash

CONTENT = Content.random(20)
SWARM = wire.file_swarm(CONTENT.hash)


@pytest.mark.skipif(opentracker_program() is None, reason="Debian's opentracker is not installed")
@pytest.mark.parametrize("scheme", ["http", "udp"])
def test_two_meet_at_opentracker(tmp_path: Path, scheme: str) -> None:
    with opentracker([SWARM]) as port:
        url = f"{scheme}://127.0.0.1:{port}/announce"
        with Node(trackers=[url]) as holder, Node(trackers=[url]) as seeker:
            holder.share(CONTENT, tmp_path / "offered")
            holder.session.join(Kind.FILE, CONTENT.hash, announce=True)
            holder.until(lambda: holder.session.trackers()[0].working is True)
            begun_s = time.monotonic()
            seeker.session.join(Kind.FILE, CONTENT.hash, announce=False)
            peer = seeker.wait(PeerReady)
            ready_s = time.monotonic() - begun_s
            assert peer.token == 0
            with Target(tmp_path / "taken", CONTENT) as target:
                assert seeker.have(peer.peer, Kind.FILE, CONTENT.hash).outcome is Outcome.OK
                assert seeker.piece(peer.peer, target, 0, 1).outcome is Outcome.OK
            chunk_s = time.monotonic() - begun_s
            print(f"{scheme} tracker: ready after {ready_s * 1000:.0f} ms, first chunk after {chunk_s * 1000:.0f} ms")
            assert chunk_s < 1
            (info,) = (info for info in seeker.session.peers() if info.ready)
            assert info.source in (Source.TRACKER, Source.INCOMING)
            assert seeker.session.trackers()[0].url == url


def test_every_tracker_is_told_of_coming_and_going() -> None:
    with HttpTracker(lambda _: peers_answer([])) as first, UdpTracker(lambda _: []) as second:
        with Node(trackers=[first.url, second.url]) as node:
            node.session.join(Kind.FILE, CONTENT.hash, announce=False)
            node.until(lambda: [tracker.working for tracker in node.session.trackers()] == [True, True])
            (announce,) = first.announces
            assert announce["info_hash"] == SWARM
            assert announce["port"] == str(node.port).encode()
            assert second.announces[0][16:36] == SWARM
            node.session.leave(Kind.FILE, CONTENT.hash)
            node.until(lambda: first.events()[-1] == "stopped" and len(second.announces) == 2)
            assert node.session.stats().swarms_joined == 0
            assert node.session.stats().swarms_loaded == 1
            # And again.
            node.session.join(Kind.FILE, CONTENT.hash, announce=False)
            node.until(lambda: first.events()[-1] == "started" and len(second.announces) == 3)
        # A close says so too, and that of a swarm without a file asks no tracker.
        assert first.events() == ["started", "stopped", "started", "stopped"]


def test_a_xorb_is_asked_of_no_tracker() -> None:
    with HttpTracker(lambda _: peers_answer([])) as tracker, Node(trackers=[tracker.url]) as node:
        node.session.join(Kind.XORB, XetHash(os.urandom(32)), announce=True)
        node.session.join(Kind.FILE, CONTENT.hash, announce=True)
        node.until(lambda: node.session.trackers()[0].working is True)
        assert [announce["info_hash"] for announce in tracker.announces] == [SWARM]


@pytest.mark.parametrize("udp", [False, True], ids=["http", "udp"])
def test_a_tracker_that_does_not_answer(udp: bool) -> None:
    """The close is not held up, nor the other tracker."""
    silent = UdpTracker(lambda _: None) if udp else HttpTracker(lambda _: None)
    with (
        WireServer(lambda _: None) as peer,
        silent,
        HttpTracker(lambda _: peers_answer([("127.0.0.1", peer.port)])) as good,
        Node(trackers=[silent.url, good.url]) as node,
    ):
        node.session.join(Kind.FILE, CONTENT.hash, announce=False)
        node.wait(PeerReady)
        begun_s = time.monotonic()
        node.session.close()
        assert time.monotonic() - begun_s < 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>not a tracker</html>",
        b"d5:peers",
        b"d8:intervali1800e5:peers7:1234567e",
        b"d8:intervali-5e5:peersi5ee",
        b"d14:failure reason5:go on\n\x1b[31me",
        b"d" * 100_000,
        b"l" * 1_000_000,
        os.urandom(5000),
    ],
    ids=["nothing", "page", "cut", "odd", "types", "failure", "deep", "deeper", "noise"],
)
def test_garbage_from_a_tracker(answer: bytes) -> None:
    with (
        WireServer(lambda _: None) as peer,
        HttpTracker(lambda _: answer) as bad,
        HttpTracker(lambda _: peers_answer([("127.0.0.1", peer.port)])) as good,
        Node(trackers=[bad.url, good.url]) as node,
    ):
        node.session.join(Kind.FILE, CONTENT.hash, announce=False)
        assert node.wait(PeerReady).address == f"127.0.0.1:{peer.port}"
        node.until(lambda: node.session.trackers()[0].working is not None)
        assert node.session.trackers()[0].message.isprintable()


@pytest.mark.parametrize(
    "answer",
    [b"", b"\0" * 8, os.urandom(100), b"\0\0\0\3" + os.urandom(4) + b"no"],
    ids=["nothing", "short", "noise", "failure"],
)
def test_garbage_from_a_udp_tracker(answer: bytes) -> None:
    with (
        WireServer(lambda _: None) as peer,
        UdpTracker(lambda _: answer) as bad,
        UdpTracker(lambda _: [("127.0.0.1", peer.port)]) as good,
        Node(trackers=[bad.url, good.url]) as node,
    ):
        node.session.join(Kind.FILE, CONTENT.hash, announce=False)
        node.wait(PeerReady)


def test_a_tracker_that_names_ten_thousand() -> None:
    """Few of them are dialled at a time, and the one whom another tracker names is not kept waiting."""
    # A network that nobody has, RFC 5737: what is sent there gets no answer, or the refusal of our own machine.
    crowd = [(f"127.1.{number // 250}.{number % 250 + 1}", 2000 + number) for number in range(10_000)]
    listener = socket.create_server(("", 0))
    port = listener.getsockname()[1]
    listener.listen(0)
    crowd[-40:] = [(f"127.2.0.{number + 1}", port) for number in range(40)]  # takes connections and says nothing
    with (
        listener,
        WireServer(lambda _: None) as peer,
        HttpTracker(lambda _: peers_answer(crowd)) as liar,
        HttpTracker(lambda _: peers_answer([("127.0.0.1", peer.port)])) as good,
        Node(trackers=[liar.url]) as node,
    ):
        most = 0
        node.session.join(Kind.FILE, CONTENT.hash, announce=False)
        node.until(lambda: node.session.trackers()[0].working is True)
        assert node.session.trackers()[0].peers == 10_000
        end_s = time.monotonic() + 1
        while time.monotonic() < end_s:
            most = max(most, len(node.session.peers()), node.session.stats().dials_open)
            node.pump(0.02)
        assert 0 < most <= 12, most
        with Node(trackers=[liar.url, good.url]) as other:
            other.session.join(Kind.FILE, CONTENT.hash, announce=False)
            other.wait(PeerReady, deadline_s=20)


def test_addresses_that_are_not_dialled() -> None:
    """System ports, port 0, addresses that are nobody's; and ourselves not twice."""
    with WireServer(lambda _: None) as peer:
        bad = [("127.0.0.1", 22), ("127.0.0.1", 1023), ("127.0.0.1", 0), ("0.0.0.0", peer.port), ("224.0.0.1", 5000)]

        def answer(announce: dict[str, bytes]) -> bytes:
            own = int(announce["port"])
            return peers_answer([*bad, ("127.0.0.1", own), ("127.0.0.1", peer.port)])

        with HttpTracker(answer) as tracker, Node(trackers=[tracker.url]) as node:
            node.session.join(Kind.FILE, CONTENT.hash, announce=False)
            node.wait(PeerReady)
            node.until(lambda: node.session.stats().dials_open == 0)
            # Ours: the one that we serve, and for a moment the one to ourselves.
            node.until(lambda: len(node.session.peers()) == 1)
            assert peer.accepted == 1


@pytest.mark.parametrize("when", ["at once", "after the handshakes"])
def test_who_hangs_up_is_not_dialled_again_and_again(when: str) -> None:
    def script(peer: WirePeer) -> None:
        peer.socket.shutdown(socket.SHUT_RDWR)

    with (
        WireServer(script, handshakes=when != "at once") as peer,
        # In each of twenty swarms it is named.
        HttpTracker(lambda _: peers_answer([("127.0.0.1", peer.port)])) as tracker,
        Node(trackers=[tracker.url]) as node,
    ):
        for seed in range(20):
            node.session.join(Kind.FILE, Content.random(1, seed=seed).hash, announce=False)
        node.until(lambda: len(tracker.announces) >= 20 and peer.accepted >= 1)
        node.until(lambda: node.session.stats().dials_open == 0)
        node.pump(1.0)
        assert peer.accepted == 1


def test_who_comes_in_a_swarm_that_we_look_for() -> None:
    """As those do who found us in the DHT: no torrent of it is loaded."""
    with Node() as node:
        with socket.create_connection(("127.0.0.1", node.port)) as connection:
            stranger = WirePeer(connection)
            stranger.send_handshake(SWARM)
            stranger.wait_until_hung_up()
        node.session.join(Kind.FILE, CONTENT.hash, announce=True)
        node.until(lambda: node.session.stats().swarms_joined == 1)
        with WirePeer.dial(node.port, SWARM):
            node.wait(PeerReady)


def test_one_connection_whatever_they_meet_in(tmp_path: Path) -> None:
    """Three swarms, two trackers, both find each other."""
    contents = [Content.random(4, seed=seed) for seed in range(3)]
    ports: list[int] = []

    def answer(_: dict[str, bytes]) -> bytes:
        return peers_answer([("127.0.0.1", port) for port in ports])

    with HttpTracker(answer) as first, HttpTracker(answer) as second:
        urls = [first.url, second.url]
        with Node(trackers=urls) as a, Node(trackers=urls) as b:
            ports += [a.port, b.port]
            for number, content in enumerate(contents):
                a.share(content, tmp_path / f"a{number}")
                b.share(content, tmp_path / f"b{number}")
                a.session.join(Kind.FILE, content.hash, announce=True)
                b.session.join(Kind.FILE, content.hash, announce=True)
            a.wait(PeerReady)
            b.wait(PeerReady)
            for node in (a, b):
                node.until(lambda node=node: len(node.session.peers()) == 1)  # type: ignore[misc]
                node.until(lambda node=node: node.session.stats().dials_open == 0)  # type: ignore[misc]
            assert a.session.stats().peers_ready == b.session.stats().peers_ready == 1
            (info,) = b.session.peers()
            peer = info.peer
            for content in contents:
                assert b.have(peer, Kind.FILE, content.hash).outcome is Outcome.OK


def test_three_names_of_one_host_and_it_is_left_alone() -> None:
    """Decided by the address: a liar that comes back under another name has no use of it."""
    with Node() as node:
        for number in range(3):
            liar = WirePeer.dial(node.port, host="127.0.0.7")
            ready = node.wait(PeerReady)
            node.session.ban(ready.peer, f"lied {number}")
            node.wait(PeerBanned)
            liar.wait_until_hung_up()
            liar.close()
        with WirePeer.dial(node.port, host="127.0.0.7") as again:
            again.wait_until_hung_up()
        with WirePeer.dial(node.port, host="127.0.0.8"):
            node.wait(PeerReady)
        with WireServer(lambda _: None, host="127.0.0.7") as there:
            assert node.dial_in_vain(there.port, host="127.0.0.7") == "is banned"
            assert there.accepted == 0
