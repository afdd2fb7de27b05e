"""Chunks that nobody can prove yet, passed on while they come."""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import wire_peer as wire
from swarm.keyed_peer import KeyedPeer
from swarm.node import Content, Node, good
from swarm.wire_peer import WirePeer
from zest_hf._native import codec
from zest_hf._native.draft import Draft
from zest_hf._native.events import Kind, Outcome, PeerBanned, PeerGone, PieceEnd
from zest_hf.core.ids import XetHash
from zest_hf.errors import SwarmError

KEY = b"a swarm key that is long enough"
TIMEOUT_S = 10.0
CONTENT = Content.random(40, 30_000, per_xorb=20)
XORB, FIRST, END = CONTENT.xorbs[1]
PART = CONTENT.manifest.slice(FIRST, END)
DATA = b"".join(CONTENT.chunks[FIRST:END])
OFFSET = 1000


class Half:
    """A file that the second xorb of CONTENT comes to, at OFFSET."""

    def __init__(self, path: Path, size_bytes: int = len(DATA)) -> None:
        self.path = path
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        self.draft = Draft(fd, OFFSET, size_bytes, XORB, 0, END - FIRST)
        os.close(fd)

    def comes(self, first: int, end: int) -> None:
        """As from the CDN: written, and then told of."""
        with self.path.open("r+b") as file:
            file.seek(OFFSET + PART.offset(first))
            file.write(DATA[PART.offset(first) : PART.offset(end)])
        part = PART.slice(first, end)
        self.draft.add(part.hashes, part.lengths)

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()[OFFSET:]


@pytest.fixture(params=[None, KEY], ids=["open", "keyed"])
def two(request: pytest.FixtureRequest) -> Iterator[tuple[Node, Node]]:
    with Node(swarm_key=request.param) as a, Node(swarm_key=request.param) as b:
        yield a, b


@pytest.fixture
def halves(tmp_path: Path) -> Iterator[tuple[Half, Half]]:
    halves = Half(tmp_path / "from"), Half(tmp_path / "to")
    yield halves
    for half in halves:
        half.draft.close()


def shared(two: tuple[Node, Node], halves: tuple[Half, Half]) -> tuple[Half, Half, int]:
    """What comes at the first node is to be followed, and the second one's number of the first."""
    (a, b), (come, to) = two, halves
    a.session.share_draft(come.draft)
    return come, to, b.meet(a.port)


def follow(node: Node, peer: int, draft: Draft, timeout_s: float = TIMEOUT_S) -> int:
    token = node.token()
    node.session.follow(token, peer, draft, timeout_s)
    return token


def test_chunks_travel_while_they_come(two: tuple[Node, Node], halves: tuple[Half, Half]) -> None:
    a, b = two
    come, to, peer = shared(two, halves)
    come.comes(0, 3)
    token = follow(b, peer, to.draft)
    for at in range(3, 19, 4):
        b.until(lambda at=at: to.draft.size_bytes == PART.offset(at))
        come.comes(at, at + 4)
    come.comes(19, 20)
    end = b.ended(token)
    assert (end.outcome, end.chunks_written) == (Outcome.OK, 20)
    assert to.data == DATA
    manifest = to.draft.manifest()
    manifest.prove_xorb(XORB)
    assert a.session.stats().bytes_up == len(DATA)
    assert [info.requests_in for info in a.session.peers()] == [0]


def test_who_begins_late_gets_what_was_before(two: tuple[Node, Node], halves: tuple[Half, Half]) -> None:
    """... also when all of it is there, and nobody else may begin."""
    a, b = two
    come, to, peer = shared(two, halves)
    come.comes(0, 19)
    token = follow(b, peer, to.draft)
    b.until(lambda: to.draft.size_bytes == PART.offset(19))
    a.session.unshare_draft(come.draft)
    come.comes(19, 20)
    come.draft.end()
    assert b.ended(token).outcome is Outcome.OK and to.data == DATA
    again = Half(to.path.with_name("again"))
    assert b.ended(follow(b, peer, again.draft)).outcome is Outcome.NOT_FOUND
    again.draft.close()


