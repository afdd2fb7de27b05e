"""Who of those that download the same file at the same time asks the CDN for which part of it. Pure.

A unit is one GET of the plan. Every member says which units it is fetching, how far it is, and which it has proved
(its claims); nobody leads. The rules, in the words in which `Decision` gives its reasons:

- Units come in the order of the file, few at a time (`core.crowd_pace`): those that are due. Each has an owner, the
  member with the highest score of the hash of both (rendezvous hashing). Who has the same view has the same owners.
- An owner that does not claim what is due within `answer_s` is followed by the next after it, and so on.
- A claim is worth its progress: without any for `stall_s`, the unit is due again. Who was found out twice comes last,
  and its claims count nothing, for `distrust_s`.
- Two who fetch the same find out and all but one stop.
- What does not prove itself when it is there (a part of a xorb) is fetched by one member only: who proves the whole
  file with it, and then others can take it from there.
- Nobody waits longer for others than the CDN would need: who gets less from the crowd than the CDN has given it before
  takes more; who has got nothing at all finds out what the CDN gives.

What time it is elsewhere plays no role: a claim is as old as the time since it was heard.
"""

from __future__ import annotations

import enum
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from zest_hf.core.crowd_pace import Pace
from zest_hf.core.plan import Fetch, FilePlan
from zest_hf.core.rate import RateMeter

FETCHING = 1
HELD = 2
"""States of a claim."""
FULL = 65535
"""Progress of a claim: all of its bytes."""

LEAD = FULL // 32
"""Who is so much further than another goes on with what both fetch; else it is the one whose turn it is."""
STEP = FULL // 8
"""Progress is compared in such steps by those who are to agree."""
KEPT = FULL // 4
"""What has come so far is fetched to its end, whoever else turns up."""

WHOLE_XORB_BYTES = 60 * 1024 * 1024
"""Xorbs are closed when the next chunk would make them larger than 64 MiB: of this size one is whole."""

Told = tuple[int, int, int, int]
"""A claim as it is told: first chunk of the file, end, state, progress."""

LONGEST_WINDOW_S = 60.0
LOOSE = b"loose"

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class CrowdSettings:
    """Times in seconds."""

    answer_s: float = 0.5
    """An owner claims what is due within this time, or the next one does."""
    stall_s: float = 3.0
    """A claim without progress for so long is void; so is the claim to hold what nobody can get."""
    unproved_s: float = 1.0
    """How long what has come completely may remain without proof."""
    distrust_s: float = 30.0
    """How long a member that was found out twice is not counted on; twice as long each time."""
    patience_s: float = 3.0
    """How long a node that has got nothing waits at least before it asks the CDN out of turn,"""
    longest_patience_s: float = 15.0
    """... and at most."""
    slow_factor: float = 3.0
    """A claim that will take so many times as long as we would is void."""
    fair_share: float = 0.6
    """Who gets less from the crowd than this part of what the CDN alone has given it takes more."""
    help_s: float = 2.0
    """... one GET in this time."""


class Reason(enum.Enum):
    """Why a unit is fetched, or not any more."""

    OWNED = "it is due, and ours"
    OVERDUE = "it is due, and who comes before us has not begun"
    UNPROVED = "who fetched it cannot prove it, and we are to prove the file"
    LAST = "nothing else is left, and who has it cannot prove it"
    MEASURE = "nothing has come from the crowd yet"
    ALONE = "the crowd gives less than the CDN did"
    COLLISION = "another member fetches it as well, and goes on"
    CROWDED = "others have come, to whom we leave it"


@dataclass(frozen=True, slots=True)
class Decision:
    """About the unit that is one of the plan's GETs, by its number."""

    fetch: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Unit:
    """One GET: ``first``..``end`` are chunks of the file at its first place. ``loose``: it may not prove itself."""

    first: int
    end: int
    size_bytes: int
    loose: bool


