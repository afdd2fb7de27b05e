"""Which GETs a transfer makes, and for what: the plan's own as far as they are untouched, parts of them else. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain, islice

from zest_hf.core.actions import Action, FetchRun, FetchWhole
from zest_hf.core.assignments import Assignments
from zest_hf.core.begun import Begun
from zest_hf.core.knowledge import Knowledge
from zest_hf.core.late import Late
from zest_hf.core.peer import Peer
from zest_hf.core.pieces import Pieces, State
from zest_hf.core.plan import FilePlan
from zest_hf.core.policy import CdnUse, PolicySettings
from zest_hf.core.ranges import Ranges, contains, normalized
from zest_hf.core.slow_gets import SlowGets
from zest_hf.core.together import Together
from zest_hf.core.yielding import Yielding

ORPHANS_AGE_S = 0.1
"""How old an answer to "what does no peer hold" may be, when only what peers hold has changed."""

_NEVER = float("-inf")


class Gets:
    """See the module. ``seed``: None, or this node's, by which it begins elsewhere than others who may come.

    ``begun``: what is there of GETs, by their numbers; what one goes on with is taken from it.
    """

    def __init__(
        self,
        plan: FilePlan,
        pieces: Pieces,
        knowledge: Knowledge,
        assignments: Assignments,
        late: Late,
        yielding: Yielding,
        settings: PolicySettings,
        seed: int | None,
        begun: dict[int, Begun],
        slow: SlowGets,
    ) -> None:
        self._plan = plan
        self._pieces = pieces
        self._knowledge = knowledge
        self._assignments = assignments
        self._late = late
        self._yielding = yielding
        self._settings = settings
        self._random = None if seed is None else random.Random(seed)
        self._begun = begun
        self._slow = slow
        self._orphans = _Orphans()
        self.together: Together | None = None
        """The crowd, once there is one."""
        self.began = False
        """The CDN was asked for something."""
        self.leads = False
        """It was asked for everything when no peer was useful, and they have not sufficed since."""

    def make(
        self, use: CdnUse, room: int, useful: list[Peer], others_may_come: bool, now_s: float
    ) -> Iterator[Action]:
        """What to ask the CDN for now, by ``room`` GETs at most. ``others_may_come``: who downloads the same may not
        have been found yet.
        """
        if room <= 0:
            return
        if use is CdnUse.CROWD:
            yield from self._in_crowd(useful, room, now_s)
            return
        if use is CdnUse.ORPHANS:
            runs = self._in_gets(self._orphans.find(self._pieces, useful, self._plan.chunk_count, now_s))
        elif self._pieces.wanted:
            if useful and self.leads and self._yielding.stopped_just_now(now_s):
                return
            if others_may_come and not useful:
                # What others will be left to do is not begun; what is, they should not have begun as well.
                room, runs = 1 - self._assignments.gets, self._anything()
            else:
                runs = self._everything(from_the_back=bool(useful))
            self.leads |= not useful
        else:
            # A CDN that leads is not kept idle for long by who may give nothing.
            is_idle = self.leads and not self._assignments.gets
            runs = self._overdue(self._settings.left_alone_s if is_idle else self._settings.overdue_s, now_s)
        for run in islice(runs, max(0, room)):
            yield self._get(run, now_s)

    def _in_crowd(self, useful: list[Peer], room: int, now_s: float) -> Iterator[Action]:
        assert self.together is not None
        if not self._pieces.wanted:
            for run in islice(self._overdue(self.together.crowd.settings.stall_s, now_s), room):
                yield self._get(run, now_s)
        held = self._orphans.held(useful, self._plan.chunk_count, now_s)
        for begins in self.together.choose(held, room, now_s):
            for run in self._in_gets(begins):
                yield self._get(run, now_s)

    def _anything(self) -> Iterator[list[int]]:
        """One of the plan's GETs."""
        yield from self._gone_on_with()
        wanted = self._pieces.wanted
        at = self._random.randrange(len(wanted)) if self._random else 0
        found = next(filter(self._may_be_asked_for, chain(islice(wanted, at, None), islice(wanted, at))), None)
        if found is not None:
            yield from self._in_gets(self._wanted_of(found))

    def _everything(self, from_the_back: bool) -> Iterator[list[int]]:
        """What is wanted, one GET of the plan after the other. The CDN helps peers from the back."""
        yield from self._gone_on_with()
        while (begin := self._next_wanted(from_the_back)) is not None:
            yield from self._in_gets(self._wanted_of(begin))

    def _next_wanted(self, from_the_back: bool) -> int | None:
        wanted = reversed(self._pieces.wanted) if from_the_back else iter(self._pieces.wanted)
        return next(filter(self._may_be_asked_for, wanted), None)

    def _may_be_asked_for(self, begin: int) -> bool:
        fetch = self._pieces[begin].fetch
        return not self._is_being_stopped(fetch) or self._pieces.is_whole(fetch, self._wanted_of(begin))

    def _is_being_stopped(self, fetch: int) -> bool:
        """A GET that nothing is known of was told to stop somewhere: what it leaves cannot be asked for by itself, and
        is wanted with all the rest when it has ended.
        """
        planned = self._plan.fetches[fetch]
        return not self._knowledge.knows_xorb(planned.source.xorb) and any(
            one.is_blind and isinstance(one.action, FetchWhole) and one.action.fetch is planned
            for _, one in self._assignments.running_gets()
        )

    def _gone_on_with(self) -> Iterator[list[int]]:
        """What was begun: the sooner it is whole, the sooner it is proved, and can be passed on."""
        for number in list(self._begun):
            yield from self._in_gets([one for one in self._pieces.of_fetch(number) if self._is_wanted(one)])

    def _is_wanted(self, begin: int) -> bool:
        return self._pieces[begin].state is State.WANTED

    def _overdue(self, after_s: float, now_s: float) -> Iterator[list[int]]:
        late = [begin for begin in self._late.overdue(now_s, after_s) if not self._is_in_a_get(begin)]
        if late:
            # On a slow line the CDN would not bring it sooner, and both would bring the same.
            cdn_s = self._yielding.cdn_s(self._plan.size_bytes / self._plan.chunk_count, now_s)
            late = [begin for begin in late if not self._late.is_sooner(begin, cdn_s, now_s)]
        return self._pieces.runs(sorted(late))

    def _wanted_of(self, begin: int) -> list[int]:
        """What is wanted of the GET that a piece belongs to."""
        of_fetch = self._pieces.of_fetch(self._pieces[begin].fetch)
        return [one for one in of_fetch if self._is_wanted(one)]

    def _in_gets(self, begins: list[int]) -> Iterator[list[int]]:
        """Wanted pieces as what one GET each can bring: no more than the plan's GETs do."""
        by_fetch: dict[int, list[int]] = {}
        for begin in begins:
            by_fetch.setdefault(self._pieces[begin].fetch, []).append(begin)
        for fetch, chosen in by_fetch.items():
            if self._pieces.is_whole(fetch, chosen):
                yield chosen
            elif not self._is_being_stopped(fetch):
                yield from list(self._pieces.runs(chosen))

    def _is_in_a_get(self, begin: int) -> bool:
        return any(self._assignments[number].is_get for number in self._pieces[begin].askers)

    def _get(self, run: list[int], now_s: float) -> Action:
        """A GET for pieces that are the whole of one of the plan's, or lie together in the file."""
        self.began = True
        number = self._assignments.next_number
        self._yielding.flow.began(number, now_s)
        fetch = self._pieces[run[0]].fetch
        if self.together is not None:
            self.together.began(number, fetch, now_s)
        if self._pieces.is_whole(fetch, run):
            planned = self._plan.fetches[fetch]
            expected = self._knowledge.expected_of(planned)
            found = self._begun.pop(fetch, None) if expected is None else None
            # Alone, nobody follows.
            begun = found if found is None or self.together is None else found.shortened()
            if self.together is not None and begun is not None:
                self.together.goes_on(fetch, begun.size_bytes)
            whole = FetchWhole(number, planned, expected, begun)
            size_bytes = planned.size_bytes - (0 if begun is None else begun.size_bytes)
            # Only with every hash may somebody else be writing there as well.
            if whole.expected is not None or not any(self._pieces[begin].askers for begin in run):
                self._slow.began(number, size_bytes)
                return self._assignments.begin(whole, run, now_s)
        # Parts of a GET are left over only where peers gave the others, and they give what is known alone.
        first, end = self._pieces[run[0]].first, self._pieces[run[-1]].end
        offset = self._knowledge.offset
        part = FetchRun(number, first, offset(first), offset(end), self._knowledge.part(first, end))
        self._slow.began(number, part.byte_end - part.byte_start)
        return self._assignments.begin(part, run, now_s)


