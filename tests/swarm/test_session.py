"""Two and more real sessions on loopback: what is offered arrives where it belongs, and nowhere else."""

from __future__ import annotations

import errno
import functools
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm import wire_peer as wire
from swarm.node import Content, Node, Target, good
from zest_hf._native.events import HaveAnswer, Kind, Outcome, PeerGone, PeerReady, PieceEnd, ShareLost
from zest_hf._native.writable_file import WritableFile
from zest_hf.core.ids import XetHash
from zest_hf.errors import SwarmError


def of_token(token: int) -> Callable[[PeerReady | PeerGone | HaveAnswer], bool]:
    return lambda event: event.token == token


@functools.cache
def large() -> Content:
    """Enough that something can happen while it is on its way: 1,000 chunks, about 50 MB."""
    return Content.random(1000, size=65536)


@pytest.fixture
def a() -> Iterator[Node]:
    with Node() as node:
        yield node


@pytest.fixture
def b() -> Iterator[Node]:
    with Node() as node:
        yield node


def open_connections() -> Iterator[socket.socket]:
    """All TCP connections of this process, whoever made them."""
    for name in os.listdir("/proc/self/fd"):
        try:
            mine = os.dup(int(name))
        except OSError:
            continue
        try:
            one = socket.socket(fileno=mine)
        except OSError:
            os.close(mine)
            continue
        with one:
            if one.family == socket.AF_INET and one.type == socket.SOCK_STREAM:
                yield one


