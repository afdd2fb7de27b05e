"""One download, and what it took."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from zest_hf.bench.downloads import processes
from zest_hf.bench.downloads.cases import Case
from zest_hf.bench.downloads.figures import Run
from zest_hf.bench.downloads.noise import busy_s
from zest_hf.bench.downloads.world import World, last_line
from zest_hf.errors import ZestError

TOUCHED_BYTES = 1 << 20
PROCESS_BYTES = 1 << 30
"""More than any client needs for itself, however much it fetches."""


def measured(world: World, case: Case, timeout_s: float) -> Run:
    """Run a case into an empty directory, which is emptied again. Raises ZestError if it fails, or is not done in time.

    What was fetched is compared with what it ought to be when the time is taken.
    """
    into = Path(tempfile.mkdtemp(prefix="into-", dir=world.work))
    _touch_memory(world.work / "touched", _warm_bytes(world.content.total_bytes))
    try:
        run = _timed(world, case, into, timeout_s)
        world.content.check(into)
    finally:
        _empty(into)
    return run


def _empty(into: Path) -> None:
    """Have the files' space free again, and keep their names.

    For some minutes ext4 passes by the place of each file that is no more when it makes a new one: who comes after
    thousands of them would pay for it.
    """
    for path in into.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.truncate(path, 0)


def _warm_bytes(total_bytes: int) -> int:
    """For the files, and for what a client needs itself, which is less than they are."""
    return total_bytes + min(total_bytes, PROCESS_BYTES)


def _touch_memory(path: Path, size_bytes: int) -> None:
    """Have as much memory used, by the page cache, and free again as a download needs.

    A virtual machine's host takes free memory back, and whoever writes first pays for getting it again: four times the
    processor time of the write itself.
    """
    block = bytes(TOUCHED_BYTES)
    with path.open("wb", buffering=0) as file:
        for _ in range(0, size_bytes, TOUCHED_BYTES):
            file.write(block)
    path.unlink()


def _timed(world: World, case: Case, into: Path, timeout_s: float) -> Run:
    world.hub.reset_stats()
    processes.forget_peak(case.giver)
    servers = {case.giver, world.hub.pid}
    cpu_before = {pid: processes.tree_cpu_s(pid) for pid in servers}
    line_before_s = _line_s(world)
    own_before_s, busy_before_s = time.process_time(), busy_s()
    with (world.work / "stderr").open("w+b") as stderr:
        began_s = time.monotonic()
        process = subprocess.Popen(
            [*world.enter, *case.command(into)],
            env={**world.environment, **case.settings(into)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        output, peak, status, cpu_s = _waited(process, timeout_s)
        process_s = time.monotonic() - began_s
        if status:
            stderr.seek(0)
            raise ZestError(last_line(stderr.read().decode(errors="replace")))
    server_cpu_s = {pid: processes.tree_cpu_s(pid) - before for pid, before in cpu_before.items()}
    own_s, busy = time.process_time() - own_before_s, busy_s() - busy_before_s
    line_s = _line_s(world) - line_before_s
    said: dict[str, Any] = {"call_s": process_s, "peak_bytes": 0} if case.is_foreign else json.loads(output)
    counts = world.hub.stats()
    return Run(
        call_s=said["call_s"],
        process_s=process_s,
        cpu_s=cpu_s,
        peak_bytes=max(peak, said["peak_bytes"]),
        server_cpu_s=server_cpu_s[case.giver],
        server_peak_bytes=processes.peak_bytes(case.giver),
        hub_requests=counts["hub_requests"],
        cas_requests=counts["cas_requests"],
        cdn_requests=counts["cdn_requests"],
        cdn_bytes=counts["cdn_bytes"],
        # Below 0 for short runs, since the machine's clock has ticks of 10 ms.
        others_cores=max(0.0, busy - own_s - cpu_s - line_s - sum(server_cpu_s.values())) / process_s,
        line_cores=line_s / process_s,
    )


def _line_s(world: World) -> float:
    """Processor time of what carries the packets."""
    return 0.0 if world.carrier is None else processes.tree_cpu_s(world.carrier)


def _waited(process: subprocess.Popen[bytes], timeout_s: float) -> tuple[bytes, int, int, float]:
    """What it has written, the peak of its memory, its exit code, and its processor time with that of its children."""
    assert process.stdout is not None
    given_up = threading.Event()

    def give_up() -> None:
        given_up.set()
        process.kill()

    timer = threading.Timer(timeout_s, give_up)
    timer.start()
    try:
        with process.stdout, processes.Peak(process.pid) as peak:
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        timer.cancel()
    if given_up.is_set():
        raise ZestError(f"it was not done after {timeout_s:.0f} s")
    # Of the process and all that it has waited for; nothing here leaves anything behind.
    return output, peak.bytes, process.returncode, usage.ru_utime + usage.ru_stime
