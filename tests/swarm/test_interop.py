"""Other programs' ways of speaking ut_xet: BEP XET v1 both ways, ccBitTorrent's codec, and the dialect of zest 0.4."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from swarm import wire_peer as wire
from swarm.node import Content, Node, Target, serve
from swarm.wire_peer import WirePeer, WireServer
from zest_hf._native import codec
from zest_hf._native.events import Kind, Outcome, PeerGone, PeerReady

# A message of 1 MiB: extended, id, the response's header, data.
MAX_RESPONSE_BYTES = (1 << 20) - 2 - 9
V1_ONLY: dict[str, Any] = {"extensions": {"ut_xet": 1}, "node_id": None}


# --- BEP XET v1, we serve -------------------------------------------------------------------------------


def test_single_chunks_by_hash(node: Node, tmp_path: Path) -> None:
    content = Content.random(30)
    node.share(content, tmp_path / "offered")
    # Who has found the xorb's swarm needs nothing else.
    with WirePeer.dial(node.port, wire.xorb_swarm(content.xorbs[1][0]), **V1_ONLY) as peer:
        assert peer.theirs[b"ut_xet"] == 1
        for number in (0, 29, 12, 12):
            peer.send_xet(wire.chunk_request(1000 + number, content.entries[number][0]))
            assert peer.receive_xet() == wire.chunk_response(1000 + number, content.chunks[number])
        unknown = os.urandom(32)
        peer.send_xet(wire.chunk_request(7, unknown))
        assert peer.receive_xet() == wire.chunk_not_found(7, unknown)
    assert node.session.stats().bytes_up == sum(len(content.chunks[number]) for number in (0, 29, 12, 12))


def test_on_the_id_that_the_peer_asks_for(node: Node, tmp_path: Path) -> None:
    content = Content.random(3)
    node.share(content, tmp_path / "offered")
    with WirePeer.dial(node.port, extensions={"ut_xet": 77, "zest_hf1": 200}) as peer:
        peer.send_xet(wire.chunk_request(1, content.entries[0][0]))
        assert peer.receive() == (77, wire.chunk_response(1, content.chunks[0]))
        peer.send_zest(peer.have_request(2, wire.FILE, content.hash))
        assert peer.receive() == (200, peer.their_have(2, wire.FILE, content.hash, 3, [(0, 3)]))


def test_a_chunk_of_the_largest_size_in_files_that_come_and_go(node: Node, tmp_path: Path) -> None:
    contents = [Content([os.urandom(131072)]) for _ in range(3)]
    paths = [node.share(content, tmp_path / str(number)) for number, content in enumerate(contents)]
    with WirePeer.dial(node.port, **V1_ONLY) as peer:
        for content in contents:
            peer.send_xet(wire.chunk_request(1, content.entries[0][0]))
            assert peer.receive_xet() == wire.chunk_response(1, content.chunks[0])
        node.session.unshare(str(paths[1]), contents[1].hash)
        paths[2].unlink()
        for content in contents[1:]:
            peer.send_xet(wire.chunk_request(2, content.entries[0][0]))
            assert peer.receive_xet() == wire.chunk_not_found(2, content.entries[0][0])


def test_every_message_of_zest_hf1_byte_by_byte(node: Node, tmp_path: Path) -> None:
    content = Content.random(30)
    node.share(content, tmp_path / "offered")
    xorb, _first, _end = content.xorbs[2]
    with WirePeer.dial(node.port) as peer:
        assert peer.their_handshake[b"zh"] == node.node_id
        assert len(peer.their_handshake[b"zn"]) == 32
        peer.send_zest(peer.have_request(1, wire.XORB, xorb))
        assert peer.receive_zest() == peer.their_have(1, wire.XORB, xorb, 10, [(0, 10)])
        peer.send_zest(peer.have_request(2, wire.FILE, xorb))
        assert peer.receive_zest() == wire.have(2, wire.NOT_FOUND, 0, [])
        peer.send_zest(wire.manifest_request(3, wire.XORB, xorb, 4, 100))
        assert peer.receive_zest() == wire.manifest(3, wire.OK, 10, 4, content.entries[24:30])
        peer.send_zest(wire.manifest_request(4, wire.XORB, xorb, 10, 1))
        assert peer.receive_zest() == wire.manifest(4, wire.NOT_FOUND, 0, 0, [])
        peer.send_zest(wire.range_request(0xFFFFFFFF, wire.XORB, xorb, 8, 10))
        assert peer.receive_zest() == wire.range_data(0xFFFFFFFF, 8, content.chunks[28])
        assert peer.receive_zest() == wire.range_data(0xFFFFFFFF, 9, content.chunks[29])
        peer.send_zest(wire.range_request(6, wire.XORB, xorb, 8, 11))
        assert peer.receive_zest() == wire.range_end(6, wire.NOT_FOUND)


def test_the_handshakes_as_they_go_out(node: Node) -> None:
    seen: list[bytes] = []

    def script(peer: WirePeer) -> None:
        seen.append(peer.receive_handshake(wire.NODE_SWARM))
        peer.send_handshake(wire.NODE_SWARM)
        seen.append(peer.receive_message())  # zest 0.4 wants the extended handshake first
        peer.extensions = {"ut_xet": 1}

    with WireServer(script, handshakes=False) as server:
        node.session.dial("127.0.0.1", server.port, 1)
        node.until(lambda: len(seen) == 2)
    assert seen[1][:2] == bytes([wire.EXTENDED, 0])
    content = wire.bdecode(seen[1][2:])
    assert content[b"m"][b"ut_xet"] == 1 and content[b"m"][b"zest_hf1"] == 9
    assert (content[b"p"], content[b"v"], content[b"zh"]) == (node.port, b"zest_hf", node.node_id)


def test_too_many_requests_are_refused_one_by_one(node: Node, tmp_path: Path) -> None:
    content = Content.random(2, size=100_000)
    node.share(content, tmp_path / "offered")
    count = 2000
    with WirePeer.dial(node.port, **V1_ONLY) as peer:
        peer.send_raw(
            b"".join(
                peer.frame("ut_xet", wire.chunk_request(1 + number, content.entries[number % 2][0]))
                for number in range(count)
            )
        )
        answers = {}
        for _ in range(count):
            body = peer.receive_xet()
            answers[int.from_bytes(body[1:5], "big")] = body
    assert answers.keys() == set(range(1, 1 + count))
    refused = {request for request, body in answers.items() if body[0] == wire.CHUNK_ERROR}
    assert refused
    for request, body in answers.items():
        if request in refused:
            assert body == wire.chunk_error(request, 1, body[9:].decode())
        else:
            assert body == wire.chunk_response(request, content.chunks[(request - 1) % 2])


# --- BEP XET v1, we ask ----------------------------------------------------------------------------------


@pytest.mark.parametrize("short_not_found", [False, True])
def test_chunk_by_chunk_from_a_v1_peer(node: Node, tmp_path: Path, short_not_found: bool) -> None:
    content = Content.random(100)
    open_at_most = 0
    held = set(range(100)) - {90}

    def reordering(peer: WirePeer) -> None:
        nonlocal open_at_most
        waiting: list[wire.Question] = []
        by_hash = {hash_: number for number, (hash_, _) in enumerate(content.entries)}
        while True:
            question = peer.question()
            assert question.extension == wire.XET_ID
            waiting.append(question)
            open_at_most = max(open_at_most, len(waiting))
            number = by_hash[question.hash]
            if len(waiting) < 32 and number != 49 and number != 99:
                continue
            for question in reversed(waiting):
                number = by_hash[question.hash]
                if number in held:
                    peer.send_xet(wire.chunk_response(question.request, content.chunks[number]))
                else:
                    peer.send_xet(wire.chunk_not_found(question.request, b"" if short_not_found else question.hash))
            waiting.clear()

    with WireServer(reordering, **V1_ONLY) as server, Target(tmp_path / "taken", content) as target:
        token = node.token()
        node.session.dial("127.0.0.1", server.port, token, wire.xorb_swarm(content.xorbs[0][0]))
        ready = node.wait(PeerReady)
        assert not ready.ranges
        end = node.piece(ready.peer, target, 0, 50)
        assert (end.outcome, end.chunks_written) == (Outcome.OK, 50)
        assert target.holds(0, 50)
        assert open_at_most == 32
        assert node.piece(ready.peer, target, 50, 100).outcome is Outcome.NOT_FOUND
        # What is not in version 1 cannot be asked.
        assert node.have(ready.peer, Kind.FILE, content.hash).outcome is Outcome.UNSUPPORTED
        assert node.manifest(ready.peer, Kind.FILE, content.hash, 0, 1).outcome is Outcome.UNSUPPORTED
        assert node.session.bans() == []


@pytest.mark.parametrize("text", [b"", "kein Platz für heute".encode(), b"\xff\xfe no UTF-8", bytes(1 << 19)])
def test_an_error_ends_the_piece(node: Node, tmp_path: Path, text: bytes) -> None:
    content = Content.random(10)

    def script(peer: WirePeer) -> None:
        for number in range(10):
            question = peer.question()
            if number == 3:
                peer.send_xet(wire.chunk_error(question.request, 5) + text)
            elif number < 3:
                serve(peer, content, question)
        while True:
            serve(peer, content, peer.question())

    with WireServer(script, **V1_ONLY) as server, Target(tmp_path / "taken", content) as target:
        peer = node.meet(server.port)
        end = node.piece(peer, target)
        assert (end.outcome, end.chunks_written) == (Outcome.BUSY, 3)
        assert node.piece(peer, target).outcome is Outcome.OK


@pytest.mark.parametrize(
    ("size", "outcome", "reason"),
    [
        (131072, Outcome.OK, ""),
        (131073, Outcome.WRONG, "banned"),
        (MAX_RESPONSE_BYTES, Outcome.WRONG, "banned"),
        (MAX_RESPONSE_BYTES + 1, Outcome.GONE, "too large"),
    ],
)
def test_the_sizes_of_a_response(node: Node, tmp_path: Path, size: int, outcome: Outcome, reason: str) -> None:
    """A chunk has 128 KiB at most and a message 1 MiB; more is not stored."""
    content = Content([bytes(131072)])

    def script(peer: WirePeer) -> None:
        peer.send_xet(wire.chunk_response(peer.question().request, bytes(size)))

    with WireServer(script, **V1_ONLY) as server, Target(tmp_path / "taken", content) as target:
        assert node.piece(node.meet(server.port), target).outcome is outcome
        if reason:
            assert reason in node.wait(PeerGone).reason
        assert len(node.session.bans()) == (reason == "banned")


# --- ccBitTorrent -----------------------------------------------------------------------------------------


@pytest.fixture
def ccbt() -> Any:
    pytest.importorskip("ccbt", reason="ccBitTorrent (PyPI: ccbt) is not installed")
    from ccbt.extensions.xet import XetExtension

    return XetExtension()


def test_ccbittorrents_requests_are_answered(node: Node, tmp_path: Path, ccbt: Any) -> None:
    content = Content.random(10)
    node.share(content, tmp_path / "offered")
    with WirePeer.dial(node.port, wire.xorb_swarm(content.xorbs[0][0]), **V1_ONLY) as peer:
        for number in (3, 9):
            request = ccbt.encode_chunk_request(content.entries[number][0])
            peer.send_xet(request)
            got, data = ccbt.decode_chunk_response(peer.receive_xet())
            assert got == int.from_bytes(request[1:5], "big")
            assert data == content.chunks[number]
        peer.send_xet(ccbt.encode_chunk_request(bytes(32)))
        assert ccbt.decode_chunk_request(b"\1" + peer.receive_xet()[1:]) == (3, bytes(32))


def test_ccbittorrents_answers_are_understood(node: Node, tmp_path: Path, ccbt: Any) -> None:
    """Those of its own server, which fails for one chunk and lacks another."""
    content = Content.random(40)
    chunks = {hash_: chunk for (hash_, _), chunk in zip(content.entries, content.chunks, strict=True)}
    missing, broken = content.entries[25][0], content.entries[35][0]
    del chunks[missing]

    def provide(hash_: bytes) -> bytes | None:
        if hash_ == broken:
            raise OSError("a bad sector")
        return chunks.get(hash_)

    ccbt.set_chunk_provider(provide)

    def script(peer: WirePeer) -> None:
        while True:
            request, hash_ = ccbt.decode_chunk_request(peer.receive_xet())
            peer.send_xet(asyncio.run(ccbt.handle_chunk_request("zest_hf", request, hash_)))

    with WireServer(script, **V1_ONLY) as server, Target(tmp_path / "taken", content) as target:
        peer = node.meet(server.port)
        outcomes = [node.piece(peer, target, first, first + 10).outcome for first in (0, 10, 20, 30)]
        assert outcomes == [Outcome.OK, Outcome.OK, Outcome.NOT_FOUND, Outcome.BUSY]
        assert target.holds(0, 20)


# --- zest 0.4 ---------------------------------------------------------------------------------------------


def zest_response(body: bytes) -> tuple[int, int, bytes]:
    """Request, first chunk, serialized chunks."""
    assert body[0] == wire.CHUNK_RESPONSE
    request, first, size = (int.from_bytes(body[at : at + 4], "big") for at in (1, 5, 9))
    assert len(body) == 13 + size
    return request, first, body[13:]


def test_the_dialect_of_zest(node: Node, tmp_path: Path) -> None:
    content = Content.random(120, size=30_000, per_xorb=60)
    node.share(content, tmp_path / "offered")
    xorb, first, _end = content.xorbs[1]
    with WirePeer.dial(node.port, wire.xorb_swarm(xorb), **V1_ONLY) as peer:
        # The whole xorb, several reads long; what is asked in the middle of it comes after it.
        peer.send_xet(wire.xorb_request(5, xorb, 0, 60))
        peer.send_xet(wire.chunk_request(6, content.entries[0][0]))
        body = peer.receive_xet()
        assert len(body) > 512 * 1024
        request, chunk, packed = zest_response(body)
        assert (request, chunk) == (5, 0)
        layout = codec.inspect_xorb(packed)
        assert codec.merkle_root(layout.hashes, layout.lengths) == xorb
        assert peer.receive_xet() == wire.chunk_response(6, content.chunks[0])
        # A part.
        peer.send_xet(wire.xorb_request(7, xorb, 17, 40))
        request, chunk, packed = zest_response(peer.receive_xet())
        assert (request, chunk) == (7, 17)
        unpacker = codec.Unpacker(-1, 17, 40, (), content.manifest.slice(first + 17, first + 40).hashes)
        unpacker.feed(packed)
        unpacker.finish()
        # More than there is, and what is not there.
        for request, asked, span in ((8, xorb, (0, 61)), (9, xorb, (60, 61)), (10, bytes(32), (0, 1))):
            peer.send_xet(wire.xorb_request(request, asked, *span))
            assert peer.receive_xet() == wire.chunk_not_found(request, asked)
    assert node.session.stats().bytes_up == sum(map(len, content.chunks[60:120])) + len(content.chunks[0]) + sum(
        map(len, content.chunks[77:100])
    )


def test_the_dialect_when_the_file_changes(node: Node, tmp_path: Path) -> None:
    """Before the first byte there is an answer for that; in the middle of a message only the end of the connection."""
    content = Content.random(600, size=65536, per_xorb=600)
    path = node.share(content, tmp_path / "offered")
    xorb = content.xorbs[0][0]
    with WirePeer.dial(node.port, **V1_ONLY) as peer:
        peer.send_xet(wire.xorb_request(1, xorb, 0, 600))
        head = peer.receive_raw(20)
        path.unlink()
        size = int.from_bytes(head[:4], "big") + 4 - 20
        with pytest.raises(wire.HungUp):
            peer.receive_raw(size)
    with WirePeer.dial(node.port, **V1_ONLY) as peer:
        peer.send_xet(wire.xorb_request(1, xorb, 0, 600))
        assert peer.receive_xet() == wire.chunk_not_found(1, xorb)
