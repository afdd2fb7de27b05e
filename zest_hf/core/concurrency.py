"""How many GETs a process makes at once: more than at first where each connection gets little. Pure.

A CDN may limit each connection, and on a long line that loses packets TCP itself does. As many GETs as are allowed have
to run for a moment before what they bring is compared; then twice as many are tried, and it is back, for a while, when
the sum has not grown.
"""

from __future__ import annotations

from dataclasses import dataclass

from zest_hf.core.climb import Climb


@dataclass(frozen=True, slots=True)
class ConcurrencySettings:
    """Times in seconds."""

    first: int = 8
    most: int = 32
    high_first: int = 32
    high_most: int = 64
    """Where the user wants as much as line and machine give, whatever it costs the others."""
    settle_s: float = 0.4
    """So long after new ones are made they have found out what they get,"""
    window_s: float = 0.6
    """... and what all bring is measured over this time."""
    least_bytes: int = 192 * 1024
    """... and that, until each has brought so much: on slow connections it comes in lumps."""
    gap_s: float = 0.5
    """One may end so long before the next begins."""
    growth: float = 1.15
    """More have to bring so many times as much to be worth it."""
    hold_s: float = 15.0
    """... and are not tried again for this long; twice as long each time."""


class Concurrency:
    """Of one process."""

    def __init__(self, settings: ConcurrencySettings) -> None:
        self._settings = settings
        self._most = settings.most
        self._climb = Climb(settings.first, self._more, settings.growth, settings.hold_s)
        self._full_since: tuple[float, int] | None = None
        """Since when as many ran as may, and how many bytes had come then."""
        self._full_s = float("-inf")
        """... and when last."""
        self._window: tuple[float, int] | None = None
        """The same of what is measured."""

    @property
    def allowed(self) -> int:
        return self._climb.allowed

    def go_high(self) -> None:
        """From now on many are allowed at once."""
        self._most = self._settings.high_most
        if self.allowed < self._settings.high_first:
            self._climb.start(self._settings.high_first)
            self._full_since = self._window = None

    def note(self, running: int, came_bytes: int, now_s: float) -> int:
        """So many run, and have brought so much in all. How many may run from now on."""
        settings = self._settings
        if running >= self.allowed:
            self._full_s = now_s
            self._full_since = self._full_since or (now_s, came_bytes)
        elif now_s - self._full_s > settings.gap_s:
            # There is not so much to ask for: what more would bring is not seen.
            self._full_since = self._window = None
        if self._full_since is None or not self._has_passed(self._full_since, settings.settle_s, came_bytes, now_s):
            return self.allowed
        self._window = self._window or (now_s, came_bytes)
        if self._has_passed(self._window, settings.window_s, came_bytes, now_s):
            began_s, before = self._window
            self._window = now_s, came_bytes
            if self._climb.judge((came_bytes - before) / (now_s - began_s), now_s):
                self._full_since = self._window = None
        return self.allowed

    def _has_passed(self, since: tuple[float, int], time_s: float, came_bytes: int, now_s: float) -> bool:
        since_s, before = since
        return now_s - since_s >= time_s and came_bytes - before >= self.allowed * self._settings.least_bytes

    def _more(self, count: int, grown: bool) -> int:
        return min(self._most, 2 * count)