def test_it_comes_to_an_early_end(two: tuple[Node, Node], halves: tuple[Half, Half]) -> None:
    _, b = two
    come, to, peer = shared(two, halves)
    token = follow(b, peer, to.draft)
    come.comes(0, 6)
    b.until(lambda: to.draft.size_bytes == PART.offset(6))
    come.comes(6, 7)
    come.draft.end()
    end = b.ended(token)
    assert (end.outcome, end.chunks_written) == (Outcome.BUSY, 7)
    assert to.draft.manifest() == PART.slice(0, 7)
    with pytest.raises(SwarmError):
        come.comes(7, 8)
    # What broke off is not to be followed any more.
    again = Half(to.path.with_name("again"))
    assert b.ended(follow(b, peer, again.draft)).outcome is Outcome.NOT_FOUND
    again.draft.close()


def test_a_closed_one_is_not_read(two: tuple[Node, Node], halves: tuple[Half, Half]) -> None:
    a, b = two
    come, to, peer = shared(two, halves)
    come.comes(0, 7)
    come.draft.close()
    assert b.ended(follow(b, peer, to.draft)).outcome in (Outcome.NOT_FOUND, Outcome.BUSY)
    assert come.draft.size_bytes == 0
    with pytest.raises(SwarmError):
        a.session.share_draft(come.draft)


def test_who_follows_stops(two: tuple[Node, Node], halves: tuple[Half, Half]) -> None:
    _, b = two
    come, to, peer = shared(two, halves)
    come.comes(0, 5)
    token = follow(b, peer, to.draft)
    b.until(lambda: to.draft.size_bytes == PART.offset(5))
    b.session.cancel_piece(peer, token)
    assert b.ended(token).outcome is Outcome.CANCELLED
    come.comes(5, 20)
    # The connection is as good as before.
    second = Half(to.path.with_name("second"))
    assert b.ended(follow(b, peer, second.draft)).outcome is Outcome.OK
    assert second.data == DATA and to.draft.size_bytes == PART.offset(5)
    second.draft.close()


def test_nothing_is_written_after_it_is_closed(two: tuple[Node, Node], halves: tuple[Half, Half]) -> None:
    _, b = two
    come, to, peer = shared(two, halves)
    token = follow(b, peer, to.draft)
    come.comes(0, 3)
    b.until(lambda: to.draft.size_bytes == PART.offset(3))
    to.draft.close()
    come.comes(3, 20)
    assert b.ended(token).outcome is Outcome.CANCELLED
    assert to.data == DATA[: PART.offset(3)]


def test_a_member_has_so_many_followers(halves: tuple[Half, Half], tmp_path: Path) -> None:
    """The others get it sooner from those who have it."""
    come, _ = halves
    with Node() as a:
        a.session.share_draft(come.draft)
        peers = [WirePeer.dial(a.port) for _ in range(9)]
        try:
            for peer in peers[:8]:
                peer.send_zest(wire.follow_request(1, XORB, 0, 20))
            come.comes(0, 1)
            for peer in peers[:8]:
                assert peer.receive_zest() == wire.range_data(1, 0, CONTENT.chunks[FIRST])
            peers[8].send_zest(wire.follow_request(1, XORB, 0, 20))
            assert peers[8].receive_zest() == wire.range_end(1, wire.BUSY)
            peers[0].send_zest(wire.cancel(1))
            peers[0].send_zest(wire.follow_request(2, XORB, 0, 20))
            assert peers[0].receive_zest() == wire.range_data(2, 0, CONTENT.chunks[FIRST])
        finally:
            for peer in peers:
                peer.close()


def test_other_answers_are_not_held_up(halves: tuple[Half, Half], tmp_path: Path) -> None:
    come, _ = halves
    other = Content.random(5)
    with Node() as a:
        a.share(other, tmp_path / "other")
        a.session.share_draft(come.draft)
        with WirePeer.dial(a.port) as peer:
            peer.send_zest(wire.follow_request(1, XORB, 0, 20))
            peer.send_zest(wire.range_request(2, wire.FILE, other.hash, 0, 5))
            for number, chunk in enumerate(other.chunks):
                assert peer.receive_zest() == wire.range_data(2, number, chunk)
            come.comes(0, 20)
            for number in range(20):
                assert peer.receive_zest() == wire.range_data(1, number, CONTENT.chunks[FIRST + number])


