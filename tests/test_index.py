"""The index: contents, copies, visibility; several processes, forks, and a disk that fails."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.reconstruction import Term
from zest_hf.database import on_network_filesystem
from zest_hf.errors import StorageError
from zest_hf.index import Index, IndexedFile

HUB = "https://huggingface.co"
XORBS = [XetHash(bytes([n]) * 32) for n in range(256)]


def indexed(seed: int, path: str = "", chunks: int = 20, **changes: object) -> IndexedFile:
    """A file with random chunks, split into two terms."""
    dice = random.Random(seed)
    lengths = array("I", (dice.randrange(8192, 131073) for _ in range(chunks)))
    manifest = Manifest(dice.randbytes(32 * chunks), lengths)
    half = chunks // 2
    terms = (
        Term(XORBS[seed % 256], 0, half, manifest.offset(half)),
        Term(XORBS[seed % 256 ^ 1], 5, 5 + chunks - half, manifest.size_bytes - manifest.offset(half)),
    )
    file = IndexedFile(
        file_hash=XetHash(dice.randbytes(32)),
        path=Path(path or f"/cache/blobs/{seed}"),
        size_bytes=manifest.size_bytes,
        mtime_ns=1_700_000_000_000_000_000 + seed,
        repo_id="org/name",
        repo_type="model",
        endpoint=HUB,
        public=True,
        manifest=manifest,
        terms=terms,
    )
    return replace(file, **changes)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "zest" / "index.sqlite"


@pytest.fixture
def index(path: Path) -> Iterator[Index]:
    one = Index(path)
    yield one
    one.close()


def test_what_goes_in_comes_out(index: Index) -> None:
    file = indexed(1)
    index.add(file)
    assert index.get(file.file_hash) == [file]
    assert index.get(XetHash(bytes(32))) == []
    assert index.file_hashes() == [file.file_hash]


def test_copies_are_listed_without_their_manifests(index: Index) -> None:
    files = [indexed(1), indexed(1, repo_id="org/other"), indexed(2)]
    for file in files:
        index.add(file)
    assert [(copy.file_hash, copy.path, copy.mtime_ns, copy.repo) for copy in index.copies()] == [
        (file.file_hash, file.path, file.mtime_ns, (HUB, "model", file.repo_id)) for file in files
    ]


def test_it_is_still_there_later(index: Index, path: Path) -> None:
    index.add(indexed(1))
    index.close()
    again = Index(path)
    assert again.get(indexed(1).file_hash) == [indexed(1)]
    again.close()


def test_file_without_chunks_or_terms(index: Index) -> None:
    empty = indexed(1, manifest=Manifest(b"", array("I")), size_bytes=0, terms=())
    index.add(empty)
    assert index.get(empty.file_hash) == [empty]


def test_copies_share_their_content(index: Index) -> None:
    first = indexed(1, "/a")
    second = replace(first, path=Path("/b"), repo_id="other/name", public=False)
    index.add(first)
    index.add(second)
    assert index.get(first.file_hash) == [first, second]
    assert len(index.file_hashes()) == 1
    a, b = index.get(first.file_hash)
    assert a.manifest is b.manifest


def test_one_path_for_two_repositories(index: Index) -> None:
    public = indexed(1, "/shared")
    private = replace(public, repo_id="org/private", public=False)
    index.add(public)
    index.add(private)
    assert index.get(public.file_hash) == [public, private]


def test_adding_again_replaces(index: Index) -> None:
    old = indexed(1)
    new = replace(old, mtime_ns=old.mtime_ns + 1, public=False)
    index.add(old)
    index.add(new)
    assert index.get(old.file_hash) == [new]


def test_a_path_has_one_content(index: Index) -> None:
    index.add(indexed(1, "/a"))
    index.add(indexed(2, "/a"))
    assert index.get(indexed(1).file_hash) == []
    assert index.find_xorb(indexed(2).terms[0].xorb) == [indexed(2, "/a")]
    assert index.find_xorb(indexed(1).terms[0].xorb) == []
    assert len(index.file_hashes()) == 1


def test_terms_that_become_known_are_kept(index: Index) -> None:
    known = indexed(1)
    index.add(replace(known, terms=()))
    assert index.find_xorb(known.terms[0].xorb) == []
    index.add(known)
    index.add(replace(known, terms=()))
    assert index.get(known.file_hash) == [known]


def test_find_xorb(index: Index) -> None:
    for seed in (2, 3, 8):
        index.add(indexed(seed))
    assert index.find_xorb(XORBS[2]) == [indexed(2), indexed(3)]
    assert index.find_xorb(XORBS[200]) == []


def test_files_that_are_related(index: Index) -> None:
    """Those with most of the wanted xorbs first; what has nothing new comes last, and not without end."""
    by_seed = {seed: indexed(seed) for seed in (2, 3, 8)}
    third = replace(by_seed[8], terms=by_seed[2].terms[:1] + by_seed[8].terms[1:], manifest=by_seed[2].manifest)
    third = replace(
        third,
        size_bytes=third.manifest.size_bytes,
        terms=(third.terms[0], replace(third.terms[1], size_bytes=by_seed[2].terms[1].size_bytes)),
    )
    for file in (by_seed[2], by_seed[3], third):
        index.add(file)
    wanted = index.sharing([Term(XORBS[seed], 9, 10, 1) for seed in (2, 3, 8 ^ 1, 200)])
    found = index.related(wanted, lambda path: True)
    assert {file.path for file in found} == {file.path for file in (by_seed[2], by_seed[3], third)}
    assert third in found[:2]
    # Files that are gone are left out, and those chosen that have the same.
    gone = found[0].path
    assert index.related(wanted, lambda path: path != gone)[0].path != gone
    assert index.related(wanted) == []
    assert index.sharing([Term(xorb, 0, 1, 1) for xorb in XORBS[100:] * 9]) == []


@pytest.mark.parametrize(
    ("terms", "found"),
    [
        ([(2, 0, 1)], True),
        ([(2, 9, 30)], True),
        ([(2, 10, 30)], False),
        # The chunks that it has of this xorb are 5 to 15.
        ([(3, 0, 5)], False),
        ([(3, 0, 6)], True),
        ([(3, 0, 5), (3, 15, 20)], False),
        ([(3, 0, 5), (3, 14, 20)], True),
        ([(200, 0, 99), (2, 3, 4)], True),
    ],
)
def test_only_who_has_some_of_the_wanted_chunks_shares_a_xorb(
    index: Index, terms: list[tuple[int, int, int]], found: bool
) -> None:
    """Files of a repository that are small have neighbouring chunks of one xorb, and nothing for each other."""
    index.add(indexed(2))
    sharing = index.sharing([Term(XORBS[xorb], first, end, 1) for xorb, first, end in terms])
    assert bool(sharing) is found


def test_what_is_beside_the_wanted_chunks_of_a_xorb_is_found_too(index: Index) -> None:
    """To prove a xorb all of it is needed."""
    files = [indexed(seed, terms=(Term(XORBS[7], 20 * seed, 20 * seed + 20, 0),)) for seed in range(3)]
    files = [replace(file, terms=(replace(file.terms[0], size_bytes=file.size_bytes),)) for file in files]
    index.add_all(files)
    found = index.related(index.sharing([Term(XORBS[7], 21, 22, 1)]), lambda path: True)
    assert {file.path for file in found} == {file.path for file in files}


def test_an_index_of_the_first_version(index: Index, path: Path) -> None:
    """It knew the xorbs of a file, not which chunks of them the file has."""
    index.add(indexed(2))
    index.close()
    with sqlite3.connect(path) as raw:
        raw.executescript("""
            DROP TABLE spans;
            CREATE TABLE xorbs (xorb BLOB, content INTEGER, PRIMARY KEY (xorb, content)) WITHOUT ROWID;
            CREATE INDEX xorbs_of_content ON xorbs (content);
            INSERT INTO xorbs SELECT substr(terms, 1, 32), id FROM contents;
            PRAGMA user_version = 1""")
    raw.close()
    for _ in range(2):
        with closing(Index(path)) as again:
            assert again.get(indexed(2).file_hash) == [indexed(2)]
            assert again.sharing([Term(XORBS[3], 14, 15, 1)]) != []
            assert again.sharing([Term(XORBS[3], 15, 16, 1)]) == []


def test_remove(index: Index) -> None:
    file = indexed(1, "/a")
    index.add(file)
    index.add(replace(file, path=Path("/b")))
    assert index.remove(file.file_hash, Path("/a"))
    assert not index.remove(file.file_hash, Path("/a"))
    assert [one.path for one in index.get(file.file_hash)] == [Path("/b")]
    assert index.remove(file.file_hash, Path("/b"))
    assert index.file_hashes() == [] and index.find_xorb(file.terms[0].xorb) == []


def test_entries_come_in_pages_and_bear_changes(index: Index) -> None:
    files = [indexed(seed) for seed in range(11)]
    for file in files:
        index.add(file)
    assert list(index.entries()) == files
    seen = []
    for entry in index.entries():
        seen.append(entry)
        index.remove(entry.file_hash, entry.path)
    assert seen == files and list(index.entries()) == []


def test_path_that_is_no_text(index: Index) -> None:
    file = indexed(1, os.fsdecode(b"/cache/\xff\xfe name"))
    index.add(file)
    assert index.get(file.file_hash) == [file]


def test_contradictions_are_refused(index: Index) -> None:
    for wrong in (indexed(1, size_bytes=1), indexed(1, terms=indexed(1).terms[:1])):
        with pytest.raises(StorageError, match="contradict"):
            index.add(wrong)


def test_text_that_cannot_be_stored(index: Index) -> None:
    with pytest.raises(StorageError):
        index.add(indexed(1, repo_id="\ud800"))
    assert list(index.entries()) == []


def test_generation_counts_changes_only(index: Index) -> None:
    seen = [index.generation()]

    def changed() -> bool:
        seen.append(index.generation())
        assert seen[-1] >= seen[-2]
        return seen[-1] > seen[-2]

    index.add(indexed(1))
    assert changed()
    index.add(indexed(1))
    assert not changed()
    index.add(indexed(1, "/elsewhere"))
    assert changed()
    index.set_public(HUB, "model", "org/name", False)
    assert changed()
    index.set_public(HUB, "model", "org/name", False)
    assert not changed()
    index.remove(XetHash(bytes(32)), Path("/a"))
    assert not changed()
    index.remove(indexed(1).file_hash, Path("/elsewhere"))
    assert changed()


def test_visibility(path: Path) -> None:
    now = 1000.0
    index = Index(path, wall_clock=lambda: now)
    index.add(indexed(1))
    index.add(indexed(2, repo_id="other/name"))
    assert index.is_public(HUB, "model", "org/name") is None
    index.set_public(HUB, "model", "org/name", False)
    assert [entry.public for entry in index.entries()] == [False, True]
    now += 3600
    assert index.visibility(HUB, "model", "org/name") == (False, 3600)
    assert index.is_public(HUB, "model", "org/name", max_age_s=3600) is False
    assert index.is_public(HUB, "model", "org/name", max_age_s=3599) is None
    assert index.is_public(HUB, "dataset", "org/name") is None
    index.set_public(HUB, "model", "org/name", True)
    assert index.visibility(HUB, "model", "org/name") == (True, 0)
    now -= 50
    assert index.visibility(HUB, "model", "org/name") == (True, 0)
    index.close()


def test_size_is_a_thousandth_of_the_model(index: Index, path: Path) -> None:
    chunks = 16384  # 1 GiB in chunks of 64 KiB
    manifest = Manifest(random.Random(1).randbytes(32 * chunks), array("I", [65536]) * chunks)
    terms = tuple(Term(XORBS[n % 16], 64 * n, 64 * (n + 1), 64 * 65536) for n in range(256))
    index.add(indexed(1, manifest=manifest, size_bytes=manifest.size_bytes, terms=terms))
    index.close()
    used = sum(one.stat().st_size for one in path.parent.iterdir())
    assert used < manifest.size_bytes / 1000


# Several users


def test_threads(index: Index) -> None:
    files = [indexed(seed) for seed in range(40)]

    def work(part: int) -> None:
        for file in files[part::4]:
            index.add(file)
            assert index.get(file.file_hash) == [file]

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry.file_hash for entry in index.entries()} == {file.file_hash for file in files}


ADD_SOME = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_index import Index, indexed
index = Index(Path(sys.argv[2]))
for seed in range(int(sys.argv[3]), int(sys.argv[4])):
    index.add(indexed(seed))
print(index.generation())
"""


