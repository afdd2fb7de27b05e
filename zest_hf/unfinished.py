"""What downloads that came to no end have left, and the journals by which the next one goes on from there.

A journal lies in ZEST_HOME, named by the file's hash and the inode of what is being written, so that it stays valid
when that is renamed. It is locked as long as somebody writes. Who finds one that nobody holds takes both over: the file
gets the new download's name, so that nothing is copied, nor is there twice. It is appended to in single writes and not
synced: what the machine has lost of either when the power fails is noticed by the hashes.

A download that ends well removes all of its file; what nobody comes back to is removed after a month. Files of the
Hub's own downloads have no journal: they are only read, and never removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zest_hf.core.ids import XetHash
from zest_hf.core.journal import (
    MAGIC,
    MAX_BYTES,
    Written,
    manifest_record,
    parse,
    place_record,
    written_record,
)
from zest_hf.core.local import LocalFile
from zest_hf.core.manifest import Manifest

log = logging.getLogger("zest_hf.unfinished")

MIN_BYTES = 8 << 20
"""A smaller file is fetched again sooner than anything is gone on with."""
KEEP_S = 30 * 24 * 3600.0
"""After that nobody will go on with it."""
MAX_TIDIED = 1000
"""Journals that are looked at, at once,"""
_HEAD_BYTES = 1 << 16
"""... and as much of each as says where its file lay."""


class Journal:
    """Of one file that is being written, from any thread. What cannot be noted would be fetched again.

    ``fd`` is that of the journal itself, locked; None: it is made when there is something to note. ``path`` is that of
    the file.
    """

    def __init__(
        self, folder: Path, file_hash: XetHash, path: Path, fd: int | None = None, inode: int = 0
    ) -> None:
        self._folder, self._file_hash, self._path = folder, file_hash, path
        self._fd, self._inode = fd, inode
        self._failed = False
        self._lock = threading.Lock()

    def wrote(self, xorb: XetHash, first: int, offset: int, chunks: Manifest) -> None:
        """Chunks of a xorb from ``first`` on lie from byte ``offset`` of the file on."""
        if len(chunks):
            self._append(written_record(xorb, first, offset, chunks))

    def proved(self, manifest: Manifest) -> None:
        """The file's manifest is known."""
        self._append(manifest_record(manifest))

    def close(self) -> None:
        """It stays, for who goes on."""
        with self._lock:
            self._failed = True
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def remove(self) -> None:
        """Nothing is left to be done."""
        with self._lock:
            if self._fd is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self._folder / _name(self._file_hash, self._inode))
        self.close()

    def _append(self, record: bytes) -> None:
        with self._lock:
            if self._failed:
                return
            try:
                if self._fd is None:
                    self._inode = os.stat(self._path).st_ino
                    self._fd = _made(self._folder, self._file_hash, self._path, self._inode)
                if os.write(self._fd, record) < len(record):
                    raise OSError("it was cut off")
            except OSError as error:
                log.info("no journal for %s: should this process be killed, it begins again: %s", self._path, error)
                # What follows a record that is cut off does not count.
                self._failed = True


@dataclass(slots=True)
class TakenUp:
    """What there is of a file. ``here``: stretches and where they lie, those in the file itself first.

    ``in_place``: how many those are; ``manifest``: the file's, proved.
    """

    journal: Journal
    here: list[tuple[Path, LocalFile]] = field(default_factory=list)
    in_place: int = 0
    manifest: Manifest | None = None
    others: list[_Found] = field(default_factory=list)
    """Those that nobody writes any more."""

    def done(self) -> None:
        """The file is complete: nothing else is needed."""
        self.journal.remove()
        for other in self.others:
            with contextlib.suppress(OSError):
                if os.stat(other.path).st_ino == other.inode:
                    other.path.unlink()
            other.journal.remove()

    def close(self) -> None:
        """It is not: all of it stays."""
        self.journal.close()
        for other in self.others:
            other.journal.close()


@dataclass(slots=True)
class _Found:
    path: Path
    inode: int
    journal: Journal
    written: Written