@dataclass(slots=True)
class Claim:
    """What one member says of one unit, and when that was heard."""

    state: int
    progress: int
    began_s: float
    moved_s: float
    began_at: int
    """Progress when it was heard of first."""
    voided: bool = False
    """It was found out."""

    def rate(self, now_s: float) -> float:
        """Progress per second."""
        moved = self.progress - self.began_at
        return moved / max(self.moved_s - self.began_s, 1e-3) if moved > 0 else 0.0

    def expected(self, now_s: float) -> float:
        """The progress that it should have made by now."""
        return min(float(FULL), self.progress + self.rate(now_s) * (now_s - self.moved_s))

    def rest_s(self, now_s: float) -> float:
        """When it will be done."""
        rate = self.rate(now_s)
        return (FULL - self.progress) / rate - (now_s - self.moved_s) if rate > 0 else float("inf")


@dataclass(slots=True)
class Member:
    """Another node that downloads the file."""

    joined_s: float
    claims: dict[int, Claim] = field(default_factory=dict)
    found_out: int = 0
    distrusted_until_s: float = _NEVER


@dataclass(slots=True)
class _Own:
    began_s: float
    alone: bool
    """It was begun when nobody else was there."""
    size_bytes: int = 0
    """That have come."""
    told: int = 0
    """Progress that the others know of."""
    ended: bool = False
    proved: bool = False
    stopped: bool = False


def units_of(plan: FilePlan) -> list[Unit]:
    """One for each of the plan's GETs."""
    last = max(range(len(plan.fetches)), key=lambda number: plan.fetches[number].placements[0].file_chunk, default=-1)
    return [_unit(fetch, is_last=number == last) for number, fetch in enumerate(plan.fetches)]


def _unit(fetch: Fetch, *, is_last: bool) -> Unit:
    place, source = fetch.placements[0], fetch.source
    # The last xorb of a file often goes on with another's content.
    loose = source.start > 0 or (is_last and source.byte_end - source.byte_start < WHOLE_XORB_BYTES)
    return Unit(place.file_chunk, place.file_chunk + place.end - place.start, fetch.size_bytes, loose)


