"""What running GETs have brought of xorbs that nothing proves yet: members of the crowd may follow it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Protocol

from zest_hf._native.codec import Unpacker
from zest_hf._native.draft import Draft
from zest_hf.core.manifest import Manifest
from zest_hf.core.plan import Fetch
from zest_hf.errors import StorageError, SwarmError

log = logging.getLogger("zest_hf.sources.drafts")

KEPT = 4
"""Drafts whose GETs have ended: who follows may be behind."""


class DraftSharer(Protocol):
    """Lets peers follow drafts: the swarm."""

    def share_draft(self, draft: Draft) -> None: ...

    def unshare_draft(self, draft: Draft) -> None: ...


class Drafts:
    """Of one file, whose descriptor is borrowed until `close` or `release`. Any method from any thread."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._sharer: DraftSharer | None = None
        self._running: list[Draft] = []
        self._ended: list[Draft] = []
        self._closed = False

    def begin(self, fetch: Fetch, begun: Manifest) -> Draft | None:
        """A GET begins whose chunks nothing proves. None: nobody could follow it.

        What is there of it already somebody else has sent: only who has that, too, may follow, as we vouch for the rest
        alone.
        """
        if not fetch.is_one_piece:
            return None
        source, (place,) = fetch.source, fetch.placements
        with self._lock:
            if self._closed:
                return None
            try:
                draft = Draft(
                    self._fd,
                    place.file_offset + begun.size_bytes,
                    place.size_bytes - begun.size_bytes,
                    source.xorb,
                    source.start + len(begun),
                    source.end,
                )
            except StorageError as error:
                log.info("%s", error)
                return None
            self._running.append(draft)
            self._share(draft)
        return draft

    @staticmethod
    def came(draft: Draft, unpacker: Unpacker) -> None:
        """The GET has decoded and written more."""
        chunks = unpacker.chunks(draft.added)
        if not len(chunks.lengths):
            return
        # What does not fit is wrong, as will be found out by who looks at it next.
        with contextlib.suppress(SwarmError):
            draft.add(chunks.hashes, chunks.lengths)

    def ended(self, draft: Draft) -> None:
        """It has brought all that it will."""
        draft.end()
        with self._lock:
            if draft not in self._running:
                return
            self._running.remove(draft)
            self._unshare(draft)
            self._ended.append(draft)
            if len(self._ended) > KEPT:
                self._ended.pop(0).close()

    def offer_to(self, sharer: DraftSharer) -> None:
        """From now on its peers may follow."""
        with self._lock:
            if self._sharer is None and not self._closed:
                self._sharer = sharer
                for draft in self._running:
                    self._share(draft)

    def withdraw(self) -> None:
        """Nobody may any more, nor goes on."""
        with self._lock:
            for draft in self._running:
                self._unshare(draft)
            self._sharer = None
            # Of those that run the GETs do not know: they add to what is closed, in vain.
            for draft in (*self._running, *self._ended):
                draft.close()

    def release(self) -> None:
        """The file is proved: who follows may take the rest."""
        self._end(Draft.release)

    def close(self) -> None:
        """Nothing is read any more."""
        self._end(Draft.close)

    def _end(self, end: Callable[[Draft], None]) -> None:
        with self._lock:
            self._closed = True
            for draft in self._running:
                self._unshare(draft)
            for draft in (*self._running, *self._ended):
                end(draft)
            self._running.clear()
            self._ended.clear()

    def _share(self, draft: Draft) -> None:
        if self._sharer is not None:
            with contextlib.suppress(SwarmError):
                self._sharer.share_draft(draft)

    def _unshare(self, draft: Draft) -> None:
        if self._sharer is not None:
            with contextlib.suppress(SwarmError):
                self._sharer.unshare_draft(draft)
