"""What those that were asked for it would bring too late: who is to bring it instead. Pure.

When nothing is left to ask for, who is idle is asked for what a slower peer has waiting, which is called off there, or
is sending, which both then race for. That is safe because both check what they write.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from zest_hf.core.actions import AskPeer, CopyLocal
from zest_hf.core.asking import Asking
from zest_hf.core.assignments import Assignments, Work
from zest_hf.core.flow import Flow
from zest_hf.core.peer import Peer
from zest_hf.core.peers import Peers
from zest_hf.core.pieces import Pieces, State
from zest_hf.core.plan import FilePlan
from zest_hf.core.policy import PolicySettings

STEAL_MARGIN_S = 0.05
LOOK_S = 0.05
LOOKING_PEERS = 8
LOOKED_AT = 24
"""Whether an idle peer could take something over is looked at so often, for so many of them at a time, and among so
many things that others were asked for: all of them, when few are left."""


class Late:
    """See the module."""

    def __init__(
        self,
        peers: Peers,
        asking: Asking,
        pieces: Pieces,
        assignments: Assignments,
        settings: PolicySettings,
        plan: FilePlan,
        flow: Flow,
    ) -> None:
        self._peers = peers.by_number
        self._asking = asking
        self._pieces = pieces
        self._assignments = assignments
        self._settings = settings
        self._flow = flow
        self._chunk_bytes = plan.size_bytes / max(plan.chunk_count, 1)
        """Of a mean chunk."""

    def take_over(self, now_s: float) -> Iterator[Work]:
        """With `ask` just done, and nothing more to come: what those may bring that found too little."""
        idle = [
            (peer.looked_s, number)
            for number, peer in self._peers.items()
            if now_s - peer.looked_s >= LOOK_S and self._asking.found_too_little(peer, now_s)
        ]
        late: dict[float, list[tuple[int, int]]] = {}
        for _, number in sorted(idle)[:LOOKING_PEERS]:
            peer = self._peers[number]
            peer.looked_s = now_s
            rate = peer.meter.bytes_s(now_s)
            # Who has given nothing yet may try what is overdue, and is of no use for more.
            after_s = 0.0 if rate > 0 else self._settings.overdue_s
            if after_s not in late:
                late[after_s] = list(islice(self._late(now_s, after_s), LOOKED_AT))
            for work in self._take_over(number, rate, late[after_s], now_s):
                late.clear()
                yield work

    def _take_over(self, number: int, rate: float, late: list[tuple[int, int]], now_s: float) -> Iterator[Work]:
        """With nothing else to do: of pieces that were asked for, those that others would give later."""
        me = self._peers[number]
        for first_asked, begin in self._later_than(me, rate, late, now_s):
            if not self._asking.has_room(me, rate):
                return
            owner = self._assignments[first_asked].action
            yield self._asking.begin(number, self._pieces[begin], now_s)
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
                and self._is_later_than(number, begin, 2 * here_s + STEAL_MARGIN_S, now_s)
            ):
                out.append((number, begin))
        return out

    def _is_later_than(
        self, number: int, begin: int, after_s: float, now_s: float, judged_s: float | None = None
    ) -> bool:
        assignment = self._assignments[number]
        judged_s = self._settings.overdue_s if judged_s is None else judged_s
        if assignment.is_get:
            return now_s - assignment.asked_s >= judged_s and self._is_stuck(number, begin, after_s, now_s)
        if not isinstance(assignment.action, AskPeer):
            return now_s - assignment.asked_s >= judged_s
        owner = self._peers[assignment.action.peer]
        # Who was asked just now for the first time may be fast.
        is_judged = owner.meter.bytes_s(now_s) > 0 or now_s - assignment.asked_s >= judged_s
        return is_judged and owner.expected_end_s(number, now_s) > after_s

    def _is_stuck(self, number: int, begin: int, after_s: float, now_s: float) -> bool:
        """Whether a GET that cannot be cut will bring a piece later than that.

        One that flows leaves its end to others, in time (`core.yielding`): who brought a piece out of it as well
        would bring it twice, as the GET comes to it all the same.
        """
        if self._flow.silent_s(number, now_s) >= self._settings.overdue_s:
            return True
        assignment, piece = self._assignments[number], self._pieces[begin]
        end = (assignment.index(piece) + piece.count) * self._chunk_bytes
        rest = end - self._flow.brought[number]
        return rest < self._settings.least_ask_bytes and self._flow.rest_s(number, end, now_s) > after_s

    def _late(self, now_s: float, after_s: float) -> Iterator[tuple[int, int]]:
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
            for number, begin in self._late(now_s, longest_s)
            if self._is_later_than(number, begin, longest_s, now_s, longest_s)
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
