"""Peers that are silent, slow, confused or hostile. Whatever they do, a good peer still gets and gives its bytes."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm import wire_peer as wire
from swarm.node import Content, Node, Target, good, serve
from swarm.wire_peer import HungUp, Question, WirePeer, WireServer
from zest_hf._native.events import Kind, Outcome, PeerBanned, PeerGone, PeerReady

V1_ONLY: dict[str, Any] = {"extensions": {"ut_xet": 1}, "node_id": None}


@pytest.fixture
def content() -> Content:
    return Content.random(40)


class Scene:
    """The node under test with a file that it offers, one that it takes, and a good peer that has it."""

    def __init__(self, node: Node, tmp_path: Path) -> None:
        self.node = node
        self.offered, self.wanted = Content.random(20, seed=1), Content.random(20, seed=2)
        node.share(self.offered, tmp_path / "offered")
        self.tmp_path = tmp_path

    def still_works(self) -> None:
        node = self.node
        with WirePeer.dial(node.port, host="127.0.0.9") as other:
            other.send_zest(wire.range_request(1, wire.FILE, self.offered.hash, 0, 20))
            for number, chunk in enumerate(self.offered.chunks):
                assert other.receive_zest() == wire.range_data(1, number, chunk)
            info = next(info for info in node.session.peers() if info.node_id == (other.node_id or b"").hex())
            with Target(self.tmp_path / "taken", self.wanted) as target:
                token = node.ask(info.peer, target)
                serve(other, self.wanted, other.question())
                assert node.ended(token).outcome is Outcome.OK
                assert target.data == self.wanted.data


@pytest.fixture
def scene(node: Node, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(node, tmp_path)
    yield scene
    scene.still_works()


def memory_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- answers that do not come, or come wrong ----------------------------------------------------------------


def test_a_peer_that_never_answers(scene: Scene, content: Content, tmp_path: Path) -> None:
    node = scene.node
    asked: list[Question] = []

    def silent(peer: WirePeer) -> None:
        while True:
            asked.append(peer.question())

    with WireServer(silent) as server, Target(tmp_path / "t", content) as target:
        peer = node.meet(server.port)
        began_s = time.monotonic()
        tokens = [node.ask(peer, target, first, first + 10, timeout_s=0.3) for first in (0, 10)]
        assert node.have(peer, Kind.FILE, content.hash, timeout_s=0.2).outcome is Outcome.TIMEOUT
        assert node.manifest(peer, Kind.FILE, content.hash, 0, 1, timeout_s=0.2).outcome is Outcome.TIMEOUT
        assert [node.ended(token).outcome for token in tokens] == [Outcome.TIMEOUT] * 2
        assert time.monotonic() - began_s < 2
        assert node.session.peers()[0].requests_out == 0
        # It was told that nobody waits any more.
        node.until(lambda: sum(question.type == wire.CANCEL for question in asked) == 2)


def test_a_v1_peer_that_never_answers(scene: Scene, content: Content, tmp_path: Path) -> None:
    with WireServer(lambda peer: peer.wait_until_hung_up(), **V1_ONLY) as server:
        peer = scene.node.meet(server.port)
        with Target(tmp_path / "t", content) as target:
            assert scene.node.piece(peer, target, timeout_s=0.2).outcome is Outcome.TIMEOUT


@pytest.mark.parametrize("options", [{}, V1_ONLY], ids=["zest_hf1", "v1"])
def test_answers_that_come_late(scene: Scene, content: Content, tmp_path: Path, options: dict[str, Any]) -> None:
    node = scene.node
    late = threading.Event()

    def script(peer: WirePeer) -> None:
        questions = [peer.question() for _ in range(1 if peer.theirs and not options else 32)]
        late.wait(wire.TIMEOUT_S)
        for question in questions:
            serve(peer, content, question)
        good(content)(peer)

    with WireServer(script, **options) as server, Target(tmp_path / "t", content) as target:
        peer = node.meet(server.port)
        assert node.piece(peer, target, timeout_s=0.2).outcome is Outcome.TIMEOUT
        late.set()
        end = node.piece(peer, target)
        assert (end.outcome, end.chunks_written) == (Outcome.OK, 40)
        assert target.data == content.data and node.session.bans() == []


def test_late_answers_to_have_and_manifest(scene: Scene, content: Content) -> None:
    node = scene.node
    late = threading.Event()

    def script(peer: WirePeer) -> None:
        questions = [peer.question(), peer.question()]
        late.wait(wire.TIMEOUT_S)
        for question in questions:
            serve(peer, content, question)
        good(content)(peer)

    with WireServer(script) as server:
        peer = node.meet(server.port)
        assert node.have(peer, Kind.FILE, content.hash, timeout_s=0.1).outcome is Outcome.TIMEOUT
        assert node.manifest(peer, Kind.FILE, content.hash, 0, 40, timeout_s=0.1).outcome is Outcome.TIMEOUT
        late.set()
        assert node.manifest(peer, Kind.FILE, content.hash, 0, 40).part == content.manifest


@pytest.mark.parametrize("options", [{}, V1_ONLY], ids=["zest_hf1", "v1"])
def test_answers_that_come_twice(scene: Scene, content: Content, tmp_path: Path, options: dict[str, Any]) -> None:
    """Nothing is written twice, and a peer that is of use is not sent away for it."""

    def script(peer: WirePeer) -> None:
        while True:
            question = peer.question()
            serve(peer, content, question)
            serve(peer, content, question)

    with WireServer(script, **options) as server, Target(tmp_path / "t", content) as target:
        peer = scene.node.meet(server.port)
        for _ in range(2):
            end = scene.node.piece(peer, target)
            assert (end.outcome, end.chunks_written) == (Outcome.OK, 40)
        assert scene.node.session.stats().bytes_down == 2 * len(content.data)


def _of(peer: int) -> Callable[[PeerGone], bool]:
    return lambda event: event.peer == peer


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


LIES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": flipped,
    "shorter": lambda data: data[:-1],
    "longer": lambda data: data + b"x",
    "another": lambda data: os.urandom(len(data)),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("options", [{}, {"extensions": {"ut_xet": 1}}], ids=["zest_hf1", "v1"])
def test_a_wrong_chunk(scene: Scene, tmp_path: Path, options: dict[str, Any], lie: str) -> None:
    node, content = scene.node, Content.random(20)
    liar_id = os.urandom(20)

    def script(peer: WirePeer) -> None:
        wrong = Content([*content.chunks[:7], LIES[lie](content.chunks[7]), *content.chunks[8:]])
        wrong.__dict__["manifest"] = content.manifest
        good(wrong)(peer)

    with (
        WireServer(script, node_id=liar_id, **options) as server,
        WireServer(good(content)) as honest,
        Target(tmp_path / "t", content) as target,
    ):
        for port, token in ((server.port, 1001), (honest.port, 1002)):
            node.session.dial("127.0.0.1", port, token)
        peer = node.wait(PeerReady, lambda event: event.token == 1001).peer
        rest = node.wait(PeerReady, lambda event: event.token == 1002).peer
        tokens = [node.ask(peer, target, 0, 10), node.ask(peer, target, 10, 20)]
        first, second = (node.ended(token) for token in tokens)
        assert (first.outcome, first.chunks_written) == (Outcome.WRONG, 7)
        assert target.holds(0, 7)
        assert os.pread(target.fd, 10, content.manifest.offset(7)) in (b"", bytes(10))
        assert second.outcome is Outcome.GONE
        assert "chunk 7 of the file" in node.wait(PeerBanned).reason
        assert node.wait(PeerGone, lambda event: event.peer == peer).reason.startswith("banned: ")
        (ban,) = node.session.bans()
        assert (ban.node_id, ban.address) == (liar_id.hex(), f"127.0.0.1:{server.port}")
        assert node.session.stats().chunks_wrong == node.session.stats().bans == 1
        # Others deliver.
        assert node.piece(rest, target).outcome is Outcome.OK
        assert target.data == content.data
        # By its name from anywhere on that host, and by its address under another name.
        with WirePeer.dial(node.port, node_id=liar_id) as again:
            again.wait_until_hung_up()
    # Its neighbour on the same host is another.
    with WirePeer.dial(node.port) as neighbour:
        neighbour.send_zest(neighbour.have_request(1, wire.FILE, scene.offered.hash))
        assert neighbour.receive_zest() == neighbour.their_have(1, wire.FILE, scene.offered.hash, 20, [(0, 20)])


def test_a_banned_address_is_not_spoken_to_under_another_name(scene: Scene, content: Content) -> None:
    with WireServer(good(content)) as server:
        peer = scene.node.meet(server.port)
        scene.node.session.ban(peer, "said so")
        assert scene.node.wait(PeerBanned).peer == peer
        scene.node.wait(PeerGone, lambda event: event.peer == peer)
        assert "banned" in scene.node.dial_in_vain(server.port)


def test_a_ban_that_comes_after_the_peer_has_left(scene: Scene) -> None:
    node = scene.node
    name = os.urandom(20)
    with WirePeer.dial(node.port, node_id=name):
        peer = node.wait(PeerReady).peer
    node.wait(PeerGone, lambda event: event.peer == peer)
    node.session.ban(peer, "sent a manifest that is not the file's")
    node.wait(PeerBanned, lambda event: event.peer == peer)
    with WirePeer.dial(node.port, node_id=name) as again:
        again.wait_until_hung_up()
    assert [ban.node_id for ban in node.session.bans()] == [name.hex()]


def bad_have(chunks: int, ranges: list[tuple[int, int]], count: int | None = None) -> bytes:
    body = wire.have(1, wire.OK, chunks, ranges)
    return body if count is None else body[:42] + struct.pack(">I", count) + body[46:]


# Sent by a peer that was asked for nothing, or in place of the answer to the node's first request (id 1).
NONSENSE: dict[str, tuple[str, bytes]] = {
    "have, a range backwards": ("zest_hf1", bad_have(9, [(5, 2)])),
    "have, an empty range": ("zest_hf1", bad_have(9, [(5, 5)])),
    "have, ranges out of order": ("zest_hf1", bad_have(9, [(5, 6), (1, 2)])),
    "have, a range up to the sky": ("zest_hf1", bad_have(9, [(0, 0xFFFFFFFF)])),
    "have, more chunks than any object": ("zest_hf1", bad_have(0xFFFFFFFF, [])),
    "have, fewer ranges than said": ("zest_hf1", bad_have(9, [(0, 1)], 2)),
    "have, ranges whose size overflows": ("zest_hf1", bad_have(9, [(0, 1)], 0x20000001)),
    "have, too many ranges": ("zest_hf1", bad_have(1 << 20, [(2 * i, 2 * i + 1) for i in range(16385)])),
    "have, an unknown answer": ("zest_hf1", wire.have(1, 3, 0, [])),
    "update, a range backwards": ("zest_hf1", wire.have_update(1, wire.OK, 9, [(5, 2)])),
    "update, busy": ("zest_hf1", wire.have_update(1, wire.BUSY, 9, [])),
    "update for a request of the future": ("zest_hf1", wire.have_update(4000, wire.OK, 9, [(0, 1)])),
    "peers, none": ("zest_hf1", wire.peers(bytes(20), [])),
    "peers, too many": ("zest_hf1", wire.peers(bytes(20), [(bytes(16), 1)] * 51)),
    "peers, fewer than said": ("zest_hf1", wire.peers(bytes(20), [(bytes(16), 1)] * 2)[:-1]),
    "peers, port 0": ("zest_hf1", wire.peers(bytes(20), [(bytes(16), 0)])),
    "manifest, fewer entries than said": ("zest_hf1", wire.manifest(1, 0, 9, 0, [(bytes(32), 5)], 2)),
    "manifest, count overflows": ("zest_hf1", wire.manifest(1, 0, 9, 0, [(bytes(32), 5)], 0x71C71C8)),
    "manifest, past its end": ("zest_hf1", wire.manifest(1, 0, 9, 9, [(bytes(32), 5)])),
    "manifest, first overflows": ("zest_hf1", wire.manifest(1, 0, 9, 0xFFFFFFFF, [(bytes(32), 5)])),
    "manifest, an empty chunk": ("zest_hf1", wire.manifest(1, 0, 9, 0, [(bytes(32), 0)])),
    "manifest, a giant chunk": ("zest_hf1", wire.manifest(1, 0, 9, 0, [(bytes(32), 131073)])),
    "data without bytes": ("zest_hf1", wire.range_data(1, 0, b"")),
    "data of more than a chunk": ("zest_hf1", wire.range_data(1, 0, bytes(131073))),
    "data for a request of the future": ("zest_hf1", wire.range_data(4000, 0, b"x")),
    "data for request 0": ("zest_hf1", wire.range_data(0, 0, b"x")),
    "a range to the sky": ("zest_hf1", wire.range_request(1, wire.FILE, bytes(32), 0, 0xFFFFFFFF)),
    "a range of too many": ("zest_hf1", wire.range_request(1, wire.FILE, bytes(32), 0, 8193)),
    "a range backwards": ("zest_hf1", wire.range_request(1, wire.FILE, bytes(32), 3, 2)),
    "a manifest of too many": ("zest_hf1", wire.manifest_request(1, wire.FILE, bytes(32), 0, 16385)),
    "a manifest of none": ("zest_hf1", wire.manifest_request(1, wire.FILE, bytes(32), 0, 0)),
    "a manifest from the sky": ("zest_hf1", wire.manifest_request(1, wire.FILE, bytes(32), 0xFFFFFFFF, 1)),
    "an unknown kind": ("zest_hf1", wire.have_request(1, 3, bytes(20))),
    "an unknown flag": ("zest_hf1", wire.have_request(1, 1, bytes(20), updates=2)),
    "a cut question": ("zest_hf1", wire.have_request(1, 1, bytes(20))[:-1]),
    "an unknown message": ("zest_hf1", b"\xff" * 50),
    "nothing": ("zest_hf1", b""),
    "an unknown ut_xet message": ("ut_xet", b"\x09" * 50),
    "no ut_xet message": ("ut_xet", b""),
    "a cut ut_xet question": ("ut_xet", wire.chunk_request(1, bytes(32))[:-1]),
    "a response that says less": ("ut_xet", wire.chunk_response(1, b"abc") + b"d"),
    "a response that says more": ("ut_xet", wire.chunk_response(1, b"abc")[:-1]),
    "a response of the future": ("ut_xet", wire.chunk_response(4000, b"abc")),
    "not found of the future": ("ut_xet", wire.chunk_not_found(4000)),
    "a xorb backwards": ("ut_xet", wire.xorb_request(1, bytes(32), 5, 5)),
}


def test_nonsense_ends_the_connection(scene: Scene) -> None:
    for name, (extension, body) in NONSENSE.items():
        with WirePeer.dial(scene.node.port) as peer:
            peer.send_raw(peer.frame(extension, body))
            try:
                peer.wait_until_hung_up()
            except TimeoutError:
                pytest.fail(f"{name}: the connection stays")
    scene.node.until(lambda: scene.node.session.stats().peers_ready == 0)
    assert scene.node.session.bans() == []


def test_nonsense_in_place_of_an_answer(node: Node, content: Content) -> None:
    wanted = list(NONSENSE.items())[:15]
    for name, (_, body) in wanted:
        with WirePeer.dial(node.port) as peer:
            number = node.wait(PeerReady).peer
            token = node.token()
            ask = node.session.ask_have if name.startswith("have") else None
            if ask is not None:
                ask(token, number, Kind.FILE, content.hash, 5.0)
            else:
                node.session.ask_manifest(token, number, Kind.FILE, content.hash, 0, 9, 5.0)
            assert peer.question().request == 1, name
            peer.send_zest(body)
            gone = node.wait(PeerGone, _of(number))
            assert gone.reason == "broke the protocol", name
            assert any(getattr(event, "outcome", None) is Outcome.GONE for event in node.events), name
            node.events.clear()


@pytest.mark.parametrize(
    "answer",
    [
        lambda q: wire.manifest(q.request, wire.OK, 40, q.first + 1, [(bytes(32), 5)]),
        lambda q: wire.manifest(q.request, wire.OK, 40, q.first, [(bytes(32), 5)] * 11),
        lambda q: wire.range_data(q.request, 0, b"x"),
        lambda q: wire.have(q.request, wire.OK, 40, []),
    ],
    ids=["another part", "more than asked", "data", "have"],
)
def test_an_answer_to_another_question(scene: Scene, content: Content, answer: Callable[[Question], bytes]) -> None:
    """Wrong in a way that only the question shows: hung up on, or let pass until the question's deadline."""
    node = scene.node

    def script(peer: WirePeer) -> None:
        peer.send_zest(answer(peer.question()))
        peer.wait_until_hung_up()

    with WireServer(script) as server:
        peer = node.meet(server.port)
        outcome = node.manifest(peer, Kind.FILE, content.hash, 0, 10, timeout_s=0.5).outcome
        assert outcome in (Outcome.GONE, Outcome.TIMEOUT)


