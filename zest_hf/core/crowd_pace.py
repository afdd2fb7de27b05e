"""How many GETs a crowd makes at once: few, so that units come one after the other and spread while the next come,
and more as long as that makes the CDN give more. Pure.

Every node finds it out for itself, from what all members say to have got. More are tried when as many run as may: one
more first, twice as many after that, and back, for a while, when the sum has not grown.
"""

from __future__ import annotations

from zest_hf.core.climb import Climb

FIRST = 2
"""GETs at first."""
AT_ONCE = 8
"""So many that began when nobody was known yet go on: as all are followed, none keeps others waiting."""
WINDOW_S = 1.5
"""The sum is measured over this time,"""
SETTLE_S = 0.6
"""... with as many GETs as may run, for so long before: members tell their progress every 0.5 s."""
GAP_S = 0.5
"""One may end so long before the next begins."""
GROWTH = 1.2
"""More GETs have to give so many times as much to be worth it."""
HOLD_S = 15.0
"""... and are not tried again for this long; twice as long each time."""
MOST = 4096


def _more(count: int, grown: bool) -> int:
    return min(MOST, 2 * count if grown else count + 1)


class Pace:
    """Of one crowd, as one node sees it."""

    def __init__(self) -> None:
        self._climb = Climb(FIRST, _more, GROWTH, HOLD_S)
        self.bytes_s = 0.0
        """What all members together got, in the last window."""
        self._moved = 0.0
        self._full_s = float("-inf")
        """When as many ran as may, last and since when."""
        self._full_since_s: float | None = None
        self._window: tuple[float, float] | None = None
        """When it began, and what had come then."""
        self._most = 0
        """So many ran at once since then."""

    @property
    def allowed(self) -> int:
        """How many may run."""
        return self._climb.allowed

    def moved(self, size_bytes: float) -> None:
        """So many bytes more have come from the CDN, to any member."""
        self._moved += size_bytes

    def limit(self, now_s: float, active: int, ahead_bytes: float, ending: int = 0) -> int:
        """How many may run, with so many running, and others about to end.

        ``ahead_bytes``: that will have come by now and were not told.
        """
        if active + ending >= self.allowed:
            self._full_s = now_s
            if self._full_since_s is None:
                self._full_since_s = now_s
        elif now_s - self._full_s > GAP_S:
            self._full_since_s = None
        self._most = max(self._most, active)
        came = self._moved + ahead_bytes
        if self._window is None:
            if self._full_since_s is not None and now_s - self._full_since_s >= SETTLE_S:
                self._window = now_s, came
                self._most = 0
            return self.allowed
        began_s, before = self._window
        if now_s - began_s >= WINDOW_S:
            self.bytes_s = max(0.0, came - before) / (now_s - began_s)
            self._window = now_s, came
            if self._full_since_s is not None and self._full_since_s <= began_s:
                if self._most > self.allowed:
                    # Those that began before anybody was known: what they give says nothing of so many.
                    self._climb.start(max(self.allowed, min(active, AT_ONCE)))
                if self._most <= self.allowed and self._climb.judge(self.bytes_s, now_s):
                    self._full_since_s = self._window = None
            self._most = 0
        return self.allowed
