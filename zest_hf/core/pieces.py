"""The pieces of one file and the state of each: which are wanted, which were asked for, which are done.

Pure bookkeeping; it decides nothing. A piece is in exactly one state:

    WANTED --ask--> ASKED --all chunks written--> DONE
       ^--------------'  (the rest, when nobody who was asked for it is left)

A piece may be asked of several sources at once; whoever is first makes it done. One can be split, for who gives only a
part of it, or not so much at a time; who was asked for the whole then is for both. Pieces are named by the file chunk
that they begin with.
Cost of each step: logarithmic, but for keeping sorted lists of names, which is one memmove.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from zest_hf.core.ids import XetHash
from zest_hf.core.plan import FilePlan
from zest_hf.core.ranges import Ranges


class State(enum.Enum):
    """See the module."""

    WANTED = 0
    ASKED = 1
    DONE = 2


@dataclass(slots=True)
class Piece:
    """What is left of a piece: file chunks first..end, which are chunks xorb_first.. of `xorb`.

    ``begin`` is where it began, before anything of it was written.
    """

    begin: int
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
    """The pieces of a plan, named by their first chunk."""

    def __init__(self, plan: FilePlan) -> None:
        self._pieces = {
            p.first: Piece(p.first, p.first, p.first + p.count, p.xorb, p.xorb_first, p.fetch) for p in plan.pieces
        }
        self._begins = list(self._pieces)
        self._of_fetch: list[list[int]] = [[] for _ in plan.fetches]
        for piece in self._pieces.values():
            self._of_fetch[piece.fetch].append(piece.begin)
        self.wanted = list(self._pieces)
        """The wanted pieces, in order."""
        self.wanted_chunks = plan.chunk_count
        self.open = len(self._pieces)
        """How many are not done."""
        self.generation = 0
        """Grows when a piece becomes wanted: who found nothing to do need not look again before."""

    def __getitem__(self, begin: int) -> Piece:
        return self._pieces[begin]

    def __iter__(self) -> Iterator[Piece]:
        """In file order."""
        return map(self._pieces.__getitem__, self._begins)

    def of_fetch(self, fetch: int) -> list[int]:
        """The pieces that one GET of the plan brings."""
        return self._of_fetch[fetch]

    def is_untouched(self, begin: int) -> bool:
        """Whether nothing of it was written on its own."""
        return self._pieces[begin].first == begin

    def is_whole(self, fetch: int, begins: list[int]) -> bool:
        """Whether these are all pieces of a GET of the plan, and untouched."""
        return begins == self._of_fetch[fetch] and all(map(self.is_untouched, begins))

    def wanted_from(self, chunk: int) -> int:
        """Where in `wanted` the first piece is of which something lies at or behind a chunk."""
        at = bisect_right(self.wanted, chunk)
        return at - 1 if at and self._pieces[self.wanted[at - 1]].end > chunk else at

    def wanted_in(self, ranges: Ranges) -> Iterator[Piece]:
        """The wanted pieces that `ranges` have a part of. Nothing may change while it runs."""
        seen = -1
        for start, end in ranges:
            at = self.wanted_from(start)
            while at < len(self.wanted):
                piece = self._pieces[self.wanted[at]]
                if piece.first >= end:
                    break
                if piece.begin != seen and piece.end > start:
                    seen = piece.begin
                    yield piece
                at += 1

    def split(self, begin: int, chunk: int) -> None:
        """Makes two of a piece; the second one begins with `chunk`, which is inside of what is left of it."""
        piece = self._pieces[begin]
        assert piece.state is not State.DONE and piece.first < chunk < piece.end
        xorb_first = piece.xorb_first + chunk - piece.first
        rest = Piece(chunk, chunk, piece.end, piece.xorb, xorb_first, piece.fetch, piece.state, list(piece.askers))
        piece.end = chunk
        self._pieces[chunk] = rest
        insort(self._begins, chunk)
        insort(self._of_fetch[piece.fetch], chunk)
        if piece.state is State.WANTED:
            insort(self.wanted, chunk)
        self.open += 1

    def ask(self, begin: int, assignment: int) -> None:
        """Somebody was asked for it."""
        piece = self._pieces[begin]
        if piece.state is State.WANTED:
            self._want_no_more(piece)
            piece.state = State.ASKED
        piece.askers.append(assignment)

    def answered(self, begin: int, assignment: int) -> None:
        """Somebody who was asked has ended: without anybody else, what is left is wanted again."""
        piece = self._pieces[begin]
        piece.askers.remove(assignment)
        if piece.state is State.ASKED and not piece.askers:
            self._want(piece)

    def advance(self, begin: int, end: int) -> None:
        """Chunks up to `end` of a piece that was asked for are written and proved."""
        piece = self._pieces[begin]
        if piece.state is State.DONE or end <= piece.first:
            return
        piece.xorb_first += end - piece.first
        piece.first = end
        if piece.first == piece.end:
            self.done(begin)

    def done(self, begin: int) -> None:
        """All of it is written."""
        piece = self._pieces[begin]
        if piece.state is State.DONE:
            return
        if piece.state is State.WANTED:
            self._want_no_more(piece)
        piece.state = State.DONE
        self.open -= 1

    def undo(self, first: int, end: int) -> None:
        """Chunks first..end of the file, with which a term begins, turned out wrong: they are wanted again.

        Nobody was asked for the rest of a piece that has a part of them.
        """
        for begin in self._begins[bisect_left(self._begins, first) : bisect_left(self._begins, end)]:
            piece = self._pieces[begin]
            if piece.state is State.WANTED and piece.first > begin:
                self._want_no_more(piece)
                piece.xorb_first -= piece.first - begin
                piece.first = begin
                self._want(piece)
            elif piece.state is State.DONE:
                piece.xorb_first -= piece.first - begin
                piece.first = begin
                self.open += 1
                if piece.askers:
                    piece.state = State.ASKED
                else:
                    self._want(piece)

    def runs(self, begins: Sequence[int]) -> Iterator[list[int]]:
        """Pieces, in order, as runs whose rests lie together in the file."""
        run: list[int] = []
        for begin in begins:
            if run and self._pieces[run[-1]].end != self._pieces[begin].first:
                yield run
                run = []
            run.append(begin)
        if run:
            yield run

    def _want(self, piece: Piece) -> None:
        piece.state = State.WANTED
        insort(self.wanted, piece.begin)
        self.wanted_chunks += piece.count
        self.generation += 1

    def _want_no_more(self, piece: Piece) -> None:
        del self.wanted[bisect_left(self.wanted, piece.begin)]
        self.wanted_chunks -= piece.count
