"""Files that are offered while they are written: what is held is served, and nothing else."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import wire_peer as wire
from swarm.node import Content, Node, Target
from zest_hf._native.events import Kind, Outcome, ShareLost
from zest_hf._native.writable_file import WritableFile
from zest_hf.errors import SwarmError


@pytest.fixture
def b() -> Iterator[Node]:
    with Node() as node:
        yield node


def test_chunks_are_passed_on_while_others_are_missing(node: Node, b: Node, tmp_path: Path) -> None:
    content = Content.random(60)
    with Node() as seed, Target(tmp_path / "a", content) as at_a, Target(tmp_path / "b", content) as at_b:
        seed.share(content, tmp_path / "offered")
        node.session.share_transfer(at_a.file, content.hash, content.terms)
        to_node, to_seed = b.meet(node.port), node.meet(seed.port)
        have = b.have(to_node, Kind.FILE, content.hash)
        assert (have.outcome, have.chunks, have.ranges) == (Outcome.OK, 60, ())

        assert node.piece(to_seed, at_a, 5, 25).outcome is Outcome.OK
        at_a.place(40, 60)
        assert b.have(to_node, Kind.FILE, content.hash).ranges == ((5, 25), (40, 60))
        # The list of chunks is proved already, and given whole.
        assert b.manifest(to_node, Kind.FILE, content.hash, 0, 60).part == content.manifest

        assert b.piece(to_node, at_b, 5, 25).outcome is Outcome.OK
        assert b.piece(to_node, at_b, 41, 60).outcome is Outcome.OK
        assert at_b.holds(5, 25) and at_b.holds(41, 60)
        # One chunk that is not there yet, and nothing comes.
        end = b.piece(to_node, at_b, 20, 26)
        assert (end.outcome, end.chunks_written) == (Outcome.NOT_FOUND, 0)
        assert [(share.file_hash, share.peers) for share in node.session.shares()] == [(content.hash, 1)]


def test_xorbs_of_a_growing_file(node: Node, b: Node, tmp_path: Path) -> None:
    content = Content.random(30)
    with Target(tmp_path / "a", content) as at_a, Target(tmp_path / "b", content) as at_b:
        node.session.share_transfer(at_a.file, content.hash, content.terms)
        at_a.place(5, 20)
        peer = b.meet(node.port, wire.xorb_swarm(content.xorbs[2][0]))
        first, second, third = (b.have(peer, Kind.XORB, xorb) for xorb, _, _ in content.xorbs)
        assert (first.chunks, first.ranges) == (0, ((5, 10),))
        assert (second.chunks, second.ranges) == (10, ((0, 10),))
        assert (third.outcome, third.chunks, third.ranges) == (Outcome.OK, 0, ())
        xorb, start, end = content.xorbs[1]
        assert b.manifest(peer, Kind.XORB, xorb, 0, 10).part == content.manifest.slice(start, end)
        assert b.manifest(peer, Kind.XORB, content.xorbs[0][0], 5, 5).outcome is Outcome.NOT_FOUND
        assert b.piece(peer, at_b, 10, 20, kind=Kind.XORB, hash_=xorb, object_first=0).outcome is Outcome.OK
        assert at_b.holds(10, 20)


def test_single_chunks_of_a_growing_file(node: Node, tmp_path: Path) -> None:
    """BEP XET v1 asks by the chunk's hash; here one chunk lies in two places, of which the second is held."""
    content = Content([b"twice" * 100, b"once" * 100, b"twice" * 100])
    with Target(tmp_path / "a", content) as target, wire.WirePeer.dial(node.port) as peer:
        node.session.share_transfer(target.file, content.hash, ())
        twice, once = content.entries[0][0], content.entries[1][0]
        peer.send_xet(wire.chunk_request(1, twice))
        assert peer.receive_xet() == wire.chunk_not_found(1, twice)
        target.place(2, 3)
        peer.send_xet(wire.chunk_request(2, twice))
        assert peer.receive_xet() == wire.chunk_response(2, content.chunks[0])
        peer.send_xet(wire.chunk_request(3, once))
        assert peer.receive_xet() == wire.chunk_not_found(3, once)


