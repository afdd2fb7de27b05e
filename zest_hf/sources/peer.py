"""Peers as a source: who holds the file, its manifest from one of them, and pieces from all.

Lives on the download's thread: the swarm's events come through `handle`.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, field

from zest_hf._native.session import (
    MAX_MANIFEST_ENTRIES,
    Event,
    HaveAnswer,
    Kind,
    ManifestAnswer,
    Outcome,
    PeerBanned,
    PeerGone,
    PeerReady,
    PieceEnd,
    WritableFile,
)
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import MAX_CHUNK_BYTES, Manifest
from zest_hf.core.policy import PolicySettings
from zest_hf.core.reconstruction import MAX_TERMS
from zest_hf.core.transfer import AskPeer, PeerTrouble
from zest_hf.errors import ProofError, SwarmError
from zest_hf.sources.base import ManifestProved, PeerEnded, PeerHolds, PeerLeft, Reporter, WriteFailed
from zest_hf.swarm import Listener, Swarm

log = logging.getLogger("zest_hf.sources.peer")

# No file has more: the CAS describes at most so many terms of so many chunks.
MAX_FILE_CHUNKS = min(1 << 28, MAX_TERMS * 8192)
# Chunks have 8 KiB and more, but for the last of what was chunked in one go.
LEAST_MEAN_CHUNK_BYTES = 1024
# Parts of a manifest that are asked for at a time.
MANIFEST_WINDOW = 4

_TROUBLE = {
    Outcome.NOT_FOUND: PeerTrouble.LACKS,
    Outcome.TIMEOUT: PeerTrouble.SILENT,
    Outcome.BUSY: PeerTrouble.BUSY,
}


@dataclass(slots=True)
class _Holder:
    """A peer that can be asked for pieces."""

    ranges: tuple[tuple[int, int], ...] | None = None
    """None until it has answered."""
    chunks: int = 0
    """Of the file, as it says."""
    by_chunk: bool = False
    """It speaks only BEP XET v1: what it holds shows when it is asked."""


@dataclass(slots=True)
class _ManifestQuest:
    """The manifest that one peer is asked for, in parts."""

    peer: int
    chunks: int
    until_s: float
    parts: dict[int, Manifest] = field(default_factory=dict)
    waiting: dict[int, int] = field(default_factory=dict)
    """Token -> first chunk of the part that was asked for."""
    asked: int = 0
    """Chunks before this are asked for."""


class PeerSource:
    """Peers that hold one file."""

    def __init__(
        self,
        swarm: Swarm,
        file_hash: XetHash,
        fd: int,
        settings: PolicySettings,
        listener: Listener,
        report: Reporter,
        manifest: Manifest | None = None,
        size_bytes: int | None = None,
    ) -> None:
        """``listener`` puts the swarm's events where the download's thread finds them; it then calls `handle`.

        ``size_bytes`` of the file, if known, bounds what peers can claim of it.
        """
        self._swarm = swarm
        self._file_hash = file_hash
        self._fd = fd
        self._settings = settings
        self._listener = listener
        self._report = report
        self._manifest = manifest
        self._size_bytes = size_bytes
        self._file: WritableFile | None = None
        self._holders: dict[int, _Holder] = {}
        self._met: set[int] = set()
        self._haves: dict[int, tuple[int, float]] = {}  # token -> peer, when to stop waiting
        self._quest: _ManifestQuest | None = None
        self._asked: dict[int, int] = {}  # token -> assignment
        self._opened_s = time.monotonic()
        self._xorb_swarm_tried = False
        for ready in swarm.subscribe(listener):
            self._meet(ready)
        swarm.dial_given()

    def waiting(self, now_s: float) -> bool:
        """Whether a peer may soon turn out to be useful, within the policy's patience."""
        if self._swarm.reaching(now_s) or any(now_s < until_s for _, until_s in self._haves.values()):
            return True
        # A peer is ready in the swarm a moment before its event has come through our inbox.
        if not self._swarm.ready_peers() <= self._met:
            return True
        return self._quest is not None and now_s < self._quest.until_s

    def summary(self, now_s: float) -> str:
        """What is known of the peers, for the log."""
        holding = sum(1 for holder in self._holders.values() if holder.ranges)
        manifest = "known" if self._manifest is not None else "asked for" if self._quest is not None else "unknown"
        reaching = ", more are being reached" if self._swarm.reaching(now_s) else ""
        return f"{len(self._holders)} peers, {holding} hold the file, manifest {manifest}{reaching}"

    def know(self, manifest: Manifest) -> None:
        """The manifest is known from elsewhere."""
        self._manifest = manifest
        self._quest = None

    def try_xorb_swarm(self, xorb: XetHash) -> None:
        """Given peers that do not know our rendezvous may know the swarm of a xorb."""
        if not self._xorb_swarm_tried and self._manifest is not None:
            self._xorb_swarm_tried = True
            self._swarm.dial_xorb_swarm(xorb)

    def start(self, action: AskPeer) -> None:
        """Asks a peer for a piece."""
        assert self._manifest is not None
        if self._file is None:
            self._file = WritableFile(self._fd, self._manifest)
        try:
            token = self._swarm.ask_piece(
                self._listener,
                action.peer,
                self._file,
                Kind.FILE,
                self._file_hash,
                action.first,
                action.first,
                action.count,
                self._settings.piece_silence_s,
            )
        except SwarmError:
            self._report(PeerEnded(action.assignment, 0, PeerTrouble.GONE))
            return
        self._asked[token] = action.assignment

    def close(self) -> None:
        """Stops all; nothing is written afterwards."""
        self._swarm.unsubscribe(self._listener)
        if self._file is not None:
            self._file.close()

    def handle(self, event: Event) -> None:
        """What an event of the swarm means here."""
        if isinstance(event, PeerReady):
            self._meet(event)
        elif isinstance(event, PeerGone | PeerBanned):
            if self._holders.pop(event.peer, None) is not None:
                self._report(PeerLeft(event.peer))
            if self._quest is not None and self._quest.peer == event.peer:
                self._next_quest()
        elif isinstance(event, HaveAnswer):
            self._has(event)
        elif isinstance(event, ManifestAnswer):
            self._manifest_part(event)
        elif isinstance(event, PieceEnd):
            self._piece_ended(event)

    # --- who holds it ----------------------------------------------------------------------------------

    def _meet(self, ready: PeerReady) -> None:
        self._met.add(ready.peer)
        holder = self._holders[ready.peer] = _Holder(by_chunk=not ready.ranges)
        if holder.by_chunk:
            # It can only be asked by saying what is wanted: not a stranger, who may know no more than a swarm's name.
            if not ready.token:
                del self._holders[ready.peer]
            elif self._manifest is not None:
                self._offer_by_chunk(ready.peer)
            return
        patience_s = self._settings.answer_patience_s
        token = self._swarm.ask_have(self._listener, ready.peer, Kind.FILE, self._file_hash, patience_s)
        self._haves[token] = (ready.peer, time.monotonic() + patience_s)

    def _offer_by_chunk(self, peer: int) -> None:
        assert self._manifest is not None
        self._report(PeerHolds(peer, ((0, len(self._manifest)),)))

    def _has(self, answer: HaveAnswer) -> None:
        peer, _ = self._haves.pop(answer.token, (answer.peer, 0.0))
        holder = self._holders.get(peer)
        if holder is None or answer.outcome is not Outcome.OK or not 0 < answer.chunks <= MAX_FILE_CHUNKS:
            return
        if not self._possible(answer.chunks):
            self._swarm.ban(peer, f"says that the file has {answer.chunks} chunks, which it cannot have")
            return
        holder.chunks = answer.chunks
        holder.ranges = tuple((start, end) for start, end in answer.ranges if end <= answer.chunks)
        self._report(PeerHolds(peer, holder.ranges))
        if self._manifest is None and self._quest is None:
            self._ask_manifest(peer, answer.chunks)

    # --- the manifest -------------------------------------------------------------------------------------

    def _ask_manifest(self, peer: int, chunks: int) -> None:
        self._quest = _ManifestQuest(peer, chunks, time.monotonic() + self._settings.manifest_patience_s)
        self._ask_parts(self._quest)

    def _ask_parts(self, quest: _ManifestQuest) -> None:
        # A few at a time: a peer that talks of a giant file is found out before much of it is here.
        left_s = quest.until_s - time.monotonic()
        while quest.asked < quest.chunks and len(quest.waiting) < MANIFEST_WINDOW and left_s > 0:
            count = min(MAX_MANIFEST_ENTRIES, quest.chunks - quest.asked)
            token = self._swarm.ask_manifest(
                self._listener, quest.peer, Kind.FILE, self._file_hash, quest.asked, count, left_s
            )
            quest.waiting[token] = quest.asked
            quest.asked += count

    def _possible(self, chunks: int) -> bool:
        if self._manifest is not None:
            return chunks == len(self._manifest)
        size = self._size_bytes
        return size is None or size / MAX_CHUNK_BYTES <= chunks <= size / LEAST_MEAN_CHUNK_BYTES + 1024

    def _next_quest(self) -> None:
        failed = self._quest.peer if self._quest is not None else None
        self._quest = None
        for peer, holder in self._holders.items():
            if peer != failed and holder.ranges:
                self._ask_manifest(peer, holder.chunks)
                return

    def _manifest_part(self, answer: ManifestAnswer) -> None:
        quest = self._quest
        if quest is None or answer.token not in quest.waiting:
            return
        first = quest.waiting.pop(answer.token)
        wanted = min(MAX_MANIFEST_ENTRIES, quest.chunks - first)
        if answer.outcome is not Outcome.OK or answer.chunks != quest.chunks or len(answer.part) != wanted:
            self._give_up_on(quest.peer)
            return
        quest.parts[first] = answer.part
        self._ask_parts(quest)
        if quest.waiting:
            return
        if quest.asked < quest.chunks:
            self._give_up_on(quest.peer)
            return
        manifest = Manifest.join(part for _, part in sorted(quest.parts.items()))
        try:
            manifest.prove_file(self._file_hash)
        except ProofError as error:
            self._swarm.ban(quest.peer, f"sent a manifest that is not the file's: {error}"[:120])
            self._give_up_on(quest.peer)
            return
        self.know(manifest)
        self._report(ManifestProved(manifest))
        for peer, holder in self._holders.items():
            if holder.by_chunk:
                self._offer_by_chunk(peer)

    def _give_up_on(self, peer: int) -> None:
        self._holders.pop(peer, None)
        self._report(PeerLeft(peer))
        self._next_quest()

    # --- pieces ---------------------------------------------------------------------------------------------

    def _piece_ended(self, event: PieceEnd) -> None:
        assignment = self._asked.pop(event.token, None)
        if assignment is None:
            return
        if event.outcome is Outcome.IO:
            self._report(WriteFailed(OSError(event.error_number, os.strerror(event.error_number))))
            return
        trouble = None if event.outcome is Outcome.OK else _TROUBLE.get(event.outcome, PeerTrouble.GONE)
        if trouble is not None:
            log.debug("peer %d: %s after %d chunks", event.peer, trouble.value, event.chunks_written)
        self._report(PeerEnded(assignment, event.chunks_written, trouble))

