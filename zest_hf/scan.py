"""The manifest of a file on this disk: cut into chunks by content and hashed, without loading it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from zest_hf._native.codec import FileScan
from zest_hf.core.manifest import Manifest

SCAN_CHUNKS = 2048
"""Chunks between two looks at whether to go on: about 128 MiB."""


class Stopped(Exception):
    """The scan was told to end."""


def scan_file(path: Path, rule: int, should_stop: Callable[[], bool] = lambda: False) -> Manifest:
    """``rule``: RULE_CURRENT or RULE_EARLY. Raises OSError, StorageError (it changed meanwhile), Stopped."""
    parts: list[Manifest] = []
    with path.open("rb") as file:
        scan = FileScan(file.fileno(), os.fstat(file.fileno()).st_size, rule)
        while not should_stop():
            chunks = scan.next(SCAN_CHUNKS)
            if not chunks.lengths:
                return Manifest.join(parts)
            parts.append(Manifest(chunks.hashes, chunks.lengths))
    raise Stopped
