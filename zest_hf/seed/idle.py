"""When a seeder that nobody has asked for has run long enough in vain."""

from __future__ import annotations

from collections.abc import Hashable


class Idle:
    """Times are monotonic, in seconds: a machine that sleeps does not count."""

    def __init__(self, limit_s: float | None, now_s: float) -> None:
        """``limit_s`` None: never."""
        self._limit_s = limit_s
        self._since_s = now_s
        self._seen: Hashable = None

    @property
    def limit_hours(self) -> float:
        return (self._limit_s or 0.0) / 3600

    def is_over(self, activity: Hashable, now_s: float) -> bool:
        """Whether ``activity``, anything that changes when something is done, has been the same for that long."""
        if activity != self._seen:
            self._seen, self._since_s = activity, now_s
        return self._limit_s is not None and now_s - self._since_s >= self._limit_s
