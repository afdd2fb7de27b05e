"""What a simulated crowd is to go through, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zest_hf.bench.virtual import VirtualFile

LIES = {
    "claims": "to fetch everything, and shows no progress",
    "creeps": "to fetch everything, ever so slowly",
    "pretends": "to fetch everything as others do, and sends nothing to who follows",
    "trickles": "... and sends next to nothing",
    "spoils": "... and sends what is not the file's",
    "haves": "to hold everything, and lacks it",
    "floods": "what changes all the time",
}
"""What a liar says and does."""


@dataclass
class NodeSpec:
    """``liar``: one of `LIES`. Rates are true bytes per second."""

    up_bytes_s: float
    down_bytes_s: float
    start_s: float = 0.0
    dies_s: float = float("inf")
    noticed_s: float = 0.05
    """How long after its death the others hear of it."""
    liar: str | None = None
    group: int = 0
    """Groups do not reach each other while the network is split."""
    clock_s: float = 0.0
    clock_rate: float = 1.0
    """Its clock shows ``clock_s`` when the first node begins, and runs so many times as fast."""


@dataclass
class Scenario:
    file: VirtualFile
    nodes: list[NodeSpec]
    origin_bytes_s: float
    per_connection_bytes_s: float = float("inf")
    latency_s: float = 0.01
    meets_s: tuple[float, float] = (0.2, 0.2)
    """How long it takes from when both of two nodes run until they hear of each other: between these."""
    waits_s: float = 0.05
    """How long a node waits for others at its start,"""
    may_come_s: float = 0.4
    """... and how long it does not do more than it must, as others may come."""
    seed: int = 1
    split_s: tuple[float, float] | None = None
    neighbours: int = 32
    """Of whom a node takes chunks, if there are more; all hear each other's claims."""
    tick_s: float = 0.02
    tell_s: float = 0.1
    """What is new is told so often at most."""
    crowd: bool = True
    """False: nobody coordinates anything."""
    latest_s: float = 1e4
    log: Callable[[str], None] | None = None


@dataclass
class Outcome:
    """Sizes in true bytes; ``done_s`` of each honest node that lived, since the first began."""

    size_bytes: int
    origin_bytes: float
    done_s: list[float]
    control_bytes: float
    payload_bytes: float
    bound_s: float
    gets: int
    follows: int
    reasons: dict[str, int]

    @property
    def copies(self) -> float:
        return self.origin_bytes / self.size_bytes

    @property
    def slowdown(self) -> float:
        """The last node's time over what copy and lines alone would take."""
        return max(self.done_s) / self.bound_s

    def __str__(self) -> str:
        share = self.control_bytes / max(self.payload_bytes, 1)
        return (
            f"{self.copies:.3f} copies, last {max(self.done_s):.1f} s = {self.slowdown:.2f} of the bound, "
            f"first {min(self.done_s):.1f} s, control {100 * share:.3f} %, {self.gets} GETs, {self.follows} follows, "
            f"{self.reasons}"
        )


def bound_s(scenario: Scenario, waited_for: list[NodeSpec], size_bytes: float) -> float:
    """What copy and lines alone would take, from the first start to the last end."""
    first_s = min(spec.start_s for spec in waited_for)
    slowest = min(min(spec.up_bytes_s, spec.down_bytes_s) for spec in waited_for)
    # Who comes last cannot be done before it has got a copy over its own line.
    last_s = max(spec.start_s for spec in waited_for) - first_s + size_bytes / slowest
    return max(size_bytes / scenario.origin_bytes_s, last_s)
