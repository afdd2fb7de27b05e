"""What libtorrent itself understands, said by strangers: it must neither end the process nor be of any use to them."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from pathlib import Path

import pytest

from swarm import wire_peer as wire
from swarm.keyed_peer import SEALED, secret_of
from swarm.node import Content, Node, good
from swarm.wire_peer import EXTENDED, WirePeer, WireServer, bencode

KEY = b"the key of these tests, long enough"


def framed(message: bytes) -> bytes:
    return struct.pack(">I", len(message)) + message


def greeting(info_hash: bytes = wire.NODE_SWARM, **content: object) -> bytes:
    """Both handshakes, without waiting for an answer."""
    first = wire.PROTOCOL + b"\0\0\0\0\0\x10\0\x04" + info_hash + b"-ZT0001-" + os.urandom(12)
    handshake = {"m": {"ut_xet": 1, "zest_hf1": 9}, "zh": os.urandom(20), **content}
    return first + framed(bytes([EXTENDED, 0]) + bencode(handshake))


@pytest.mark.parametrize(
    "then",
    [framed(bytes([EXTENDED, 200])), struct.pack(">I", 1 << 30), framed(bytes([99]))],
    ids=["an unknown extension", "an oversized message", "an unknown message"],
)
def test_we_and_libtorrent_hang_up_at_the_same_moment(node: Node, tmp_path: Path, then: bytes) -> None:
    """Over two violations in one packet; the connection is gone before we come to close it."""
    nonsense = framed(bytes([EXTENDED, wire.ZEST_ID]) + b"\xff" * 20)
    for _ in range(100):
        with socket.create_connection(("127.0.0.1", node.port)) as stranger:
            stranger.sendall(greeting() + nonsense + then)
    node.until(lambda: not node.session.peers())
    content = Content.random(3)
    node.share(content, tmp_path / "f")
    with WirePeer.dial(node.port) as good:
        good.send_zest(wire.range_request(1, wire.FILE, content.hash, 0, 3))
        assert good.receive_zest() == wire.range_data(1, 0, content.chunks[0])


def hello(key: bytes | None) -> bytes:
    """The greeting of who may speak there, and takes part in BEP 55."""
    name, swarm = (SEALED, secret_of(key).rendezvous) if key else ("zest_hf1", wire.NODE_SWARM)
    return greeting(swarm, m={name: wire.ZEST_ID, "ut_holepunch": 4}, zn=os.urandom(32))


def heard(stranger: socket.socket) -> bytes:
    """All that comes until half a second of silence."""
    stranger.settimeout(0.5)
    out = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while part := stranger.recv(1 << 16):
            out += part
    return out


def memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "keyed"])
def test_requests_for_pieces_are_not_answered(key: bytes | None) -> None:
    """Not even rejected (BEP 6): who does not read that would have it pile up, before anything is proved."""
    with Node(swarm_key=key) as node, socket.create_connection(("127.0.0.1", node.port)) as stranger:
        stranger.sendall(hello(key) + 1000 * framed(struct.pack(">BIII", 6, 0, 0, 16384)))
        assert struct.pack(">IBIII", 13, 16, 0, 0, 16384) not in heard(stranger)


def test_a_flood_of_what_means_nothing_costs_no_memory() -> None:
    """Allowed-fast messages are something to remember for who has no metadata."""
    message = framed(struct.pack(">BI", 17, 5))
    with Node(swarm_key=KEY) as node, socket.create_connection(("127.0.0.1", node.port)) as stranger:
        stranger.settimeout(wire.TIMEOUT_S)
        stranger.sendall(hello(KEY))
        megabyte = message * 111_111
        # libtorrent's receive buffer grows to its full size first, and leaves smaller ones to the allocator.
        for _ in range(100):
            stranger.sendall(megabyte)
        before = memory_bytes()
        for _ in range(200):
            stranger.sendall(megabyte)
        # It would be 100 MB.
        assert memory_bytes() - before < 64 << 20


@pytest.mark.parametrize("key", [None, KEY], ids=["open", "keyed"])
def test_nobody_is_told_who_else_is_connected(key: bytes | None) -> None:
    """BEP 55 lets anybody ask a peer whether it is connected to somebody, and has it send packets to anybody."""
    address = socket.inet_aton("127.0.0.1") + struct.pack(">H", 9)
    rendezvous = framed(bytes([EXTENDED, 4]) + b"\0\0" + address)
    again = framed(bytes([EXTENDED, 0]) + bencode({"m": {"ut_holepunch": 4}}))
    with Node(swarm_key=key) as node, socket.create_connection(("127.0.0.1", node.port)) as stranger:
        stranger.sendall(hello(key) + rendezvous + again + rendezvous)
        answer = heard(stranger)
        assert address not in answer and b"ut_holepunch" not in answer


def test_a_port_that_a_stranger_claims_twice_can_still_be_dialled(node: Node) -> None:
    """libtorrent would take whoever listens there for him, and forget about the dial."""
    content = Content.random(2)
    with WireServer(good(content)) as innocent:
        twice = b"".join(framed(bytes([EXTENDED, 0]) + bencode({"m": {}, "p": innocent.port})) for _ in range(2))
        with socket.create_connection(("127.0.0.1", node.port)) as stranger:
            stranger.sendall(greeting(p=innocent.port) + twice)
            node.until(lambda: any(peer.ready for peer in node.session.peers()))
            node.meet(innocent.port)