@pytest.mark.parametrize("order", [[1], [0, 2], [0, 0], [0, 1, 2, 4]])
def test_chunks_out_of_order(scene: Scene, content: Content, tmp_path: Path, order: list[int]) -> None:
    node = scene.node

    def script(peer: WirePeer) -> None:
        question = peer.question()
        for number in order:
            peer.send_zest(wire.range_data(question.request, number, content.chunks[number]))
        peer.wait_until_hung_up()

    with WireServer(script) as server, Target(tmp_path / "t", content) as target:
        end = node.piece(node.meet(server.port), target, 0, 10)
        assert (end.outcome, end.chunks_written) == (Outcome.GONE, len(order) - 1)
        assert target.holds(0, len(order) - 1)


@pytest.mark.parametrize("answer", [wire.OK, wire.NOT_FOUND, wire.BUSY])
def test_a_range_that_ends_early(scene: Scene, content: Content, tmp_path: Path, answer: int) -> None:
    def script(peer: WirePeer) -> None:
        question = peer.question()
        peer.send_zest(wire.range_data(question.request, 0, content.chunks[0]))
        peer.send_zest(wire.range_end(question.request, answer))
        good(content)(peer)

    with WireServer(script) as server, Target(tmp_path / "t", content) as target:
        peer = scene.node.meet(server.port)
        end = scene.node.piece(peer, target)
        wanted = Outcome.BUSY if answer == wire.BUSY else Outcome.NOT_FOUND
        assert (end.outcome, end.chunks_written) == (wanted, 1)
        assert scene.node.piece(peer, target).outcome is Outcome.OK


