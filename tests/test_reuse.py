"""What a file shares with others on this disk is taken from there, and only the rest from anybody else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from downloads import Publisher, StoredFile, engine, fetch, tiny_chunks, within, xorb
from test_engine import BOUND_S, offer, port_of
from test_index import held_by_another_process

from zest_hf.core.reconstruction import Term
from zest_hf.engine import Engine
from zest_hf.hub.process import HubProcess
from zest_hf.index import Index, IndexedFile

PARTS = [tiny_chunks(f"old {number}", 100, 3000) for number in range(9)]
OLD_BYTES, NEW_BYTES = 9 * 300_000, 300_000


@pytest.fixture(scope="module")
def publisher(running_hub: HubProcess) -> Publisher:
    return Publisher(running_hub.endpoint, "org/base")


@pytest.fixture(scope="module")
def base(publisher: Publisher) -> StoredFile:
    return publisher.put(*PARTS)


@pytest.fixture(scope="module")
def revision(publisher: Publisher) -> StoredFile:
    """Nine tenths of it are old, some of that in another place, in parts and twice."""
    new = tiny_chunks("new", 100, 3000)
    parts = [*((one, 0, 100) for one in PARTS[:4]), (new, 0, 100), *((one, 0, 100) for one in PARTS[5:])]
    return publisher.put(*parts, (PARTS[4], 30, 80), (PARTS[0], 0, 50))


def test_a_revision_takes_only_what_is_new_from_the_cdn(
    local_hub: HubProcess, base: StoredFile, revision: StoredFile, tmp_path: Path
) -> None:
    with engine(tmp_path / "home") as one:
        offer(one, base, tmp_path / "old")
        local_hub.reset_stats()
        result = fetch(one, revision, tmp_path / "new")
        assert (result.bytes_cdn, result.bytes_local) == (NEW_BYTES, len(revision.content) - NEW_BYTES)
        status = one.status()
        assert status["bytes"]["local"] == result.bytes_local == status["downloads"][-1]["local"]
    # What travels is packed, and has headers.
    assert NEW_BYTES <= local_hub.stats()["cdn_bytes"] <= 1.01 * NEW_BYTES


def test_in_another_process_and_for_another_repository(
    local_hub: HubProcess, base: StoredFile, tmp_path: Path
) -> None:
    with engine(tmp_path / "home") as one:
        offer(one, base, tmp_path / "old")
    tune = Publisher(local_hub.endpoint, "other/tune").put(PARTS[2], tiny_chunks("tuned", 100, 3000), PARTS[7])
    with engine(tmp_path / "home") as one:
        result = fetch(one, tune, tmp_path / "new")
    assert (result.bytes_local, result.bytes_cdn) == (600_000, 300_000)


def test_the_same_file_under_another_name(local_hub: HubProcess, base: StoredFile, tmp_path: Path) -> None:
    with engine(tmp_path / "home") as one:
        offer(one, base, tmp_path / "old")
        local_hub.reset_stats()
        result = fetch(one, base, tmp_path / "new")
        assert (result.bytes_local, result.bytes_cdn) == (OLD_BYTES, 0)
    assert local_hub.stats()["cdn_bytes"] == 0


def changed(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(400_000)
        file.write(b"something else")


def other(path: Path) -> None:
    path.write_bytes(os.urandom(OLD_BYTES))


def truncated(path: Path) -> None:
    os.truncate(path, 1_000_000)


@pytest.mark.parametrize(("harm", "least"), [(changed, 2_000_000), (other, 0), (truncated, 900_000), (os.unlink, 0)])
def test_a_cached_file_that_is_another_does_no_harm(
    local_hub: HubProcess, base: StoredFile, tmp_path: Path, harm: object, least: int
) -> None:
    with engine(tmp_path / "home") as one:
        offer(one, base, tmp_path / "old")
        harm(tmp_path / "old")  # type: ignore[operator]
        with within(BOUND_S):
            result = fetch(one, base, tmp_path / "new")
        assert least <= result.bytes_local < OLD_BYTES


def test_an_index_that_says_what_is_not_so(local_hub: HubProcess, base: StoredFile, tmp_path: Path) -> None:
    with engine(tmp_path / "home") as one:
        offer(one, base, tmp_path / "old")
    with closing(Index(tmp_path / "home" / "index.sqlite")) as index:
        (file,) = index.entries()
        index.remove(file.file_hash, file.path)
        names = [term.xorb for term in reversed(file.terms)]
        terms = tuple(replace(term, xorb=name) for term, name in zip(file.terms, names, strict=True))
        index.add(replace(file, file_hash=type(file.file_hash)(bytes(32)), terms=terms))
    with engine(tmp_path / "home") as one:
        assert fetch(one, base, tmp_path / "new").bytes_local in (0, 300_000)  # the xorb in the middle is where it was


def test_an_index_that_is_in_use_is_not_waited_for(
    local_hub: HubProcess, base: StoredFile, tmp_path: Path
) -> None:
    with engine(tmp_path / "home") as one:
        offer(one, base, tmp_path / "old")
    index = tmp_path / "home" / "index.sqlite"
    with held_by_another_process("file", index), engine(tmp_path / "home") as one, within(2):
        fetch(one, base, tmp_path / "new")


def test_what_is_copied_is_offered_and_the_rest_asked_of_peers(
    local_hub: HubProcess, base: StoredFile, revision: StoredFile, tmp_path: Path
) -> None:
    with one_who_offers_and_one_with_the_base(base, revision, tmp_path) as (_, b):
        local_hub.reset_stats()
        result = fetch(b, revision, tmp_path / "b")
        assert (result.bytes_local, result.bytes_peer) == (len(revision.content) - NEW_BYTES, NEW_BYTES)
    assert local_hub.stats()["cdn_bytes"] == 0


def test_what_a_killed_download_left_is_gone_on_from(
    local_hub: HubProcess, publisher: Publisher, tmp_path: Path
) -> None:
    parts = [xorb(f"left {number}", 400_000) for number in range(6)]
    file = publisher.put(*parts)
    left = bytearray(file.content[:2_000_000])
    left[500_000] ^= 1  # in the second one
    path = tmp_path / "left"
    with path.open("wb") as some:
        for number in (0, 1, 3, 4):
            some.seek(400_000 * number)
            some.write(left[400_000 * number : 400_000 * (number + 1)])
    # The file system may not know holes: what is zero is not the file's either way.
    with engine(tmp_path / "home") as one:
        result = fetch(one, file, tmp_path / "new", left_overs=(tmp_path / "no such file", tmp_path, path))
    assert (result.bytes_local, result.bytes_cdn) == (1_200_000, 1_200_000)
    # All that is left of another file, or nothing.
    path.write_bytes(os.urandom(3_000_000))
    (tmp_path / "empty").touch()
    with engine(tmp_path / "home") as one:
        result = fetch(one, file, tmp_path / "new", left_overs=(path, tmp_path / "empty"))
    assert result.bytes_local == 0


def test_for_a_private_repository_only_the_own_disk_is_looked_at(
    local_hub: HubProcess, base: StoredFile, revision: StoredFile, tmp_path: Path
) -> None:
    with one_who_offers_and_one_with_the_base(base, revision, tmp_path) as (a, b):
        result = fetch(b, revision, tmp_path / "b", is_public=lambda: False)
        assert (result.bytes_local, result.bytes_cdn) == (len(revision.content) - NEW_BYTES, NEW_BYTES)
        assert b.status()["bytes"]["uploaded"] == a.status()["bytes"]["uploaded"] == 0


@contextmanager
def one_who_offers_and_one_with_the_base(
    base: StoredFile, revision: StoredFile, tmp_path: Path
) -> Iterator[tuple[Engine, Engine]]:
    """The first offers the revision; the second knows the first, and has the base on its disk."""
    with engine(tmp_path / "A") as a:
        offer(a, revision, tmp_path / "a")
        with engine(tmp_path / "B", [port_of(a)]) as b:
            keep(b, base, tmp_path / "base")
            yield a, b


def keep(one: Engine, file: StoredFile, path: Path) -> None:
    """The file is in the cache and the index."""
    path.write_bytes(file.content)
    terms = [Term(part.xorb, a, b, sum(part.lengths[a:b])) for part, a, b in file.parts]
    index = one.index()
    assert index is not None
    index.add(
        IndexedFile(
            file_hash=file.file_hash,
            path=path,
            size_bytes=len(file.content),
            mtime_ns=path.stat().st_mtime_ns,
            repo_id=file.repo,
            repo_type="model",
            endpoint=file.endpoint,
            public=False,
            manifest=file.manifest,
            terms=tuple(terms),
        )
    )
