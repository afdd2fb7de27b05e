"""How many GETs a crowd makes at once: few, so that units come one after the other and spread while the next come,
and more as long as that makes the CDN give more. Pure.

Every node finds it out for itself, from what all members say to have got. More are tried when as many run as may: one
more first, twice as many after that, and back, for a while, when the sum has not grown.
"""

from __future__ import annotations

FIRST = 2
"""GETs at first."""
WINDOW_S = 1.5
"""The sum is measured over this time: members tell their progress every 0.5 s."""
GROWTH = 1.2
"""More GETs have to give so many times as much to be worth it."""
HOLD_S = 15.0
"""... and are not tried again for this long; twice as long each time."""
MOST = 4096


class Pace:
    """Of one crowd, as one node sees it."""

    def __init__(self) -> None:
        self.allowed = FIRST
        self.bytes_s = 0.0
        """What all members together got, in the last window."""
        self._moved = 0.0
        self._window_began_s: float | None = None
        self._window_full = True
        self._before: tuple[int, float] | None = None
        """What was allowed before more was tried, and what that gave."""
        self._hold_until_s = float("-inf")
        self._hold_s = HOLD_S
        self._grown = False

    def moved(self, size_bytes: float) -> None:
        """So many bytes more have come from the CDN, to any member."""
        self._moved += size_bytes

    def limit(self, now_s: float, active: int) -> int:
        """How many may run, with so many running."""
        if self._window_began_s is None:
            if active:
                self._window_began_s, self._moved = now_s, 0.0
            return self.allowed
        self._window_full = self._window_full and active >= self.allowed
        passed_s = now_s - self._window_began_s
        if passed_s >= WINDOW_S:
            self.bytes_s = self._moved / passed_s
            self._decide(now_s)
            self._window_began_s, self._moved, self._window_full = now_s, 0.0, True
        return self.allowed

    def _decide(self, now_s: float) -> None:
        if self._before is not None:
            if not self._window_full:
                return
            allowed, gave = self._before
            self._before = None
            if self.bytes_s < GROWTH * gave:
                self.allowed = allowed
                self._hold_until_s = now_s + self._hold_s
                self._hold_s *= 2
                self._grown = False
                return
            self._grown = True
        if self._window_full and now_s >= self._hold_until_s and self.bytes_s > 0:
            self._before = self.allowed, self.bytes_s
            self.allowed = min(MOST, 2 * self.allowed if self._grown else self.allowed + 1)
