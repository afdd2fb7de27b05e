"""What has been hashed of the large file that a scan was stopped at, so that the next one goes on there.

One small file in ZEST_HOME, of one scan at a time (flock), in the format of a journal: of whose file, and its chunks.
It is good for as long as that file has the same inode, size and time of change; where the file's hash is known, what
has become of it nevertheless shows in the end, and then it is hashed from the start.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
from pathlib import Path

from zest_hf.core.ids import ZERO_HASH, XetHash
from zest_hf.core.journal import MAGIC, MAX_BYTES, parse, place_record, written_record
from zest_hf.core.manifest import Manifest

log = logging.getLogger("zest_hf.seed.scan")

MIN_BYTES = 1 << 30
"""A smaller file takes less than a second."""
NAME = "half_hashed"


class HalfHashed:
    """Of the scan that uses it; from `begin` to `end` of one file."""

    def __init__(self, home: Path) -> None:
        self._path = home / NAME
        self._fd: int | None = None
        self._offset = 0
        self._chunks = 0

    def begin(self, path: Path, rule: int) -> Manifest | None:
        """The first chunks of a file, as an earlier scan with the same rule has found them; None: there are none."""
        try:
            stat = path.stat()
            if stat.st_size < MIN_BYTES:
                return None
            self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            which = f"{stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {rule}"
            key = XetHash(hashlib.sha256(which.encode()).digest())
            found = parse(os.pread(self._fd, min(os.fstat(self._fd).st_size, MAX_BYTES), 0))
            if found is not None and found.file_hash == key and len(found.parts) == 1 and found.parts[0].offset == 0:
                manifest = found.parts[0].manifest
                if manifest.size_bytes < stat.st_size:
                    self._restart(key, path)
                    self.add(manifest)
                    log.info("%s: %.1f GB of it were hashed before", path, manifest.size_bytes / 1e9)
                    return manifest
            self._restart(key, path)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                log.info("how far %s is hashed is not remembered: %s", path, error)
            self._close()
        return None

    def add(self, chunks: Manifest) -> None:
        """The next ones."""
        if self._fd is None:
            return
        try:
            record = written_record(ZERO_HASH, self._chunks, self._offset, chunks)
            if os.write(self._fd, record) < len(record):
                raise OSError(errno.ENOSPC, "it was cut off")
        except OSError as error:
            log.info("how far %s goes is not remembered: %s", self._path, error)
            self._close()
            return
        self._chunks += len(chunks)
        self._offset += chunks.size_bytes

    def end(self, *, is_stopped: bool) -> None:
        """Unless it was stopped nothing is kept."""
        if self._fd is not None and not is_stopped:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
        self._close()

    def _restart(self, key: XetHash, path: Path) -> None:
        assert self._fd is not None
        os.ftruncate(self._fd, 0)
        os.write(self._fd, MAGIC + place_record(key, os.fsencode(path)))
        self._chunks = self._offset = 0

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
