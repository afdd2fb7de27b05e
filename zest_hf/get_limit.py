"""How many GETs the downloads of this process make at once: what `core.concurrency` says, for all of them together."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from zest_hf.core.concurrency import Concurrency, ConcurrencySettings
from zest_hf.workers import WorkerPool


class GetLimit:
    """Methods may be called from any thread. A download that is no more has to `leave`.

    ``workers`` run the GETs; they are as many as may run.
    """

    def __init__(self, workers: WorkerPool, settings: ConcurrencySettings) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        self._concurrency = Concurrency(settings)
        self._came: dict[Hashable, int] = {}
        self._came_bytes = 0
        workers.limit(self._concurrency.allowed)

    def go_high(self) -> None:
        """Somebody wants as much as line and machine give."""
        with self._lock:
            self._concurrency.go_high()
            self._workers.limit(self._concurrency.allowed)

    def note(self, download: Hashable, came_bytes: int, now_s: float) -> int:
        """The CDN has sent so much to a download in all; how many GETs may run, of all downloads and so of this one."""
        with self._lock:
            self._came_bytes += came_bytes - self._came.get(download, 0)
            self._came[download] = came_bytes
            before = self._concurrency.allowed
            allowed = self._concurrency.note(self._workers.busy, self._came_bytes, now_s)
            if allowed != before:
                self._workers.limit(allowed)
            return allowed

    def leave(self, download: Hashable) -> None:
        with self._lock:
            self._came.pop(download, None)
