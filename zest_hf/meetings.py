"""Which swarms this process is in, for whom, and how long somebody may still turn up. No I/O, no clock of its own.

A swarm is joined by downloads, which look for peers, and by holders, which want to be found. It is left when
nobody needs it any more.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from zest_hf._native.events import Kind
from zest_hf.core.ids import XetHash

DISCOVERY_S = 0.3
"""A peer on the local network answers within milliseconds, a tracker and its peers within this time."""
MAX_LOOKUPS = 256
"""Xorbs that are looked for at the same time; the oldest one makes room."""

Join = Callable[[Kind, XetHash, bool], None]
Leave = Callable[[Kind, XetHash], None]


@dataclass(slots=True)
class _Users:
    looking: int = 0
    holding: Counter[object] = field(default_factory=Counter)
    """By what they hold: the same copy may be offered twice."""

    @property
    def wanted(self) -> bool | None:
        """None: nobody needs it. Else whether to announce it as a holder."""
        return True if self.holding else (False if self.looking else None)


class Meetings:
    """``join`` and ``leave`` do it; they are called when something changes, one at a time."""

    def __init__(self, join: Join, leave: Leave, *, finds_soon: bool, finds_xorbs: bool) -> None:
        """``finds_soon``: local discovery or a tracker is on. ``finds_xorbs``: swarms of xorbs can be found (DHT)."""
        self._join, self._leave = join, leave
        self._finds_soon, self._finds_xorbs = finds_soon, finds_xorbs
        self._lock = threading.Lock()
        self._swarms: dict[tuple[Kind, XetHash], _Users] = {}
        self._lookups: dict[XetHash, None] = {}
        self._looked_first_s: float | None = None
        self._looked_last_s = 0.0
        self._met_anybody = False

    def look(self, file_hash: XetHash, now_s: float) -> None:
        """A download begins."""
        with self._lock:
            if self._looked_first_s is None:
                self._looked_first_s = now_s
            self._looked_last_s = now_s
            self._change(Kind.FILE, file_hash, looking=1)

    def look_no_more(self, file_hash: XetHash) -> None:
        """It ended."""
        with self._lock:
            self._change(Kind.FILE, file_hash, looking=-1)

    def look_for_xorb(self, xorb: XetHash) -> None:
        """Somebody who holds no file of ours may hold this."""
        with self._lock:
            if not self._finds_xorbs or xorb in self._lookups:
                return
            if len(self._lookups) >= MAX_LOOKUPS:
                oldest = next(iter(self._lookups))
                del self._lookups[oldest]
                self._change(Kind.XORB, oldest, looking=-1)
            self._lookups[xorb] = None
            self._change(Kind.XORB, xorb, looking=1)

    def hold(self, what: object, file_hash: XetHash, xorbs: frozenset[XetHash]) -> None:
        """``what`` (a name for this copy) is offered."""
        with self._lock:
            self._change(Kind.FILE, file_hash, hold=what)
            if self._finds_xorbs:
                for xorb in xorbs:
                    self._change(Kind.XORB, xorb, hold=what)

    def let_go(self, what: object, file_hash: XetHash, xorbs: frozenset[XetHash]) -> None:
        """It is not any more; nothing happens if it was not."""
        with self._lock:
            self._change(Kind.FILE, file_hash, drop=what)
            if self._finds_xorbs:
                for xorb in xorbs:
                    self._change(Kind.XORB, xorb, drop=what)

    def met_somebody(self) -> None:
        """A peer became ready that was not given by hand."""
        with self._lock:
            self._met_anybody = True

    def discovering(self, now_s: float) -> bool:
        """Whether who is looked for may turn up any moment.

        Where the first look of the process found nobody, later ones are not waited for.
        """
        with self._lock:
            if not self._finds_soon or self._looked_first_s is None:
                return False
            since_s = self._looked_last_s if self._met_anybody else self._looked_first_s
            return now_s - since_s < DISCOVERY_S

    def _change(
        self, kind: Kind, hash_: XetHash, looking: int = 0, hold: object = None, drop: object = None
    ) -> None:
        users = self._swarms.setdefault((kind, hash_), _Users())
        before = users.wanted
        users.looking = max(0, users.looking + looking)
        if hold is not None:
            users.holding[hold] += 1
        if drop is not None and users.holding[drop] > 0:
            users.holding[drop] -= 1
        users.holding += Counter()  # keeps positive counts only
        after = users.wanted
        if after is None:
            del self._swarms[kind, hash_]
            if before is not None:
                self._leave(kind, hash_)
        elif after is not before:
            self._join(kind, hash_, after)
