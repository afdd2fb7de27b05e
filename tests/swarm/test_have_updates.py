"""Being told when a peer holds more."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import wire_peer as wire
from swarm.node import DEADLINE_S, Content, Node, Target
from swarm.test_claims import stand_still
from zest_hf._native.events import HaveAnswer, HaveMore, Kind, Outcome, PeerGone
from zest_hf.core.ids import XetHash


@pytest.fixture
def b() -> Iterator[Node]:
    with Node() as node:
        yield node


def watch(node: Node, peer: int, kind: Kind, hash_: bytes) -> tuple[int, HaveAnswer]:
    token = node.token()
    node.session.ask_have(token, peer, kind, XetHash(hash_), DEADLINE_S, updates=True)
    return token, node.wait(HaveAnswer, lambda event: event.token == token)


def more(node: Node, token: int) -> HaveMore:
    return node.wait(HaveMore, lambda event: event.token == token)


def told(node: Node, token: int, ranges: set[tuple[int, int]]) -> None:
    """All of that comes, in however many events, and nothing twice."""
    seen: set[tuple[int, int]] = set()
    while seen != ranges:
        new = set(more(node, token).ranges)
        assert new <= ranges - seen, (new, seen)
        seen |= new


def test_a_download_tells_what_has_come(node: Node, b: Node, tmp_path: Path) -> None:
    content = Content.random(30)
    with Target(tmp_path / "a", content) as target:
        node.session.share_transfer(target.file, content.hash, content.terms)
        target.place(0, 3)
        peer = b.meet(node.port)
        file, answer = watch(b, peer, Kind.FILE, content.hash)
        assert answer.ranges == ((0, 3),)
        xorb, answer = watch(b, peer, Kind.XORB, content.xorbs[1][0])
        assert (answer.outcome, answer.ranges) == (Outcome.OK, ())
        plain = b.token()
        b.session.ask_have(plain, peer, Kind.XORB, content.xorbs[1][0], DEADLINE_S)
        b.wait(HaveAnswer, lambda event: event.token == plain)

        target.place(8, 12)
        assert more(b, file) == HaveMore(peer, file, False, ((8, 12),), 30)
        target.file.close()
        assert more(b, file) == HaveMore(peer, file, True, (), 0)
        assert not any(isinstance(event, HaveMore) and event.token == plain for event in b.events)
        # A second question of the same connection for the same object, without updates, ended nothing.
        assert more(b, xorb) == HaveMore(peer, xorb, False, ((0, 2),), 0)
        assert more(b, xorb) == HaveMore(peer, xorb, True, (), 0)


def test_the_finished_file_is_no_news(node: Node, b: Node, tmp_path: Path) -> None:
    content = Content.random(30)
    with Target(tmp_path / "a", content) as target:
        node.session.share_transfer(target.file, content.hash, content.terms)
        peer = b.meet(node.port)
        token, _ = watch(b, peer, Kind.FILE, content.hash)
        target.place(0, 30)
        assert more(b, token).ranges == ((0, 30),)
        path = node.share(content, tmp_path / "final")
        target.file.close()
        # Another object's update shows that time has passed.
        other = Content.random(5, seed=1)
        with Target(tmp_path / "other", other) as another:
            node.session.share_transfer(another.file, other.hash, other.terms)
            second, _ = watch(b, peer, Kind.FILE, other.hash)
            another.place(0, 5)
            assert more(b, second).ranges == ((0, 5),)
        assert not any(isinstance(event, HaveMore) and event.token == token for event in b.events)
        node.session.unshare(str(path), content.hash)
        assert more(b, token).gone


def test_forgetting(node: Node, b: Node, tmp_path: Path) -> None:
    content = Content.random(30)
    with Target(tmp_path / "a", content) as target:
        node.session.share_transfer(target.file, content.hash, content.terms)
        peer = b.meet(node.port)
        forgotten, _ = watch(b, peer, Kind.XORB, content.xorbs[0][0])
        token, _ = watch(b, peer, Kind.FILE, content.hash)
        b.session.forget_have(forgotten, peer)
        b.session.forget_have(99999, peer)
        b.session.forget_have(forgotten, 99999)
        # The peer has seen that when it answers the next question.
        assert b.have(peer, Kind.FILE, content.hash).outcome is Outcome.OK
        target.place(0, 5)
        told(b, token, {(0, 5)})
        assert not any(isinstance(event, HaveMore) for event in b.events)


def test_updates_are_few_and_complete(node: Node, tmp_path: Path) -> None:
    """Many chunks in a short time: at most ten messages a second, and together they say everything."""
    content = Content.random(400, size=100)
    with Target(tmp_path / "a", content) as target, wire.WirePeer.dial(node.port) as peer:
        node.session.share_transfer(target.file, content.hash, ())
        peer.send_zest(peer.have_request(7, wire.FILE, content.hash, updates=1))
        assert peer.receive_zest() == peer.their_have(7, wire.FILE, content.hash, 400, [])
        began_s = time.monotonic()
        for number in range(0, 400, 2):
            target.place(number, number + 1)
            time.sleep(0.002)  # the load of this test, not a wait for anything
        seen: list[int] = []
        messages = 0
        while len(seen) < 200:
            body = peer.receive_zest()
            type_, request, answer, chunks, count = struct.unpack_from(">BIBII", body)
            assert (type_, request, answer, chunks) == (wire.HAVE_UPDATE, 7, wire.OK, 400)
            numbers = struct.unpack_from(f">{2 * count}I", body, 14)
            assert count > 0 and all(end == first + 1 for first, end in zip(numbers[::2], numbers[1::2], strict=True))
            seen += numbers[::2]
            messages += 1
        assert sorted(seen) == list(range(0, 400, 2))
        assert messages <= (time.monotonic() - began_s) / 0.1 + 2


def test_cancel_ends_updates(node: Node, tmp_path: Path) -> None:
    content = Content.random(20)
    with Target(tmp_path / "a", content) as target, wire.WirePeer.dial(node.port) as peer:
        node.session.share_transfer(target.file, content.hash, content.terms)
        peer.send_zest(peer.have_request(1, wire.FILE, content.hash, updates=1))
        peer.send_zest(peer.have_request(2, wire.XORB, content.xorbs[0][0], updates=1))
        peer.send_zest(wire.cancel(1))
        peer.receive_zest(), peer.receive_zest()
        target.place(3, 4)
        assert peer.receive_zest() == wire.have_update(2, wire.OK, 0, [(3, 4)])
        # The same object again, under another number: the first has ended.
        peer.send_zest(peer.have_request(3, wire.XORB, content.xorbs[0][0], updates=1))
        assert peer.receive_zest() == peer.their_have(3, wire.XORB, content.xorbs[0][0], 0, [(3, 4)])
        target.place(0, 10)
        assert peer.receive_zest() == wire.have_update(3, wire.OK, 10, [(0, 3), (4, 10)])
        # No more for who does not know the hash.
        peer.send_zest(wire.have_request(4, wire.FILE, wire.file_swarm(content.hash), os.urandom(32), 1))
        assert peer.receive_zest() == wire.have(4, wire.NOT_FOUND, 0, [])
        target.place(10, 20)
        node.session.unshare_transfer(target.file)
        assert peer.receive_zest() == wire.have_update(3, wire.NOT_FOUND, 0, [])


def test_more_objects_than_are_remembered(node: Node, tmp_path: Path) -> None:
    """The last ones are answered, and not told of."""
    content = Content([b"%d" % number * 10 for number in range(4200)], per_xorb=1)
    with Target(tmp_path / "a", content) as target, wire.WirePeer.dial(node.port) as peer:
        node.session.share_transfer(target.file, content.hash, content.terms)
        for number, (xorb, _, _) in enumerate(content.xorbs):
            peer.send_zest(peer.have_request(number + 1, wire.XORB, xorb, updates=1))
            peer.receive_zest()
        target.place(0, 4200)
        updates = {struct.unpack_from(">BI", peer.receive_zest())[1] for _ in range(4096)}
        assert updates == set(range(1, 4097))
        peer.send_zest(peer.have_request(9000, wire.FILE, content.hash))
        assert peer.receive_zest() == peer.their_have(9000, wire.FILE, content.hash, 4200, [(0, 4200)])


def test_who_has_answers_waiting_is_told_what_is_new(node: Node, tmp_path: Path) -> None:
    """Each once, behind those; what comes while much is waiting in one."""
    content = Content.random(300, size=131072)
    growing = Content.random(4000, size=50, seed=1)
    offered = node.share(content, tmp_path / "offered")
    assert offered
    with Target(tmp_path / "a", growing) as target, wire.WirePeer.dial(node.port) as peer:
        node.session.share_transfer(target.file, growing.hash, ())
        peer.send_zest(peer.have_request(1, wire.FILE, growing.hash, updates=1))
        peer.receive_zest()
        stand_still(node, peer, content, 2)
        for number in range(0, 4000, 2):
            target.place(number, number + 1)
            if number % 500 == 0:
                node.pump(0.15)
        waiting = node.session.stats().bytes_up
        updates: list[list[tuple[int, int]]] = []
        while sum(map(len, updates)) < 2000:
            body = peer.receive_zest()
            if body[0] == wire.HAVE_UPDATE:
                updates.append([struct.unpack_from(">II", body, at) for at in range(14, len(body), 8)])
            elif not updates:
                waiting -= len(body) - 9
        assert waiting >= 0
        told = [one for update in updates for one in update]
        assert told == [(number, number + 1) for number in range(0, 4000, 2)]


# --- the other way: peers that tell --------------------------------------------------------------------


def test_a_peer_that_tells_too_much(node: Node) -> None:
    """One event waits, whatever comes; ids that never were end the connection."""
    content = Content.random(10)
    first_taken = threading.Event()

    def script(peer: wire.WirePeer) -> None:
        question = peer.question()
        assert question.updates == 1
        peer.send_zest(wire.have(question.request, wire.OK, 10, [], question.hold(content.hash)))
        peer.send_zest(wire.have_update(question.request, wire.OK, 10, [(0, 1)]))
        assert first_taken.wait(DEADLINE_S)
        for number in range(20_000):
            peer.send_zest(wire.have_update(question.request, wire.OK, 10, [(number % 10, number % 10 + 1)]))
        peer.send_zest(wire.have_update(question.request, wire.NOT_FOUND, 0, []))
        peer.send_zest(wire.have_update(question.request, wire.OK, 10, [(0, 1)]))  # late: of no use
        peer.send_zest(wire.have(peer.question().request, wire.NOT_FOUND, 0, []))
        peer.question()
        peer.send_zest(wire.have_update(4711, wire.OK, 10, [(0, 1)]))

    with wire.WireServer(script) as server:
        peer = node.meet(server.port)
        watch(node, peer, Kind.FILE, content.hash)
        node.wait(HaveMore)
        first_taken.set()
        node.session.ask_have(node.token(), peer, Kind.FILE, content.hash, DEADLINE_S)
        # Nobody takes the events meanwhile.
        while node.session.peers()[0].requests_out:
            time.sleep(0.01)
        events = [event for event in node.pump() if isinstance(event, HaveMore)]
        assert [event.gone for event in events] == [False, True] and events[0].ranges == ((0, 10),)
        node.session.ask_have(node.token(), peer, Kind.FILE, content.hash, DEADLINE_S)
        assert node.wait(PeerGone).reason == "broke the protocol"


def test_a_flood_of_updates_is_told_at_a_bearable_pace(node: Node) -> None:
    """... and all of it."""
    content = Content.random(3000, 30)

    def script(peer: wire.WirePeer) -> None:
        question = peer.question()
        peer.send_zest(wire.have(question.request, wire.OK, 3000, [], question.hold(content.hash)))
        for number in range(3000):
            peer.send_zest(wire.have_update(question.request, wire.OK, 3000, [(number, number + 1)]))

    with wire.WireServer(script) as server:
        peer = node.meet(server.port)
        began_s = time.monotonic()
        token, _ = watch(node, peer, Kind.FILE, content.hash)
        seen: set[int] = set()
        events = 0
        while len(seen) < 3000:
            seen.update(number for first, end in more(node, token).ranges for number in range(first, end))
            events += 1
        assert events <= 20 + 12 * (time.monotonic() - began_s) + 1
