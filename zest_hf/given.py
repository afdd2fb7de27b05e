"""Peers that the user gave by address: who is being reached, who was, and when to try again. No I/O, no clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from zest_hf._native.events import PeerBanned, PeerConnected, PeerGone, PeerReady
from zest_hf.setting_values import HostPort

REDIAL_FIRST_S = 1.0
REDIAL_AFTER_S = 20.0
"""A given peer that cannot be reached is tried again after 1, 2, 4... 20 s, as long as there is a download."""


@dataclass(slots=True)
class Dial:
    """A peer that was given: what is known of reaching it."""

    host: str
    port: int
    token: int
    """Comes back with every event of its connections."""
    state: str = "idle"  # idle, dialling, redialling, connected, ready, failed
    since_s: float = 0.0
    peer: int | None = None
    was_connected: bool = False
    """It took a connection and hung up before it was ready."""
    failures: int = 0
    """Attempts that failed since it was ready last."""

    def due(self, now_s: float) -> bool:
        pause_s = min(REDIAL_AFTER_S, REDIAL_FIRST_S * 2.0 ** min(self.failures - 1, 10))
        return self.state == "idle" or (self.state == "failed" and now_s - self.since_s >= pause_s)


class GivenPeers:
    """Methods may be called from any thread. Times are of one monotonic clock."""

    def __init__(self, addresses: Iterable[HostPort], new_token: Callable[[], int]) -> None:
        self._lock = threading.Lock()
        self._dials = [Dial(host, port, new_token()) for host, port in addresses]

    def take_due(self, now_s: float) -> list[Dial]:
        """Those to dial now; each counts as being dialled from here on."""
        with self._lock:
            due = [dial for dial in self._dials if dial.due(now_s)]
            for dial in due:
                # Only the first attempt is waited for: a peer that was not there does not slow the next file.
                dial.state = "dialling" if dial.state == "idle" else "redialling"
                dial.since_s = now_s
            return due

    def take_hung_up(self, now_s: float) -> list[Dial]:
        """Those that hung up at the rendezvous: they may know only the swarm of a xorb."""
        with self._lock:
            due = [dial for dial in self._dials if dial.state in ("failed", "redialling") and dial.was_connected]
            for dial in due:
                dial.state, dial.since_s, dial.was_connected = "dialling", now_s, False
            return due

    def failed(self, dial: Dial, now_s: float) -> None:
        """It could not even be dialled."""
        with self._lock:
            dial.state, dial.since_s = "failed", now_s
            dial.failures += 1

    def reaching(self, now_s: float, dial_patience_s: float, answer_patience_s: float) -> bool:
        """Whether one may still become ready within the patience for it."""
        with self._lock:
            return any(
                (dial.state == "dialling" and now_s - dial.since_s < dial_patience_s)
                or (dial.state == "connected" and now_s - dial.since_s < answer_patience_s)
                for dial in self._dials
            )

    def note(self, event: PeerConnected | PeerReady | PeerGone | PeerBanned, now_s: float) -> None:
        """Something happened to a connection, perhaps one of these."""
        with self._lock:
            dial = next((dial for dial in self._dials if event.token and dial.token == event.token), None)
            if dial is None:
                return
            if isinstance(event, PeerReady):
                dial.state, dial.since_s, dial.peer, dial.failures = "ready", now_s, event.peer, 0
                dial.was_connected = False
            elif isinstance(event, PeerGone):
                if dial.peer in (None, event.peer) or dial.state != "ready":
                    dial.state, dial.since_s, dial.peer = "failed", now_s, None
                    dial.failures += 1
            elif isinstance(event, PeerConnected):
                dial.was_connected = True
                if dial.state == "dialling":
                    dial.state, dial.since_s = "connected", now_s
