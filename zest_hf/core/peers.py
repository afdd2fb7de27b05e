"""The peers of one file: what each holds, how fast it is, and of what use it was. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from zest_hf.core.actions import AskPeer, PeerTrouble
from zest_hf.core.assignments import Assignment, Assignments
from zest_hf.core.knowledge import Knowledge
from zest_hf.core.peer import Peer
from zest_hf.core.pieces import Pieces, State
from zest_hf.core.plan import FilePlan
from zest_hf.core.policy import PolicySettings, rest_s
from zest_hf.core.ranges import Ranges, added, common, normalized, without


class Peers:
    """See the module. ``by_number``: all that something was heard of."""

    def __init__(
        self,
        pieces: Pieces,
        knowledge: Knowledge,
        assignments: Assignments,
        settings: PolicySettings,
        plan: FilePlan,
    ) -> None:
        self._pieces = pieces
        self._knowledge = knowledge
        self._assignments = assignments
        self._settings = settings
        self._chunks = plan.chunk_count
        self._all: Ranges = normalized([(0, plan.chunk_count)], plan.chunk_count)
        self.by_number: dict[int, Peer] = {}

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
        peer = self.by_number.get(number)
        if peer is not None:
            for first, end in ranges:
                self._forget(peer, first, end)
            self._learn(peer)

    def gone(self, number: int) -> None:
        """Its assignments end by themselves: each reports."""
        peer = self.by_number.get(number)
        if peer is not None:
            peer.by_file = peer.by_xorb = ()
            self._learn(peer)

    def more_is_known(self, new: Ranges) -> None:
        """These chunks can be checked that could not before."""
        for peer in self.by_number.values():
            for held in (peer.by_file, peer.by_xorb):
                if held:
                    self._learn_more(peer, common(new, held))

    def useful(self, now_s: float) -> list[Peer]:
        """Those that were asked for something and may be asked for more."""
        return [peer for peer in self.by_number.values() if peer.assignments and peer.is_able(now_s)]

    def rate_bytes_s(self, now_s: float) -> float:
        """What those give together that may be asked, also those that have nothing to do."""
        return sum(peer.meter.bytes_s(now_s) for peer in self.by_number.values() if peer.is_able(now_s))

    def rate_bytes_s_of(self, rest: Ranges, now_s: float) -> float:
        """... of those that hold some of these chunks, or have something to do."""
        return sum(
            peer.meter.bytes_s(now_s)
            for peer in self.by_number.values()
            if peer.is_able(now_s) and (peer.assignments or peer.askable == self._all or common(peer.askable, rest))
        )

    def ahead_bytes(self, now_s: float) -> int:
        """What they still have to do."""
        return sum(peer.ahead_bytes for peer in self.by_number.values() if peer.is_able(now_s))

    def held(self, now_s: float) -> Ranges:
        """The chunks that could be asked for now."""
        able = [one for peer in self.by_number.values() if peer.is_able(now_s) for one in peer.askable]
        return normalized(able, self._chunks)

    def any_may_give(self) -> bool:
        """Whether one of them, perhaps suspended, holds something that is wanted."""
        return any(next(self._pieces.wanted_in(peer.askable), None) for peer in self.by_number.values())

    def held_by_any(self) -> Ranges:
        """The chunks that at least one of them claims to hold, also those that cannot be checked yet."""
        return normalized(
            [one for peer in self.by_number.values() for one in (*peer.by_file, *peer.by_xorb)], self._chunks
        )

    def _known(self, number: int) -> Peer:
        peer = self.by_number.get(number)
        if peer is None:
            peer = self.by_number[number] = Peer()
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
        peer = self.by_number[asked.peer]
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
