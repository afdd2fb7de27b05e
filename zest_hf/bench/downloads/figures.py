"""From what each round took to what is said of it. Pure: no clock, no process, no file."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Run:
    """What one download took. Processor time and memory are those of all processes together that took part.

    ``call_s`` is the wall time of the call that downloads, ``process_s`` that of the whole process. The server is who
    gives the bytes: the Hub, or the seeder. ``cdn_bytes`` is what the origin sent; the requests are those that the Hub
    has counted, by its three parts. ``others_cores``: how many processors were busy meanwhile with something else,
    ``line_cores`` with carrying the packets, where a line lies between.
    """

    call_s: float
    process_s: float
    cpu_s: float
    peak_bytes: int
    server_cpu_s: float
    server_peak_bytes: int
    hub_requests: int
    cas_requests: int
    cdn_requests: int
    cdn_bytes: int
    others_cores: float
    line_cores: float = 0.0


Results = dict[str, list[Run]]
"""The counted rounds of each case, in the same order for all: the n-th of each belong together."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times one is of another: the median of the pairs, and the least and the most of them."""

    median: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """All pairs agree which of the two is more."""
        return self.low > 1 or self.high < 1


def median(runs: Sequence[Run], field: str) -> float:
    """Of one of a run's fields."""
    return float(statistics.median(getattr(run, field) for run in runs))


def medians(runs: Sequence[Run]) -> dict[str, float]:
    return {field.name: median(runs, field.name) for field in fields(Run)}


def ratio(values: Sequence[float], bases: Sequence[float]) -> Ratio:
    """Pair by pair: each value against the base of its round. Both have the same length, and bases are above 0."""
    pairs = [value / base for value, base in zip(values, bases, strict=True)]
    return Ratio(float(statistics.median(pairs)), min(pairs), max(pairs))


def ratio_of(results: Results, name: str, base: str, field: str) -> Ratio | None:
    """None where the base took nothing at all, as a clock that ticks slowly may say."""
    values, bases = ([float(getattr(run, field)) for run in results[each]] for each in (name, base))
    return ratio(values, bases) if min(bases) > 0 else None


def spread(values: Sequence[float]) -> float:
    """How far the middle half of the values reaches, as a share of their median; 0 for fewer than two."""
    if len(values) < 2 or (middle := statistics.median(values)) <= 0:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return (third - first) / middle
