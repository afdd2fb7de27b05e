"""Rates over the last hour, and those of each peer: samples of counters that only grow."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any, Final

from zest_hf._native.events import PeerInfo
from zest_hf.traffic import Traffic

SAMPLE_S: Final = 5.0
SPAN_S: Final = 3600.0
MAX_SAMPLES: Final = int(SPAN_S / SAMPLE_S)
PEER_RATE_S: Final = 5.0
"""Over how long a peer's rates are means."""


class History:
    """Rates between one sample and the next, for an hour. To be used by one thread at a time."""

    FIELDS: Final = ("at_s", "local", "peer", "cdn", "uploaded")

    def __init__(self, now_s: float, total: Traffic) -> None:
        """``now_s`` is a clock's that never jumps; ``total``: what had been moved by then."""
        self._began_s = now_s
        self.begin(now_s, total)
        self._points: deque[tuple[float, ...]] = deque(maxlen=MAX_SAMPLES)

    def begin(self, now_s: float, total: Traffic) -> None:
        """From here on, as if nothing had been moved since the last sample."""
        self._last_s, self._last = now_s, total

    def is_due(self, now_s: float) -> bool:
        return now_s - self._last_s >= SAMPLE_S

    def sample(self, now_s: float, total: Traffic) -> None:
        """What was moved until now. Less than before counts as nothing: the figures were made anew."""
        span_s = max(now_s - self._last_s, 1e-3)
        rates = (round(count / span_s) for count in astuple(total.since(self._last)))
        self._points.append((round(now_s - self._began_s, 1), *rates))
        self._last_s, self._last = now_s, total

    def latest(self) -> Traffic:
        """The last rates, in bytes per second."""
        return Traffic(*map(int, self._points[-1][1:])) if self._points else Traffic()

    def report(self) -> dict[str, Any]:
        """JSON values. ``points``: by `FIELDS`, in bytes per second, the oldest first; ``at_s``: since the start."""
        last_s = self._points[-1][0] if self._points else 0.0
        points = [point for point in self._points if last_s - point[0] <= SPAN_S]
        return {"sample_s": SAMPLE_S, "span_s": SPAN_S, "fields": self.FIELDS, "points": points}


@dataclass(slots=True)
class _Known:
    since_s: float
    marks: deque[tuple[float, int, int]]
    """When how much had been sent to it and received from it."""


class PeerRates:
    """Since when peers are connected and how fast they are. To be used by one thread at a time."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}

    def sample(self, now_s: float, peers: Iterable[PeerInfo]) -> None:
        """Those who are connected now; the others are forgotten."""
        seen = set()
        for peer in peers:
            seen.add(peer.peer)
            known = self._known.get(peer.peer)
            if known is None:
                known = self._known[peer.peer] = _Known(now_s, deque())
            known.marks.append((now_s, peer.bytes_up, peer.bytes_down))
            while len(known.marks) > 2 and now_s - known.marks[1][0] >= PEER_RATE_S:
                known.marks.popleft()
        self._known = {number: known for number, known in self._known.items() if number in seen}

    def of(self, peer: int, now_s: float) -> tuple[float, int, int]:
        """For how many seconds it is known, and bytes per second to it and from it."""
        known = self._known.get(peer)
        if known is None:
            return 0.0, 0, 0
        (first_s, up, down), (last_s, up_now, down_now) = known.marks[0], known.marks[-1]
        span_s = max(last_s - first_s, 1.0)
        return now_s - known.since_s, round((up_now - up) / span_s), round((down_now - down) / span_s)
