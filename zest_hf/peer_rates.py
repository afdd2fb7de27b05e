"""What peers give to the downloads of this process: one line carries them all."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from zest_hf.core.policy import Elsewhere
from zest_hf.core.rate import RateMeter


class PeerRates:
    """Methods may be called from any thread. A download that is no more has to `leave`.

    What comes is measured for all of them together: where one has ended, what it got goes to the others, and their
    own rates take a while to say so.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given: dict[Hashable, int] = {}
        self._meter = RateMeter()

    def note(self, download: Hashable, given_bytes: int, own_bytes_s: float, now_s: float) -> Elsewhere:
        """Peers have given so much to a download in all, at this rate of late; what they give to the others."""
        with self._lock:
            if not self._given:
                self._meter.start(now_s)
            more = given_bytes - self._given.get(download, 0)
            self._given[download] = given_bytes
            if more:
                self._meter.add(more, now_s)
            return Elsewhere(max(0.0, self._meter.bytes_s(now_s) - own_bytes_s), len(self._given) - 1)

    def leave(self, download: Hashable) -> None:
        with self._lock:
            self._given.pop(download, None)