class _Orphans:
    """Which wanted pieces no useful peer holds: remembered, as it is asked often and changes seldom."""

    def __init__(self) -> None:
        self._generation = -1
        self._ranges: list[Ranges] = []
        self._found_s = _NEVER
        self._found: list[int] = []
        self._held_s = _NEVER
        self._held: Ranges = ()

    def held(self, useful: list[Peer], chunks: int, now_s: float) -> Ranges:
        """What useful peers hold, a moment ago at most."""
        if now_s - self._held_s >= ORPHANS_AGE_S:
            self._held_s = now_s
            self._held = normalized([one for peer in useful for one in peer.askable], chunks)
        return self._held

    def find(self, pieces: Pieces, useful: list[Peer], chunks: int, now_s: float) -> list[int]:
        ranges = [peer.askable for peer in useful]
        if not pieces.wanted:
            return []
        is_old = ranges != self._ranges and (len(ranges) != len(self._ranges) or now_s - self._found_s >= ORPHANS_AGE_S)
        if pieces.generation != self._generation or is_old:
            held = normalized([one for some in ranges for one in some], chunks)
            self._generation, self._ranges, self._found_s = pieces.generation, ranges, now_s
            self._found = [
                begin for begin in pieces.wanted if not contains(held, pieces[begin].first, pieces[begin].end)
            ]
        return [begin for begin in self._found if pieces[begin].state is State.WANTED]
