"""The state of one file on its way: which pieces are wanted, who was asked for them, what is done.

Pure: told what happened and when, it says what to do next. Each piece is in exactly one state:

    WANTED --ask--> ASKED --all chunks written--> DONE
       ^--------------'  (the rest, when the source failed in the middle)

Sources report each assignment's end exactly once. Peers are asked only when the manifest is proved, so that what they
send is checked chunk by chunk; the CDN is asked without one as well, and then `finish` proves the file as a whole.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.plan import Fetch, FilePlan, Placement
from zest_hf.core.policy import CdnUse, PolicySettings, View, cdn_use, depth
from zest_hf.core.rate import RateMeter
from zest_hf.errors import ProofError, ReconstructionError

CDN_REST_S = 30.0
"""How long the CDN is left alone after a failure, as long as peers can give what is wanted."""

MAX_WRONG_FETCHES = 3
"""GETs without known hashes that may turn out wrong before the transfer is given up."""


@dataclass(frozen=True, slots=True)
class AskPeer:
    """Ask a peer for file chunks first..first+count (chunks xorb_first.. of `xorb`)."""

    assignment: int
    peer: int
    first: int
    count: int
    xorb: XetHash
    xorb_first: int


@dataclass(frozen=True, slots=True)
class FetchWhole:
    """Make one of the plan's GETs. ``expected``: 32 bytes a chunk of its source, when they are known."""

    assignment: int
    fetch: Fetch
    expected: bytes | None


@dataclass(frozen=True, slots=True)
class FetchRun:
    """Get file chunks first..end from the CDN, which are bytes byte_start..byte_end of the file."""

    assignment: int
    first: int
    end: int
    byte_start: int
    byte_end: int
    expected: bytes


Action = AskPeer | FetchWhole | FetchRun


class PeerTrouble(enum.Enum):
    """Why a peer did not finish an assignment."""

    LACKS = "does not hold it"
    SILENT = "sent nothing for too long"
    BUSY = "has too much to do"
    GONE = "is gone"


class _State(enum.Enum):
    WANTED = 0
    ASKED = 1
    DONE = 2


@dataclass(slots=True)
class _Piece:
    first: int
    count: int
    xorb: XetHash
    xorb_first: int
    fetch: int
    state: _State = _State.WANTED

    @property
    def end(self) -> int:
        return self.first + self.count


@dataclass(slots=True)
class _Assignment:
    pieces: list[int]
    peer: int | None
    action: Action


