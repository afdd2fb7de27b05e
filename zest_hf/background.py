"""Work that nobody should have to wait for: a thread with a bounded queue."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable

log = logging.getLogger("zest_hf.background")

Job = Callable[[], None]


class Background:
    """One daemon thread that runs jobs in order; started when there is one, and again in a forked child.

    A job that finds the queue full is left out, as is every job after `close`.
    """

    def __init__(self, name: str, max_jobs: int, *, idle: Callable[[], float | None] = lambda: None) -> None:
        """``idle`` runs when nothing is left to do, and again after the seconds that it returns (None: after a job)."""
        self._name, self._max_jobs, self._idle = name, max_jobs, idle
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._jobs: queue.Queue[tuple[Job, threading.Event] | None] = queue.Queue(self._max_jobs)
        self._last = threading.Event()
        """Set when the job that was submitted last has ended."""
        self._last.set()
        self._thread: threading.Thread | None = None
        self._late = False
        self._closed = False

    def submit(self, job: Job, patience_s: float = 0.0) -> None:
        """Has ``job`` run, and waits up to ``patience_s`` for its end; not at all while an earlier one is late."""
        self._own()
        ended = threading.Event()
        with self._lock:
            if self._closed:
                return
            try:
                self._jobs.put_nowait((job, ended))
            except queue.Full:
                log.info("%s: too much to do, something is left out", self._name)
                return
            self._last = ended
            try:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, args=(self._jobs,), name=self._name, daemon=True)
                    thread.start()
                    self._thread = thread
            except RuntimeError as error:  # the interpreter is ending, or no more threads can be had
                log.info("%s: %s", self._name, error)
                return
            late = self._late
        if patience_s and not late and not ended.wait(patience_s):
            self._late = not ended.is_set()

    def drain(self, timeout_s: float) -> bool:
        """Waits until everything that was submitted has ended; False if that takes longer than ``timeout_s``."""
        self._own()
        return self._last.wait(timeout_s)

    def close(self, timeout_s: float) -> None:
        """Takes no more jobs, and gives those there are ``timeout_s``; what is left then is forgotten."""
        self._own()
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        self.drain(timeout_s)
        try:
            while True:
                self._jobs.get_nowait()
        except queue.Empty:
            self._jobs.put_nowait(None)

    def _own(self) -> None:
        # The thread of the parent does not exist in a child, and another may have held the lock.
        if self._pid != os.getpid():
            self._reset()

    def _run(self, jobs: queue.Queue[tuple[Job, threading.Event] | None]) -> None:
        pause_s: float | None = None
        while True:
            try:
                item = jobs.get(timeout=pause_s)
            except queue.Empty:
                pause_s = self._rest()
                continue
            if item is None:
                return
            job, ended = item
            try:
                job()
            except Exception:  # one job must not end the others
                log.exception("%s goes on after an error", self._name)
            finally:
                ended.set()
            if jobs.empty():
                self._late = False
                pause_s = self._rest()

    def _rest(self) -> float | None:
        try:
            return self._idle()
        except Exception:
            log.exception("%s goes on after an error", self._name)
            return None
