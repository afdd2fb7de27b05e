"""Peer or CDN: the one place that decides. Pure functions of a view and the time it carries.

The rule in words: peers that hold the file give all of it. The CDN is asked for what no peer holds, and for
the rest as well when the peers together are slower than a usual Internet line. Nobody waits long for peers:
as long as a peer given by hand is still being reached, and never longer than that would take a healthy one.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """Times in seconds, rates in bytes per second."""

    permission_patience_s: float = 2.0
    """How long a download waits for the Hub to say whether peers may be asked."""
    dial_patience_s: float = 1.0
    """How long a download waits for a TCP connection to a peer that was given."""
    answer_patience_s: float = 2.5
    """How long it waits for a connected peer's handshake, and for its answer to what it holds."""
    manifest_patience_s: float = 4.0
    """How long it waits, in all, for manifests on their way."""
    piece_silence_s: float = 4.0
    """A peer that sends nothing for this long loses what it was asked for."""
    suspension_s: float = 15.0
    """How long such a peer is left alone by this download."""
    busy_rest_s: float = 1.0
    """How long one is that says it has too much to do."""
    overdue_s: float = 1.0
    """When nothing else is left, somebody else is asked as well for what a slow source has had for this long."""
    comeback_patience_s: float = 20.0
    """How long a download whose CDN fails waits, without progress, for peers to come back."""
    slow_after_s: float = 1.5
    """When peers are judged by their rate."""
    fair_rate_bytes_s: float = 12.5e6
    """Peers that together give less are helped by the CDN: a 100 Mbit/s line."""
    max_cdn_fetches: int = 8
    """GETs at the same time for one file."""
    min_depth: int = 3
    max_depth: int = 12
    """Pieces asked of one peer at the same time."""
    depth_s: float = 0.2
    """... as many as it sends in this time."""

    @property
    def patience_s(self) -> float:
        """How long a download waits for peers in all: permission, dial, handshake, have, manifest."""
        return self.permission_patience_s + self.dial_patience_s + 2 * self.answer_patience_s + self.manifest_patience_s


class CdnUse(enum.Enum):
    """What the CDN is asked for now."""

    NOTHING = "nothing"
    ORPHANS = "what no peer holds"
    EVERYTHING = "everything that is left"


@dataclass(frozen=True, slots=True)
class View:
    """What the decision depends on."""

    now_s: float
    waiting_for_peers: bool
    """A peer is being reached or asked, within the patience above."""
    useful_peers: int
    """Peers that hold something that is still wanted and are not suspended."""
    peers_since_s: float | None
    """When the first piece was asked of a peer."""
    peer_rate_bytes_s: float


def cdn_use(view: View, settings: PolicySettings) -> CdnUse:
    """What to ask the CDN for."""
    if view.useful_peers == 0:
        return CdnUse.NOTHING if view.waiting_for_peers else CdnUse.EVERYTHING
    asked_for_s = 0.0 if view.peers_since_s is None else view.now_s - view.peers_since_s
    if asked_for_s >= settings.slow_after_s and view.peer_rate_bytes_s < settings.fair_rate_bytes_s:
        return CdnUse.EVERYTHING
    return CdnUse.NOTHING if view.waiting_for_peers else CdnUse.ORPHANS


def depth(rate_bytes_s: float, piece_bytes: float, settings: PolicySettings) -> int:
    """How many pieces to have open at a peer of this rate."""
    wanted = int(rate_bytes_s * settings.depth_s / max(piece_bytes, 1.0)) + 1
    return max(settings.min_depth, min(settings.max_depth, wanted))