def test_unwanted_data_is_borne_up_to_a_bound(scene: Scene, content: Content) -> None:
    """What crosses a cancel on its way is nobody's fault; 64 MiB of it are."""
    node = scene.node
    with WirePeer.dial(node.port) as peer:
        number = node.wait(PeerReady).peer
        node.session.ask_have(node.token(), number, Kind.FILE, content.hash, 5.0)
        request = peer.question().request
        serve(peer, content, Question(wire.ZEST_ID, wire.HAVE_REQUEST, request))
        block = peer.frame("zest_hf1", wire.range_data(request, 0, bytes(131072))) * 8
        sent = 0
        try:
            while sent < 200 << 20:
                peer.send_raw(block)
                sent += 1 << 20
        except HungUp:
            pass
        assert 64 << 20 <= sent < 128 << 20
    assert node.wait(PeerGone, lambda event: event.peer == number).reason == "broke the protocol"


# --- bytes that are no messages -----------------------------------------------------------------------------


def test_an_oversized_length(scene: Scene) -> None:
    before = memory_bytes()
    for size in (1 << 20, (1 << 20) + 1, 0x7FFFFFFF, 0xFFFFFFFF):
        with WirePeer.dial(scene.node.port) as peer:
            with contextlib.suppress(HungUp):
                peer.send_raw(struct.pack(">I", size) + bytes([wire.EXTENDED, peer.theirs[b"zest_hf1"]]))
                peer.send_raw(bytes(1 << 20))
            peer.wait_until_hung_up()
    assert memory_bytes() - before < 32 << 20


