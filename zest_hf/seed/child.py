"""The process of a zest-seed without a terminal: how it begins, where it writes what, how it says that it serves."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import logging.handlers
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from zest_hf.config import Settings, load_settings
from zest_hf.errors import StorageError, ZestError
from zest_hf.seed.instance import By, Instance, Running, end_process
from zest_hf.seed.log_format import FORMAT, without_prefix
from zest_hf.seed.places import lasting

LOG_NAME = "zest.log"
LOG_BYTES = 4 << 20
LOGS_KEPT = 3
MAX_LINE_BYTES = 4096
STOP_S = 2.0
READY = "ready"
NICENESS = 10
"""Of one that nobody has asked for."""

# Its directory is not searched for modules.
_BEGIN = (
    "import sys; sys.path[:] = [entry for entry in sys.path if entry]; "
    "from zest_hf.seed.child import main; sys.exit(main(sys.argv[1]))"
)
# A child of nobody: programs that wait for all of their children do not wait for it.
_BEGIN_APART = "import os; os.fork() and os._exit(0); " + _BEGIN

log = logging.getLogger("zest_hf.seed")


@dataclass(frozen=True)
class Order:
    """What the process is told by the one that starts it. ``lock``, ``pipe``: descriptors that it inherits."""

    by: By
    lock: int | None = None
    """Of `Instance.hand_down`; None: it has to take the lock itself, ..."""
    replaces: bool = False
    """... after it has ended an older one."""
    pipe: int | None = None
    """Gets one line: `READY` once it serves, or why it does not."""
    scan: bool = True


def spawn(order: Order) -> subprocess.Popen[bytes]:
    """Begins it, with this process's environment. One that downloads leave behind is nobody's child: what is returned
    ends at once. Raises StorageError.
    """
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _BEGIN_APART if order.by == "hook" else _BEGIN, json.dumps(asdict(order))],
            pass_fds=[fd for fd in (order.lock, order.pipe) if fd is not None],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={name: lasting(name, value) for name, value in os.environ.items()},
        )
    except OSError as error:
        raise StorageError(f"zest-seed cannot be started: {error.strerror}") from error


def main(order_text: str) -> int:
    """The process. Returns its exit code."""
    order = Order(**json.loads(order_text))
    try:
        settings = load_settings()
        if order.by == "hook":
            os.nice(NICENESS)
        instance = Instance(settings.home)
        # First, as all else takes long: others see at once that there is one.
        if not _take(instance, order):
            raise ZestError("it runs already")
        os.chdir(settings.home)  # not where the program worked, which may be on a disk that is to be unmounted
        _log_to_file(settings)
        from zest_hf.seed.daemon import serve_until_told

        serve_until_told(
            settings, scan=order.scan, instance=instance, say=log.info, serves=lambda: _tell(order, READY), by=order.by
        )
    except (ZestError, OSError) as error:
        log.error("%s", error)
        _tell(order, " ".join(str(error).split()))
        return 1
    log.info("has ended")
    return 0


def _take(instance: Instance, order: Order) -> bool:
    if order.pipe is not None:
        os.set_inheritable(order.pipe, False)
    if order.lock is not None:
        return instance.adopt(order.lock)
    running = instance.running()
    if order.replaces and running is not None and is_replaceable(running):
        end_process(running, STOP_S)
    return instance.take()


def is_replaceable(running: Running) -> bool:
    """Whether it is of an older version, here, and no user's own: those who run one in a terminal or by systemd know
    when to end it. A newer one stays: programs of an old environment must not end what others have updated.
    """
    return running.by in ("start", "hook") and running.is_here and is_older(running.version)


def is_older(version: str) -> bool:
    """Than this one; False for what is no version."""
    from packaging.version import InvalidVersion, Version

    from zest_hf import __version__

    try:
        return Version(version) < Version(__version__)
    except InvalidVersion:
        return False


def _tell(order: Order, line: str) -> None:
    if order.pipe is not None:
        with contextlib.suppress(OSError):  # nobody waits any more
            os.write(order.pipe, f"{line}\n".encode()[:MAX_LINE_BYTES])
            os.close(order.pipe)


class _LogFile(logging.handlers.RotatingFileHandler):
    """What is written to stdout and stderr, by native code say, goes to the same file, also after a rotation."""

    def _open(self) -> Any:
        stream = super()._open()
        for fd in (1, 2):
            os.dup2(stream.fileno(), fd)
        return stream

    def handleError(self, record: logging.LogRecord) -> None:
        """The disk is full: what cannot be written is not told there either."""


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
