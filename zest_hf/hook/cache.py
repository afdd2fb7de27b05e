"""What lies in the Hub's cache, for a seeder: the files, their repositories, and what the Hub calls them.

Read-only, and by looking at the disk alone. Layout: `{models|datasets|spaces}--{org}--{name}/blobs/{etag}`, where the
etag of a large file is its SHA-256; from huggingface_hub 1.32 on such a blob may be a link into
`blobs/{xx}/{xet hash}`; from 1.22 on `trees/{commit}.json` says which Xet hash belongs to which SHA-256. The links
`snapshots/{commit}/{path}` lead to the blobs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zest_hf.core.ids import XetHash, hash_from_text
from zest_hf.errors import ProtocolError

from .connection import Connection, Route

_log = logging.getLogger("zest_hf.hook")

MAX_TREE_BYTES = 256 << 20
MAX_COMMIT_CHARS = 200

_REPOSITORY = re.compile(r"(models|datasets|spaces)--(.+)")
_HEX64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class CachedFile:
    """A large file of the cache. ``path`` is the real file, ``claimed`` the Xet hash that the Hub gave it, if known.

    ``sha256`` is what its blob is called, ``revision_path`` a commit and its path there, if any are known.
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
        if match is None:
            continue
        repo_type, repo_id = match[1].removesuffix("s"), match[2].replace("--", "/", 1)
        claims, places = _listed(folder / "trees")
        places |= _linked(folder / "snapshots")
        for blob in _entries(folder / "blobs"):
            if not _HEX64.fullmatch(blob.name):
                continue  # small files are named by a git hash; downloads under way end in .incomplete
            try:
                path = blob.resolve(strict=True)
                stat = path.stat()
            except OSError:
                continue
            claimed = claims.get(blob.name) or (_hash_or_none(path.name) if path != blob else None)
            if stat.st_size:
                yield CachedFile(
                    path, stat.st_size, stat.st_mtime_ns, repo_type, repo_id, claimed, blob.name, places.get(blob.name)
                )


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


def _linked(snapshots: Path) -> dict[str, tuple[str, str]]:
    """SHA-256 -> commit and path there, from the links; of several commits the one that came last."""
    out: dict[str, tuple[str, str]] = {}
    for snapshot in sorted(_subfolders(snapshots), key=_mtime_ns):
        for folder, _, names in os.walk(snapshot):
            for name in names:
                link = Path(folder, name)
                with contextlib.suppress(OSError):
                    target = Path(os.readlink(link))
                    if target.parent.name == "blobs" and _HEX64.fullmatch(target.name):
                        out[target.name] = snapshot.name, link.relative_to(snapshot).as_posix()
    return out


def _mtime_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _listed(trees: Path) -> tuple[dict[str, XetHash], dict[str, tuple[str, str]]]:
    """SHA-256 -> Xet hash, and SHA-256 -> commit and path there, from all listings of a repository."""
    claims: dict[str, XetHash] = {}
    places: dict[str, tuple[str, str]] = {}
    for listing in _entries(trees):
        if listing.suffix != ".json":
            continue
        try:
            if os.stat(listing).st_size > MAX_TREE_BYTES:
                continue
            files = json.loads(listing.read_bytes())["files"]
            for path, file in files.items():
                sha256, text = file.get("lfs_sha256"), file.get("xet_hash")
                if isinstance(sha256, str):
                    places[sha256] = listing.stem, path
                found = _hash_or_none(text) if isinstance(text, str) else None
                if found is not None and isinstance(sha256, str):
                    claims[sha256] = found
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            _log.debug("%s is not a listing that we can read: %s", listing, error)
    return claims, places


def _hash_or_none(text: str) -> XetHash | None:
    try:
        return hash_from_text(text)
    except ProtocolError:
        return None