def test_only_a_part(halves: tuple[Half, Half]) -> None:
    come, _ = halves
    with Node() as a, WirePeer.dial(a.port) as peer:
        a.session.share_draft(come.draft)
        come.comes(0, 10)
        peer.send_zest(wire.follow_request(1, XORB, 8, 12))
        come.comes(10, 20)
        for number in range(8, 12):
            assert peer.receive_zest() == wire.range_data(1, number, CONTENT.chunks[FIRST + number])
        peer.send_zest(wire.follow_request(2, XORB, 0, 21))
        assert peer.receive_zest() == wire.range_end(2, wire.NOT_FOUND)
        peer.send_zest(wire.follow_request(3, CONTENT.xorbs[0][0], 0, 20))
        assert peer.receive_zest() == wire.range_end(3, wire.NOT_FOUND)


def test_with_the_key(halves: tuple[Half, Half]) -> None:
    """A peer that was written apart. (Who has no key gets no further than the handshake: test_keyed.)"""
    come, _ = halves
    come.comes(0, 20)
    with Node(swarm_key=KEY) as a:
        a.session.share_draft(come.draft)
        with KeyedPeer.dial_keyed(a.port, KEY) as peer:
            peer.send_zest(wire.follow_request(1, XORB, 0, 20))
            assert peer.receive_zest() == wire.range_data(1, 0, CONTENT.chunks[FIRST])


# --- what members may send --------------------------------------------------------------------------------


def sends(*messages: bytes) -> wire.Script:
    """What the first question is answered by, with the question's id (0) put in."""

    def script(peer: WirePeer) -> None:
        request = peer.question().request.to_bytes(4, "big")
        for message in messages:
            peer.send_zest(message[:1] + request + message[5:])
        peer.question()

    return script


def test_more_than_there_is(node: Node, halves: tuple[Half, Half]) -> None:
    """How large the part is the CAS has said to both."""
    _, to = halves
    big = bytes(range(1, 256)) * 500
    with wire.WireServer(sends(*(wire.range_data(0, number, big) for number in range(6)))) as server:
        token = follow(node, node.meet(server.port), to.draft)
        assert node.ended(token).outcome is Outcome.WRONG
        assert "more than there is" in node.wait(PeerBanned).reason
        assert len(to.data) <= len(DATA)


def test_less_than_there_is(node: Node, halves: tuple[Half, Half]) -> None:
    _, to = halves
    with wire.WireServer(sends(*(wire.range_data(0, number, b"small") for number in range(20)))) as server:
        token = follow(node, node.meet(server.port), to.draft)
        assert node.ended(token).outcome is Outcome.WRONG
        node.wait(PeerBanned)


@pytest.mark.parametrize("numbers", [(1,), (0, 2), (0, 0)])
def test_out_of_order(node: Node, halves: tuple[Half, Half], numbers: tuple[int, ...]) -> None:
    _, to = halves
    with wire.WireServer(sends(*(wire.range_data(0, number, b"chunk") for number in numbers))) as server:
        token = follow(node, node.meet(server.port), to.draft)
        assert node.wait(PeerGone).reason == "broke the protocol"
        assert node.ended(token).outcome is Outcome.GONE


def test_silence(node: Node, halves: tuple[Half, Half]) -> None:
    _, to = halves
    with wire.WireServer(sends(wire.range_data(0, 0, CONTENT.chunks[FIRST]))) as server:
        token = follow(node, node.meet(server.port), to.draft, 0.2)
        end = node.ended(token)
        assert (end.outcome, end.chunks_written) == (Outcome.TIMEOUT, 1)