@dataclass(slots=True)
class _Peer:
    ranges: tuple[tuple[int, int], ...]
    """File chunks that it holds, in order."""
    assignments: set[int] = field(default_factory=set)
    meter: RateMeter = field(default_factory=RateMeter)
    suspended_until_s: float = 0.0

    def holds(self, piece: _Piece) -> bool:
        return any(start <= piece.first and piece.end <= end for start, end in self.ranges)


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
        self._pieces = [_Piece(p.first, p.count, p.xorb, p.xorb_first, p.fetch) for p in plan.pieces]
        self._of_fetch: list[list[int]] = [[] for _ in plan.fetches]
        for index, piece in enumerate(plan.pieces):
            self._of_fetch[piece.fetch].append(index)
        self._open_pieces = len(self._pieces)
        self._head = 0
        """No piece before this one is wanted."""
        self._peers: dict[int, _Peer] = {}
        self._assignments: dict[int, _Assignment] = {}
        self._next_assignment = 1
        self._manifest: Manifest | None = None
        self._fetched: dict[int, tuple[Placement, Manifest]] = {}
        """What the CDN sent before there was a manifest, by its first file chunk."""
        self._peers_since_s: float | None = None
        self._cdn_rest_until_s = 0.0
        self._cdn_error: Exception | None = None
        self._wrong_fetches = 0
        self._refetched = False
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
        return self._open_pieces == 0

    # --- what happened ------------------------------------------------------------------------------

    def manifest_proved(self, manifest: Manifest) -> None:
        """A manifest that the file hash proves.

        Raises ReconstructionError when the plan contradicts it, ProofError when the CDN has sent too much that does.
        """
        if self._manifest is not None:
            return
        if len(manifest) != self._plan.chunk_count or manifest.size_bytes != self._plan.size_bytes:
            raise ReconstructionError("reconstruction: it does not fit the file's proved manifest")
        self._manifest = manifest
        for placement, part in list(self._fetched.values()):
            self._settle(placement, part)

    def peer_holds(self, peer: int, ranges: Sequence[tuple[int, int]]) -> None:
        """A peer holds these chunks of the file (replaces what was known of it)."""
        state = self._peers.get(peer)
        if state is None:
            self._peers[peer] = _Peer(tuple(ranges))
        else:
            state.ranges = tuple(ranges)

    def peer_gone(self, peer: int) -> None:
        """Its assignments end by themselves: each reports."""
        state = self._peers.get(peer)
        if state is not None:
            state.ranges = ()

    def peer_ended(
        self, assignment: int, chunks_written: int, trouble: PeerTrouble | None, now_s: float
    ) -> None:
        """A peer's assignment ended with its first ``chunks_written`` chunks proved and written."""
        ended = self._assignments.pop(assignment)
        assert ended.peer is not None and self._manifest is not None
        peer = self._peers[ended.peer]
        peer.assignments.discard(assignment)
        piece = self._pieces[ended.pieces[0]]
        size = self._manifest.offset(piece.first + chunks_written) - self._manifest.offset(piece.first)
        self.counts.peer += size
        peer.meter.add(size, now_s)
        if chunks_written == piece.count:
            self._done(ended.pieces[0])
            return
        piece.first += chunks_written
        piece.xorb_first += chunks_written
        piece.count -= chunks_written
        self._want(ended.pieces[0])
        if trouble is PeerTrouble.LACKS:
            peer.ranges = _without(peer.ranges, piece.first, piece.end)
        elif trouble is PeerTrouble.GONE:
            peer.ranges = ()
        else:
            rest_s = 1.0 if trouble is PeerTrouble.BUSY else self._settings.suspension_s
            peer.suspended_until_s = now_s + rest_s

    def cdn_ended(self, assignment: int, chunks: Manifest) -> None:
        """A GET is done: ``chunks`` are those of its source (FetchWhole) or of the run (FetchRun), as decoded and written.

        Raises ReconstructionError when a term turns out to have another size than the plan says, ProofError
        when the CDN has sent too much that is wrong.
        """
        ended = self._assignments.pop(assignment)
        action = ended.action
        if isinstance(action, FetchRun):
            assert self._manifest is not None
            self.counts.cdn += action.byte_end - action.byte_start
            for index in ended.pieces:
                self._done(index)
            return
        assert isinstance(action, FetchWhole)
        source = action.fetch.source
        for placement in action.fetch.placements:
            part = chunks.slice(placement.start - source.start, placement.end - source.start)
            if part.size_bytes != placement.size_bytes:
                raise ReconstructionError(
                    f"reconstruction: a term of {placement.size_bytes} bytes has {part.size_bytes} in the xorb"
                )
            self._fetched[placement.file_chunk] = (placement, part)
        self.counts.cdn += action.fetch.size_bytes
        for index in ended.pieces:
            self._done(index)
        if self._manifest is not None:
            for placement in action.fetch.placements:
                self._settle(*self._fetched[placement.file_chunk])

    def cdn_failed(self, assignment: int, error: Exception, now_s: float) -> None:
        """A GET failed for good, after the retries of its source."""
        ended = self._assignments.pop(assignment)
        for index in ended.pieces:
            self._want(index)
        self._cdn_error = error
        self._cdn_rest_until_s = now_s + CDN_REST_S

    # --- what to do ----------------------------------------------------------------------------------

    def actions(self, now_s: float, waiting_for_peers: bool) -> list[Action]:
        """What to start now. Raises the CDN's error when it failed and nobody else can give what is left."""
        out: list[Action] = list(self._ask_peers(now_s)) if self._manifest is not None else []
        useful = self._useful_peers(now_s)
        view = View(
            now_s=now_s,
            waiting_for_peers=waiting_for_peers,
            useful_peers=len(useful),
            peers_since_s=self._peers_since_s,
            peer_rate_bytes_s=sum(peer.meter.bytes_s(now_s) for peer in useful),
        )
        use = cdn_use(view, self._settings)
        if use is CdnUse.NOTHING:
            return out
        if now_s < self._cdn_rest_until_s and self._cdn_error is not None:
            if not useful and not self._assignments and not self.complete:
                raise self._cdn_error
            return out
        out.extend(self._ask_cdn(use, useful))
        return out

    def finish(self) -> Manifest | None:
        """With all pieces written: the file's manifest, proved by the file hash; or None when parts are fetched again.

        That happens once: the xorbs that their own hash proves are kept. Raises ProofError the second time.
        """
        if self._manifest is not None:
            return self._manifest
        manifest = Manifest.join(part for _, (_, part) in sorted(self._fetched.items()))
        try:
            manifest.prove_file(self._file_hash)
        except ProofError:
            if self._refetched:
                raise
            self._refetched = True
            self._refetch_unproved()
            return None
        self._manifest = manifest
        return manifest

    # --- pieces ----------------------------------------------------------------------------------------

    def _want(self, index: int) -> None:
        self._pieces[index].state = _State.WANTED
        self._head = min(self._head, index)

    def _done(self, index: int) -> None:
        self._pieces[index].state = _State.DONE
        self._open_pieces -= 1

    def _undo(self, placement: Placement, size_bytes: int) -> None:
        """Written pieces that turned out wrong are wanted again, whole."""
        end = placement.file_chunk + (placement.end - placement.start)
        for index, piece in enumerate(self._pieces):
            if placement.file_chunk <= piece.first < end and piece.state is _State.DONE:
                self._open_pieces += 1
                self._want(index)
        self.counts.cdn -= size_bytes

    def _settle(self, placement: Placement, part: Manifest) -> None:
        """Compare what came without a manifest with the manifest."""
        assert self._manifest is not None
        first = placement.file_chunk
        wanted = self._manifest.slice(first, first + (placement.end - placement.start))
        del self._fetched[first]
        if wanted.hashes != part.hashes or wanted.lengths != part.lengths:
            self._wrong_fetches += 1
            if self._wrong_fetches > MAX_WRONG_FETCHES:
                raise ProofError("the CDN keeps sending chunks that are not the file's")
            self._undo(placement, placement.size_bytes)

    def _refetch_unproved(self) -> None:
        for fetch in self._plan.fetches:
            parts = [self._fetched[placement.file_chunk][1] for placement in fetch.placements]
            source = fetch.source
            whole = len(parts) == 1 and source.start == 0 and len(parts[0]) == source.end
            if whole and parts[0].xorb_hash() == source.xorb:
                continue
            for placement in fetch.placements:
                del self._fetched[placement.file_chunk]
                self._undo(placement, placement.size_bytes)

    def _wanted(self) -> Iterator[int]:
        pieces = self._pieces
        while self._head < len(pieces) and pieces[self._head].state is not _State.WANTED:
            self._head += 1
        for index in range(self._head, len(pieces)):
            if pieces[index].state is _State.WANTED:
                yield index

    def _assign(self, pieces: list[int], peer: int | None, action: Action) -> Action:
        for index in pieces:
            self._pieces[index].state = _State.ASKED
        self._assignments[action.assignment] = _Assignment(pieces, peer, action)
        self._next_assignment += 1
        return action

    # --- peers -------------------------------------------------------------------------------------------

    def _useful_peers(self, now_s: float) -> list[_Peer]:
        able = [peer for peer in self._peers.values() if peer.ranges and peer.suspended_until_s <= now_s]
        wanted = [self._pieces[index] for index in _some(self._wanted(), 64)]
        return [peer for peer in able if peer.assignments or any(peer.holds(piece) for piece in wanted)]

    def _ask_peers(self, now_s: float) -> Iterator[Action]:
        piece_bytes = self._plan.size_bytes / max(len(self._pieces), 1)
        room: dict[int, int] = {}
        for number, peer in self._peers.items():
            if peer.ranges and peer.suspended_until_s <= now_s:
                wanted = depth(peer.meter.bytes_s(now_s), piece_bytes, self._settings)
                if wanted > len(peer.assignments):
                    room[number] = wanted - len(peer.assignments)
        if not room:
            return
        for index in self._wanted():
            piece = self._pieces[index]
            # The peer with the most room next to the others is the one that finishes first.
            holders = [number for number in room if self._peers[number].holds(piece)]
            if not holders:
                continue
            number = max(holders, key=lambda candidate: room[candidate])
            yield self._ask_peer(number, index, now_s)
            room[number] -= 1
            if room[number] == 0:
                del room[number]
                if not room:
                    return

    def _ask_peer(self, number: int, index: int, now_s: float) -> Action:
        piece, peer = self._pieces[index], self._peers[number]
        if self._peers_since_s is None:
            self._peers_since_s = now_s
        if not peer.assignments:
            peer.meter.start(now_s)
        peer.assignments.add(self._next_assignment)
        ask = AskPeer(self._next_assignment, number, piece.first, piece.count, piece.xorb, piece.xorb_first)
        return self._assign([index], number, ask)

    # --- CDN ----------------------------------------------------------------------------------------------

    def _ask_cdn(self, use: CdnUse, useful: list[_Peer]) -> Iterator[Action]:
        running = sum(1 for assignment in self._assignments.values() if assignment.peer is None)
        room = self._settings.max_cdn_fetches - running
        if room <= 0 or (
            use is CdnUse.ORPHANS and any(peer.ranges == ((0, self._plan.chunk_count),) for peer in useful)
        ):
            return
        # Peers work from the front: the CDN helps from the back, so that they meet.
        order = range(len(self._plan.fetches))
        for fetch in reversed(order) if useful else order:
            indexes = self._of_fetch[fetch]
            chosen = [index for index in indexes if self._is_for_cdn(index, use, useful)]
            if chosen == indexes and all(self._is_untouched(index) for index in indexes):
                yield self._fetch_whole(fetch)
                room -= 1
            else:
                for run in self._runs(chosen):
                    yield self._fetch_run(run)
                    room -= 1
                    if room == 0:
                        return
            if room == 0:
                return

    def _is_for_cdn(self, index: int, use: CdnUse, useful: list[_Peer]) -> bool:
        piece = self._pieces[index]
        if piece.state is not _State.WANTED:
            return False
        return use is CdnUse.EVERYTHING or not any(peer.holds(piece) for peer in useful)

    def _is_untouched(self, index: int) -> bool:
        return self._pieces[index].count == self._plan.pieces[index].count

    def _runs(self, indexes: list[int]) -> Iterator[list[int]]:
        """Pieces in runs that lie together in the file."""
        run: list[int] = []
        for index in indexes:
            if run and self._pieces[run[-1]].end != self._pieces[index].first:
                yield run
                run = []
            run.append(index)
        if run:
            yield run

    def _fetch_whole(self, fetch: int) -> Action:
        planned = self._plan.fetches[fetch]
        whole = FetchWhole(self._next_assignment, planned, self._expected_of(planned))
        return self._assign(list(self._of_fetch[fetch]), None, whole)

    def _fetch_run(self, pieces: list[int]) -> Action:
        # Parts of a GET are left over only where peers gave the others, and they give with a manifest alone.
        assert self._manifest is not None
        first, end = self._pieces[pieces[0]].first, self._pieces[pieces[-1]].end
        run = FetchRun(
            self._next_assignment,
            first,
            end,
            self._manifest.offset(first),
            self._manifest.offset(end),
            self._manifest.slice(first, end).hashes,
        )
        return self._assign(pieces, None, run)

    def _expected_of(self, fetch: Fetch) -> bytes | None:
        """The hashes of all chunks of a GET's source, when the manifest gives every one of them."""
        if self._manifest is None:
            return None
        known: dict[int, bytes] = {}
        for placement in fetch.placements:
            for offset, chunk in enumerate(range(placement.start, placement.end)):
                known[chunk] = self._manifest.hash(placement.file_chunk + offset)
        chunks = range(fetch.source.start, fetch.source.end)
        if any(chunk not in known for chunk in chunks):
            return None
        return b"".join(known[chunk] for chunk in chunks)


def _some(items: Iterator[int], count: int) -> list[int]:
    return [item for _, item in zip(range(count), items, strict=False)]


def _without(ranges: tuple[tuple[int, int], ...], first: int, end: int) -> tuple[tuple[int, int], ...]:
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
