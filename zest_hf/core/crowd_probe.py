"""When to find out whether the CDN would be quicker than who fetches what is left. Pure.

Whether a member is slow shows beside others. Of a file of a few units one member may have all, and nothing says
whether the CDN itself is slow or that member's line. So somebody who waits for it asks the CDN for the same: one at a
time, for a moment, and only where much time is at stake. What that GET gives decides (`is_worth_going_on`).
"""

from __future__ import annotations

from collections.abc import Sequence

from zest_hf.core.crowd_claims import FULL, RATE_OVER_S, Claim, CrowdSettings, Unit
from zest_hf.core.crowd_members import Others

QUICKER = 1.5
"""Who would be done so many times as soon goes on, however far the other is."""
TOLD_S = 0.7
"""Progress is told every 0.5 s."""
_NEVER = float("-inf")


class Probe:
    """Of one crowd, as one node sees it."""

    def __init__(self, units: Sequence[Unit], others: Others, settings: CrowdSettings) -> None:
        self._units = units
        self._others = others
        self._settings = settings
        self._chosen: tuple[int, float] | None = None
        """The unit, and when it was decided: until its GET is made it is nobody else's."""
        self._gives = 1.0
        """Which part of what who fetches that gets it has given us,"""
        self._before_bytes_s = 0.0
        """... and what it got before we asked for the same."""
        self._glimpse: tuple[float, float] | None = None
        """When a GET that was made here ended, and how many bytes a second it has brought."""
        self._rest_until_s = _NEVER

    def is_for(self, number: int, given_bytes_s: float, now_s: float) -> bool:
        """Whether we are to ask the CDN for a unit that another fetches and has given us so much of, of a crowd that
        has claimed everything.
        """
        claims = self._claims_of(number, now_s)
        if any(len(self._claims_of(one, now_s)) > 1 for one in self._others.fetching):
            # Somebody is finding it out.
            self._rest_until_s = max(self._rest_until_s, now_s + self._settings.probe_s)
        if len(claims) != 1:
            return False
        if self._chosen is not None and now_s - self._chosen[1] < self._settings.probe_s:
            return self._chosen[0] == number
        self._chosen = None
        # Who gives nothing is given up soon anyway.
        if not given_bytes_s or not self._is_in_doubt(number, *claims[0], now_s):
            return False
        self._chosen = number, now_s
        self._before_bytes_s = self._bytes_s(number, claims[0][1], now_s)
        self._gives = min(1.0, given_bytes_s / self._before_bytes_s)
        return True

    def began(self, number: int) -> bool:
        """Its GET was made; whether it was decided here."""
        is_chosen = self._chosen is not None and self._chosen[0] == number
        if is_chosen:
            self._chosen = None
        return is_chosen

    def ended(self, passed_s: float, size_bytes: int, now_s: float) -> None:
        """A GET has ended here, and has brought so much in this time."""
        if passed_s >= RATE_OVER_S:
            self._glimpse = now_s, size_bytes / passed_s

    def is_worth_going_on(
        self, number: int, passed_s: float, size_bytes: int, rest_bytes: int, claim: Claim, now_s: float
    ) -> bool:
        """Whether a GET that was made here, and has brought so much in this time, goes on beside another's."""
        if passed_s < self._settings.probe_s:
            return True
        rate = size_bytes / passed_s
        given = self._gives * self._bytes_s(number, claim, now_s)
        # Else what is brought here is only taken from the other, on a line that is both's.
        if rate + given < (1 + QUICKER) * self._gives * self._before_bytes_s:
            return False
        theirs_s = max(claim.rest_s(now_s), rest_bytes / given if given > 0 else float("inf"))
        return QUICKER * rest_bytes < rate * theirs_s

    def _claims_of(self, number: int, now_s: float) -> list[tuple[bytes, Claim]]:
        return [
            (member, claim)
            for member, claim in self._others.fetching.get(number, {}).items()
            if claim.progress < FULL and self._others.is_valid(member, claim, now_s)
        ]

    def _bytes_s(self, number: int, claim: Claim, now_s: float) -> float:
        return claim.rate(now_s) / FULL * self._units[number].size_bytes

    def _is_known(self, now_s: float) -> bool:
        """Whether all have told of late how far they are: on a busy line what they tell comes late as well."""
        return all(
            claim.rate(now_s) > 0 and now_s - claim.moved_s <= TOLD_S
            for number in self._others.fetching
            for _, claim in self._claims_of(number, now_s)
        )

    def _is_in_doubt(self, number: int, member: bytes, claim: Claim, now_s: float) -> bool:
        settings = self._settings
        # One after the other, whichever unit it is with.
        others = self._others
        place = sum(one > others.me and one != member and others.is_trusted(one, now_s) for one in others.members)
        if now_s < max(self._rest_until_s, claim.began_s + settings.probe_after_s) + place * settings.answer_s:
            return False
        rest_s = claim.rest_s(now_s)
        if not settings.worth_probe_s <= rest_s < float("inf"):
            return False
        # When a GET ends it takes the others a moment to fill the line: what it brought counts as well.
        just_now = others.income.bytes_s(now_s, settings.probe_after_s)
        if not self._is_known(now_s) or just_now is None:
            return False
        if max(just_now, others.fetching_bytes_s(now_s)) >= settings.doubted_bytes_s:
            return False
        if self._glimpse is not None and now_s - self._glimpse[0] < settings.seen_s:
            return settings.slow_factor * self._bytes_s(number, claim, now_s) < self._glimpse[1]
        # Beside others it shows who is slow.
        return not self._others.has_seen(member, now_s)
