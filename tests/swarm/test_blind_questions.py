"""Nobody learns a hash from a question, or an answer to what he cannot name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarm import wire_peer as wire
from swarm.node import Content, Node
from swarm.wire_peer import HungUp, WirePeer, WireServer
from zest_hf._native.events import Kind, Outcome


@pytest.fixture
def content() -> Content:
    return Content.random(12)


def test_the_name_of_a_swarm_is_not_enough_to_ask(node: Node, tmp_path: Path, content: Content) -> None:
    """A tracker, the DHT and the LAN tell it to everybody."""
    node.share(content, tmp_path / "offered")
    xorb = content.xorbs[0][0]
    with WirePeer.dial(node.port) as peer, WirePeer.dial(node.port) as other:
        swarm = wire.file_swarm(content.hash)
        right = peer.prove(b"ask", wire.FILE, content.hash)
        for number, proof in enumerate(
            {
                "none": bytes(32),
                "made up": os.urandom(32),
                "of another connection": other.prove(b"ask", wire.FILE, content.hash),
                "of another kind": peer.prove(b"ask", wire.XORB, content.hash),
                "the holder's": peer.prove(b"hold", wire.FILE, content.hash),
                "what they would say": peer.prove(b"ask", wire.FILE, content.hash, theirs=True),
                "of another object": peer.prove(b"ask", wire.FILE, xorb),
                "one bit off": right[:-1] + bytes([right[-1] ^ 1]),
            }.values()
        ):
            peer.send_zest(wire.have_request(number, wire.FILE, swarm, proof))
            assert peer.receive_zest() == wire.have(number, wire.NOT_FOUND, 0, [])
        # A file's swarm is not a xorb's.
        peer.send_zest(wire.have_request(97, wire.XORB, swarm, peer.prove(b"ask", wire.XORB, content.hash)))
        assert peer.receive_zest() == wire.have(97, wire.NOT_FOUND, 0, [])
        peer.send_zest(wire.have_request(98, wire.FILE, swarm, right))
        assert peer.receive_zest() == peer.their_have(98, wire.FILE, content.hash, 12, [(0, 12)])
        peer.send_zest(peer.have_request(99, wire.XORB, xorb))
        assert peer.receive_zest()[:6] == wire.have(99, wire.OK, 0, [])[:6]


@pytest.mark.parametrize("proof", ["none", "the asker's own", "of another file"])
def test_who_claims_what_it_cannot_name_is_hung_up_on(node: Node, content: Content, proof: str) -> None:
    seen = bytearray()

    def script(peer: WirePeer) -> None:
        _, body = peer.receive()
        seen.extend(body)
        question = wire.parse_question(wire.ZEST_ID, body)
        answer = {
            "none": bytes(32),
            "the asker's own": question.proof,
            "of another file": peer.prove(b"hold", wire.FILE, os.urandom(32)),
        }[proof]
        peer.send_zest(wire.have(question.request, wire.OK, 12, [(0, 12)], answer))
        with pytest.raises(HungUp):
            seen.extend(peer.receive()[1])

    with WireServer(script) as server:
        assert node.have(node.meet(server.port), Kind.FILE, content.hash).outcome is Outcome.GONE
    assert wire.file_swarm(content.hash) in seen
    assert content.hash not in seen


def test_each_connection_has_a_nonce_of_its_own(node: Node) -> None:
    nonces = set()
    for _ in range(3):
        with WirePeer.dial(node.port) as peer:
            nonces.add(peer.their_handshake[b"zn"])
    assert len(nonces) == 3
    assert all(len(nonce) == 32 and any(nonce) for nonce in nonces)
