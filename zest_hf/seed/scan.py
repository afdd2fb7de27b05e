"""Finds what is in the cache and not in the index yet: chunks it, hashes it, and keeps what can be proved."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from zest_hf._native.codec import RULE_CURRENT, RULE_EARLY
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.errors import ZestError
from zest_hf.hook.cache import CachedFile, cached_files, directories, endpoint
from zest_hf.index import Index, IndexedFile
from zest_hf.scan import Stopped, scan_file

log = logging.getLogger("zest_hf.seed.scan")

Visible = Callable[[str, str, str], bool]
"""Takes (endpoint, repo_type, repo_id): whether the Hub shows the repository to everyone; unknown is False."""


class CacheScan:
    """The cache at ``directory``, looked at as often as it changes; used by one thread.

    Files whose content does not chunk to the hash that the Hub gave are left out: nobody could ask for them.
    """

    def __init__(self, directory: Path, index: Index, stop: threading.Event, is_public: Visible) -> None:
        self._directory = directory
        self._index = index
        self._stop = stop
        self._is_public = is_public
        self._seen: dict[Path, int] | None = None
        self._useless: set[tuple[Path, int]] = set()

    def has_changed(self) -> bool:
        """Whether names have come or gone since the last scan; costs one look at each repository's directory."""
        return directories(self._directory) != self._seen

    def run(self) -> int:
        """Puts new files into the index and returns how many there were. Raises StorageError when the index fails."""
        # Before the files: what comes meanwhile changes a directory once more, and is found by the next scan.
        self._seen = directories(self._directory)
        # Not by endpoint: who has downloaded it knew from where, while we only know where we would ask now.
        known: dict[tuple[Path, int], tuple[XetHash, set[tuple[str, str]]]] = {}
        for copy in self._index.copies():
            known.setdefault((copy.path, copy.mtime_ns), (copy.file_hash, set()))[1].add(copy.repo[1:])
        hub = endpoint()
        added = 0
        for file in cached_files(self._directory):
            if self._stop.is_set():
                break
            key, repo = (file.path, file.mtime_ns), (file.repo_type, file.repo_id)
            file_hash, repos = known.get(key, (None, set()))
            if repo in repos or key in self._useless:
                continue
            try:
                # One file may belong to several repositories: it is hashed for the first of them.
                found = self._of_another(file_hash, file, hub) if file_hash is not None else self._new(file, hub)
            except Stopped:
                break
            except (OSError, ZestError) as error:
                log.info("%s cannot be read: %s", file.path, error)
                continue
            if found is None:
                self._useless.add(key)
                continue
            self._index.add(replace(found, public=self._is_public(hub, *repo)))
            known.setdefault(key, (found.file_hash, set()))[1].add(repo)
            added += 1
        return added

    def _new(self, file: CachedFile, hub: str) -> IndexedFile | None:
        log.info("hashing %s (%.1f MB) of %s", file.path, file.size_bytes / 1e6, file.repo_id)
        manifest = _prove(file, self._stop)
        if manifest is None:
            log.info("%s does not chunk to the hash that the Hub gave it; it is not offered", file.path)
            return None
        return IndexedFile(
            file_hash=manifest.file_hash(),
            path=file.path,
            size_bytes=file.size_bytes,
            mtime_ns=file.mtime_ns,
            repo_id=file.repo_id,
            repo_type=file.repo_type,
            endpoint=hub,
            public=False,
            manifest=manifest,
            terms=(),
        )

    def _of_another(self, file_hash: XetHash, file: CachedFile, hub: str) -> IndexedFile | None:
        for entry in self._index.get(file_hash):
            if (entry.path, entry.mtime_ns, entry.size_bytes) == (file.path, file.mtime_ns, file.size_bytes):
                return replace(entry, repo_id=file.repo_id, repo_type=file.repo_type, endpoint=hub)
        return None


def _prove(file: CachedFile, stop: threading.Event) -> Manifest | None:
    """The file's manifest; None when no rule of chunking gives what the Hub calls it."""
    for rule in (RULE_CURRENT, RULE_EARLY):
        manifest = scan_file(file.path, rule, stop.is_set)
        if manifest.size_bytes == file.size_bytes and file.claimed in (None, manifest.file_hash()):
            return manifest
    return None
