"""One zest-seed per ZEST_HOME: a lock that its process holds, and a file that says which process that is.

The lock (flock on `seed.lock`) decides: the kernel lets go of it however the process ends, so that what a killed one
leaves in `seed.json` is known to be stale. On NFS the lock holds among hosts, and `seed.json` says on which it is held.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zest_hf.errors import StorageError

LOCK_NAME = "seed.lock"
STATE_NAME = "seed.json"
MAX_STATE_BYTES = 64 * 1024
TAKE_S = 0.2
LOOK_S = 0.02
"""How often it is looked whether a process has ended where the kernel does not tell."""


@dataclass(frozen=True)
class Running:
    """The zest-seed that holds the lock. ``born`` tells its process from a later one with the same number."""

    pid: int
    born: str
    host: str
    version: str
    listen: str
    status: str | None
    """`http://HOST:PORT`, None without a status page."""

    @property
    def is_here(self) -> bool:
        """Whether its process can be seen, and is no stranger's: not in another container, or on another host."""
        return self.host == socket.gethostname() and _born(self.pid) == self.born


class Instance:
    """The lock of a ZEST_HOME. Held from a successful `take` to `release`, or to the end of the process."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._fd: int | None = None

    @property
    def is_held(self) -> bool:
        """By this object."""
        return self._fd is not None

    def take(self) -> bool:
        """False when another process has it. Raises StorageError where nothing can be locked."""
        fd = self._open()
        # Those who only look have it for a moment too.
        deadline_s = time.monotonic() + TAKE_S
        while not (taken := self._flock(fd, fcntl.LOCK_EX)) and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)
        if not taken:
            os.close(fd)
            return False
        self._fd = fd
        with contextlib.suppress(OSError):  # what one that was killed has left
            (self.home / STATE_NAME).unlink()
        return True

    def publish(self, *, version: str, listen: str, status: str | None) -> None:
        """Says who holds the lock, to those who cannot take it. Raises StorageError."""
        state = Running(os.getpid(), _born(os.getpid()), socket.gethostname(), version, listen, status)
        path = self.home / STATE_NAME
        scratch = path.with_suffix(".new")
        try:
            scratch.write_text(json.dumps(asdict(state)) + "\n", encoding="utf-8")
            os.replace(scratch, path)
        except OSError as error:
            raise self._unusable(error) from error

    def release(self) -> None:
        if self._fd is None:
            return
        with contextlib.suppress(OSError):
            (self.home / STATE_NAME).unlink()
        os.close(self._fd)
        self._fd = None

    def is_taken(self) -> bool:
        """Whether a process has the lock. Creates nothing. Raises StorageError."""
        if not (self.home / LOCK_NAME).exists():
            return False
        fd = self._open()
        # Shared: two who look at the same time do not see each other.
        free = self._flock(fd, fcntl.LOCK_SH)
        os.close(fd)
        return not free

    def _flock(self, fd: int, kind: int) -> bool:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            os.close(fd)
            raise self._unusable(error) from error
        return True

    def running(self) -> Running | None:
        """Who has the lock; None when nobody has it, or its holder has not said yet who it is."""
        return self._read() if self.is_taken() else None

    def _open(self) -> int:
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            return os.open(self.home / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StorageError:
        return StorageError(f"{self.home}: {error.strerror}; set ZEST_HOME to a writable directory on a local disk")

    def _read(self) -> Running | None:
        try:
            with (self.home / STATE_NAME).open("rb") as stream:
                state: Any = json.loads(stream.read(MAX_STATE_BYTES))
            born, host, version, listen = (str(state[name]) for name in ("born", "host", "version", "listen"))
            status = state["status"]
            return Running(int(state["pid"]), born, host, version, listen, None if status is None else str(status))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None


def end_process(one: Running, patience_s: float) -> bool:
    """SIGTERM, and SIGKILL if it has not ended after ``patience_s``; False when it is gone or not ours to end.

    True once it has ended. Raises StorageError when it is another user's.
    """
    try:
        handle = os.pidfd_open(one.pid) if hasattr(os, "pidfd_open") else None
    except OSError:
        handle = None  # gone, or an old kernel
    try:
        # With the handle open its number cannot become another process's any more.
        if not one.is_here:
            return False
        _send(one, handle, signal.SIGTERM)
        if not _ended(one, handle, patience_s):
            # A seeder may be killed at any time: what it writes survives that.
            _send(one, handle, signal.SIGKILL)
            _ended(one, handle, patience_s)
        return True
    finally:
        if handle is not None:
            os.close(handle)


def _send(one: Running, handle: int | None, number: signal.Signals) -> None:
    try:
        if handle is not None:
            signal.pidfd_send_signal(handle, number)
        else:
            os.kill(one.pid, number)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise StorageError(f"zest-seed (process {one.pid}) is another user's") from error


def _ended(one: Running, handle: int | None, patience_s: float) -> bool:
    if handle is not None:
        return bool(select.select([handle], [], [], patience_s)[0])
    deadline_s = time.monotonic() + patience_s
    while one.is_here:
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(LOOK_S)
    return True


def _born(pid: int) -> str:
    """What only this process of all with its number has: boot and start time. Empty when there is none, or no /proc."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            # The name before it, in brackets, may have any bytes.
            fields = stream.read().rpartition(b")")[2].split()
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
            return f"{boot.read().strip()}/{int(fields[19])}"
    except (OSError, ValueError, IndexError):
        return "" if os.path.exists("/proc/self/stat") else _alive(pid)


def _alive(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "alive"
