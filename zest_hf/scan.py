"""The manifest of a file on this disk: cut into chunks by content and hashed, without loading it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from zest_hf._native.codec import FileScan
from zest_hf.core.manifest import Manifest

SCAN_CHUNKS = 2048
"""Chunks between two looks at whether to go on: about 128 MiB."""


class Stopped(Exception):
    """The scan was told to end."""


def scan_file(
    path: Path,
    rule: int,
    should_stop: Callable[[], bool] = lambda: False,
    came: Callable[[Manifest], object] = lambda chunks: None,
    first: Manifest | None = None,
) -> Manifest:
    """``rule``: RULE_CURRENT or RULE_EARLY; ``came`` gets the next chunks, now and then. ``first``: those that are
    known already, which it does not get.

    Raises OSError, StorageError (it changed meanwhile), Stopped.
    """
    parts = [] if first is None else [first]
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            # What others have in memory is of more use than what is read once.
            with contextlib.suppress(OSError):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_NOREUSE)
        size_bytes = os.fstat(file.fileno()).st_size
        # Where a chunk ends depends on nothing before its start.
        rest = None if first is None else (first.size_bytes, size_bytes)
        scan = FileScan(file.fileno(), size_bytes, rule, part=rest)
        while not should_stop():
            chunks = scan.next(SCAN_CHUNKS)
            if not chunks.lengths:
                return Manifest.join(parts)
            parts.append(Manifest(chunks.hashes, chunks.lengths))
            came(parts[-1])
    raise Stopped
