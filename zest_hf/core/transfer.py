"""The state of one file on its way: who was asked for which piece, what came, what comes next.

Pure: told what happened and when, it says what to do next. `core.pieces` keeps the pieces, `core.policy`
decides between peers and CDN.

Sources report each assignment's end exactly once. Peers are asked only when the manifest is proved, so that
what they send is checked chunk by chunk; the CDN is asked without one as well, and then `finish` proves the
file as a whole.

When nothing is left to ask for, who is idle is asked for what a slow source has had for too long. That is
safe because both check what they write. Pieces of a GET without known hashes are therefore never given to a
second source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from zest_hf.core.actions import Action, AskPeer, FetchRun, FetchWhole, PeerTrouble
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.pieces import Pieces, Ranges, State, contains, normalized, without
from zest_hf.core.plan import Fetch, FilePlan, Placement
from zest_hf.core.policy import CdnUse, PolicySettings, View, cdn_use, depth
from zest_hf.core.rate import RateMeter
from zest_hf.core.unproved import Unproved
from zest_hf.errors import ProofError, ReconstructionError

__all__ = ["Action", "AskPeer", "Counts", "FetchRun", "FetchWhole", "PeerTrouble", "Transfer"]

CDN_REST_S = 30.0
"""How long the CDN is left alone after a failure, as long as peers can give what is wanted."""

MAX_WRONG_FETCHES = 3
"""GETs without known hashes that may turn out wrong before the transfer is given up."""

_NEVER = float("-inf")


@dataclass(slots=True)
class _Assignment:
    action: Action
    pieces: list[int]
    asked_s: float

    @property
    def is_blind(self) -> bool:
        return isinstance(self.action, FetchWhole) and self.action.expected is None


@dataclass(slots=True)
class _Peer:
    ranges: Ranges
    """File chunks that it holds."""
    assignments: dict[int, int] = field(default_factory=dict)
    """Bytes that it was asked for, in the order of asking."""
    meter: RateMeter = field(default_factory=RateMeter)
    suspended_until_s: float = _NEVER
    idle_generation: int = -1
    """Of the pieces, when it was found that it holds nothing that is wanted."""

    def learn(self, ranges: Ranges) -> None:
        self.ranges, self.idle_generation = ranges, -1


@dataclass(slots=True)
class Counts:
    """Bytes of the file by where they came from."""

    peer: int = 0
    cdn: int = 0
    local: int = 0

    @property
    def total(self) -> int:
        return self.peer + self.cdn + self.local


class Transfer:
    """One file. ``plan`` covers all of it; ``file_hash`` is what it is proved by."""

    def __init__(self, plan: FilePlan, file_hash: XetHash, settings: PolicySettings) -> None:
        self._plan = plan
        self._file_hash = file_hash
        self._settings = settings
        self._pieces = Pieces(plan)
        self._piece_bytes = plan.size_bytes / max(len(self._pieces), 1)
        self._peers: dict[int, _Peer] = {}
        self._assignments: dict[int, _Assignment] = {}
        self._gets = 0
        """How many of the assignments are the CDN's."""
        self._next_assignment = 1
        self._manifest: Manifest | None = None
        self._unproved = Unproved()
        self._began_s: float | None = None
        self._peers_since_s: float | None = None
        self._moved_s = 0.0
        """When something was last written, or found out."""
        self._cdn_began = False
        self._cdn_rest_until_s = _NEVER
        self._cdn_error: Exception | None = None
        self._wrong_fetches = 0
        self._refetched = False
        self._orphans_seen: tuple[object, ...] = ()
        """What the pieces and the peers' ranges were when these were found:"""
        self._orphans_found: list[int] = []
        self.counts = Counts()

    # --- what is known -----------------------------------------------------------------------------

    @property
    def plan(self) -> FilePlan:
        return self._plan

    @property
    def manifest(self) -> Manifest | None:
        """The proved manifest of the file, as soon as there is one."""
        return self._manifest

    @property
    def complete(self) -> bool:
        """All pieces are written; `finish` comes next."""
        return self._pieces.open == 0

    # --- what happened ------------------------------------------------------------------------------

    def manifest_proved(self, manifest: Manifest) -> None:
        """A manifest that the file hash proves.

        Raises ReconstructionError when the plan contradicts it, ProofError when the CDN has sent too much
        that does.
        """
        if self._manifest is not None:
            return
        self._check_plan(manifest)
        self._manifest = manifest
        self._settle()

    def peer_holds(self, peer: int, ranges: Sequence[tuple[int, int]]) -> None:
        """A peer holds these chunks of the file (replaces what was known of it)."""
        held = normalized(ranges, self._plan.chunk_count)
        state = self._peers.get(peer)
        if state is None:
            self._peers[peer] = _Peer(held)
        else:
            state.learn(held)

    def peer_gone(self, peer: int) -> None:
        """Its assignments end by themselves: each reports."""
        state = self._peers.get(peer)
        if state is not None:
            state.learn(())

    def peer_ended(
        self, assignment: int, chunks_written: int, trouble: PeerTrouble | None, now_s: float
    ) -> None:
        """A peer's assignment ended with its first ``chunks_written`` chunks proved and written."""
        ended = self._assignments.pop(assignment)
        asked = ended.action
        assert isinstance(asked, AskPeer) and self._manifest is not None
        peer = self._peers[asked.peer]
        written_end = asked.first + chunks_written
        size = self._manifest.offset(written_end) - self._manifest.offset(asked.first)
        peer.meter.add(size, now_s)
        del peer.assignments[assignment]
        if not peer.assignments:
            peer.meter.stop()
        if size:
            self._moved_s = now_s
        (index,) = ended.pieces
        piece = self._pieces[index]
        if piece.state is not State.DONE and written_end > piece.first:
            self.counts.peer += self._manifest.offset(written_end) - self._manifest.offset(piece.first)
            self._pieces.advance(index, written_end)
        self._pieces.answered(index, assignment)
        if chunks_written == asked.count:
            return
        if trouble is PeerTrouble.LACKS:
            peer.learn(without(peer.ranges, written_end, asked.first + asked.count))
        elif trouble is PeerTrouble.GONE:
            peer.learn(())
        else:
            busy = trouble is PeerTrouble.BUSY
            rest_s = self._settings.busy_rest_s if busy else self._settings.suspension_s
            peer.suspended_until_s = now_s + rest_s

    def cdn_ended(self, assignment: int, chunks: Manifest, now_s: float) -> None:
        """A GET is done: ``chunks`` are those of its source (FetchWhole) or of the run (FetchRun), as written.

        Raises ReconstructionError when a term turns out to have another size than the plan says, ProofError
        when the CDN has sent too much that is wrong.
        """
        ended = self._assignments.pop(assignment)
        self._gets -= 1
        self._moved_s = now_s
        action = ended.action
        assert not isinstance(action, AskPeer)
        if ended.is_blind:
            assert isinstance(action, FetchWhole)
            self._unproved.add(action.fetch, chunks)
            self.counts.cdn += action.fetch.size_bytes
        else:
            assert self._manifest is not None
            for piece in map(self._pieces.__getitem__, ended.pieces):
                if piece.state is not State.DONE:
                    self.counts.cdn += self._manifest.offset(piece.end) - self._manifest.offset(piece.first)
        for index in ended.pieces:
            self._pieces.done(index)
            self._pieces.answered(index, assignment)
        if self._manifest is not None:
            self._settle()

    def cdn_failed(self, assignment: int, error: Exception, now_s: float) -> None:
        """A GET failed for good, after the retries of its source."""
        ended = self._assignments.pop(assignment)
        self._gets -= 1
        self._moved_s = now_s
        for index in ended.pieces:
            self._pieces.answered(index, assignment)
        self._cdn_error = error
        self._cdn_rest_until_s = now_s + CDN_REST_S

    # --- what to do ----------------------------------------------------------------------------------

    def actions(self, now_s: float, waiting_for_peers: bool) -> list[Action]:
        """What to start now. Raises the CDN's error when it failed and nobody else can give what is left."""
        if self._began_s is None:
            self._began_s = self._moved_s = now_s
        if self.complete:
            return []
        out: list[Action] = []
        useful: list[_Peer] = []
        if self._manifest is not None:
            out.extend(self._ask_peers(now_s))
            useful = [peer for peer in self._peers.values() if peer.assignments and _is_able(peer, now_s)]
        view = View(
            now_s=now_s,
            # Once the CDN is at work it does not stop for somebody who may turn up.
            waiting_for_peers=waiting_for_peers
            and not self._cdn_began
            and now_s - self._began_s < self._settings.patience_s,
            useful_peers=len(useful),
            peers_since_s=self._peers_since_s,
            peer_rate_bytes_s=sum(peer.meter.bytes_s(now_s) for peer in useful),
        )
        use = cdn_use(view, self._settings)
        if use is CdnUse.NOTHING:
            return out
        if self._cdn_error is not None and now_s < self._cdn_rest_until_s:
            nothing_runs = self._pieces.open == len(self._pieces.wanted)
            if nothing_runs and not self._is_hopeful(now_s, waiting_for_peers):
                raise self._cdn_error
            return out
        out.extend(self._ask_cdn(use, useful, now_s))
        return out

    def finish(self) -> Manifest | None:
        """With all pieces written: the file's manifest, proved by the file hash; None: parts are fetched again.

        That happens once: the xorbs that their own hash proves are kept. Raises ProofError the second time.
        """
        if self._manifest is not None:
            return self._manifest
        manifest = self._unproved.manifest()
        try:
            manifest.prove_file(self._file_hash)
        except ProofError:
            doubtful = [] if self._refetched else self._unproved.drop_doubtful(self._plan.fetches)
            if not doubtful:
                raise
            self._refetched = True
            for place in doubtful:
                self._undo(place)
            return None
        self._manifest = manifest
        return manifest

    # --- proof ---------------------------------------------------------------------------------------

    def _check_plan(self, manifest: Manifest) -> None:
        """Every term has to begin and end where the manifest says: the CDN's chunks are written by the plan."""
        fits = len(manifest) == self._plan.chunk_count and all(
            manifest.offset(place.file_chunk) == place.file_offset
            and manifest.offset(place.file_chunk + place.end - place.start)
            == place.file_offset + place.size_bytes
            for fetch in self._plan.fetches
            for place in fetch.placements
        )
        if not fits:
            raise ReconstructionError("reconstruction: it does not fit the file's proved manifest")

    def _settle(self) -> None:
        """Compare what came without a manifest with the manifest."""
        assert self._manifest is not None
        for places in self._unproved.settle(self._manifest):
            self._wrong_fetches += 1
            if self._wrong_fetches > MAX_WRONG_FETCHES:
                raise ProofError("the CDN keeps sending chunks that are not the file's")
            for place in places:
                self._undo(place)

    def _undo(self, place: Placement) -> None:
        self._pieces.undo(place.file_chunk, place.file_chunk + place.end - place.start)
        self.counts.cdn -= place.size_bytes

    def _is_hopeful(self, now_s: float, waiting_for_peers: bool) -> bool:
        """Whether, with the CDN gone, a peer may soon give something."""
        if now_s - self._moved_s >= self._settings.comeback_patience_s:
            return False
        if waiting_for_peers:
            return True
        return self._manifest is not None and any(
            next(self._pieces.wanted_in(peer.ranges), None) is not None for peer in self._peers.values()
        )

    def _assign(self, action: Action, pieces: list[int], now_s: float) -> Action:
        self._assignments[action.assignment] = _Assignment(action, pieces, now_s)
        for index in pieces:
            self._pieces.ask(index, action.assignment)
        self._next_assignment += 1
        return action

    # --- peers -------------------------------------------------------------------------------------------

    def _ask_peers(self, now_s: float) -> Iterator[Action]:
        room: dict[int, int] = {}
        for number, peer in self._peers.items():
            if _is_able(peer, now_s):
                wanted = depth(peer.meter.bytes_s(now_s), self._piece_bytes, self._settings)
                if wanted > len(peer.assignments):
                    room[number] = wanted - len(peer.assignments)
        if not room:
            return
        for number, index in self._shared_out(dict(room)):
            room[number] -= 1
            yield self._ask_peer(number, index, now_s)
        for number, left in room.items():
            if left > 0:
                for index in self._overdue_for(number, now_s)[:left]:
                    yield self._ask_peer(number, index, now_s)

    def _shared_out(self, room: dict[int, int]) -> list[tuple[int, int]]:
        """Wanted pieces for peers with so much room. Peers that hold none are remembered as idle."""
        out: list[tuple[int, int]] = []
        taken: set[int] = set()
        generation = self._pieces.generation
        offers = {
            number: self._pieces.wanted_in(self._peers[number].ranges)
            for number in room
            if self._peers[number].idle_generation != generation
        }
        while offers:
            # The peer with the most room next to the others is the one that finishes first.
            number = max(offers, key=lambda candidate: room[candidate])
            index = next((index for index in offers[number] if index not in taken), None)
            if index is None:
                self._peers[number].idle_generation = generation
                del offers[number]
                continue
            taken.add(index)
            out.append((number, index))
            room[number] -= 1
            if room[number] == 0:
                del offers[number]
        return out

    def _overdue_for(self, number: int, now_s: float) -> list[int]:
        """Pieces that others have been asked for, long ago, and that this idle peer would give sooner."""
        me = self._peers[number]
        rate = me.meter.bytes_s(now_s) or self._settings.fair_rate_bytes_s
        here_s = (sum(me.assignments.values()) + self._piece_bytes) / rate
        return [
            index
            for index in self._overdue(now_s, 2 * here_s)
            if len(self._pieces[index].askers) == 1
            and contains(me.ranges, self._pieces[index].first, self._pieces[index].end)
            and not any(assignment in me.assignments for assignment in self._pieces[index].askers)
        ]

    def _overdue(self, now_s: float, longer_than_s: float) -> list[int]:
        """Pieces whose first source has had them for too long and is expected to need longer than this."""
        out: list[int] = []
        for number, assignment in reversed(self._assignments.items()):
            if now_s - assignment.asked_s < self._settings.overdue_s or assignment.is_blind:
                continue
            if (
                isinstance(assignment.action, AskPeer)
                and self._expected_end_s(number, assignment.action.peer, now_s) < longer_than_s
            ):
                continue
            # The last first: sources give what they were asked for in order.
            for index in reversed(assignment.pieces):
                piece = self._pieces[index]
                if piece.state is State.ASKED and piece.askers[0] == number:
                    out.append(index)
        return out

    def _expected_end_s(self, assignment: int, number: int, now_s: float) -> float:
        """How long a peer will need for one of the things that it was asked for."""
        peer = self._peers[number]
        rate = peer.meter.bytes_s(now_s)
        ahead = sum(size for other, size in peer.assignments.items() if other <= assignment)
        return ahead / rate if rate > 0 else float("inf")

    def _ask_peer(self, number: int, index: int, now_s: float) -> Action:
        assert self._manifest is not None
        piece, peer = self._pieces[index], self._peers[number]
        if self._peers_since_s is None:
            self._peers_since_s = now_s
        if not peer.assignments:
            peer.meter.start(now_s)
        size = self._manifest.offset(piece.end) - self._manifest.offset(piece.first)
        peer.assignments[self._next_assignment] = size
        ask = AskPeer(self._next_assignment, number, piece.first, piece.count, piece.xorb, piece.xorb_first)
        return self._assign(ask, [index], now_s)

    # --- CDN ----------------------------------------------------------------------------------------------

    def _ask_cdn(self, use: CdnUse, useful: list[_Peer], now_s: float) -> Iterator[Action]:
        room = self._settings.max_cdn_fetches - self._gets
        if room <= 0:
            return
        if use is CdnUse.ORPHANS:
            runs = self._in_gets(self._orphans(useful))
        elif self._pieces.wanted:
            runs = self._everything(from_the_back=bool(useful))
        else:
            late = self._overdue(now_s, self._settings.overdue_s)
            runs = self._pieces.runs(sorted(index for index in late if not self._is_in_a_get(index)))
        for run in runs:
            yield self._get(run, now_s)
            room -= 1
            if room == 0:
                return

    def _everything(self, from_the_back: bool) -> Iterator[list[int]]:
        """What is wanted, one GET of the plan after the other.

        Peers work from the front: the CDN helps from the back, so that they meet.
        """
        pieces = self._pieces
        while pieces.wanted:
            fetch = pieces[pieces.wanted[-1 if from_the_back else 0]].fetch
            yield from self._in_gets(
                [index for index in pieces.of_fetch(fetch) if pieces[index].state is State.WANTED]
            )

    def _in_gets(self, indexes: list[int]) -> Iterator[list[int]]:
        """Wanted pieces as what one GET each can bring: no more than the plan's GETs do."""
        by_fetch: dict[int, list[int]] = {}
        for index in indexes:
            by_fetch.setdefault(self._pieces[index].fetch, []).append(index)
        for fetch, chosen in by_fetch.items():
            if self._is_whole(fetch, chosen):
                yield chosen
            else:
                yield from list(self._pieces.runs(chosen))

    def _orphans(self, useful: list[_Peer]) -> list[int]:
        """Wanted pieces that no useful peer holds."""
        seen = (self._pieces.generation, *(peer.ranges for peer in useful))
        if seen != self._orphans_seen:
            held: set[int] = set()
            for peer in useful:
                held.update(self._pieces.wanted_in(peer.ranges))
            self._orphans_seen = seen
            self._orphans_found = [index for index in self._pieces.wanted if index not in held]
        return [index for index in self._orphans_found if self._pieces[index].state is State.WANTED]

    def _is_in_a_get(self, index: int) -> bool:
        askers = self._pieces[index].askers
        return any(not isinstance(self._assignments[number].action, AskPeer) for number in askers)

    def _is_whole(self, fetch: int, chosen: list[int]) -> bool:
        return chosen == self._pieces.of_fetch(fetch) and all(map(self._pieces.is_untouched, chosen))

    def _get(self, run: list[int], now_s: float) -> Action:
        """A GET for pieces that are the whole of one of the plan's, or lie together in the file."""
        self._cdn_began = True
        self._gets += 1
        fetch = self._pieces[run[0]].fetch
        if self._is_whole(fetch, run):
            planned = self._plan.fetches[fetch]
            whole = FetchWhole(self._next_assignment, planned, self._expected_of(planned))
            # Only with every hash may somebody else be writing there as well.
            if whole.expected is not None or not any(self._pieces[index].askers for index in run):
                return self._assign(whole, run, now_s)
        # Parts of a GET are left over only where peers gave the others, and they give with a manifest alone.
        assert self._manifest is not None
        first, end = self._pieces[run[0]].first, self._pieces[run[-1]].end
        return self._assign(
            FetchRun(
                self._next_assignment,
                first,
                self._manifest.offset(first),
                self._manifest.offset(end),
                self._manifest.slice(first, end),
            ),
            run,
            now_s,
        )

    def _expected_of(self, fetch: Fetch) -> bytes | None:
        """The hashes of all chunks of a GET's source, when the manifest gives every one of them."""
        if self._manifest is None:
            return None
        source = fetch.source
        known: list[bytes | None] = [None] * (source.end - source.start)
        for place in fetch.placements:
            first, count = place.file_chunk, place.end - place.start
            hashes = self._manifest.hashes[32 * first : 32 * (first + count)]
            if count == len(known):
                return hashes
            at = place.start - source.start
            known[at : at + count] = [hashes[32 * i : 32 * i + 32] for i in range(count)]
        complete = [one for one in known if one is not None]
        return b"".join(complete) if len(complete) == len(known) else None


def _is_able(peer: _Peer, now_s: float) -> bool:
    return bool(peer.ranges) and peer.suspended_until_s <= now_s