def test_a_run_of_a_file(node: Node, b: Node, tmp_path: Path) -> None:
    """Chunks 10..20 of a file whose other chunks nobody knows: offered as a xorb, not as the file."""
    content = Content.random(30)
    xorb, start, end = content.xorbs[1]
    with Target(tmp_path / "a", content) as whole, Target(tmp_path / "b", content) as at_b:
        run = WritableFile(whole.fd, content.manifest.slice(start, end), content.manifest.offset(start))
        node.session.share_transfer(run, None, content.terms[1:2])
        os.pwrite(whole.fd, content.data, 0)
        run.wrote(0, 4)
        peer = b.meet(node.port, wire.xorb_swarm(xorb))
        assert b.have(peer, Kind.FILE, content.hash).outcome is Outcome.NOT_FOUND
        assert b.have(peer, Kind.XORB, xorb).ranges == ((0, 4),)
        assert b.piece(peer, at_b, 10, 14, kind=Kind.XORB, hash_=xorb, object_first=0).outcome is Outcome.OK
        assert at_b.holds(10, 14)
        run.wrote(4, 6)
        assert b.have(peer, Kind.XORB, xorb).chunks == 10
        assert node.session.stats().files_shared == 0 and node.session.shares() == []
        # ... and what peers send lands at the same place.
        with Node() as taker, Target(tmp_path / "c", content) as at_c:
            taken = WritableFile(at_c.fd, content.manifest.slice(start, end), content.manifest.offset(start))
            to_node, token = taker.meet(node.port), taker.token()
            taker.session.ask_piece(token, to_node, taken, Kind.XORB, xorb, 0, 0, 10, 5.0)
            assert taker.ended(token).outcome is Outcome.OK
            assert at_c.holds(start, end)
            taken.close()
        run.close()


def test_parts_from_a_growing_file_and_from_others(node: Node, b: Node, tmp_path: Path) -> None:
    """A range that no single file of the holder has."""
    content = Content.random(30, per_xorb=30)
    xorb = content.xorbs[0][0]
    part = Content(content.chunks[12:20])
    path = tmp_path / "part"
    path.write_bytes(part.data)
    stat = path.stat()
    terms = [content.terms[0].__class__(xorb, 12, 20, 0)]
    node.session.share(str(path), stat.st_size, stat.st_mtime_ns, part.hash, part.manifest, terms)
    with Target(tmp_path / "a", content) as target, Target(tmp_path / "b", content) as at_b:
        node.session.share_transfer(target.file, content.hash, content.terms)
        target.place(0, 13)
        target.place(20, 30)
        peer = b.meet(node.port)
        assert b.have(peer, Kind.FILE, content.hash).ranges == ((0, 13), (20, 30))
        assert b.have(peer, Kind.XORB, xorb).ranges == ((0, 30),)
        assert b.manifest(peer, Kind.XORB, xorb, 0, 30).part == content.manifest
        assert b.piece(peer, at_b, kind=Kind.XORB, hash_=xorb).outcome is Outcome.OK
        assert at_b.data == content.data


def test_the_finished_file_takes_over(node: Node, tmp_path: Path) -> None:
    """A range that is being sent goes on, from the file under its final name."""
    content = Content.random(400, size=65536)
    with Target(tmp_path / "incomplete", content) as target, wire.WirePeer.dial(node.port) as peer:
        node.session.share_transfer(target.file, content.hash, content.terms)
        target.place(0, 400)
        peer.send_zest(wire.range_request(1, wire.FILE, content.hash, 0, 400))
        assert peer.receive_zest() == wire.range_data(1, 0, content.chunks[0])
        stat = target.path.rename(tmp_path / "final").stat()
        node.session.share(
            str(tmp_path / "final"), stat.st_size, stat.st_mtime_ns, content.hash, content.manifest, content.terms
        )
        node.session.unshare_transfer(target.file)
        target.file.close()
        for number in range(1, 400):
            assert peer.receive_zest() == wire.range_data(1, number, content.chunks[number])
    assert node.session.stats().files_shared == 1
    assert not any(isinstance(event, ShareLost) for event in node.pump())


