"""What is being asked for: each action that runs, with the pieces that it is to bring. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from zest_hf.core.actions import AskPeer, CancelPeer, CopyLocal, FetchRun, FetchWhole, Follow
from zest_hf.core.pieces import Piece, Pieces, State

Work = AskPeer | FetchRun | FetchWhole | Follow | CopyLocal
"""Actions that bring something, and end by a report."""


@dataclass(slots=True)
class Assignment:
    """An action that runs."""

    action: Work
    pieces: list[int]
    asked_s: float
    cancelled: bool = False
    stop_at: int | None = None
    """Of a GET: it was told to stop there and has not said where it does, or it had come further already."""
    ends: int | None = None
    """... and that it brings no more than so many chunks."""

    @property
    def is_blind(self) -> bool:
        """Nobody else may write where it does, as nothing of it is checked."""
        if isinstance(self.action, FetchWhole):
            return self.action.expected is None
        return isinstance(self.action, Follow)

    @property
    def is_get(self) -> bool:
        """The CDN is asked."""
        return isinstance(self.action, FetchWhole | FetchRun)

    def index(self, piece: Piece) -> int:
        """Of the chunks that a GET brings, which one what is left of a piece begins with."""
        if isinstance(self.action, FetchWhole | Follow):
            return piece.xorb_first - self.action.fetch.source.start
        return piece.first - self.action.first

    def brings(self, piece: Piece, chunks: int) -> int:
        """Where what a GET brings of a piece ends, in the file, when it brings its first ``chunks``."""
        return piece.first + max(0, min(piece.count, chunks - self.index(piece)))


class Assignments:
    """By number, in the order in which they began."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._running: dict[int, Assignment] = {}
        self._cancels: list[CancelPeer] = []
        self.next_number = 1
        self.gets = 0
        """How many of them are the CDN's."""

    def __getitem__(self, number: int) -> Assignment:
        return self._running[number]

    def get(self, number: int) -> Assignment | None:
        """None: it has ended."""
        return self._running.get(number)

    def running_gets(self) -> list[tuple[int, Assignment]]:
        """Those of the CDN."""
        if not self.gets:
            return []
        return [one for one in self._running.items() if one[1].is_get]

    def running_copies(self) -> list[Assignment]:
        """Those from this disk."""
        return [one for one in self._running.values() if isinstance(one.action, CopyLocal)]

    def latest_first(self) -> Iterator[tuple[int, Assignment]]:
        return reversed(self._running.items())

    def begin(self, action: Work, pieces: list[int], now_s: float) -> Work:
        """``action`` has to bear `next_number`."""
        assert action.assignment == self.next_number
        self.next_number += 1
        self._running[action.assignment] = begun = Assignment(action, pieces, now_s)
        self.gets += begun.is_get
        for begin in pieces:
            self._pieces.ask(begin, action.assignment)
        return action

    def end(self, number: int) -> Assignment:
        """It has ended, with what it brought noted in the pieces afterwards: `answered` follows."""
        ended = self._running.pop(number)
        self.gets -= ended.is_get
        return ended

    def answered(self, number: int, ended: Assignment) -> None:
        """What it did not bring is wanted again; what others were asked for and it has brought is called off."""
        for begin in ended.pieces:
            self._pieces.answered(begin, number)
            piece = self._pieces[begin]
            if piece.state is State.DONE:
                for other in piece.askers:
                    self.cancel(other)
            else:
                self._leave_rest(begin)

    def stopped(self, number: int, chunks: int) -> None:
        """A GET brings no more than its first ``chunks``: what lies behind is wanted again."""
        assignment = self._running[number]
        if assignment.stop_at is None or chunks <= assignment.stop_at:
            assignment.stop_at = None
        assignment.ends = chunks
        kept = []
        for begin in assignment.pieces:
            piece = self._pieces[begin]
            end = assignment.brings(piece, chunks)
            if piece.state is not State.DONE and piece.first < end < piece.end and piece.askers == [number]:
                self._pieces.split(begin, end)
                self._pieces.answered(end, number)
            elif piece.state is not State.DONE and end == piece.first:
                self._pieces.answered(begin, number)
                continue
            kept.append(begin)
        assignment.pieces = kept

    def _leave_rest(self, begin: int) -> None:
        """GETs that end before what is left of a piece bring nothing more of it."""
        piece = self._pieces[begin]
        for number in list(piece.askers):
            one = self._running[number]
            if one.ends is not None and one.brings(piece, one.ends) == piece.first:
                self._pieces.answered(begin, number)
                one.pieces.remove(begin)

    def cancel(self, number: int) -> None:
        """A peer need not go on with it; a GET may be doing others as well."""
        assignment = self._running[number]
        if isinstance(assignment.action, AskPeer) and not assignment.cancelled:
            assignment.cancelled = True
            self._cancels.append(CancelPeer(number, assignment.action.peer))

    def take_cancels(self) -> list[CancelPeer]:
        """Those that nobody was told of yet."""
        cancels = [cancel for cancel in self._cancels if cancel.assignment in self._running]
        self._cancels.clear()
        return cancels
