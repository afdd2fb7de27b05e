"""GETs that are made beside peers, which give already: what that shows of the line and of the CDN. Pure.

Peers give alone first. Where the CDN might be quicker, or add something to what they give, GETs are made as well until
that can be told (`core.policy` says when, and what follows). Who gave how much before is remembered, as on a full line
one gets what the other loses.
"""

from __future__ import annotations

from zest_hf.core.flow import Flow
from zest_hf.core.policy import Elsewhere, PolicySettings, Rates, peers_suffice_beside

_NEVER = float("-inf")


class Beside:
    """Of one transfer."""

    def __init__(self, flow: Flow, settings: PolicySettings) -> None:
        self._flow = flow
        self._settings = settings
        self._peers_bytes_s = 0.0
        self._is_only_file = True
        self._alone_bytes_s = 0.0
        self._sufficed_s = _NEVER
        self._rest_s = settings.adds_nothing_s
        self._adds_nothing_until_s = _NEVER
        self.runs = False
        """Such GETs do."""
        self.cdn_bytes_s: float | None = None
        """What the CDN gave them at most; None: it cannot be told, or not yet."""

    def began(self, alone_bytes_s: float) -> None:
        """GETs were made, the first beside peers that gave so much, to all files, until now."""
        self.runs = True
        self._alone_bytes_s, self.cdn_bytes_s = alone_bytes_s, None

    def forget(self) -> None:
        """No peer is of use, or others share the work out: what was found out says nothing of what comes."""
        self.runs = False
        self.cdn_bytes_s = None
        self._sufficed_s = self._adds_nothing_until_s = _NEVER

    def look(self, peers_bytes_s: float, elsewhere: Elsewhere, now_s: float) -> None:
        """What peers give to this file and to others now."""
        self._peers_bytes_s = peers_bytes_s + elsewhere.bytes_s
        self._is_only_file = elsewhere.files == 0
        self.runs = self.runs and bool(self._flow.brought)
        if self.runs and self._flow.flows_s(now_s) >= self._settings.cdn_measured_s:
            self.cdn_bytes_s = max(self.cdn_bytes_s or 0.0, self._flow.bytes_s(now_s) or 0.0)
        has_less = self._peers_bytes_s < self._alone_bytes_s / self._settings.adds_factor**2
        if has_less and now_s - self._sufficed_s >= self._settings.recovers_s:
            # What the line was full of has become less.
            self._adds_nothing_until_s = _NEVER

    def alone_bytes_s(self, now_s: float) -> float:
        """What peers gave before, as long as they have not got all of the line back; 0 if that is over."""
        is_of_now = self.runs or now_s - self._sufficed_s < self._settings.recovers_s
        return self._alone_bytes_s if is_of_now else 0.0

    def adds_nothing(self, now_s: float) -> bool:
        """Whether it was found out of late that peers fill the line."""
        return now_s < self._adds_nothing_until_s

    def peers_suffice(self, now_s: float) -> bool:
        """Whether such GETs are to stop."""
        rates = Rates(self._peers_bytes_s, self.cdn_bytes_s)
        if not peers_suffice_beside(self._alone_bytes_s, rates, self._is_only_file, self._settings):
            return False
        self._sufficed_s = now_s
        if self._alone_bytes_s < self._settings.fair_rate_bytes_s and not self.adds_nothing(now_s):
            self._adds_nothing_until_s = now_s + self._rest_s
            self._rest_s *= 2
        return True
