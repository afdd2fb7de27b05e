"""Who of those that download the same file at the same time asks the CDN for which part of it. Pure.

A unit is one GET of the plan. Every member says which units it is fetching, how far it is, and which it has proved
(its claims); nobody leads. The rules, in the words in which `core.crowd_decision` gives its reasons:

- Units come in the order of the file, few at a time (`core.crowd_pace`): those that are due. Each has an owner, the
  member with the highest score of the hash of both (rendezvous hashing). Who has the same view has the same owners.
- An owner that does not claim what is due within `answer_s` is followed by the next after it, and so on.
- A claim is worth its progress: without any for `stall_s`, the unit is due again. Who was found out twice comes last,
  and its claims count nothing, for `distrust_s`.
- Two who fetch the same find out and all but one stop.
- What does not prove itself when it is there (a part of a xorb) is fetched by one member only: who proves the whole
  file with it, and then others can take it from there.
- Nobody waits longer for others than the CDN would need: who gets less from the crowd than the CDN has given it before
  takes more; who has got nothing at all finds out what the CDN gives, and so does who waits for one that may be slow
  (`core.crowd_probe`).

What time it is elsewhere plays no role: a claim is as old as the time since it was heard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median_high

from zest_hf.core.crowd_claims import FETCHING, FULL, HELD, Claim, CrowdSettings, Told, Unit
from zest_hf.core.crowd_decision import Decision, Reason
from zest_hf.core.crowd_income import LONGEST_WINDOW_S, CdnRate, Income
from zest_hf.core.crowd_members import Others
from zest_hf.core.crowd_pace import AT_ONCE, Pace
from zest_hf.core.crowd_probe import Probe

LEAD = FULL // 32
"""Who is so much further than another goes on with what both fetch; else it is the one whose turn it is."""
SOMETHING = LEAD // 4
STARVING_SHARE = 0.5
"""Who has got so much of a unit has got something."""
STEP = FULL // 8
"""Progress is compared in such steps by those who are to agree."""
KEPT = FULL // 16
"""What has come so far is fetched to its end, whoever else turns up."""
MAX_GIVEN_WAY = 2
"""A unit's GET is stopped for others so often at most."""
_NEVER = float("-inf")


@dataclass(slots=True)
class _Own:
    began_s: float
    alone: bool
    """It was begun when nobody else was there."""
    is_probe: bool = False
    """It is to show whether the CDN would be quicker than who fetches the same."""
    begun_bytes: int = 0
    """That were there,"""
    size_bytes: int = 0
    """... and that are."""
    told: int = 0
    """Progress that the others know of."""
    ended: bool = False
    proved: bool = False
    stopped: bool = False