def test_messages_one_byte_at_a_time(scene: Scene, content: Content, tmp_path: Path) -> None:
    node, offered = scene.node, scene.offered
    with WirePeer.dial(node.port) as peer:
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def dribble(data: bytes) -> None:
            for at in range(len(data)):
                peer.send_raw(data[at : at + 1])

        dribble(peer.frame("zest_hf1", wire.range_request(1, wire.FILE, offered.hash, 3, 5)))
        assert peer.receive_zest() == wire.range_data(1, 3, offered.chunks[3])
        assert peer.receive_zest() == wire.range_data(1, 4, offered.chunks[4])
        dribble(peer.frame("ut_xet", wire.chunk_request(2, offered.entries[0][0])))
        assert peer.receive_xet() == wire.chunk_response(2, offered.chunks[0])
        with Target(tmp_path / "t", content) as target:
            token = node.ask(node.wait(PeerReady).peer, target, 0, 1)
            dribble(peer.frame("zest_hf1", wire.range_data(peer.question().request, 0, content.chunks[0])))
            assert node.ended(token).outcome is Outcome.OK and target.holds(0, 1)


def test_handshakes_one_byte_at_a_time(scene: Scene) -> None:
    with socket.create_connection(("127.0.0.1", scene.node.port), wire.TIMEOUT_S) as connection:
        peer = WirePeer(connection)
        raw = wire.PROTOCOL + peer.reserved + wire.NODE_SWARM + peer.peer_id
        for at in range(len(raw)):
            peer.send_raw(raw[at : at + 1])
        peer.receive_handshake(wire.NODE_SWARM)
        peer.extended_handshake()


