"""A run of the benchmark: everybody in turn, round by round."""

from __future__ import annotations

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
from zest_hf.bench.downloads.measure import measured
from zest_hf.bench.downloads.report import Outcome
from zest_hf.bench.downloads.tls import Tls
from zest_hf.bench.downloads.world import World
from zest_hf.errors import ZestError
from zest_hf.terminal import size_text

HOST = "127.0.0.1"


def compared(
    work: Path, names: Sequence[str], runs: int, total_bytes: int, files: int, *, tls: bool, say: Callable[[str], None]
) -> Outcome:
    """``runs`` counted rounds of the cases of these names, one more before them. Raises ZestError if one fails.

    In turns within a round, so that a machine that others use as well disturbs all of them alike.
    """
    before, cores = noise.Load.now(), len(os.sched_getaffinity(0))
    certificate = Tls.issue(work / "tls", HOST) if tls else None
    say(f"making {size_text(total_bytes)} in {files:,} file{'s' * (files != 1)} and uploading it to a Hub of its own")
    content = Content.write(work / "model", total_bytes, files)
    results: Results = {name: [] for name in names}
    with World(work, content, tls=certificate, host=HOST) as world:
        cases = {name: KINDS[name].prepare(world) for name in names}
        for number in range(runs + 1):
            say(f"round {number} of {runs}" if number else f"a round that does not count: {', '.join(names)}")
            for name, case in cases.items():
                try:
                    run = measured(world, case)
                except ZestError as error:
                    raise ZestError(f"{name}: {error}") from error
                if number:
                    results[name].append(run)
    return Outcome(
        results=results,
        total_bytes=content.total_bytes,
        files=files,
        load_before=str(before),
        load_after=str(noise.Load.now()),
        reasons=list(noise.reasons(results, cores)),
        machine={"cores": cores, **machine()},
        options={"runs": runs, "megabytes": total_bytes // 1_000_000, "files": files, "tls": tls},
    )


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
