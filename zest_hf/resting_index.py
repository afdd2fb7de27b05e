"""The index as a process uses it that has something better to do than to wait for it."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from zest_hf.errors import StorageError
from zest_hf.index import Index

log = logging.getLogger("zest_hf.engine")

INDEX_PATIENCE_S = 0.5
"""How long a download waits for others who use the index, and for a slow disk to make it."""
INDEX_REST_S = 60.0
"""How long the index is left alone after it has failed."""


class RestingIndex:
    """Made on first use. Methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._index: Index | None = None
        self._closed = False
        self._rests_until_s = 0.0
        self._failure_said = threading.Lock()
        """Taken by the first who says it, for good."""

    def get(self) -> Index | None:
        """The index, or None when it cannot be used here, or could not a moment ago."""
        with self._lock:
            if self._closed or time.monotonic() < self._rests_until_s:
                return None
            if self._index is None:
                self._index = Index(self._path, patience_s=INDEX_PATIENCE_S)
            return self._index

    def failed(self, error: StorageError) -> None:
        """Has it left alone for a while, as the next file would wait for the same reason; said once."""
        with self._lock:
            if self._closed:
                return
            self._rests_until_s = time.monotonic() + INDEX_REST_S
        level = logging.WARNING if self._failure_said.acquire(blocking=False) else logging.INFO
        log.log(level, "zest_hf: no index, downloads are not remembered for seeding: %s", error)

    def close(self) -> None:
        """From now on there is none. Idempotent."""
        with self._lock:
            index, self._index, self._closed = self._index, None, True
        if index is not None:
            index.close()
