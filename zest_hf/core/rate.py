"""A rate that follows what happens: exponentially weighted, from byte counts and the times they came at. Pure."""

from __future__ import annotations

import math

PATIENT_WINDOWS = 16
"""For so long nothing may come: on a slow line it is a long time from one piece to the next."""


class RateMeter:
    """Bytes per second over about the last ``window_s`` seconds."""

    def __init__(self, window_s: float = 1.0) -> None:
        self._window_s = window_s
        self._rate = 0.0
        self._at_s: float | None = None
        self._interval_s = 0.0
        self._pending = 0
        self._flows = True

    def start(self, now_s: float) -> None:
        """Something begins to flow: time before this does not count."""
        self._at_s = now_s
        self._flows = True

    def stop(self) -> None:
        """Nothing is expected: until `start` the rate stays what it was."""
        self._flows = False

    def add(self, size_bytes: int, now_s: float) -> None:
        """So many bytes came since the last call."""
        if self._at_s is None:
            self._at_s = now_s
        self._pending += size_bytes
        passed_s = now_s - self._at_s
        # Several arrivals at one instant are one arrival.
        if passed_s <= 1e-4:
            return
        weight = 1.0 - math.exp(-passed_s / self._window_s)
        # The first measure is all there is to know.
        self._rate = (
            self._pending / passed_s
            if self._rate == 0.0
            else (self._rate + weight * (self._pending / passed_s - self._rate))
        )
        self._pending = 0
        self._interval_s = passed_s
        self._at_s = now_s

    def bytes_s(self, now_s: float) -> float:
        """The rate now; it falls while nothing comes that should."""
        if self._at_s is None:
            return 0.0
        if not self._flows:
            return self._rate
        silent_s = now_s - self._at_s
        if silent_s <= self._window_s:
            return self._rate
        # What comes in large pieces comes seldom: that alone is no silence.
        patience_s = max(self._window_s, min(2 * self._interval_s, PATIENT_WINDOWS * self._window_s))
        return self._rate * math.exp(-max(0.0, silent_s - patience_s) / self._window_s)
