"""What a process and all that it has started use: processor time and memory, from /proc (proc(5))."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

SAMPLE_S = 0.05


def tree(pid: int) -> Iterator[int]:
    """The process and its descendants, as far as they are there."""
    yield pid
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                    yield from tree(int(child))


def cpu_s(pid: int) -> float:
    """Of one process that is there, with its threads that have ended. Raises OSError for one that is not there."""
    # The clock that clock_getcpuclockid(3) gives for another process: to the nanosecond, where /proc/PID/stat has ticks
    # of 10 ms.
    return time.clock_gettime((~pid << 3) | 2)


def _waited_for_s(pid: int) -> float:
    """Of the children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def tree_cpu_s(pid: int) -> float:
    total = 0.0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            total += cpu_s(each) + _waited_for_s(each)
    return total


def peak_bytes(pid: int) -> int:
    """The most that was resident at a time; 0 for a process that has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def forget_peak(pid: int) -> None:
    """The peak counts from now on, if we may say so."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


class Peak:
    """Looks at the memory of a tree of processes from the start to the end of the block.

    ``bytes`` is the sum of the peaks of all that were there together. What a process took after it was last looked at,
    at most `SAMPLE_S` before its end, is missed.
    """

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="zest-bench-peak", daemon=True)

    def look(self) -> None:
        self.bytes = max(self.bytes, sum(map(peak_bytes, tree(self._pid))))

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self.look()

    def __enter__(self) -> Peak:
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