class Crowd:
    """Of one file, as one node sees it. ``me`` names this node: what the others call it, 20 bytes."""

    def __init__(self, me: bytes, units: Sequence[Unit], settings: CrowdSettings | None = None) -> None:
        self.me = me
        self.units = units
        self.settings = settings or CrowdSettings()
        self.pace = Pace()
        self.generation = 0
        """Grows with everything that others might want to hear of our claims."""
        self.news = 0
        """Grows with everything that others have said."""
        self._size_bytes = sum(unit.size_bytes for unit in units)
        self._number = {(unit.first, unit.end): number for number, unit in enumerate(units)}
        self._members: dict[bytes, Member] = {}
        self._claimed: dict[int, dict[bytes, Claim]] = {}
        """Unit -> who claims it."""
        self._passed_on: dict[int, float] = {}
        """Units of those who are done, and since when."""
        self._better: dict[int, set[bytes]] = {}
        """Units of which it was asked -> who has a higher score than we."""
        self._due_s: dict[int, float] = {}
        self._own: dict[int, _Own] = {}
        self._fetched: deque[int] = deque(maxlen=64)
        """What we have fetched and proved, the last of it."""
        self._met_s: float | None = None
        self._cdn = RateMeter(2.0)
        self._income: deque[tuple[float, int]] = deque()
        self._came = 0
        self._helped_s = _NEVER
        self._only_unproved_s: float | None = None
        self._first_rest_s: float | None = None

    # --- what others say --------------------------------------------------------------------------------------

    @property
    def members(self) -> dict[bytes, Member]:
        """The others."""
        return self._members

    def __bool__(self) -> bool:
        """Whether there is anybody else."""
        return bool(self._members)

    def heard(self, member: bytes, downloading: bool, claims: Sequence[Told], now_s: float) -> list[int]:
        """All that a member claims now. The units that it holds and had not said so."""
        self.news += 1
        if not downloading:
            return self._finished(member, now_s)
        if member == self.me:
            return []
        known = self._members.get(member)
        if known is None:
            known = self._members[member] = Member(now_s)
            if self._met_s is None:
                self._met_s = now_s
            for unit, better in self._better.items():
                if self._score(member, unit) > self._score(self.me, unit):
                    better.add(member)
        new: dict[int, Claim] = {}
        held = []
        for first, end, state, progress in claims:
            number = self._number.get((first, end))
            if number is None or state not in (FETCHING, HELD):
                continue
            claim = known.claims.pop(number, None)
            if claim is None or state < claim.state or progress < claim.progress:
                before, claim = claim, Claim(state, progress, now_s, now_s, progress)
                if before is not None:
                    # To begin again is not to have progressed.
                    claim.voided = True
                    self._found_out(known, now_s)
                if state == HELD:
                    held.append(number)
            elif state > claim.state or progress > claim.progress:
                if state > claim.state:
                    held.append(number)
                    progress = FULL
                self.pace.moved((progress - claim.progress) / FULL * self.units[number].size_bytes)
                claim.state, claim.progress, claim.moved_s = state, progress, now_s
            new[number] = claim
            self._claimed.setdefault(number, {})[member] = claim
        for number in known.claims:
            self._drop(number, member)
        known.claims = new
        return held

    def _finished(self, member: bytes, now_s: float) -> list[int]:
        known = self._members.get(member)
        if known is None:
            return []
        # Most who leave have all of it, and give it.
        units = [number for number, claim in known.claims.items() if self._is_valid(member, claim, now_s)]
        self._passed_on.update(dict.fromkeys(units, now_s))
        self.left(member)
        return units

    def held_by(self, member: bytes) -> list[int]:
        """The units that a member says to hold."""
        known = self._members.get(member)
        return [] if known is None else [unit for unit, claim in known.claims.items() if claim.state == HELD]

    def left(self, member: bytes) -> None:
        """It is gone, or done."""
        self.news += 1
        known = self._members.pop(member, None)
        if known is not None:
            for number in known.claims:
                self._drop(number, member)
            for better in self._better.values():
                better.discard(member)

    def _drop(self, number: int, member: bytes) -> None:
        of_unit = self._claimed[number]
        del of_unit[member]
        if not of_unit:
            del self._claimed[number]

    # --- what we do ---------------------------------------------------------------------------------------------

    def claims(self) -> list[Told]:
        """What to tell the others."""
        out = []
        for number, own in self._own.items():
            if own.stopped:
                continue
            unit = self.units[number]
            done = FULL if own.ended else min(FULL - 1, own.size_bytes * FULL // max(unit.size_bytes, 1))
            own.told = done
            out.append((unit.first, unit.end, FETCHING, done))
        out += [(self.units[number].first, self.units[number].end, HELD, FULL) for number in self._fetched]
        return out

    def began(self, fetch: int, now_s: float) -> None:
        """A GET for a unit was made."""
        if not any(not own.ended for own in self._own.values()):
            self._cdn.start(now_s)
        self._own[fetch] = _Own(now_s, not self._members)
        self._due_s.pop(fetch, None)
        self.generation += 1

    def progress(self, fetch: int, size_bytes: int, now_s: float) -> None:
        """How many bytes it has brought."""
        own = self._own.get(fetch)
        if own is None or own.ended:
            return
        more = min(size_bytes, self.units[fetch].size_bytes) - own.size_bytes
        if more > 0:
            own.size_bytes += more
            self._cdn.add(more, now_s)
            self._came += more
            self.pace.moved(more)

    def ended(self, fetch: int, complete: bool, proved: bool, now_s: float) -> None:
        """It has ended; ``complete``: with all of the unit."""
        own = self._own.get(fetch)
        if own is None:
            return
        if complete:
            self.progress(fetch, self.units[fetch].size_bytes, now_s)
            own.ended = True
            if proved:
                self.proved(fetch)
        else:
            del self._own[fetch]
        if not any(not one.ended for one in self._own.values()):
            self._cdn.stop()
        self.generation += 1

    def dropped(self, fetch: int) -> None:
        """What a GET has brought was wrong."""
        if self._own.pop(fetch, None) is not None:
            self.generation += 1

    def proved(self, fetch: int) -> None:
        """What a GET has brought is proved."""
        own = self._own.get(fetch)
        if own is not None and own.ended:
            del self._own[fetch]
            self._fetched.append(fetch)
            self.generation += 1

    def unproved(self) -> list[int]:
        """What has come completely and is not proved."""
        return [number for number, own in self._own.items() if own.ended]

    def came(self, size_bytes: int) -> None:
        """So much came from peers."""
        self._came += size_bytes

    # --- who fetches what -----------------------------------------------------------------------------------------

    def owner(self, fetch: int, now_s: float = 0.0) -> bytes:
        """The member, perhaps this one, that is to fetch a unit."""
        trusted = [one for one in self._members if self._is_trusted(one, now_s)]
        return max([self.me, *trusted], key=lambda one: self._score(one, fetch))

    def choose(
        self, now_s: float, missing: Callable[[], Iterator[int]], wanted: Callable[[], Iterator[int]]
    ) -> list[Decision]:
        """Which GETs to make now. ``missing``: units of which something is wanted that no peer gives, in order;
        ``wanted``: also those that peers give.
        """
        self._judge(now_s)
        running = [own for own in self._own.values() if not own.ended]
        others, ahead_bytes = self._active(now_s)
        active = len(running) + others
        limit = self.pace.limit(now_s, active, ahead_bytes)
        free = limit - active
        out: list[Decision] = []
        unproved: list[int] = []
        claimed: list[int] = []
        more = False
        before, self._due_s = self._due_s, {}
        for number in missing():
            if self._is_claimed(number, now_s):
                if self._unproved_since(number) is not None:
                    unproved.append(number)
                else:
                    claimed.append(number)
                    more = True
                continue
            more = True
            if free <= 0:
                # Whoever is behind in the order has its time counted from when it is its turn.
                break
            due_s = self._due_s[number] = before.get(number, now_s)
            rank = self._rank(number, now_s)
            if now_s - due_s < self.settings.answer_s:
                free -= 1
            if now_s >= due_s + rank * self.settings.answer_s:
                out.append(Decision(number, Reason.OVERDUE if rank else Reason.OWNED))
        out += self._unproved_ones(now_s, unproved, more)
        if not out:
            out += self._out_of_turn(now_s, missing, wanted, claimed, len(running))
        return out

    def stops(self, now_s: float) -> list[Decision]:
        """Which of our GETs to stop. What one has brought is lost with it."""
        if not self._members:
            return []
        out = []
        for number, own in self._own.items():
            if own.ended or own.stopped:
                continue
            if not self._goes_on(number, own, now_s):
                out.append(Decision(number, Reason.COLLISION))
            elif own.alone and own.told < KEPT and self._place(number, now_s) >= self.pace.allowed:
                out.append(Decision(number, Reason.CROWDED))
        for decision in out:
            self._own[decision.fetch].stopped = True
            self.generation += 1
        return out

    # --- judging ----------------------------------------------------------------------------------------------------

    def _score(self, member: bytes, number: int) -> int:
        unit = self.units[number]
        # All that may not prove itself has one owner, who proves the file.
        return _score(member, LOOSE if unit.loose else b"%d-%d" % (unit.first, unit.end))

    def _ahead(self, number: int) -> set[bytes]:
        better = self._better.get(number)
        if better is None:
            mine = self._score(self.me, number)
            better = {one for one in self._members if self._score(one, number) > mine}
            self._better[number] = better
        return better

    def _rank(self, number: int, now_s: float) -> int:
        """How many are to fetch it rather than we."""
        return sum(self._is_trusted(member, now_s) for member in self._ahead(number))

    def _is_trusted(self, member: bytes, now_s: float) -> bool:
        return self._members[member].distrusted_until_s <= now_s

    def _is_valid(self, member: bytes, claim: Claim, now_s: float) -> bool:
        if claim.voided or not self._is_trusted(member, now_s):
            return False
        if claim.state == FETCHING and claim.progress == FULL:
            return True
        return now_s - claim.moved_s < self.settings.stall_s

    def _is_claimed(self, number: int, now_s: float) -> bool:
        if now_s - self._passed_on.get(number, _NEVER) < self.settings.stall_s:
            return True
        of_unit = self._claimed.get(number)
        if not of_unit:
            return False
        for member, claim in of_unit.items():
            # Who says to fetch what is another's turn has to show that it does.
            if self._is_valid(member, claim, now_s) and (
                claim.progress > 0 or claim.state == HELD or not self._has_precedence(number, member, now_s)
            ):
                return True
        return False

    def _has_precedence(self, number: int, member: bytes, now_s: float) -> bool:
        """Whether we come before a member."""
        return member not in self._ahead(number) and self._rank(number, now_s) == 0

    def _unproved_since(self, number: int) -> float | None:
        for claim in self._claimed.get(number, {}).values():
            if claim.state == FETCHING and claim.progress == FULL and not claim.voided:
                return claim.moved_s
        return None

    def _active(self, now_s: float) -> tuple[int, float]:
        """GETs of others that run, and will not end at once, and what they will have brought since they told.

        Of one that shows no progress one counts.
        """
        out = 0
        ahead_bytes = 0.0
        for name, member in self._members.items():
            if not member.claims or member.distrusted_until_s > now_s:
                continue
            moving = idle = 0
            for number, claim in member.claims.items():
                if claim.state != FETCHING or claim.progress == FULL or not self._is_valid(name, claim, now_s):
                    continue
                if claim.progress > claim.began_at:
                    moving += claim.rest_s(now_s) > 0.2
                    ahead = claim.expected(now_s) - claim.progress
                    ahead_bytes += ahead / FULL * self.units[number].size_bytes
                else:
                    idle = 1
            out += moving + idle
        return out, ahead_bytes

    def _judge(self, now_s: float) -> None:
        """Finds out who claims what it does not do, or much later than we would."""
        alone = self._cdn.bytes_s(now_s)
        for member in self._members.values():
            if member.distrusted_until_s > now_s:
                continue
            for number, claim in member.claims.items():
                if claim.state != FETCHING or claim.progress == FULL or claim.voided:
                    continue
                stall_s = self.settings.stall_s
                is_late = False
                if alone > 0 and now_s - claim.began_s >= stall_s:
                    needs_s = self.units[number].size_bytes / alone
                    is_late = claim.rest_s(now_s) > self.settings.slow_factor * needs_s + stall_s
                if is_late or now_s - claim.moved_s >= stall_s:
                    claim.voided = True
                    self._found_out(member, now_s)

    def _found_out(self, member: Member, now_s: float) -> None:
        member.found_out += 1
        if member.found_out >= 2:
            times = min(member.found_out - 2, 10)
            member.distrusted_until_s = now_s + self.settings.distrust_s * 2.0**times

    def _goes_on(self, number: int, own: _Own, now_s: float) -> bool:
        """Whether it is we who go on with what several fetch: both sides know what they have told each other."""
        ahead = self._ahead(number)
        for member, claim in self._claimed.get(number, {}).items():
            if claim.state != FETCHING or claim.progress == FULL or not self._is_valid(member, claim, now_s):
                continue
            # Who has come just now may not know of us.
            if not own.alone and now_s - claim.began_s < self.settings.answer_s:
                continue
            lead = own.told - claim.progress
            if lead < -LEAD or (lead <= LEAD and member in ahead):
                return False
        return True

    def _place(self, number: int, now_s: float) -> int:
        """How many others of the units that are fetched have come further, or come before it in the file."""
        reached = {one: own.told for one, own in self._own.items() if not own.ended}
        for one, claims in self._claimed.items():
            told = [c.progress for m, c in claims.items() if c.state == FETCHING and self._is_valid(m, c, now_s)]
            if told:
                reached[one] = max([*told, reached.get(one, 0)])
        mine = (-(reached[number] // STEP), number)
        return sum((-(progress // STEP), one) < mine for one, progress in reached.items())

    # --- out of turn --------------------------------------------------------------------------------------------------

    def _unproved_ones(self, now_s: float, unproved: list[int], more: bool) -> Iterator[Decision]:
        """What others have and cannot prove."""
        if more or not unproved:
            self._only_unproved_s = None
        elif self._only_unproved_s is None:
            self._only_unproved_s = now_s
        for number in unproved:
            since_s = self._unproved_since(number)
            assert since_s is not None
            if not self.units[number].loose and now_s - since_s < self.settings.unproved_s:
                continue
            if not any(self._is_trusted(one, now_s) for one in self._before_in_closing()):
                yield Decision(number, Reason.UNPROVED)
            elif self._only_unproved_s is not None and now_s - self._only_unproved_s >= 2 * self.settings.stall_s:
                yield Decision(number, Reason.LAST)

    def _before_in_closing(self) -> list[bytes]:
        """Who is to prove the file rather than we."""
        mine = _score(self.me, LOOSE)
        return [one for one in self._members if _score(one, LOOSE) > mine]

    def _out_of_turn(
        self,
        now_s: float,
        missing: Callable[[], Iterator[int]],
        wanted: Callable[[], Iterator[int]],
        claimed: list[int],
        running: int,
    ) -> Iterator[Decision]:
        settings = self.settings
        self._note_income(now_s)
        if self._met_s is None or now_s - self._helped_s < settings.help_s:
            return
        alone = self._cdn.bytes_s(now_s)
        if alone <= 0:
            if self._came or running or now_s - self._met_s < self._patience_s(now_s):
                return
            reason = Reason.MEASURE
        else:
            window_s = self._window_s(alone)
            income = self._income_bytes_s(now_s, window_s)
            if running or now_s - self._met_s < window_s or income is None or income >= settings.fair_share * alone:
                return
            reason = Reason.ALONE
        free = [number for number in missing() if not self._is_claimed(number, now_s)]
        if not free and reason is Reason.MEASURE:
            free = claimed
        elif not free and not claimed:
            free = list(wanted())
        if free:
            self._helped_s = now_s
            # Not the same as others in our place.
            yield Decision(max(free[-16:], key=lambda number: self._score(self.me, number)), reason)

    def _patience_s(self, now_s: float) -> float:
        settings = self.settings
        rests = [self._rest_s(number, now_s) for number in self._claimed]
        rest_s = min((one for one in rests if one < float("inf")), default=0.0)
        if rest_s > 0 and self._first_rest_s is None and self._met_s is not None:
            self._first_rest_s = now_s - self._met_s + rest_s
        wanted_s = 1.5 * (self._first_rest_s or 0.0) + settings.patience_s
        # What would take that long is not worth waiting for.
        if wanted_s > settings.longest_patience_s:
            wanted_s = settings.patience_s
        # One after the other.
        place = sum(one > self.me for one in self._members)
        return wanted_s + settings.answer_s * place

    def _rest_s(self, number: int, now_s: float) -> float:
        rests = [
            claim.rest_s(now_s)
            for member, claim in self._claimed.get(number, {}).items()
            if self._is_valid(member, claim, now_s) and claim.state == FETCHING
        ]
        return min(rests, default=float("inf"))

    def _window_s(self, alone_bytes_s: float) -> float:
        """Units come one after the other: over this time what comes is even. Not longer than the CDN would need."""
        largest = max((unit.size_bytes for unit in self.units), default=0)
        even_s = 6 * largest / (self.pace.bytes_s or alone_bytes_s)
        return max(self.settings.patience_s, min(even_s, self._size_bytes / alone_bytes_s, LONGEST_WINDOW_S))

    def _note_income(self, now_s: float) -> None:
        if not self._income or now_s - self._income[-1][0] >= 0.25:
            self._income.append((now_s, self._came))
            while len(self._income) > 2 and now_s - self._income[1][0] > LONGEST_WINDOW_S:
                self._income.popleft()

    def _income_bytes_s(self, now_s: float, window_s: float) -> float | None:
        if not self._income or now_s - self._income[0][0] < window_s:
            return None
        for at_s, came in reversed(self._income):
            if now_s - at_s >= window_s:
                return (self._came - came) / (now_s - at_s)
        return None


def _score(member: bytes, name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, key=member, digest_size=8).digest(), "big")
