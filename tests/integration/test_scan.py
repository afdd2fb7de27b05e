"""What is in the cache becomes seedable, however it got there; what is not as it was is not served."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from zest_hf._native.codec import RULE_CURRENT, ChunkList, FileScan
from zest_hf.hook.cache import CachedFile, cached_files
from zest_hf.hub.process import HubProcess
from zest_hf.index import Index
from zest_hf.scan import scan_file
from zest_hf.seed import half_hashed
from zest_hf.seed import scan as scanning
from zest_hf.seed.scan import CacheScan

from .conftest import CONTENT, OWNER, XET_BYTES, XET_NAMES, MakeMachine, snapshot
from .test_seed import blobs, from_peers_alone, plain

MODEL_BYTES = len(CONTENT["model.safetensors"])


def overwritten(path: Path) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(MODEL_BYTES // 2)
        file.write(os.urandom(100_000))


def overwritten_in_secret(path: Path) -> None:
    """As by a bad disk: nothing tells of it."""
    before = path.stat()
    overwritten(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def truncated(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, MODEL_BYTES // 3)


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(os.urandom(MODEL_BYTES))
    other.rename(path)


@pytest.mark.parametrize("harm", [overwritten, overwritten_in_secret, truncated, replaced, os.unlink])
def test_a_file_that_is_not_as_it_was_is_not_served(
    hub: HubProcess, make: MakeMachine, harm: Callable[[Path], None]
) -> None:
    """Before the seeder has looked again, and after something of it has been served already."""
    a = make("A")
    snapshot(a, ZEST_SEED="off")
    with a.seeder() as seeder:
        seeder.wait_for_files(len(XET_NAMES))
        from_peers_alone(hub, make("B"), seeder.address)
        harm(blobs(a)["model.safetensors"])
        run = snapshot(make("C"), ZEST_PEERS=seeder.address)  # which compares the content
        assert run.shown["total"] == XET_BYTES
        assert run.shown["cdn"] >= 100_000 if harm is overwritten_in_secret else run.shown["cdn"] >= MODEL_BYTES
        if harm is not overwritten_in_secret:
            seeder.wait_for_files(len(XET_NAMES) - 1)


@pytest.mark.parametrize("switch", ["1", None])
def test_a_cache_without_links(hub: HubProcess, make: MakeMachine, switch: str | None) -> None:
    a = make("A")
    plain_or_ours = {"HF_HUB_DISABLE_SYMLINKS": "1", "HF_HUB_ENABLE_ZEST": switch}
    done = a.python("import huggingface_hub as hub; hub.snapshot_download('org/model')", **plain_or_ours)
    assert done.code == 0 and "zest_hf" not in done.stderr
    assert not any(path.is_symlink() for path in a.home.rglob("*"))
    if switch is not None:
        with closing(Index(a.home / "zest" / "index.sqlite")) as index:
            noted = {copy.path.name for copy in index.copies()}
        assert noted == set(XET_NAMES)
    with a.seeder() as seeder:
        # Of what no listing speaks only what is large is looked at.
        seeder.wait_for_files(len(XET_NAMES))
        from_peers_alone(hub, make("B"), seeder.address)


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_data_sets_and_spaces(hub: HubProcess, make: MakeMachine, kind: str) -> None:
    api = HfApi(hub.endpoint, token=OWNER)
    repo = f"org/{kind}"
    api.create_repo(repo, repo_type=kind, space_sdk="static" if kind == "space" else None, exist_ok=True)
    files = [CommitOperationAdd(name, data) for name, data in CONTENT.items()]
    api.create_commit(repo, files, repo_type=kind, commit_message="files")
    fetch = f"""
