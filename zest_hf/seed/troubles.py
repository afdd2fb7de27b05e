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
        """Does it; what goes wrong is logged when it is something else than the last time."""
        try:
            work()
        except Exception as error:
            is_ours = not isinstance(error, StorageError)  # a mistake: the thread goes on all the same
            if str(error) != self._said:
                log.warning("%s, trying again: %s", self._what, error or repr(error), exc_info=is_ours)
            self._said = str(error)
        else:
            if self._said:
                log.info("%s: not any more", self._what)
            self._said = ""
