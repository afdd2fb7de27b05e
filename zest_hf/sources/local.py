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

CLOSE_PATIENCE_S = 5.0
"""How long a copy that is under way is waited for: a few megabytes, but the file may be on a server that is gone."""


class LocalSource:
    """See the module. ``fd`` is the wanted file's descriptor.

    ``paths``: the files by the number that actions give them; one may be there several times. The wanted file may be
    one of them: what is in its place already is checked, and not written again.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        fd: int,
        workers: Workers,
        report: Reporter,
        *,
        close_patience_s: float = CLOSE_PATIENCE_S,
    ) -> None:
        self._paths = paths
        # A copy that hangs may outlive whoever lent us the descriptor.
        self._fd = os.dup(fd)
        self._close_patience_s = close_patience_s
        self._workers = workers
        self._report = report
        self._waiting: deque[CopyLocal] = deque()
        self._asked = 0
        """Workers that were asked for and have not said that there is nothing left,"""
        self._busy = 0
        """... and those that are copying,"""
        self._copying: list[Path] = []
        """... from these."""
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
        """Ends everything after the copy that is under way: that takes as long as a few megabytes of the disk.

        One that takes longer, as its file cannot be read and does not say so, comes to nothing whenever it ends.
        """
        with self._ended:
            self._closed = True
            self._waiting.clear()
            if not self._ended.wait_for(lambda: self._busy == 0, self._close_patience_s):
                log.warning("zest_hf: a file of this disk cannot be read; it is left alone: %s", self._slow())
                nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
                os.dup2(nowhere, self._fd, inheritable=False)
                os.close(nowhere)
            elif self._fd >= 0:
                self._release()

    def _slow(self) -> str:
        return ", ".join(sorted({str(path) for path in self._copying}))

    def _release(self) -> None:
        """With the lock, and nobody at work."""
        files, self._files = self._files, {}
        for file in (self._fd, *files.values()):
            if file is not None and file >= 0:
                os.close(file)
        self._fd = -1

    def _run(self) -> None:
        action = self._next()
        if action is None:
            return
        path = self._paths[action.source]
        report = self._copy(action, self._file(path))
        with self._ended:
            self._busy -= 1
            self._copying.remove(path)
            self._ended.notify_all()
            if self._closed and not self._busy and self._fd >= 0:
                self._release()
                return
        self._report(report)
        try:
            # Other downloads in between: each should get on.
            self._workers.submit(self._run)
        except ZestError:
            with self._ended:
                self._asked -= 1

    def _next(self) -> CopyLocal | None:
        with self._ended:
            if not self._waiting:
                self._asked -= 1
                return None
            action = self._waiting.popleft()
            self._busy += 1
            self._copying.append(self._paths[action.source])
            return action

    def _file(self, path: Path) -> int | None:
        with self._ended:
            if path in self._files:
                return self._files[path]
        # Without the lock: this may take for ever.
        file = self._open(path)
        with self._ended:
            kept = self._files.setdefault(path, file)
        if kept != file and file is not None:
            os.close(file)
        return kept

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
            if stat.S_ISREG(os.fstat(file).st_mode):
                return file
        os.close(file)
        return None
