"""GETs that run make room for peers that turn out to be there: which of them stop, and where. Pure.

A GET gives away its end and goes on from its front: that costs nothing but what it would have brought. How much it
gives away is decided by `core.policy`; here is what that depends on, and what it means for each GET.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from zest_hf.core.actions import StopGet
from zest_hf.core.asking import Asking
from zest_hf.core.assignments import Assignment, Assignments
from zest_hf.core.beside import Beside
from zest_hf.core.flow import Flow
from zest_hf.core.knowledge import Knowledge
from zest_hf.core.peers import Peers
from zest_hf.core.pieces import Piece, Pieces, State
from zest_hf.core.plan import FilePlan
from zest_hf.core.policy import PolicySettings, Rates, is_worth_stopping, peers_suffice, share_bytes
from zest_hf.core.ranges import Ranges, normalized, within

_LOOK_S = 0.02
"""Where there was nothing to stop is looked again after this time."""
_NEVER = float("-inf")


@dataclass(slots=True)
class _Get:
    """A GET that runs, with what of its end peers could bring: pieces in its own order, the last first."""

    number: int
    assignment: Assignment
    rest_bytes: float
    end: list[Piece]


class Yielding:
    """See the module."""

    def __init__(
        self,
        pieces: Pieces,
        knowledge: Knowledge,
        assignments: Assignments,
        peers: Peers,
        asking: Asking,
        settings: PolicySettings,
        plan: FilePlan,
    ) -> None:
        self._chunks = plan.chunk_count
        self._chunk_bytes = plan.size_bytes / max(plan.chunk_count, 1)
        self._pieces = pieces
        self._knowledge = knowledge
        self._assignments = assignments
        self._peers = peers
        self._asking = asking
        self._settings = settings
        self._peers_gave_bytes = 0
        self._stopped_s = self._again_s = _NEVER
        self.flow = Flow(settings)
        self.beside = Beside(self.flow, settings)

    def peers_gave(self, size_bytes: int) -> None:
        self._peers_gave_bytes += size_bytes

    def stopped_just_now(self, now_s: float) -> bool:
        """What is wanted may be what was left to peers a moment ago."""
        return now_s - self._stopped_s < self._settings.left_alone_s and self._assignments.gets > 0

    def rates(self, now_s: float) -> Rates:
        return Rates(self._peers_bytes_s(now_s), self.flow.bytes_s(now_s))

    def peers_suffice(self, now_s: float) -> bool:
        """Whether peers give as much as the CDN does, and enough, of what GETs would bring: not of what is done."""
        if self.beside.runs:
            return self.beside.peers_suffice(now_s)
        rates = self.rates(now_s)
        if not peers_suffice(rates, self._settings):
            return False
        pieces = [self._pieces[begin] for _, get in self._assignments.running_gets() for begin in get.pieces]
        rest = normalized([(one.first, one.end) for one in pieces if one.state is not State.DONE], self._chunks)
        rates = replace(rates, peers_bytes_s=self._peers.rate_bytes_s_of(rest, now_s))
        return peers_suffice(rates, self._settings)

    def cdn_s(self, size_bytes: float, now_s: float) -> float:
        """When the CDN would have brought so much more than what its GETs are to bring; 0: nobody knows."""
        rate = self.flow.bytes_s(now_s) or 0.0
        if rate <= 0:
            return 0.0
        rest = size_bytes
        for number, get in self._assignments.running_gets():
            open_ = [one for one in map(self._pieces.__getitem__, get.pieces) if one.state is not State.DONE]
            size = sum(one.count for one in open_) * self._chunk_bytes
            rest += max(0.0, size - self.flow.brought.get(number, 0))
        return rest / rate

    def stops(self, now_s: float) -> Iterator[StopGet]:
        """With peers just asked for what there was: which GETs stop."""
        if not self._assignments.gets or now_s < self._again_s:
            return
        rates = self.rates(now_s)
        stopped = False
        for stop in self._all(rates, now_s) if self.peers_suffice(now_s) else self._some(rates, now_s):
            stopped = True
            yield stop
        if not stopped:
            self._again_s = now_s + _LOOK_S

    def _peers_bytes_s(self, now_s: float) -> float | None:
        since_s, settings = self._asking.since_s, self._settings
        is_measured = self._peers_gave_bytes >= settings.measured_bytes or (
            self._peers_gave_bytes and since_s is not None and now_s - since_s >= settings.measured_s
        )
        return self._peers.rate_bytes_s(now_s) if is_measured else None

    def _all(self, rates: Rates, now_s: float) -> Iterator[StopGet]:
        gets = self._gets(self._peers.held(now_s))
        if self.beside.runs:
            rates = replace(rates, peers_bytes_s=self.beside.alone_bytes_s(now_s))
        rate = (rates.cdn_bytes_s or 0.0) / max(len(self.flow.brought), 1)
        for get in gets:
            if get.end and is_worth_stopping(get.rest_bytes, rate, rates, self._settings):
                yield self._stop(get, get.assignment.index(get.end[-1]), now_s)

    def _some(self, rates: Rates, now_s: float) -> Iterator[StopGet]:
        held, room = self._asking.room(now_s)
        if not held:
            return
        gets = self._gets(held)
        rest = sum(get.rest_bytes for get in gets) + self._pieces.wanted_chunks * self._chunk_bytes
        ahead, rate = self._peers.ahead_bytes(now_s), self._peers.rate_bytes_s(now_s)
        left = min(room, share_bytes(rest, ahead, rate, rates, self._settings))
        # Half of what each has at most: more of them bring more than one alone.
        for get in sorted(gets, key=lambda get: -get.rest_bytes):
            size = min(left, get.rest_bytes / 2)
            if not get.end or size < self._settings.least_ask_bytes / 2:
                continue
            at, found = self._cut(get, size)
            if not found:
                continue
            left -= found
            yield self._stop(get, at, now_s)

    def _stop(self, get: _Get, at: int, now_s: float) -> StopGet:
        get.assignment.stop_at = at
        self._stopped_s = now_s
        return StopGet(get.number, at)

    def _gets(self, held: Ranges) -> list[_Get]:
        """Those that can be stopped: everything that they would bring is known, and some of it peers hold."""
        out = []
        for number, assignment in self._assignments.running_gets():
            if assignment.stop_at is not None:
                continue
            open_ = [p for p in map(self._pieces.__getitem__, assignment.pieces) if p.state is not State.DONE]
            if not open_ or not all(self._is_known(piece) for piece in open_):
                continue
            open_.sort(key=assignment.index, reverse=True)
            size = sum(self._size(piece.first, piece.end) for piece in open_)
            end = []
            for piece in open_:
                if len(piece.askers) > 1 or list(within(held, piece.first, piece.end)) != [(piece.first, piece.end)]:
                    break
                end.append(piece)
            rest = max(0, size - self.flow.brought.get(number, 0))
            out.append(_Get(number, assignment, rest, end))
        return out

    def _cut(self, get: _Get, size_bytes: float) -> tuple[int, int]:
        """Where about the last so many bytes of a GET begin, at most what peers hold of its end; how many they are."""
        found, at = 0, get.assignment.index(get.end[0]) + get.end[0].count
        for piece in get.end:
            size = self._size(piece.first, piece.end)
            count = piece.count
            if found + size > size_bytes:
                count = int(count * (size_bytes - found) / size)
                size = self._size(piece.end - count, piece.end)
            found += size
            if count:
                at = get.assignment.index(piece) + piece.count - count
            if count < piece.count:
                break
        return at, found

    def _is_known(self, piece: Piece) -> bool:
        return list(within(self._knowledge.known, piece.first, piece.end)) == [(piece.first, piece.end)]

    def _size(self, first: int, end: int) -> int:
        return self._knowledge.offset(end) - self._knowledge.offset(first)
