"""What lies in the Hub's cache, for a seeder: the files, their repositories, and what the Hub calls them.

Read-only, and by looking at the disk alone. Layout: `{models|datasets|spaces}--{org}--{name}/blobs/{etag}`, where the
etag of a large file is its SHA-256; from huggingface_hub 1.32 on such a blob may be a link into
`blobs/{xx}/{xet hash}`; from 1.22 on `trees/{commit}.json` says which Xet hash belongs to which SHA-256.
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

_REPOSITORY = re.compile(r"(models|datasets|spaces)--(.+)")
_HEX64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class CachedFile:
    """A large file of the cache. ``path`` is the real file, ``claimed`` the Xet hash that the Hub gave it, if known."""

    path: Path
    size_bytes: int
    mtime_ns: int
    repo_type: str
    repo_id: str
    claimed: XetHash | None


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
        claims = _claims(folder / "trees")
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
                yield CachedFile(path, stat.st_size, stat.st_mtime_ns, repo_type, repo_id, claimed)


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


def _claims(trees: Path) -> dict[str, XetHash]:
    """SHA-256 -> Xet hash, from all listings of a repository."""
    out: dict[str, XetHash] = {}
    for listing in _entries(trees):
        if listing.suffix != ".json":
            continue
        try:
            if os.stat(listing).st_size > MAX_TREE_BYTES:
                continue
            files = json.loads(listing.read_bytes())["files"].values()
            for file in files:
                sha256, text = file.get("lfs_sha256"), file.get("xet_hash")
                found = _hash_or_none(text) if isinstance(text, str) else None
                if found is not None and isinstance(sha256, str):
                    out[sha256] = found
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            _log.debug("%s is not a listing that we can read: %s", listing, error)
    return out


def _hash_or_none(text: str) -> XetHash | None:
    try:
        return hash_from_text(text)
    except ProtocolError:
        return None
