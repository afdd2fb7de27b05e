"""How a zest-seed without a terminal is begun, and when in place of another. Cheap to import: downloads do it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass

from zest_hf.errors import StorageError
from zest_hf.seed.instance import By, Running
from zest_hf.seed.places import lasting

LOG_NAME = "zest.log"
MAX_LINE_BYTES = 4096
STOP_S = 2.0
READY = "ready"

# Its directory is not searched for modules.
_BEGIN = (
    "import sys; sys.path[:] = [entry for entry in sys.path if entry]; "
    "from zest_hf.seed.child import main; sys.exit(main(sys.argv[1]))"
)
# A child of nobody: programs that wait for all of their children do not wait for it.
_BEGIN_APART = "import os; os.fork() and os._exit(0); " + _BEGIN

# Reads until a byte tells it to end, or nobody is there any more who could. Without the site's modules it is there
# in a hundredth of a second, and small. Paths in its environment are absolute.
_WAIT = """
import os, sys
os.fork() and os._exit(0)
os.chdir("/")
if not os.read(0, 1):
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execv(sys.argv[1], sys.argv[1:])
"""


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
    begin = _BEGIN_APART if order.by == "hook" else _BEGIN
    return _spawn(["-c", begin, json.dumps(asdict(order))], [fd for fd in (order.lock, order.pipe) if fd is not None])


def spawn_if_killed(order: Order, pipe: int) -> subprocess.Popen[bytes]:
    """As `spawn`, but nothing begins before all have closed the other end of ``pipe`` and nobody has written to it: as
    when this process is killed. Raises StorageError.
    """
    command = ["-I", "-S", "-c", _WAIT, sys.executable, "-c", _BEGIN, json.dumps(asdict(order))]
    return _spawn(command, [], stdin=pipe)


def _spawn(arguments: list[str], fds: list[int], stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, *arguments],
            pass_fds=fds,
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={name: lasting(name, value) for name, value in os.environ.items()},
        )
    except OSError as error:
        raise StorageError(f"zest-seed cannot be started: {error.strerror}") from error


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
