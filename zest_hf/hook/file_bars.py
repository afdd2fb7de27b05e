"""A bar for each file, which says where its bytes come from, where the Hub's client has one for all of them.

Bars of the Hub's own class: what switches its bars off switches these off, and in a notebook they are widgets.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zest_hf.traffic import Traffic

MIN_BYTES = 1_000_000
"""A smaller file is here before anybody has read its name."""

_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}B{postfix}"
_REST_COLUMNS = 45
"""What a bar needs besides the name."""
_ALL_OF_THEM = "huggingface_hub.snapshot_download.transfer"
"""The Hub's bar of what all files have got, which these are instead of."""
_each = False


@contextlib.contextmanager
def each_file() -> Iterator[None]:
    """Within, every file of the process has a bar of its own; where there is no terminal, nothing has any."""
    global _each
    utils: Any = importlib.import_module("huggingface_hub.utils")
    before, _each = _each, True
    hidden = _ALL_OF_THEM if _is_terminal() else None
    is_ours = False
    with contextlib.suppress(Exception):
        if not utils.are_progress_bars_disabled():
            utils.disable_progress_bars(hidden)
            is_ours = True
    try:
        yield
    finally:
        _each = before
        # The Hub's client leaves its own open, and what is printed next would stand among them.
        with contextlib.suppress(Exception):
            bars = sorted(utils.tqdm._instances, key=lambda bar: bar.pos)
            # Each is printed where the first one is, and all that is below moves up: nothing of it may be left there.
            for bar in bars:
                bar.clear()
            for bar in bars:
                bar.close()
        if is_ours:
            with contextlib.suppress(Exception):
                utils.enable_progress_bars(hidden)


def _is_terminal() -> bool:
    """By -1 the Hub's client is told that there is one all the same."""
    return os.environ.get("TQDM_POSITION") == "-1" or (sys.stderr is not None and sys.stderr.isatty())


def sources_text(came: Traffic | None) -> str:
    """Such as "peers 1.20GB, CDN 300MB"; what there is nothing from is left out."""
    if came is None:
        return ""
    size: Any = importlib.import_module("tqdm").tqdm.format_sizeof
    parts = (("peers", came.peer), ("CDN", came.cdn), ("here", came.local))
    return ", ".join(f"{name} {size(count)}B" for name, count in parts if count)


class FileBar:
    """Of one file, if such bars are wanted; what goes wrong with it is the caller's."""

    def __init__(self, name: str, size_bytes: int | None) -> None:
        self._bar: Any = None
        self._stays = True
        if not _each or size_bytes is None or size_bytes < MIN_BYTES:
            return
        tqdm: Any = importlib.import_module("huggingface_hub.utils").tqdm
        self._bar = tqdm(
            total=size_bytes,
            desc=_short(name, shutil.get_terminal_size().columns),
            unit="B",
            unit_scale=True,
            dynamic_ncols=True,
            bar_format=_FORMAT,
            leave=False,
            disable=not _is_terminal(),
            name="huggingface_hub.xet_get",
        )

    def show(self, done_bytes: int, came: Traffic | None) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(sources_text(came), refresh=False)
            self._bar.update(done_bytes - self._bar.n)

    def hide(self) -> None:
        """It was not brought by us."""
        self._stays = False

    def close(self) -> None:
        bar, self._bar = self._bar, None
        if bar is None:
            return
        line = str(bar) if self._stays and not bar.disable else ""
        bar.close()
        if line:
            # Above the other bars, which are taken away and drawn anew. One that tqdm itself leaves moves them down by
            # a line each time, and where there is none to be drawn over a line of another stays.
            type(bar).write(line, file=sys.stderr)


def _short(name: str, columns: int) -> str:
    most = max(12, min(40, columns - _REST_COLUMNS))
    return name if len(name) <= most else f"(…){name[3 - most :]}"
