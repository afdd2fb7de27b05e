"""How many to run at once where nobody knows what is best: more, as long as that brings more. Pure."""

from __future__ import annotations

from collections.abc import Callable

NextCount = Callable[[int, bool], int]
"""How many to try after so many, and whether the last trial brought more."""


class Climb:
    """``allowed`` at once now; the caller measures what they bring together, and says so when as many have run."""

    def __init__(self, first: int, next_count: NextCount, growth: float, hold_s: float) -> None:
        """``growth``: so many times as much is worth a trial. Else it is back, and not tried again for ``hold_s``;
        twice as long each time.
        """
        self.allowed = first
        self._next_count = next_count
        self._growth = growth
        self._hold_s = hold_s
        self._hold_until_s = float("-inf")
        self._before: tuple[int, float] | None = None
        """What was allowed before more was tried, and what that gave."""
        self._grown = False

    def start(self, allowed: int) -> None:
        """As many are allowed from now on, whatever was found out."""
        self.allowed = allowed
        self._before = None

    def judge(self, bytes_s: float, now_s: float) -> bool:
        """With what as many as are allowed have brought: whether another number is from now on."""
        allowed = self.allowed
        if self._before is not None:
            before, gave = self._before
            self._before = None
            self._grown = bytes_s >= self._growth * gave
            if not self._grown:
                self.allowed = before
                self._hold_until_s = now_s + self._hold_s
                self._hold_s *= 2
        if now_s >= self._hold_until_s and bytes_s > 0:
            more = self._next_count(self.allowed, self._grown)
            if more > self.allowed:
                self._before = self.allowed, bytes_s
                self.allowed = more
        return self.allowed != allowed
