"""The figures as lines for people, and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from zest_hf.bench.downloads.cases import HF_XET, KINDS, ZEST, ZEST_PEER
from zest_hf.bench.downloads.figures import Ratio, Results, median, medians, ratio_of
from zest_hf.bench.downloads.line import line_text
from zest_hf.terminal import columns, size_text

YARDSTICKS = ("aria2", "libtorrent", "tcp")
FIRST_TO_GO = (12, 2, 9, 11, 8)
"""Columns that are left out first in a narrow terminal: requests, the process's time, what who sends takes, ..."""
AGAINST = ("call_s", "process_s", "cpu_s", "peak_bytes")


@dataclass(frozen=True)
class Outcome:
    """Of a run of the benchmark. ``machine`` and ``options`` are for who reads the JSON later."""

    results: Results
    total_bytes: int
    files: int
    load_before: str
    load_after: str
    reasons: list[str]
    """Why not to trust it."""
    machine: Mapping[str, object]
    options: Mapping[str, Any]
    is_complete: bool = True
    """It was not interrupted."""

    @property
    def base(self) -> str:
        """What all others are compared with."""
        return HF_XET if HF_XET in self.results else next(iter(self.results))

    @property
    def rounds(self) -> int:
        return len(self.results[self.base])


def heading(outcome: Outcome) -> str:
    """What was measured."""
    files = f"{outcome.files:,} file{'s' * (outcome.files != 1)}"
    rounds = f"{outcome.rounds} round{'s' * (outcome.rounds != 1)}"
    tls = ", the Hub over TLS" if outcome.options.get("tls") else ""
    over = line_text(outcome.options.get("line"))
    return f"{size_text(outcome.total_bytes)} in {files}{tls}{over}; medians of {rounds} after one that was thrown away"


def lines(outcome: Outcome, width: int | None) -> Iterator[str]:
    """A table, the rates against the yardsticks, and how far to trust it."""
    results, base = outcome.results, outcome.base
    yield heading(outcome)
    yield ""
    head = (
        *("", "wall", "process", "MB/s", f"x {base}", "(pairs)", "CPU s/GB", "RSS MB"),
        *("server s/GB", "server MB", "origin MB", "others", "requests"),
    )
    yield from columns(head, [_row(outcome, name) for name in results], width, FIRST_TO_GO)
    yield ""
    yield from _against_each_other(results)
    load = f"load {outcome.load_before} before and {outcome.load_after} after, on {outcome.machine['cores']} cores"
    yield f"{load}; requests: Hub, CAS, CDN; others: processors that were busy with something else"
    if "line" in outcome.options:
        line = max(median(runs, "line_cores") for runs in results.values())
        yield f"carrying the line's packets took up to {line:.2f} processors, which count for nobody"
    if outcome.reasons:
        yield "NOT to be trusted:"
        yield from (f"- {reason}" for reason in outcome.reasons)
    else:
        yield "nothing speaks against these figures"


def _row(outcome: Outcome, name: str) -> list[str]:
    runs, gigabytes = outcome.results[name], outcome.total_bytes / 1e9
    wall_s = median(runs, "call_s")
    against = ratio_of(outcome.results, name, outcome.base, "call_s")
    return [
        KINDS[name].title,
        f"{wall_s:.2f} s",
        f"{median(runs, 'process_s'):.2f} s",
        f"{outcome.total_bytes / 1e6 / wall_s:.0f}",
        "1" if name == outcome.base or against is None else f"{against.median:.2f}",
        "" if name == outcome.base or against is None else f"{against.low:.2f}..{against.high:.2f}",
        f"{median(runs, 'cpu_s') / gigabytes:.2f}",
        f"{median(runs, 'peak_bytes') / 1e6:.0f}",
        f"{median(runs, 'server_cpu_s') / gigabytes:.2f}",
        f"{median(runs, 'server_peak_bytes') / 1e6:.0f}",
        f"{median(runs, 'cdn_bytes') / 1e6:.0f}",
        f"{median(runs, 'others_cores'):.2f}",
        "+".join(f"{median(runs, f'{part}_requests'):.0f}" for part in ("hub", "cas", "cdn")),
    ]


def _against_each_other(results: Results) -> Iterator[str]:
    for name, found in against_yardsticks(results).items():
        unclear = "" if found.is_clear else ": no difference that these rounds can tell"
        yield (
            f"{KINDS[ZEST_PEER].title}: {found.median:.2f} times the rate of {KINDS[name].title}"
            f" ({found.low:.2f}..{found.high:.2f}){unclear}"
        )
    if results.get(HF_XET) and results.get(ZEST):
        cpu, memory = (ratio_of(results, ZEST, HF_XET, field) for field in ("cpu_s", "peak_bytes"))
        if cpu is not None and memory is not None:
            yield (
                f"{KINDS[ZEST].title}: {cpu.median:.2f} times the processor time of hf_xet "
                f"({cpu.low:.2f}..{cpu.high:.2f}), {memory.median:.2f} times its memory"
            )


def against_yardsticks(results: Results) -> dict[str, Ratio]:
    """How many times the rate of each yardstick a peer of ours gives."""
    if ZEST_PEER not in results:
        return {}
    found = {name: ratio_of(results, name, ZEST_PEER, "call_s") for name in YARDSTICKS if name in results}
    return {name: each for name, each in found.items() if each is not None}


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Every round, the medians, and what follows from them; seconds and bytes."""
    results, base = outcome.results, outcome.base
    ratios = {
        name: {field: _ratio(ratio_of(results, name, base, field)) for field in AGAINST} for name in results
    }
    return {
        "options": dict(outcome.options),
        "machine": dict(outcome.machine),
        "bytes": outcome.total_bytes,
        "files": outcome.files,
        "base": base,
        "cases": {
            name: {
                "title": KINDS[name].title,
                "medians": medians(runs),
                "of_base": ratios[name],
                "runs": [asdict(run) for run in runs],
            }
            for name, runs in results.items()
        },
        "peer_rate_of": {name: asdict(found) for name, found in against_yardsticks(results).items()},
        "load": {"before": outcome.load_before, "after": outcome.load_after},
        "trusted": not outcome.reasons,
        "reasons": outcome.reasons,
    }


def _ratio(found: Ratio | None) -> dict[str, float] | None:
    return None if found is None else asdict(found)
