"""The process of a zest-seed without a terminal: where it writes what, and how it says that it serves."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import logging.handlers
import os
import signal
from typing import Any

from zest_hf.config import Settings, load_settings
from zest_hf.errors import ZestError
from zest_hf.seed.instance import Instance, end_process
from zest_hf.seed.log_format import FORMAT, without_prefix
from zest_hf.seed.order import LOG_NAME, MAX_LINE_BYTES, READY, STOP_S, Order, is_replaceable

LOG_BYTES = 4 << 20
LOGS_KEPT = 3
NICENESS = 10
"""Of one that nobody has asked for."""

log = logging.getLogger("zest_hf.seed")


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
