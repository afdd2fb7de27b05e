"""The figures of downloads as bars, each round a point on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zest_hf.bench import picture
from zest_hf.bench.downloads.cases import KINDS
from zest_hf.bench.downloads.figures import Run, median
from zest_hf.bench.downloads.report import Outcome, heading

OURS, OTHERS, SERVER = "tab:orange", "tab:grey", "lightgrey"


def draw(path: Path, outcome: Outcome) -> None:
    """Wall time, processor time and memory of each case. Raises ZestError when the file cannot be written."""
    pyplot = picture.pyplot()
    names, gigabytes = list(outcome.results), outcome.total_bytes / 1e9
    figure, (times, cpu, memory) = pyplot.subplots(1, 3, figsize=(13, 1.6 + 0.45 * len(names)), layout="constrained")
    _bars(times, outcome, "call_s", 1.0, "seconds")
    _bars(cpu, outcome, "cpu_s", 1 / gigabytes, "CPU seconds per GB (light: who sends)")
    _bars(memory, outcome, "peak_bytes", 1e-6, "peak memory, MB")
    places = range(len(names))
    took = [median(outcome.results[name], "cpu_s") / gigabytes for name in names]
    sent = [median(outcome.results[name], "server_cpu_s") / gigabytes for name in names]
    cpu.barh(places, sent, left=took, color=SERVER, height=0.6)
    for axes in (cpu, memory):
        axes.set_yticklabels([])
    trust = "" if not outcome.reasons else "\nNOT to be trusted: a busy machine, or too few rounds"
    figure.suptitle(heading(outcome) + trust)
    picture.save(figure, path)
    pyplot.close(figure)


def _bars(axes: Any, outcome: Outcome, field: str, unit: float, label: str) -> None:
    names = list(outcome.results)
    values = [median(outcome.results[name], field) * unit for name in names]
    colors = [OURS if name.startswith("zest") else OTHERS for name in names]
    axes.barh(range(len(names)), values, color=colors, height=0.6)
    for place, name in enumerate(names):
        rounds = [_value(run, field) * unit for run in outcome.results[name]]
        axes.plot(rounds, [place] * len(rounds), ".", color="black", markersize=4, zorder=3)
    axes.set_yticks(range(len(names)), [KINDS[name].title for name in names])
    axes.invert_yaxis()
    axes.set(xlabel=label)
    axes.set_xlim(left=0)
    axes.grid(visible=True, axis="x", alpha=0.3)


def _value(run: Run, field: str) -> float:
    return float(getattr(run, field))
