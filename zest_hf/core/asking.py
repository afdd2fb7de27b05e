"""What each peer of a file is asked for next. Pure.

What nobody else holds is taken first, so that those who download the same file together have different parts of it
to give each other. Among equals each peer goes on where it is, to the end of a GET's pieces, and then anywhere: where
is each node's own choice.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from zest_hf.core.actions import AskPeer
from zest_hf.core.assignments import Assignments, Work
from zest_hf.core.knowledge import Knowledge
from zest_hf.core.peer import Peer, length_of
from zest_hf.core.peers import Peers
from zest_hf.core.pieces import Piece, Pieces
from zest_hf.core.plan import FilePlan
from zest_hf.core.policy import PolicySettings, ask_bytes, has_room
from zest_hf.core.ranges import Ranges, contains, normalized

CANDIDATES = 12
"""Pieces that are compared by how many hold them, and peers that are counted for that: not all, as files are large."""
COUNTED_PEERS = 24
CROWD_SHARE = 0.01
"""The part of a file that one of several peers is asked for at once, at most."""
JUMPS = 0.3
"""How often not to go on in order: two nodes that have come to the same place must not stay together."""


class Asking:
    """See the module. ``seed`` makes the order of pieces; None is the file's."""

    def __init__(
        self,
        peers: Peers,
        pieces: Pieces,
        knowledge: Knowledge,
        assignments: Assignments,
        settings: PolicySettings,
        plan: FilePlan,
        seed: int | None,
    ) -> None:
        self._peers = peers.by_number
        self._pieces = pieces
        self._knowledge = knowledge
        self._assignments = assignments
        self._settings = settings
        self._chunks = plan.chunk_count
        self._chunk_bytes = plan.size_bytes / max(plan.chunk_count, 1)
        """Of a mean chunk."""
        self._all: Ranges = normalized([(0, plan.chunk_count)], plan.chunk_count)
        self._random = None if seed is None else random.Random(seed)
        self.since_s: float | None = None
        """When the first piece was asked for."""

    def ask(self, now_s: float) -> Iterator[Work]:
        """What to ask for now of what is wanted."""
        able = {number: peer for number, peer in self._peers.items() if peer.is_able(now_s)}
        rates = {number: peer.meter.bytes_s(now_s) for number, peer in able.items()}
        total_rate = sum(rates.values())
        generation = self._pieces.generation
        waiting = [number for number in able if self.has_room(able[number], rates[number])]
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
                yield self.begin(number, self._cut(*found, self._size(rate, share)), now_s)
                if self.has_room(peer, rate):
                    again.append(number)
            waiting = again

    def room(self, now_s: float) -> tuple[Ranges, float]:
        """With `ask` just done: what those hold that found too little, and how many bytes they would take."""
        held: list[tuple[int, int]] = []
        room = 0.0
        for peer in self._peers.values():
            if not self.found_too_little(peer, now_s):
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

    def found_too_little(self, peer: Peer, now_s: float) -> bool:
        return (
            peer.idle_generation == self._pieces.generation
            and peer.is_able(now_s)
            and self.has_room(peer, peer.meter.bytes_s(now_s))
        )

    def has_room(self, peer: Peer, rate: float) -> bool:
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
            is_small = is_part and length_of(part) * self._chunk_bytes < self._settings.least_ask_bytes
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

    def begin(self, number: int, piece: Piece, now_s: float) -> Work:
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
