"""A run of the benchmark: everybody in turn, round by round."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

from zest_hf import __version__
from zest_hf.bench.downloads import noise
from zest_hf.bench.downloads.cases import KINDS
from zest_hf.bench.downloads.content import Content
from zest_hf.bench.downloads.figures import Results
from zest_hf.bench.downloads.line import Line
from zest_hf.bench.downloads.measure import measured
from zest_hf.bench.downloads.places import two_places
from zest_hf.bench.downloads.report import Outcome
from zest_hf.bench.downloads.tls import Tls
from zest_hf.bench.downloads.world import World
from zest_hf.errors import ZestError
from zest_hf.terminal import size_text

HOST = "127.0.0.1"
LEAST_BYTES_S = 2e6
"""A download that is slower is given up,"""
LEAST_OF_LINE = 0.02
"""... and over a line only one that gets less than this share of it,"""
LEAST_TIMEOUT_S = 60.0
"""... but not before."""


def compared(
    work: Path,
    names: Sequence[str],
    runs: int,
    total_bytes: int,
    files: int,
    *,
    tls: bool,
    line: Line | None,
    say: Callable[[str], None],
) -> Outcome:
    """``runs`` counted rounds of the cases of these names, one more before them. Raises ZestError if one fails.

    In turns within a round, so that a machine that others use as well disturbs all of them alike. What has been
    measured when it is interrupted is the outcome; KeyboardInterrupt if that is nothing.
    """
    before, cores = noise.Load.now(), len(os.sched_getaffinity(0))
    timeout_s = LEAST_TIMEOUT_S + total_bytes / _least_bytes_s(line)
    say(f"making {size_text(total_bytes)} in {files:,} file{'s' * (files != 1)} and uploading it to a Hub of its own")
    content = Content.write(work / "model", total_bytes, files)
    results: Results = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        places = None if line is None else stack.enter_context(two_places(line))
        host = HOST if places is None else places.here
        certificate = Tls.issue(work / "tls", host) if tls else None
        world = stack.enter_context(World(work, content, tls=certificate, host=host, places=places))
        cases = {name: KINDS[name].prepare(world) for name in names}
        is_complete = True
        try:
            for number in range(runs + 1):
                say(f"round {number} of {runs}" if number else f"a round that does not count: {', '.join(names)}")
                for name, case in cases.items():
                    try:
                        run = measured(world, case, timeout_s)
                    except ZestError as error:
                        raise ZestError(f"{name}: {error}") from error
                    if number:
                        results[name].append(run)
        except KeyboardInterrupt:
            whole = min(map(len, results.values()))
            if not whole:
                raise
            is_complete, runs = False, whole
            results = {name: of_case[:whole] for name, of_case in results.items()}
    return Outcome(
        results=results,
        total_bytes=content.total_bytes,
        files=files,
        load_before=str(before),
        load_after=str(noise.Load.now()),
        reasons=list(noise.reasons(results, cores)),
        machine={"cores": cores, **machine()},
        options={"runs": runs, "megabytes": total_bytes // 1_000_000, "files": files, "tls": tls}
        | ({} if line is None else {"line": line.json}),
        is_complete=is_complete,
    )


def _least_bytes_s(line: Line | None) -> float:
    return LEAST_BYTES_S if line is None else min(LEAST_BYTES_S, LEAST_OF_LINE * line.mbit_s * 1e6 / 8)


def machine() -> dict[str, object]:
    """What figures depend on: versions of what is measured, and where."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "zest_hf": __version__,
        "hf_xet": _version("hf_xet"),
        "huggingface_hub": _version("huggingface_hub"),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
