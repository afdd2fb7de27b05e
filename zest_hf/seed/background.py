"""zest-seed without a terminal: `start` leaves one running, `stop` ends it."""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import logging
import logging.handlers
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zest_hf.config import Settings, load_settings
from zest_hf.errors import StorageError, ZestError
from zest_hf.seed.instance import LOOK_S, Instance, Running, end_process
from zest_hf.seed.log_format import FORMAT, without_prefix

START_S = 20.0
"""How long a start may take: imports on a slow disk, and everything in the index looked at once."""
STOP_S = 2.0
SAY_S = 2.0
"""How long somebody may have the lock without having said who it is."""
LOG_NAME = "zest.log"
LOG_BYTES = 4 << 20
LOGS_KEPT = 3
MAX_LINE_BYTES = 4096

# Relative paths in the environment stay valid as the directory stays the same; modules come from elsewhere.
_CHILD = (
    "import sys; sys.path[:] = [entry for entry in sys.path if entry]; "
    "from zest_hf.seed.background import child; sys.exit(child(sys.argv[1:]))"
)
_READY = "ready"


@dataclass(frozen=True)
class Started:
    """The zest-seed that runs now; ``already`` if it did before."""

    running: Running
    already: bool


def start(settings: Settings, *, scan: bool = True) -> Started:
    """Leaves a zest-seed running that has the environment of this process; returns when it serves.

    Raises ZestError, whose message says why it does not.
    """
    instance = Instance(settings.home)
    if instance.is_taken():
        return _already(instance)
    read_fd, write_fd = _pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(write_fd), *(() if scan else ("--no-scan",))],
            pass_fds=[write_fd],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        os.close(read_fd)
        raise StorageError(f"zest-seed cannot be started: {error.strerror}") from error
    finally:
        os.close(write_fd)
    try:
        line = _line(read_fd, START_S)
    except BaseException:
        process.kill()  # Ctrl-C, perhaps: nothing half-started stays
        process.wait()
        raise
    finally:
        os.close(read_fd)
    if line == _READY:
        # It outlives this process; whoever inherits it waits for it.
        process.returncode = 0
        if (running := instance.running()) is not None:
            return Started(running, already=False)
        line = None
    if line is None:
        process.kill()
        why = f"did not serve within {START_S:.0f} s"
    elif line:
        why = line
    else:
        why = "ended before it served"
    process.wait()
    if line and instance.is_taken():
        return _already(instance)  # another one was quicker
    if not line:
        why += f": see {settings.home / LOG_NAME}"
    raise ZestError(why if line else f"zest-seed {why}")


def _pipe() -> tuple[int, int]:
    """Never 0, 1 or 2, which are free when a program is started without them, and are others in the child."""
    ends = os.pipe()
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in ends]
    for fd in ends:
        os.close(fd)
    return high[0], high[1]


def stop(settings: Settings) -> Running | None:
    """Ends the zest-seed of this ZEST_HOME, also one in the foreground; None when there is none. Raises ZestError."""
    instance = Instance(settings.home)
    if not instance.is_taken():
        return None
    running = _who(instance)
    if running is None:
        return None
    if not end_process(running, STOP_S) and instance.is_taken():
        raise ZestError(_elsewhere(running))
    return running


def _already(instance: Instance) -> Started:
    running = _who(instance)
    if running is None:
        raise ZestError("another zest-seed was ending meanwhile: start it again")
    if not running.is_here:
        raise ZestError(_elsewhere(running))
    return Started(running, already=True)


def _elsewhere(running: Running) -> str:
    return (
        f"a zest-seed for the same ZEST_HOME runs on {running.host} (process {running.pid}), where it cannot be "
        "reached from here: stop it there, or set ZEST_HOME to a directory of this machine alone"
    )


def _who(instance: Instance) -> Running | None:
    """Who has the lock; waits for one that is just starting, or ending."""
    deadline_s = time.monotonic() + SAY_S
    while instance.is_taken():
        if (running := instance.running()) is not None:
            return running
        if time.monotonic() >= deadline_s:
            raise ZestError(f"a process has {instance.home} locked and does not serve yet: try again in a moment")
        time.sleep(LOOK_S)
    return None


def _line(fd: int, patience_s: float) -> str | None:
    """One line from a pipe; empty when its other end is closed before, None when it takes too long."""
    deadline_s = time.monotonic() + patience_s
    text = b""
    while not text.endswith(b"\n") and len(text) < MAX_LINE_BYTES:
        if not select.select([fd], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
            return None
        if not (part := os.read(fd, MAX_LINE_BYTES)):
            break
        text += part
    return text.decode("utf-8", "replace").strip()


# --- in the process that stays ---------------------------------------------------------------------------------------


def child(arguments: Sequence[str]) -> int:
    """The process that `start` makes. Writes one line to the pipe: that it serves, or why not."""
    from zest_hf.seed.daemon import serve_until_told

    pipe = int(arguments[0])
    os.set_inheritable(pipe, False)
    try:
        settings = load_settings()
        instance = Instance(settings.home)
        if not instance.take():
            raise ZestError("it runs already")
        _log_to_file(settings)
        serve_until_told(
            settings,
            scan="--no-scan" not in arguments,
            instance=instance,
            say=logging.getLogger("zest_hf.seed").info,
            serves=lambda: _tell(pipe, _READY),
        )
    except (ZestError, OSError) as error:
        logging.getLogger("zest_hf.seed").error("%s", error)
        _tell(pipe, " ".join(str(error).split()))
        return 1
    logging.getLogger("zest_hf.seed").info("has ended")
    return 0


def _tell(pipe: int, line: str) -> None:
    with contextlib.suppress(OSError):  # nobody waits any more
        os.write(pipe, f"{line}\n".encode()[:MAX_LINE_BYTES])
        os.close(pipe)


class _LogFile(logging.handlers.RotatingFileHandler):
    """What is written to stdout and stderr, by native code say, goes to the same file, also after a rotation."""

    def _open(self) -> Any:
        stream = super()._open()
        for fd in (1, 2):
            os.dup2(stream.fileno(), fd)
        return stream


def _log_to_file(settings: Settings) -> None:
    handler = _LogFile(settings.home / LOG_NAME, maxBytes=LOG_BYTES, backupCount=LOGS_KEPT, encoding="utf-8")
    handler.addFilter(without_prefix)
    logging.basicConfig(format=FORMAT, handlers=[handler])
    # Nobody looks at it until something is wrong; then it should say more than that.
    by_default = settings.sources["log_level"] == "default"
    logging.getLogger("zest_hf").setLevel(logging.INFO if by_default else settings.log_level)
    faulthandler.enable()
    # Nobody reads what we would write there.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
