"""Journals beside downloads: who takes up what, and what goes when."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from layouts import plain

from zest_hf.core.manifest import Manifest
from zest_hf.unfinished import KEEP_S, TakenUp, Unfinished

FILE = plain(2, 100)
XORB = FILE.reconstruction.terms[0].xorb
HASH = FILE.file_hash


class Cache:
    """A directory of unfinished files."""

    def __init__(self, root: Path) -> None:
        self.journals = root / "home" / "unfinished"
        self.unfinished = Unfinished(self.journals)
        self.blobs = root / "blobs"
        self.blobs.mkdir()
        self._count = 0

    def path(self) -> Path:
        self._count += 1
        path = self.blobs / f"abc.{self._count:08x}.incomplete"
        path.touch()
        return path

    def begin(self, *left: Path) -> tuple[Path, TakenUp]:
        path = self.path()
        return path, self.unfinished.take_up(HASH, path, left)

    def killed(self, *ranges: tuple[int, int]) -> Path:
        """A download was killed when it had written these chunks of the first xorb."""
        path, taken = self.begin()
        for start, end in ranges:
            write(taken, start, end)
        path.write_bytes(b"%d" % self._count)
        taken.close()
        return path


def write(taken: TakenUp, start: int, end: int) -> None:
    taken.journal.wrote(XORB, start, 65536 * start, FILE.manifest.slice(start, end))


def sizes(taken: TakenUp) -> list[tuple[str, int]]:
    return [(path.name, len(part.manifest)) for path, part in taken.here]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def test_it_is_moved_and_nothing_is_left_at_the_end(cache: Cache) -> None:
    left = cache.killed((0, 10), (50, 60))
    inode = left.stat().st_ino
    path, taken = cache.begin(left)
    assert not left.exists() and path.stat().st_ino == inode and path.read_bytes() == b"1"
    assert sizes(taken) == [(path.name, 10), (path.name, 10)] and taken.in_place == 2
    write(taken, 10, 30)
    taken.close()
    # As often as it takes.
    path, taken = cache.begin(path)
    assert sizes(taken) == [(path.name, 30), (path.name, 10)]
    taken.done()
    assert list(cache.blobs.iterdir()) == [path] and list(cache.journals.iterdir()) == []


def test_nothing_is_made_before_anything_is_written(cache: Cache) -> None:
    _, taken = cache.begin()
    taken.done()
    assert not cache.journals.exists()


def test_of_several_the_one_with_the_most_is_moved(cache: Cache) -> None:
    lefts = [cache.killed((0, 10)), cache.killed((0, 40)), cache.killed((40, 60))]
    path, taken = cache.begin(*lefts)
    assert path.read_bytes() == b"2"
    assert sorted(sizes(taken)) == sorted([(path.name, 40), (lefts[0].name, 10), (lefts[2].name, 20)])
    assert taken.in_place == 1 and sizes(taken)[0] == (path.name, 40)
    assert lefts[0].exists() and lefts[2].exists()
    taken.done()
    assert list(cache.blobs.iterdir()) == [path] and list(cache.journals.iterdir()) == []


def test_what_somebody_is_writing_is_read_and_left_to_him(cache: Cache) -> None:
    left, writing = cache.begin()
    write(writing, 0, 25)
    _, taken = cache.begin(left)
    assert left.exists() and sizes(taken) == [(left.name, 25)] and taken.in_place == 0
    write(taken, 0, 25)
    taken.done()
    assert left.exists()
    assert [one.name.rpartition(".")[2] for one in cache.journals.iterdir()] == [str(left.stat().st_ino)]
    writing.done()
    assert list(cache.journals.iterdir()) == []


def test_files_without_a_journal_or_with_that_of_another_are_left_alone(cache: Cache) -> None:
    foreign, of_another, garbage = cache.path(), cache.killed((0, 10)), cache.killed((0, 10))
    (journal,) = cache.journals.glob(f"*.{of_another.stat().st_ino}")
    journal.write_bytes(journal.read_bytes().replace(HASH, bytes(32)))
    (journal,) = cache.journals.glob(f"*.{garbage.stat().st_ino}")
    journal.write_bytes(os.urandom(500))
    folder = cache.blobs / "abc.ffffffff.incomplete"
    folder.mkdir()
    _, taken = cache.begin(foreign, of_another, garbage, folder, cache.blobs / "gone")
    assert taken.here == []
    taken.done()
    assert foreign.exists() and of_another.exists() and garbage.exists()


def test_the_manifest_is_kept_as_well(cache: Cache) -> None:
    left, taken = cache.begin()
    taken.journal.proved(FILE.manifest)
    taken.close()
    _, taken = cache.begin(left)
    assert taken.manifest == FILE.manifest


def test_where_nothing_can_be_noted_nothing_is(tmp_path: Path, cache: Cache) -> None:
    (tmp_path / "home").write_bytes(b"no directory")
    path, taken = cache.begin(cache.path())
    write(taken, 0, 10)
    taken.done()
    assert path.exists()


def test_an_inode_that_is_used_again(cache: Cache) -> None:
    """What was noted of the file that had it before does not count."""
    left = cache.killed((0, 90))
    (journal,) = cache.journals.iterdir()
    path, taken = cache.begin()
    journal.rename(journal.with_name(journal.name.replace(str(left.stat().st_ino), str(path.stat().st_ino))))
    write(taken, 5, 8)
    taken.close()
    _, taken = cache.begin(path)
    assert [len(part.manifest) for _, part in taken.here] == [3]


def test_what_nobody_needs_any_more_is_removed(cache: Cache) -> None:
    kept, gone, renamed, old, complete = (cache.killed((0, 10)) for _ in range(5))
    gone.unlink()
    renamed = renamed.rename(cache.blobs / "abc.aaaaaaaa.incomplete")
    month_ago = time.time() - KEEP_S - 3600
    (journal,) = cache.journals.glob(f"*.{old.stat().st_ino}")
    for path in (old, journal):
        os.utime(path, (month_ago, month_ago))
    complete = complete.rename(cache.blobs / "abc")
    running, taken = cache.begin()
    write(taken, 0, 10)
    (cache.journals / "none of ours").touch()
    cache.unfinished.tidy()
    assert set(cache.blobs.iterdir()) == {kept, renamed, complete, running}
    inodes = {str(path.stat().st_ino) for path in (kept, renamed, running)}
    assert {path.name.rpartition(".")[2] for path in cache.journals.iterdir()} == inodes | {"none of ours"}


def test_who_tidies_up_is_in_nobodys_way(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.killed((0, 10))
    monkeypatch.setattr("zest_hf.unfinished._is_locked", lambda fd: pytest.fail("it is locked"))
    cache.unfinished.tidy()


def test_a_write_that_fails_ends_it(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk: what comes after half a record would not be read."""
    left, taken = cache.begin()
    write(taken, 0, 10)
    write_all = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write_all(fd, data[:20]))
    write(taken, 10, 20)
    monkeypatch.undo()
    write(taken, 20, 30)
    taken.close()
    _, taken = cache.begin(left)
    assert [part.manifest for _, part in taken.here] == [Manifest.slice(FILE.manifest, 0, 10)]
