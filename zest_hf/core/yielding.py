"""GETs that run make room for peers that turn out to be there: which of them stop, and where. Pure.

A GET gives away its end and goes on from its front: that costs nothing but what it would have brought. How much it
gives away is decided by `core.policy`; here is what that depends on, and what it means for each GET.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from zest_hf.core.actions import StopGet
from zest_hf.core.asking import Asking
from zest_hf.core.assignments import Assignment, Assignments
from zest_hf.core.knowledge import Knowledge
from zest_hf.core.peers import Peers
from zest_hf.core.pieces import Piece, Pieces, State
from zest_hf.core.plan import FilePlan
from zest_hf.core.policy import (
    NOTHING_ELSEWHERE,
    Elsewhere,
    PolicySettings,
    Rates,
    is_worth_stopping,
    peers_suffice,
    peers_suffice_beside,
    share_bytes,
)
from zest_hf.core.ranges import Ranges, normalized, within
from zest_hf.core.rate import RateMeter

_METER_WINDOW_S = 0.3
_LOOK_S = 0.02
"""Where there was nothing to stop is looked again after this time."""
_NEVER = float("-inf")


class Flow:
    """What the CDN gives all GETs together."""

    def __init__(self, settings: PolicySettings) -> None:
        self._settings = settings
        self._meter = RateMeter(_METER_WINDOW_S)
        self._idle_since_s: float | None = None
        """When the first of the GETs began that have brought nothing yet."""
        self._began_s: float | None = None
        self._bytes = 0
        self.brought: dict[int, int] = {}
        """File bytes of each GET that runs."""
        self._moved_s: dict[int, float] = {}
        """When it has brought something last, or begun."""

    def began(self, number: int, now_s: float) -> None:
        if not self.brought:
            self._idle_since_s, self._began_s, self._bytes = now_s, None, 0
        self.brought[number] = 0
        self._moved_s[number] = now_s

    def note(self, brought: Mapping[int, int], now_s: float) -> None:
        """So much have GETs brought so far."""
        new = 0
        for number, before in self.brought.items():
            now = brought.get(number, before)
            if now > before:
                new += now - before
                self._moved_s[number] = now_s
            self.brought[number] = now
        self._add(new, now_s)

    def ended(self, number: int, size_bytes: int, now_s: float) -> None:
        """A GET is at its end with so much."""
        before = self.brought.pop(number)
        del self._moved_s[number]
        self._add(max(0, size_bytes - before), now_s)
        if not self.brought:
            self._meter.stop()

    def bytes_s(self, now_s: float) -> float | None:
        """None: it cannot be told yet."""
        if self._began_s is None:
            return None
        settings = self._settings
        if now_s - self._began_s < settings.measured_s and self._bytes < settings.measured_bytes:
            return None
        return self._meter.bytes_s(now_s)

    def flows_s(self, now_s: float) -> float:
        """How long ago the CDN began to give."""
        return 0.0 if self._began_s is None else now_s - self._began_s

    def silent_s(self, number: int, now_s: float) -> float:
        """For how long a GET has brought nothing."""
        return now_s - self._moved_s[number]

    def rest_s(self, number: int, size_bytes: float, now_s: float) -> float:
        """When a GET will have brought so much in all; infinite: nobody knows."""
        rate = self.bytes_s(now_s) or 0.0
        rest = max(0.0, size_bytes - self.brought[number])
        return rest * len(self.brought) / rate if rate > 0 else float("inf")

    def _add(self, size_bytes: int, now_s: float) -> None:
        if self._began_s is not None:
            self._bytes += size_bytes
            self._meter.add(size_bytes, now_s)
        elif size_bytes or (
            self._idle_since_s is not None and now_s - self._idle_since_s >= self._settings.cdn_latency_s
        ):
            # What has come by now came nobody knows when.
            self._began_s = now_s
            self._meter.start(now_s)


@dataclass(slots=True)
class _Get:
    """A GET that runs, with what of its end peers could bring: pieces in its own order, the last first."""

    number: int
    assignment: Assignment
    rest_bytes: float
    end: list[Piece]


@dataclass(slots=True)
class _Beside:
    """GETs that were made beside peers."""

    alone_bytes_s: float
    """What those gave to all files until then."""
    cdn_bytes_s: float | None = None
    """What the CDN gave at most; None: it cannot be told yet."""


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
        self._beside: _Beside | None = None
        self._adds_nothing_s = settings.adds_nothing_s
        self._adds_nothing_until_s = _NEVER
        self._elsewhere = NOTHING_ELSEWHERE
        self.flow = Flow(settings)

    def look(self, elsewhere: Elsewhere, now_s: float) -> None:
        """What peers give to other files now."""
        self._elsewhere = elsewhere
        beside = self._beside
        if beside is None:
            return
        if self._assignments.gets and self.flow.flows_s(now_s) >= self._settings.cdn_measured_s:
            beside.cdn_bytes_s = max(beside.cdn_bytes_s or 0.0, self.flow.bytes_s(now_s) or 0.0)
        # What the line was full of may have become less.
        if now_s < self._adds_nothing_until_s and now_s - self._stopped_s >= self._settings.recovers_s:
            total = self._peers.rate_bytes_s(now_s) + elsewhere.bytes_s
            if total < beside.alone_bytes_s / self._settings.adds_factor**2:
                self._adds_nothing_until_s = _NEVER

    def go_beside(self, peers_bytes_s: float) -> None:
        """The CDN is about to be asked for what peers have given at this rate alone."""
        self._beside = _Beside(peers_bytes_s)

    def go_alone(self) -> None:
        """The CDN is asked as no peer is of use: what those gave that there were says nothing of who may come."""
        self._beside = None
        self._adds_nothing_until_s = _NEVER

    def alone_bytes_s(self, now_s: float) -> float:
        """What peers gave to all files before that; 0 if it does not matter any more."""
        if self._beside is None:
            return 0.0
        just_now = now_s - self._stopped_s < self._settings.recovers_s
        return self._beside.alone_bytes_s if self._assignments.gets or just_now else 0.0

    @property
    def cdn_bytes_s(self) -> float | None:
        """What the CDN gave beside peers; None: nobody knows."""
        return None if self._beside is None else self._beside.cdn_bytes_s

    def adds_nothing(self, now_s: float) -> bool:
        return now_s < self._adds_nothing_until_s

    def peers_gave(self, size_bytes: int) -> None:
        self._peers_gave_bytes += size_bytes

    def stopped_just_now(self, now_s: float) -> bool:
        """What is wanted may be what was left to peers a moment ago."""
        return now_s - self._stopped_s < self._settings.left_alone_s and self._assignments.gets > 0

    def rates(self, now_s: float) -> Rates:
        return Rates(self._peers_bytes_s(now_s), self.flow.bytes_s(now_s))

    def peers_suffice(self, now_s: float) -> bool:
        """Whether peers give as much as the CDN does, and enough, of what GETs would bring: not of what is done."""
        rates = self.rates(now_s)
        if self._beside is not None and self._assignments.gets:
            return self._suffice_beside(self._beside, now_s)
        if not peers_suffice(rates, self._settings):
            return False
        pieces = [self._pieces[begin] for _, get in self._assignments.running_gets() for begin in get.pieces]
        rest = normalized([(one.first, one.end) for one in pieces if one.state is not State.DONE], self._chunks)
        rates = replace(rates, peers_bytes_s=self._peers.rate_bytes_s_of(rest, now_s))
        return peers_suffice(rates, self._settings)

    def _suffice_beside(self, beside: _Beside, now_s: float) -> bool:
        if beside.cdn_bytes_s is None:
            return False
        peers_bytes_s = self._peers.rate_bytes_s(now_s) + self._elsewhere.bytes_s
        rates = Rates(peers_bytes_s, beside.cdn_bytes_s)
        alone = beside.alone_bytes_s
        if not peers_suffice_beside(alone, rates, self._elsewhere.files == 0, self._settings):
            return False
        if alone < self._settings.fair_rate_bytes_s and not self.adds_nothing(now_s):
            self._adds_nothing_until_s = now_s + self._adds_nothing_s
            self._adds_nothing_s *= 2
        return True

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
        if self._beside is not None:
            rates = replace(rates, peers_bytes_s=self._beside.alone_bytes_s)
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
