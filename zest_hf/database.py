"""One SQLite file that several processes and threads share: opening, locking, forking, and its bad days.

Each process has one connection behind a lock. The statements run for microseconds to milliseconds, and
only so can the connection be closed before a fork: SQLite keeps its idea of who holds which lock per
process, and a child that inherits it believes to hold locks that it does not have.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar

from zest_hf.errors import StorageError

if os.name == "posix":
    import fcntl

log = logging.getLogger("zest_hf.index")

T = TypeVar("T")

APPLICATION_ID: Final = 0x7A657374  # "zest"

# Write-ahead logging needs memory that all users of the file share, which two hosts do not have.
NETWORK_FILESYSTEMS: Final = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"}
)

BUSY_STEP_S: Final = 0.1
"""A connection is told in such steps how long it may wait."""

MAX_WAL_BYTES: Final = 1 << 20
"""The write-ahead log is cut back to this size after each checkpoint."""

# Primary result codes of SQLite (https://sqlite.org/rescode.html).
_BUSY, _LOCKED, _READONLY, _CORRUPT, _FULL, _CANTOPEN, _NOTADB = 5, 6, 8, 11, 13, 14, 26

# Python 3.10 does not tell the code, only SQLite's English message.
_MESSAGES: Final = (
    ("is locked", _BUSY),
    ("readonly", _READONLY),
    ("malformed", _CORRUPT),
    ("is full", _FULL),
    ("unable to open", _CANTOPEN),
    ("not a database", _NOTADB),
)


class Database:
    """The file at `path`, made from the statements of `schema` and stamped with `version` if there is none.

    A damaged file is moved aside to `<name>.corrupt-<n>` and made anew, with a warning: it may hold only what
    can be found out again. A file of a newer version, or one that is not ours, is left alone: StorageError.
    Every other failure is a StorageError too, in one line that says what to do. The file is opened when it
    is first needed, and again after a fork. `patience_s` is how long one `read` or `write` waits, in all, for
    others who use the file.
    """

    def __init__(
        self,
        path: Path,
        schema: Sequence[str],
        version: int,
        *,
        added: Sequence[str] = (),
        upgrades: Mapping[int, Callable[[sqlite3.Connection], None]] = MappingProxyType({}),
        patience_s: float = 10.0,
    ) -> None:
        """``added``: what a file of this version may lack and gets when it is opened; each must be ready to find it.

        ``upgrades`` make of an older version the next one; they run before ``added``, in a transaction.
        """
        self.path = path
        self._schema = schema
        self._added = added
        self._upgrades = upgrades
        self._version = version
        self._patience_s = patience_s
        self._deadline_s = 0.0
        """Until when who holds the lock may wait for other processes."""
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._busy_ms: int | None = None
        """How long the connection waits for other processes; None: it has not been told."""
        self._identity: tuple[int, int] | None = None
        self._pid = os.getpid()
        self._closed = False
        self.replaced = 0
        """How often another file has taken the place of the one that was open: it was damaged, or removed."""
        _databases.add(self)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on the connection. It may run twice, if the file turns out to be damaged or replaced."""
        deadline_s = time.monotonic() + self._patience_s
        # Another thread may be waiting for another process.
        if not self._lock.acquire(timeout=self._patience_s):
            raise self._failure(BlockingIOError())
        try:
            self._deadline_s = deadline_s
            try:
                try:
                    return work(self._usable())
                except sqlite3.Error as error:
                    if _code(error) in {_CORRUPT, _NOTADB}:
                        self._replace(error)
                    elif self._connection is None or not self._moved():
                        raise
                return work(self._usable())
            except (sqlite3.Error, OSError, UnicodeError, OverflowError) as error:
                raise self._failure(error) from error
        finally:
            self._lock.release()

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction: all of it happens, or nothing."""

        def transaction(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            return result

        return self.read(transaction)

    def close(self) -> None:
        """Close the file; every later use is a StorageError. Idempotent."""
        with self._lock:
            self._closed = True
            self._drop()

    def _usable(self) -> sqlite3.Connection:
        if self._closed:
            raise StorageError(f"the index {self.path} is closed")
        if self._pid != os.getpid():
            # Forked behind Python's back: not even closing the parent's connection is safe here.
            _inherited.append(self._connection)
            self._connection, self._busy_ms, self._pid = None, None, os.getpid()
        if self._connection is not None and self._moved():
            self.replaced += 1
            self._drop()
        if self._connection is None:
            self._open()
        assert self._connection is not None
        # Each statement gives up the interpreter for a moment, and may wait for it afterwards: none for nothing.
        busy_ms = math.ceil(self._left_s() / BUSY_STEP_S) * int(BUSY_STEP_S * 1000)
        if busy_ms != self._busy_ms:
            self._connection.execute(f"PRAGMA busy_timeout = {busy_ms}").fetchone()
            self._busy_ms = busy_ms
        return self._connection

    def _left_s(self) -> float:
        return max(0.0, self._deadline_s - time.monotonic())

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._exclusively():
            try:
                connection = self._prepared()
            except sqlite3.Error as error:
                if _code(error) not in {_CORRUPT, _NOTADB}:
                    raise
                self._move_aside(error)
                connection = self._prepared()
            self._connection = connection
            self._identity = _identity(self.path)

    def _prepared(self) -> sqlite3.Connection:
        """A connection to a file with our schema."""
        connection = sqlite3.connect(
            self.path, timeout=self._left_s(), isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA cell_size_check = ON")
            if self._is_new(connection):
                mode = "DELETE" if on_network_filesystem(self.path) else "WAL"
                connection.execute(f"PRAGMA journal_mode = {mode}").fetchone()
                connection.execute("BEGIN IMMEDIATE")
                for statement in (*self._schema, *self._added):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {self._version}")
                connection.execute("COMMIT")
            else:
                self._upgrade(connection)
                # One by one: those that find what they would make need no lock.
                for statement in self._added:
                    connection.execute(statement)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 256")
            connection.execute(f"PRAGMA journal_size_limit = {MAX_WAL_BYTES}").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        if _pragma(connection, "user_version") == self._version:
            return
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have done it meanwhile.
        for version in range(_pragma(connection, "user_version"), self._version):
            self._upgrades[version](connection)
        connection.execute(f"PRAGMA user_version = {self._version}")
        connection.execute("COMMIT")

    def _is_new(self, connection: sqlite3.Connection) -> bool:
        version = _pragma(connection, "user_version")
        if version > self._version:
            raise StorageError(
                f"the index {self.path} has schema version {version}, this zest_hf knows {self._version}: "
                "upgrade zest_hf, or set ZEST_HOME to another directory"
            )
        empty = _pragma(connection, "schema_version") == 0
        if not empty and _pragma(connection, "application_id") != APPLICATION_ID:
            raise StorageError(f"{self.path} is not an index of zest_hf: move it away, or set ZEST_HOME")
        return empty

    def _replace(self, error: sqlite3.Error) -> None:
        """Move the file aside that just turned out to be damaged, unless another process has done so."""
        damaged = self._identity if self._connection is not None else _identity(self.path)
        self.replaced += 1
        self._drop()
        with self._exclusively():
            if _identity(self.path) == damaged:
                self._move_aside(error)

    def _move_aside(self, error: sqlite3.Error) -> None:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.corrupt-{number}")).exists():
            number += 1
        os.replace(self.path, aside)
        for suffix in ("-wal", "-shm", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}{suffix}", f"{aside}{suffix}")
        log.warning("zest_hf: the index %s is damaged (%s): moved to %s and made anew", self.path, error, aside.name)

    def _moved(self) -> bool:
        return _identity(self.path) != self._identity

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
            self._busy_ms = None

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Keep other processes from opening or replacing the file meanwhile."""
        if os.name != "posix":
            yield
            return
        handle = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not self._left_s():
                        raise
                    time.sleep(0.01)
                except OSError:
                    break  # a file system without such locks; SQLite's own have to do
            yield
        finally:
            os.close(handle)

    def _failure(self, error: Exception) -> StorageError:
        code = _code(error)
        if code == _FULL:
            what = "the disk is full; free some space, or set ZEST_HOME to a directory on another disk"
        elif code in {_BUSY, _LOCKED}:
            what = f"another process has kept it locked for {self._patience_s:g} s"
        elif code in {_READONLY, _CANTOPEN}:
            what = f"it cannot be written ({error}); set ZEST_HOME to a writable directory"
        else:
            what = str(error)
        return StorageError(f"the index {self.path}: {what}")


