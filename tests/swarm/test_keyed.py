"""Keyed swarms: who knows the key is served as ever; nobody else gets or learns anything."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm import wire_peer as wire
from swarm.keyed_peer import RECORDS_OF_A_KEY, SEALED, TAG_BYTES, KeyedPeer, secret_of
from swarm.node import Content, Node, Target, good
from swarm.wire_peer import HungUp, WirePeer
from zest_hf._native.events import Kind, Outcome, PeerGone, PeerReady
from zest_hf.errors import SwarmError

KEY = b"0123456789abcdef0123456789abcdef"
OTHER_KEY = b"0123456789abcdef0123456789abcdeF"
LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    ((1 << 255) - 20).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
]


@pytest.fixture(scope="module")
def content() -> Content:
    return Content.random(40)


@pytest.fixture(scope="module")
def offering(tmp_path_factory: pytest.TempPathFactory, content: Content) -> Iterator[Node]:
    """One session for all of them: what one test does to it must not show in the next."""
    with Node(swarm_key=KEY) as node:
        node.share(content, tmp_path_factory.mktemp("keyed") / "offered")
        yield node


@pytest.fixture
def node(offering: Node, content: Content) -> Iterator[Node]:
    """A session with the key that offers the content, and does so still when the test is over."""
    offering.until(lambda: not offering.session.peers())
    offering.pump()
    offering.events.clear()
    yield offering
    with KeyedPeer.dial_keyed(offering.port, KEY) as peer:
        fetch(peer, content)


def fetch(peer: KeyedPeer, content: Content, first: int = 0, end: int = 3) -> None:
    peer.send_zest(peer.have_request(1, wire.FILE, content.hash))
    assert peer.receive_zest() == peer.their_have(1, wire.FILE, content.hash, 40, [(0, 40)])
    peer.send_zest(wire.range_request(2, wire.FILE, content.hash, first, end))
    for number in range(first, end):
        assert peer.receive_zest() == wire.range_data(2, number, content.chunks[number])


def secrets_of(content: Content) -> list[bytes]:
    """What a stranger must not see: every hash, and pieces of the data."""
    hashes = [content.hash, *(hash_ for hash_, _ in content.entries), *(hash_ for hash_, _, _ in content.xorbs)]
    return [*hashes, *(bytes(chunk[:32]) for chunk in content.chunks)]


def read_messages(stream: bytes) -> list[bytes]:
    """The messages behind the handshake of BEP 3."""
    out, at = [], 68
    while at < len(stream):
        (size,) = struct.unpack_from(">I", stream, at)
        out.append(stream[at + 4 : at + 4 + size])
        at += 4 + size
    return [message for message in out if message]


def ours(stream: bytes) -> list[bytes]:
    """The messages of our extension."""
    return [m for m in read_messages(stream) if m[0] == wire.EXTENDED and m[1] != 0]


def assert_nothing_said(peer: KeyedPeer, content: Content) -> None:
    """The peer is hung up on, and the only thing that it ever got is what every BitTorrent peer gets first."""
    with contextlib.suppress(HungUp):
        while True:
            peer.receive_raw(1)
    assert ours(bytes(peer.seen)) == []
    assert not [secret for secret in secrets_of(content) if secret in peer.seen]


# --- who knows the key ------------------------------------------------------------------------------------


def test_two_sessions_with_the_same_key(node: Node, content: Content, tmp_path: Path) -> None:
    with Node(swarm_key=KEY) as other, Target(tmp_path / "t", content) as target:
        peer = other.meet(node.port)
        assert other.have(peer, Kind.FILE, content.hash).ranges == ((0, 40),)
        assert other.manifest(peer, Kind.FILE, content.hash, 0, 40).part == content.manifest
        assert other.piece(peer, target).outcome is Outcome.OK
        assert target.data == content.data
        assert [info.ranges for info in other.session.peers()] == [True]


def test_a_peer_written_from_the_document_asks(node: Node, content: Content) -> None:
    with KeyedPeer.dial_keyed(node.port, KEY) as peer:
        assert peer.theirs == {SEALED.encode(): wire.ZEST_ID}
        fetch(peer, content, 0, 40)
        peer.send_zest(wire.manifest_request(3, wire.FILE, content.hash, 0, 40))
        assert peer.receive_zest() == wire.manifest(3, wire.OK, 40, 0, content.entries)
        peer.send_zest(wire.range_request(4, wire.FILE, os.urandom(32), 0, 1))
        assert peer.receive_zest() == wire.range_end(4, wire.NOT_FOUND)
        assert not [secret for secret in secrets_of(content) if secret in peer.seen]


@pytest.mark.parametrize("kind", [wire.FILE, wire.XORB])
def test_a_peer_written_from_the_document_comes_to_the_swarm_of_an_object(
    node: Node, content: Content, kind: int
) -> None:
    object_ = content.hash if kind == wire.FILE else content.xorbs[0][0]
    name = secret_of(KEY).swarm(kind, object_)
    assert node.session.info_hash(Kind(kind), object_) == name != wire.swarm_of(kind, object_)
    with KeyedPeer.dial_keyed(node.port, KEY, info_hash=name) as peer:
        fetch(peer, content)


class Acceptor:
    """A peer from the document that is dialled: the script runs after the extension handshakes."""

    def __init__(self, script: Callable[[KeyedPeer], None], swarm_key: bytes = KEY, **options: Any) -> None:
        self._script, self._swarm_key, self._options = script, swarm_key, options
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(wire.TIMEOUT_S)
        self.port: int = self._listener.getsockname()[1]
        self._failure: BaseException | None = None
        self.peer: KeyedPeer | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.peer = KeyedPeer.accept(self._listener, self._swarm_key, **self._options)
            self._script(self.peer)
            self.peer.wait_until_hung_up()
        except (HungUp, ConnectionError):
            pass
        except BaseException as failure:
            self._failure = failure

    def __enter__(self) -> Acceptor:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self.peer is not None:
            with contextlib.suppress(OSError):
                self.peer.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(wire.TIMEOUT_S)
        self._listener.close()
        if self.peer is not None:
            self.peer.close()
        if kind is None and self._failure is not None:
            raise self._failure


def proved(then: Callable[[KeyedPeer], None]) -> Callable[[KeyedPeer], None]:
    def script(peer: KeyedPeer) -> None:
        peer.prove_key()
        then(peer)

    return script


def test_a_peer_written_from_the_document_answers(node: Node, tmp_path: Path) -> None:
    wanted = Content.random(20, seed=2)
    with Acceptor(proved(good(wanted))) as acceptor, Target(tmp_path / "t", wanted) as target:
        peer = node.meet(acceptor.port)
        assert node.have(peer, Kind.FILE, wanted.hash).outcome is Outcome.OK
        assert node.piece(peer, target).outcome is Outcome.OK
        assert target.data == wanted.data


def test_new_keys_take_over_in_a_long_connection(node: Node, content: Content) -> None:
    with KeyedPeer.dial_keyed(node.port, KEY) as peer:
        # Their direction: cancels of nothing mean nothing.
        cancels = b"".join(peer.frame(SEALED, peer.seal(wire.cancel(7))) for _ in range(RECORDS_OF_A_KEY + 10))
        peer.send_raw(cancels)
        fetch(peer, content)
        # Ours: as many answers, a few questions at a time.
        question = wire.range_request(3, wire.FILE, os.urandom(32), 0, 1)
        for _ in range(RECORDS_OF_A_KEY // 256 + 1):
            peer.send_raw(b"".join(peer.frame(SEALED, peer.seal(question)) for _ in range(256)))
            for _ in range(256):
                assert peer.receive_zest() == wire.range_end(3, wire.NOT_FOUND)
        fetch(peer, content)


def test_two_nodes_that_dial_each_other_keep_one_connection(node: Node, content: Content) -> None:
    with Node(swarm_key=KEY) as other:
        node.session.dial("127.0.0.1", other.port, 901)
        other.session.dial("127.0.0.1", node.port, 902)
        other.wait(PeerReady)
        node.wait(PeerReady)
        both = (node, other)
        other.until(lambda: all([info.ready for info in at.session.peers()] == [True] for at in both))
        peer = other.session.peers()[0].peer
        assert other.have(peer, Kind.FILE, content.hash).outcome is Outcome.OK


# --- who does not ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours_", "theirs"), [(KEY, OTHER_KEY), (KEY, None), (None, KEY)], ids=["other key", "keyed dials", "clear dials"]
)
def test_sessions_that_do_not_belong_together(
    ours_: bytes | None, theirs: bytes | None, content: Content, tmp_path: Path
) -> None:
    with Node(swarm_key=ours_) as one, Node(swarm_key=theirs) as two:
        two.share(content, tmp_path / "offered")
        one.dial_in_vain(two.port)
        # Not even where its name is known from elsewhere.
        one.dial_in_vain(two.port, two.session.info_hash(Kind.FILE, content.hash))
        assert one.session.stats().peers_ready == two.session.stats().peers_ready == 0
        assert not [event for at in (one, two) for event in at.pump() if isinstance(event, PeerReady)]


@pytest.mark.parametrize(
    "options",
    [
        {"extensions": {"zest_hf1": 9, "ut_xet": 1}},
        {"extensions": {"ut_xet": 1}},
        {"extensions": {}},
        {"extensions": {SEALED: 0}},
        {"extensions": {SEALED: 256}},
        {"node_id": None},
        {"node_id": bytes(20)},
        {"node_id": b"short"},
        {"nonce": None},
        {"nonce": b""},
    ],
    ids=["clear", "v1", "none", "id 0", "id 256", "no node id", "zero node id", "short node id", "no key", "empty key"],
)
def test_an_extension_handshake_that_will_not_do(node: Node, content: Content, options: dict[str, Any]) -> None:
    """At the right swarm, of which a tracker or the LAN may have told."""
    with KeyedPeer.connect(node.port, KEY, **options) as peer:
        assert_nothing_said(peer, content)


@pytest.mark.parametrize("key", [*LOW_ORDER, "theirs", bytes(31), bytes(33)])
def test_a_public_key_that_will_not_do(node: Node, content: Content, key: bytes | str) -> None:
    connection = socket.create_connection(("127.0.0.1", node.port), wire.TIMEOUT_S)
    with KeyedPeer(connection, secret=secret_of(KEY)) as peer:
        peer.send_handshake(peer.info_hash)
        peer.receive_handshake(peer.info_hash)
        if isinstance(key, str):  # their own, sent back
            message = peer.receive_message()
            while message[:2] != bytes([wire.EXTENDED, 0]):
                message = peer.receive_message()
            peer.nonce = wire.bdecode(message[2:])[b"zn"]
            handshake = {"m": peer.extensions, "zh": peer.node_id, "zn": peer.nonce}
            peer.send_message(bytes([wire.EXTENDED, 0]) + wire.bencode(handshake))
        else:
            peer.nonce = key
            peer.extended_handshake()
        assert_nothing_said(peer, content)


def wrong_key(peer: KeyedPeer, content: Content) -> bytes:
    peer.secret = secret_of(OTHER_KEY)
    peer.agree()
    return peer.proof


def of_another_swarm(peer: KeyedPeer, content: Content) -> bytes:
    peer.info_hash = secret_of(KEY).swarm(wire.FILE, content.hash)
    peer.agree()
    return peer.proof


def swapped_roles(peer: KeyedPeer, content: Content) -> bytes:
    peer.dialled = False
    peer.agree()
    return peer.proof


def under_another_node_id(peer: KeyedPeer, content: Content) -> bytes:
    peer.node_id = os.urandom(20)
    peer.agree()
    return peer.proof


def one_bit_off(peer: KeyedPeer, content: Content) -> bytes:
    return peer.proof[:-1] + bytes([peer.proof[-1] ^ 1])


FIRST_MESSAGES: dict[str, Callable[[KeyedPeer, Content], bytes]] = {
    "made up": lambda peer, content: os.urandom(32),
    "zeros": lambda peer, content: bytes(32),
    "made with another key": wrong_key,
    "of another swarm": of_another_swarm,
    "of swapped roles": swapped_roles,
    "the acceptor's": lambda peer, content: peer.keys["acceptor proves"],
    "under another node id": under_another_node_id,
    "one bit off": one_bit_off,
    "short": lambda peer, content: peer.proof[:31],
    "long": lambda peer, content: peer.proof + b"\0",
    "empty": lambda peer, content: b"",
    "a question": lambda peer, content: peer.have_request(1, wire.FILE, content.hash),
    "a sealed question": lambda peer, content: peer.seal(peer.have_request(1, wire.FILE, content.hash)),
    "a sealed 32 bytes": lambda peer, content: peer.seal(bytes(16)),
}


@pytest.mark.parametrize("first", FIRST_MESSAGES)
def test_a_first_message_that_is_not_the_proof(node: Node, content: Content, first: str) -> None:
    with KeyedPeer.connect(node.port, KEY) as peer:
        peer.agree()
        peer.start()
        peer.send_plain(FIRST_MESSAGES[first](peer, content))
        with contextlib.suppress(HungUp):  # also not if all is right from there on
            peer.agree()
            peer.start()
            peer.send_plain(peer.proof)
            peer.send_zest(peer.have_request(1, wire.FILE, content.hash))
        assert_nothing_said(peer, content)
    node.until(lambda: not node.session.peers())
    assert not node.events, "somebody who has proved nothing was spoken of"


def test_a_proof_is_good_for_one_connection(node: Node, content: Content) -> None:
    node_id = os.urandom(20)
    with KeyedPeer.dial_keyed(node.port, KEY, node_id=node_id) as first:
        fetch(first, content)
    node.wait(PeerGone)
    # The same node, the same key pair: theirs is another.
    with KeyedPeer.connect(node.port, KEY, node_id=node_id, private=first.private) as second:
        second.agree()
        assert second.proof != first.proof
        second.send_plain(first.proof)
        assert_nothing_said(second, content)


def test_messages_in_the_clear_beside_the_sealed_ones(node: Node, content: Content) -> None:
    """The id of ut_xet is not offered, so nobody may use it."""
    for before in (True, False):
        peer = (KeyedPeer.connect if before else KeyedPeer.dial_keyed)(node.port, KEY)
        with peer:
            body = wire.chunk_request(1, content.entries[0][0])
            peer.send_message(bytes([wire.EXTENDED, wire.XET_ID]) + body)
            with contextlib.suppress(HungUp):
                while True:
                    peer.receive_raw(1)
            assert len(ours(bytes(peer.seen))) == (0 if before else 1)


def test_a_second_extension_handshake_changes_nothing(node: Node, content: Content) -> None:
    with KeyedPeer.connect(node.port, KEY) as peer:
        other = {"m": {"zest_hf1": 9, SEALED: 12}, "zh": os.urandom(20), "zn": os.urandom(32)}
        peer.send_message(bytes([wire.EXTENDED, 0]) + wire.bencode(other))
        peer.prove_key()
        peer.send_message(bytes([wire.EXTENDED, 0]) + wire.bencode(other))
        fetch(peer, content)


def test_a_message_before_the_extension_handshake(node: Node, content: Content) -> None:
    connection = socket.create_connection(("127.0.0.1", node.port), wire.TIMEOUT_S)
    with KeyedPeer(connection, secret=secret_of(KEY)) as peer:
        peer.send_handshake(peer.info_hash)
        peer.receive_handshake(peer.info_hash)
        peer.send_message(bytes([wire.EXTENDED, wire.ZEST_ID]) + os.urandom(32))
        assert_nothing_said(peer, content)


def test_who_proves_nothing_is_not_kept(content: Content) -> None:
    with Node(swarm_key=KEY, connect_timeout_s=1.0) as node, KeyedPeer.connect(node.port, KEY) as peer:
        assert_nothing_said(peer, content)
        node.until(lambda: not node.session.peers())


def test_a_claimed_node_id_does_no_harm_to_its_owner(node: Node, content: Content, tmp_path: Path) -> None:
    """Of two connections that a pair of nodes dialled both ways one is ended: that is for those who have proved."""
    wanted = Content.random(20, seed=2)
    smallest = bytes(19) + b"\1"  # whose dials win
    with Acceptor(proved(good(wanted)), node_id=smallest) as owner, Target(tmp_path / "t", wanted) as target:
        peer = node.meet(owner.port)
        with KeyedPeer.connect(node.port, KEY, node_id=smallest) as stranger:
            stranger.agree()
            stranger.send_plain(os.urandom(32))
            assert_nothing_said(stranger, content)
        assert node.piece(peer, target).outcome is Outcome.OK


def test_what_is_announced_before_the_proof_takes_no_memory(node: Node, content: Content) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            peer = stack.enter_context(KeyedPeer.connect(node.port, KEY))
            with contextlib.suppress(HungUp, OSError):
                peer.send_raw(struct.pack(">IBB", 1 << 20, wire.EXTENDED, wire.ZEST_ID) + bytes(900_000))
            assert_nothing_said(peer, content)
        assert resident() - before < 24 << 20


# --- who answers in somebody's place ---------------------------------------------------------------------


def told(acceptor: Acceptor, content: Content) -> list[bytes]:
    """What our extension said to an acceptor; no hash may be in anything."""
    assert acceptor.peer is not None
    assert not [secret for secret in secrets_of(content) if secret in acceptor.peer.seen]
    return ours(bytes(acceptor.peer.seen))


@pytest.mark.parametrize("answer", ["reflected", "made up", "another key's", "a message", "sealed"])
def test_an_acceptor_that_does_not_know_the_key(node: Node, content: Content, answer: str) -> None:
    def script(peer: KeyedPeer) -> None:
        proof = peer.receive_plain()
        peer.agree()
        peer.start()
        peer.send_plain(
            {
                "reflected": proof,
                "made up": os.urandom(32),
                "another key's": peer.proof,
                "a message": wire.have_request(1, wire.FILE, os.urandom(20)),
                "sealed": peer.seal(bytes(16)),
            }[answer]
        )

    with Acceptor(script, OTHER_KEY) as acceptor:
        reason = node.dial_in_vain(acceptor.port)
        assert reason == ("broke the protocol" if answer == "a message" else "does not know the swarm key")
    # Its proof and nothing else.
    assert [len(message) for message in told(acceptor, content)] == [2 + 32]


@pytest.mark.parametrize("options", [{"extensions": {"zest_hf1": 9}}, {"nonce": None}, {"node_id": None}])
def test_an_acceptor_that_is_not_of_a_keyed_swarm_sees_no_proof(
    node: Node, content: Content, options: dict[str, Any]
) -> None:
    with Acceptor(lambda peer: None, **options) as acceptor:
        node.dial_in_vain(acceptor.port)
    assert told(acceptor, content) == []


def test_a_relay_with_keys_of_its_own(node: Node, content: Content) -> None:
    """It sits between two members, and passes the proofs on."""
    with Node(swarm_key=KEY) as dialler:

        def script(from_dialler: KeyedPeer) -> None:
            proof = from_dialler.receive_plain()
            with KeyedPeer.connect(node.port, KEY, node_id=dialler.node_id) as to_acceptor:
                to_acceptor.send_plain(proof)
                assert_nothing_said(to_acceptor, content)
            from_dialler.socket.shutdown(socket.SHUT_RDWR)

        with Acceptor(script, node_id=node.node_id) as relay:
            dialler.dial_in_vain(relay.port)
        assert len(told(relay, content)) == 1


class Relay:
    """Passes every byte on, as a hostile router does, and keeps a copy. ``spoil`` may change what the acceptor says."""

    def __init__(self, to_port: int, spoil: Callable[[bytes, int], bytes] = lambda data, at: data) -> None:
        self._to_port, self._spoil = to_port, spoil
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.copies = {"dialler": bytearray(), "acceptor": bytearray()}
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            near, _ = self._listener.accept()
            far = socket.create_connection(("127.0.0.1", self._to_port), wire.TIMEOUT_S)
            self._sockets = [near, far]
            for name, source, sink in (("dialler", near, far), ("acceptor", far, near)):
                self._threads.append(threading.Thread(target=self._pump, args=(name, source, sink), daemon=True))
                self._threads[-1].start()

    def _pump(self, name: str, source: socket.socket, sink: socket.socket) -> None:
        copy = self.copies[name]
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if name == "acceptor":
                    data = self._spoil(data, len(copy))
                copy += data
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(wire.TIMEOUT_S)
        for each in (self._listener, *self._sockets):
            each.close()


def test_a_relay_carries_sealed_bytes_only(node: Node, content: Content, tmp_path: Path) -> None:
    with Node(swarm_key=KEY) as other, Relay(node.port) as relay, Target(tmp_path / "t", content) as target:
        peer = other.meet(relay.port)
        assert other.have(peer, Kind.FILE, content.hash).outcome is Outcome.OK
        assert other.manifest(peer, Kind.FILE, content.hash, 0, 40).part == content.manifest
        assert other.piece(peer, target).outcome is Outcome.OK
        assert target.data == content.data
    captured = bytes(relay.copies["dialler"] + relay.copies["acceptor"])
    assert len(captured) > len(content.data)
    assert not [secret for secret in secrets_of(content) if secret in captured]
    names = [
        name(kind, hash_)
        for kind, hash_ in ((wire.FILE, content.hash), (wire.XORB, content.xorbs[0][0]))
        for name in (wire.swarm_of, secret_of(KEY).swarm)
    ]
    assert not [name for name in names if name in captured]


def test_a_relay_that_changes_one_bit(node: Node, content: Content, tmp_path: Path) -> None:
    changed_at = 20_000  # in the middle of a chunk

    def spoil(data: bytes, at: int) -> bytes:
        if not at <= changed_at < at + len(data):
            return data
        out = bytearray(data)
        out[changed_at - at] ^= 1
        return bytes(out)

    with Node(swarm_key=KEY) as other, Relay(node.port, spoil) as relay, Target(tmp_path / "t", content) as target:
        peer = other.meet(relay.port)
        end = other.piece(peer, target)
        assert end.outcome is Outcome.GONE and end.chunks_written < 40
        # Nobody is to blame: it is not known who did it.
        assert other.session.bans() == []


# --- records -------------------------------------------------------------------------------------------------


def flipped(record: bytes, at: int) -> bytes:
    out = bytearray(record)
    out[at] ^= 0x80
    return bytes(out)


RECORDS: dict[str, Callable[[KeyedPeer, bytes], list[bytes]]] = {
    "first byte changed": lambda peer, ask: [flipped(peer.seal(ask), 0)],
    "last byte changed": lambda peer, ask: [flipped(peer.seal(ask), -1)],
    "first byte of the tag changed": lambda peer, ask: [flipped(peer.seal(ask), -TAG_BYTES)],
    "truncated": lambda peer, ask: [peer.seal(ask)[:-1]],
    "extended": lambda peer, ask: [peer.seal(ask) + b"\0"],
    "empty": lambda peer, ask: [b""],
    "shorter than a tag": lambda peer, ask: [bytes(TAG_BYTES - 1)],
    "a tag alone": lambda peer, ask: [bytes(TAG_BYTES)],
    "not sealed": lambda peer, ask: [ask],
    "replayed": lambda peer, ask: [peer.seal(wire.cancel(9))] * 2,
    "reordered": lambda peer, ask: [peer.seal(ask), peer.seal(wire.cancel(9))][::-1],
    "one missing": lambda peer, ask: [peer.seal(wire.cancel(9)), peer.seal(ask)][1:],
    "the proof again": lambda peer, ask: [peer.proof],
    "nothing in it": lambda peer, ask: [peer.seal(b"")],
    "no message": lambda peer, ask: [peer.seal(b"\xff" * 20)],
    "the longest there is": lambda peer, ask: [os.urandom((1 << 20) - 2)],
    "longer than that": lambda peer, ask: [os.urandom(1 << 20)],
}


@pytest.mark.parametrize("what", RECORDS)
def test_a_record_that_is_not_the_next_one(node: Node, content: Content, what: str) -> None:
    with KeyedPeer.dial_keyed(node.port, KEY) as peer:
        ask = wire.range_request(1, wire.FILE, content.hash, 0, 40)
        records = RECORDS[what](peer, ask)
        with contextlib.suppress(HungUp):
            # In one piece with a good question: what follows a bad record counts for nothing.
            peer.send_raw(b"".join(peer.frame(SEALED, record) for record in records))
            peer.send_zest(ask)
        said = len(ours(bytes(peer.seen)))
        with contextlib.suppress(HungUp):
            while True:
                peer.receive_raw(1)
        assert len(ours(bytes(peer.seen))) == said == 1  # the proof


@pytest.mark.parametrize("what", ["our own", "of another connection"])
def test_a_record_from_elsewhere(node: Node, content: Content, what: str) -> None:
    """A node takes no record of the other direction, or of a connection with the same peer."""
    with KeyedPeer.dial_keyed(node.port, KEY) as peer, KeyedPeer.dial_keyed(node.port, KEY) as other:
        if what == "our own":
            peer.send_zest(wire.range_request(1, wire.FILE, os.urandom(32), 0, 1))
            record = WirePeer.receive(peer)[1]
        else:
            record = other.seal(wire.cancel(1))
            other.send_plain(record)
        peer.send_plain(record)
        with pytest.raises(HungUp):
            peer.receive()
        fetch(other, content)


# --- the key itself ------------------------------------------------------------------------------------------


def test_a_short_key_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "zest_hf"):
        with Node(swarm_key=b"0123456789abcdef"):
            assert not caplog.records
        with Node(swarm_key=b"secret"):
            assert "6 bytes" in caplog.text and "secret" not in caplog.text
    with pytest.raises(SwarmError, match="at least one byte"):
        Node(swarm_key=b"")


def test_a_keyed_session_takes_no_part_in_the_dht() -> None:
    with pytest.raises(SwarmError, match="does not use the DHT"):
        Node(swarm_key=KEY, dht=True)


def test_the_local_network_hears_the_names_of_the_keyed_swarm_only(node: Node, content: Content) -> None:
    """Two sessions that share a key find each other by names that mean nothing to a third without it."""
    with Node(swarm_key=KEY) as other:
        assert other.session.info_hash(Kind.FILE, content.hash) == node.session.info_hash(Kind.FILE, content.hash)
    for key in (None, OTHER_KEY):
        with Node(swarm_key=key) as other:
            assert other.session.info_hash(Kind.FILE, content.hash) != node.session.info_hash(Kind.FILE, content.hash)
