"""What libtorrent itself understands, said by strangers: it must neither end the process nor be of any use to them."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest

from swarm import wire_peer as wire
from swarm.node import Content, Node
from swarm.wire_peer import EXTENDED, WirePeer, bencode


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
