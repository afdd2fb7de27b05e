"""Keeps the swarm's offer equal to the index: what other processes add is offered, what vanishes is withdrawn."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zest_hf.core.ids import XetHash
from zest_hf.errors import StorageError, SwarmError
from zest_hf.index import Copy, Index, IndexedFile, Position
from zest_hf.swarm import Swarm

log = logging.getLogger("zest_hf.seed")

LOOK_AROUND_S = 0.002
"""How long the files are looked at a second: some hundreds on a local disk. With 100,000 small ones a round takes
minutes, and no processor."""


@dataclass(frozen=True, slots=True)
class _Offer:
    """One file as it is offered; what is needed to tell whether it has to change."""

    file_hash: XetHash
    path: Path
    mtime_ns: int
    size_bytes: int
    repo: tuple[str, str, str]
    terms: int


class Seeder:
    """`refresh` is called now and then, by one thread; `models` by any. It ends early once ``stop`` is set."""

    def __init__(
        self,
        index: Index,
        swarm: Swarm,
        stop: threading.Event,
        *,
        keyed: bool = False,
        permits: Callable[[str, str], bool] = lambda repo_type, repo_id: True,
    ) -> None:
        """``keyed``: only who has the key is let in, so that private repositories are offered as well.

        ``permits``: whether a repository may be offered by what the user wants.
        """
        self._permits = permits
        self._stop = stop
        self._index = index
        self._swarm = swarm
        self._keyed = keyed
        self._lock = threading.Lock()
        self._offers: dict[tuple[Path, XetHash], _Offer] = {}
        self._to_look_at: list[_Offer] = []
        self._generation: int | None = None
        self._position: Position | None = None
        self.ready = threading.Event()
        """Set when everything that was in the index at the start is offered."""

    def refresh(self) -> None:
        """Looks at the index if it has changed, and at the files. Raises StorageError."""
        generation = self._index.generation()
        if generation != self._generation:
            position, changed = self._index.changes(self._position)
            self._adopt(self._index.copies(changed), changed)
            self._generation, self._position = generation, position
        else:
            self._look_around()
        if not self._stop.is_set():
            self.ready.set()

    def _look_around(self) -> None:
        """Whether files are what they were: all of them, or as many as there is time for, the others next time.

        Before it serves from a file the swarm looks as well.
        """
        end_s = time.monotonic() + LOOK_AROUND_S
        self._to_look_at = self._to_look_at or list(self._offers.values())
        while self._to_look_at and not self._stop.is_set() and time.monotonic() < end_s:
            offer = self._to_look_at.pop()
            known = self._offers.get((offer.path, offer.file_hash)) is offer
            if known and not _unchanged(offer.path, offer.mtime_ns, offer.size_bytes):
                self._withdraw(offer)

    def activity(self) -> tuple[int | None, int]:
        """Changes when something is uploaded, or new in the index."""
        return self._generation, self._swarm.stats().bytes_up

    def lost(self, path: str) -> None:
        """The swarm found, while serving, that a file is not what it was."""
        with self._lock:
            offers = [offer for offer in self._offers.values() if str(offer.path) == path]
        for offer in offers:
            self._withdraw(offer)

    def _adopt(self, copies: list[Copy], changed: Collection[XetHash] | None) -> None:
        """Offers what is new or has changed; only of that is read what it is made of.

        ``copies``: all that there are of the files ``changed``, or of all files if that is None.
        """
        seen: set[tuple[Path, XetHash]] = set()
        for copy in copies:
            if self._stop.is_set():
                return
            key = (copy.path, copy.file_hash)
            # One copy may belong to several repositories: it is offered if any of them may be.
            if not self._may_offer(copy.public, copy.repo) or key in seen:
                continue
            known = self._offers.get(key)
            if not _unchanged(copy.path, copy.mtime_ns, None if known is None else known.size_bytes):
                self._forget(copy.file_hash, copy.path)
                continue
            # A file found by a scan becomes known by its xorbs when it is downloaded as well.
            if known is None or (known.mtime_ns, known.terms) != (copy.mtime_ns, copy.terms):
                file = self._load(copy)
                if file is None:
                    continue
                self._offer(file)
            elif known.repo != copy.repo:
                # That by which it came to be offered may be private by now, and its name with it.
                with self._lock:
                    self._offers[key] = replace(known, repo=copy.repo)
            seen.add(key)
        for key in [key for key in self._offers if (changed is None or key[1] in changed) and key not in seen]:
            self._stop_offering(self._offers[key])

    def _may_offer(self, public: bool, repo: tuple[str, str, str]) -> bool:
        return (public or self._keyed) and self._permits(*repo[1:])

    def _load(self, copy: Copy) -> IndexedFile | None:
        """The entry behind ``copy``; None when it was taken out meanwhile, or its file has changed."""
        for file in self._index.get(copy.file_hash):
            repo = (file.endpoint, file.repo_type, file.repo_id)
            if self._may_offer(file.public, repo) and (file.path, file.mtime_ns) == (copy.path, copy.mtime_ns):
                if _unchanged(file.path, file.mtime_ns, file.size_bytes):
                    return file
                self._forget(file.file_hash, file.path)
                return None
        return None

    def _offer(self, file: IndexedFile) -> None:
        try:
            self._swarm.share(file)
        except SwarmError as error:
            log.warning("%s", error)
            return
        repo = (file.endpoint, file.repo_type, file.repo_id)
        offer = _Offer(file.file_hash, file.path, file.mtime_ns, file.size_bytes, repo, len(file.terms))
        with self._lock:
            self._offers[file.path, file.file_hash] = offer

    def _withdraw(self, offer: _Offer) -> None:
        log.info("%s has changed or is gone; it is not offered any more", offer.path)
        self._stop_offering(offer)
        self._forget(offer.file_hash, offer.path)

    def _stop_offering(self, offer: _Offer) -> None:
        self._swarm.unshare(str(offer.path), offer.file_hash)
        with self._lock:
            self._offers.pop((offer.path, offer.file_hash), None)

    def _forget(self, file_hash: XetHash, path: Path) -> None:
        try:
            self._index.remove(file_hash, path)
        except StorageError as error:
            log.warning("%s stays in the index: %s", path, error)

    def end(self) -> None:
        """Has the process end, soon."""
        self._stop.set()

    def totals(self) -> tuple[int, int, int]:
        """Files offered, their bytes, and the repositories they belong to."""
        with self._lock:
            offers = list(self._offers.values())
        return len(offers), sum(offer.size_bytes for offer in offers), len({offer.repo for offer in offers})

    def models(self) -> list[dict[str, Any]]:
        """Per repository: what is offered of it and who takes it."""
        shares = {share.file_hash: share for share in self._swarm.shares()}
        out: dict[tuple[str, str, str], dict[str, Any]] = {}
        with self._lock:
            offers = list(self._offers.values())
        for offer in offers:
            endpoint, repo_type, repo_id = offer.repo
            model = out.setdefault(
                offer.repo,
                {
                    "repo": repo_id,
                    "repo_type": repo_type,
                    "endpoint": endpoint,
                    "files": 0,
                    "size": 0,
                    "peers": 0,
                    "uploaded": 0,
                },
            )
            model["files"] += 1
            model["size"] += offer.size_bytes
            share = shares.get(offer.file_hash)
            if share is not None:
                model["peers"] = max(model["peers"], share.peers)
                model["uploaded"] += share.bytes_up
        return sorted(out.values(), key=lambda model: str(model["repo"]))


def _unchanged(path: Path, mtime_ns: int, size_bytes: int | None) -> bool:
    """``size_bytes``: None when it is not known yet."""
    try:
        stat = path.stat()
    except OSError:
        return False
    return stat.st_mtime_ns == mtime_ns and size_bytes in (None, stat.st_size)
