"""Peers as a source: who holds the file, its manifest from one of them, and pieces from all.

Lives on the download's thread: the swarm's events come through `handle`.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass

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
from zest_hf.core.ids import XetHash, xorb_info_hash
from zest_hf.core.manifest import Manifest
from zest_hf.core.policy import PolicySettings
from zest_hf.core.reconstruction import MAX_TERMS
from zest_hf.core.transfer import AskPeer, PeerTrouble
from zest_hf.errors import ProofError, SwarmError
from zest_hf.sources.base import ManifestProved, PeerEnded, PeerHolds, PeerLeft, Report, Reporter, WriteFailed
from zest_hf.swarm import Listener, Swarm

log = logging.getLogger("zest_hf.sources.peer")

# No file has more: the CAS describes at most so many terms of so many chunks.
MAX_FILE_CHUNKS = min(1 << 28, MAX_TERMS * 8192)

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
    by_chunk: bool = False
    """It speaks only BEP XET v1: what it holds shows when it is asked."""


@dataclass(slots=True)
class _ManifestQuest:
    """The manifest that one peer is asked for, in parts."""

    peer: int
    chunks: int
    until_s: float
    parts: dict[int, Manifest]
    waiting: set[int]


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
    ) -> None:
        """``listener`` puts the swarm's events where the download's thread finds them; it then calls `handle`."""
        self._swarm = swarm
        self._file_hash = file_hash
        self._fd = fd
        self._settings = settings
        self._listener = listener
        self._report = report
        self._manifest = manifest
        self._file: WritableFile | None = None
        self._holders: dict[int, _Holder] = {}
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
        return self._quest is not None and now_s < self._quest.until_s

    def know(self, manifest: Manifest) -> None:
        """The manifest is known from elsewhere."""
        self._manifest = manifest
        self._quest = None

    def try_xorb_swarm(self, xorb: XetHash) -> None:
        """Given peers that do not know our rendezvous may know the swarm of a xorb."""
        if not self._xorb_swarm_tried and self._manifest is not None:
            self._xorb_swarm_tried = True
            self._swarm.dial_xorb_swarm(xorb_info_hash(xorb))

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
        holder = self._holders[ready.peer] = _Holder(by_chunk=not ready.ranges)
        if holder.by_chunk:
            if self._manifest is not None:
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
        if self._manifest is not None and answer.chunks != len(self._manifest):
            self._swarm.ban(peer, "says that the file has another number of chunks")
            return
        holder.ranges = tuple((start, end) for start, end in answer.ranges if end <= answer.chunks)
        self._report(PeerHolds(peer, holder.ranges))
        if self._manifest is None and self._quest is None:
            self._ask_manifest(peer, answer.chunks)

    # --- the manifest -------------------------------------------------------------------------------------

    def _ask_manifest(self, peer: int, chunks: int) -> None:
        patience_s = self._settings.manifest_patience_s
        self._quest = _ManifestQuest(peer, chunks, time.monotonic() + patience_s, {}, set())
        for first in range(0, chunks, MAX_MANIFEST_ENTRIES):
            count = min(MAX_MANIFEST_ENTRIES, chunks - first)
            token = self._swarm.ask_manifest(
                self._listener, peer, Kind.FILE, self._file_hash, first, count, patience_s
            )
            self._quest.waiting.add(token)

    def _next_quest(self) -> None:
        failed = self._quest.peer if self._quest is not None else None
        self._quest = None
        for peer, holder in self._holders.items():
            if peer != failed and holder.ranges:
                self._ask_manifest(peer, max(end for _, end in holder.ranges))
                return

    def _manifest_part(self, answer: ManifestAnswer) -> None:
        quest = self._quest
        if quest is None or answer.token not in quest.waiting:
            return
        quest.waiting.discard(answer.token)
        if answer.outcome is not Outcome.OK or answer.chunks != quest.chunks or len(answer.part) == 0:
            self._holders.pop(quest.peer, None)
            self._report(PeerLeft(quest.peer))
            self._next_quest()
            return
        quest.parts[answer.first] = answer.part
        if quest.waiting:
            return
        manifest = Manifest.join(part for _, part in sorted(quest.parts.items()))
        try:
            manifest.prove_file(self._file_hash)
        except ProofError as error:
            self._swarm.ban(quest.peer, f"sent a manifest that is not the file's: {error}"[:120])
            self._holders.pop(quest.peer, None)
            self._report(PeerLeft(quest.peer))
            self._next_quest()
            return
        self.know(manifest)
        self._report(ManifestProved(manifest))
        for peer, holder in self._holders.items():
            if holder.by_chunk:
                self._offer_by_chunk(peer)

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


__all__ = ["PeerSource", "Report"]
