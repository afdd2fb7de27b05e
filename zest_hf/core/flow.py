"""What the GETs of one transfer bring, each and together. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from zest_hf.core.policy import PolicySettings
from zest_hf.core.rate import RateMeter

_METER_WINDOW_S = 0.3


class Flow:
    """What the CDN gives all GETs together."""

    def __init__(self, settings: PolicySettings) -> None:
        self._settings = settings
        self._meter = RateMeter(_METER_WINDOW_S)
        self._idle_since_s: float | None = None
        """When the first of the GETs began that have brought nothing yet."""
        self._began_s: float | None = None
        self._bytes = 0
        self.brought: dict[int, int] = {}
        """File bytes of each GET that runs."""
        self._moved_s: dict[int, float] = {}
        """When it has brought something last, or begun."""

    def began(self, number: int, now_s: float) -> None:
        if not self.brought:
            self._idle_since_s, self._began_s, self._bytes = now_s, None, 0
        self.brought[number] = 0
        self._moved_s[number] = now_s

    def note(self, brought: Mapping[int, int], now_s: float) -> None:
        """So much have GETs brought so far."""
        if not self.brought:
            return  # what they gave is remembered
        new = 0
        for number, before in self.brought.items():
            now = brought.get(number, before)
            if now > before:
                new += now - before
                self._moved_s[number] = now_s
            self.brought[number] = now
        self._add(new, now_s)

    def ended(self, number: int, size_bytes: int, now_s: float) -> None:
        """A GET is at its end with so much."""
        before = self.brought.pop(number)
        del self._moved_s[number]
        self._add(max(0, size_bytes - before), now_s)
        if not self.brought:
            self._meter.stop()

    def bytes_s(self, now_s: float) -> float | None:
        """None: it cannot be told yet."""
        if self._began_s is None:
            return None
        settings = self._settings
        if now_s - self._began_s < settings.measured_s and self._bytes < settings.measured_bytes:
            return None
        return self._meter.bytes_s(now_s)

    def flows_s(self, now_s: float) -> float:
        """How long ago the CDN began to give."""
        return 0.0 if self._began_s is None else now_s - self._began_s

    def silent_s(self, number: int, now_s: float) -> float:
        """For how long a GET has brought nothing."""
        return now_s - self._moved_s[number]

    def rest_s(self, number: int, size_bytes: float, now_s: float) -> float:
        """When a GET will have brought so much in all; infinite: nobody knows."""
        rate = self.bytes_s(now_s) or 0.0
        rest = max(0.0, size_bytes - self.brought[number])
        return rest * len(self.brought) / rate if rate > 0 else float("inf")

    def _add(self, size_bytes: int, now_s: float) -> None:
        if self._began_s is not None:
            self._bytes += size_bytes
            self._meter.add(size_bytes, now_s)
        elif size_bytes or (
            self._idle_since_s is not None and now_s - self._idle_since_s >= self._settings.cdn_latency_s
        ):
            # What has come by now came nobody knows when.
            self._began_s = now_s
            self._meter.start(now_s)
