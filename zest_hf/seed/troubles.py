"""What goes wrong again and again is said once."""

from __future__ import annotations

import logging
from collections.abc import Callable

from zest_hf.errors import StorageError

log = logging.getLogger("zest_hf.seed")


class Troubles:
    """Of one piece of work that is tried every second or so, on a disk that is full, say."""

    def __init__(self, what: str) -> None:
        """``what`` happens, as a part of the line."""
        self._what = what
        self._said = ""

    def during(self, work: Callable[[], object]) -> None:
        """Does it; a StorageError is logged when it is another one than the last time."""
        try:
            work()
        except StorageError as error:
            if str(error) != self._said:
                log.warning("%s, trying again: %s", self._what, error)
            self._said = str(error)
        else:
            if self._said:
                log.info("%s: not any more", self._what)
            self._said = ""