@pytest.mark.parametrize("how", ["close", "unshare"])
def test_what_is_withdrawn_is_not_read_any_more(node: Node, tmp_path: Path, how: str) -> None:
    content = Content.random(400, size=65536)
    with Target(tmp_path / "incomplete", content) as target, wire.WirePeer.dial(node.port) as peer:
        node.session.share_transfer(target.file, content.hash, content.terms)
        target.place(0, 400)
        peer.send_zest(wire.range_request(1, wire.FILE, content.hash, 0, 400))
        assert peer.receive_zest() == wire.range_data(1, 0, content.chunks[0])
        if how == "close":
            target.file.close()
        else:
            node.session.unshare_transfer(target.file)
        # Whoever reads from here on reads something else.
        os.pwrite(target.fd, bytes(len(content.data)), 0)
        number = 1
        while (body := peer.receive_zest())[0] == wire.RANGE_DATA:
            assert body == wire.range_data(1, number, content.chunks[number]) or how == "unshare"
            number += 1
        assert body == wire.range_end(1, wire.NOT_FOUND) and number < 400
        peer.send_zest(peer.have_request(2, wire.FILE, content.hash))
        node.until(lambda: node.session.stats().files_shared == 0)
        node.session.unshare_transfer(target.file)
    assert not any(isinstance(event, ShareLost) for event in node.pump())


def test_a_transfer_that_cannot_be_offered(node: Node, tmp_path: Path) -> None:
    content = Content.random(20)
    with Target(tmp_path / "a", content) as target:
        with pytest.raises(SwarmError, match="cannot be offered"):
            node.session.share_transfer(target.file, content.hash, content.terms[1:])
        for first, count in ((20, 1), (0, 21), (5, 0), (0xFFFFFFFF, 2)):
            with pytest.raises(SwarmError, match="no chunks"):
                target.file.wrote(first, count)
        blind = os.open(target.path, os.O_WRONLY)
        file = WritableFile(blind, content.manifest)
        os.close(blind)
        with pytest.raises(SwarmError, match="no reading"):
            node.session.share_transfer(file, content.hash, content.terms)
        file.close()
        for call in (lambda: file.wrote(0, 1), lambda: node.session.share_transfer(file, content.hash, ())):
            with pytest.raises(SwarmError, match="closed"):
                call()
        node.session.unshare_transfer(file)
    assert node.session.stats().files_shared == 0


def test_a_chain_of_leechers(tmp_path: Path) -> None:
    """Each asks the one before it while that one asks further up."""
    content = Content.random(100, size=20000)
    nodes = [Node() for _ in range(4)]
    targets = [Target(tmp_path / f"file-{number}", content) for number in range(1, 4)]
    try:
        nodes[0].share(content, tmp_path / "offered")
        peers = [after.meet(before.port) for before, after in itertools.pairwise(nodes)]
        for node, target in zip(nodes[1:], targets, strict=True):
            node.session.share_transfer(target.file, content.hash, content.terms)
        for first in range(0, 100, 20):
            for node, peer, target in zip(nodes[1:], peers, targets, strict=True):
                assert node.piece(peer, target, first, first + 20).outcome is Outcome.OK
        assert all(target.data == content.data for target in targets)
        assert nodes[0].session.stats().bytes_up == len(content.data)
    finally:
        for target in targets:
            target.file.close()
            os.close(target.fd)
        for node in nodes:
            node.session.close()
