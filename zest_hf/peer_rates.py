"""What peers give to the downloads of this process: one line carries them all."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from zest_hf.core.policy import Elsewhere


class PeerRates:
    """Methods may be called from any thread. A download that is no more has to `leave`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes_s: dict[Hashable, float] = {}

    def note(self, download: Hashable, bytes_s: float) -> Elsewhere:
        """Peers give so much to a download now; what they give to the others."""
        with self._lock:
            self._bytes_s[download] = bytes_s
            return Elsewhere(sum(self._bytes_s.values()) - bytes_s, len(self._bytes_s) - 1)

    def leave(self, download: Hashable) -> None:
        with self._lock:
            self._bytes_s.pop(download, None)
