"""GETs of other members that this node follows: what they bring comes here while they run, unproved."""

from __future__ import annotations

import os
from dataclasses import dataclass

from zest_hf._native.draft import Draft
from zest_hf._native.events import Outcome, PieceEnd
from zest_hf.core.actions import Follow, PeerTrouble
from zest_hf.core.manifest import Manifest
from zest_hf.errors import StorageError, SwarmError
from zest_hf.sources.base import FollowEnded, Reporter, WriteFailed
from zest_hf.swarm import Listener, Swarm

SILENCE_S = 3.0
"""A member that sends nothing for so long is not followed any more: its own GET may be at fault."""

_NOTHING = Manifest.join(())
_TROUBLE = {
    Outcome.NOT_FOUND: PeerTrouble.LACKS,
    Outcome.BUSY: PeerTrouble.BUSY,
    Outcome.TIMEOUT: PeerTrouble.SILENT,
    Outcome.CANCELLED: PeerTrouble.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class _Followed:
    assignment: int
    peer: int
    draft: Draft
    begun: Manifest


class Following:
    """Of one download, on its thread. ``fd`` is borrowed until `close`."""

    def __init__(self, swarm: Swarm, fd: int, listener: Listener, report: Reporter) -> None:
        self._swarm = swarm
        self._fd = fd
        self._listener = listener
        self._report = report
        self._followed: dict[int, _Followed] = {}
        """By token."""

    def start(self, action: Follow, peer: int | None) -> None:
        """Follows a peer; None: there is no connection to it."""
        source, place = action.fetch.source, action.fetch.placements[0]
        begun = _NOTHING if action.begun is None else action.begun.chunks
        offset, size = place.file_offset + begun.size_bytes, place.size_bytes - begun.size_bytes
        draft = None
        try:
            if peer is None:
                raise SwarmError("it is gone")
            draft = Draft(self._fd, offset, size, source.xorb, source.start + len(begun), source.end)
            token = self._swarm.follow(self._listener, peer, draft, SILENCE_S)
        except (SwarmError, StorageError):
            if draft is not None:
                draft.close()
            self._report(FollowEnded(action.assignment, begun, PeerTrouble.GONE))
            return
        self._followed[token] = _Followed(action.assignment, peer, draft, begun)

    def stop(self, assignment: int) -> None:
        """Its end is reported as ever."""
        for token, one in self._followed.items():
            if one.assignment == assignment:
                self._swarm.cancel_piece(one.peer, token)

    def stop_all(self) -> None:
        """Their ends are reported as ever."""
        for token, one in self._followed.items():
            self._swarm.cancel_piece(one.peer, token)

    def progress(self) -> dict[int, int]:
        """File bytes that have come by each that runs, by assignment."""
        return {one.assignment: one.draft.size_bytes for one in self._followed.values()}

    def takes(self, event: PieceEnd) -> bool:
        """Whether that was one of these."""
        followed = self._followed.pop(event.token, None)
        if followed is None:
            return False
        if event.outcome is Outcome.IO:
            self._report(WriteFailed(OSError(event.error_number, os.strerror(event.error_number))))
        else:
            trouble = None if event.outcome is Outcome.OK else _TROUBLE.get(event.outcome, PeerTrouble.GONE)
            # Of who sends more than there is nothing is believed; nor can what was there before be right for sure.
            wrong = event.outcome is Outcome.WRONG
            chunks = _NOTHING if wrong else Manifest.join((followed.begun, followed.draft.manifest()))
            self._report(FollowEnded(followed.assignment, chunks, trouble))
        followed.draft.close()
        return True

    def close(self) -> None:
        """Nothing is written any more."""
        self.stop_all()
        for one in self._followed.values():
            one.draft.close()
