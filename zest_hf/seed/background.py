"""zest-seed without a terminal: `start` leaves one running, `stop` ends it."""

from __future__ import annotations

import http.client
import os
import select
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

from zest_hf.config import Settings
from zest_hf.errors import ZestError
from zest_hf.seed.instance import LOOK_S, Instance, Running, above_stdio, end_process
from zest_hf.seed.order import LOG_NAME, MAX_LINE_BYTES, READY, STOP_S, Order, is_replaceable, spawn

START_S = 20.0
"""How long a start may take: imports on a slow disk, and everything in the index looked at once."""
SAY_S = 2.0
"""How long somebody may have the lock without having said who it is."""
ANSWER_S = 2.0


@dataclass(frozen=True)
class Started:
    """The zest-seed that runs now; ``already`` if it did before, ``instead_of`` an older version that was ended."""

    running: Running
    already: bool
    instead_of: str | None = None


@dataclass(frozen=True)
class Stopped:
    """The zest-seed that ran. ``killed``: it did not end when it was asked to."""

    running: Running
    killed: bool


def start(settings: Settings, *, scan: bool = True) -> Started:
    """Leaves a zest-seed running that has the environment of this process; returns when it serves.

    Raises ZestError, whose message says why it does not.
    """
    instance = Instance(settings.home)
    older: str | None = None
    while not instance.take():
        running = _who(instance)
        if running is None:
            continue  # it has ended meanwhile
        if not running.is_here:
            raise ZestError(_elsewhere(running))
        if (why := why_silent(running)) is not None:
            raise ZestError(f"{why}: zest stop ends it, then start it again")
        if older is not None or not is_replaceable(running):
            return Started(running, already=True)
        older = running.version
        end_process(running, STOP_S)
    read_fd, write_fd = map(above_stdio, os.pipe())
    try:
        process = spawn(Order(by="start", lock=instance.hand_down(), pipe=write_fd, scan=scan))
    except BaseException:
        os.close(read_fd)
        raise
    finally:
        os.close(write_fd)
        instance.let_go()
    try:
        _wait_until_ready(process, read_fd, settings)
    finally:
        os.close(read_fd)
    if (running := instance.running()) is None:
        raise ZestError(f"zest-seed ended as soon as it served: see {settings.home / LOG_NAME}")
    return Started(running, already=False, instead_of=older)


def _wait_until_ready(process: subprocess.Popen[bytes], pipe: int, settings: Settings) -> None:
    try:
        line = _line(pipe, START_S)
    except BaseException:
        process.kill()  # Ctrl-C, perhaps: nothing half-started stays
        process.wait()
        raise
    if line == READY:
        process.returncode = 0  # it outlives this process; whoever inherits it waits for it
        return
    if line is None:
        process.kill()
    process.wait()
    if line:
        raise ZestError(line)
    why = f"did not serve within {START_S:.0f} s" if line is None else "ended before it served"
    raise ZestError(f"zest-seed {why}: see {settings.home / LOG_NAME}")


def stop(settings: Settings) -> Stopped | None:
    """Ends the zest-seed of this ZEST_HOME, also one in the foreground; None when there is none. Raises ZestError."""
    instance = Instance(settings.home)
    running = _who(instance)
    if running is None:
        return None
    ended = end_process(running, STOP_S)
    if ended is None and instance.is_taken():
        raise ZestError(_elsewhere(running))
    return Stopped(running, killed=ended is False)


def why_silent(running: Running) -> str | None:
    """None when a zest-seed of this machine answers, within `ANSWER_S`; else one line without an end."""
    name = f"zest-seed (process {running.pid}) runs"
    if running.is_stopped:
        return f"{name}, but is stopped and does nothing (kill -CONT {running.pid} has it go on)"
    if running.status is None:
        return None  # nobody who could be asked
    # A proxy has no business between us and our own machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{running.status}/v1/health", timeout=ANSWER_S):
            return None
    except urllib.error.HTTPError as error:
        error.close()
        return None  # whatever it says
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        return f"{name}, but does not answer at {running.status} ({reason})"


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
        time.sleep(LOOK_S)  # that may be on another host, which no event of this kernel comes from
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