def test_garbage_before_the_handshake(scene: Scene) -> None:
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + os.urandom(100), os.urandom(3000), bytes(2000)):
        with socket.create_connection(("127.0.0.1", scene.node.port), wire.TIMEOUT_S) as connection:
            peer = WirePeer(connection)
            try:
                peer.send_raw(garbage)
                connection.shutdown(socket.SHUT_WR)
            except (HungUp, OSError):
                pass
            peer.wait_until_hung_up()


def test_garbage_after_the_handshake(scene: Scene) -> None:
    for seed in range(8):
        with WirePeer.dial(scene.node.port) as peer:
            try:
                peer.send_raw(bytes([0, 0, 0, 40 + seed]) + os.urandom(4000))
                peer.socket.shutdown(socket.SHUT_WR)
            except (HungUp, OSError):
                pass
            peer.wait_until_hung_up()


def test_extended_handshakes_that_say_nothing(scene: Scene) -> None:
    for handshake in (
        b"",
        b"garbage",
        b"d1:md6:ut_xeti1e",
        b"de",
        b"le",
        b"i1e",
        b"d1:m3:abce",
        b"d1:md6:ut_xeti0eee",
        b"d1:md6:ut_xeti300eee",
        b"d1:md6:ut_xet1:1ee",
        b"d1:md6:ut_xeti-1eee",
        b"d" * 5000,
    ):
        with socket.create_connection(("127.0.0.1", scene.node.port), wire.TIMEOUT_S) as connection:
            peer = WirePeer(connection)
            peer.send_handshake(wire.NODE_SWARM)
            peer.receive_handshake(wire.NODE_SWARM)
            peer.send_message(bytes([wire.EXTENDED, 0]) + handshake)
            connection.shutdown(socket.SHUT_WR)
            peer.wait_until_hung_up()
    assert not any(isinstance(event, PeerReady) for event in scene.node.pump())