import huggingface_hub as hub, zest_hf
hub.snapshot_download({repo!r}, repo_type={kind!r})
show(**zest_hf.status()["bytes"])
"""
    a = make("A")
    assert a.python(fetch, HF_HUB_ENABLE_ZEST=None).code == 0
    with a.seeder() as seeder:
        seeder.wait_for_files(len(XET_NAMES))
        (model,) = seeder.ask()["models"]
        assert (model["repo"], model["repo_type"]) == (repo, kind)
        hub.reset_stats()
        run = make("B").python(fetch, ZEST_PEERS=seeder.address)
        assert (run.shown["peer"], hub.stats()["cdn_bytes"]) == (XET_BYTES, 0)


def test_names_of_any_bytes(hub: HubProcess, make: MakeMachine) -> None:
    a = make("A")
    plain(a)
    cache = os.fsencode(a.home / "hub")
    (folder,) = (a.home / "hub").glob("models--org--model")
    shutil.copytree(os.fsencode(folder), cache + b"/models--org--\xff\xfe", symlinks=True)
    (commit,) = (folder / "snapshots").iterdir()
    model = os.readlink(commit / "model.safetensors")
    (commit / "model.safetensors").unlink()
    os.symlink(os.fsencode(model), os.fsencode(commit) + b"/\xc3\x28 \x1b[31m\n.bin")
    (folder / "blobs" / "\udcff").write_bytes(b"?")
    listing = folder / "trees" / f"{'0' * 40}.json"
    listing.parent.mkdir(exist_ok=True)
    # Names that are no text either, and that JSON can bear.
    listing.write_text(json.dumps({"files": {"\ud800": {"lfs_sha256": "0" * 64}, "\n": {"lfs_sha256": "1" * 64}}}))
    with a.seeder(ZEST_LOG="info") as seeder:
        seeder.wait_for_files(1)  # the other one's name is not known to the Hub
        ended = seeder.end(signal.SIGTERM)
    assert "Traceback" not in ended.stderr and "\x1b" not in ended.stderr
    done = a.command("zest", "scan")
    assert done.code == 0 and "Traceback" not in done.stderr


def test_what_is_half_written_is_offered_when_it_is_whole(hub: HubProcess, make: MakeMachine) -> None:
    a, b = make("A"), make("B")
    plain(a)
    shutil.copytree(a.home / "hub", b.home / "hub", symlinks=True)
    path = blobs(b)["model.safetensors"]
    path.chmod(0o644)
    whole = path.read_bytes()
    path.write_bytes(whole[: MODEL_BYTES // 2])
    with b.seeder(ZEST_LOG="info") as seeder:
        seeder.wait_for_files(len(XET_NAMES) - 1)
        with path.open("ab") as file:
            file.write(whole[MODEL_BYTES // 2 :])
        seeder.wait_for_files(len(XET_NAMES))
        from_peers_alone(hub, make("C"), seeder.address)


def test_a_scan_that_was_stopped_is_gone_on_with(make: MakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "NOTED_S", 0.0)  # the files have come just now
    a = make("A")
    plain(a)
    stop = threading.Event()

    def shown(*_: object) -> bool:
        stop.set()
        return True

    with closing(Index(a.home / "index.sqlite")) as index:
        assert CacheScan(a.home / "hub", index, stop, shown).run() == 1
        hashed: list[CachedFile] = []
        scan = CacheScan(a.home / "hub", index, threading.Event(), lambda _, file, __: not hashed.append(file))
        assert scan.run() == len(XET_NAMES) - 1 == len(hashed)
        assert not scan.is_due()
        assert {copy.path for copy in index.copies()} == {file.path for file in cached_files(a.home / "hub")}


@dataclass
class Watched:
    """A scan's progress: how much it has looked at. ``stop`` is set after so much."""

    stop: threading.Event
    after_bytes: int = 0
    came_bytes: int = 0

    def begin(self, size_bytes: int) -> None:
        self.came_bytes = 0

    def file(self, name: str) -> None: ...

    def came(self, size_bytes: int) -> None:
        self.came_bytes += size_bytes
        if 0 < self.after_bytes <= self.came_bytes:
            self.stop.set()

    def end(self) -> None: ...


@pytest.fixture
def hashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Callable[[int], tuple[int, int]]]:
    """A cache with one file, and what scans it until so many bytes are hashed: the entries that it adds, and the bytes
    that are hashed in all.
    """
    monkeypatch.setattr(scanning, "NOTED_S", 0.0)
    monkeypatch.setattr(half_hashed, "MIN_BYTES", 1 << 20)
    monkeypatch.setattr("zest_hf.scan.SCAN_CHUNKS", 8)
    blob = tmp_path / "hub" / "models--org--model" / "blobs" / ("ab" * 32)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(random.Random("half").randbytes(5_000_000))

    def scanned(until_bytes: int) -> tuple[int, int]:
        hashed = 0

        class Counted(FileScan):
            def next(self, max_chunks: int = 1024) -> ChunkList:
                nonlocal hashed
                found = super().next(max_chunks)
                hashed += sum(found.lengths)
                return found

        monkeypatch.setattr("zest_hf.scan.FileScan", Counted)
        progress = Watched(threading.Event(), until_bytes)
        with closing(Index(tmp_path / "zest" / "index.sqlite")) as index:
            scan = CacheScan(tmp_path / "hub", index, progress.stop, lambda *_: True, progress, tmp_path / "zest")
            added, read = scan.run(), hashed
            manifests = [file.manifest for file in index.entries()]
        if added:
            assert manifests == [scan_file(blob, RULE_CURRENT)] and progress.came_bytes == blob.stat().st_size
        return added, read

    return blob, scanned


