"""Files of this disk as a source: what a wanted file shares with them is copied, each chunk checked on its way.

Whatever has happened to a file since it was noted (it changed, it is gone, somebody is writing it), what comes of it is
right or does not come.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from zest_hf._native import codec
from zest_hf.core.actions import CopyLocal
from zest_hf.errors import ZestError
from zest_hf.sources.base import CopyEnded, Reporter, WriteFailed
from zest_hf.sources.cdn import Workers

log = logging.getLogger("zest_hf.sources.local")

COPY_THREADS = 2
"""... for all downloads together: one fills many a disk, and hashing should not keep it waiting."""


class LocalSource:
    """See the module. ``fd`` is the wanted file's descriptor, valid until `close` has returned.

    ``paths``: the files by the number that actions give them; one may be there several times.
    """

    def __init__(self, paths: Sequence[Path], fd: int, workers: Workers, report: Reporter) -> None:
        self._paths = paths
        self._fd = fd
        self._workers = workers
        self._report = report
        self._waiting: deque[CopyLocal] = deque()
        self._asked = 0
        """Workers that were asked for and have not said that there is nothing left,"""
        self._busy = 0
        """... and those that are copying."""
        self._ended = threading.Condition()
        self._files: dict[Path, int | None] = {}
        """Their descriptors; None: it could not be opened."""
        self._closed = False

    def start(self, action: CopyLocal) -> None:
        """Copies as soon as others have been. Raises ZestError when nobody would do it any more."""
        with self._ended:
            if self._closed:
                return
            self._waiting.append(action)
            if self._asked == COPY_THREADS:
                return
            self._asked += 1
        try:
            self._workers.submit(self._run)
        except BaseException:
            with self._ended:
                self._asked -= 1
            raise

    def close(self) -> None:
        """Ends everything after the copy that is under way: that takes as long as a few megabytes of the disk."""
        with self._ended:
            self._closed = True
            self._waiting.clear()
            self._ended.wait_for(lambda: self._busy == 0)
            files, self._files = self._files, {}
        for file in files.values():
            if file is not None:
                os.close(file)

    def _run(self) -> None:
        work = self._next()
        if work is None:
            return
        report = self._copy(*work)
        with self._ended:
            self._busy -= 1
            self._ended.notify_all()
        self._report(report)
        try:
            # Other downloads in between: each should get on.
            self._workers.submit(self._run)
        except ZestError:
            with self._ended:
                self._asked -= 1

    def _next(self) -> tuple[CopyLocal, int | None] | None:
        with self._ended:
            if not self._waiting:
                self._asked -= 1
                return None
            action = self._waiting.popleft()
            path = self._paths[action.source]
            if path not in self._files:
                self._files[path] = self._open(path)
            self._busy += 1
            return action, self._files[path]

    def _copy(self, action: CopyLocal, file: int | None) -> CopyEnded | WriteFailed:
        if file is None:
            return CopyEnded(action.assignment, 0, opened=False)
        chunks = action.chunks
        try:
            written = codec.copy_chunks(
                file, action.source_offset, self._fd, action.offset, chunks.hashes, chunks.lengths
            )
        except Exception as error:
            return WriteFailed(error)
        if written < len(chunks):
            log.info("%s is not what it was: it is not used there", self._paths[action.source])
        return CopyEnded(action.assignment, written)

    def _open(self, path: Path) -> int | None:
        try:
            # What has become a pipe must not be waited for.
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            log.info("%s cannot be used: %s", path, error)
            return None
        with contextlib.suppress(OSError):
            here, wanted = os.fstat(file), os.fstat(self._fd)
            if stat.S_ISREG(here.st_mode) and (here.st_dev, here.st_ino) != (wanted.st_dev, wanted.st_ino):
                return file
        os.close(file)
        return None