def adder(path: Path, first: int, end: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ADD_SOME, str(Path(__file__).parent), str(path), str(first), str(end)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def generation_of(process: subprocess.Popen[str]) -> int:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return int(output)


def test_processes_make_and_fill_it_together(index: Index, path: Path) -> None:
    processes = [adder(path, 20 * n, 20 * n + 20) for n in range(3)]
    generations = [generation_of(process) for process in processes]
    assert len(list(index.entries())) == 60
    assert max(generations) == index.generation()


def test_another_process_shows_in_the_generation(index: Index, path: Path) -> None:
    before = index.generation()
    assert generation_of(adder(path, 7, 8)) == index.generation() > before
    assert index.get(indexed(7).file_hash) == [indexed(7)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_while_threads_are_busy(index: Index) -> None:
    stop = threading.Event()

    def work(first: int) -> None:
        seed = first
        while not stop.is_set():
            index.add(indexed(seed, chunks=2))
            seed += 1000

    threads = [threading.Thread(target=work, args=(1000 + n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=index.add, args=(indexed(n),)) for n in range(5)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    stop.set()
    for thread in threads:
        thread.join()
    assert [child.exitcode for child in children] == [0] * 5
    assert all(index.get(indexed(n).file_hash) for n in range(5))


# Bad days


def test_closed(index: Index) -> None:
    index.close()
    index.close()
    with pytest.raises(StorageError, match="closed"):
        index.generation()


def test_newer_schema(index: Index, path: Path) -> None:
    index.generation()
    index.close()
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 3")
    raw.close()
    with pytest.raises(StorageError, match=r"schema version 3.*upgrade zest_hf"):
        Index(path).generation()
    assert path.exists()


def test_somebody_elses_database(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE precious (x)")
    raw.close()
    with pytest.raises(StorageError, match="not an index of zest_hf"):
        Index(path).generation()
    assert path.exists()


@pytest.mark.parametrize("damage", ["no database", "pages", "truncated"])
def test_damaged_file_is_moved_aside(path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    index = Index(path)
    for seed in range(30):
        index.add(indexed(seed))
    generation = index.generation()
    index.close()
    content = path.read_bytes()
    page = 4096
    if damage == "no database":
        path.write_bytes(b"precious" * 1000)
    elif damage == "pages":
        path.write_bytes(content[:page] + os.urandom(len(content) - page))
    else:
        path.write_bytes(content[: 3 * page])

    with caplog.at_level(logging.WARNING, "zest_hf"):
        other = Index(path)
        other.add(indexed(99))
        assert list(other.entries()) == [indexed(99)]
    (record,) = caplog.records
    assert "corrupt-1" in record.getMessage()
    assert (path.parent / "index.sqlite.corrupt-1").exists()
    assert other.generation() > generation
    other.close()


def test_damage_under_a_running_process(index: Index, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two users, of which one finds the damage first: the other goes on with the new file."""
    index.add(indexed(1))
    second = Index(path)
    assert second.get(indexed(1).file_hash)
    with path.open("r+b") as stream:
        stream.write(b"\0" * 100)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    third = Index(path)
    third.add(indexed(2))
    assert second.get(indexed(2).file_hash) == [indexed(2)]
    second.add(indexed(3))
    index.add(indexed(4))
    third.close()
    second.close()
    assert {entry.file_hash for entry in index.entries()} == {indexed(n).file_hash for n in (2, 3, 4)}
    assert len(caplog.records) == 1


def test_deleted_file_is_made_anew(index: Index, path: Path) -> None:
    index.add(indexed(1))
    for one in path.parent.iterdir():
        one.unlink()
    assert list(index.entries()) == []
    index.add(indexed(2))
    assert list(index.entries()) == [indexed(2)]


def test_entry_that_makes_no_sense_is_forgotten(
    index: Index, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index.add(indexed(1))
    index.add(indexed(2))
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE contents SET manifest = x'00' WHERE id = 1")
    raw.close()
    assert list(index.entries()) == [indexed(2)]
    assert len(caplog.records) == 1
    assert list(index.entries()) == [indexed(2)]
    assert len(caplog.records) == 1


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="set ZEST_HOME to a writable directory") as caught:
        Index(tmp_path / "file" / "zest" / "index.sqlite").generation()
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="set ZEST_HOME to a writable directory"):
        Index(tmp_path / "index.sqlite").generation()


def test_full_disk(index: Index) -> None:
    index.add(indexed(1))
    # SQLite's own limit of the file's size gives the same error as a full disk.
    index._database.read(lambda db: db.execute("PRAGMA max_page_count = 1").fetchone())
    with pytest.raises(StorageError, match="disk is full; free some space"):
        for seed in range(2, 100):
            index.add(indexed(seed, chunks=1000))
    index._database.read(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchone())
    index.add(indexed(200))
    assert index.get(indexed(200).file_hash)
    assert index.get(indexed(1).file_hash)


def test_lock_that_is_never_given_back(index: Index, path: Path) -> None:
    index.add(indexed(1))
    index.close()
    index = Index(path, patience_s=0.1)
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("BEGIN IMMEDIATE")
    assert index.get(indexed(1).file_hash), "readers do not wait for a writer"
    with pytest.raises(StorageError, match="another process has kept it locked"):
        index.add(indexed(2))
    raw.close()
    index.add(indexed(2))
    index.close()


HOLD_LOCK = """
import fcntl, sqlite3, sys
kind, path = sys.argv[1:]
if kind == "file":
    held = open(path + ".lock", "w")
    fcntl.flock(held, fcntl.LOCK_EX)
else:
    held = sqlite3.connect(path, isolation_level=None)
    held.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another_process(kind: str, path: Path) -> Iterator[None]:
    """``kind`` "file": the lock for opening the index; "database": that for writing to it."""
    command = [sys.executable, "-c", HOLD_LOCK, kind, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        yield
        holder.communicate("")


@pytest.mark.skipif(os.name != "posix", reason="needs flock")
@pytest.mark.parametrize("kind", ["file", "database"])
def test_the_patience_is_for_all_threads_and_locks_together(index: Index, path: Path, kind: str) -> None:
    index.add(indexed(1))
    index.close()
    with held_by_another_process(kind, path):
        hasty = Index(path, patience_s=0.2)
        failures: list[StorageError] = []

        def work() -> None:
            try:
                hasty.add(indexed(2))
            except StorageError as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(6)]
        began_s = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(failures) == 6 and "kept it locked for 0.2 s" in str(failures[0])
        # One after the other it would be 1.2 s.
        assert time.monotonic() - began_s < 0.8
    hasty.add(indexed(2))
    hasty.close()


def test_changes_are_told_to_who_has_missed_them(index: Index) -> None:
    files = [indexed(n) for n in range(4)]
    index.add_all(files)
    here, changed = index.changes()
    assert changed is None
    assert index.changes(here) == (here, set())
    index.add(indexed(7))
    index.remove(files[0].file_hash, files[0].path)
    after, changed = index.changes(here)
    assert changed == {indexed(7).file_hash, files[0].file_hash}
    assert {copy.path for copy in index.copies(changed)} == {indexed(7).path}
    index.add(indexed(1))  # nothing new about it
    assert index.changes(after) == (after, set())
    index.set_public(HUB, "model", "org/name", False)
    later, changed = index.changes(after)
    assert changed == {file.file_hash for file in (*files[1:], indexed(7))}
    index.add(replace(indexed(9), terms=()))
    index.set_terms(indexed(9).file_hash, indexed(9).terms)
    assert index.changes(later)[1] == {indexed(9).file_hash}
    assert index.changes(here)[1] == {file.file_hash for file in (*files, indexed(7), indexed(9))}
    assert index.get(indexed(9).file_hash) == index.find_xorb(indexed(9).terms[0].xorb) == [indexed(9)]


def test_who_has_missed_too_many_changes_looks_at_everything(index: Index, path: Path) -> None:
    index.add(indexed(1))
    here, _ = index.changes()
    for n in range(5000):
        index.set_public(HUB, "model", "org/name", bool(n % 2))
    assert index.changes(here)[1] is None
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM changes").fetchone() == (4096,)


def test_changes_of_an_index_that_was_made_anew(index: Index, path: Path) -> None:
    index.add(indexed(1))
    here, _ = index.changes()
    path.unlink()
    assert index.copies() == []
    index.add(indexed(2))
    assert index.changes(here)[1] is None


def test_an_index_of_an_older_program(index: Index, path: Path) -> None:
    """It gets what it lacks, without waiting for whoever writes once it has that; who made it can go on with it."""
    index.add(indexed(1))
    index.close()
    with closing(sqlite3.connect(path)) as db:
        triggers = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
        assert len(triggers) == 4
        for name in triggers:
            db.execute(f"DROP TRIGGER {name}")
        db.execute("DROP TABLE changes")
        db.execute("DROP TABLE unanswered")
    newer = Index(path)
    here, _ = newer.changes()
    with closing(sqlite3.connect(path)) as older:
        older.execute("UPDATE copies SET public = 0")
        older.commit()
    assert newer.changes(here)[1] == {indexed(1).file_hash}
    newer.close()
    with held_by_another_process("database", path), closing(Index(path, patience_s=0.0)) as hasty:
        assert hasty.file_hashes() == [indexed(1).file_hash]


def test_what_was_asked_in_vain(index: Index) -> None:
    bare = replace(indexed(1), terms=())
    index.add_all([bare, replace(bare, repo_id="org/other", public=False), indexed(2)])
    assert [(one.repo[2], one.public, one.asker) for one in index.without_terms()] == [
        ("org/name", True, None),
        ("org/other", False, None),
    ]
    index.set_unanswered(bare.file_hash, b"me", 12.0)
    assert [(one.asker, one.until_s) for one in index.without_terms()] == [(b"me", 12.0)] * 2
    index.set_terms(bare.file_hash, indexed(1).terms)
    assert index.without_terms() == []
    index.remove(bare.file_hash, bare.path)
    index.add(bare)
    assert [one.asker for one in index.without_terms()] == [None]


def test_an_unknown_visibility_changes_nothing(index: Index) -> None:
    index.add(indexed(1))
    hidden = replace(indexed(1), public=False)
    index.add(hidden, visibility_known=False)
    assert index.get(hidden.file_hash) == [indexed(1)]
    index.add(hidden)
    index.add(indexed(2), visibility_known=False)
    assert [entry.public for entry in index.entries()] == [False, indexed(2).public]


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
tmpfs /home/u/fast tmpfs rw 0 0
sshfs#x /mnt/with\\040space fuse.sshfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("where", "network"),
    [
        ("/x", False),
        ("/home/u/x", True),
        ("/homes/x", False),
        ("/home/u/fast/x", False),
        ("/mnt/with space/x", True),
    ],
)
def test_network_filesystems(where: str, network: bool) -> None:
    assert on_network_filesystem(Path(where), MOUNTS) is network