class Crowd:
    """Of one file, as one node sees it. ``me`` names this node: what the others call it, 20 bytes."""

    def __init__(self, me: bytes, units: Sequence[Unit], settings: CrowdSettings | None = None) -> None:
        self.units = units
        self.settings = settings or CrowdSettings()
        self.pace = Pace()
        self.others = Others(me, units, self.settings, self.pace)
        self._probe = Probe(units, self.others, self.settings)
        self.notes: list[Decision] = []
        """What was found out, for the log."""
        self.generation = 0
        """Grows with everything that others might want to hear of our claims."""
        self.me = me
        self._size_bytes = sum(unit.size_bytes for unit in units)
        self._largest = max((unit.size_bytes for unit in units), default=0)
        self._due_s: dict[int, float] = {}
        self._gave_way: dict[int, int] = {}
        """Units whose GETs were stopped for others, and how often."""
        self._own: dict[int, _Own] = {}
        self._fetched: deque[int] = deque(maxlen=64)
        """What we have fetched and proved, the last of it."""
        self._cdn = CdnRate()
        self._income = Income()
        self._given = Income()
        """What of that is proved."""
        self._helped_s = _NEVER
        self._line_was_full_s = _NEVER
        self._all_claimed = False
        """Nothing is left that nobody fetches."""
        self._only_unproved_s: float | None = None
        self._first_rest_s: float | None = None

    def __bool__(self) -> bool:
        """Whether there is anybody else."""
        return bool(self.others.members)

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
        self._cdn.began(now_s)
        if fetch in self._fetched:
            self._fetched.remove(fetch)
        self._own[fetch] = _Own(now_s, not self.others.members, self._probe.began(fetch))
        self._due_s.pop(fetch, None)
        self.generation += 1

    def goes_on(self, fetch: int, size_bytes: int) -> None:
        """So much of it was there when its GET was made."""
        own = self._own[fetch]
        own.size_bytes = own.begun_bytes = size_bytes

    def progress(self, fetch: int, size_bytes: int, now_s: float) -> None:
        """How many bytes it has brought."""
        own = self._own.get(fetch)
        if own is None or own.ended:
            return
        more = min(size_bytes, self.units[fetch].size_bytes) - own.size_bytes
        if more > 0:
            own.size_bytes += more
            self._cdn.came(more, now_s)
            self._income.came += more
            self.pace.moved(more)

    def ended(self, fetch: int, complete: bool, proved: bool, now_s: float) -> None:
        """It has ended; ``complete``: with all of the unit."""
        own = self._own.get(fetch)
        if own is None:
            return
        if complete:
            self.progress(fetch, self.units[fetch].size_bytes, now_s)
        self._probe.ended(now_s - own.began_s, own.size_bytes - own.begun_bytes, now_s)
        if complete:
            own.ended = True
            if proved:
                self.proved(fetch)
        else:
            del self._own[fetch]
        if not any(not one.ended for one in self._own.values()):
            self._cdn.stopped(now_s)
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
        """So much came from members."""
        self._income.came += size_bytes

    def given(self, size_bytes: int) -> None:
        """So much of what came from members is proved."""
        self._given.came += size_bytes

    def alone_bytes_s(self, now_s: float) -> float:
        """What the CDN gives us, or has given; 0: nobody knows."""
        return self._cdn.bytes_s(now_s)

    def is_line_full(self, now_s: float) -> bool:
        """Whether all together get what the CDN gives us, or did a moment ago: then each gets a part of that.

        How large a part is not the member's doing, and it is larger as soon as another's GET ends.
        """
        alone = self.alone_bytes_s(now_s)
        own = alone if any(not own.ended for own in self._own.values()) else 0.0
        if alone > 0 and own + self.others.fetching_bytes_s(now_s) >= self.settings.fair_share * alone:
            self._line_was_full_s = now_s
        return now_s - self._line_was_full_s < self.settings.stall_s

    def usual_bytes_s(self, now_s: float) -> float:
        """What one would have from somebody else: as much as half of the GETs bring, or what the CDN gives us if its
        line is not everybody's at the moment. 0 as long as there is a unit that nobody fetches.
        """
        # Before that it makes nothing later: there is something else to fetch, and the line is as full as it gets.
        if not self._all_claimed:
            return 0.0
        rates = self.others.rates_bytes_s(now_s)
        usual = median_high(rates) if len(rates) > 1 else 0.0
        return usual if self.is_line_full(now_s) else max(usual, self.alone_bytes_s(now_s))

    def is_starving(self, now_s: float) -> bool:
        """Whether nothing comes, from whomever, and nobody knows whether the CDN would give more."""
        if self.others.met_s is None or self.alone_bytes_s(now_s) > 0:
            return False
        # Units come one after the other: to who has got one of late the next will come.
        late_s = self.settings.longest_patience_s
        given = self._given.bytes_s(now_s, late_s)
        given_bytes = self._given.came if given is None else given * late_s
        if given_bytes >= STARVING_SHARE * self._largest or any(not own.ended for own in self._own.values()):
            return False
        # Who has begun a moment ago gives something soon; who come one after the other do not prolong it for ever.
        begun_s = max(self.others.met_s, self.others.begun_s(now_s))
        since_s = min(begun_s, self.others.met_s + 2 * self.settings.patience_s)
        for patience_s in (self.settings.patience_s, self._patience_s(now_s)):
            if now_s - since_s < patience_s or not self._has_got_little(now_s, patience_s):
                return False
        return True

    def _has_got_little(self, now_s: float, passed_s: float) -> bool:
        """In this time, from whomever."""
        income = self._income.bytes_s(now_s, passed_s) or 0.0
        return income * passed_s < self.settings.little_share * self._largest

    def is_to_probe(self, fetch: int, given_bytes_s: float, now_s: float) -> bool:
        """Whether we are to find out with this unit, which another fetches and gives us at this rate, whether the CDN
        would be quicker.
        """
        if not self._all_claimed or self.alone_bytes_s(now_s) > 0:
            return False
        return all(own.ended for own in self._own.values()) and self._probe.is_for(fetch, given_bytes_s, now_s)

    def owner(self, fetch: int, now_s: float = 0.0) -> bytes:
        """The member, perhaps this one, that is to fetch a unit."""
        trusted = [one for one in self.others.members if self.others.is_trusted(one, now_s)]
        return max([self.me, *trusted], key=lambda one: self.others.turns.score(one, fetch))

    def choose(
        self, now_s: float, missing: Callable[[], Iterator[int]], wanted: Callable[[], Iterator[int]]
    ) -> list[Decision]:
        """Which GETs to make now. ``missing``: units of which something is wanted that no peer gives, in order;
        ``wanted``: also those that peers give.
        """
        self._income.note(now_s)
        self._given.note(now_s)
        self.others.income.note(now_s)
        # As long as nobody knows what the CDN's line gives it may be full.
        is_full = self.alone_bytes_s(now_s) <= 0 or self.is_line_full(now_s)
        for number, stands_still in self.others.judge(self.usual_bytes_s(now_s), is_full, now_s):
            self.notes.append(Decision(number, Reason.STALLED if stands_still else Reason.SLOW))
        running = [own for own in self._own.values() if not own.ended]
        others, ending, ahead_bytes = self.others.active(now_s)
        active = len(running) + others
        limit = self.pace.limit(now_s, active, ahead_bytes, ending)
        free = limit - active
        if not running and self._is_blocked(now_s):
            free = max(1, free)
        out: list[Decision] = []
        if self.others.met_s is not None and now_s - self.others.met_s < self.settings.hear_s:
            return out
        unproved: list[int] = []
        claimed: list[int] = []
        more = False
        self._all_claimed = True
        before, self._due_s = self._due_s, {}
        for number in missing():
            if self.others.is_claimed(number, now_s):
                if self.others.unproved_since(number) is not None:
                    unproved.append(number)
                else:
                    claimed.append(number)
                    more = True
                continue
            more = True
            self._all_claimed = False
            if free <= 0:
                # Whoever is behind in the order has its time counted from when it is its turn.
                break
            due_s = before.get(number, now_s)
            # Nobody else's turn has come yet.
            most = 1 + int((now_s - due_s) / self.settings.answer_s)
            rank = self.others.rank(number, now_s, bool(running or out), most)
            # Which GETs are about to end not everybody sees at the same time.
            if free <= ending and rank:
                due_s = now_s
            self._due_s[number] = due_s
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
        if not self.others.members:
            return []
        out = []
        for number, own in self._own.items():
            if own.ended or own.stopped:
                continue
            gave_way = self._gave_way.get(number, 0)
            if gave_way >= MAX_GIVEN_WAY:
                continue
            if not self._goes_on(number, own, now_s):
                out.append(Decision(number, Reason.COLLISION))
            elif own.alone and own.told < KEPT and self._is_too_many(number, now_s):
                out.append(Decision(number, Reason.CROWDED))
        for decision in out:
            self._own[decision.fetch].stopped = True
            self._gave_way[decision.fetch] = self._gave_way.get(decision.fetch, 0) + 1
            self.generation += 1
        return out

    def _goes_on(self, number: int, own: _Own, now_s: float) -> bool:
        """Whether it is we who go on with what several fetch: both sides know what they have told each other."""
        for member, claim in self.others.claimed.get(number, {}).items():
            if claim.state != FETCHING or claim.progress == FULL or not self.others.is_valid(member, claim, now_s):
                continue
            if own.is_probe and self._is_quicker(number, own, claim, now_s):
                continue
            # Who has come just now may not know of us, nor how far we are.
            if not own.alone and own.told and now_s - claim.began_s < self.settings.answer_s:
                continue
            if not self._is_first(number, own.told, member, claim.progress):
                return False
        return True

    def _is_first(self, number: int, told: int, member: bytes, progress: int) -> bool:
        """Of two that fetch the same: both come to the same result."""
        # Who has nothing yet does not stop who has something.
        lead = SOMETHING if not told or not progress else LEAD
        if abs(told - progress) > lead:
            return told > progress
        return not self.others.turns.is_ahead(member, number)

    def _is_quicker(self, number: int, own: _Own, claim: Claim, now_s: float) -> bool:
        came, rest = own.size_bytes - own.begun_bytes, self.units[number].size_bytes - own.size_bytes
        return self._probe.is_worth_going_on(number, now_s - own.began_s, came, rest, claim, now_s)

    def _is_too_many(self, number: int, now_s: float) -> bool:
        """Of those that began when nobody was known: that is found out soon, or never."""
        met_s = self.others.met_s
        if met_s is None or now_s - met_s >= self.settings.stall_s:
            return False
        return self._place(number, now_s) >= max(self.pace.allowed, AT_ONCE)

    def _place(self, number: int, now_s: float) -> int:
        """How many others of the units that are fetched have come further, or come before it in the file."""
        reached = {one: own.told for one, own in self._own.items() if not own.ended}
        for one, claims in self.others.claimed.items():
            told = [c.progress for m, c in claims.items() if c.state == FETCHING and self.others.is_valid(m, c, now_s)]
            if told:
                reached[one] = max([*told, reached.get(one, 0)])
        mine = (-(reached[number] // STEP), number)
        return sum((-(progress // STEP), one) < mine for one, progress in reached.items())

    def _unproved_ones(self, now_s: float, unproved: list[int], more: bool) -> Iterator[Decision]:
        """What others have and cannot prove."""
        if more or not unproved:
            self._only_unproved_s = None
        elif self._only_unproved_s is None:
            self._only_unproved_s = now_s
        for number in unproved:
            since_s = self.others.unproved_since(number)
            assert since_s is not None
            if not self.units[number].loose and now_s - since_s < self.settings.unproved_s:
                continue
            if not any(self.others.is_trusted(one, now_s) for one in self.others.turns.before_in_closing()):
                yield Decision(number, Reason.UNPROVED)
            elif self._only_unproved_s is not None and now_s - self._only_unproved_s >= 2 * self.settings.stall_s:
                yield Decision(number, Reason.LAST)

    def _out_of_turn(
        self,
        now_s: float,
        missing: Callable[[], Iterator[int]],
        wanted: Callable[[], Iterator[int]],
        claimed: list[int],
        running: int,
    ) -> Iterator[Decision]:
        settings = self.settings
        for number in claimed:
            if self.is_to_probe(number, 0.0, now_s):
                yield Decision(number, Reason.PROBE)
                return
        if self.others.met_s is None or now_s - self._helped_s < settings.help_s:
            return
        alone = self.alone_bytes_s(now_s)
        if alone <= 0:
            if not self.is_starving(now_s):
                return
            reason = Reason.MEASURE
        else:
            window_s = self._window_s(alone)
            income = self._income.bytes_s(now_s, window_s)
            if running or now_s - self.others.met_s < window_s or income is None:
                return
            if income >= settings.fair_share * alone:
                return
            coming = sum(self.others.coming_bytes(number, now_s) for number in self.others.claimed) / window_s
            if income + coming >= settings.fair_share * alone:
                return
            reason = Reason.ALONE
        free = [number for number in missing() if not self.others.is_claimed(number, now_s)]
        free = free or claimed or list(wanted())
        if free:
            self._helped_s = now_s
            # Not the same as others in our place.
            yield Decision(max(free[-16:], key=lambda number: self.others.turns.score(self.me, number)), reason)

    def _is_blocked(self, now_s: float) -> bool:
        """Whether what others say to be fetching brings nothing: it is not to keep us from what nobody fetches."""
        since_s, stall_s = self.others.met_s, self.settings.stall_s
        return since_s is not None and now_s - since_s >= stall_s and self._has_got_little(now_s, stall_s)

    def _patience_s(self, now_s: float) -> float:
        settings = self.settings
        rest_s = self.others.next_rest_s(now_s)
        if 0 < rest_s < float("inf") and self._first_rest_s is None and self.others.met_s is not None:
            self._first_rest_s = now_s - self.others.met_s + rest_s
        wanted_s = 1.5 * (self._first_rest_s or 0.0) + settings.patience_s
        # What would take that long is not worth waiting for.
        if wanted_s > settings.longest_patience_s:
            wanted_s = settings.patience_s
        # One after the other.
        place = sum(one > self.me for one in self.others.members)
        return wanted_s + settings.answer_s * place

    def _window_s(self, alone_bytes_s: float) -> float:
        """Units come one after the other: over this time what comes is even. Not longer than the CDN would need."""
        even_s = 6 * self._largest / (self.pace.bytes_s or alone_bytes_s)
        return max(self.settings.patience_s, min(even_s, self._size_bytes / alone_bytes_s, LONGEST_WINDOW_S))
