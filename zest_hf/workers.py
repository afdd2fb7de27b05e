"""Threads that all downloads of the process share."""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import Callable

from zest_hf.errors import ZestError

log = logging.getLogger("zest_hf.workers")

Job = Callable[[], None]


class WorkerPool:
    """Threads are started as they are needed and run jobs in order.

    They are daemons: a GET that waits for a server must not keep the interpreter from ending.
    """

    def __init__(self, max_threads: int | None, name: str = "zest-work") -> None:
        """None: as many as there are jobs, for jobs that wait for each other."""
        self._is_bounded = max_threads is not None
        self._max_threads = sys.maxsize if max_threads is None else max_threads
        self._name = name
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._free = 0
        """Threads that wait for a job; below zero: jobs that wait for a thread."""
        self._closed = False

    def limit(self, max_threads: int) -> None:
        """From now on so many, for jobs that wait too; those that are too many end with their jobs."""
        with self._lock:
            self._max_threads = max_threads
            wanted = min(-self._free, max_threads - self._threads) if not self._closed else 0
            started = max(0, wanted)
            self._threads += started
            self._free += started
        for _ in range(started):
            self._start()

    @property
    def busy(self) -> int:
        """How many jobs run."""
        with self._lock:
            return self._threads - max(0, self._free)

    def submit(self, job: Job) -> None:
        """Runs ``job`` as soon as a thread is free. Raises ZestError after `close`: nobody would run it."""
        with self._lock:
            if self._closed:
                raise ZestError("the download threads have ended: this process is closing")
            self._free -= 1
            start = self._free < 0 and self._threads < self._max_threads
            if start:
                self._threads += 1
                self._free += 1
            # Under the lock: `close` counts on every job being in front of its end marks.
            self._jobs.put(job)
        if start:
            self._start()

    def close(self) -> None:
        """Ends the threads once they have done what was submitted."""
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, 0
            for _ in range(threads):
                self._jobs.put(None)

    def _start(self) -> None:
        try:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        except RuntimeError:
            # No more threads to be had here. Those there are will do the job, if there are any.
            with self._lock:
                self._threads -= 1
                self._free -= 1
                is_due = self._is_bounded and self._threads > 0
            if not is_due:
                raise

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # a job reports its own failures; this is one of ours
                log.exception("a worker goes on after an error")
            with self._lock:
                if self._threads > self._max_threads:
                    # Its jobs are left to the others.
                    self._threads -= 1
                    return
                self._free += 1
