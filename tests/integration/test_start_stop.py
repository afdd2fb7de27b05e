"""A zest-seed that nobody looks after: `zest start`, `zest stop`, and what becomes of its lock."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from machines import Machine, eventually

from zest_hf.hub.process import HubProcess
from zest_hf.seed.instance import Instance

from .conftest import MakeMachine, snapshot
from .seeders import is_alive, nothing_left, one_line, state_of
from .test_seed import from_peers_alone

STOP_S = 2.0


@pytest.fixture
def alone(machine: Machine) -> Iterator[Machine]:
    with nothing_left(machine):
        yield machine


def test_start_serve_stop(hub: HubProcess, alone: Machine, make: MakeMachine) -> None:
    snapshot(alone)
    started = one_line(alone.command("zest", "start"), 0)
    state = state_of(alone)
    assert f"process {state['pid']}" in started and state["listen"] in started and state["status"] in started
    assert os.getsid(state["pid"]) == state["pid"], "a terminal that closes must not end it"
    # It serves when the command returns: nothing is waited for.
    from_peers_alone(hub, make("B"), state["listen"])
    # Without the address, which nobody knows beforehand.
    status = json.loads(alone.command("zest", "status", "--json").stdout)
    assert (status["files"], status["listen"]) == (2, state["listen"])
    assert "2 files of 1 repository (6.3 MB) offered on" in (alone.home / "zest" / "zest.log").read_text()
    began_s = time.monotonic()
    stopped = one_line(alone.command("zest", "stop"), 0)
    assert time.monotonic() - began_s < STOP_S + 1  # with the start of an interpreter
    assert stopped == f"zest-seed (process {state['pid']}) has ended"
    assert not is_alive(state["pid"])
    assert one_line(alone.command("zest", "stop"), 0) == "no zest-seed runs"
    assert "start one with zest start" in one_line(alone.command("zest", "status"), 1)


def test_there_is_one(alone: Machine) -> None:
    """However many are started at once; and the one in the foreground counts."""
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: alone.command("zest", "start"), range(3)))
    lines = [one_line(run, 0) for run in runs]
    assert len([line for line in lines if line.startswith("zest-seed runs: ")]) == 1, lines
    assert len({re.findall(r"process \d+", line)[0] for line in lines}) == 1
    assert one_line(alone.command("zest", "start"), 0).startswith("zest-seed runs already: ")
    alone.command("zest", "stop")
    with alone.seeder() as seeder:
        line = one_line(alone.command("zest", "start"), 0)
        assert line.startswith("zest-seed runs already: ") and f"process {seeder.process.pid}," in line
        assert "has ended" in one_line(alone.command("zest", "stop"), 0)
        assert seeder.end().code == 0


def test_after_kill_9(alone: Machine) -> None:
    alone.command("zest", "start")
    killed = state_of(alone)
    os.kill(killed["pid"], signal.SIGKILL)
    eventually(lambda: not is_alive(killed["pid"]), "it is gone")
    assert state_of(alone) == killed  # it could not tidy up
    assert "start one with zest start" in one_line(alone.command("zest", "status"), 1)
    assert one_line(alone.command("zest", "stop"), 0) == "no zest-seed runs"
    assert one_line(alone.command("zest", "start"), 0).startswith("zest-seed runs: ")
    assert state_of(alone)["pid"] != killed["pid"]


def test_one_that_hangs_is_ended(alone: Machine) -> None:
    alone.command("zest", "start")
    pid = state_of(alone)["pid"]
    os.kill(pid, signal.SIGSTOP)
    for command in ("start", "status"):
        line = one_line(alone.command("zest", command), 1)
        assert f"process {pid}) runs, but is stopped" in line and "zest stop ends it" in line
    assert one_line(alone.command("zest", "stop"), 0) == f"zest-seed (process {pid}) did not answer and was killed"
    assert not is_alive(pid)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"born": "another"}, "cannot be reached from here"), ({"host": "elsewhere"}, "runs on elsewhere")],
)
def test_a_stranger_is_left_alone(alone: Machine, change: dict[str, str], said: str) -> None:
    """The lock is held on another host or in another container, and the process with that number here is not its."""
    home = alone.home / "zest"
    home.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        instance = Instance(home)
        assert instance.take()
        instance.publish(version="1", listen="127.0.0.1:1", status=None)
        state = state_of(alone) | {"pid": stranger.pid} | change
        (home / "seed.json").write_text(json.dumps(state))
        for command in ("start", "stop"):
            assert said in one_line(alone.command("zest", command), 1)
        assert stranger.poll() is None
        instance.release()
        stranger.communicate(b"\n")
        assert stranger.returncode == 0


def test_a_state_that_makes_no_sense(alone: Machine) -> None:
    alone.command("zest", "start")
    path = alone.home / "zest" / "seed.json"
    right = path.read_text()
    for wrong in ('{"pid": []}', "[" * 100_000):
        path.write_text(wrong)
        assert "try again in a moment" in one_line(alone.command("zest", "stop"), 1)
    path.write_text(right)
    assert "has ended" in one_line(alone.command("zest", "stop"), 0)


def test_what_cannot_start_says_why(alone: Machine, nobody: str) -> None:
    (alone.root / "file").touch()
    host, port = nobody.split(":")
    with socket.create_server((host, int(port))):
        cases: dict[str, tuple[dict[str, str], str]] = {
            "peers": ({"ZEST_LISTEN": nobody}, "set ZEST_LISTEN"),
            "page": ({"ZEST_STATUS": nobody}, "the status page cannot listen"),
            "home": ({"ZEST_HOME": str(alone.root / "file")}, "set ZEST_HOME to a writable directory"),
            "setting": ({"ZEST_MAX_UP": "fast"}, "ZEST_MAX_UP='fast'"),
        }
        for name, (environ, said) in cases.items():
            line = one_line(alone.command("zest", "start", **environ), 1)
            assert line.startswith("zest: ") and said in line, name
            assert "start one" in one_line(alone.command("zest", "status"), 1), name


def test_without_stdin_stdout_and_stderr(alone: Machine) -> None:
    """As a job manager may start it: their numbers are free for whatever is opened first."""
    zest = os.path.join(os.path.dirname(sys.executable), "zest")
    for closed in ("<&-", "<&- >&- 2>&-"):
        run = alone.command("timeout", "15", "bash", "-c", f"{zest} start {closed}")
        assert run.code == 0, run
        assert is_alive(state_of(alone)["pid"])
        assert "has ended" in one_line(alone.command("zest", "stop"), 0)


def test_the_log_is_rotated(alone: Machine) -> None:
    """Also what native code writes follows into the new file."""
    home = alone.home / "zest"
    home.mkdir(parents=True)
    (home / "zest.log").write_bytes(b"x" * (4 << 20))
    alone.command("zest", "start")
    assert (home / "zest.log.1").stat().st_size == 4 << 20
    assert "offered on" in (home / "zest.log").read_text()
    pid = state_of(alone)["pid"]
    for fd in (1, 2):
        assert os.readlink(f"/proc/{pid}/fd/{fd}") == str(home / "zest.log")


def test_a_unit_for_systemd(alone: Machine) -> None:
    unit = alone.root / "config" / "systemd" / "user" / "zest-seed.service"
    environ = {"XDG_CONFIG_HOME": str(alone.root / "config"), "HF_TOKEN": "hf_secret", "ZEST_MAX_UP": "10MB"}
    run = alone.command("zest", "start", "--systemd", ZEST_SWARM_KEY=None, **environ)
    assert run.code == 0, run.stderr
    assert run.stdout.splitlines()[1:] == [
        "  systemctl --user daemon-reload",
        "  systemctl --user enable --now zest-seed.service",
    ]
    text = unit.read_text()
    assert f'Environment="HF_HOME={alone.home}"\n' in text and 'Environment="ZEST_MAX_UP=10MB"\n' in text
    assert "hf_secret" not in text
    assert "ZEST_SWARM_KEY" in one_line(alone.command("zest", "start", "--systemd", ZEST_SWARM_KEY="s", **environ), 1)
    # What it would run is a seeder.
    command = re.findall(r'^ExecStart="(.*)" "-c" "(.*)"$', text, re.MULTILINE)
    with alone.running(command[0][0], "-c", command[0][1]) as program:
        program.wait_for_line("offered on")
        assert program.end(signal.SIGTERM).code == 0
    assert one_line(alone.command("zest", "stop"), 0) == "no zest-seed runs"
