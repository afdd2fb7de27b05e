"""Whether the figures can be trusted, and why not. `Load` is read from the machine, the judgement is pure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zest_hf.bench.downloads.figures import Results, spread

FEW_RUNS = 5
"""With fewer pairs a single one that was disturbed moves the median."""
MOST_SPREAD = 0.15
"""... of the middle half of a case's times."""
MOST_OTHERS = 0.1
"""... of all processors that others may use."""
MOST_OF_LINE = 0.8
"""... of its processor that what carries a line's packets may use: it would not keep up with them."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the machine did before: processes that want a processor, over 1, 5 and 15 minutes."""

    one: float
    five: float
    fifteen: float

    @classmethod
    def now(cls) -> Load:
        return cls(*os.getloadavg())

    def __str__(self) -> str:
        return f"{self.one:.1f}, {self.five:.1f}, {self.fifteen:.1f}"


def busy_s() -> float:
    """Seconds that the processors of this machine have spent on anything, all together (proc(5), /proc/stat)."""
    user, nice, system, _, _, irq, softirq, *rest = map(int, Path("/proc/stat").read_text().split()[1:11])
    stolen = rest[0] if rest else 0
    return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")


def reasons(results: Results, cores: int) -> Iterator[str]:
    """Why not to trust the figures, a line for each reason; none if nothing speaks against them.

    Not for the load average: that tells of the last minutes, and what others used in each round is known.
    """
    rounds = min(map(len, results.values()))
    if rounds < FEW_RUNS:
        yield f"{rounds} round{'s' * (rounds != 1)}: a single one that was disturbed moves the median; take --runs 7"
    others = [run.others_cores for runs in results.values() for run in runs]
    share = sum(others) / len(others) / cores
    if share > MOST_OTHERS:
        yield f"other processes used {share:.0%} of the processors meanwhile (at worst {max(others) / cores:.0%})"
    line = max(run.line_cores for runs in results.values() for run in runs)
    if line > MOST_OF_LINE:
        yield f"the line was slower than it ought to be: carrying packets took {line:.0%} of a processor"
    for name, runs in results.items():
        found = spread([run.call_s for run in runs])
        if found > MOST_SPREAD:
            yield f"the times of {name} vary: the middle half of them by {found:.0%} of the median"
