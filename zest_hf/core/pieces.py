"""The pieces of one file and the state of each: which are wanted, which were asked for, which are done.

Pure bookkeeping; it decides nothing. A piece is in exactly one state:

    WANTED --ask--> ASKED --all chunks written--> DONE
       ^--------------'  (the rest, when nobody who was asked for it is left)

A piece may be asked of several sources at once; whoever is first makes it done. Cost of each step: logarithmic, but
for keeping the sorted list of wanted pieces, which is one memmove.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from zest_hf.core.ids import XetHash
from zest_hf.core.plan import FilePlan

Ranges = tuple[tuple[int, int], ...]
"""Half-open ranges of file chunks, in order, apart from each other."""


class State(enum.Enum):
    """See the module."""

    WANTED = 0
    ASKED = 1
    DONE = 2


@dataclass(slots=True)
class Piece:
    """What is left of a piece: file chunks first..end, which are chunks xorb_first.. of `xorb`."""

    first: int
    end: int
    xorb: XetHash
    xorb_first: int
    fetch: int
    state: State = State.WANTED
    askers: list[int] = field(default_factory=list)
    """The assignments that it was asked by and that have not ended."""

    @property
    def count(self) -> int:
        return self.end - self.first


class Pieces:
    """The pieces of a plan, numbered in file order."""

    def __init__(self, plan: FilePlan) -> None:
        self._plan = plan
        self._pieces = [
            Piece(p.first, p.first + p.count, p.xorb, p.xorb_first, p.fetch) for p in plan.pieces
        ]
        self._firsts = [p.first for p in plan.pieces]
        self._of_fetch: list[list[int]] = [[] for _ in plan.fetches]
        for index, piece in enumerate(plan.pieces):
            self._of_fetch[piece.fetch].append(index)
        self.wanted = list(range(len(self._pieces)))
        """Numbers of the wanted pieces, in order."""
        self.open = len(self._pieces)
        """How many are not done."""
        self.generation = 0
        """Grows when a piece becomes wanted: who found nothing to do need not look again before."""

    def __getitem__(self, index: int) -> Piece:
        return self._pieces[index]

    def __len__(self) -> int:
        return len(self._pieces)

    def of_fetch(self, fetch: int) -> list[int]:
        """The pieces that one GET of the plan brings."""
        return self._of_fetch[fetch]

    def is_untouched(self, index: int) -> bool:
        """Whether nothing of it was written on its own."""
        return self._pieces[index].first == self._firsts[index]

    def wanted_in(self, ranges: Ranges) -> Iterator[int]:
        """The wanted pieces that lie wholly in `ranges`. Nothing may change while it runs."""
        for start, end in ranges:
            # The piece before may have shrunk into the range.
            at = bisect_left(self.wanted, max(0, bisect_left(self._firsts, start) - 1))
            while at < len(self.wanted):
                index = self.wanted[at]
                piece = self._pieces[index]
                if piece.first >= end:
                    break
                if start <= piece.first and piece.end <= end:
                    yield index
                at += 1

    def ask(self, index: int, assignment: int) -> None:
        """Somebody was asked for it."""
        piece = self._pieces[index]
        if piece.state is State.WANTED:
            piece.state = State.ASKED
            del self.wanted[bisect_left(self.wanted, index)]
        piece.askers.append(assignment)

    def answered(self, index: int, assignment: int) -> None:
        """Somebody who was asked has ended: without anybody else, what is left is wanted again."""
        piece = self._pieces[index]
        piece.askers.remove(assignment)
        if piece.state is State.ASKED and not piece.askers:
            self._want(index)

    def advance(self, index: int, end: int) -> None:
        """Chunks up to `end` are written and proved."""
        piece = self._pieces[index]
        if piece.state is State.DONE or end <= piece.first:
            return
        piece.xorb_first += end - piece.first
        piece.first = end
        if piece.first == piece.end:
            self.done(index)

    def done(self, index: int) -> None:
        """All of it is written."""
        piece = self._pieces[index]
        if piece.state is State.DONE:
            return
        if piece.state is State.WANTED:
            del self.wanted[bisect_left(self.wanted, index)]
        piece.state = State.DONE
        self.open -= 1

    def undo(self, first: int, end: int) -> None:
        """Whole terms, chunks first..end of the file, turned out wrong: they are wanted again."""
        for index in range(bisect_left(self._firsts, first), bisect_left(self._firsts, end)):
            piece = self._pieces[index]
            if piece.state is State.DONE:
                planned = self._plan.pieces[index]
                piece.first, piece.xorb_first = planned.first, planned.xorb_first
                self.open += 1
                if piece.askers:
                    piece.state = State.ASKED
                else:
                    self._want(index)

    def runs(self, indexes: Sequence[int]) -> Iterator[list[int]]:
        """Pieces, in order, as runs whose rests lie together in the file."""
        run: list[int] = []
        for index in indexes:
            if run and self._pieces[run[-1]].end != self._pieces[index].first:
                yield run
                run = []
            run.append(index)
        if run:
            yield run

    def _want(self, index: int) -> None:
        self._pieces[index].state = State.WANTED
        insort(self.wanted, index)
        self.generation += 1


def normalized(ranges: Sequence[tuple[int, int]], chunks: int) -> Ranges:
    """Ranges in order, merged, and within a file of so many chunks."""
    out: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        start, end = max(start, 0), min(end, chunks)
        if start >= end:
            continue
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return tuple(out)


def without(ranges: Ranges, first: int, end: int) -> Ranges:
    """Ranges less first..end."""
    out: list[tuple[int, int]] = []
    for start, stop in ranges:
        if stop <= first or end <= start:
            out.append((start, stop))
            continue
        if start < first:
            out.append((start, first))
        if end < stop:
            out.append((end, stop))
    return tuple(out)


def contains(ranges: Ranges, first: int, end: int) -> bool:
    """Whether one of the ranges holds all of first..end."""
    at = bisect_left(ranges, (first + 1,)) - 1
    return at >= 0 and ranges[at][0] <= first and end <= ranges[at][1]
