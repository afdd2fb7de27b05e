"""Downloaders of a file that tell each other what they fetch."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import wire_peer as wire
from swarm.keyed_peer import KeyedPeer
from swarm.node import Content, Node, Target, settings_of
from swarm.wire_peer import WirePeer
from zest_hf._native.events import Claims, ClaimState, Event, HaveAnswer, HaveMore, Kind, Outcome, PeerReady
from zest_hf._native.session import MAX_CLAIMS
from zest_hf.core.ids import XetHash
from zest_hf.core.policy import PolicySettings
from zest_hf.errors import SwarmError
from zest_hf.swarm import Swarm

CONTENT = Content.random(30)
SWARM = wire.file_swarm(CONTENT.hash)
FETCHING, HELD = ClaimState.FETCHING, ClaimState.HELD
KEY = b"a swarm key that is long enough"


@pytest.fixture
def b() -> Iterator[Node]:
    with Node() as node:
        yield node


@pytest.fixture(params=[None, KEY], ids=["open", "keyed"])
def crowd(request: pytest.FixtureRequest) -> Iterator[list[Node]]:
    nodes: list[Node] = []
    try:
        for _ in range(4):
            nodes.append(Node(swarm_key=request.param))
            nodes[-1].session.join(Kind.FILE, CONTENT.hash, announce=True)
        yield nodes
    finally:
        for node in nodes:
            node.session.close()


def ask(node: Node, peer: int, content: Content = CONTENT) -> tuple[int, HaveAnswer]:
    """Both have proved to each other that they know the file, once this is answered."""
    token = node.token()
    node.session.ask_have(token, peer, Kind.FILE, content.hash, 10.0, updates=True)
    return token, node.wait(HaveAnswer, lambda event: event.token == token)


def said(node: Node, peer: int | None = None) -> Claims:
    return node.wait(Claims, lambda event: peer in (None, event.peer))


def acquaint(peer: WirePeer, request: int = 1) -> None:
    """The scripted peer proves to know the file, and is answered."""
    peer.send_zest(peer.have_request(request, wire.FILE, CONTENT.hash))
    assert peer.receive_zest()[:6] == wire.have(request, wire.OK, 0, [])[:6]


def test_a_crowd_that_holds_nothing(crowd: list[Node]) -> None:
    """Who only looks for a file says so to who knows it; all find each other, and hear what each fetches."""
    hub, *others = crowd
    for number, node in enumerate(crowd):
        node.session.tell_claims(CONTENT.hash, True, [(number, number + 1, FETCHING, number)])
    for node in others:
        _, answer = ask(node, node.meet(hub.port))
        assert (answer.outcome, answer.chunks, answer.ranges) == (Outcome.OK, 0, ())
    # Of the other two each hears from the hub; whoever turns up is asked.
    heard: list[dict[bytes, Claims]] = [{} for _ in crowd]
    end_s = time.monotonic() + 20
    while any(len(of) < 3 for of in heard):
        assert time.monotonic() < end_s, heard
        for node, of in zip(crowd, heard, strict=True):
            names = {info.peer: bytes.fromhex(info.node_id) for info in node.session.peers()}
            for event in node.pump(0.02):
                if isinstance(event, PeerReady):
                    node.session.ask_have(node.token(), event.peer, Kind.FILE, CONTENT.hash, 10.0)
                elif isinstance(event, Claims) and event.peer in names:
                    of[names[event.peer]] = event
            node.events.clear()
    for node, of in zip(crowd, heard, strict=True):
        for number, other in enumerate(crowd):
            if other is not node:
                claims = of[other.node_id]
                assert claims.file_hash == CONTENT.hash and claims.downloading
                assert claims.claims == ((number, number + 1, FETCHING, number),)


def test_a_seeker_that_begins_to_hold(node: Node, b: Node, tmp_path: Path) -> None:
    node.session.join(Kind.FILE, CONTENT.hash, announce=False)
    peer = b.meet(node.port)
    token, answer = ask(b, peer)
    assert answer == HaveAnswer(peer, token, Outcome.OK, 0, ())
    assert b.manifest(peer, Kind.FILE, CONTENT.hash, 0, 10).outcome is Outcome.NOT_FOUND
    with Target(tmp_path / "a", CONTENT) as target:
        node.session.share_transfer(target.file, CONTENT.hash, CONTENT.terms)
        target.place(3, 5)
        ranges: set[tuple[int, int]] = set()
        while not ranges:
            more = b.wait(HaveMore, lambda event: event.token == token)
            assert not more.gone and more.chunks == 30
            ranges |= set(more.ranges)
        assert ranges == {(3, 5)}
    assert b.wait(HaveMore, lambda event: event.token == token).gone


def test_who_leaves_is_not_found(node: Node, b: Node) -> None:
    """And who never joined."""
    peer = b.meet(node.port)
    assert ask(b, peer)[1].outcome is Outcome.NOT_FOUND
    node.session.join(Kind.FILE, CONTENT.hash, announce=False)
    b.session.join(Kind.FILE, CONTENT.hash, announce=False)
    node.session.tell_claims(CONTENT.hash, True, [(0, 3, FETCHING, 0)])
    token, answer = ask(b, peer)
    assert answer.outcome is Outcome.OK
    assert said(b).downloading
    # Even if it does not say so.
    node.session.leave(Kind.FILE, CONTENT.hash)
    assert said(b) == Claims(peer, CONTENT.hash, False, ())
    assert b.wait(HaveMore, lambda event: event.token == token) == HaveMore(peer, token, True, (), 0)
    assert ask(b, peer)[1].outcome is Outcome.NOT_FOUND
    # A xorb that is looked for is not a file that somebody waits for.
    node.session.join(Kind.XORB, CONTENT.xorbs[0][0], announce=False)
    assert b.have(peer, Kind.XORB, CONTENT.xorbs[0][0]).outcome is Outcome.NOT_FOUND


def test_what_is_said_when(node: Node) -> None:
    """The state to who proves, changes soon, progress later, the same once; and that it is over."""
    node.session.join(Kind.FILE, CONTENT.hash, announce=False)
    with WirePeer.dial(node.port) as early, WirePeer.dial(node.port) as stranger:
        acquaint(early)
        began_s = time.monotonic()
        node.session.tell_claims(CONTENT.hash, True, [])
        assert early.receive_zest() == wire.claims(SWARM, 1, [])
        for progress in (0, 1, 2, 3):
            node.session.tell_claims(CONTENT.hash, True, [(5, 9, FETCHING, progress), (0, 2, HELD, 65535)])
        assert early.receive_zest() == wire.claims(SWARM, 1, [(0, 2, HELD, 65535), (5, 9, FETCHING, 3)])
        assert time.monotonic() - began_s > 0.099
        with WirePeer.dial(node.port) as late:
            acquaint(late)
            assert late.receive_zest() == wire.claims(SWARM, 1, [(0, 2, HELD, 65535), (5, 9, FETCHING, 3)])
            node.session.tell_claims(CONTENT.hash, True, [(0, 2, HELD, 65535), (5, 9, FETCHING, 700)])
            assert early.receive_zest() == wire.claims(SWARM, 1, [(0, 2, HELD, 65535), (5, 9, FETCHING, 700)])
            assert time.monotonic() - began_s > 0.599
            assert late.receive_zest() == wire.claims(SWARM, 1, [(0, 2, HELD, 65535), (5, 9, FETCHING, 700)])
            # The same once more is no news; who asks once more is told once more.
            node.session.tell_claims(CONTENT.hash, True, [(5, 9, FETCHING, 700), (0, 2, HELD, 65535)])
            acquaint(late, 2)
            assert late.receive_zest() == wire.claims(SWARM, 1, [(0, 2, HELD, 65535), (5, 9, FETCHING, 700)])
            node.session.tell_claims(CONTENT.hash, False, [])
            for peer in (early, late):
                assert peer.receive_zest() == wire.claims(SWARM, 0, [])
        acquaint(early, 3)
        # Nothing more; and nothing at all to who proved nothing.
        for peer in (early, stranger):
            peer.socket.settimeout(0.3)
            with pytest.raises(TimeoutError):
                peer.receive_zest()


def test_who_is_heard(node: Node) -> None:
    """Who has proved to know the file, if it was joined."""
    other = Content.random(3, seed=7)
    node.session.join(Kind.FILE, other.hash, announce=False)
    with WirePeer.dial(node.port) as peer:
        # Not joined, then not proved.
        peer.send_zest(wire.claims(SWARM, 1, [(0, 1, FETCHING, 1)]))
        peer.send_zest(wire.claims(wire.file_swarm(other.hash), 1, [(0, 1, FETCHING, 2)]))
        peer.send_zest(peer.have_request(1, wire.FILE, other.hash))
        assert peer.receive_zest()[0] == wire.HAVE
        node.session.join(Kind.FILE, CONTENT.hash, announce=False)
        peer.send_zest(wire.claims(wire.file_swarm(other.hash), 1, [(0, 1, FETCHING, 3)]))
        peer.send_zest(wire.claims(SWARM, 1, [(0, 1, FETCHING, 4)]))
        acquaint(peer)
        peer.send_zest(wire.claims(SWARM, 1, [(0, 1, FETCHING, 5), (1, 9, HELD, 65535)]))
        first = said(node)
        assert (first.file_hash, first.claims) == (other.hash, ((0, 1, FETCHING, 3),))
        second = said(node)
        assert (second.file_hash, second.claims) == (CONTENT.hash, ((0, 1, FETCHING, 5), (1, 9, HELD, 65535)))
        node.session.leave(Kind.FILE, CONTENT.hash)
        peer.send_zest(wire.claims(SWARM, 0, []))
        peer.send_zest(wire.claims(wire.file_swarm(other.hash), 0, []))
        assert said(node) == Claims(second.peer, other.hash, False, ())
        assert not any(isinstance(event, Claims) for event in node.events)


def test_a_flood_is_one_event(node: Node) -> None:
    """With the last state, for each of at most 64 files."""
    files = [Content.random(1, size=50, seed=number) for number in range(100)]
    with WirePeer.dial(node.port) as peer:
        for number, content in enumerate(files):
            node.session.join(Kind.FILE, content.hash, announce=False)
            peer.send_zest(peer.have_request(number, wire.FILE, content.hash))
            assert peer.receive_zest()[0] == wire.HAVE
        node.pump()
        node.events.clear()
        everything = [(first, first + 1, FETCHING, first) for first in range(MAX_CLAIMS)]
        for round_ in range(20):
            for content in files:
                swarm = wire.file_swarm(content.hash)
                peer.send_zest(wire.claims(swarm, 1, [*everything[:-1], (1023, 1024, FETCHING, round_)]))
                peer.send_zest(wire.claims(swarm, 0, []))
                peer.send_zest(wire.claims(swarm, 1, [*everything[:-1], (1023, 1024, FETCHING, round_)]))
        peer.send_zest(peer.have_request(1000, wire.FILE, bytes(32)))
        assert peer.receive_zest() == wire.have(1000, wire.NOT_FOUND, 0, [])
        events = [event for event in node.pump() if isinstance(event, Claims)]
        assert len(events) == 64
        assert {event.claims[-1] for event in events} == {(1023, 1024, FETCHING, 19)}
        # Now there is room for the others, as soon as it has been quiet for a moment.
        node.events.clear()

        def another_is_heard() -> bool:
            peer.send_zest(wire.claims(wire.file_swarm(files[99].hash), 1, []))
            return any(isinstance(event, Claims) and event.file_hash == files[99].hash for event in node.events)

        node.until(another_is_heard)


def stand_still(node: Node, peer: WirePeer, content: Content, request: int) -> None:
    """Asks for all of a file and reads nothing of it, until nothing more is sent (on a busy machine: for a while)."""
    peer.send_zest(wire.range_request(request, wire.FILE, content.hash, 0, len(content.chunks)))
    node.until(lambda: node.session.stats().bytes_up > 0)
    before = -1
    while before != (before := node.session.stats().bytes_up):
        node.pump(0.3)
    assert before < len(content.data)


def test_who_has_answers_waiting_is_told_at_once(node: Node, tmp_path: Path) -> None:
    """As who takes all that the line carries has, all the time: what is new comes behind those, and not after all."""
    content = Content.random(300, size=131072)
    node.share(content, tmp_path / "offered")
    node.session.join(Kind.FILE, CONTENT.hash, announce=False)
    with WirePeer.dial(node.port) as peer, WirePeer.dial(node.port) as other:
        acquaint(peer)
        acquaint(other)
        stand_still(node, peer, content, 2)
        node.session.tell_claims(CONTENT.hash, True, [(1, 2, FETCHING, 3)])
        claims = wire.claims(SWARM, 1, [(1, 2, FETCHING, 3)])
        # All are told in one go.
        assert other.receive_zest() == claims
        waiting = node.session.stats().bytes_up
        while (body := peer.receive_zest()) != claims:
            assert body[0] == wire.RANGE_DATA
            waiting -= len(body) - 9
        assert waiting >= 0


def test_a_peer_that_does_not_read_is_told_the_latest(node: Node, tmp_path: Path) -> None:
    """Behind the first ones, of which little waits."""
    content = Content.random(300, size=131072)
    node.share(content, tmp_path / "offered")
    node.session.join(Kind.FILE, CONTENT.hash, announce=False)
    many = [(first, first + 1, FETCHING, 7) for first in range(MAX_CLAIMS - 1)]
    with WirePeer.dial(node.port) as peer:
        acquaint(peer)
        stand_still(node, peer, content, 2)
        for progress in range(10):
            node.session.tell_claims(CONTENT.hash, True, [*many, (2000 + progress, 3000, FETCHING, progress)])
            node.pump(0.15)
        told = []
        while not told or told[-1] != 9:
            body = peer.receive_zest()
            if body[0] == wire.CLAIMS:
                told.append(int.from_bytes(body[-2:], "big"))
        assert told == [0, 1, 9]


@pytest.mark.parametrize(
    "bad",
    {
        "short": wire.claims(SWARM, 1, [])[:-1],
        "long": wire.claims(SWARM, 1, []) + b"\0",
        "flags": wire.claims(SWARM, 2, []),
        "claims without a download": wire.claims(SWARM, 0, [(0, 1, 1, 0)]),
        "state 0": wire.claims(SWARM, 1, [(0, 1, 0, 0)]),
        "state 3": wire.claims(SWARM, 1, [(0, 1, 3, 0)]),
        "empty": wire.claims(SWARM, 1, [(1, 1, 1, 0)]),
        "too far": wire.claims(SWARM, 1, [(0, (1 << 28) + 1, 1, 0)]),
        "overlap": wire.claims(SWARM, 1, [(0, 2, 1, 0), (1, 3, 1, 0)]),
        "out of order": wire.claims(SWARM, 1, [(4, 5, 1, 0), (1, 3, 1, 0)]),
        "too many": wire.claims(SWARM, 1, [(n, n + 1, 1, 0) for n in range(1025)]),
    }.items(),
    ids=lambda item: item[0],
)
def test_what_is_malformed_closes(node: Node, bad: tuple[str, bytes]) -> None:
    node.session.join(Kind.FILE, CONTENT.hash, announce=False)
    with WirePeer.dial(node.port) as peer:
        acquaint(peer)
        peer.send_zest(bad[1])
        peer.wait_until_hung_up()
    assert not any(isinstance(event, Claims) for event in node.pump())


def test_a_keyed_swarm() -> None:
    with Node(swarm_key=KEY) as node:
        node.session.join(Kind.FILE, CONTENT.hash, announce=False)
        node.session.tell_claims(CONTENT.hash, True, [(0, 1, FETCHING, 1)])
        with KeyedPeer.dial_keyed(node.port, KEY) as peer:
            swarm = peer.swarm_of(wire.FILE, CONTENT.hash)
            acquaint(peer)
            assert peer.receive_zest() == wire.claims(swarm, 1, [(0, 1, FETCHING, 1)])
            peer.send_zest(wire.claims(SWARM, 1, []))  # as it is called elsewhere
            peer.send_zest(wire.claims(swarm, 1, [(2, 3, HELD, 2)]))
            assert said(node).claims == ((2, 3, HELD, 2),)
            assert SWARM not in peer.seen and swarm not in peer.seen[68:]


def test_every_listener_of_a_swarm_hears_them(node: Node, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, node.port)
    swarm = Swarm(settings, PolicySettings())
    inboxes: list[queue.SimpleQueue[Event]] = [queue.SimpleQueue(), queue.SimpleQueue()]
    listeners = [inbox.put for inbox in inboxes]
    try:
        for listener in listeners:
            swarm.subscribe(listener)
        swarm.join_file(CONTENT.hash)
        swarm.tell_claims(CONTENT.hash, True, [(0, 2, FETCHING, 1)])
        swarm.dial_given()
        node.session.join(Kind.FILE, CONTENT.hash, announce=False)
        node.session.tell_claims(CONTENT.hash, True, [(2, 4, FETCHING, 2)])
        ready = node.wait(PeerReady)
        assert ready.node_id == swarm.node_id
        ask(node, ready.peer)
        assert said(node).claims == ((0, 2, FETCHING, 1),)
        for inbox in inboxes:
            _connected, met, heard = (inbox.get(timeout=10) for _ in range(3))
            assert isinstance(met, PeerReady) and met.node_id == node.node_id
            assert heard == Claims(met.peer, CONTENT.hash, True, ((2, 4, FETCHING, 2),))
        swarm.leave_file(CONTENT.hash)
        assert not said(node).downloading
    finally:
        swarm.close()


def test_a_peer_without_a_name(node: Node) -> None:
    with WirePeer.dial(node.port, node_id=None):
        assert node.wait(PeerReady).node_id == bytes(20)


def test_what_cannot_be_said(node: Node) -> None:
    tell = node.session.tell_claims
    for wrong in (
        [(0, 0, 1, 0)],
        [(0, 2, 1, 0), (1, 3, 1, 0)],
        [(0, 1, 1, 65536)],
        [(-1, 1, 1, 0)],
        [(0, 1, 3, 0)],
        [(0, (1 << 28) + 1, 1, 0)],
    ):
        with pytest.raises(SwarmError):
            tell(CONTENT.hash, True, wrong)
    with pytest.raises(SwarmError):
        tell(CONTENT.hash, False, [(0, 1, 1, 0)])
    with pytest.raises(SwarmError):
        tell(XetHash(b"short"), True, [])
    # More than there is room for: what is fetched comes first.
    node.session.join(Kind.FILE, CONTENT.hash, announce=False)
    held = [(first, first + 1, HELD, 65535) for first in range(2000)]
    tell(CONTENT.hash, True, [*held, (2000, 2001, FETCHING, 7)])
    with WirePeer.dial(node.port) as peer:
        acquaint(peer)
        assert peer.receive_zest() == wire.claims(SWARM, 1, [*held[: MAX_CLAIMS - 1], (2000, 2001, FETCHING, 7)])


def test_a_flood_is_told_at_a_bearable_pace(node: Node) -> None:
    """Also if each event is taken at once; the last of it is told in the end."""
    node.session.join(Kind.FILE, CONTENT.hash, announce=False)
    node.session.tell_claims(CONTENT.hash, True, [])
    with WirePeer.dial(node.port) as peer:
        acquaint(peer)
        began_s = time.monotonic()
        for number in range(1, 3000):
            peer.send_zest(wire.claims(SWARM, 1, [(0, 1, 1, number)]))
        peer.send_zest(wire.claims(SWARM, 0, []))
        events = 1
        while said(node).downloading:
            events += 1
        assert events <= 20 + 12 * (time.monotonic() - began_s) + 1
