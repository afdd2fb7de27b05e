"""Finds what is in the cache and not in the index yet: chunks it, hashes it, and keeps what can be proved."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from zest_hf._native.codec import RULE_CURRENT, RULE_EARLY
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.errors import ZestError
from zest_hf.hook.cache import CachedFile, cached_files, endpoint
from zest_hf.index import Index, IndexedFile
from zest_hf.scan import Stopped, scan_file

log = logging.getLogger("zest_hf.seed.scan")


def scan_cache(
    directory: Path, index: Index, stop: threading.Event, is_public: Callable[[str, str, str], bool]
) -> int:
    """Puts the cache's files into the index and returns how many were new.

    ``is_public`` takes (endpoint, repo_type, repo_id). Files whose content does not chunk to the hash that the Hub gave
    are left out: nobody could ask for them. Raises StorageError when the index fails.
    """
    known = {(file.path, file.mtime_ns, file.size_bytes) for file in index.entries()}
    hub = endpoint()
    added = 0
    for file in cached_files(directory):
        if stop.is_set():
            break
        if (file.path, file.mtime_ns, file.size_bytes) in known:
            continue
        try:
            found = _identify(file, stop)
        except Stopped:
            break
        except (OSError, ZestError) as error:
            log.info("%s cannot be read: %s", file.path, error)
            continue
        if found is None:
            continue
        file_hash, manifest = found
        public = is_public(hub, file.repo_type, file.repo_id)
        index.add(
            IndexedFile(
                file_hash=file_hash,
                path=file.path,
                size_bytes=file.size_bytes,
                mtime_ns=file.mtime_ns,
                repo_id=file.repo_id,
                repo_type=file.repo_type,
                endpoint=hub,
                public=public,
                manifest=manifest,
                terms=(),
            )
        )
        added += 1
    return added


def _identify(file: CachedFile, stop: threading.Event) -> tuple[XetHash, Manifest] | None:
    """The file's hash and manifest; None when no rule of chunking gives what the Hub calls it."""
    for rule in (RULE_CURRENT, RULE_EARLY):
        manifest = scan_file(file.path, rule, stop.is_set)
        file_hash = manifest.file_hash()
        if manifest.size_bytes == file.size_bytes and file.claimed in (None, file_hash):
            return file_hash, manifest
    log.info("%s does not chunk to the hash that the Hub gave it; it is not offered", file.path)
    return None
