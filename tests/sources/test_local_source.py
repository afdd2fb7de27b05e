"""Files of this disk as a source: what is right is copied, whatever has happened to them."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from downloads import tiny_chunks, within

from zest_hf._native import codec
from zest_hf.core.actions import CopyLocal
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.errors import ZestError
from zest_hf.sources.base import CopyEnded, Report, WriteFailed
from zest_hf.sources.local import LocalSource
from zest_hf.workers import WorkerPool

CHUNK, COUNT = 5000, 40
XORB = tiny_chunks("local", COUNT, CHUNK)
MANIFEST = Manifest(XORB.hashes, XORB.lengths)
BEFORE = b"\xa5" * len(XORB.content)


class Rig:
    """Two files that are here, of which the second one has other things in front, and a file to write to."""

    def __init__(self, folder: Path) -> None:
        self.paths = [folder / "one", folder / "two"]
        self.paths[0].write_bytes(XORB.content)
        self.paths[1].write_bytes(b"before" + XORB.content)
        self.wanted = folder / "wanted"
        self.wanted.write_bytes(BEFORE)
        self.fd = os.open(self.wanted, os.O_RDWR)
        self.reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self.workers = WorkerPool(2)
        self.source = LocalSource(self.paths, self.fd, self.workers, self.reports.put)

    def copy(self, first: int, end: int, source: int = 0, assignment: int = 1) -> CopyLocal:
        at = MANIFEST.offset(first)
        return CopyLocal(assignment, first, at, source, at + 6 * source, MANIFEST.slice(first, end))

    def run(self, *actions: CopyLocal) -> list[Report]:
        for action in actions:
            self.source.start(action)
        reports = [self.reports.get(timeout=10) for _ in actions]
        # They run beside each other.
        return sorted(reports, key=lambda report: report.assignment)

    def expect(self, *ranges: tuple[int, int]) -> None:
        """These chunks are written, and nothing else."""
        content = bytearray(BEFORE)
        for first, end in ranges:
            content[first * CHUNK : end * CHUNK] = XORB.content[first * CHUNK : end * CHUNK]
        assert self.wanted.read_bytes() == content


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    one = Rig(tmp_path)
    yield one
    one.source.close()
    one.workers.close()
    os.close(one.fd)


def test_it_copies_parts_of_several_files(rig: Rig) -> None:
    reports = rig.run(rig.copy(3, 10), rig.copy(20, COUNT, source=1, assignment=2))
    assert {(one.assignment, one.chunks_written, one.opened) for one in reports} == {(1, 7, True), (2, 20, True)}  # type: ignore[union-attr]
    rig.expect((3, 10), (20, COUNT))


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[12 * CHUNK + 7] ^= 1
    path.write_bytes(content)


def truncated(path: Path) -> None:
    os.truncate(path, 12 * CHUNK + 7)


def longer(path: Path) -> None:
    """What lies behind does no harm, if what is wanted is there: as it is not here."""
    content = path.read_bytes()
    path.write_bytes(content[: 12 * CHUNK] + b"!" + content[12 * CHUNK :])


def sparse(path: Path) -> None:
    os.truncate(path, 12 * CHUNK)
    os.truncate(path, COUNT * CHUNK)


@pytest.mark.parametrize("harm", [changed, truncated, longer, sparse])
def test_a_file_that_is_another_gives_what_is_right(rig: Rig, harm: Callable[[Path], None]) -> None:
    harm(rig.paths[0])
    assert rig.run(rig.copy(10, 30)) == [CopyEnded(1, 2)]
    rig.expect((10, 12))


def vanished(path: Path) -> None:
    path.unlink()


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def unreadable(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path.chmod(0)


@pytest.mark.parametrize("harm", [vanished, a_directory, a_pipe, a_loop, unreadable])
def test_a_file_that_cannot_be_opened(rig: Rig, harm: Callable[[Path], None]) -> None:
    harm(rig.paths[0])
    with within(5):
        assert rig.run(rig.copy(10, 30)) == [CopyEnded(1, 0, opened=False)]
    rig.expect()


def test_what_is_in_its_place_already_is_checked_and_not_written(rig: Rig) -> None:
    rig.wanted.write_bytes(XORB.content)
    changed(rig.wanted)
    rig.paths[0].unlink()
    os.link(rig.wanted, rig.paths[0])
    before = rig.wanted.read_bytes()
    os.utime(rig.wanted, ns=(0, 0))
    assert rig.run(rig.copy(0, 10), rig.copy(10, 30, assignment=2))[1:] == [CopyEnded(2, 2)]
    assert rig.wanted.read_bytes() == before
    assert rig.wanted.stat().st_mtime_ns == 0
    # To another place it is copied as from any file.
    part = MANIFEST.slice(20, 22)
    assert rig.run(CopyLocal(3, 12, 12 * CHUNK, 0, 20 * CHUNK, part)) == [CopyEnded(3, 2)]
    assert rig.wanted.read_bytes()[12 * CHUNK : 14 * CHUNK] == XORB.content[20 * CHUNK : 22 * CHUNK]


def test_a_file_whose_server_does_not_answer_does_not_keep_it_from_closing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes back when nobody expects it any more, and writes nothing."""
    reached, thawed, done = threading.Event(), threading.Event(), threading.Event()
    copy_chunks = codec.copy_chunks

    def slow(*arguments: Any) -> int:
        reached.set()
        assert thawed.wait(10)
        try:
            return copy_chunks(*arguments)
        finally:
            done.set()

    monkeypatch.setattr(codec, "copy_chunks", slow)
    source = LocalSource(rig.paths, rig.fd, rig.workers, rig.reports.put, close_patience_s=0.1)
    source.start(rig.copy(0, 10))
    assert reached.wait(10)
    with within(2):
        source.close()
    thawed.set()
    assert done.wait(10)
    rig.expect()
    assert rig.reports.empty()


