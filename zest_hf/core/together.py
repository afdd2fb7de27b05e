"""The GETs of one transfer as units of its crowd: what the crowd is told of them, and what it says about them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from zest_hf.core.actions import StopGet
from zest_hf.core.assignments import Assignments
from zest_hf.core.crowd import Crowd
from zest_hf.core.crowd_decision import Decision
from zest_hf.core.knowledge import Knowledge
from zest_hf.core.pieces import Pieces, State
from zest_hf.core.ranges import Ranges, contains

LOOK_S = 0.05
"""It is decided so often at most, unless something has changed in the crowd."""


class Together:
    """See the module."""

    def __init__(self, crowd: Crowd, pieces: Pieces, knowledge: Knowledge, assignments: Assignments) -> None:
        self.crowd = crowd
        self._pieces = pieces
        self._knowledge = knowledge
        self._assignments = assignments
        self._gets: dict[int, dict[int, int]] = {}
        """Unit -> its GETs that run, and what each has brought."""
        self._fetch_of: dict[int, int] = {}
        self._brought: dict[int, int] = {}
        """Unit -> bytes of its GETs that have ended."""
        self._complete: dict[int, bool] = {}
        self._looks_s = float("-inf")
        self._news = 0
        self._decisions: list[Decision] = []

    def __bool__(self) -> bool:
        """Whether there is anybody else."""
        return bool(self.crowd)

    def take_decisions(self) -> list[Decision]:
        """What was decided since it was asked last, for the log."""
        decisions, self._decisions, self.crowd.notes = [*self.crowd.notes, *self._decisions], [], []
        return decisions

    # --- what happens to GETs --------------------------------------------------------------------------------

    def began(self, assignment: int, fetch: int, now_s: float) -> None:
        self._fetch_of[assignment] = fetch
        gets = self._gets.setdefault(fetch, {})
        if not gets:
            self._brought[fetch] = 0
            self._complete[fetch] = True
            self.crowd.began(fetch, now_s)
        gets[assignment] = 0

    def goes_on(self, fetch: int, size_bytes: int) -> None:
        """So much of it is there already, from others."""
        self._brought[fetch] = size_bytes
        self.crowd.goes_on(fetch, size_bytes)

    def brought(self, brought: Mapping[int, int], now_s: float) -> None:
        """So many bytes of the file has each GET that runs brought so far, by assignment."""
        for assignment, size_bytes in brought.items():
            fetch = self._fetch_of.get(assignment)
            if fetch is not None:
                gets = self._gets[fetch]
                gets[assignment] = size_bytes
                self.crowd.progress(fetch, self._brought[fetch] + sum(gets.values()), now_s)

    def ended(self, assignment: int, size_bytes: int, complete: bool, now_s: float) -> None:
        """A GET has ended with so much; ``complete``: with all that it was made for."""
        fetch = self._fetch_of.pop(assignment)
        gets = self._gets[fetch]
        del gets[assignment]
        self._brought[fetch] += size_bytes
        self._complete[fetch] &= complete
        if not gets:
            del self._gets[fetch], self._brought[fetch]
            self.crowd.ended(fetch, self._complete.pop(fetch), self._is_known(fetch), now_s)

    def more_is_known(self) -> None:
        """What came without proof may have one now, or be found wrong."""
        for fetch in self.crowd.unproved():
            if self._is_known(fetch):
                if all(self._pieces[begin].state is State.DONE for begin in self._pieces.of_fetch(fetch)):
                    self.crowd.proved(fetch)
                else:
                    self.crowd.dropped(fetch)

    def _is_known(self, fetch: int) -> bool:
        unit = self.crowd.units[fetch]
        return contains(self._knowledge.known, unit.first, unit.end)

    # --- what to do --------------------------------------------------------------------------------------------

    def stops(self, now_s: float) -> Iterator[StopGet]:
        """Which GETs to stop for others."""
        for decision in self.crowd.stops(now_s):
            self._decisions.append(decision)
            for assignment in self._gets[decision.fetch]:
                running = self._assignments[assignment]
                # One that has been stopped at its beginning only has to end.
                if not running.pieces or running.ends == 0:
                    continue
                running.stop_at = 0
                yield StopGet(assignment, 0)

    def choose(self, held: Ranges, room: int, now_s: float) -> Iterator[list[int]]:
        """For which units to make GETs now, and the pieces of each. ``held``: what useful peers hold."""
        if room <= 0 or (now_s < self._looks_s and self._news == self.crowd.others.news):
            return
        self._news = self.crowd.others.news
        self._looks_s = now_s + LOOK_S
        decisions = self.crowd.choose(now_s, lambda: self._missing(held), lambda: self._missing(()))
        for decision in decisions:
            # What is left of one that was stopped is not known before it has ended.
            if room <= 0 or decision.fetch in self._gets:
                continue
            begins = self._pieces_of(decision.fetch, held) or self._pieces_of(decision.fetch, ())
            if not begins:
                continue
            room -= 1
            self._decisions.append(decision)
            yield begins

    def look(self) -> None:
        """Something has changed."""
        self._looks_s = float("-inf")

    def _missing(self, held: Ranges) -> Iterator[int]:
        """The units of which something is wanted that is not held, in the order of the file."""
        seen: set[int] = set()
        for begin in self._pieces.wanted:
            piece = self._pieces[begin]
            if piece.fetch not in seen and not contains(held, piece.first, piece.end):
                seen.add(piece.fetch)
                yield piece.fetch

    def _pieces_of(self, fetch: int, held: Ranges) -> list[int]:
        wanted = (self._pieces[begin] for begin in self._pieces.of_fetch(fetch))
        return [
            piece.begin
            for piece in wanted
            if piece.state is State.WANTED and not contains(held, piece.first, piece.end)
        ]
