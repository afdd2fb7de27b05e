"""The bar of a scan in the foreground: the Hub's own kind, so that what switches those off switches this off."""

from __future__ import annotations

import sys
from typing import Any

from zest_hf.hook.progress import byte_bar
from zest_hf.terminal import printable

_LONGEST_NAME = 40


class ScanBar:
    """The scan's `Progress`. Nothing is shown where stderr is no terminal, or when there is nothing to hash."""

    def __init__(self) -> None:
        self._bar: Any = None

    def begin(self, size_bytes: int) -> None:
        if size_bytes and sys.stderr is not None and sys.stderr.isatty():
            self._bar = byte_bar("hashing", size_bytes)

    def file(self, name: str) -> None:
        if self._bar is not None:
            text = name if len(name) <= _LONGEST_NAME else f"(…){name[-_LONGEST_NAME:]}"
            self._bar.set_description(printable(text))

    def came(self, size_bytes: int) -> None:
        if self._bar is not None:
            self._bar.update(size_bytes)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
