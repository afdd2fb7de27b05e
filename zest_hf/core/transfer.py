"""The state of one file on its way: who was asked for which piece, what came, what comes next.

Pure: told what happened and when, it says what to do next. `core.pieces` keeps the pieces, `core.knowledge` what
they can be checked by, `core.asking` divides them among peers, `core.policy` decides between peers and CDN.

Sources report each assignment's end exactly once. Peers are asked only for chunks that are known, so that
what they send is checked chunk by chunk; the CDN is asked for others as well, and then a xorb that is whole
proves itself, and `finish` proves the file as a whole.

Pieces of a GET without known hashes are never given to a second source, as nothing that it writes is checked. But what
it has not come to can be taken from any GET, as soon as it is known: it then stops there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from zest_hf.core.actions import (
    Action,
    AskPeer,
    CancelPeer,
    CopyLocal,
    FetchRun,
    FetchWhole,
    Follow,
    PeerTrouble,
    ReplaceGet,
    StopFollow,
    StopGet,
)
from zest_hf.core.asking import Asking
from zest_hf.core.assignments import Assignment, Assignments
from zest_hf.core.begun import Begun, Givers, begun_bytes, givers_of, members, peer_bytes
from zest_hf.core.crowd import Crowd
from zest_hf.core.crowd_decision import Decision
from zest_hf.core.following import Following
from zest_hf.core.gets import Gets
from zest_hf.core.ids import XetHash
from zest_hf.core.knowledge import Knowledge
from zest_hf.core.late import Late
from zest_hf.core.local import Copies, LocalFiles
from zest_hf.core.manifest import Manifest
from zest_hf.core.peer import Peer
from zest_hf.core.peers import Peers
from zest_hf.core.pieces import Pieces, State
from zest_hf.core.plan import Fetch, FilePlan
from zest_hf.core.policy import NOTHING_ELSEWHERE, CdnUse, Elsewhere, PolicySettings, View, cdn_use
from zest_hf.core.proof import MAX_WRONG_FETCHES, Counts, Proof
from zest_hf.core.ranges import Ranges, contains
from zest_hf.core.slow_gets import SlowGets
from zest_hf.core.together import Together
from zest_hf.core.yielding import Yielding

__all__ = [
    "MAX_WRONG_FETCHES",
    "Action",
    "AskPeer",
    "CancelPeer",
    "CopyLocal",
    "Counts",
    "FetchRun",
    "FetchWhole",
    "Follow",
    "PeerTrouble",
    "ReplaceGet",
    "StopFollow",
    "StopGet",
    "Transfer",
]

CDN_REST_S = 30.0
"""How long the CDN is left alone after a failure, as long as peers can give what is wanted."""

_NEVER = float("-inf")


class Transfer:
    """One file. ``plan`` covers all of it; ``file_hash`` is what it is proved by.

    ``seed`` is this node's: those who download the same file together should each have another. None takes the pieces
    in the order of the file.
    """

    def __init__(
        self,
        plan: FilePlan,
        file_hash: XetHash,
        settings: PolicySettings,
        seed: int | None = None,
    ) -> None:
        self._plan = plan
        self._settings = settings
        self._pieces = Pieces(plan)
        self._knowledge = Knowledge(plan)
        self._assignments = Assignments(self._pieces)
        self._peers = Peers(self._pieces, self._knowledge, self._assignments, settings, plan)
        self._asking = Asking(
            self._peers, self._pieces, self._knowledge, self._assignments, settings, plan, seed
        )
        self._proof = Proof(plan, file_hash, self._pieces, self._knowledge)
        self._yielding = Yielding(
            self._pieces,
            self._knowledge,
            self._assignments,
            self._peers,
            self._asking,
            settings,
            plan,
        )
        self._late = Late(
            self._peers, self._asking, self._pieces, self._assignments, settings, plan, self._yielding.flow
        )
        self._slow = SlowGets(settings)
        self._gets = Gets(
            plan,
            self._pieces,
            self._knowledge,
            self._assignments,
            self._late,
            self._yielding,
            settings,
            seed,
            self._proof.begun,
            self._slow,
        )
        self._copies: Copies | None = None
        self._together: Together | None = None
        self._following: Following | None = None
        self._began_s: float | None = None
        self._moved_s = 0.0
        """When something was last written, or found out."""
        self._cdn_rest_until_s = _NEVER
        self._cdn_error: Exception | None = None
        self.counts = self._proof.counts

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

    def join(self, crowd: Crowd, now_s: float) -> None:
        """From now on others are told what is done, and may be left to do a part of it."""
        self._together = self._gets.together = Together(crowd, self._pieces, self._knowledge, self._assignments)
        self._following = Following(
            crowd, self._plan, self._pieces, self._knowledge, self._assignments, self._proof.begun
        )
        for number, running in self._assignments.running_gets():
            self._together.began(number, self._pieces[running.pieces[0]].fetch, now_s)

    def take_decisions(self) -> list[Decision]:
        """What was decided about the crowd since it was asked last, for the log."""
        return [] if self._together is None else self._together.take_decisions()

    def take_proved(self) -> Ranges:
        """Chunks that have been written and proved, by whomever, since it was asked last."""
        return self._proof.take_proved()

    def take_liars(self) -> list[bytes]:
        """Members of the crowd that have passed on what is known to be wrong, since it was asked last."""
        liars = self._proof.take_liars()
        for member in liars:
            self._proof.doubt(member)
            if self._following is not None:
                self._following.wrong(member)
        return liars

    def xorbs_to_look_for(self) -> list[XetHash]:
        """The xorbs of wanted pieces that no peer is known to hold, in the order of the file."""
        held = self._peers.held_by_any()
        wanted = map(self._pieces.__getitem__, self._pieces.wanted)
        return list(dict.fromkeys(piece.xorb for piece in wanted if not contains(held, piece.first, piece.end)))

    def wanted_xorbs(self) -> list[XetHash]:
        """The xorbs of wanted pieces."""
        return list(dict.fromkeys(self._pieces[begin].xorb for begin in self._pieces.wanted))

    # --- what happened ------------------------------------------------------------------------------

    def manifest_proved(self, manifest: Manifest) -> None:
        """A manifest that the file hash proves.

        Raises ReconstructionError when the plan contradicts it, ProofError when the CDN has sent too much
        that does.
        """
        if self._knowledge.file is None:
            self._proof.file(manifest)
            self._more_is_known(self._knowledge.known)

    def xorb_proved(self, xorb: XetHash, manifest: Manifest) -> None:
        """A manifest that a xorb's hash proves. Raises as `manifest_proved`."""
        if not self._knowledge.knows_xorb(xorb):
            self._proof.xorb(xorb, manifest)
            self._more_is_known(self._knowledge.in_file(xorb, [(0, len(manifest))]))

    def local_files(self, files: LocalFiles) -> None:
        """These files are here and may have something of it. Raises as `manifest_proved`."""
        self._copies = Copies(self._plan, files, self._pieces, self._knowledge, self._assignments)
        for xorb, manifest in files.proved_xorbs(self._plan):
            self.xorb_proved(xorb, manifest)

    def resume(self, begun: Mapping[int, Begun]) -> None:
        """What an earlier process has written of these GETs, by number, is there; nothing proves it yet.

        Raises ReconstructionError when a term has another size than the plan says.
        """
        self._proof.resume(begun)

    def running(self, assignment: int) -> Action:
        """What is being asked for by that number."""
        return self._assignments[assignment].action

    @property
    def begun_bytes(self) -> int:
        """Of GETs that were broken off: what is there of them, whether somebody goes on with it or not."""
        running = (one.action for _, one in self._assignments.latest_first())
        there = [one.begun for one in running if isinstance(one, FetchWhole | Follow) and one.begun is not None]
        return sum(one.size_bytes for one in (*there, *self._proof.begun.values()))

    def copy_ended(self, assignment: int, chunks_written: int, opened: bool, now_s: float) -> None:
        """A copy ended with its first ``chunks_written`` chunks proved and written; ``opened``: of a file that is
        there.
        """
        assert self._copies is not None
        ended = self._assignments.end(assignment)
        self._copies.ended(ended, chunks_written, opened, now_s)
        for begin in ended.pieces:
            piece = self._pieces[begin]
            end = ended.brings(piece, chunks_written)
            if piece.state is not State.DONE and end > piece.first:
                self._moved_s = now_s
                self.counts.local += self._knowledge.offset(end) - self._knowledge.offset(piece.first)
                self._proof.proved(piece.first, end)
                self._pieces.advance(begin, end)
        self._assignments.answered(assignment, ended)
        if self._together is not None:
            self._together.look()

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

    def peer_ended(self, assignment: int, chunks_written: int, trouble: PeerTrouble | None, now_s: float) -> None:
        """A peer's assignment ended with its first ``chunks_written`` chunks proved and written."""
        ended = self._assignments.end(assignment)
        gained = self._peers.ended(assignment, ended, chunks_written, trouble, now_s)
        self.counts.peer += gained
        if self._together is not None:
            self._together.crowd.came(gained)
            self._together.crowd.given(gained)
        if chunks_written:
            assert isinstance(ended.action, AskPeer)
            self._moved_s = now_s
            first, end = ended.action.first, ended.action.first + chunks_written
            self._proof.proved(first, end)
            self._yielding.peers_gave(self._knowledge.offset(end) - self._knowledge.offset(first))

    def cdn_brought(
        self, brought: Mapping[int, int], now_s: float, received: Mapping[int, int] | None = None
    ) -> None:
        """So many bytes of the file has each GET that runs brought so far, by assignment. ``received``: what those that
        were answered have received for that; None: the same.
        """
        self._yielding.flow.note(brought, now_s)
        self._slow.note(brought, brought if received is None else received, now_s)
        if self._together is not None:
            self._together.brought(brought, now_s)

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
            givers = givers_of(chunks, None, action.begun)
            if self._is_of_no_use(ended, chunks):
                self._break_off(ended, chunks, givers)
                self._get_ended(assignment, ended, 0, False, now_s)
                return
            if len(givers) > 1 and self._proof.is_wrong(action.fetch, chunks, givers):
                self._get_ended(assignment, ended, 0, False, now_s)
                return
        complete = all(ended.brings(self._pieces[at], len(chunks)) == self._pieces[at].end for at in ended.pieces)
        if ended.is_blind:
            assert isinstance(action, FetchWhole)
            size = self._proof.keep(action.fetch, chunks, givers)
            if action.begun is not None and len(givers) > 1:
                size -= action.begun.size_bytes
        for begin in ended.pieces:
            piece = self._pieces[begin]
            end = ended.brings(piece, len(chunks))
            if not ended.is_blind:
                if piece.state is not State.DONE:
                    gained = self._knowledge.offset(end) - self._knowledge.offset(piece.first)
                    self.counts.cdn += gained
                    size += gained
                self._proof.proved(piece.first, end)
            if end == piece.end:
                self._pieces.done(begin)
            else:
                self._pieces.advance(begin, end)
        self._yielding.flow.ended(assignment, size, now_s)
        self._slow.ended(assignment, now_s)
        self._assignments.answered(assignment, ended)
        if ended.is_blind:
            assert isinstance(action, FetchWhole)
            self._settle(action.fetch, chunks)
        if self._together is not None:
            self._together.ended(assignment, size, complete, now_s)

    def cdn_failed(self, assignment: int, error: Exception, now_s: float) -> None:
        """A GET failed for good, after the retries of its source."""
        ended = self._assignments.end(assignment)
        if isinstance(ended.action, FetchWhole) and ended.action.begun is not None:
            self._break_off(ended, ended.action.begun.chunks, ended.action.begun.givers)
        self._get_ended(assignment, ended, 0, False, now_s)
        self._moved_s = now_s
        self._cdn_error = error
        self._cdn_rest_until_s = now_s + CDN_REST_S

    def followed(self, brought: Mapping[int, int], now_s: float) -> None:
        """So many bytes of the file has each member that is followed brought so far, by assignment."""
        if self._following is not None and self._following.brought(brought, now_s):
            self._moved_s = now_s

    def follow_ended(self, assignment: int, chunks: Manifest, trouble: PeerTrouble | None, now_s: float) -> None:
        """It is over with whom was followed: ``chunks`` are the first of the GET's source, as written.

        A part is kept only of what is known by now. Raises ReconstructionError when a term turns out to have another
        size than the plan says.
        """
        ended = self._assignments.end(assignment)
        action, following = ended.action, self._following
        assert isinstance(action, Follow) and following is not None
        fetch, giver = action.fetch, action.member
        number = self._pieces[ended.pieces[0]].fetch
        following.ended(assignment, chunks.size_bytes - begun_bytes(action.begun, chunks), trouble, now_s)
        self._moved_s = now_s
        count = fetch.source.end - fetch.source.start
        givers = givers_of(chunks, giver, action.begun)
        right = 0
        if self._knowledge.knows_xorb(fetch.source.xorb):
            right = self._proof.right(fetch, chunks, givers)
            is_wrong = right < len(chunks)
        else:
            is_wrong = len(chunks) > count or (len(chunks) == count and self._proof.is_wrong(fetch, chunks, givers))
            right = count if len(chunks) == count and not is_wrong else 0
            # Who is still there and sends no more may want what it has sent to be gone on with, as it is wrong.
            if len(chunks) < count and (trouble is PeerTrouble.GONE or following.has_proved(giver)):
                self._proof.break_off(number, chunks, givers)
        if is_wrong:
            for one in members(givers):
                following.wrong(one, number)
                self._proof.doubt(one)
        if right:
            self._proof.keep(fetch, chunks.slice(0, right), givers)
            for begin in ended.pieces:
                piece = self._pieces[begin]
                self._pieces.advance(begin, ended.brings(piece, right))
        self._assignments.answered(assignment, ended)
        if right:
            self._settle(fetch, chunks)
            if not is_wrong and self._knowledge.knows_xorb(fetch.source.xorb):
                following.right(giver, peer_bytes(givers, chunks))

    def peer_rate_bytes_s(self, now_s: float) -> float:
        """What peers that hold something of use give together."""
        return sum(peer.meter.bytes_s(now_s) for peer in self._peers.useful(now_s)) if self._knowledge.known else 0.0

    def actions(
        self,
        now_s: float,
        waiting_for_peers: bool,
        others_may_come: bool = False,
        elsewhere: Elsewhere = NOTHING_ELSEWHERE,
        max_gets: int | None = None,
    ) -> list[Action]:
        """What to start now. Raises the CDN's error when it failed and nobody else can give what is left.

        ``others_may_come``: nobody knows yet who else downloads the file, but that may change in a moment.
        ``elsewhere``: what peers give to other files. ``max_gets``: so many at once; None is what the settings say.
        """
        if self._began_s is None:
            self._began_s = self._moved_s = now_s
        if self.complete:
            return []
        out: list[Action] = []
        useful: list[Peer] = []
        if self._copies is not None:
            # Before anybody else is asked for it.
            out.extend(self._copies.starts(now_s))
        beside = self._yielding.beside
        beside.look(self._peers.rate_bytes_s(now_s), elsewhere, now_s)
        if self._knowledge.known:
            out.extend(self._asking.ask(now_s))
            stops = list(self._yielding.stops(now_s))
            out.extend(stops or self._late.take_over(now_s))
            useful = self._peers.useful(now_s)
            if self._gets.leads and useful and self._yielding.peers_suffice(now_s):
                self._gets.leads = False
        view = View(
            now_s=now_s,
            # Once the CDN is at work it does not stop for somebody who may turn up.
            waiting_for_peers=waiting_for_peers
            and not self._gets.began
            and now_s - self._began_s < self._settings.patience_s,
            useful_peers=len(useful),
            peers_since_s=self._asking.since_s,
            peer_rate_bytes_s=sum(peer.meter.bytes_s(now_s) for peer in useful),
            cdn_leads=self._gets.leads,
            in_crowd=bool(self._together),
            elsewhere=elsewhere,
            alone_bytes_s=beside.alone_bytes_s(now_s),
            cdn_bytes_s=beside.cdn_bytes_s,
            cdn_adds_nothing=beside.adds_nothing(now_s),
            rest_bytes=self._rest_bytes(),
        )
        use = cdn_use(view, self._settings)
        room = (self._settings.max_cdn_fetches if max_gets is None else max_gets) - self._assignments.gets
        if use is CdnUse.CROWD or not useful:
            beside.forget()
        if self._together:
            out.extend(self._together.stops(now_s))
            out.extend(self._follow(now_s))
        if use is not CdnUse.NOTHING:
            if self._cdn_error is None or now_s >= self._cdn_rest_until_s:
                is_first = not self._assignments.gets
                made = list(self._gets.make(use, room, useful, others_may_come, now_s))
                if made and is_first and use is CdnUse.EVERYTHING and useful and not self._gets.leads:
                    beside.began(view.peers_bytes_s)
                out.extend(made)
            else:
                nothing_runs = self._pieces.open == len(self._pieces.wanted)
                if nothing_runs and not self._is_hopeful(now_s, waiting_for_peers):
                    raise self._cdn_error
        out.extend(ReplaceGet(number) for number in self._slow.replaced(now_s))
        out.extend(self._assignments.take_cancels())
        return out

    def finish(self) -> Manifest | None:
        """With all pieces written: the file's manifest, proved by the file hash; None: parts are fetched again.

        That happens once: what xorbs have proved is kept. Raises ProofError the second time.
        """
        if self._knowledge.file is not None:
            return self._knowledge.file
        manifest = self._proof.finish()
        if manifest is not None:
            self.manifest_proved(manifest)
        return manifest

    def _rest_bytes(self) -> float:
        return self._plan.size_bytes - self.counts.total

    def _settle(self, fetch: Fetch, chunks: Manifest) -> None:
        """What was kept without proof may be known, or be a xorb as a whole."""
        self._proof.settle([place.file_chunk for place in fetch.placements])
        if self._proof.is_xorb(fetch, chunks):
            self.xorb_proved(fetch.source.xorb, chunks)

    def _follow(self, now_s: float) -> Iterator[Action]:
        following = self._following
        assert following is not None
        yield from following.stops(self._peers, now_s)
        # After the file was wrong once, only what the CDN itself has sent can be so.
        if not self._proof.refetched:
            yield from following.starts(now_s)

    def _is_hopeful(self, now_s: float, waiting_for_peers: bool) -> bool:
        """Whether, with the CDN gone, a peer may soon give something."""
        if now_s - self._moved_s >= self._settings.comeback_patience_s:
            return False
        return waiting_for_peers or bool(self._together) or self._peers.any_may_give()

    def _is_of_no_use(self, ended: Assignment, chunks: Manifest) -> bool:
        """A part of what nothing is known of is not kept."""
        if not ended.is_blind:
            return False
        assert isinstance(ended.action, FetchWhole)
        source = ended.action.fetch.source
        return len(chunks) < source.end - source.start and not self._knowledge.knows_xorb(source.xorb)

    def _break_off(self, ended: Assignment, chunks: Manifest, givers: Givers) -> None:
        # One that was stopped at its very beginning is nobody's any more.
        if ended.pieces:
            self._proof.break_off(self._pieces[ended.pieces[0]].fetch, chunks, givers)

    def _get_ended(self, assignment: int, ended: Assignment, size: int, complete: bool, now_s: float) -> None:
        self._yielding.flow.ended(assignment, size, now_s)
        self._slow.ended(assignment, now_s)
        self._assignments.answered(assignment, ended)
        if self._together is not None:
            self._together.ended(assignment, size, complete, now_s)

    def _more_is_known(self, new: Ranges) -> None:
        self._proof.settle_begun()
        self._peers.more_is_known(new)
        if self._together is not None:
            self._together.more_is_known()
            self._together.look()
