"""A BitTorrent peer in plain sockets with ut_xet and zest_hf1, written from native/PROTOCOL.md, BEP 3 and BEP 10.

It shares no code with the project and does nothing by itself: a test says what is sent and when, right or wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3

TIMEOUT_S = 10.0
PROTOCOL = b"\x13BitTorrent protocol"
EXTENDED = 20

XET_ID = 1
ZEST_ID = 9

FILE, XORB = 1, 2
OK, NOT_FOUND, BUSY = 0, 1, 2

CHUNK_REQUEST, CHUNK_RESPONSE, CHUNK_NOT_FOUND, CHUNK_ERROR = 1, 2, 3, 4
HAVE_REQUEST, HAVE, MANIFEST_REQUEST, MANIFEST, RANGE_REQUEST, RANGE_DATA, RANGE_END, CANCEL = range(1, 9)
HAVE_UPDATE, PEERS, CLAIMS, FOLLOW_REQUEST = 9, 10, 11, 12
FETCHING, HELD = 1, 2


class HungUp(Exception):
    """The other side closed the connection."""


def xorb_swarm(xorb_hash: bytes) -> bytes:
    return hashlib.sha1(b"zest-xet-v1:" + xorb_hash).digest()


def file_swarm(file_hash: bytes) -> bytes:
    return hashlib.sha1(b"zest-hf-file-v1:" + file_hash).digest()


NODE_SWARM = hashlib.sha1(b"zest-hf-node-v1").digest()


# --- bencoding (BEP 3) --------------------------------------------------------------------------------


def bencode(value: Any) -> bytes:
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, str):
        return bencode(value.encode())
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    items = sorted((key.encode() if isinstance(key, str) else key, item) for key, item in value.items())
    return b"d" + b"".join(bencode(key) + bencode(item) for key, item in items) + b"e"


def bdecode(data: bytes) -> Any:
    value, _ = _bdecode(data, 0)
    return value


def _bdecode(data: bytes, at: int) -> tuple[Any, int]:
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if kind in (b"l", b"d"):
        items = []
        at += 1
        while data[at : at + 1] != b"e":
            item, at = _bdecode(data, at)
            items.append(item)
        return (items if kind == b"l" else dict(zip(items[::2], items[1::2], strict=True))), at + 1
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    return data[colon + 1 : end], end


# --- messages -----------------------------------------------------------------------------------------


def chunk_request(request: int, chunk: bytes) -> bytes:
    return struct.pack(">BI32s", CHUNK_REQUEST, request, chunk)


def xorb_request(request: int, xorb: bytes, first: int, end: int) -> bytes:
    """The dialect of zest 0.4."""
    return struct.pack(">BI32sII", CHUNK_REQUEST, request, xorb, first, end)


def chunk_response(request: int, data: bytes) -> bytes:
    return struct.pack(">BII", CHUNK_RESPONSE, request, len(data)) + data


def chunk_not_found(request: int, chunk: bytes = b"") -> bytes:
    """Without the hash: the short form."""
    return struct.pack(">BI", CHUNK_NOT_FOUND, request) + chunk


def chunk_error(request: int, code: int, text: str = "") -> bytes:
    return struct.pack(">BII", CHUNK_ERROR, request, code) + text.encode()


def have_request(request: int, kind: int, swarm: bytes, proof: bytes = bytes(32), updates: int = 0) -> bytes:
    return struct.pack(">BIB20sB32s", HAVE_REQUEST, request, kind, swarm, updates, proof)


def have(
    request: int, answer: int, chunks: int, ranges: list[tuple[int, int]], proof: bytes = bytes(32)
) -> bytes:
    return struct.pack(">BIB32s", HAVE, request, answer, proof) + _ranges(chunks, ranges)


def have_update(request: int, answer: int, chunks: int, ranges: list[tuple[int, int]]) -> bytes:
    return struct.pack(">BIB", HAVE_UPDATE, request, answer) + _ranges(chunks, ranges)


def _ranges(chunks: int, ranges: list[tuple[int, int]]) -> bytes:
    numbers = [number for range_ in ranges for number in range_]
    return struct.pack(f">II{len(numbers)}I", chunks, len(ranges), *numbers)


def peers(swarm: bytes, addresses: list[tuple[bytes, int]]) -> bytes:
    """``addresses``: 16 bytes and a port each."""
    parts = (address + struct.pack(">H", port) for address, port in addresses)
    return struct.pack(">B20sB", PEERS, swarm, len(addresses)) + b"".join(parts)


def claims(swarm: bytes, downloading: int, what: list[tuple[int, int, int, int]]) -> bytes:
    """``what``: first chunk, end, state, progress."""
    parts = (struct.pack(">IIBH", *one) for one in what)
    return struct.pack(">B20sBH", CLAIMS, swarm, downloading, len(what)) + b"".join(parts)


def swarm_of(kind: int, object_: bytes) -> bytes:
    return xorb_swarm(object_) if kind == XORB else file_swarm(object_)


def manifest_request(request: int, kind: int, object_: bytes, first: int, count: int) -> bytes:
    return struct.pack(">BIB32sII", MANIFEST_REQUEST, request, kind, object_, first, count)


def manifest(
    request: int, answer: int, chunks: int, first: int, entries: list[tuple[bytes, int]], count: int | None = None
) -> bytes:
    head = struct.pack(">BIBIII", MANIFEST, request, answer, chunks, first, len(entries) if count is None else count)
    return head + b"".join(hash_ + struct.pack(">I", length) for hash_, length in entries)


def range_request(request: int, kind: int, object_: bytes, first: int, end: int) -> bytes:
    return struct.pack(">BIB32sII", RANGE_REQUEST, request, kind, object_, first, end)


def range_data(request: int, chunk: int, data: bytes) -> bytes:
    return struct.pack(">BII", RANGE_DATA, request, chunk) + data


def range_end(request: int, answer: int) -> bytes:
    return struct.pack(">BIB", RANGE_END, request, answer)


def cancel(request: int) -> bytes:
    return struct.pack(">BI", CANCEL, request)


def follow_request(request: int, xorb: bytes, first: int, end: int) -> bytes:
    return struct.pack(">BI32sII", FOLLOW_REQUEST, request, xorb, first, end)


@dataclass(frozen=True)
class Question:
    """A question that was received."""

    extension: int
    type: int
    request: int
    kind: int = 0
    hash: bytes = b""
    first: int = 0
    end_or_count: int = 0
    swarm: bytes = b""
    updates: int = 0
    proof: bytes = b""
    hold: Callable[[bytes], bytes] = lambda object_: bytes(32)
    """The holder's proof for an object that is asked for."""