def test_small_messages_leave_at_once(a: Node, b: Node) -> None:
    """Nagle's algorithm would keep a question back for 40 ms if a message that asks nothing went before it."""
    b.meet(a.port)
    ends = []
    for one in open_connections():
        try:
            ports = one.getsockname()[1], one.getpeername()[1]
        except OSError:  # it listens
            continue
        if a.port in ports:
            ends.append(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    assert len(ends) == 2
    assert all(ends)


def test_have_manifest_and_file(a: Node, b: Node, tmp_path: Path) -> None:
    content = Content.random(64)
    a.share(content, tmp_path / "offered")
    peer = b.meet(a.port)

    have = b.have(peer, Kind.FILE, content.hash)
    assert (have.outcome, have.chunks, have.ranges) == (Outcome.OK, 64, ((0, 64),))
    for xorb, first, end in content.xorbs:
        have = b.have(peer, Kind.XORB, xorb)
        assert (have.outcome, have.chunks, have.ranges) == (Outcome.OK, end - first, ((0, end - first),))
    assert b.have(peer, Kind.FILE, content.xorbs[0][0]).outcome is Outcome.NOT_FOUND
    assert b.have(peer, Kind.XORB, os.urandom(32)).outcome is Outcome.NOT_FOUND

    manifest = b.manifest(peer, Kind.FILE, content.hash, 0, 100)
    assert (manifest.outcome, manifest.chunks, manifest.first) == (Outcome.OK, 64, 0)
    assert manifest.part == content.manifest
    with Target(tmp_path / "taken", content) as target:
        piece = b.piece(peer, target)
        assert (piece.outcome, piece.chunks_written) == (Outcome.OK, 64)
        assert target.data == content.data
    stats = a.session.stats()
    assert (stats.bytes_up, stats.files_shared, stats.xorbs_shared) == (len(content.data), 1, 7)
    assert b.session.stats().bytes_down == len(content.data)
    (share,) = a.session.shares()
    assert (share.file_hash, share.bytes_up, share.peers) == (content.hash, len(content.data), 1)


def test_manifest_in_parts(a: Node, b: Node, tmp_path: Path) -> None:
    content = Content.random(20_000, size=40, per_xorb=8000)
    a.share(content, tmp_path / "offered")
    peer = b.meet(a.port)
    parts = [b.manifest(peer, Kind.FILE, content.hash, first, 16384) for first in (0, 16384)]
    assert [(part.chunks, part.first, len(part.part)) for part in parts] == [
        (20_000, 0, 16384),
        (20_000, 16384, 3616),
    ]
    assert b"".join(part.part.hashes for part in parts) == content.manifest.hashes
    xorb, first, end = content.xorbs[1]
    part = b.manifest(peer, Kind.XORB, xorb, 7990, 100)
    assert (part.chunks, part.part) == (8000, content.manifest.slice(first + 7990, end))
    assert b.manifest(peer, Kind.FILE, content.hash, 20_000, 1).outcome is Outcome.NOT_FOUND
    assert b.manifest(peer, Kind.FILE, content.hash, 0, 16385).outcome is Outcome.UNSUPPORTED
    # As large as pieces get.
    with Target(tmp_path / "taken", content) as target:
        assert b.piece(peer, target, 100, 8292).outcome is Outcome.OK
        assert target.holds(100, 8292)
        assert b.piece(peer, target, 0, 8193).outcome is Outcome.UNSUPPORTED


def test_large_chunks_in_many_pieces(a: Node, b: Node, tmp_path: Path) -> None:
    content = Content.random(150, size=131072, per_xorb=100)
    a.share(content, tmp_path / "offered")
    peer = b.meet(a.port)
    with Target(tmp_path / "taken", content) as target:
        tokens = [b.ask(peer, target, first, first + 10) for first in range(0, 150, 10)]
        assert {b.ended(token).outcome for token in tokens} == {Outcome.OK}
        assert target.data == content.data


def test_three_peers_at_once(tmp_path: Path) -> None:
    content = Content.random(120)
    with Node() as a1, Node() as a2, Node() as a3, Node() as b, Target(tmp_path / "taken", content) as target:
        tokens = {}
        for number, node in enumerate((a1, a2, a3)):
            node.share(content, tmp_path / f"offered-{number}")
            b.session.dial("127.0.0.1", node.port, number + 1000)
        peers = [b.wait(PeerReady, of_token(number + 1000)).peer for number in range(3)]
        for first in range(0, 120, 5):
            tokens[b.ask(peers[first // 5 % 3], target, first, first + 5)] = first
        assert all(b.ended(token).outcome is Outcome.OK for token in tokens)
        assert target.data == content.data
        assert all(node.session.stats().bytes_up > 0 for node in (a1, a2, a3))


def test_pieces_by_xorb(a: Node, b: Node, tmp_path: Path) -> None:
    """Chunks of a xorb serve another file that has some of them elsewhere."""
    content = Content.random(40)
    a.share(content, tmp_path / "offered")
    other = Content(content.chunks[25:30] + Content.random(3, seed=1).chunks + content.chunks[3:7])
    peer = b.meet(a.port)
    xorb, _, _ = content.xorbs[2]
    with Target(tmp_path / "taken", other) as target:
        end = b.piece(peer, target, 0, 5, kind=Kind.XORB, hash_=xorb, object_first=5)
        assert end.outcome is Outcome.OK and target.holds(0, 5)
        xorb, _, _ = content.xorbs[0]
        assert b.piece(peer, target, 8, 12, kind=Kind.XORB, hash_=xorb, object_first=3).outcome is Outcome.OK
        assert target.holds(8, 12)
        # Past the end of what is held.
        end = b.piece(peer, target, 8, 12, kind=Kind.XORB, hash_=xorb, object_first=8)
        assert (end.outcome, end.chunks_written) == (Outcome.NOT_FOUND, 0)


def test_a_xorb_that_is_held_in_part(a: Node, b: Node, tmp_path: Path) -> None:
    content = Content.random(30, per_xorb=30)
    part = Content(content.chunks[12:20] + content.chunks[2:5])
    path = tmp_path / "part"
    path.write_bytes(part.data)
    stat = path.stat()
    xorb = content.xorbs[0][0]
    terms = [content.terms[0].__class__(xorb, *span, 0) for span in ((12, 20), (2, 5))]
    a.session.share(str(path), stat.st_size, stat.st_mtime_ns, part.hash, part.manifest, terms)
    peer = b.meet(a.port)
    have = b.have(peer, Kind.XORB, xorb)
    assert (have.chunks, have.ranges) == (0, ((2, 5), (12, 20)))
    # Nobody can prove a part, so there is no manifest of it.
    assert b.manifest(peer, Kind.XORB, xorb, 2, 3).outcome is Outcome.NOT_FOUND
    with Target(tmp_path / "taken", content) as target:
        for first, end in ((2, 5), (12, 20), (13, 14)):
            ended = b.piece(peer, target, first, end, kind=Kind.XORB, hash_=xorb)
            assert ended.outcome is Outcome.OK and target.holds(first, end)
        assert b.piece(peer, target, 2, 6, kind=Kind.XORB, hash_=xorb).outcome is Outcome.NOT_FOUND


def test_share_later_and_unshare(a: Node, b: Node, tmp_path: Path) -> None:
    content = Content.random(20)
    peer = b.meet(a.port)
    assert b.have(peer, Kind.FILE, content.hash).outcome is Outcome.NOT_FOUND
    path = a.share(content, tmp_path / "offered")
    assert b.have(peer, Kind.FILE, content.hash).chunks == 20
    with Target(tmp_path / "taken", content) as target:
        assert b.piece(peer, target, 0, 10).outcome is Outcome.OK
        a.session.unshare(str(path), content.hash)
        assert b.have(peer, Kind.XORB, content.xorbs[0][0]).outcome is Outcome.NOT_FOUND
        assert b.piece(peer, target, 10, 20).outcome is Outcome.NOT_FOUND
    assert a.session.stats().files_shared == a.session.stats().xorbs_shared == 0


def test_unshare_ends_what_runs(a: Node, tmp_path: Path) -> None:
    content = large()
    path = a.share(content, tmp_path / "offered")
    with wire.WirePeer.dial(a.port) as peer:
        peer.send_zest(wire.range_request(1, wire.FILE, content.hash, 0, 1000))
        peer.receive_zest()
        a.session.unshare(str(path), content.hash)
        number = 1
        while (body := peer.receive_zest())[0] == wire.RANGE_DATA:
            assert body == wire.range_data(1, number, content.chunks[number])
            number += 1
        assert body == wire.range_end(1, wire.NOT_FOUND)
        assert number < 1000


def test_sharing_the_same_file_again_does_not_disturb(a: Node, tmp_path: Path) -> None:
    content = large()
    path = a.share(content, tmp_path / "offered")
    with wire.WirePeer.dial(a.port) as peer:
        peer.send_zest(wire.range_request(1, wire.FILE, content.hash, 0, 1000))
        for number in range(1000):
            assert peer.receive_zest() == wire.range_data(1, number, content.chunks[number])
            if number == 10:
                stat = path.stat()
                a.session.share(
                    str(path), stat.st_size, stat.st_mtime_ns, content.hash, content.manifest, content.terms
                )


@pytest.mark.parametrize("how", ["written", "shorter", "deleted", "replaced", "directory", "early"])
def test_a_shared_file_that_changes(a: Node, b: Node, tmp_path: Path, how: str) -> None:
    content = Content.random(40)
    path = a.share(content, tmp_path / "offered")
    peer = b.meet(a.port)
    with Target(tmp_path / "taken", content) as target:
        if how != "early":  # the file is open already
            assert b.piece(peer, target, 0, 1).outcome is Outcome.OK
        if how in ("written", "early"):
            with path.open("r+b") as file:
                file.write(os.urandom(len(content.data)))
        elif how == "shorter":
            os.truncate(path, 5000)
        elif how == "replaced":
            (tmp_path / "new").write_bytes(os.urandom(len(content.data)))
            os.replace(tmp_path / "new", path)
        else:
            path.unlink()
            if how == "directory":
                path.mkdir()
        end = b.piece(peer, target, 10, 30)
        assert (end.outcome, end.chunks_written) == (Outcome.NOT_FOUND, 0)
        assert a.wait(ShareLost).path == str(path)
        assert b.have(peer, Kind.FILE, content.hash).outcome is Outcome.NOT_FOUND
        assert b.session.stats().chunks_wrong == 0
    a.pump()
    assert not any(isinstance(event, ShareLost) for event in a.events)


def test_no_wrong_byte_of_a_file_that_is_written_to_meanwhile(a: Node, tmp_path: Path) -> None:
    content = large()
    path = a.share(content, tmp_path / "offered")
    with wire.WirePeer.dial(a.port) as peer:
        peer.send_zest(wire.range_request(1, wire.FILE, content.hash, 0, 1000))
        for number in range(50):
            assert peer.receive_zest() == wire.range_data(1, number, content.chunks[number])
        with path.open("r+b") as file:
            file.write(bytes(len(content.data)))
        number = 50
        while (body := peer.receive_zest())[0] == wire.RANGE_DATA:
            assert body == wire.range_data(1, number, content.chunks[number])
            number += 1
        assert body == wire.range_end(1, wire.NOT_FOUND)
    assert a.wait(ShareLost).path == str(path)


def test_a_lost_file_is_replaced_by_its_twin(a: Node, b: Node, tmp_path: Path) -> None:
    content = Content.random(40)
    first = a.share(content, tmp_path / "first")
    a.share(content, tmp_path / "second")
    peer = b.meet(a.port)
    first.unlink()
    with Target(tmp_path / "taken", content) as target:
        assert b.piece(peer, target).outcome is Outcome.OK
        assert target.data == content.data
    assert a.wait(ShareLost).path == str(first)


def test_a_record_that_does_not_add_up_is_refused(a: Node, tmp_path: Path) -> None:
    content = Content.random(20)
    share = a.session.share
    with pytest.raises(SwarmError, match="does not add up"):
        share("x", len(content.data) + 1, 0, content.hash, content.manifest, content.terms)
    with pytest.raises(SwarmError, match="does not add up"):
        share("x", len(content.data), 0, content.hash, content.manifest, content.terms[1:])
    with pytest.raises(SwarmError, match="31 bytes"):
        share("x", len(content.data), 0, XetHash(bytes(31)), content.manifest, ())
    assert a.session.stats().files_shared == 0


def test_a_node_does_not_talk_to_itself(a: Node) -> None:
    assert a.dial_in_vain(a.port)
    a.until(lambda: not a.session.peers())
    assert not any(isinstance(event, PeerReady) for event in a.pump())
    assert a.dial_in_vain(a.port)


def test_two_nodes_dial_each_other(tmp_path: Path) -> None:
    content = Content.random(20)
    small, large = b"\1" * 20, b"\2" * 20
    with Node(node_id=small) as a, Node(node_id=large) as b:
        a.share(content, tmp_path / "offered")
        for node, other in ((a, b), (b, a)):
            node.session.dial("127.0.0.1", other.port, node.token())

        def settled() -> bool:
            a.pump()
            at_a, at_b = a.session.peers(), b.session.peers()
            return len(at_a) == len(at_b) == 1 and at_a[0].outgoing and at_a[0].ready and at_b[0].ready

        b.wait(PeerReady)
        b.until(settled)
        (at_b,) = b.session.peers()
        assert not at_b.outgoing
        with Target(tmp_path / "taken", content) as target:
            assert b.piece(at_b.peer, target).outcome is Outcome.OK


def test_a_dial_is_one_attempt_and_can_be_repeated(b: Node) -> None:
    """Also after many failures and after the other end hung up: whoever was there may be there again."""
    content = Content.random(3)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for _ in range(2):
        assert "refused" in b.dial_in_vain(port)
    assert not any(isinstance(event, PeerGone) for event in b.pump())

    def hang_up(peer: wire.WirePeer) -> None:
        peer.close()

    with wire.WireServer(hang_up) as server:
        peer = b.meet(server.port)
        b.wait(PeerGone, lambda event: event.peer == peer)
        b.pump(1.2)  # longer than libtorrent waits before it connects again by itself
        assert server.accepted == 1
        b.meet(server.port)
        assert server.accepted == 2
    with wire.WireServer(good(content)) as server:
        b.have(b.meet(server.port), Kind.FILE, content.hash)


def test_every_dial_gets_an_end(a: Node, b: Node) -> None:
    b.meet(a.port)
    assert b.dial_in_vain(a.port) == "is connected already"
    assert b.dial_in_vain(a.port, wire.xorb_swarm(bytes(32))) == "is connected already"
    tokens = [b.token() for _ in range(20)]
    for token in tokens:
        b.session.dial("127.0.0.1", 1, token)
    for token in tokens:
        reason = b.wait(PeerGone, of_token(token)).reason
        assert reason in ("is being dialled already", "Connection refused")


def test_a_dial_is_begun_at_once(b: Node) -> None:
    """Downloads wait about a second for peers in all."""
    with Node() as a1, Node() as a2, Node() as a3:
        began_s = time.monotonic()
        for node in (a1, a2, a3):
            b.meet(node.port)
        assert time.monotonic() - began_s < 0.9


def test_the_listening_port_that_a_peer_claims_disturbs_no_dial(a: Node, b: Node) -> None:
    """Whoever connects may say that it listens where somebody else does."""
    with wire.WirePeer(socket.create_connection(("127.0.0.1", b.port), wire.TIMEOUT_S)) as impostor:
        impostor.listen_port = a.port
        impostor.send_handshake(wire.NODE_SWARM)
        impostor.receive_handshake()
        impostor.extended_handshake()
        b.wait(PeerReady)
        peer = b.meet(a.port)
        with wire.WirePeer(socket.create_connection(("127.0.0.1", b.port), wire.TIMEOUT_S)) as another:
            another.listen_port = a.port
            another.send_handshake(wire.NODE_SWARM)
            another.receive_handshake()
            another.extended_handshake()
            b.until(lambda: b.session.stats().peers_ready == 3)
        assert b.have(peer, Kind.FILE, bytes(32)).outcome is Outcome.NOT_FOUND


def test_close_of_the_file_while_pieces_run(a: Node, b: Node, tmp_path: Path) -> None:
    content = large()
    a.share(content, tmp_path / "offered")
    peer = b.meet(a.port)
    target = Target(tmp_path / "taken", content)
    tokens = [b.ask(peer, target, first, first + 250) for first in range(0, 1000, 250)]
    b.until(lambda: b.session.stats().bytes_down > 0)
    target.file.close()
    os.ftruncate(target.fd, 0)
    ends = [b.ended(token) for token in tokens]
    assert ends[-1].outcome is Outcome.CANCELLED
    assert target.path.stat().st_size == 0
    with pytest.raises(SwarmError, match="closed"):
        b.ask(peer, target, 0, 1)
    os.close(target.fd)
    # The connection is as good as before.
    with Target(tmp_path / "again", content) as again:
        assert b.piece(peer, again, 0, 10).outcome is Outcome.OK


def test_close_of_the_session_while_pieces_run(a: Node, tmp_path: Path) -> None:
    content = large()
    a.share(content, tmp_path / "offered")
    with Node() as b, Target(tmp_path / "taken", content) as target:
        peer = b.meet(a.port)
        for first in range(0, 1000, 250):
            b.ask(peer, target, first, first + 250)
        b.until(lambda: b.session.stats().bytes_down > 0)
        b.session.close()
        b.session.close()
        with pytest.raises(SwarmError, match="closed"):
            b.session.stats()
        b.session.wake()
        os.ftruncate(target.fd, 0)
        assert target.path.stat().st_size == 0
    # ... and the one that serves.
    a.session.close()


def test_a_full_disk(a: Node, b: Node, tmp_path: Path) -> None:
    content = Content.random(20)
    a.share(content, tmp_path / "offered")
    peer = b.meet(a.port)
    with open("/dev/full", "wb", buffering=0) as full:
        target = Target(tmp_path / "taken", content)
        target.file.close()
        target.file = WritableFile(full.fileno(), content.manifest)
        with target:
            end = b.piece(peer, target)
    assert (end.outcome, end.error_number, end.chunks_written) == (Outcome.IO, errno.ENOSPC, 0)
    assert b.have(peer, Kind.FILE, content.hash).outcome is Outcome.OK


def test_a_file_larger_than_allowed(a: Node, b: Node, tmp_path: Path) -> None:
    content = large()
    a.share(content, tmp_path / "offered")
    peer = b.meet(a.port)
    limit = content.manifest.offset(10) + 100
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Target(tmp_path / "taken", content) as target:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            end = b.piece(peer, target)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert (end.outcome, end.error_number, end.chunks_written) == (Outcome.IO, errno.EFBIG, 10)
        # The peer was told to stop: far from all of the 50 MB has crossed.
        assert b.have(peer, Kind.FILE, content.hash).outcome is Outcome.OK
        assert a.session.stats().bytes_up < len(content.data) / 2


def test_cancel(a: Node, b: Node, tmp_path: Path) -> None:
    content = large()
    a.share(content, tmp_path / "offered")
    peer = b.meet(a.port)
    with Target(tmp_path / "taken", content) as target:
        first, second = b.ask(peer, target, 0, 500), b.ask(peer, target, 500, 1000)
        b.session.cancel_piece(peer, second)
        assert b.ended(second).outcome is Outcome.CANCELLED
        b.until(lambda: b.session.stats().bytes_down > 0)
        b.session.cancel_piece(peer, first)
        end = b.ended(first)
        if end.outcome is Outcome.CANCELLED:
            assert target.holds(0, end.chunks_written)
        b.session.cancel_piece(peer, first)
        b.session.cancel_piece(peer + 1000, first)
        # An answer to something else shows that the peer has seen the cancels.
        assert b.have(peer, Kind.FILE, content.hash).outcome is Outcome.OK
        assert a.session.stats().bytes_up < len(content.data)
        assert a.session.peers()[0].requests_in == b.session.peers()[0].requests_out == 0


def test_two_thousand_files(a: Node, b: Node, tmp_path: Path) -> None:
    contents = [Content([b"%d" % number * 50], per_xorb=1) for number in range(2000)]
    for number, content in enumerate(contents):
        a.share(content, tmp_path / str(number))
    assert a.session.stats().files_shared == a.session.stats().xorbs_shared == 2000
    peer = b.meet(a.port, wire.file_swarm(contents[1234].hash))
    for number in (0, 777, 1999):
        with Target(tmp_path / f"taken-{number}", contents[number]) as target:
            assert b.piece(peer, target).outcome is Outcome.OK
            assert target.data == contents[number].data
    tokens = [b.token() for _ in contents]
    for token, content in zip(tokens, contents, strict=True):
        b.session.ask_have(token, peer, Kind.FILE, content.hash, 10)
    outcomes = [b.wait(HaveAnswer, of_token(token)).outcome for token in tokens]
    assert set(outcomes) <= {Outcome.OK, Outcome.BUSY} and outcomes.count(Outcome.OK) >= 512
    for number, content in enumerate(contents):
        a.session.unshare(str(tmp_path / str(number)), content.hash)
    assert a.session.stats().files_shared == a.session.stats().xorbs_shared == 0


def test_a_port_that_is_taken(a: Node) -> None:
    with pytest.raises(SwarmError) as caught:
        Node(listen_port=a.port)
    assert str(caught.value) == f"cannot listen on 127.0.0.1, port {a.port}: Address already in use"
    with Node(listen_port=a.port, port_retries=20) as b:
        assert a.port < b.port <= a.port + 20
        b.meet(a.port)


def test_one_port_on_every_interface() -> None:
    """Taken on one of them, it is not used on the others either."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SwarmError, match="in use"):
            Node(listen_port=port, listen_host="")
        with Node(listen_host="") as node, Node() as other:
            other.meet(node.port)


@pytest.mark.parametrize("host", ["nonsense", "127.0.0.1.5", "203.0.113.7"])
def test_an_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(SwarmError, match="^cannot listen on " + host) as caught:
        Node(listen_host=host)
    assert "\n" not in str(caught.value)


def test_an_address_that_is_none(a: Node) -> None:
    for host, port in (("nonsense", 1), ("127.0.0.1", 0), ("127.0.0.1", 70000)):
        with pytest.raises(SwarmError, match="not an address"):
            a.session.dial(host, port, 1)
    with pytest.raises(SwarmError, match="not an address"):
        a.session.dial("127.0.0.1", 1, 1, b"short")


def test_questions_to_nobody_are_answered(a: Node, tmp_path: Path) -> None:
    content = Content.random(3)
    assert a.have(77, Kind.FILE, content.hash).outcome is Outcome.GONE
    assert a.manifest(77, Kind.FILE, content.hash, 0, 1).outcome is Outcome.GONE
    with Target(tmp_path / "taken", content) as target:
        assert a.piece(77, target).outcome is Outcome.GONE
    a.session.ban(77, "nobody")
    assert a.session.bans() == []


def test_events_with_many_open_descriptors(a: Node) -> None:
    """select() gives up at 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1500:
        pytest.skip(f"at most {hard} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1500), hard))
    held = [os.dup(0) for _ in range(1100)]
    try:
        with Node() as b:
            b.meet(a.port)
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_want_of_descriptors_does_not_lose_the_share(a: Node, b: Node, tmp_path: Path) -> None:
    content = Content.random(3)
    a.share(content, tmp_path / "offered")
    peer = b.meet(a.port)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Target(tmp_path / "taken", content) as target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            end = b.piece(peer, target)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert end.outcome is Outcome.BUSY
        assert b.piece(peer, target).outcome is Outcome.OK


def test_calls_from_many_threads(a: Node, b: Node, tmp_path: Path) -> None:
    content = Content.random(60)
    a.share(content, tmp_path / "offered")
    peer = b.meet(a.port)
    failures: list[BaseException] = []
    with Target(tmp_path / "taken", content) as target:

        def work(number: int) -> None:
            try:
                for turn in range(50):
                    first = (number * 7 + turn) % 50
                    b.session.ask_piece(
                        10_000 + number * 100 + turn,
                        peer,
                        target.file,
                        Kind.FILE,
                        content.hash,
                        first,
                        first,
                        10,
                        5.0,
                    )
                    b.session.peers(), b.session.stats()
                    b.session.dial("127.0.0.1", 1, 5, os.urandom(20))
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        ends = [b.wait(PieceEnd) for _ in range(200)]
        for thread in threads:
            thread.join()
    assert not failures and {end.outcome for end in ends} <= {Outcome.OK, Outcome.BUSY}
    assert sum(end.outcome is Outcome.OK for end in ends) > 0


def test_a_forked_child_leaves_the_session_alone(a: Node, b: Node) -> None:
    a.session._lock.acquire()  # as if another thread was in the middle of a call
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        try:
            a.session.close()
            try:
                a.session.stats()
            except SwarmError:
                os._exit(0)
        finally:
            os._exit(1)
    a.session._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    b.meet(a.port)


def test_the_name_of_a_swarm(tmp_path: Path) -> None:
    content = Content.random(5)
    with Node() as node:
        assert node.session.info_hash(Kind.FILE, content.hash) == wire.file_swarm(content.hash)
        assert node.session.info_hash(Kind.XORB, content.xorbs[0][0]) == wire.xorb_swarm(content.xorbs[0][0])
