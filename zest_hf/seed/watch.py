"""`zest status` in a terminal: the same lines, again and again in the same place."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from zest_hf.errors import ZestError
from zest_hf.seed import status_text
from zest_hf.terminal import RED, shortened, styled

if sys.platform != "win32":
    import termios
    import tty

LOOK_S: Final = 1.0
_ENDING: Final = frozenset(b"qQ\x03\x04")
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_HOME, _END_OF_LINE, _BELOW = "\x1b[2J\x1b[H", "\x1b[K", "\x1b[J"


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether somebody sits there who can end it: a terminal on both sides, and no job that looks like one."""
    streams = (sys.stdin, sys.stdout)
    if any(stream is None or not stream.isatty() for stream in streams):
        return False
    return not environ.get("CI") and environ.get("TERM", "dumb") != "dumb"


def watch(ask: Callable[[], dict[str, Any]], status: dict[str, Any]) -> None:
    """Until q or Ctrl-C; what was shown last stays. ``ask`` raises ZestError as long as nobody answers."""
    screen = _Screen()
    trouble = ""
    with _keys() as pressed, contextlib.suppress(KeyboardInterrupt):
        while True:
            screen.draw(status, trouble)
            if not _ENDING.isdisjoint(pressed(LOOK_S)):
                return
            try:
                status, trouble = ask(), ""
            except ZestError as error:
                trouble = str(error)


class _Screen:
    def __init__(self) -> None:
        self._drawn = 0
        """Lines that are there already."""
        self._size: tuple[int, int] | None = None

    def draw(self, status: dict[str, Any], trouble: str) -> None:
        """In the place of what was drawn before. No line wraps, and none scrolls away."""
        if not sys.stdout.isatty():
            print(trouble or "\n".join(status_text.lines(status, None)), end="\n\n", flush=True)
            return
        size = width, height = shutil.get_terminal_size()
        text = list(status_text.lines(status, width))
        if trouble:
            text = [styled(shortened(trouble, width), RED), *text]
        room = max(1, height - 1)
        if len(text) > room:
            hidden = len(text) - room + 1
            text = [*text[: room - 1], shortened(f"and {hidden} lines more: zest status --once", width)]
        back = f"\x1b[{self._drawn}A\r" if self._drawn else ""
        if self._size not in (None, size):
            back = _HOME  # what was there has been wrapped anew
        sys.stdout.write(back + "".join(f"{line}{_END_OF_LINE}\n" for line in text) + _BELOW)
        sys.stdout.flush()
        self._drawn, self._size = len(text), size


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bytes]]:
    """Gets a function that waits for keys so long; without a terminal it waits, and there are none."""

    def keys(timeout_s: float) -> bytes:
        if not (is_terminal and sys.platform != "win32"):
            time.sleep(timeout_s)
            return b""
        ready, _, _ = select.select([sys.stdin], [], [], timeout_s)
        # Not by way of Python's buffer, in which nobody would see the rest of an arrow key, and what is pressed next.
        return (os.read(sys.stdin.fileno(), 256) or b"\x04") if ready else b""

    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    if is_terminal and sys.platform != "win32":
        before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
    shows_cursor = sys.stdout is not None and sys.stdout.isatty()
    try:
        if shows_cursor:
            sys.stdout.write(_HIDE_CURSOR)
        yield keys
    finally:
        if shows_cursor:
            sys.stdout.write(_SHOW_CURSOR)
            sys.stdout.flush()
        if is_terminal and sys.platform != "win32":
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
