"""What is known of offered files, kept in a file without a name; and answered from there."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import wire_peer as wire
from swarm.node import Content, Node, Target
from zest_hf._native.events import Kind, Outcome
from zest_hf.core.ids import XetHash
from zest_hf.core.reconstruction import Term

MANY = Content.random(1500, per_xorb=500)
FEW = Content.random(60)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def seed(scratch: Path) -> Iterator[Node]:
    with Node(scratch_dir=scratch) as node:
        yield node


def kept_bytes(scratch: Path) -> int | None:
    """What the nameless file takes on the disk; None when there is none."""
    for name in os.listdir("/proc/self/fd"):
        with_descriptor = f"/proc/self/fd/{name}"
        try:
            if os.readlink(with_descriptor).startswith(f"{scratch}/"):
                return os.stat(with_descriptor).st_blocks * 512
        except FileNotFoundError:
            continue
    return None


def takes_all(seed: Node, content: Content, folder: Path) -> None:
    """Somebody gets all that can be asked for."""
    with Node() as node, Target(folder / "taken", content) as target:
        peer = node.meet(seed.port)
        answer = node.manifest(peer, Kind.FILE, content.hash, 0, len(content.chunks))
        assert (answer.part.hashes, answer.part.lengths) == (content.manifest.hashes, content.manifest.lengths)
        for xorb, first, end in content.xorbs:
            assert node.have(peer, Kind.XORB, xorb).chunks == end - first
            part = node.manifest(peer, Kind.XORB, xorb, 7, 100).part
            assert part.hashes == content.manifest.slice(first + 7, min(first + 107, end)).hashes
        assert node.piece(peer, target).outcome is Outcome.OK
        assert target.data == content.data
    with wire.WirePeer.dial(seed.port) as old:
        for number in (0, 1, len(content.chunks) - 1):
            old.send_xet(wire.chunk_request(number + 1, content.entries[number][0]))
            assert old.receive_xet() == wire.chunk_response(number + 1, content.chunks[number])
        nothing = os.urandom(32)
        old.send_xet(wire.chunk_request(9, nothing))
        assert old.receive_xet() == wire.chunk_not_found(9, nothing)


def test_answers_come_from_it(seed: Node, scratch: Path, tmp_path: Path) -> None:
    """What is large is in the file, of which nothing is seen; what is small is not worth it."""
    seed.share(FEW, tmp_path / "few")
    assert kept_bytes(scratch) is None
    seed.share(MANY, tmp_path / "many")
    assert kept_bytes(scratch) == 48 << 10
    assert os.listdir(scratch) == []
    takes_all(seed, MANY, tmp_path)
    takes_all(seed, FEW, tmp_path)


def test_room_is_given_back(seed: Node, scratch: Path, tmp_path: Path) -> None:
    contents = [Content.random(200 + 20 * number, size=200) for number in range(3)]
    paths = [seed.share(content, tmp_path / str(number)) for number, content in enumerate(contents)]
    assert kept_bytes(scratch) == 3 * (8 << 10)
    seed.session.unshare(str(paths[1]), contents[1].hash)
    assert kept_bytes(scratch) == 2 * (8 << 10)
    takes_all(seed, contents[2], tmp_path)
    for path, content in zip(paths, contents, strict=True):
        seed.session.unshare(str(path), content.hash)
    seed.until(lambda: kept_bytes(scratch) == 0)
    seed.share(MANY, tmp_path / "many")
    takes_all(seed, MANY, tmp_path)


def test_without_the_directory(scratch: Path, tmp_path: Path) -> None:
    """It may come later."""
    with Node(scratch_dir=scratch / "none") as seed:
        seed.share(MANY, tmp_path / "many")
        takes_all(seed, MANY, tmp_path)
        (scratch / "none").mkdir()
        other = Content.random(300, size=100)
        seed.share(other, tmp_path / "other")
        assert kept_bytes(scratch / "none") == 12 << 10
        takes_all(seed, other, tmp_path)


def test_without_room(seed: Node, scratch: Path, tmp_path: Path) -> None:
    """The first list fits, the second does so in part and the third not at all."""
    contents = [Content.random(200, size=100, seed=number) for number in range(3)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content.data)
    resource.setrlimit(resource.RLIMIT_FSIZE, (13000, before[1]))
    try:
        for number, content in enumerate(contents):
            stat = (tmp_path / str(number)).stat()
            seed.session.share(
                str(tmp_path / str(number)),
                stat.st_size,
                stat.st_mtime_ns,
                content.hash,
                content.manifest,
                content.terms,
            )
        assert kept_bytes(scratch) == 8 << 10
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    for content in contents:
        takes_all(seed, content, tmp_path)


# --- how many chunks a xorb has, which takes reading to tell ----------------------------------------------


def test_a_xorb_of_two_files(seed: Node, tmp_path: Path) -> None:
    """None of them tells how large it is. When it is known who asked for updates is told, and it stays known."""
    whole = Content.random(600, size=100, per_xorb=600)
    ((xorb, _, _),) = whole.xorbs
    halves = [Content(whole.chunks[:300]), Content(whole.chunks[300:])]

    def share(number: int) -> None:
        half, path = halves[number], tmp_path / str(number)
        path.write_bytes(half.data)
        stat = path.stat()
        term = Term(XetHash(xorb), 300 * number, 300 * (number + 1), len(half.data))
        seed.session.share(str(path), stat.st_size, stat.st_mtime_ns, half.hash, half.manifest, [term])

    share(0)
    with wire.WirePeer.dial(seed.port) as peer:
        peer.send_zest(peer.have_request(1, wire.XORB, xorb, updates=1))
        assert peer.receive_zest() == peer.their_have(1, wire.XORB, xorb, 0, [(0, 300)])
        share(1)
        told = [peer.receive_zest()]
        if told[0] == wire.have_update(1, wire.OK, 0, [(300, 600)]):
            told.append(peer.receive_zest())
            assert told[1] == wire.have_update(1, wire.OK, 600, [])
        else:
            assert told[0] == wire.have_update(1, wire.OK, 600, [(300, 600)])
        peer.send_zest(wire.manifest_request(2, wire.XORB, xorb, 0, 600))
        assert peer.receive_zest() == wire.manifest(2, wire.OK, 600, 0, whole.entries)
        seed.session.unshare(str(tmp_path / "0"), halves[0].hash)
        # What was held is held no more, and so there is no manifest either.
        assert peer.receive_zest() == wire.have_update(1, wire.NOT_FOUND, 0, [])
        peer.send_zest(peer.have_request(3, wire.XORB, xorb))
        assert peer.receive_zest() == peer.their_have(3, wire.XORB, xorb, 0, [(300, 600)])
