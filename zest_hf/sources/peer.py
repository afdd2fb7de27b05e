"""Peers as a source: who holds the file or its xorbs, manifests from some of them, and pieces from all.

Lives on the download's thread: the swarm's events come through `handle`, and `step` is called before each decision.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import dataclass

from zest_hf._native.events import (
    Claims,
    Event,
    HaveAnswer,
    HaveMore,
    Kind,
    ManifestAnswer,
    Outcome,
    PeerBanned,
    PeerGone,
    PeerReady,
    PieceEnd,
)
from zest_hf._native.session import MAX_MANIFEST_ENTRIES
from zest_hf.core.crowd import Crowd
from zest_hf.core.crowd_claims import Told, units_of
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import MAX_CHUNK_BYTES, Manifest
from zest_hf.core.policy import PolicySettings, discovery_patience_s
from zest_hf.core.ranges import normalized
from zest_hf.core.reconstruction import MAX_TERMS
from zest_hf.core.transfer import AskPeer, CancelPeer, Follow, PeerTrouble, StopFollow, Transfer
from zest_hf.errors import SwarmError
from zest_hf.sources.base import (
    ManifestProved,
    PeerEnded,
    PeerHolds,
    PeerHoldsMore,
    PeerLeft,
    Reporter,
    WriteFailed,
)
from zest_hf.sources.drafts import Drafts
from zest_hf.sources.following import Following
from zest_hf.sources.manifest_quest import ManifestQuest, NoManifest
from zest_hf.sources.target import Run, Target
from zest_hf.sources.xorb_search import XorbSearch
from zest_hf.swarm import Listener, Swarm

log = logging.getLogger("zest_hf.sources.peer")

# No file has more: the CAS describes at most so many terms of so many chunks.
MAX_FILE_CHUNKS = min(1 << 28, MAX_TERMS * 8192)
# Chunks have 8 KiB and more, but for the last of what was chunked in one go.
LEAST_MEAN_CHUNK_BYTES = 1024
AGAIN_S = 1.0
LONGEST_AGAIN_S = 16.0
CROWD_FORMS_S = 0.4
"""Those who begin at the same time have found each other by then, if their machines are not too busy,"""
CROWD_ANSWERS_S = 1.0
"""... and told each other what they do."""
"""A peer that does not know the file is asked again after 1, 2, 4... 16 s: it may be about to download it."""

_TROUBLE = {
    Outcome.NOT_FOUND: PeerTrouble.LACKS,
    Outcome.TIMEOUT: PeerTrouble.SILENT,
    Outcome.BUSY: PeerTrouble.BUSY,
    Outcome.CANCELLED: PeerTrouble.CANCELLED,
}


@dataclass(slots=True)
class _Holder:
    """A peer that can be asked for pieces."""

    given: bool
    """It was given by hand."""
    chunks: int = 0
    """Of the file, as it says; 0 until it has said so."""
    token: int = 0
    """Of the question what it holds."""
    until_s: float = 0.0
    """... when its answer is waited for no longer."""
    late_s: float = 0.0
    """... and when it has let it pass."""
    answered: bool = False
    times: int = 0
    again_s: float = 0.0
    """How often it was asked, and when it is next."""
    by_chunk: bool = False
    """It speaks only BEP XET v1: what it holds shows when it is asked."""


@dataclass(frozen=True, slots=True)
class _Asked:
    assignment: int
    peer: int
    run: Run


class PeerSource:
    """Peers that hold one file, or parts of it."""

    def __init__(
        self,
        swarm: Swarm,
        file_hash: XetHash,
        fd: int,
        settings: PolicySettings,
        listener: Listener,
        report: Reporter,
        size_bytes: int | None = None,
        share: bool = False,
        began_s: float | None = None,
        drafts: Drafts | None = None,
    ) -> None:
        """``listener`` puts the swarm's events where the download's thread finds them; it then calls `handle`.

        ``size_bytes`` of the file, if known, bounds what peers can claim of it. ``share``: what is proved is offered
        to others meanwhile, and ``drafts`` what is not proved yet to members of the crowd that ask for such.
        ``began_s``: when the download began (monotonic clock), if that was before now.
        """
        self._swarm = swarm
        self._file_hash = file_hash
        self._fd = fd
        self._settings = settings
        self._listener = listener
        self._report = report
        self._manifest: Manifest | None = None
        self._size_bytes = size_bytes
        self._share = share
        self._drafts = drafts
        self._following = Following(swarm, fd, listener, report)
        self._transfer: Transfer | None = None
        self._target: Target | None = None
        self._holders: dict[int, _Holder] = {}
        self._met: set[int] = set()
        self._quest: ManifestQuest | None = None
        self._asked: dict[int, _Asked] = {}  # by token
        self._tokens: dict[int, int] = {}  # assignment -> token
        seed = int.from_bytes(swarm.node_id[:8], "big")
        self._search = XorbSearch(swarm, listener, report, settings, seed)
        self._began_s = time.monotonic() if began_s is None else began_s
        self._xorb_swarm_tried = False
        self._crowd: Crowd | None = None
        self._names: dict[int, bytes] = {}
        """What peers call themselves, by connection."""
        self._number_of: dict[bytes, int] = {}
        """The last connection of each who has a name."""
        self._met_s = time.monotonic()
        self._claims: dict[int, Claims] = {}
        """The last of each peer."""
        self._told: list[Told] | None = None
        self._withdrawn = False
        for ready in swarm.subscribe(listener):
            self._meet(ready)
        swarm.dial_given()
        swarm.join_file(file_hash)

    def begin(self, transfer: Transfer) -> None:
        """How the file is rebuilt is known: from now on pieces can be asked for."""
        self._transfer = transfer
        sharer = self._swarm if self._share else None
        self._target = Target(self._fd, self._file_hash, transfer.plan, transfer.knowledge, sharer)
        if self._share:
            # Who gives nothing has nothing to agree upon.
            if self._drafts is not None:
                self._drafts.offer_to(self._swarm)
            self._crowd = Crowd(self._swarm.node_id, units_of(transfer.plan))
            transfer.join(self._crowd, time.monotonic())
            for claims in self._claims.values():
                self._claimed(claims)
        if transfer.manifest is not None:
            self._know(transfer.manifest)
        self._guess_manifest()

    def waiting(self, now_s: float) -> bool:
        """Whether a peer may soon turn out to be useful, within the policy's patience."""
        if self._withdrawn:
            return False
        if self._swarm.reaching(now_s):
            return True
        if any(not one.answered and now_s < one.until_s for one in self._holders.values()):
            return True
        # A peer is ready in the swarm a moment before its event has come through our inbox.
        if not self._swarm.ready_peers() <= self._met:
            return True
        if self._quest is not None and now_s < self._quest_until_s(self._quest):
            return True
        return self._search.waiting(now_s) or self._may_discover(now_s)

    def others_may_come(self, now_s: float) -> bool:
        """Whether it is too early to say that nobody else downloads the file at this moment."""
        if self._withdrawn or not self._share:
            return False
        since_s = now_s - self._met_s
        if since_s < CROWD_FORMS_S and (self._swarm.discovering(now_s) or self._swarm.reaching(now_s)):
            return True
        # Somebody is there and has not said what it does.
        return since_s < CROWD_ANSWERS_S and any(not one.answered for one in self._holders.values())

    def followed(self) -> dict[int, int]:
        """File bytes that have come from each member that is followed, by assignment."""
        return self._following.progress()

    def summary(self, now_s: float) -> str:
        """What is known of the peers, for the log."""
        holding = sum(1 for holder in self._holders.values() if holder.chunks)
        manifest = "known" if self._manifest is not None else "asked for" if self._quest is not None else "unknown"
        reaching = ", more are being reached" if self._swarm.reaching(now_s) else ""
        return f"{len(self._holders)} peers, {holding} know the file, manifest {manifest}{reaching}"

    def step(self, now_s: float) -> None:
        """Asks what is worth asking now, and offers what has been proved."""
        if self._transfer is None or self._target is None or self._withdrawn:
            return
        if self._manifest is None and self._transfer.manifest is not None:
            self._know(self._transfer.manifest)
        self._target.proved(self._transfer.take_proved())
        self._ban_liars(self._transfer)
        if self._quest is not None and now_s >= self._quest.heard_s + self._settings.stranger_patience_s:
            self._replace_quest(self._quest)
        for peer, holder in self._holders.items():
            if not holder.answered and now_s >= holder.late_s:
                self._swarm.unanswering.add((peer, "have"))
            if holder.answered and not holder.chunks and not holder.by_chunk and now_s >= holder.again_s:
                self._ask_have(peer, holder, now_s)
        self._search.step(self._transfer, now_s)
        self._tell_claims()
        if self._manifest is not None and not self._xorb_swarm_tried and not self._swarm.reaching(now_s):
            # Given peers that do not know our rendezvous may know the swarm of a xorb.
            self._xorb_swarm_tried = True
            for term in self._transfer.plan.terms[:1]:
                self._swarm.dial_xorb_swarm(term.xorb)

    def start(self, action: AskPeer | CancelPeer | Follow | StopFollow) -> None:
        """Asks a peer for a piece, or follows one, or calls that off."""
        if isinstance(action, Follow):
            number = self._number_of.get(action.member)
            self._following.start(action, number if number in self._names else None)
            return
        if isinstance(action, StopFollow):
            self._following.stop(action.assignment)
            return
        if isinstance(action, CancelPeer):
            token = self._tokens.get(action.assignment)
            if token is not None:
                self._swarm.cancel_piece(action.peer, token)
            return
        assert self._target is not None
        run = self._target.begin(action.first)
        try:
            token = self._swarm.ask_piece(
                self._listener,
                action.peer,
                run.file,
                Kind.XORB if action.by_xorb else Kind.FILE,
                action.xorb if action.by_xorb else self._file_hash,
                action.xorb_first if action.by_xorb else action.first,
                action.first - run.first,
                action.count,
                self._settings.piece_silence_s,
            )
        except SwarmError:
            self._target.done(run)
            self._report(PeerEnded(action.assignment, 0, PeerTrouble.GONE))
            return
        self._asked[token] = _Asked(action.assignment, action.peer, run)
        self._tokens[action.assignment] = token

    def finish(self) -> Target | None:
        """The file is complete and proved: `close`, but what is offered of it stays so until the target's `end`."""
        target, self._target = self._target, None
        if self._transfer is not None:
            self._ban_liars(self._transfer)
        if target is not None:
            if self._transfer is not None:
                target.proved(self._transfer.take_proved())
            target.seal()
        return target

    def withdraw(self) -> None:
        """The file is not for everybody any more: nobody is asked for it, told of it or offered it from now on."""
        if self._withdrawn:
            return
        self._withdrawn, self._share = True, False
        if self._drafts is not None:
            self._drafts.withdraw()
        self._swarm.leave_file(self._file_hash)
        if self._target is not None:
            self._target.withdraw()
        self._following.stop_all()
        for token, asked in self._asked.items():
            self._swarm.cancel_piece(asked.peer, token)
        self._quest = None
        for peer, holder in list(self._holders.items()):
            if holder.token:
                self._swarm.forget_have(holder.token, peer)
            self._lost(peer)

    def close(self) -> None:
        """Stops all; nothing is written afterwards, and nothing offered but by a target that `finish` gave away."""
        self._swarm.unsubscribe(self._listener)
        if self._told is not None:
            with contextlib.suppress(SwarmError):
                self._swarm.tell_claims(self._file_hash, False, ())
        if not self._withdrawn:
            self._swarm.leave_file(self._file_hash)
        for token, asked in self._asked.items():
            self._swarm.cancel_piece(asked.peer, token)
        self._following.close()
        if self._target is not None:
            self._target.end()

    def handle(self, event: Event) -> None:
        """What an event of the swarm means here."""
        if self._withdrawn and not isinstance(event, PieceEnd):
            return
        if isinstance(event, PeerReady):
            self._meet(event)
        elif isinstance(event, PeerGone | PeerBanned):
            self._lost(event.peer)
        elif isinstance(event, HaveAnswer):
            if not self._search.has(event):
                self._has(event)
        elif isinstance(event, HaveMore):
            if not self._search.has_more(event):
                self._has_more(event)
        elif isinstance(event, ManifestAnswer):
            if not self._search.takes(event, time.monotonic()):
                self._manifest_part(event)
        elif isinstance(event, PieceEnd):
            self._piece_ended(event)
        elif isinstance(event, Claims) and event.file_hash == self._file_hash:
            self._claims[event.peer] = event
            self._claimed(event)

    # --- who holds it ----------------------------------------------------------------------------------

    def _patience_s(self, holder: _Holder | None) -> float:
        given = holder is not None and holder.given
        return self._settings.answer_patience_s if given else self._settings.stranger_patience_s

    def _quest_until_s(self, quest: ManifestQuest) -> float:
        # While a peer has not said that it has the file, that is what is waited for.
        if quest.is_guess or (quest.peer, "manifest") in self._swarm.unanswering:
            return 0.0
        holder = self._holders.get(quest.peer)
        if holder is not None and holder.given:
            return quest.until_s
        return min(quest.until_s, quest.heard_s + self._settings.stranger_patience_s)

    def _may_discover(self, now_s: float) -> bool:
        size_bytes = self._size_bytes or 0
        patience_s = discovery_patience_s(size_bytes, self._settings)
        return now_s - self._began_s < patience_s and self._swarm.discovering(now_s)

    def _meet(self, ready: PeerReady) -> None:
        self._met.add(ready.peer)
        if any(ready.node_id):
            self._names[ready.peer] = ready.node_id
            self._number_of[ready.node_id] = ready.peer
        if ready.ranges:
            holder = self._holders[ready.peer] = _Holder(given=bool(ready.token))
            self._ask_have(ready.peer, holder, time.monotonic())
        elif ready.token:
            self._holders[ready.peer] = _Holder(given=True, by_chunk=True, answered=True)
            if self._manifest is not None:
                self._offer_by_chunk(ready.peer)
        # Another can only be asked by saying what is wanted: not a stranger, who may know no more than a swarm's name.

    def _lost(self, peer: int) -> None:
        self._claims.pop(peer, None)
        name = self._names.pop(peer, None)
        if name is not None and self._crowd is not None and name not in self._names.values():
            self._crowd.others.left(name)
        if self._holders.pop(peer, None) is not None:
            self._report(PeerLeft(peer))
        self._search.remove(peer)
        if self._quest is not None and self._quest.peer == peer:
            self._next_quest()

    # --- who downloads it too -----------------------------------------------------------------------------

    def _claimed(self, claims: Claims) -> None:
        name = self._names.get(claims.peer)
        if self._crowd is None or self._transfer is None or name is None:
            return
        now_s = time.monotonic()
        for unit in self._crowd.others.heard(name, claims.downloading, claims.claims, now_s):
            self._search.got(claims.peer, self._transfer.plan.fetches[unit].source.xorb, now_s)

    def _ban_liars(self, transfer: Transfer) -> None:
        for name in transfer.take_liars():
            if name in self._number_of:
                self._swarm.ban(self._number_of[name], "passed on chunks of a xorb that are not the xorb's")

    def _ask_for_held(self, peer: int) -> None:
        if self._crowd is not None and self._transfer is not None and peer in self._names:
            for unit in self._crowd.others.held_by(self._names[peer]):
                xorb = self._transfer.plan.fetches[unit].source.xorb
                self._search.got(peer, xorb, time.monotonic())

    def _tell_claims(self) -> None:
        if self._crowd is None:
            return
        claims = self._crowd.claims()
        if claims != self._told:
            self._told = claims
            try:
                self._swarm.tell_claims(self._file_hash, True, claims)
            except SwarmError as error:
                log.debug("nobody is told what is fetched: %s", error)

    def _offer_by_chunk(self, peer: int) -> None:
        assert self._manifest is not None
        self._report(PeerHolds(peer, ((0, len(self._manifest)),)))

    def _ask_have(self, peer: int, holder: _Holder, now_s: float) -> None:
        patience_s = self._settings.answer_patience_s
        if holder.token:
            self._swarm.forget_have(holder.token, peer)
        holder.token = self._swarm.ask_have(
            self._listener, peer, Kind.FILE, self._file_hash, patience_s, updates=True
        )
        holder.answered = False
        # Nobody waits for the answer to a second question, nor for who has not answered before.
        holder.late_s = now_s + self._patience_s(holder)
        is_waited_for = holder.times == 0 and (peer, "have") not in self._swarm.unanswering
        holder.until_s = holder.late_s if is_waited_for else 0.0
        holder.again_s = now_s + min(LONGEST_AGAIN_S, AGAIN_S * 2.0 ** min(holder.times, 10))
        holder.times += 1
        self._guess_manifest()

    def _has(self, answer: HaveAnswer) -> None:
        holder = self._holders.get(answer.peer)
        if holder is None or holder.token != answer.token:
            return
        holder.answered = True
        if answer.outcome is not Outcome.TIMEOUT:
            self._swarm.unanswering.discard((answer.peer, "have"))
        guess = self._quest if self._quest is not None and self._quest.peer == answer.peer else None
        if answer.outcome is not Outcome.OK or not 0 < answer.chunks <= MAX_FILE_CHUNKS:
            if guess is not None:
                self._next_quest()
            self._search.add(answer.peer)
            self._ask_for_held(answer.peer)
            return
        if not self._possible(answer.chunks):
            self._swarm.ban(answer.peer, f"says that the file has {answer.chunks} chunks, which it cannot have")
            return
        if not self._plausible(answer.chunks):
            self._search.add(answer.peer)
            return
        holder.chunks = answer.chunks
        if guess is not None:
            guess.is_guess = False
        self._report(PeerHolds(answer.peer, normalized(answer.ranges, answer.chunks)))
        if answer.ranges == ((0, answer.chunks),):
            self._search.remove(answer.peer)
        if self._manifest is None and self._quest is None:
            self._ask_manifest(answer.peer, answer.chunks)

    def _has_more(self, more: HaveMore) -> None:
        holder = self._holders.get(more.peer)
        if holder is None or holder.token != more.token:
            return
        if not holder.chunks and not more.gone and 0 < more.chunks <= MAX_FILE_CHUNKS:
            # It knew nothing of the file when it was asked.
            if not self._possible(more.chunks):
                self._swarm.ban(more.peer, f"says that the file has {more.chunks} chunks, which it cannot have")
                return
            holder.chunks = more.chunks
            if self._manifest is None and self._quest is None:
                self._ask_manifest(more.peer, more.chunks)
        if not holder.chunks:
            return
        if more.gone:
            # It may have moved to where it stays: it is asked again.
            holder.chunks = 0
            holder.answered, holder.times, holder.again_s = True, 1, time.monotonic() + AGAIN_S
            self._report(PeerHolds(more.peer, ()))
        else:
            self._report(PeerHoldsMore(more.peer, normalized(more.ranges, holder.chunks)))

    # --- the manifest -------------------------------------------------------------------------------------

    def _know(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._quest = None
        for peer, holder in self._holders.items():
            if holder.by_chunk:
                self._offer_by_chunk(peer)

    def _guess_manifest(self) -> None:
        """Asks who has not said yet whether it knows the file, once it is known how many chunks that has.

        A file of a few chunks would take as long to be asked for as to come.
        """
        if self._transfer is None or self._manifest is not None or self._quest is not None:
            return
        chunks = self._chunks_of(self._transfer)
        asked = [peer for peer, holder in self._holders.items() if holder.times == 1 and not holder.answered]
        if asked and chunks <= MAX_MANIFEST_ENTRIES:
            self._ask_manifest(asked[0], chunks, is_guess=True)

    def _ask_manifest(self, peer: int, chunks: int, *, is_guess: bool = False) -> None:
        now_s = time.monotonic()
        until_s = now_s + self._settings.manifest_patience_s
        self._quest = ManifestQuest(
            self._swarm, self._listener, Kind.FILE, self._file_hash, peer, chunks, now_s, until_s
        )
        self._quest.is_guess = is_guess

    def _possible(self, chunks: int) -> bool:
        if self._manifest is not None:
            return chunks == len(self._manifest)
        size = self._size_bytes
        return size is None or size / MAX_CHUNK_BYTES <= chunks <= size

    def _plausible(self, chunks: int) -> bool:
        """Whether it is worth asking for so long a manifest. That chunks are small is not yet a lie."""
        if self._transfer is not None:
            return chunks == self._chunks_of(self._transfer)
        size = self._size_bytes
        return size is None or chunks <= size / LEAST_MEAN_CHUNK_BYTES + 1024

    @staticmethod
    def _chunks_of(transfer: Transfer) -> int:
        return sum(term.end - term.start for term in transfer.plan.terms)

    def _next_quest(self) -> None:
        self._quest = None
        late = self._swarm.unanswering
        holders = [(peer, holder.chunks) for peer, holder in self._holders.items() if holder.chunks]
        # Who has let such a question pass is the last to be asked again.
        holders.sort(key=lambda holder: (holder[0], "manifest") in late)
        if holders:
            self._ask_manifest(*holders[0])

    def _replace_quest(self, slow: ManifestQuest) -> None:
        """It sends nothing: somebody else is asked, if there is anybody who has not been silent as well."""
        late = self._swarm.unanswering
        others = any(
            holder.chunks and peer != slow.peer and (peer, "manifest") not in late
            for peer, holder in self._holders.items()
        )
        holder = self._holders.get(slow.peer)
        if others or holder is None or not holder.given:
            late.add((slow.peer, "manifest"))
        if others:
            self._next_quest()

    def _manifest_part(self, answer: ManifestAnswer) -> None:
        quest = self._quest
        if quest is None or not quest.waits_for(answer.token):
            return
        try:
            manifest = quest.take(answer, time.monotonic())
        except NoManifest as error:
            if error.lie is not None:
                self._swarm.ban(quest.peer, error.lie)
            elif quest.is_guess:
                self._next_quest()
                return
            else:
                self._swarm.unanswering.add((quest.peer, "manifest"))
            self._lost(quest.peer)
            return
        if manifest is not None:
            self._swarm.unanswering.discard((quest.peer, "manifest"))
            self._report(ManifestProved(manifest))
            self._know(manifest)

    # --- pieces ---------------------------------------------------------------------------------------------

    def _piece_ended(self, event: PieceEnd) -> None:
        if self._following.takes(event):
            return
        asked = self._asked.pop(event.token, None)
        if asked is None:
            return
        del self._tokens[asked.assignment]
        if self._target is not None:
            self._target.done(asked.run)
        if event.outcome is Outcome.IO:
            self._report(WriteFailed(OSError(event.error_number, os.strerror(event.error_number))))
            return
        trouble = None if event.outcome is Outcome.OK else _TROUBLE.get(event.outcome, PeerTrouble.GONE)
        if trouble is not None:
            log.debug("peer %d: %s after %d chunks", event.peer, trouble.value, event.chunks_written)
        self._report(PeerEnded(asked.assignment, event.chunks_written, trouble))
