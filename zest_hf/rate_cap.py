"""The cap on what this process downloads: one budget for the CDN and for peers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BURST_S = 0.1
"""What may come at once after a pause, as time at the cap's rate."""
LOOK_S = 0.05
LEAST_WAIT_S = 1e-3
"""Less is made up for by the next one."""
MAX_WAIT_S = 0.25
"""A wait is cut into such pieces, so that who waits can be stopped."""


class RateCap:
    """A token bucket. Bytes of peers, which the swarm holds to the cap by itself, are taken out as they come; what they
    leave is the CDN's. Methods may be called from any thread.
    """

    def __init__(
        self,
        max_bytes_s: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = float(max_bytes_s)
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._tokens = 0.0
        self._at_s = clock()
        self._peer_bytes: Callable[[], int] = lambda: 0
        self._peer_bytes_seen = 0
        self._looked_s = self._at_s

    def watch(self, peer_bytes: Callable[[], int]) -> None:
        """``peer_bytes``: how many have come from peers so far."""
        with self._lock:
            self._peer_bytes = peer_bytes
            self._peer_bytes_seen = peer_bytes()

    def take(self, size_bytes: int, stopped: Callable[[], bool]) -> None:
        """Accounts for bytes that have come from the CDN, and waits until the budget is even again or ``stopped()``."""
        self._settle(size_bytes)
        while not stopped():
            wait_s = self._settle(0)
            if wait_s < LEAST_WAIT_S:
                return
            self._sleep(min(wait_s, MAX_WAIT_S))

    def _settle(self, size_bytes: int) -> float:
        """Seconds until the budget is even."""
        with self._lock:
            now_s = self._clock()
            self._tokens = min(self._tokens + (now_s - self._at_s) * self._rate, BURST_S * self._rate)
            self._at_s = now_s
            if now_s - self._looked_s >= LOOK_S:
                self._looked_s = now_s
                seen = self._peer_bytes()
                # Who takes more than the budget has is not made up for by the CDN for a long time.
                self._tokens -= max(0.0, min(seen - self._peer_bytes_seen, self._tokens + self._rate))
                self._peer_bytes_seen = seen
            self._tokens -= size_bytes
            return -self._tokens / self._rate