def test_a_large_file_is_gone_on_with_where_a_scan_was_stopped(
    hashing: tuple[Path, Callable[[int], tuple[int, int]]], tmp_path: Path
) -> None:
    blob, scanned = hashing
    (none, first), (nothing, second) = scanned(2_000_000), scanned(4_000_000)
    assert none == nothing == 0 and 2_000_000 <= first < 3_200_000 and first + second < 5_000_000
    added, third = scanned(0)
    assert (tmp_path / "zest" / half_hashed.NAME).read_bytes() == b""
    assert (added, first + second + third) == (1, blob.stat().st_size)


@pytest.mark.parametrize("change", ["touched", "replaced", "damaged", "cut off"])
def test_what_was_hashed_of_a_large_file_is_used_as_far_as_it_is_still_good(
    hashing: tuple[Path, Callable[[int], tuple[int, int]]], tmp_path: Path, change: str
) -> None:
    blob, scanned = hashing
    assert scanned(2_000_000)[0] == 0
    half = tmp_path / "zest" / half_hashed.NAME
    if change == "touched":
        os.utime(blob, (1, 1))
    elif change == "replaced":
        stat, content = blob.stat(), blob.read_bytes()
        blob.rename(blob.with_name("before"))
        blob.write_bytes(content[::-1])
        os.utime(blob, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    else:
        data = bytearray(half.read_bytes())
        data[-200] ^= 1  # in the last record
        half.write_bytes(data[:100] if change == "cut off" else data)
    added, read = scanned(0)
    assert added == 1
    assert read < blob.stat().st_size if change == "damaged" else read == blob.stat().st_size


def test_two_scans_at_once(
    hashing: tuple[Path, Callable[[int], tuple[int, int]]], tmp_path: Path
) -> None:
    """What the other one has noted is left to it."""
    blob, scanned = hashing
    assert scanned(2_000_000)[0] == 0
    half = tmp_path / "zest" / half_hashed.NAME
    with half.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = half.read_bytes()
        assert scanned(0) == (1, blob.stat().st_size)
        assert half.read_bytes() == before


def test_zest_scan(make: MakeMachine) -> None:
    a = make("A")
    plain(a)
    files = {"files": len(XET_NAMES), "bytes": XET_BYTES}
    for new in (len(XET_NAMES), 0):
        done = a.command("zest", "scan", "--json")
        assert (done.code, done.stderr) == (0, "")
        assert json.loads(done.stdout) == {"complete": True, "new": new, **files, "offered": files, "by_xorbs": 2}
    done = a.command("zest", "scan")
    assert done.stdout.splitlines() == [
        "2 files, 6.3 MB, are in the index, 0 of them new",
        "2 may be offered to everyone, 6.3 MB",
        "of 2 the xorbs are known, which other files may share",
    ]


def test_only_the_repository_that_has_changed_is_looked_at(
    make: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cache of very many files each one that comes would cost a look at all others."""
    monkeypatch.setattr(scanning, "NOTED_S", 0.0)
    a = make("A")
    plain(a)
    (one,) = (a.home / "hub").glob("models--org--model")
    shutil.copytree(one, one.with_name("models--org--other"), symlinks=True)
    looked: list[str] = []
    scandir = os.scandir

    def watched(path: str | Path) -> object:
        if Path(path).name == "blobs":
            looked.append(Path(path).parent.name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", watched)
    with closing(Index(a.home / "index.sqlite")) as index:
        scan = CacheScan(a.home / "hub", index, threading.Event(), lambda *_: True)
        assert scan.run() == 2 * len(XET_NAMES)
        assert sorted(looked) == ["models--org--model", "models--org--other"]
        (one / "blobs" / ("a" * 64)).write_bytes(b"another")
        looked.clear()
        assert scan.is_due() and scan.run() == 1
        assert looked == ["models--org--model"]
        assert not scan.is_due()