class Unfinished:
    """The journals in a folder, which is made when it is needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take_up(self, file_hash: XetHash, path: Path, left: Sequence[Path]) -> TakenUp:
        """Who downloads a file to ``path`` goes on from what lies in ``left``, if that has a journal.

        The most of it that nobody writes any more gets that path. Whatever fails, there is just nothing there.
        """
        taken = TakenUp(Journal(self._folder, file_hash, path))
        for one in left:
            with contextlib.suppress(OSError):
                self._look(file_hash, one, taken)
        taken.others.sort(key=lambda found: found.written.size_bytes, reverse=True)
        for found in list(taken.others):
            with contextlib.suppress(OSError):
                os.rename(found.path, path)
                taken.others.remove(found)
                taken.journal = found.journal
                in_place = [(path, part) for part in found.written.parts]
                taken.here, taken.in_place = in_place + taken.here, len(in_place)
                taken.manifest = found.written.manifest or taken.manifest
                break
        for found in taken.others:
            taken.here += [(found.path, part) for part in found.written.parts]
        return taken

    def _look(self, file_hash: XetHash, path: Path, taken: TakenUp) -> None:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            return
        fd = os.open(self._folder / _name(file_hash, found.st_ino), os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        journal = Journal(self._folder, file_hash, path, fd, found.st_ino)
        try:
            is_free = _is_locked(fd) and os.fstat(fd).st_nlink > 0 and os.lstat(path).st_ino == found.st_ino
            written = _read(fd)
        except BaseException:
            journal.close()
            raise
        if written is None or written.file_hash != file_hash:
            journal.close()
            return
        taken.manifest = taken.manifest or written.manifest
        if is_free:
            taken.others.append(_Found(path, found.st_ino, journal, written))
        else:
            journal.close()
            # Somebody is writing there: what is right of it can be copied.
            taken.here += [(path, part) for part in written.parts]

    def has(self, file_hash: XetHash, path: Path) -> bool:
        """Whether what lies there can be gone on with."""
        try:
            return os.stat(self._folder / _name(file_hash, os.lstat(path).st_ino)).st_size > 0
        except OSError:
            return False

    def forget(self, file_hash: XetHash, path: Path) -> None:
        """Nobody is to go on with what lies there."""
        with contextlib.suppress(OSError):
            os.unlink(self._folder / _name(file_hash, os.lstat(path).st_ino))

    def tidy_later(self) -> None:
        """Does so on a thread of its own, as what is looked at may lie on a server that does not answer."""
        if self._folder.is_dir():
            with contextlib.suppress(RuntimeError):  # no more threads are to be had here
                threading.Thread(target=self.tidy, name="zest-tidy", daemon=True).start()

    def tidy(self, now_s: float | None = None) -> None:
        """Removes journals of files that are gone, and files that nobody has gone on with for too long."""
        now_s = time.time() if now_s is None else now_s
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for entry, _ in zip(entries, range(MAX_TIDIED), strict=False):
                with contextlib.suppress(OSError):
                    self._tidy(Path(entry.path), now_s)

    def _tidy(self, journal: Path, now_s: float) -> None:
        fd = os.open(journal, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            inode = int(journal.name.rpartition(".")[2])
            # Not locked before it is known to be of no use: somebody may be about to take it up.
            if _is_of_use(fd, inode, now_s) or not _is_locked(fd) or _is_of_use(fd, inode, now_s):
                return
            for data in _with_inode(_read(fd, _HEAD_BYTES), inode):
                data.unlink()
            journal.unlink()
        except ValueError:
            return  # it is none of ours
        finally:
            os.close(fd)


def _is_of_use(journal: int, inode: int, now_s: float) -> bool:
    """Whether the file of a journal is there, and somebody may still come back to it."""
    data = next(_with_inode(_read(journal, _HEAD_BYTES), inode), None)
    return data is not None and now_s - max(os.fstat(journal).st_mtime, data.stat().st_mtime) < KEEP_S


def _name(file_hash: XetHash, inode: int) -> str:
    return f"{file_hash.hex()}.{inode}"


def _made(folder: Path, file_hash: XetHash, path: Path, inode: int) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / _name(file_hash, inode), os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # What is there belongs to a file that had the inode before.
        if not _is_locked(fd) or os.fstat(fd).st_nlink == 0:
            raise OSError("another process writes one of the same name")
        os.ftruncate(fd, 0)
        os.write(fd, MAGIC + place_record(file_hash, os.fsencode(path)))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_locked(fd: int) -> bool:
    """By us, from now on."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read(fd: int, most: int = MAX_BYTES) -> Written | None:
    data = bytearray()
    size = min(os.fstat(fd).st_size, most)
    while len(data) < size and (some := os.pread(fd, size - len(data), len(data))):
        data += some
    return parse(bytes(data))


def _with_inode(written: Written | None, inode: int) -> Iterator[Path]:
    """Where the file of a journal lies now: where it lay first, whatever it is called there."""
    if written is None:
        return
    folder = Path(os.fsdecode(written.path)).parent
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            is_its = entry.inode() == inode and entry.name.endswith(".incomplete")
            if is_its and entry.is_file(follow_symlinks=False):
                yield Path(entry.path)
