"""GETs whose connections give much less than others do: they are gone on with on new ones. Pure.

A CDN has many machines behind one name, and each connection its own way there: one of them may be bad. One that gives
nothing at all ends by itself, in a time that the source knows; one that gives a little would be waited for for hours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median_high

from zest_hf.core.policy import PolicySettings

REMEMBERED = 8
"""GETs that have ended."""


@dataclass(slots=True)
class _Get:
    size_bytes: int
    """Of the file."""
    brought: int = 0
    """... that are there."""
    received: int = 0
    """Bytes as the CDN sends them."""
    began_s: float | None = None
    """When it was answered: before, it may have waited for its turn."""
    look_s: float = 0.0
    look_bytes: int = 0
    """From when on, and what, its rate is counted,"""
    bytes_s: float | None = None
    """... and that of the time before."""
    replaced: int = 0


class SlowGets:
    """Of one transfer."""

    def __init__(self, settings: PolicySettings) -> None:
        self._settings = settings
        self._running: dict[int, _Get] = {}
        self._ended_bytes_s: deque[float] = deque(maxlen=REMEMBERED)

    def began(self, number: int, size_bytes: int) -> None:
        """``size_bytes``: what it is to bring of the file."""
        self._running[number] = _Get(size_bytes)

    def note(self, brought: Mapping[int, int], received: Mapping[int, int], now_s: float) -> None:
        """So much has come so far: of the file, and, for GETs that were answered, bytes as they are sent."""
        for number, one in self._running.items():
            one.brought = brought.get(number, one.brought)
            if number not in received:
                continue
            one.received = received[number]
            if one.began_s is None:
                one.began_s = one.look_s = now_s
                one.look_bytes = one.received

    def ended(self, number: int, now_s: float) -> None:
        """A GET is at its end."""
        one = self._running.pop(number, None)
        if one is None or one.began_s is None or one.received < self._settings.measured_get_bytes:
            return
        if now_s > one.began_s:
            self._ended_bytes_s.append(one.received / (now_s - one.began_s))

    def replaced(self, now_s: float) -> Iterator[int]:
        """Which to go on with on new connections, each said once."""
        looked = [
            (number, one)
            for number, one in self._running.items()
            if one.began_s is not None and now_s - one.look_s >= self._settings.slow_get_s
        ]
        for _, one in looked:
            one.bytes_s = (one.received - one.look_bytes) / (now_s - one.look_s)
            one.look_s, one.look_bytes = now_s, one.received
        for number, one in looked:
            if one.replaced < self._settings.most_replaced and self._is_slow(number, one):
                one.replaced += 1
                yield number

    def _is_slow(self, number: int, one: _Get) -> bool:
        settings, rate = self._settings, one.bytes_s or 0.0
        others = [get.bytes_s for at, get in self._running.items() if at != number and get.bytes_s is not None]
        known = [*others, *self._ended_bytes_s]
        if not known and len(self._running) > 1:
            return False
        usual = median_high(known) if known else settings.least_get_bytes_s
        # Where nothing at all comes by any, none is slower than others.
        if rate * settings.slow_get_factor >= usual:
            return False
        # It may have to begin anew: an url may be good for the whole of it only.
        rest_bytes = one.size_bytes - one.brought
        return rest_bytes > rate * (settings.slow_get_s + 2 * one.size_bytes / usual)
