"""What lies in the Hub's cache, for a seeder: the files, their repositories, and what the Hub calls them.

Read-only, and by looking at the disk alone. Layout: `{models|datasets|spaces}--{org}--{name}/blobs/{etag}`, where the
etag of a large file is its SHA-256; from huggingface_hub 1.32 on such a blob may be a link into
`blobs/{xx}/{xet hash}`; from 1.22 on `trees/{commit}.json` says which Xet hash belongs to which SHA-256. The links
`snapshots/{commit}/{path}` lead to the blobs; where there can be none, or are not to be, the files themselves lie
there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from zest_hf.core.ids import XetHash, hash_from_text
from zest_hf.errors import ProtocolError

from .connection import Connection, Route

_log = logging.getLogger("zest_hf.hook")

MAX_TREE_BYTES = 256 << 20
MIN_UNLISTED_BYTES = 1 << 20
"""A file that lies in a snapshot itself may be a large one only if it has this size, where no listing says more."""
MAX_COMMIT_CHARS = 200

_REPOSITORY = re.compile(r"(models|datasets|spaces)--(.+)")
_HEX64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A large file of the cache. ``path`` is the real file, ``claimed`` the Xet hash that the Hub gave it, if known.

    ``sha256`` is what its blob is called, empty if nothing says so; ``revision_path`` a commit and its path there, if
    any are known.
    """

    path: Path
    size_bytes: int
    mtime_ns: int
    repo_type: str
    repo_id: str
    claimed: XetHash | None
    sha256: str
    revision_path: tuple[str, str] | None


def cache_directory() -> Path:
    """Where the Hub's client keeps its files in this process."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def endpoint() -> str:
    """The Hub that this process talks to."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def directories(directory: Path) -> dict[Path, int]:
    """The directories of ``directory`` in which complete large files appear, with their mtime_ns: a cheap way to
    tell whether any has come or gone.
    """
    out: dict[Path, int] = {}
    for folder in _subfolders(directory):
        if _REPOSITORY.fullmatch(folder.name):
            with contextlib.suppress(OSError):
                out[folder / "blobs"] = (folder / "blobs").stat().st_mtime_ns
    return out


def cached_files(directory: Path) -> Iterator[CachedFile]:
    """Every complete large file under ``directory``; what vanishes meanwhile is left out."""
    for folder in _subfolders(directory):
        match = _REPOSITORY.fullmatch(folder.name)
        if match is None or not _is_text(match[2]):
            continue
        try:
            root = folder.resolve(strict=True)
            blobs = (root / "blobs").resolve()
        except (OSError, RuntimeError):  # a loop of links
            continue
        repo = match[1].removesuffix("s"), match[2].replace("--", "/", 1)
        listed = _listed(folder / "trees")
        places, unlinked = _snapshots(root / "snapshots")
        places = listed.places | places
        for name, path, stat in _blobs(blobs):
            claimed = listed.claims.get(name) or (_hash_or_none(path.name) if path.name != name else None)
            if stat.st_size:
                yield CachedFile(path, stat.st_size, stat.st_mtime_ns, *repo, claimed, name, places.get(name))
        for path, commit, stat in unlinked:
            place = commit, path.relative_to(root / "snapshots" / commit).as_posix()
            known = listed.files.get(place)
            if known is not None or (stat.st_size >= MIN_UNLISTED_BYTES and commit not in listed.commits):
                sha256, claimed = known or ("", None)
                yield CachedFile(path, stat.st_size, stat.st_mtime_ns, *repo, claimed, sha256, place)


def revisions(directory: Path, repo_type: str, repo_id: str) -> list[tuple[str, list[str]]]:
    """The commits of a repository that are in the cache, the latest first, each with the names that it had."""
    folder = directory / f"{repo_type}s--{repo_id.replace('/', '--')}"
    if "\0" in folder.name:
        return []  # no directory is called that
    commits: dict[str, list[str]] = {
        snapshot.name: [] for snapshot in sorted(_subfolders(folder / "snapshots"), key=_mtime_ns, reverse=True)
    }
    for place, _, names in os.walk(folder / "refs"):
        for name in sorted(names):
            ref = Path(place, name)
            with contextlib.suppress(OSError, ValueError), ref.open(encoding="ascii") as stream:
                commit = stream.read(MAX_COMMIT_CHARS).strip()
                if commit in commits:
                    commits[commit].append(ref.relative_to(folder / "refs").as_posix())
    return list(commits.items())


