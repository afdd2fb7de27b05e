"""A node that gives nothing for a while: everybody is told at once that nothing is here, and later what is."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm import wire_peer as wire
from swarm.node import Content, Node, Target
from swarm.test_follow import CONTENT as HALF_CONTENT
from swarm.test_follow import FIRST, XORB, Half
from swarm.wire_peer import WirePeer
from zest_hf._native.events import Kind, Outcome

CONTENT = Content.random(60, 60_000, per_xorb=20)


@pytest.fixture
def offering(tmp_path: Path, node: Node) -> Node:
    node.share(CONTENT, tmp_path / "offered")
    return node


def test_every_question_is_refused_at_once(offering: Node) -> None:
    xorb = CONTENT.xorbs[0][0]
    chunk = bytes(CONTENT.manifest.hashes[:32])
    with WirePeer.dial(offering.port) as peer:
        offering.session.set_uploads(False)
        peer.send_zest(peer.have_request(1, wire.FILE, CONTENT.hash))
        assert peer.receive_zest() == wire.have(1, wire.NOT_FOUND, 0, [])
        peer.send_zest(wire.manifest_request(2, wire.FILE, CONTENT.hash, 0, 10))
        assert peer.receive_zest() == wire.manifest(2, wire.NOT_FOUND, 0, 0, [])
        for number, (kind, object_) in enumerate(((wire.FILE, CONTENT.hash), (wire.XORB, xorb)), 3):
            peer.send_zest(wire.range_request(number, kind, object_, 0, 5))
            assert peer.receive_zest() == wire.range_end(number, wire.NOT_FOUND)
        peer.send_xet(wire.chunk_request(5, chunk))
        assert peer.receive_xet() == wire.chunk_not_found(5, chunk)
        assert offering.session.stats().bytes_up == 0
        # As if nothing had been.
        offering.session.set_uploads(True)
        peer.send_zest(peer.have_request(6, wire.FILE, CONTENT.hash))
        assert peer.receive_zest() == peer.their_have(6, wire.FILE, CONTENT.hash, 60, [(0, 60)])
        peer.send_zest(wire.range_request(7, wire.FILE, CONTENT.hash, 0, 1))
        assert peer.receive_zest() == wire.range_data(7, 0, CONTENT.chunks[0])


def test_what_waits_is_refused_too(offering: Node) -> None:
    """Requests in the queue of a peer that does not read: what was read for it still comes, and no more."""
    with WirePeer.dial(offering.port) as peer:
        count = 40
        for number in range(1, count + 1):
            peer.send_zest(wire.range_request(number, wire.FILE, CONTENT.hash, 0, 60))
        first = peer.receive_zest()
        offering.session.set_uploads(False)
        refused = []
        while count not in refused:
            body = peer.receive_zest()
            if body[0] != wire.RANGE_DATA:
                refused.append(int.from_bytes(body[1:5], "big"))
                assert body == wire.range_end(refused[-1], wire.NOT_FOUND)
        # In order, and everything behind what was under way.
        assert refused == list(range(refused[0], count + 1)) and first == wire.range_data(1, 0, CONTENT.chunks[0])
        assert offering.session.stats().bytes_up < (refused[0] + 1) * len(CONTENT.data)
        assert refused[0] < count / 2


def test_who_follows_is_told_as_well(tmp_path: Path) -> None:
    half = Half(tmp_path / "from")
    with Node() as a, WirePeer.dial(a.port) as peer, WirePeer.dial(a.port) as late:
        a.session.share_draft(half.draft)
        half.comes(0, 2)
        peer.send_zest(wire.follow_request(1, XORB, 0, 20))
        for number in range(2):
            assert peer.receive_zest() == wire.range_data(1, number, HALF_CONTENT.chunks[FIRST + number])
        a.session.set_uploads(False)
        assert peer.receive_zest() == wire.range_end(1, wire.BUSY)
        late.send_zest(wire.follow_request(1, XORB, 0, 20))
        assert late.receive_zest() == wire.range_end(1, wire.NOT_FOUND)
        half.comes(2, 4)
        a.session.set_uploads(True)
        late.send_zest(wire.follow_request(2, XORB, 2, 4))
        assert late.receive_zest() == wire.range_data(2, 2, HALF_CONTENT.chunks[FIRST + 2])
    half.draft.close()


def test_a_peer_of_ours_is_told(tmp_path: Path, offering: Node) -> None:
    with Node() as other, Target(tmp_path / "target", CONTENT) as target:
        peer = other.meet(offering.port)
        offering.session.set_uploads(False)
        assert other.have(peer, Kind.FILE, CONTENT.hash).outcome is Outcome.NOT_FOUND
        assert other.piece(peer, target).outcome is Outcome.NOT_FOUND
        offering.session.set_uploads(True)
        assert other.piece(peer, target).outcome is Outcome.OK
