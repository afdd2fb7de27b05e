"""The state of one file on its way: who was asked for which piece, what came, what comes next.

Pure: told what happened and when, it says what to do next. `core.pieces` keeps the pieces, `core.knowledge` what
they can be checked by, `core.peers` divides them among peers, `core.policy` decides between peers and CDN.

Sources report each assignment's end exactly once. Peers are asked only for chunks that are known, so that
what they send is checked chunk by chunk; the CDN is asked for others as well, and then a xorb that is whole
proves itself, and `finish` proves the file as a whole.

Pieces of a GET without known hashes are never given to a second source, as nothing that it writes is checked. But what
it has not come to can be taken from any GET, as soon as it is known: it then stops there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from zest_hf.core.actions import Action, AskPeer, CancelPeer, FetchRun, FetchWhole, PeerTrouble, StopGet
from zest_hf.core.assignments import Assignments
from zest_hf.core.ids import XetHash
from zest_hf.core.knowledge import Knowledge
from zest_hf.core.manifest import Manifest
from zest_hf.core.peers import Peer, Peers
from zest_hf.core.pieces import Pieces, State
from zest_hf.core.plan import Fetch, FilePlan, Placement
from zest_hf.core.policy import CdnUse, PolicySettings, View, cdn_use, peers_suffice
from zest_hf.core.ranges import Ranges, contains, normalized
from zest_hf.core.unproved import Unproved
from zest_hf.core.yielding import Yielding
from zest_hf.errors import ProofError

__all__ = [
    "Action",
    "AskPeer",
    "CancelPeer",
    "Counts",
    "FetchRun",
    "FetchWhole",
    "PeerTrouble",
    "StopGet",
    "Transfer",
]

CDN_REST_S = 30.0
"""How long the CDN is left alone after a failure, as long as peers can give what is wanted."""

MAX_WRONG_FETCHES = 3
"""GETs without known hashes that may turn out wrong before the transfer is given up."""

ORPHANS_AGE_S = 0.1
"""How old an answer to "what does no peer hold" may be, when only what peers hold has changed."""

_NEVER = float("-inf")


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
    """One file. ``plan`` covers all of it; ``file_hash`` is what it is proved by.

    ``seed`` is this node's: those who download the same file together should each have another. None takes the pieces
    in the order of the file.
    """

    def __init__(
        self, plan: FilePlan, file_hash: XetHash, settings: PolicySettings, seed: int | None = None
    ) -> None:
        self._plan = plan
        self._file_hash = file_hash
        self._settings = settings
        self._pieces = Pieces(plan)
        self._knowledge = Knowledge(plan)
        self._assignments = Assignments(self._pieces)
        self._peers = Peers(self._pieces, self._knowledge, self._assignments, settings, plan, seed)
        self._unproved = Unproved()
        self._yielding = Yielding(
            self._pieces,
            self._knowledge,
            self._assignments,
            self._peers,
            settings,
            plan.size_bytes / max(plan.chunk_count, 1),
        )
        self._proved: list[tuple[int, int]] = []
        """Chunks that were proved and nobody was told of yet."""
        self._began_s: float | None = None
        self._moved_s = 0.0
        """When something was last written, or found out."""
        self._cdn_began = False
        self._cdn_leads = False
        """It was asked for everything when no peer was useful, and they have not sufficed since."""
        self._cdn_rest_until_s = _NEVER
        self._cdn_error: Exception | None = None
        self._wrong_fetches = 0
        self._refetched = False
        self._orphans = _Orphans()
        self.counts = Counts()

    # --- what is known -----------------------------------------------------------------------------

    @property
    def plan(self) -> FilePlan:
        return self._plan

    @property
    def manifest(self) -> Manifest | None:
        """The proved manifest of the file, as soon as there is one."""
        return self._knowledge.file

    @property
    def knowledge(self) -> Knowledge:
        """Which chunks are known."""
        return self._knowledge

    @property
    def complete(self) -> bool:
        """All pieces are written; `finish` comes next."""
        return self._pieces.open == 0

    def take_proved(self) -> Ranges:
        """Chunks that have been written and proved, by whomever, since it was asked last."""
        proved, self._proved = normalized(self._proved, self._plan.chunk_count), []
        return proved

    def xorbs_to_look_for(self) -> list[XetHash]:
        """The xorbs of wanted pieces that no peer is known to hold, in the order of the file."""
        held = self._peers.held_by_any()
        wanted = map(self._pieces.__getitem__, self._pieces.wanted)
        return list(dict.fromkeys(piece.xorb for piece in wanted if not contains(held, piece.first, piece.end)))

    # --- what happened ------------------------------------------------------------------------------

    def manifest_proved(self, manifest: Manifest) -> None:
        """A manifest that the file hash proves.

        Raises ReconstructionError when the plan contradicts it, ProofError when the CDN has sent too much
        that does.
        """
        if self._knowledge.file is None:
            self._knowledge.file_proved(manifest)
            self._peers.more_is_known()
            self._settle(None)

    def xorb_proved(self, xorb: XetHash, manifest: Manifest) -> None:
        """A manifest that a xorb's hash proves. Raises as `manifest_proved`."""
        if not self._knowledge.knows_xorb(xorb):
            self._knowledge.xorb_proved(xorb, manifest)
            self._peers.more_is_known()
            self._settle(self._knowledge.terms_of(xorb))

    def peer_holds(self, peer: int, ranges: Sequence[tuple[int, int]]) -> None:
        """A peer holds these chunks of the file (replaces what was known of that)."""
        self._peers.holds(peer, ranges)

    def peer_holds_more(self, peer: int, ranges: Sequence[tuple[int, int]], xorb: XetHash | None = None) -> None:
        """A peer holds these chunks of the file, or of a xorb, as well."""
        if xorb is not None:
            ranges = self._knowledge.in_file(xorb, ranges)
        self._peers.holds_more(peer, ranges, by_xorb=xorb is not None)

    def peer_lacks(self, peer: int, ranges: Sequence[tuple[int, int]], xorb: XetHash | None = None) -> None:
        """A peer does not hold these chunks any more."""
        self._peers.lacks(peer, ranges if xorb is None else self._knowledge.in_file(xorb, ranges))

    def peer_gone(self, peer: int) -> None:
        """Its assignments end by themselves: each reports."""
        self._peers.gone(peer)

    def peer_ended(
        self, assignment: int, chunks_written: int, trouble: PeerTrouble | None, now_s: float
    ) -> None:
        """A peer's assignment ended with its first ``chunks_written`` chunks proved and written."""
        ended = self._assignments.end(assignment)
        self.counts.peer += self._peers.ended(assignment, ended, chunks_written, trouble, now_s)
        if chunks_written:
            assert isinstance(ended.action, AskPeer)
            self._moved_s = now_s
            first, end = ended.action.first, ended.action.first + chunks_written
            self._proved.append((first, end))
            self._yielding.peers_gave(self._knowledge.offset(end) - self._knowledge.offset(first))

    def cdn_brought(self, brought: Mapping[int, int], now_s: float) -> None:
        """So many bytes of the file has each GET that runs brought so far, by assignment."""
        self._yielding.flow.note(brought, now_s)

    def cdn_stops(self, assignment: int, chunks: int) -> None:
        """A GET that was to stop will end with its first ``chunks``, and writes nothing behind them."""
        if self._assignments.get(assignment) is not None:
            self._assignments.stopped(assignment, chunks)

    def cdn_ended(self, assignment: int, chunks: Manifest, now_s: float) -> None:
        """A GET is done: ``chunks`` are those of its source (FetchWhole) or of the run (FetchRun), as written.

        Of one that was stopped they are the first ones, perhaps none. Raises ReconstructionError when a term turns
        out to have another size than the plan says, ProofError when the CDN has sent too much that is wrong.
        """
        ended = self._assignments.end(assignment)
        self._moved_s = now_s
        action = ended.action
        size = 0
        if ended.is_blind:
            assert isinstance(action, FetchWhole)
            size = self._unproved.add(action.fetch, chunks)
            self.counts.cdn += size
        for begin in ended.pieces:
            piece = self._pieces[begin]
            end = ended.brings(piece, len(chunks))
            if not ended.is_blind:
                if piece.state is not State.DONE:
                    gained = self._knowledge.offset(end) - self._knowledge.offset(piece.first)
                    self.counts.cdn += gained
                    size += gained
                self._proved.append((piece.first, end))
            if end == piece.end:
                self._pieces.done(begin)
            else:
                self._pieces.advance(begin, end)
        self._yielding.flow.ended(assignment, size, now_s)
        self._assignments.answered(assignment, ended)
        if ended.is_blind:
            assert isinstance(action, FetchWhole)
            self._settle([place.file_chunk for place in action.fetch.placements])
            self._prove_by_itself(action.fetch, chunks)

    def cdn_failed(self, assignment: int, error: Exception, now_s: float) -> None:
        """A GET failed for good, after the retries of its source."""
        ended = self._assignments.end(assignment)
        self._yielding.flow.ended(assignment, 0, now_s)
        self._assignments.answered(assignment, ended)
        self._moved_s = now_s
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
        useful: list[Peer] = []
        if self._knowledge.known:
            out.extend(self._peers.ask(now_s))
            stops = list(self._yielding.stops(now_s))
            out.extend(stops or self._peers.take_over(now_s))
            useful = self._peers.useful(now_s)
            if self._cdn_leads and useful and peers_suffice(self._yielding.rates(now_s), self._settings):
                self._cdn_leads = False
        view = View(
            now_s=now_s,
            # Once the CDN is at work it does not stop for somebody who may turn up.
            waiting_for_peers=waiting_for_peers
            and not self._cdn_began
            and now_s - self._began_s < self._settings.patience_s,
            useful_peers=len(useful),
            peers_since_s=self._peers.since_s,
            peer_rate_bytes_s=sum(peer.meter.bytes_s(now_s) for peer in useful),
            cdn_leads=self._cdn_leads,
        )
        use = cdn_use(view, self._settings)
        if use is not CdnUse.NOTHING:
            if self._cdn_error is None or now_s >= self._cdn_rest_until_s:
                out.extend(self._ask_cdn(use, useful, now_s))
            else:
                nothing_runs = self._pieces.open == len(self._pieces.wanted)
                if nothing_runs and not self._is_hopeful(now_s, waiting_for_peers):
                    raise self._cdn_error
        out.extend(self._assignments.take_cancels())
        return out

    def finish(self) -> Manifest | None:
        """With all pieces written: the file's manifest, proved by the file hash; None: parts are fetched again.

        That happens once: what xorbs have proved is kept. Raises ProofError the second time.
        """
        if self._knowledge.file is not None:
            return self._knowledge.file
        manifest = self._unproved.manifest(self._plan, self._knowledge)
        try:
            manifest.prove_file(self._file_hash)
        except ProofError:
            doubtful = [] if self._refetched else self._unproved.drop()
            if not doubtful:
                raise
            self._refetched = True
            for place in doubtful:
                self._undo(place)
            return None
        self.manifest_proved(manifest)
        return manifest

    # --- proof ---------------------------------------------------------------------------------------

    def _prove_by_itself(self, fetch: Fetch, chunks: Manifest) -> None:
        """The CDN may have sent all of a xorb."""
        source = fetch.source
        if source.start == 0 and not self._knowledge.knows_xorb(source.xorb) and chunks.xorb_hash() == source.xorb:
            self.xorb_proved(source.xorb, chunks)

    def _settle(self, terms: Iterable[int] | None) -> None:
        """Compare what came without hashes with what is known by now. ``terms``: which, by first chunk; None: all."""
        right, wrong = self._unproved.settle(self._knowledge, terms)
        self._proved += [(place.file_chunk, place.file_chunk + place.end - place.start) for place in right]
        for places in wrong:
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
        return waiting_for_peers or self._peers.any_may_give()

    # --- CDN ----------------------------------------------------------------------------------------------

    def _ask_cdn(self, use: CdnUse, useful: list[Peer], now_s: float) -> Iterator[Action]:
        room = self._settings.max_cdn_fetches - self._assignments.gets
        if room <= 0:
            return
        if use is CdnUse.ORPHANS:
            runs = self._in_gets(self._orphans.find(self._pieces, useful, self._plan.chunk_count, now_s))
        elif self._pieces.wanted:
            if useful and self._cdn_leads and self._yielding.stopped_just_now(now_s):
                return
            runs = self._everything(from_the_back=bool(useful))
            self._cdn_leads |= not useful
        else:
            # A CDN that leads is not kept idle for long by who may give nothing.
            is_idle = self._cdn_leads and not self._assignments.gets
            overdue_s = self._settings.left_alone_s if is_idle else self._settings.overdue_s
            late = self._peers.overdue(now_s, overdue_s)
            runs = self._pieces.runs(sorted(begin for begin in late if not self._is_in_a_get(begin)))
        for run in runs:
            yield self._get(run, now_s)
            room -= 1
            if room == 0:
                return

    def _everything(self, from_the_back: bool) -> Iterator[list[int]]:
        """What is wanted, one GET of the plan after the other. The CDN helps peers from the back."""
        pieces = self._pieces
        while pieces.wanted:
            fetch = pieces[pieces.wanted[-1 if from_the_back else 0]].fetch
            yield from self._in_gets(
                [begin for begin in pieces.of_fetch(fetch) if pieces[begin].state is State.WANTED]
            )

    def _in_gets(self, begins: list[int]) -> Iterator[list[int]]:
        """Wanted pieces as what one GET each can bring: no more than the plan's GETs do."""
        by_fetch: dict[int, list[int]] = {}
        for begin in begins:
            by_fetch.setdefault(self._pieces[begin].fetch, []).append(begin)
        for fetch, chosen in by_fetch.items():
            if self._is_whole(fetch, chosen):
                yield chosen
            else:
                yield from list(self._pieces.runs(chosen))

    def _is_in_a_get(self, begin: int) -> bool:
        askers = self._pieces[begin].askers
        return any(not isinstance(self._assignments[number].action, AskPeer) for number in askers)

    def _is_whole(self, fetch: int, chosen: list[int]) -> bool:
        return chosen == self._pieces.of_fetch(fetch) and all(map(self._pieces.is_untouched, chosen))

    def _get(self, run: list[int], now_s: float) -> Action:
        """A GET for pieces that are the whole of one of the plan's, or lie together in the file."""
        self._cdn_began = True
        number = self._assignments.next_number
        self._yielding.flow.began(number, now_s)
        fetch = self._pieces[run[0]].fetch
        if self._is_whole(fetch, run):
            planned = self._plan.fetches[fetch]
            whole = FetchWhole(number, planned, self._knowledge.expected_of(planned))
            # Only with every hash may somebody else be writing there as well.
            if whole.expected is not None or not any(self._pieces[begin].askers for begin in run):
                return self._assignments.begin(whole, run, now_s)
        # Parts of a GET are left over only where peers gave the others, and they give what is known alone.
        first, end = self._pieces[run[0]].first, self._pieces[run[-1]].end
        offset = self._knowledge.offset
        part = FetchRun(number, first, offset(first), offset(end), self._knowledge.part(first, end))
        return self._assignments.begin(part, run, now_s)


class _Orphans:
    """Which wanted pieces no useful peer holds: remembered, as it is asked often and changes seldom."""

    def __init__(self) -> None:
        self._generation = -1
        self._ranges: list[Ranges] = []
        self._found_s = _NEVER
        self._found: list[int] = []

    def find(self, pieces: Pieces, useful: list[Peer], chunks: int, now_s: float) -> list[int]:
        ranges = [peer.askable for peer in useful]
        if not pieces.wanted:
            return []
        is_old = ranges != self._ranges and (
            len(ranges) != len(self._ranges) or now_s - self._found_s >= ORPHANS_AGE_S
        )
        if pieces.generation != self._generation or is_old:
            held = normalized([one for some in ranges for one in some], chunks)
            self._generation, self._ranges, self._found_s = pieces.generation, ranges, now_s
            self._found = [
                begin for begin in pieces.wanted if not contains(held, pieces[begin].first, pieces[begin].end)
            ]
        return [begin for begin in self._found if pieces[begin].state is State.WANTED]
