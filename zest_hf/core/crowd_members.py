"""The others who download the same file, as one node sees them: their claims, and what those are worth. Pure."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence

from zest_hf.core.crowd_claims import (
    FETCHING,
    FULL,
    HELD,
    Claim,
    CrowdSettings,
    Member,
    Record,
    Told,
    Unit,
    member_weight,
)
from zest_hf.core.crowd_income import Income
from zest_hf.core.crowd_pace import Pace
from zest_hf.core.crowd_turns import Turns

MAX_FAULTS = 2
"""Who has done so often what is of no use to anybody is not counted on any more."""
MAX_RECORDS = 4096
SEEN_GETS = 8
ENDING_S = 0.2
"""A GET that is about to end makes room for the next one, so that the line is never idle."""
_NEVER = float("-inf")


class Others:
    """See the module. ``me`` names this node, ``pace`` is told what they get."""

    def __init__(self, me: bytes, units: Sequence[Unit], settings: CrowdSettings, pace: Pace) -> None:
        self.me = me
        self.units = units
        self.settings = settings
        self.pace = pace
        self.income = Income()
        """What they get from the CDN, all together, also by GETs that have ended."""
        self.news = 0
        """Grows with everything that they say."""
        self.members: dict[bytes, Member] = {}
        self.turns = Turns(me, units, self.members)
        self.claimed: dict[int, dict[bytes, Claim]] = {}
        """Unit -> who claims it."""
        self.fetching: dict[int, dict[bytes, Claim]] = {}
        """... and says to be fetching it, or to have fetched what it cannot prove."""
        self._slow_until_s: dict[int, float] = {}
        """Until when nobody else is taken for slow with a unit with which somebody was."""
        self.met_s: float | None = None
        """When the first of them was heard of."""
        self._seen: deque[tuple[float, bytes]] = deque(maxlen=SEEN_GETS)
        """When the last GETs ended that have brought something, and whose they were."""
        # No two begin with the same chunk.
        self._number = {unit.first: number for number, unit in enumerate(units)}
        self._records: dict[bytes, Record] = {}
        """Of those who have left."""
        self._passed_on: dict[int, float] = {}
        """Units of those who are done, and since when."""
        self._busy: tuple[float, set[bytes]] | None = None
        """When it was looked last who is, unless something has changed since."""

    def heard(self, member: bytes, downloading: bool, claims: Sequence[Told], now_s: float) -> list[int]:
        """All that a member claims now. The units that it holds and had not said so."""
        self.news += 1
        self._busy = None
        if not downloading:
            return self._finished(member, now_s)
        if member == self.me:
            return []
        known = self.members.get(member)
        if known is None:
            known = self.members[member] = Member(now_s, self._record_of(member), member_weight(member))
            if self.met_s is None:
                self.met_s = now_s
        new: dict[int, Claim] = {}
        held = []
        for first, end, state, progress in claims:
            number = self._number.get(first)
            if number is None or self.units[number].end != end or state not in (FETCHING, HELD):
                continue
            claim = known.claims.pop(number, None)
            if claim is None or state < claim.state or progress < claim.progress:
                before, claim = claim, Claim(state, progress, now_s, now_s, progress)
                self.claimed.setdefault(number, {})[member] = claim
                if before is not None:
                    # To begin again is not to have progressed.
                    claim.voided = True
                    self._blame(known, 1, now_s)
                if state == HELD:
                    held.append(number)
            elif state > claim.state or progress > claim.progress:
                if state > claim.state:
                    held.append(number)
                    progress = FULL
                gained = (progress - claim.progress) / FULL * self.units[number].size_bytes
                self.pace.moved(gained)
                self.income.came += gained
                was_fetching = claim.state == FETCHING and claim.progress < FULL
                claim.state = state
                claim.moved(progress, now_s)
                if was_fetching and progress == FULL:
                    self._note_end(member, claim, now_s)
            new[number] = claim
        for number, claim in known.claims.items():
            if claim.state == FETCHING and claim.progress < FULL:
                self._note_end(member, claim, now_s)
            self._drop(number, member)
        known.claims = new
        self._note_fetching(member, known)
        return held

    def _finished(self, member: bytes, now_s: float) -> list[int]:
        known = self.members.get(member)
        if known is None:
            return []
        # Most who leave have all of it, and give it.
        units = [number for number, claim in known.claims.items() if self.is_valid(member, claim, now_s)]
        for number in units:
            # Once: who comes and goes does not keep others waiting.
            self._passed_on.setdefault(number, now_s)
        self.left(member)
        return units

    def held_by(self, member: bytes) -> list[int]:
        """The units that a member says to hold."""
        known = self.members.get(member)
        return [] if known is None else [unit for unit, claim in known.claims.items() if claim.state == HELD]

    def left(self, member: bytes) -> None:
        """It is gone, or done."""
        self.news += 1
        self._busy = None
        known = self.members.pop(member, None)
        if known is not None:
            self._records[member] = known.record
            for number in known.claims:
                self._drop(number, member)
            known.claims = {}
            self._note_fetching(member, known)

    def _record_of(self, member: bytes) -> Record:
        if len(self._records) > MAX_RECORDS:
            self._records.clear()
        return self._records.pop(member, None) or Record()

    def _drop(self, number: int, member: bytes) -> None:
        of_unit = self.claimed[number]
        del of_unit[member]
        if not of_unit:
            del self.claimed[number]

    def _note_fetching(self, member: bytes, known: Member) -> None:
        if not known.claims and not known.fetching:
            return
        now = {number: claim for number, claim in known.claims.items() if claim.state == FETCHING}
        for number in known.fetching:
            if number in now:
                continue
            del self.fetching[number][member]
            if not self.fetching[number]:
                del self.fetching[number]
        for number, claim in now.items():
            self.fetching.setdefault(number, {})[member] = claim
        known.fetching = now

    def claim(self, member: bytes, number: int) -> Claim | None:
        return self.claimed.get(number, {}).get(member)

    def found_out(self, member: bytes, number: int, now_s: float) -> None:
        """It does not give what it says to be getting."""
        claim = self.claim(member, number)
        if claim is not None and not claim.voided:
            claim.voided = True
            self._blame(self.members[member], 1, now_s)

    def fetching_bytes_s(self, now_s: float) -> float:
        """What they say to be getting from the CDN, all together."""
        return sum(self.rates_bytes_s(now_s))

    def rates_bytes_s(self, now_s: float) -> list[float]:
        """... by each GET."""
        return [
            claim.rate(now_s) / FULL * self.units[number].size_bytes
            for number, claims in self.fetching.items()
            for member, claim in claims.items()
            if claim.progress < FULL and self.is_valid(member, claim, now_s)
        ]

    def _note_end(self, member: bytes, claim: Claim, now_s: float) -> None:
        if claim.rate(now_s) > 0 and not claim.voided:
            self._seen.append((now_s, member))

    def has_seen(self, member: bytes, now_s: float) -> bool:
        """Whether it shows, or has shown of late, what the CDN gives to others than this member."""
        return any(one != member and now_s - at_s < self.settings.seen_s for at_s, one in self._seen) or any(
            one != member and claim.progress < FULL and claim.rate(now_s) > 0 and self.is_valid(one, claim, now_s)
            for claims in self.fetching.values()
            for one, claim in claims.items()
        )

    def rank(self, number: int, now_s: float, is_busy: bool = False, most: int = sys.maxsize) -> int:
        """How many are to fetch it rather than we; more than ``most`` are not counted. ``is_busy``: we are."""
        return self.turns.rank(number, self.busy(now_s), is_busy, now_s, most)

    def busy(self, now_s: float) -> set[bytes]:
        """Who is fetching something."""
        if self._busy is None or self._busy[0] != now_s:
            self._busy = now_s, {
                member
                for claims in self.fetching.values()
                for member, claim in claims.items()
                if claim.progress < FULL and self.is_valid(member, claim, now_s)
            }
        return self._busy[1]

    def is_trusted(self, member: bytes, now_s: float) -> bool:
        return self.members[member].record.until_s <= now_s

    def is_valid(self, member: bytes, claim: Claim, now_s: float) -> bool:
        if claim.voided or not self.is_trusted(member, now_s):
            return False
        if claim.state == FETCHING and claim.progress == FULL:
            return True
        limit_s = self.settings.held_s if claim.state == HELD else self.settings.stall_s
        return now_s - claim.moved_s < limit_s

    def is_claimed(self, number: int, now_s: float) -> bool:
        if now_s - self._passed_on.get(number, _NEVER) < self.settings.stall_s:
            return True
        of_unit = self.claimed.get(number)
        if not of_unit:
            return False
        for member, claim in of_unit.items():
            # Who says to fetch what is another's turn has to show that it does.
            if self.is_valid(member, claim, now_s) and (
                claim.progress > 0 or claim.state == HELD or not self._has_precedence(number, member, now_s)
            ):
                return True
        return False

    def _has_precedence(self, number: int, member: bytes, now_s: float) -> bool:
        """Whether we come before a member."""
        return not self.turns.is_ahead(member, number) and self.rank(number, now_s, most=0) == 0

    def unproved_since(self, number: int) -> float | None:
        for claim in self.claimed.get(number, {}).values():
            if claim.state == FETCHING and claim.progress == FULL and not claim.voided:
                return claim.moved_s
        return None

    def active(self, now_s: float) -> tuple[int, int, float]:
        """GETs of others that run, those that are about to end, and what both will have brought since they told.

        Of one that shows no progress one counts.
        """
        moving = ending = 0
        idle: set[bytes] = set()
        ahead_bytes = 0.0
        for number, claims in self.fetching.items():
            for member, claim in claims.items():
                if claim.progress == FULL or not self.is_valid(member, claim, now_s):
                    continue
                if claim.progress > claim.began_at:
                    is_ending = claim.rest_s(now_s) <= ENDING_S
                    ending += is_ending
                    moving += not is_ending
                    ahead = claim.expected(now_s) - claim.progress
                    ahead_bytes += ahead / FULL * self.units[number].size_bytes
                else:
                    idle.add(member)
        return moving + len(idle), ending, ahead_bytes

    def judge(self, usual_bytes_s: float, is_line_full: bool, now_s: float) -> list[tuple[int, bool]]:
        """Finds out who claims what it does not do, or much later than others would (0: that is not known).

        ``is_line_full``: they may all share the CDN's line. For which units somebody did, and whether it stands still.
        """
        slow_s = self.settings.shared_slow_s if is_line_full else self.settings.slow_s
        faults: dict[bytes, int] = {}
        void = []
        for number, claims in self.fetching.items():
            for member, claim in claims.items():
                if self.is_trusted(member, now_s) and self._is_void(number, claim, usual_bytes_s, slow_s, now_s):
                    claim.voided = True
                    void.append((number, now_s - claim.moved_s >= self.settings.stall_s))
                    faults[member] = faults.get(member, 0) + 1
        for member, count in faults.items():
            self._blame(self.members[member], count, now_s)
        return void

    def _is_void(self, number: int, claim: Claim, usual_bytes_s: float, slow_s: float, now_s: float) -> bool:
        if claim.state != FETCHING or claim.progress == FULL or claim.voided:
            return False
        stall_s = self.settings.stall_s
        if now_s - claim.moved_s >= stall_s:
            return True
        if usual_bytes_s <= 0 or now_s - claim.began_s < slow_s:
            return False
        needs_s = self.units[number].size_bytes / usual_bytes_s
        if claim.rest_s(now_s) <= self.settings.slow_factor * needs_s + stall_s:
            return False
        # Who takes it over makes all others slower for a moment: that must not go on and on.
        is_first = now_s >= self._slow_until_s.get(number, now_s)
        if is_first:
            self._slow_until_s[number] = now_s + needs_s + 2 * stall_s
        return is_first

    def _blame(self, member: Member, faults: int, now_s: float) -> None:
        self._busy = None
        record = member.record
        record.faults += faults
        if faults and record.faults >= MAX_FAULTS:
            record.until_s = now_s + self.settings.distrust_s * 2.0 ** min(record.distrusted, 10)
            record.distrusted += 1

    def begun_s(self, now_s: float) -> float:
        """When the last of what is fetched was begun."""
        begun = [
            claim.began_s
            for claims in self.fetching.values()
            for member, claim in claims.items()
            if self.is_valid(member, claim, now_s)
        ]
        return max(begun, default=_NEVER)

    def next_rest_s(self, now_s: float) -> float:
        """When the first of what is fetched will be there."""
        rests = [
            claim.rest_s(now_s)
            for claims in self.fetching.values()
            for member, claim in claims.items()
            if self.is_valid(member, claim, now_s)
        ]
        return min(rests, default=float("inf"))

    def coming_bytes(self, number: int, now_s: float) -> float:
        """What others say to have got of a unit, and cannot have passed on yet."""
        told = [claim.progress for member, claim in self.claimed[number].items() if self.is_valid(member, claim, now_s)]
        return max(told, default=0) / FULL * self.units[number].size_bytes