def test_a_second_extended_handshake_changes_nothing(scene: Scene) -> None:
    with WirePeer.dial(scene.node.port) as peer:
        node_id = peer.node_id
        again = {"m": {"ut_xet": 0, "zest_hf1": 0}, "zh": os.urandom(20)}
        peer.send_message(bytes([wire.EXTENDED, 0]) + wire.bencode(again))
        peer.send_zest(peer.have_request(1, wire.FILE, scene.offered.hash))
        assert peer.receive_zest() == peer.their_have(1, wire.FILE, scene.offered.hash, 20, [(0, 20)])
        assert [info.node_id for info in scene.node.session.peers()] == [(node_id or b"").hex()]


def test_questions_on_an_extension_that_the_peer_did_not_offer(scene: Scene) -> None:
    """There is no id to answer on: id 0 would be a handshake."""
    offered = scene.offered
    for extensions, name, body in (
        ({"zest_hf1": 9}, "ut_xet", wire.chunk_request(1, offered.entries[0][0])),
        ({"ut_xet": 1}, "zest_hf1", wire.have_request(1, wire.FILE, wire.file_swarm(offered.hash))),
    ):
        with WirePeer.dial(scene.node.port, extensions=extensions) as peer:
            peer.send_raw(peer.frame(name, body))
            with pytest.raises(HungUp):
                peer.receive()