def test_a_slow_line_is_no_silence(node: Node, halves: tuple[Half, Half], tmp_path: Path) -> None:
    """What a member sends of one GET holds up what is behind it: but not for ever."""
    _, to = halves
    other = Half(tmp_path / "other")
    silence_s = 0.6
    over = threading.Event()

    def script(peer: WirePeer) -> None:
        fed = peer.question().request
        peer.question()
        for number, chunk in enumerate(CONTENT.chunks[FIRST:END]):
            peer.send_zest(wire.range_data(fed, number, chunk))
            if over.wait(silence_s / 5):
                return

    with wire.WireServer(script) as server:
        peer = node.meet(server.port)
        began_s = time.monotonic()
        follow(node, peer, to.draft, silence_s)
        token = follow(node, peer, other.draft, silence_s)
        end = node.ended(token)
        took_s = time.monotonic() - began_s
        over.set()
    other.draft.close()
    assert (end.outcome, end.chunks_written) == (Outcome.TIMEOUT, 0)
    assert took_s >= 3 * silence_s
    assert 0 < to.draft.manifest().size_bytes < len(DATA)


def test_wrong_chunks_show_at_the_end(node: Node, halves: tuple[Half, Half]) -> None:
    _, to = halves
    wrong = [bytes(len(chunk) - 1) + b"x" for chunk in CONTENT.chunks[FIRST:END]]
    with wire.WireServer(sends(*(wire.range_data(0, at, chunk) for at, chunk in enumerate(wrong)))) as server:
        assert node.ended(follow(node, node.meet(server.port), to.draft)).outcome is Outcome.OK
        assert to.draft.manifest().xorb_hash() != XORB


def test_from_several_at_once(node: Node, tmp_path: Path) -> None:
    """Each xorb from another."""
    content = Content.random(60, 20_000, per_xorb=10)
    with wire.WireServer(good(content)) as one, wire.WireServer(good(content)) as other:
        peers = [node.meet(server.port) for server in (one, other)]
        drafts = []
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        for number, (xorb, a, b) in enumerate(content.xorbs):
            offset = content.manifest.offset(a)
            drafts.append(Draft(fd, offset, content.manifest.offset(b) - offset, xorb, 0, b - a))
            follow(node, peers[number % 2], drafts[-1])
        for _ in drafts:
            assert node.wait(PieceEnd).outcome is Outcome.OK
        assert (tmp_path / "file").read_bytes() == content.data
        for draft in drafts:
            draft.close()
        os.close(fd)


def test_it_is_added_to_and_closed_at_the_same_time(two: tuple[Node, Node], tmp_path: Path) -> None:
    """From any thread: it ends one way or the other."""
    a, b = two
    peer = b.meet(a.port)
    for attempt in range(10):
        come, to = Half(tmp_path / f"from{attempt}"), Half(tmp_path / f"to{attempt}")
        a.session.share_draft(come.draft)
        token = follow(b, peer, to.draft)

        def adds(come: Half = come) -> None:
            try:
                for at in range(20):
                    come.comes(at, at + 1)
            except SwarmError:
                pass

        threads = [threading.Thread(target=adds), threading.Thread(target=(come, to)[attempt % 2].draft.close)]
        for thread in threads:
            thread.start()
        end = b.ended(token)
        assert end.outcome in (Outcome.OK, Outcome.BUSY, Outcome.CANCELLED, Outcome.NOT_FOUND)
        assert to.data[: PART.offset(end.chunks_written)] == DATA[: PART.offset(end.chunks_written)]
        for thread in threads:
            thread.join()
        come.draft.close()
        to.draft.close()


def test_lengths_that_are_none() -> None:
    with open(os.devnull, "r+b") as file:
        draft = Draft(file.fileno(), 0, 1000, XetHash(bytes(32)), 0, 3)
        for lengths in ([0], [131073], [1001], [1, 1, 1], [1, 2, 3, 4]):
            with pytest.raises(SwarmError):
                draft.add(bytes(32 * len(lengths)), array("I", lengths))
        draft.add(codec.chunk_hash(b"x") * 2, array("I", [1, 2]))
        with pytest.raises(SwarmError):
            draft.add(bytes(32), array("I", [998]))
        draft.add(bytes(32), array("I", [997]))
        assert draft.size_bytes == 1000 and len(draft.manifest()) == 3
        draft.close()
        draft.close()


def test_have_says_nothing_of_it(two: tuple[Node, Node], halves: tuple[Half, Half]) -> None:
    """Nothing unproved is offered as held."""
    a, b = two
    come, _ = halves
    come.comes(0, 20)
    a.session.share_draft(come.draft)
    assert b.have(b.meet(a.port), Kind.XORB, XORB).outcome is Outcome.NOT_FOUND