def on_network_filesystem(path: Path, mounts: str | None = None) -> bool:
    """Whether `path` lies on a file system that other hosts may use too; False where that cannot be told.

    `mounts` is the content of Linux's /proc/self/mounts (fstab format).
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mounts").read_text("utf-8", "surrogateescape")
        except OSError:
            return False
    best, kind = "", ""
    target = os.path.realpath(path)
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # a later mount on the same place hides the earlier
            best, kind = point, fields[2]
    return kind in NETWORK_FILESYSTEMS or kind.startswith("fuse.")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _code(error: Exception) -> int:
    """The primary result code of SQLite, or the one that fits an OSError best; 0 if none does."""
    if isinstance(error, sqlite3.Error):
        code: int | None = getattr(error, "sqlite_errorcode", None)
        if code is not None:
            return code & 0xFF
        return next((number for text, number in _MESSAGES if text in str(error)), 0)
    if isinstance(error, BlockingIOError):
        return _BUSY
    if isinstance(error, OSError):
        return _FULL if error.errno in {errno.ENOSPC, errno.EDQUOT} else _CANTOPEN
    return 0


# Around a fork nobody may be using a connection, and none may be open.
_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_inherited: list[object] = []
_held: dict[int, list[Database]] = {}

_FORK_WAIT_S: Final = 10.0


def _before_fork() -> None:
    held = _held[threading.get_ident()] = []
    for database in list(_databases):
        if database._lock.acquire(timeout=_FORK_WAIT_S):
            database._drop()
            held.append(database)


def _after_fork() -> None:
    for database in _held.pop(threading.get_ident(), []):
        database._lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
