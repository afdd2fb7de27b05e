"""Seeders that nobody looks after: who runs, what it has logged, and that none is left behind by a test."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machines import Machine, Run, eventually

from zest_hf.seed.instance import Instance

LOGGED = "import logging; logging.basicConfig()\n"

Leaving = Callable[[str], Machine]
Mount = Callable[..., None]


@contextmanager
def nothing_left(machine: Machine) -> Iterator[None]:
    """Ends what runs in the background of the machine, however the test ends."""
    try:
        yield
    finally:
        machine.command("zest", "stop")
        assert Instance(machine.home / "zest").running() is None


def state_of(machine: Machine) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((machine.home / "zest" / "seed.json").read_text())
    return state


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def processes_of(machine: Machine) -> set[int]:
    """All that run with the machine's settings."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"HF_HOME={machine.home}\0" in path.read_text(errors="replace"):
                found.add(int(path.parent.name))
    return found


def one_line(run: Run, code: int) -> str:
    assert run.code == code, run.stderr
    (line,) = (run.stderr if code else run.stdout).splitlines()
    assert (run.stdout if code else run.stderr) == "" and "Traceback" not in line
    return line


def left(machine: Machine) -> dict[str, Any]:
    """Waits for the one that was left, and says who it is."""
    eventually(lambda: Instance(machine.home / "zest").running(), "a seeder runs")
    return state_of(machine)


def none_left(machine: Machine) -> bool:
    """For good: whoever leaves one has the lock before it ends itself."""
    return not Instance(machine.home / "zest").is_taken() and not (machine.home / "zest" / "zest.log").exists()


def log_of(machine: Machine) -> str:
    return (machine.home / "zest" / "zest.log").read_text()


def status_of(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(machine.command("zest", "status", "--json").stdout)
    return found
