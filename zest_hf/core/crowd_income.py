"""What one node gets, from the CDN and from peers, over a longer time. Pure."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import deque

LONGEST_WINDOW_S = 60.0
_STEP_S = 0.25


class Income:
    """``came``: bytes so far."""

    def __init__(self) -> None:
        self.came = 0
        self._seen: deque[tuple[float, int]] = deque()

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