# --- who does not belong here ---------------------------------------------------------------------------------


def test_a_plain_bittorrent_client(scene: Scene) -> None:
    with socket.create_connection(("127.0.0.1", scene.node.port), wire.TIMEOUT_S) as connection:
        peer = WirePeer(connection, reserved=bytes(8))
        peer.send_handshake(wire.NODE_SWARM)
        peer.receive_handshake(wire.NODE_SWARM)
        peer.send_message(b"\x02")
        peer.wait_until_hung_up()
    # ... and one that has extensions, but none of ours.
    with socket.create_connection(("127.0.0.1", scene.node.port), wire.TIMEOUT_S) as connection:
        peer = WirePeer(connection, extensions={"ut_pex": 1, "ut_metadata": 2})
        peer.send_handshake(wire.NODE_SWARM)
        peer.receive_handshake(wire.NODE_SWARM)
        peer.extended_handshake()
        peer.wait_until_hung_up()
    scene.node.until(lambda: not scene.node.session.peers())


def test_a_peer_that_stops_in_the_middle_of_the_handshakes(tmp_path: Path) -> None:
    with Node(connect_timeout_s=1.0) as node:
        scene = Scene(node, tmp_path)
        with socket.create_connection(("127.0.0.1", node.port), wire.TIMEOUT_S) as connection:
            peer = WirePeer(connection)
            peer.send_handshake(wire.NODE_SWARM)
            peer.receive_handshake(wire.NODE_SWARM)
            peer.wait_until_hung_up()
        node.until(lambda: not node.session.peers())
        # Who has not been ready, and was not asked for, is nobody's business.
        assert not any(isinstance(event, PeerGone) for event in node.pump())
        scene.still_works()


def test_an_info_hash_that_we_know_nothing_of(scene: Scene) -> None:
    for info_hash in (os.urandom(20), bytes(20), wire.file_swarm(os.urandom(32))):
        with socket.create_connection(("127.0.0.1", scene.node.port), wire.TIMEOUT_S) as connection:
            peer = WirePeer(connection)
            peer.send_handshake(info_hash)
            with pytest.raises(HungUp):
                peer.receive_handshake()
    for info_hash in (wire.file_swarm(scene.offered.hash), wire.xorb_swarm(scene.offered.xorbs[0][0])):
        with WirePeer.dial(scene.node.port, info_hash) as peer:
            peer.send_zest(peer.have_request(1, wire.FILE, scene.offered.hash))
            assert peer.receive_zest()[0] == wire.HAVE


# --- too much of everything -----------------------------------------------------------------------------------


def test_two_hundred_connections_that_are_dropped(scene: Scene) -> None:
    for number in range(200):
        peer = WirePeer(socket.create_connection(("127.0.0.1", scene.node.port), wire.TIMEOUT_S))
        if number % 4:
            peer.send_handshake(wire.NODE_SWARM)
        if number % 4 > 1:
            peer.receive_handshake(wire.NODE_SWARM)
        if number % 4 > 2:
            peer.extended_handshake()
        peer.close()
    scene.node.until(lambda: not scene.node.session.peers())


def test_two_hundred_connections_at_once(scene: Scene) -> None:
    hosts = [f"127.0.0.{number}" for number in range(2, 6)]
    peers = [WirePeer.dial(scene.node.port, host=host) for host in hosts for _ in range(50)]
    scene.node.until(lambda: scene.node.session.stats().peers_ready == 200)
    scene.still_works()
    for peer in peers:
        peer.close()
    scene.node.until(lambda: not scene.node.session.peers())