def test_an_index_with_wrong_hashes_and_places(rig: Rig) -> None:
    first = MANIFEST.slice(0, 1)
    wrong = Manifest(first.hashes + bytes(32) + MANIFEST.slice(2, 9).hashes, MANIFEST.slice(0, 9).lengths)
    assert rig.run(CopyLocal(1, 0, 0, 0, 0, wrong)) == [CopyEnded(1, 1)]
    assert rig.run(CopyLocal(1, 0, 0, 0, 17, MANIFEST)) == [CopyEnded(1, 0)]
    assert rig.run(CopyLocal(1, 0, 0, 0, 1 << 61, MANIFEST)) == [CopyEnded(1, 0)]
    rig.expect((0, 1))


def test_a_target_that_cannot_be_written(rig: Rig) -> None:
    reader = os.open(rig.wanted, os.O_RDONLY)
    reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
    source = LocalSource(rig.paths, reader, rig.workers, reports.put)
    os.close(reader)
    source.start(rig.copy(0, 5))
    report = reports.get(timeout=10)
    source.close()
    assert isinstance(report, WriteFailed) and isinstance(report.error, OSError)


def test_many_copies_end_once_each_and_none_after_the_close(rig: Rig) -> None:
    actions = [rig.copy(at, at + 1, at % 2, assignment=at) for at in range(COUNT)]
    ends = rig.run(*actions)
    assert sorted(one.assignment for one in ends) == list(range(COUNT))  # type: ignore[union-attr]
    rig.expect((0, COUNT))
    for action in actions:
        rig.source.start(action)
    rig.source.close()
    rig.wanted.write_bytes(BEFORE)
    rig.source.start(actions[0])
    rig.expect()


def test_without_workers(rig: Rig) -> None:
    rig.workers.close()
    with pytest.raises(ZestError):
        rig.source.start(rig.copy(0, 1))


def test_chunks_larger_than_the_buffer_together(tmp_path: Path) -> None:
    """What is read at once is less than what is copied."""
    content = os.urandom(3_000_000)
    lengths = [131072] * 22 + [3_000_000 - 22 * 131072]
    starts = [131072 * at for at in range(23)]
    hashes = b"".join(codec.chunk_hash(content[at : at + size]) for at, size in zip(starts, lengths, strict=True))
    (tmp_path / "from").write_bytes(b"x" + content)
    with (tmp_path / "from").open("rb") as source, (tmp_path / "to").open("wb") as target:
        assert codec.copy_chunks(source.fileno(), 1, target.fileno(), 5, hashes, lengths) == 23
    assert (tmp_path / "to").read_bytes() == bytes(5) + content
    with pytest.raises(ZestError):
        codec.copy_chunks(0, 0, 0, 0, XetHash(bytes(32)), [131073])
    with pytest.raises(ZestError):
        codec.copy_chunks(0, -1, 0, 0, b"", [])
