"""The zest-seed that downloads leave behind (`ZEST_DAEMON=auto`), at no cost to those who download.

While a process lives it seeds what it has downloaded by itself. One is left when it ends, after its own part in the
swarm has, so that the port is free again; in a process that lives on, when no file has come for `QUIET_S`. To start it
is one fork: nobody waits until it serves, and what it has to tell is in its log. Until then a small process waits for
the end of this one, should it be killed: it learns of that by a pipe of which this one has the other end.

Nothing is handed over: what was downloaded is in the index, at which it looks once a second.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time

from zest_hf.config import Settings
from zest_hf.engine import Engine
from zest_hf.errors import ZestError
from zest_hf.hook.reasons import why_not_writable
from zest_hf.seed.instance import Instance, above_stdio
from zest_hf.seed.order import Order, is_replaceable, spawn, spawn_if_killed

log = logging.getLogger("zest_hf.seed")

QUIET_S = 10.0
"""Longer than the pause between two files of a repository."""


def after_download(engine: Engine) -> None:
    """A file has come: called for each. Returns at once, raises nothing."""
    global _leaver
    try:
        with _lock:
            if _leaver is None or _leaver.engine is not engine:
                _leaver = _Leaver(engine)
        _leaver.last_s = time.monotonic()
    except Exception as error:  # a download must not fail for this
        log.debug("no zest-seed is left running: %s", error)


class _Leaver:
    """Of one engine, and so of one process. Leaves one once, or never."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.last_s = time.monotonic()
        self._closed = threading.Event()
        self._once = threading.Lock()
        """Taken for good by whoever does it."""
        self._pipe_lock = threading.Lock()
        self._pipe: int | None = None
        """As long as it is open somebody waits for the end of this process."""
        if (reason := why_not(engine.settings)) is not None:
            log.debug("no zest-seed is left running: %s", reason)
            return
        engine.when_closed(self._at_end)
        threading.Thread(target=self._when_quiet, name="zest-leave", daemon=True).start()

    def _at_end(self) -> None:
        self._closed.set()
        self._leave(is_ending=True)

    @property
    def is_guarded(self) -> bool:
        """Whether one is left should this process be killed now."""
        return self._pipe is not None

    def _guard(self) -> None:
        read_fd, write_fd = map(above_stdio, os.pipe())
        try:
            # One of an older version may run by then.
            process = spawn_if_killed(Order(by="hook", replaces=True), read_fd)
        except BaseException:
            os.close(write_fd)
            raise
        finally:
            os.close(read_fd)
        with self._pipe_lock:
            self._pipe = write_fd
        if self._closed.is_set():
            self._unguard()
        process.wait()  # it has done its part with a fork

    def _unguard(self) -> None:
        """Who waits for the end of this process ends itself."""
        with self._pipe_lock:
            pipe, self._pipe = self._pipe, None
        if pipe is not None:
            with contextlib.suppress(OSError):  # it has been killed
                os.write(pipe, b"x")
            os.close(pipe)

    def forked(self) -> None:
        """In a child of this process, which may live longer."""
        if self._pipe is not None:
            os.close(self._pipe)

    def _when_quiet(self) -> None:
        # Nothing is imported here: should the program fork meanwhile, its child would wait for that for ever.
        try:
            self._guard()
        except (ZestError, OSError) as error:
            log.debug("should this process be killed no zest-seed is left running: %s", error)
        while (left_s := self.last_s + QUIET_S - time.monotonic()) > 0 or self.engine.is_downloading():
            if self._closed.wait(left_s if left_s > 0 else QUIET_S):
                return
        self._leave(is_ending=False)

    def _leave(self, *, is_ending: bool) -> None:
        if not self._once.acquire(blocking=False):
            return
        try:
            leave_running(self.engine.settings, is_ending=is_ending)
        except (ZestError, OSError, RuntimeError) as error:
            log.debug("no zest-seed is left running: %s", error)
        finally:
            self._unguard()


def leave_running(settings: Settings, *, is_ending: bool) -> None:
    """Starts one unless one runs, and replaces one of an older version; waits for neither. Raises ZestError."""
    instance = Instance(settings.home)
    # Without patience: whoever has the lock is about to start one, or has.
    if instance.take(patience_s=0):
        order = Order(by="hook", lock=instance.hand_down())
    else:
        running = instance.running()
        if running is None or not is_replaceable(running):
            return
        order = Order(by="hook", replaces=True)
    try:
        process = spawn(order)
    finally:
        instance.let_go()
    log.info("a zest-seed is left running for %s; zest stop ends it", settings.home)
    if is_ending:
        process.returncode = 0  # whoever inherits it waits for it
    else:
        process.wait()  # it has done its part with a fork


def why_not(settings: Settings) -> str | None:
    """Why nothing may be left running; None if it may."""
    if settings.daemon == "off":
        return f"ZEST_DAEMON is off ({settings.sources['daemon']})"
    if not settings.seed:
        return "ZEST_SEED is off"
    if settings.hub_offline:
        return "HF_HUB_OFFLINE"
    name = os.path.basename(sys.executable or "").lower()
    if getattr(sys, "frozen", False) or not name.startswith(("python", "pypy")):
        # It would be the user's program once more.
        return f"{sys.executable!r} is no Python interpreter"
    if not hasattr(os, "fork"):
        return "this system has no fork"
    return why_not_writable(settings.home)


_leaver: _Leaver | None = None
_lock = threading.Lock()


def _forget_after_fork() -> None:
    global _leaver, _lock
    if _leaver is not None:
        _leaver.forked()
    _leaver, _lock = None, threading.Lock()


with contextlib.suppress(AttributeError):
    os.register_at_fork(after_in_child=_forget_after_fork)