def is_public(
    hub: str,
    repo_type: str,
    repo_id: str,
    *,
    remembered: Callable[[], bool | None],
    remember: Callable[[bool], None],
) -> bool:
    """Whether the Hub shows the repository to everyone, by asking it if that is not remembered; unknown is False."""
    url = f"{hub}/api/{repo_type}s/{repo_id}/xet-read-token/main"
    route = Route(hub, repo_type, repo_id)
    return Connection(
        url, route, {"user-agent": "zest_hf"}, remembered=remembered, remember=remember
    ).is_public()


def _subfolders(directory: Path) -> Iterator[Path]:
    for entry in _entries(directory):
        if entry.is_dir():
            yield entry


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _is_text(name: str) -> bool:
    """Whether the Hub can have given it: a file system's names may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _blobs(directory: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """The names of large files, and the real files behind them. ``directory`` is a real one itself.

    Small ones are named by a git hash, and what is not complete ends in .incomplete.
    """
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if not _HEX64.fullmatch(entry.name):
            continue
        with contextlib.suppress(OSError, RuntimeError):
            if entry.is_symlink():
                path = Path(entry.path).resolve(strict=True)
                yield entry.name, path, path.stat()
            elif entry.is_file():
                yield entry.name, directory / entry.name, entry.stat()


def _snapshots(
    snapshots: Path,
) -> tuple[dict[str, tuple[str, str]], list[tuple[Path, str, os.stat_result]]]:
    """SHA-256 -> commit and path there, from the links; of several commits the one that came last.

    And the files that are no links, with their commits; of one with several names the last.
    """
    places: dict[str, tuple[str, str]] = {}
    files: dict[tuple[int, int], tuple[Path, str, os.stat_result]] = {}
    for snapshot in sorted(_subfolders(snapshots), key=_mtime_ns):
        start = len(os.fspath(snapshot)) + 1
        for entry in _walk(os.fspath(snapshot)):
            with contextlib.suppress(OSError):
                if entry.is_symlink():
                    folder, _, name = os.readlink(entry.path).rpartition(os.sep)
                    if _HEX64.fullmatch(name) and os.path.basename(folder) == "blobs":
                        places[name] = snapshot.name, entry.path[start:]
                elif entry.is_file() and (stat := entry.stat()).st_size:
                    files[stat.st_dev, stat.st_ino] = Path(entry.path), snapshot.name, stat
    return places, list(files.values())


def _walk(directory: str) -> Iterator[os.DirEntry[str]]:
    """All that is no directory, below ``directory``."""
    waiting = [directory]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    yield entry


def _mtime_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@dataclass(frozen=True, slots=True)
class _Listed:
    """What all listings of a repository say of its large files.

    ``claims``: SHA-256 -> Xet hash; ``places``: SHA-256 -> commit and path there; ``files``: the other way round, with
    the Xet hash; ``commits``: of which there is one.
    """

    claims: dict[str, XetHash] = field(default_factory=dict)
    places: dict[str, tuple[str, str]] = field(default_factory=dict)
    files: dict[tuple[str, str], tuple[str, XetHash | None]] = field(default_factory=dict)
    commits: set[str] = field(default_factory=set)


def _listed(trees: Path) -> _Listed:
    out = _Listed()
    for listing in _entries(trees):
        if listing.suffix != ".json":
            continue
        try:
            if os.stat(listing).st_size > MAX_TREE_BYTES:
                continue
            files = json.loads(listing.read_bytes())["files"]
            for path, file in files.items():
                sha256, text = file.get("lfs_sha256"), file.get("xet_hash")
                if not isinstance(sha256, str):
                    continue
                found = _hash_or_none(text) if isinstance(text, str) else None
                out.places[sha256] = listing.stem, path
                out.files[listing.stem, path] = sha256, found
                if found is not None:
                    out.claims[sha256] = found
            out.commits.add(listing.stem)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            _log.debug("%s is not a listing that we can read: %s", listing, error)
    return out


def _hash_or_none(text: str) -> XetHash | None:
    try:
        return hash_from_text(text)
    except ProtocolError:
        return None
