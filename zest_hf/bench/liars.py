"""What members that lie tell the others."""

from __future__ import annotations

import random
from collections.abc import Sequence

from zest_hf.core.crowd_claims import FETCHING, FULL, HELD, Told, Unit

MOST_CLAIMS = 1024
USUAL_S = 10.0
"""How long those who pretend say to need for a GET."""


class Lies:
    """Of all liars of a run."""

    def __init__(self, units: Sequence[Unit], rng: random.Random) -> None:
        self._units = units[:MOST_CLAIMS]
        self._random = rng

    def claims(self, kind: str, now_s: float) -> list[Told]:
        """What one says now to be doing."""
        return [(unit.first, unit.end, *self._of_unit(kind, now_s)) for unit in self._units]

    def _of_unit(self, kind: str, now_s: float) -> tuple[int, int]:
        if kind == "claims":
            return FETCHING, 0
        if kind == "creeps":
            return FETCHING, min(FULL - 1, int(now_s * 20))
        if kind == "haves":
            return HELD, FULL
        if kind == "floods":
            return self._random.choice((FETCHING, HELD)), self._random.randrange(FULL)
        return FETCHING, min(FULL - 1, int(now_s / USUAL_S * FULL))
