"""The peers of one file: what each holds, how fast it is, and what it is asked for next. Pure.

What nobody else holds is taken first, so that those who download the same file together have different parts of it
to give each other. Among equals each peer goes on where it is, to the end of a GET's pieces, and then anywhere: where
is each node's own choice.

When nothing is left to ask for, who is idle is asked for what a slower peer has waiting, which is called off there, or
is sending, which both then race for. That is safe because both check what they write.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from zest_hf.core.actions import AskPeer, CopyLocal, PeerTrouble
from zest_hf.core.assignments import Assignment, Assignments, Work
from zest_hf.core.knowledge import Knowledge
from zest_hf.core.pieces import Piece, Pieces, State
from zest_hf.core.plan import FilePlan
from zest_hf.core.policy import PolicySettings, ask_bytes, has_room, rest_s
from zest_hf.core.ranges import Ranges, added, common, contains, normalized, within, without
from zest_hf.core.rate import RateMeter

_NEVER = float("-inf")

CANDIDATES = 12
"""Pieces that are compared by how many hold them, and peers that are counted for that: not all, as files are large."""
COUNTED_PEERS = 24
CROWD_SHARE = 0.01
"""The part of a file that one of several peers is asked for at once, at most."""
JUMPS = 0.3
"""How often not to go on in order: two nodes that have come to the same place must not stay together."""
STEAL_MARGIN_S = 0.05
LOOK_S = 0.05
LOOKING_PEERS = 8
LOOKED_AT = 24
"""Whether an idle peer could take something over is looked at so often, for so many of them at a time, and among so
many things that others were asked for: all of them, when few are left."""


@dataclass(slots=True)
class Peer:
    """What is known of one. Ranges are chunks of the file."""

    by_file: Ranges = ()
    by_xorb: Ranges = ()
    """What it holds of xorbs that the file takes from."""
    askable: Ranges = ()
    """... of both, as far as it can be checked."""
    assignments: dict[int, int] = field(default_factory=dict)
    """Bytes that it was asked for, in the order of asking."""
    ahead_bytes: int = 0
    """... all of them."""
    meter: RateMeter = field(default_factory=RateMeter)
    suspended_until_s: float = _NEVER
    struck_s: float = _NEVER
    """When it was of no use last, and how often in a row:"""
    strikes: int = 0
    cursor: tuple[int, int] | None = None
    """Where the last piece ended that it was asked for, and the GET of that."""
    looked_s: float = _NEVER
    """When it was looked for what it could take over from others."""
    idle_generation: int = -1
    """Of the pieces, when it was found that it holds nothing that is wanted."""

    def is_able(self, now_s: float) -> bool:
        return bool(self.askable) and self.suspended_until_s <= now_s

    def has_all_of(self, piece: Piece) -> bool:
        """Whether it holds what is left of a piece, in one way or the other."""
        return contains(self.by_file, piece.first, piece.end) or contains(self.by_xorb, piece.first, piece.end)

    def part_of(self, piece: Piece) -> tuple[int, int] | None:
        """The longest part of what is left of a piece that it holds in one way or the other."""
        if self.has_all_of(piece):
            return piece.first, piece.end
        parts = chain(within(self.by_file, piece.first, piece.end), within(self.by_xorb, piece.first, piece.end))
        return max(parts, key=_length, default=None)

    def expected_end_s(self, assignment: int, now_s: float) -> float:
        """How long it will need for one of the things that it was asked for."""
        rate = self.meter.bytes_s(now_s)
        ahead = sum(size for other, size in self.assignments.items() if other <= assignment)
        return ahead / rate if rate > 0 else float("inf")


class Peers:
    """See the module. ``seed`` makes the order of pieces; None is the file's."""

    def __init__(
        self,
        pieces: Pieces,
        knowledge: Knowledge,
        assignments: Assignments,
        settings: PolicySettings,
        plan: FilePlan,
        seed: int | None,
    ) -> None:
        self._pieces = pieces
        self._knowledge = knowledge
        self._assignments = assignments
        self._settings = settings
        self._chunks = plan.chunk_count
        self._chunk_bytes = plan.size_bytes / max(plan.chunk_count, 1)
        """Of a mean chunk."""
        self._all: Ranges = normalized([(0, plan.chunk_count)], plan.chunk_count)
        self._random = None if seed is None else random.Random(seed)
        self._peers: dict[int, Peer] = {}
        self.since_s: float | None = None
        """When the first piece was asked for."""

    # --- what they hold ----------------------------------------------------------------------------------

    def holds(self, number: int, ranges: Sequence[tuple[int, int]]) -> None:
        """It holds these chunks of the file: replaces what was known of that."""
        peer = self._known(number)
        peer.by_file = normalized(ranges, self._chunks)
        self._learn(peer)

    def holds_more(self, number: int, ranges: Sequence[tuple[int, int]], *, by_xorb: bool) -> None:
        """It holds these chunks of the file as well, as the file's or as those of xorbs."""
        peer = self._known(number)
        new = normalized(ranges, self._chunks)
        for first, end in new:
            if by_xorb:
                peer.by_xorb = added(peer.by_xorb, first, end)
            else:
                peer.by_file = added(peer.by_file, first, end)
        self._learn_more(peer, common(new, self._knowledge.known))

    def lacks(self, number: int, ranges: Sequence[tuple[int, int]]) -> None:
        """It does not hold these chunks any more."""
        peer = self._peers.get(number)
        if peer is not None:
            for first, end in ranges:
                self._forget(peer, first, end)
            self._learn(peer)

    def gone(self, number: int) -> None:
        """Its assignments end by themselves: each reports."""
        peer = self._peers.get(number)
        if peer is not None:
            peer.by_file = peer.by_xorb = ()
            self._learn(peer)

    def more_is_known(self, new: Ranges) -> None:
        """These chunks can be checked that could not before."""
        for peer in self._peers.values():
            for held in (peer.by_file, peer.by_xorb):
                if held:
                    self._learn_more(peer, common(new, held))

    def useful(self, now_s: float) -> list[Peer]:
        """Those that were asked for something and may be asked for more."""
        return [peer for peer in self._peers.values() if peer.assignments and peer.is_able(now_s)]

    def rate_bytes_s(self, now_s: float) -> float:
        """What those give together that may be asked, also those that have nothing to do."""
        return sum(peer.meter.bytes_s(now_s) for peer in self._peers.values() if peer.is_able(now_s))

    def rate_bytes_s_of(self, rest: Ranges, now_s: float) -> float:
        """... of those that hold some of these chunks, or have something to do."""
        return sum(
            peer.meter.bytes_s(now_s)
            for peer in self._peers.values()
            if peer.is_able(now_s) and (peer.assignments or peer.askable == self._all or common(peer.askable, rest))
        )

    def ahead_bytes(self, now_s: float) -> int:
        """What they still have to do."""
        return sum(peer.ahead_bytes for peer in self._peers.values() if peer.is_able(now_s))

    def held(self, now_s: float) -> Ranges:
        """The chunks that could be asked for now."""
        able = [one for peer in self._peers.values() if peer.is_able(now_s) for one in peer.askable]
        return normalized(able, self._chunks)

    def room(self, now_s: float) -> tuple[Ranges, float]:
        """With `ask` just done: what those hold that found too little, and how many bytes they would take."""
        held: list[tuple[int, int]] = []
        room = 0.0
        for peer in self._peers.values():
            if not self._found_too_little(peer, now_s):
                continue
            rate = peer.meter.bytes_s(now_s)
            held += peer.askable
            if rate > 0:
                size, requests = self._size(rate, 1.0), len(peer.assignments)
                least = (self._settings.min_depth - requests) * size
                most = (self._settings.max_depth - requests) * size
                room += max(least, min(most, rate * self._settings.window_s - peer.ahead_bytes))
            elif not peer.assignments:
                room += self._settings.least_ask_bytes
        return normalized(held, self._chunks), room

    def any_may_give(self) -> bool:
        """Whether one of them, perhaps suspended, holds something that is wanted."""
        return any(next(self._pieces.wanted_in(peer.askable), None) for peer in self._peers.values())

    def held_by_any(self) -> Ranges:
        """The chunks that at least one of them claims to hold, also those that cannot be checked yet."""
        return normalized(
            [one for peer in self._peers.values() for one in (*peer.by_file, *peer.by_xorb)], self._chunks
        )

    def _known(self, number: int) -> Peer:
        peer = self._peers.get(number)
        if peer is None:
            peer = self._peers[number] = Peer()
        return peer

    def _learn(self, peer: Peer) -> None:
        held = normalized((*peer.by_file, *peer.by_xorb), self._chunks) if peer.by_xorb else peer.by_file
        peer.askable = common(held, self._knowledge.known)
        peer.idle_generation = -1

    def _learn_more(self, peer: Peer, new: Ranges) -> None:
        """It can be asked for these chunks as well."""
        for first, end in new:
            peer.askable = added(peer.askable, first, end)
        # Told of often: who has got what is not wanted has no more to do than before.
        if next(self._pieces.wanted_in(new), None) is not None:
            peer.idle_generation = -1

    def _forget(self, peer: Peer, first: int, end: int) -> None:
        peer.by_file = without(peer.by_file, first, end)
        peer.by_xorb = without(peer.by_xorb, first, end)

    # --- what they did -----------------------------------------------------------------------------------

    def ended(
        self, number: int, ended: Assignment, chunks_written: int, trouble: PeerTrouble | None, now_s: float
    ) -> int:
        """One was asked for something and has brought the first so many chunks of it: bytes that were of use."""
        asked = ended.action
        assert isinstance(asked, AskPeer)
        peer = self._peers[asked.peer]
        written_end = asked.first + chunks_written
        offset = self._knowledge.offset
        size = offset(written_end) - offset(asked.first)
        peer.meter.add(size, now_s)
        peer.ahead_bytes -= peer.assignments.pop(number)
        if not peer.assignments:
            peer.meter.stop()
        (begin,) = ended.pieces
        piece = self._pieces[begin]
        useful_bytes = 0
        if piece.state is not State.DONE and written_end > piece.first:
            useful_bytes = offset(written_end) - offset(piece.first)
            self._pieces.advance(begin, written_end)
        self._assignments.answered(number, ended)
        if chunks_written:
            peer.strikes = 0
        if trouble is not None and trouble is not PeerTrouble.CANCELLED and chunks_written < asked.count:
            self._blame(peer, ended, written_end, trouble, now_s)
        return useful_bytes

    def _blame(
        self, peer: Peer, ended: Assignment, written_end: int, trouble: PeerTrouble, now_s: float
    ) -> None:
        asked, settings = ended.action, self._settings
        assert isinstance(asked, AskPeer)
        if trouble is PeerTrouble.GONE:
            self.gone(asked.peer)
            return
        if trouble is PeerTrouble.LACKS:
            self._forget(peer, written_end, asked.first + asked.count)
            self._learn(peer)
        # What it was asked for before the last time says nothing new, and who gives something is of use.
        if written_end == asked.first and ended.asked_s >= peer.struck_s:
            peer.struck_s = now_s
            peer.strikes += 1
        if trouble is PeerTrouble.SILENT:
            rest = rest_s(peer.strikes, settings.suspension_s, settings.longest_suspension_s)
        elif trouble is PeerTrouble.BUSY:
            rest = rest_s(peer.strikes, settings.busy_rest_s, settings.suspension_s)
        elif peer.strikes >= settings.fruitless_limit:
            rest = rest_s(
                peer.strikes - settings.fruitless_limit + 1, settings.suspension_s, settings.longest_suspension_s
            )
        else:
            return
        peer.suspended_until_s = max(peer.suspended_until_s, now_s + rest)

    # --- what they are asked for ---------------------------------------------------------------------------

    def ask(self, now_s: float) -> Iterator[Work]:
        """What to ask for now of what is wanted."""
        able = {number: peer for number, peer in self._peers.items() if peer.is_able(now_s)}
        rates = {number: peer.meter.bytes_s(now_s) for number, peer in able.items()}
        total_rate = sum(rates.values())
        generation = self._pieces.generation
        waiting = [number for number in able if self._has_room(able[number], rates[number])]
        # One thing for each in turn, those first that will be done first.
        waiting.sort(key=lambda number: able[number].ahead_bytes / max(rates[number], 1.0))
        while waiting:
            again = []
            for number in waiting:
                peer, rate = able[number], rates[number]
                found = None if peer.idle_generation == generation else self._pick(peer, list(able.values()))
                if found is None:
                    peer.idle_generation = generation
                    continue
                share = rate / total_rate if len(able) > 1 and total_rate > 0 else 1.0
                yield self._ask(number, self._cut(*found, self._size(rate, share)), now_s)
                if self._has_room(peer, rate):
                    again.append(number)
            waiting = again

    def take_over(self, now_s: float) -> Iterator[Work]:
        """With `ask` just done, and nothing more to come: what those may bring that found too little."""
        idle = [
            (peer.looked_s, number)
            for number, peer in self._peers.items()
            if now_s - peer.looked_s >= LOOK_S and self._found_too_little(peer, now_s)
        ]
        late: dict[float, list[tuple[int, int]]] = {}
        for _, number in sorted(idle)[:LOOKING_PEERS]:
            peer = self._peers[number]
            peer.looked_s = now_s
            rate = peer.meter.bytes_s(now_s)
            # Who has given nothing yet may try what is overdue, and is of no use for more.
            after_s = 0.0 if rate > 0 else self._settings.overdue_s
            if after_s not in late:
                late[after_s] = list(islice(self.late(now_s, after_s), LOOKED_AT))
            for work in self._take_over(number, rate, late[after_s], now_s):
                late.clear()
                yield work

    def _found_too_little(self, peer: Peer, now_s: float) -> bool:
        return (
            peer.idle_generation == self._pieces.generation
            and peer.is_able(now_s)
            and self._has_room(peer, peer.meter.bytes_s(now_s))
        )

    def _has_room(self, peer: Peer, rate: float) -> bool:
        return has_room(len(peer.assignments), peer.ahead_bytes, rate, self._settings)

    def _size(self, rate: float, share: float) -> float:
        """How many bytes to ask for. Towards the end they become fewer, so that all end together."""
        size = ask_bytes(rate, self._settings)
        if len(self._peers) > 1:
            # Of a small file, the little that each has asked for must not be most of it.
            size = max(self._settings.least_ask_bytes, min(size, self._chunks * self._chunk_bytes * CROWD_SHARE))
        if share < 1.0 and rate > 0:
            left = self._pieces.wanted_chunks * self._chunk_bytes * share / 2
            size = max(self._settings.least_ask_bytes, min(size, left))
        return size

    def _pick(self, me: Peer, able: list[Peer]) -> tuple[Piece, int, int] | None:
        """A wanted piece, and the part of it that this peer has."""
        if next(self._pieces.wanted_in(me.askable), None) is None:
            return None
        # Who holds all of it makes no piece less rare than another.
        others = [peer for peer in able if peer is not me and peer.askable != self._all]
        if self._random is not None and len(others) > COUNTED_PEERS:
            others = self._random.sample(others, COUNTED_PEERS)
        best: tuple[Piece, int, int] | None = None
        best_score: tuple[bool, int, bool] | None = None
        for piece in self._candidates(me, alone=not others):
            part = me.part_of(piece)
            # Pieces lie within a term, of which either all is known or nothing.
            if part is None or not contains(self._knowledge.known, *part):
                continue
            is_part = part != (piece.first, piece.end)
            is_small = is_part and _length(part) * self._chunk_bytes < self._settings.least_ask_bytes
            score = (is_small, sum(contains(other.askable, *part) for other in others), is_part)
            if best_score is None or score < best_score:
                best, best_score = (piece, *part), score
                if score == (False, 0, False):
                    break
        return best

    def _candidates(self, me: Peer, *, alone: bool) -> Iterator[Piece]:
        """Some of the wanted pieces that a peer may have a part of: at least one if there are any."""
        pieces, wanted = self._pieces, self._pieces.wanted
        if me.cursor is not None and wanted and self._random is not None and self._random.random() > JUMPS:
            chunk, fetch = me.cursor
            at = pieces.wanted_from(chunk)
            if at < len(wanted) and pieces[wanted[at]].fetch == fetch:
                yield pieces[wanted[at]]
        if self._random is None:
            yield from islice(pieces.wanted_in(me.askable), 1 if alone else CANDIDATES)
            return
        if len(wanted) <= CANDIDATES:
            yield from map(pieces.__getitem__, self._random.sample(wanted, len(wanted)))
            return
        for _ in range(CANDIDATES):
            start, end = self._random.choice(me.askable)
            at = pieces.wanted_from(self._random.randrange(start, end))
            if at < len(wanted):
                yield pieces[wanted[at]]
        # Chance may have missed what there is.
        yield from islice(pieces.wanted_in(me.askable), 1)

    def _cut(self, piece: Piece, first: int, end: int, size_bytes: float) -> Piece:
        """Makes a piece of its own of a part, or of the beginning of it when it is too large."""
        if first > piece.first:
            self._pieces.split(piece.begin, first)
            piece = self._pieces[first]
        size = self._knowledge.offset(end) - self._knowledge.offset(first)
        # Rather a larger one than a scrap that is left over.
        if size > 1.5 * size_bytes:
            end = first + max(1, round((end - first) * size_bytes / size))
        if end < piece.end:
            self._pieces.split(piece.begin, end)
        return piece

    def _ask(self, number: int, piece: Piece, now_s: float) -> Work:
        peer = self._peers[number]
        if self.since_s is None:
            self.since_s = now_s
        if not peer.assignments:
            peer.meter.start(now_s)
        assignment = self._assignments.next_number
        size = self._knowledge.offset(piece.end) - self._knowledge.offset(piece.first)
        peer.assignments[assignment] = size
        peer.ahead_bytes += size
        peer.cursor = piece.end, piece.fetch
        by_xorb = not contains(peer.by_file, piece.first, piece.end)
        ask = AskPeer(assignment, number, piece.first, piece.count, piece.xorb, piece.xorb_first, by_xorb)
        return self._assignments.begin(ask, [piece.begin], now_s)

    # --- what is late --------------------------------------------------------------------------------------

    def _take_over(self, number: int, rate: float, late: list[tuple[int, int]], now_s: float) -> Iterator[Work]:
        """With nothing else to do: of pieces that were asked for, those that others would give later."""
        me = self._peers[number]
        for first_asked, begin in self._later_than(me, rate, late, now_s):
            if not self._has_room(me, rate):
                return
            owner = self._assignments[first_asked].action
            yield self._ask(number, self._pieces[begin], now_s)
            # What it is sending already it may go on with: who is first wins.
            if (
                rate > 0
                and isinstance(owner, AskPeer)
                and next(iter(self._peers[owner.peer].assignments)) != first_asked
            ):
                self._assignments.cancel(first_asked)

    def _later_than(
        self, me: Peer, rate: float, late: list[tuple[int, int]], now_s: float
    ) -> list[tuple[int, int]]:
        rate = rate or max(self._settings.fair_rate_bytes_s, 1.0)
        out = []
        for number, begin in late:
            piece = self._pieces[begin]
            here_s = (me.ahead_bytes + piece.count * self._chunk_bytes) / rate
            if (
                len(piece.askers) == 1
                and number not in me.assignments
                and me.has_all_of(piece)
                and self._is_later_than(number, 2 * here_s + STEAL_MARGIN_S, now_s)
            ):
                out.append((number, begin))
        return out

    def _is_later_than(self, number: int, after_s: float, now_s: float, judged_s: float | None = None) -> bool:
        assignment = self._assignments[number]
        judged_s = self._settings.overdue_s if judged_s is None else judged_s
        if not isinstance(assignment.action, AskPeer):
            return now_s - assignment.asked_s >= judged_s
        owner = self._peers[assignment.action.peer]
        # Who was asked just now for the first time may be fast.
        is_judged = owner.meter.bytes_s(now_s) > 0 or now_s - assignment.asked_s >= judged_s
        return is_judged and owner.expected_end_s(number, now_s) > after_s

    def late(self, now_s: float, after_s: float) -> Iterator[tuple[int, int]]:
        """Assignments that were begun so long ago, and their pieces that nobody had been asked for before.

        The last first: sources give what they were asked for in order.
        """
        for number, assignment in self._assignments.latest_first():
            is_copy = isinstance(assignment.action, CopyLocal)
            # Nobody is to be asked for what is here only because the disk is slow.
            patience_s = max(after_s, self._settings.copy_patience_s) if is_copy else after_s
            if now_s - assignment.asked_s < patience_s or assignment.is_blind:
                continue
            for begin in reversed(assignment.pieces):
                piece = self._pieces[begin]
                if piece.state is State.ASKED and piece.askers[0] == number:
                    yield number, begin

    def overdue(self, now_s: float, longest_s: float) -> list[int]:
        """Pieces whose first source has had them for too long, and is expected to need as long again."""
        return [
            begin
            for number, begin in self.late(now_s, longest_s)
            if self._is_later_than(number, longest_s, now_s, longest_s)
        ]

    def is_sooner(self, begin: int, than_s: float, now_s: float) -> bool:
        """Whether a peer that was asked for a piece is expected to have brought it before then.

        One whose rate is not known is given as long: had it sent nothing at all it would not be asked any more.
        """
        for number in self._pieces[begin].askers:
            assignment = self._assignments[number]
            if isinstance(assignment.action, AskPeer):
                peer = self._peers[assignment.action.peer]
                is_known = peer.meter.bytes_s(now_s) > 0
                if (peer.expected_end_s(number, now_s) if is_known else now_s - assignment.asked_s) <= than_s:
                    return True
        return False


def _length(part: tuple[int, int]) -> int:
    return part[1] - part[0]
