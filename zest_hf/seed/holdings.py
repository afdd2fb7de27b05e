"""What peers hold of the files that are offered here: who says that it downloads one is asked, and tells more of it."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from typing import Any, Final

from zest_hf._native.events import Claims, HaveAnswer, HaveMore, Kind, Outcome, PeerGone
from zest_hf.core.ids import XetHash
from zest_hf.errors import SwarmError
from zest_hf.swarm import Swarm

MAX_FILES: Final = 64
"""Of one peer."""
MAX_QUESTIONS: Final = 4
"""About one file to one peer: who stops to tell may be asked again, as the file has moved, say."""
ANSWER_S: Final = 60.0


@dataclass(slots=True)
class _Held:
    token: int | None = None
    """Of the question under way, or whose answer is added to."""
    questions: int = 0
    chunks: int = 0
    """Of the file; 0: not known yet."""
    held: int = 0
    """Of them, as far as it says so: a peer may tell of some twice, to nobody's harm."""


class Holdings:
    """Costs one small question for each peer and file, and nothing for peers that do not download.

    Who had it all before it came here is not asked: it asks for nothing either.
    """

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._lock = threading.Lock()
        self._peers: dict[int, dict[XetHash, _Held]] = {}
        swarm.subscribe(self._heard)

    def of(self, peer: int) -> float | None:
        """The part, 0..1, that a peer holds of the files that it has begun to download; None when it has not said."""
        with self._lock:
            known = [one for one in self._peers.get(peer, {}).values() if one.chunks]
            total = sum(one.chunks for one in known)
            return sum(min(one.held, one.chunks) for one in known) / total if total else None

    def _heard(self, event: Any) -> None:
        """On the swarm's thread, which brings the answers as well."""
        with self._lock:
            if isinstance(event, PeerGone):
                self._peers.pop(event.peer, None)
            elif isinstance(event, Claims) and event.downloading:
                self._ask(event.peer, event.file_hash)
            elif isinstance(event, HaveAnswer | HaveMore):
                self._answered(event)

    def _ask(self, peer: int, file_hash: XetHash) -> None:
        files = self._peers.setdefault(peer, {})
        if file_hash not in files and len(files) >= MAX_FILES:
            return
        one = files.setdefault(file_hash, _Held())
        if one.token is not None or one.questions >= MAX_QUESTIONS:
            return
        one.questions += 1
        with contextlib.suppress(SwarmError):  # the swarm ends
            one.token = self._swarm.ask_have(self._heard, peer, Kind.FILE, file_hash, ANSWER_S, updates=True)

    def _answered(self, event: HaveAnswer | HaveMore) -> None:
        one = next((one for one in self._peers.get(event.peer, {}).values() if one.token == event.token), None)
        if one is None:
            return
        one.chunks = event.chunks or one.chunks
        count = sum(end - start for start, end in event.ranges)
        if isinstance(event, HaveMore):
            one.held += count
            goes_on = not event.gone
        else:
            one.held = count
            goes_on = event.outcome is Outcome.OK
        if not goes_on:
            one.token = None