def parse_question(extension: int, body: bytes) -> Question:
    type_, request = struct.unpack_from(">BI", body)
    if extension == XET_ID:
        assert type_ == CHUNK_REQUEST and len(body) in (37, 45), body.hex()
        first, end = struct.unpack_from(">II", body, 37) if len(body) == 45 else (0, 0)
        return Question(extension, type_, request, 0, body[5:37], first, end)
    if type_ == CANCEL:
        assert len(body) == 5
        return Question(extension, type_, request)
    if type_ == HAVE_REQUEST:
        kind, swarm, updates, proof = struct.unpack(">B20sB32s", body[5:])
        return Question(extension, type_, request, kind, swarm=swarm, updates=updates, proof=proof)
    if type_ == FOLLOW_REQUEST:
        object_, first, end = struct.unpack(">32sII", body[5:])
        return Question(extension, type_, request, XORB, object_, first, end)
    kind, object_ = struct.unpack_from(">B32s", body, 5)
    assert type_ in (MANIFEST_REQUEST, RANGE_REQUEST) and len(body) == 46, body.hex()
    first, end = struct.unpack_from(">II", body, 38)
    return Question(extension, type_, request, kind, object_, first, end)


# --- connections --------------------------------------------------------------------------------------


@dataclass
class WirePeer:
    """One connection. Every read has a deadline; the end of the connection is HungUp."""

    socket: socket.socket
    extensions: dict[str, int] = field(default_factory=lambda: {"ut_xet": XET_ID, "zest_hf1": ZEST_ID})
    node_id: bytes | None = field(default_factory=lambda: os.urandom(20))
    nonce: bytes | None = field(default_factory=lambda: os.urandom(32))
    peer_id: bytes = field(default_factory=lambda: b"-ZT0001-" + os.urandom(12))
    reserved: bytes = b"\0\0\0\0\0\x10\0\0"
    listen_port: int | None = None
    theirs: dict[bytes, int] = field(default_factory=dict)
    their_handshake: dict[bytes, Any] = field(default_factory=dict)

    @classmethod
    def dial(cls, port: int, info_hash: bytes = NODE_SWARM, host: str = "127.0.0.1", **options: Any) -> WirePeer:
        """Connects, from an address of this machine, and completes both handshakes."""
        connection = socket.create_connection(("127.0.0.1", port), TIMEOUT_S, source_address=(host, 0))
        peer = cls(connection, **options)
        peer.send_handshake(info_hash)
        peer.receive_handshake(info_hash)
        peer.extended_handshake()
        return peer

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> WirePeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send_raw(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise HungUp from error

    def receive_raw(self, count: int) -> bytes:
        out = bytearray()
        while len(out) < count:
            try:
                part = self.socket.recv(min(count - len(out), 1 << 20))
            except ConnectionResetError as error:
                raise HungUp from error
            if not part:
                raise HungUp
            out += part
        return bytes(out)

    def send_handshake(self, info_hash: bytes) -> None:
        self.send_raw(PROTOCOL + self.reserved + info_hash + self.peer_id)

    def receive_handshake(self, info_hash: bytes | None = None) -> bytes:
        """The info-hash that they name."""
        raw = self.receive_raw(68)
        assert raw[:20] == PROTOCOL, raw
        assert raw[25] & 0x10, "no extension bit"
        assert info_hash is None or raw[28:48] == info_hash
        assert raw[48:52] == b"-ZH0", raw[48:]
        return raw[28:48]

    def extended_handshake(self) -> None:
        """Both ways."""
        content: dict[str, Any] = {"m": self.extensions, "v": "wire_peer"}
        if self.node_id is not None:
            content["zh"] = self.node_id
        if self.nonce is not None:
            content["zn"] = self.nonce
        if self.listen_port is not None:
            content["p"] = self.listen_port
        self.send_message(bytes([EXTENDED, 0]) + bencode(content))
        while True:
            message = self.receive_message()
            if message[:2] == bytes([EXTENDED, 0]):
                self.their_handshake = bdecode(message[2:])
                self.theirs = self.their_handshake[b"m"]
                return

    def send_message(self, message: bytes) -> None:
        self.send_raw(struct.pack(">I", len(message)) + message)

    def receive_message(self) -> bytes:
        """The next message that is not a keep-alive."""
        while True:
            (size,) = struct.unpack(">I", self.receive_raw(4))
            assert size <= 128 << 20, size
            if size:
                return self.receive_raw(size)

    def frame(self, name: str, body: bytes) -> bytes:
        """An extended message, on the id that they asked for."""
        message = bytes([EXTENDED, self.theirs[name.encode()]]) + body
        return struct.pack(">I", len(message)) + message

    def send_xet(self, body: bytes) -> None:
        self.send_raw(self.frame("ut_xet", body))

    def send_zest(self, body: bytes) -> None:
        self.send_raw(self.frame("zest_hf1", body))

    def receive(self) -> tuple[int, bytes]:
        """The next extended message: its id (ours) and its body."""
        while True:
            message = self.receive_message()
            if message[0] == EXTENDED and message[1] != 0:
                return message[1], message[2:]

    def receive_xet(self) -> bytes:
        extension, body = self.receive()
        assert extension == self.extensions["ut_xet"], (extension, body[:50])
        return body

    def receive_zest(self) -> bytes:
        extension, body = self.receive()
        assert extension == self.extensions["zest_hf1"], (extension, body[:50])
        return body

    def question(self) -> Question:
        extension, body = self.receive()
        while extension == self.extensions.get("zest_hf1") and body[:1] == bytes([CLAIMS]):
            extension, body = self.receive()  # nothing that wants an answer
        question = parse_question(XET_ID if extension == self.extensions.get("ut_xet") else ZEST_ID, body)
        return dataclasses.replace(question, hold=lambda object_: self.prove(b"hold", question.kind, object_))

    # --- blind questions ----------------------------------------------------------------------------

    def swarm_of(self, kind: int, object_: bytes) -> bytes:
        """What its swarm is called."""
        return swarm_of(kind, object_)

    def prove(self, tag: bytes, kind: int, object_: bytes, *, theirs: bool = False) -> bytes:
        """That the sender (this peer, or the other) knows the object's hash; ``tag``: ask or hold."""
        mine = (self.node_id or bytes(20), self.nonce or bytes(32))
        other = (self.their_handshake.get(b"zh", bytes(20)), self.their_handshake.get(b"zn", bytes(32)))
        (a_id, a_nonce), (b_id, b_nonce) = (other, mine) if theirs else (mine, other)
        text = b"zest_hf1 " + tag + a_id + b_id + a_nonce + b_nonce + bytes([kind])
        return blake3(text, key=object_).digest()

    def have_request(self, request: int, kind: int, object_: bytes, updates: int = 0) -> bytes:
        """As who knows the hash asks."""
        return have_request(request, kind, self.swarm_of(kind, object_), self.prove(b"ask", kind, object_), updates)

    def their_have(self, request: int, kind: int, object_: bytes, chunks: int, ranges: list[tuple[int, int]]) -> bytes:
        """The answer of who holds it, as it has to arrive here."""
        return have(request, OK, chunks, ranges, self.prove(b"hold", kind, object_, theirs=True))

    def wait_until_hung_up(self) -> None:
        """Reads on until the other side closes. TimeoutError when it does not."""
        with contextlib.suppress(HungUp):
            while True:
                self.receive_raw(1)


Script = Callable[[WirePeer], None]


class WireServer:
    """Listens on loopback; each connection runs the script on a thread of its own, after the handshakes."""

    def __init__(
        self, script: Script, *, handshakes: bool = True, port: int = 0, host: str = "127.0.0.1", **options: Any
    ) -> None:
        self._script, self._handshakes, self._options = script, handshakes, options
        self._listener = socket.create_server((host, port))
        self.port: int = self._listener.getsockname()[1]
        self.failures: list[BaseException] = []
        self.accepted = 0
        self._peers: list[WirePeer] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> WireServer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        for peer in self._peers:
            peer.close()
        if kind is None and self.failures:
            raise self.failures[0]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(TIMEOUT_S)
            self.accepted += 1
            peer = WirePeer(connection, **self._options)
            self._peers.append(peer)
            thread = threading.Thread(target=self._run, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, peer: WirePeer) -> None:
        try:
            if self._handshakes:
                info_hash = peer.receive_handshake()
                peer.send_handshake(info_hash)
                peer.extended_handshake()
            self._script(peer)
            peer.wait_until_hung_up()
        except (HungUp, OSError):
            pass
        except BaseException as failure:
            self.failures.append(failure)
        finally:
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
