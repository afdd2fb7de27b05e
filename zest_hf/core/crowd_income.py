"""What one node gets, from the CDN and from peers, over a longer time. Pure."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import deque

from zest_hf.core.rate import RateMeter

LONGEST_WINDOW_S = 60.0
_STEP_S = 0.25


class CdnRate:
    """What the CDN gives while it is asked for something.

    What has waited in buffers comes all at once, so that the first moment says nothing, and little time not much.
    """

    SETTLE_S = 0.3
    LEAST_S = 1.0

    def __init__(self) -> None:
        self._meter = RateMeter(2.0)
        self._since_s: float | None = None
        self._before_s = 0.0
        """So long it was asked before that."""

    def began(self, now_s: float) -> None:
        """It is asked, if it was not."""
        if self._since_s is None:
            self._since_s = now_s
            self._meter.start(now_s)

    def came(self, size_bytes: int, now_s: float) -> None:
        if self._asked_s(now_s) < self.SETTLE_S:
            self._meter.start(now_s)
        else:
            self._meter.add(size_bytes, now_s)

    def stopped(self, now_s: float) -> None:
        """It is not asked any more."""
        self._before_s, self._since_s = self._asked_s(now_s), None
        self._meter.stop()

    def bytes_s(self, now_s: float) -> float:
        """0: nobody knows."""
        return self._meter.bytes_s(now_s) if self._asked_s(now_s) >= self.LEAST_S else 0.0

    def _asked_s(self, now_s: float) -> float:
        return self._before_s + (0.0 if self._since_s is None else now_s - self._since_s)


class Income:
    """``came``: bytes so far."""

    def __init__(self) -> None:
        self.came = 0.0
        self._seen: deque[tuple[float, float]] = deque()

    def note(self, now_s: float) -> None:
        """What has come by now is remembered for a while."""
        if not self._seen or now_s - self._seen[-1][0] >= _STEP_S:
            self._seen.append((now_s, self.came))
            while len(self._seen) > 2 and now_s - self._seen[1][0] > LONGEST_WINDOW_S:
                self._seen.popleft()

    def bytes_s(self, now_s: float, window_s: float) -> float | None:
        """Over so long a time; None: not so much of it has passed."""
        at = bisect_right(self._seen, (now_s - window_s, sys.maxsize)) - 1
        if at < 0:
            return None
        at_s, came = self._seen[at]
        return (self.came - came) / (now_s - at_s)
