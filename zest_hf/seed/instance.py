"""One zest-seed per ZEST_HOME: a lock that its process holds, and a file that says which process that is.

The lock (flock on `seed.lock`) decides: the kernel lets go of it however the process ends, so that what a killed one
leaves in `seed.json` is known to be stale. On NFS the lock holds among hosts, and `seed.json` says on which it is held.

Whoever starts one in the background takes the lock first and hands it down: of many who want to at the same moment,
one does.
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
from typing import Any, Literal

from zest_hf.errors import StorageError

LOCK_NAME = "seed.lock"
STATE_NAME = "seed.json"
MAX_STATE_BYTES = 64 * 1024
TAKE_S = 0.2
LOOK_S = 0.02
"""How often it is looked where nobody tells: whether a lock is free (the kernel only lets a thread wait for it, without
an end), or a process has ended (without pidfds: macOS, Linux before 5.3)."""

By = Literal["user", "start", "hook"]
"""Who has one running: the user, in a terminal or by systemd; `zest start`; a download that has left it behind."""


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
    by: str = "user"
    """A `By`, or what a version to come writes."""

    @property
    def is_stopped(self) -> bool:
        """Whether its process does nothing until it is told to go on (SIGSTOP, a debugger)."""
        return _process_state(self.pid) in ("T", "t")

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

    def take(self, patience_s: float = TAKE_S) -> bool:
        """False when another process has it. Raises StorageError where nothing can be locked.

        ``patience_s``: those who only look have it for a moment too.
        """
        fd = self._open()
        deadline_s = time.monotonic() + patience_s
        while not (taken := self._flock(fd, fcntl.LOCK_EX)) and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)
        if not taken:
            os.close(fd)
            return False
        self._fd = fd
        _held.add(fd)
        with contextlib.suppress(OSError):  # what one that was killed has left
            (self.home / STATE_NAME).unlink()
        return True

    def adopt(self, fd: int) -> bool:
        """Takes over the lock that the process which started this one has handed down."""
        try:
            os.set_inheritable(fd, False)
        except OSError:
            return False
        if not self._flock(fd, fcntl.LOCK_EX):  # ours already, unless something went wrong
            os.close(fd)
            return False
        self._fd = fd
        _held.add(fd)
        return True

    def hand_down(self) -> int:
        """The descriptor of the lock, for `adopt` in a process that inherits it; `let_go` when that has begun."""
        assert self._fd is not None
        return self._fd

    def let_go(self) -> None:
        """Closes our part of the lock: whoever inherited it holds it on, and nobody if there is none."""
        if self._fd is not None:
            _held.discard(self._fd)
            os.close(self._fd)
            self._fd = None

    @property
    def is_lost(self) -> bool:
        """Whether the lock that is held is not the one of the directory any more: it was removed, or replaced."""
        if self._fd is None:
            return False
        try:
            return not os.path.samestat(os.fstat(self._fd), os.stat(self.home / LOCK_NAME))
        except FileNotFoundError:
            return True
        except OSError:
            return False  # a file system that does not answer is no reason to give up

    def publish(self, *, version: str, listen: str, status: str | None, by: By = "user") -> None:
        """Says who holds the lock, to those who cannot take it. Raises StorageError."""
        state = Running(os.getpid(), _born(os.getpid()), socket.gethostname(), version, listen, status, by)
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
        if not self.is_lost:  # else it is another's
            with contextlib.suppress(OSError):
                (self.home / STATE_NAME).unlink()
        self.let_go()

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
            return above_stdio(os.open(self.home / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
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
            page = None if status is None else str(status)
            return Running(int(state["pid"]), born, host, version, listen, page, str(state.get("by", "user")))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None


# A child of this process that is no seeder must not keep the lock when the seeder has ended.
_held: set[int] = set()


def _close_in_child() -> None:
    for fd in _held:
        with contextlib.suppress(OSError):
            os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


def above_stdio(fd: int) -> int:
    """The same, but not 0, 1 or 2: those are free when a program is started without them, and others in its child."""
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def end_process(one: Running, patience_s: float) -> bool | None:
    """SIGTERM, and SIGKILL if it has not ended after ``patience_s``: True once it has ended, False if it had to be
    killed. None when it is gone, or not ours to end.

    Raises StorageError when it is another user's.
    """
    try:
        handle = os.pidfd_open(one.pid) if hasattr(os, "pidfd_open") else None
    except OSError:
        handle = None  # gone, or an old kernel
    try:
        # With the handle open its number cannot become another process's any more.
        if not one.is_here:
            return None
        _send(one, handle, signal.SIGTERM)
        if _ended(one, handle, patience_s):
            return True
        # A seeder may be killed at any time: what it writes survives that.
        _send(one, handle, signal.SIGKILL)
        _ended(one, handle, patience_s)
        return False
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


def _process_state(pid: int) -> str:
    """The letter of proc(5): R, S, D, T, Z...; empty where that is not to be had."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            return stream.read().rpartition(b")")[2].split()[0].decode()
    except (OSError, IndexError):
        return ""


def _alive(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "alive"