def test_a_host_that_takes_all_the_room(scene: Scene) -> None:
    peers = [WirePeer.dial(scene.node.port) for _ in range(64)]
    with WirePeer.dial(scene.node.port) as one_more:
        one_more.wait_until_hung_up()
    # Neither other hosts nor our own dials are kept out by that.
    peers.append(WirePeer.dial(scene.node.port, host="127.0.0.2"))
    scene.still_works()
    peers.pop(0).close()
    scene.node.until(lambda: scene.node.session.stats().peers_ready == 64)
    peers.append(WirePeer.dial(scene.node.port))
    for peer in peers:
        peer.close()
    scene.node.until(lambda: not scene.node.session.peers())


def test_two_thousand_connections_that_come_and_go_cost_nothing(scene: Scene) -> None:
    before = memory_bytes()
    for _ in range(2000):
        with WirePeer(socket.create_connection(("127.0.0.1", scene.node.port), wire.TIMEOUT_S)) as peer:
            peer.send_handshake(wire.NODE_SWARM)
    scene.node.until(lambda: not scene.node.session.peers())
    assert not scene.node.events, "somebody was told"
    assert memory_bytes() - before < 16 << 20


@pytest.mark.parametrize("what", ["range", "have", "manifest", "chunk", "xorb", "not found"])
def test_ten_thousand_requests_and_nothing_read(node: Node, tmp_path: Path, what: str) -> None:
    content = Content.random(16384, size=500, per_xorb=8192)
    node.share(content, tmp_path / "large")
    scene = Scene(node, tmp_path)
    xorb = content.xorbs[0][0]
    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(wire.TIMEOUT_S)
        peer = WirePeer(connection)
        peer.send_handshake(wire.NODE_SWARM)
        peer.receive_handshake()
        peer.extended_handshake()
        name, body = {
            "range": ("zest_hf1", wire.range_request(1, wire.FILE, content.hash, 0, 8192)),
            "have": ("zest_hf1", peer.have_request(1, wire.XORB, xorb)),
            "manifest": ("zest_hf1", wire.manifest_request(1, wire.FILE, content.hash, 0, 16384)),
            "chunk": ("ut_xet", wire.chunk_request(1, content.entries[5][0])),
            "xorb": ("ut_xet", wire.xorb_request(1, xorb, 0, 8192)),
            "not found": ("zest_hf1", wire.manifest_request(1, wire.FILE, bytes(32), 0, 16384)),
        }[what]
        before = memory_bytes()
        with contextlib.suppress(HungUp, TimeoutError):
            peer.send_raw(peer.frame(name, body) * 10_000)
        scene.still_works()
        assert memory_bytes() - before < 64 << 20
    node.until(lambda: not node.session.peers())


def test_a_peer_that_asks_and_asks_and_never_reads_is_left(scene: Scene) -> None:
    with WirePeer.dial(scene.node.port) as peer:
        peer.socket.settimeout(5)
        block = peer.frame("zest_hf1", peer.have_request(1, wire.FILE, scene.offered.hash)) * 2000
        before = memory_bytes()
        with pytest.raises(HungUp):
            for _ in range(2000):
                peer.send_raw(block)
        assert memory_bytes() - before < 64 << 20
    assert scene.node.wait(PeerGone).reason == "does not read what it asks for"


def test_everything_at_once(node: Node, tmp_path: Path) -> None:
    """What goes beyond the queue is refused as busy; what was taken is answered, whole and in order."""
    content = Content.random(50)
    node.share(content, tmp_path / "offered")
    with WirePeer.dial(node.port) as peer:
        total = 3000
        peer.send_raw(
            b"".join(
                peer.frame("zest_hf1", wire.range_request(number, wire.FILE, content.hash, 0, 50))
                for number in range(total)
            )
        )
        got: dict[int, int] = {}
        finished = busy = 0
        while finished + busy < total:
            body = peer.receive_zest()
            (request,) = struct.unpack(">I", body[1:5])
            if body[0] == wire.RANGE_END:
                assert body[5] == wire.BUSY and request not in got
                busy += 1
                continue
            number = got.get(request, 0)
            assert body == wire.range_data(request, number, content.chunks[number])
            got[request] = number + 1
            finished += number + 1 == 50
        assert finished >= 512
