"""The zest-seed that a download leaves behind (`ZEST_DAEMON=auto`): when there is one, and what becomes of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from machines import PRELUDE, Machine, Program, eventually

from zest_hf.hub.process import HubProcess
from zest_hf.seed.instance import Instance

from .conftest import SNAPSHOT, XET_BYTES, snapshot
from .test_seed import FILES, SETTLED, from_peers_alone, plain
from .test_start_stop import is_alive, nothing_left, one_line, state_of

LOGGED = "import logging; logging.basicConfig()\n"

Leaving = Callable[[str], Machine]


@pytest.fixture
def leaving(hub: HubProcess, tmp_path: Path) -> Iterator[Leaving]:
    """Machines of users who have set nothing: downloads leave a seeder, which is ended with the test."""
    with contextlib.ExitStack() as stack:

        def make(name: str) -> Machine:
            machine = Machine(hub, tmp_path / name)
            for variable in [*machine.environ]:
                if variable in ("CI", "CONTINUOUS_INTEGRATION", "BUILD_ID", "BUILD_NUMBER", "GITHUB_ACTIONS"):
                    del machine.environ[variable]
            machine.environ["ZEST_DAEMON"] = "auto"
            stack.enter_context(nothing_left(machine))
            return machine

        yield make


def left(machine: Machine) -> dict[str, Any]:
    """Waits for the one that was left, and says who it is."""
    eventually(lambda: Instance(machine.home / "zest").running(), "a seeder runs")
    return state_of(machine)


def none_left(machine: Machine) -> bool:
    """For good: whoever leaves one has the lock before it ends itself."""
    return not Instance(machine.home / "zest").is_taken() and not (machine.home / "zest" / "zest.log").exists()


def log_of(machine: Machine) -> str:
    return (machine.home / "zest" / "zest.log").read_text()


def test_a_download_leaves_a_seeder(hub: HubProcess, leaving: Leaving, make: Callable[[str], Machine]) -> None:
    a = leaving("A")
    assert snapshot(a).stderr == ""
    state = left(a)
    assert state["by"] == "hook"
    from_peers_alone(hub, make("B"), state["listen"])
    # It is nobody's child, in no terminal's session, holds no directory of the program, and is out of the way.
    stat = Path(f"/proc/{state['pid']}/stat").read_text().rpartition(")")[2].split()
    assert int(stat[16]) == 10, "its niceness"
    assert os.getsid(state["pid"]) != os.getsid(0)
    assert os.readlink(f"/proc/{state['pid']}/cwd") == str(a.home / "zest")
    # Later downloads find that there is one.
    log = log_of(a)
    assert a.python("import huggingface_hub; huggingface_hub.snapshot_download('org/parts')").code == 0
    assert state_of(a) == state
    # It learns of them from the index, without a look at the cache.
    status = eventually(
        lambda: (found := status_of(a))["files"] == FILES + 12 and found, "what came later is offered as well"
    )
    assert {model["repo"] for model in status["models"]} == {"org/model", "org/parts"}
    assert " hashing " not in log_of(a) and log_of(a).startswith(log)
    assert one_line(a.command("zest", "stop"), 0) == f"zest-seed (process {state['pid']}) has ended"


def status_of(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(machine.command("zest", "status", "--json").stdout)
    return found


def test_nobody_waits_for_it(leaving: Leaving) -> None:
    """The end of the program is not later than that of one that leaves none, but for a fork."""
    code = """
import atexit, time
atexit.register(lambda: show(seconds=time.monotonic() - began))  # runs after what was registered later
import huggingface_hub as hub
atexit.register(lambda: globals().update(began=time.monotonic()))
REPO = "org/model"
hub.snapshot_download(REPO)
atexit.register(lambda: globals().update(began=time.monotonic()))
"""
    seconds = {}
    for name, word in (("A", "auto"), ("B", "off")):
        run = leaving(name).python(code, ZEST_DAEMON=word)
        assert run.code == 0 and run.stderr == "", run.stderr
        seconds[word] = run.shown["seconds"]
    assert seconds["auto"] < seconds["off"] + 0.2, seconds


@pytest.mark.parametrize(
    "environ",
    [
        {"ZEST_DAEMON": "off"},
        {"ZEST_SEED": "off"},
        {"CI": "true"},
        {"GITHUB_ACTIONS": "true"},
        {"ZEST_HOME": "/proc/zest"},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_none_is_left(leaving: Leaving, environ: dict[str, str]) -> None:
    a = leaving("A")
    # Without a home for it there is no index either: that is said, as ever.
    run = a.python(f"{LOGGED}REPO = 'org/model'\n{SNAPSHOT}", ZEST_LOG="debug", **environ)
    assert run.code == 0 and "Traceback" not in run.stderr
    (line,) = [line for line in run.stderr.splitlines() if "no zest-seed is left running" in line]
    if "ZEST_HOME" not in environ:
        assert next(iter(environ)) in line or "(environment (CI))" in line
        assert none_left(a)


def test_none_is_left_by_a_program_that_is_no_interpreter(leaving: Leaving) -> None:
    """One that has Python inside: its executable would be the whole program once more."""
    a = leaving("A")
    run = a.python(f"{LOGGED}sys.executable = '/bin/true'\nREPO = 'org/model'\n{SNAPSHOT}", ZEST_LOG="debug")
    assert run.code == 0 and "is no Python interpreter" in run.stderr
    assert none_left(a)


@pytest.fixture
def mount() -> Iterator[Callable[..., None]]:
    """Mounts something at a directory until the end of the test."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount something")
    with contextlib.ExitStack() as stack:

        def at(place: Path, *arguments: str) -> None:
            place.mkdir(parents=True, exist_ok=True)
            done = subprocess.run(["mount", *arguments, str(place)], capture_output=True)
            if done.returncode:
                pytest.skip("nothing can be mounted here")
            if "remount" not in str(arguments):
                stack.callback(subprocess.run, ["umount", "-l", str(place)], check=True)

        yield at


def test_a_home_that_is_not_writable(leaving: Leaving, mount: Callable[..., None]) -> None:
    """A container whose user may write to its cache only: it is told that nothing is remembered, once."""
    a = leaving("A")
    mount(a.home / "zest", "-t", "tmpfs", "-o", "ro", "tmpfs")
    run = a.python(f"{LOGGED}REPO = 'org/model'\n{SNAPSHOT}")
    assert run.code == 0 and run.shown["cdn"] == XET_BYTES
    assert len(run.stderr.splitlines()) == 1 and "no index" in run.stderr, run.stderr
    assert none_left(a)
    run = a.python(f"{LOGGED}REPO = 'org/parts'\n{SNAPSHOT}", ZEST_LOG="debug")
    assert run.stderr.count("no zest-seed is left running") == 1 and "Traceback" not in run.stderr
    assert "ZEST_HOME" in one_line(a.command("zest", "start"), 1)


def test_a_cache_that_is_not_writable(
    hub: HubProcess, leaving: Leaving, make: Callable[[str], Machine], mount: Callable[..., None]
) -> None:
    """One that an administrator has filled for all: it can be seeded from a home elsewhere."""
    a = leaving("A")
    plain(a)
    mount(a.home / "hub", "--bind", str(a.home / "hub"))
    mount(a.home / "hub", "-o", "remount,ro,bind")
    with a.seeder(ZEST_HOME=str(a.root / "elsewhere")) as seeder:
        seeder.wait_for_files(FILES)
        from_peers_alone(hub, make("B"), seeder.address)


RANK = """
import os, sys
barrier = os.environ["BARRIER"]
import huggingface_hub as hub, zest_hf
path = hub.snapshot_download("org/model")
show(**zest_hf.status()["bytes"])
# All of them end at the same moment.
with open(barrier) as fifo:
    fifo.read()
"""


def test_eight_ranks_of_a_job(leaving: Leaving) -> None:
    """They end at the same moment, and leave one seeder, which is the first that was begun."""
    a = leaving("A")
    barrier = a.root / "barrier"
    os.mkfifo(barrier)
    with contextlib.ExitStack() as stack:
        ranks: list[Program] = [
            stack.enter_context(a.running(sys.executable, "-c", PRELUDE + RANK, BARRIER=str(barrier)))
            for _ in range(8)
        ]
        for rank in ranks:
            rank.wait_for_line("RESULT", 60)
        assert none_left(a)
        with open(barrier, "w"):  # opens when somebody reads, and all go on when it is closed
            pass
        for rank in ranks:
            # Who opens it a moment later waits for the next one.
            while rank.process.poll() is None:
                with contextlib.suppress(OSError):
                    os.close(os.open(barrier, os.O_WRONLY | os.O_NONBLOCK))
                time.sleep(0.01)
            assert rank.end().stderr == ""
    state = left(a)
    assert is_alive(state["pid"])
    assert log_of(a).count(" offered on ") == 1
    assert "it runs already" not in log_of(a)


def test_a_process_that_lives_on(hub: HubProcess, leaving: Leaving, make: Callable[[str], Machine]) -> None:
    """It seeds by itself; after some quiet seconds one is left as well, at the next free port. Both serve."""
    a = leaving("A")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environ = {"ZEST_LISTEN": f"127.0.0.1:{port}"}
    quick = "import zest_hf.seed.leave as leave; leave.QUIET_S = 0.5\n"
    with a.console(**environ) as console:
        run = console.run(f"{quick}REPO = 'org/model'\n{SNAPSHOT}")
        assert run.shown["cdn"] == XET_BYTES
        own = console.run(f"{SETTLED}show(at=zest_hf.status()['listen'])").shown["at"]
        state = left(a)
        assert own == f"127.0.0.1:{port}"
        assert state["listen"] != own and int(state["listen"].rpartition(":")[2]) in range(port + 1, port + 21)
        # It is not this process's: whoever waits for all of its children is not held up.
        assert console.run("try: os.wait()\nexcept ChildProcessError: show(children=0)").shown == {"children": 0}
        for number, address in enumerate((own, state["listen"])):
            from_peers_alone(hub, make(f"B{number}"), address)
        assert console.end(signal.SIGKILL).code == -signal.SIGKILL
    from_peers_alone(hub, make("C"), state["listen"])


def test_users_of_one_machine(hub: HubProcess, leaving: Leaving, make: Callable[[str], Machine]) -> None:
    """The same settings, a home each: the second one gets the next free ports."""
    with socket.create_server(("127.0.0.1", 0)) as peers, socket.create_server(("127.0.0.1", 0)) as page:
        ports = [server.getsockname()[1] for server in (peers, page)]
    environ = {"ZEST_LISTEN": f"127.0.0.1:{ports[0]}", "ZEST_STATUS": f"127.0.0.1:{ports[1]}"}
    states = []
    for name in ("alice", "bob"):
        user = leaving(name)
        snapshot(user, **environ)
        states.append(left(user))
    assert states[0]["listen"] == environ["ZEST_LISTEN"]
    assert states[0]["status"] == f"http://{environ['ZEST_STATUS']}"
    assert states[1]["listen"] != states[0]["listen"] and states[1]["status"] != states[0]["status"]
    for number, state in enumerate(states):
        from_peers_alone(hub, make(f"B{number}"), state["listen"])


FORK = """
import os, zest_hf, huggingface_hub as hub
hub.snapshot_download("org/model")
child = os.fork()
if child == 0:
    # Nothing of the parent's is this process's to use: it has downloaded nothing, and shares nothing.
    before = zest_hf.status()["bytes"]["total"]
    hub.snapshot_download("org/parts")
    print("CHILD", before, zest_hf.status()["bytes"]["total"], flush=True)
    import sys
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
show(**zest_hf.status()["bytes"])
"""


def test_a_fork_after_a_download(leaving: Leaving) -> None:
    a = leaving("A")
    run = a.python(FORK)
    assert run.code == 0 and run.stderr == "", run.stderr
    assert f"CHILD 0 {12 * 200_000}" in run.stdout
    assert run.shown["total"] == XET_BYTES
    left(a)
    assert log_of(a).count(" offered on ") == 1
    eventually(lambda: status_of(a)["files"] == FILES + 12, "what both have downloaded is offered")


WORKERS = """
import multiprocessing, huggingface_hub
def work(name):
    huggingface_hub.hf_hub_download("org/parts", name)
if __name__ == "__main__":
    processes = [
        multiprocessing.get_context(METHOD).Process(target=work, args=(f"part{n}.bin",)) for n in range(2)
    ]
    for process in processes: process.start()
    for process in processes: process.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_of_multiprocessing(leaving: Leaving, method: str) -> None:
    """They end without `atexit`, and the one that has begun them has downloaded nothing."""
    a = leaving("A")
    script = a.root / "workers.py"
    script.write_text(f"METHOD = {method!r}\n{WORKERS}")
    run = a.command(sys.executable, str(script))
    assert run.code == 0 and run.stderr == "", run.stderr
    left(a)
    eventually(lambda: status_of(a)["files"] == 2, "what they have downloaded is offered")


def test_one_in_the_foreground_counts(leaving: Leaving) -> None:
    a = leaving("A")
    with a.seeder() as seeder:
        snapshot(a)
        seeder.wait_for_files(FILES)
        assert state_of(a)["pid"] == seeder.process.pid and not (a.home / "zest" / "zest.log").exists()


OTHER_VERSION = """
import zest_hf
zest_hf.__version__ = {version!r}
from zest_hf.cli import main
sys.exit(main(["start"]))
"""


@pytest.mark.parametrize(("version", "replaced"), [("0.0.9", True), ("99.1", False), ("what", False)])
def test_versions(leaving: Leaving, version: str, replaced: bool) -> None:
    """An older one is asked to end, a newer one is left alone."""
    a = leaving("A")
    assert a.command("zest", "start").code == 0
    before = state_of(a)
    (a.home / "zest" / "seed.json").write_text(json.dumps(before | {"version": version}))
    snapshot(a)
    if replaced:
        eventually(lambda: not is_alive(before["pid"]), "the older one has ended")
        after = left(a)
        assert after["pid"] != before["pid"] and after["version"] != version
        assert "has ended" in log_of(a)
    else:
        assert is_alive(before["pid"])
        assert log_of(a).count(" offered on ") == 1


def test_start_replaces_an_older_one(leaving: Leaving) -> None:
    a = leaving("A")
    a.command("zest", "start")
    before = state_of(a)
    (a.home / "zest" / "seed.json").write_text(json.dumps(before | {"version": "0.0.9"}))
    run = a.command("zest", "start")
    assert run.code == 0 and "instead of one of version 0.0.9, which has ended" in run.stdout
    assert not is_alive(before["pid"]) and is_alive(state_of(a)["pid"])


def test_it_ends_when_there_is_nothing_to_do(leaving: Leaving) -> None:
    a = leaving("A")
    snapshot(a, ZEST_IDLE_EXIT="1s")
    left(a)
    eventually(lambda: not Instance(a.home / "zest").is_taken(), "it has ended by itself")
    assert "nothing to do for" in log_of(a) and not (a.home / "zest" / "seed.json").exists()
    # One that the user has asked for stays.
    a.command("zest", "start", ZEST_IDLE_EXIT="1s")
    time.sleep(2.5)
    assert is_alive(state_of(a)["pid"])


def test_it_ends_with_its_directory(leaving: Leaving) -> None:
    """`rm -rf` of the cache: it must not serve on for a home that another one may be started for."""
    a = leaving("A")
    snapshot(a)
    pid = left(a)["pid"]
    shutil.rmtree(a.home)
    eventually(lambda: not is_alive(pid), "it has ended")


def test_one_that_hangs_holds_nobody_up(hub: HubProcess, leaving: Leaving) -> None:
    """Downloads of its user and of others go on without it; the commands say so in a line."""
    a, b = leaving("A"), leaving("B")
    snapshot(a)
    state = left(a)
    os.kill(state["pid"], signal.SIGSTOP)
    try:
        for machine in (a, b):
            began_s = time.monotonic()
            run = machine.python(
                "import huggingface_hub, zest_hf\nhuggingface_hub.snapshot_download('org/parts')\n"
                "show(**zest_hf.status()['bytes'])",
                ZEST_PEERS=state["listen"],
            )
            assert run.code == 0 and run.shown["cdn"] == 12 * 200_000, run
            assert time.monotonic() - began_s < 10
        for command in ("status", "start"):
            assert f"process {state['pid']}) runs, but is stopped" in one_line(a.command("zest", command), 1)
    finally:
        os.kill(state["pid"], signal.SIGCONT)
    eventually(lambda: status_of(a)["files"] == FILES + 12, "it has noticed what came meanwhile")
    assert "has ended" in one_line(a.command("zest", "stop"), 0)


def test_a_full_disk_for_log_and_index(
    hub: HubProcess, leaving: Leaving, make: Callable[[str], Machine], mount: Callable[..., None], tmp_path: Path
) -> None:
    """What it had is served on; it says what is wrong once, as far as there is room."""
    a, nearly_full = leaving("A"), tmp_path / "disk"
    mount(nearly_full, "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    a.environ["ZEST_HOME"] = str(nearly_full / "zest")
    with contextlib.ExitStack() as stack:
        stack.callback(a.command, "zest", "stop")
        snapshot(a)
        running = eventually(lambda: Instance(nearly_full / "zest").running(), "a seeder runs")
        with (nearly_full / "rest").open("wb", buffering=0) as rest, contextlib.suppress(OSError):
            while True:
                rest.write(bytes(4096))
        plain = a.python(
            "import huggingface_hub; huggingface_hub.snapshot_download('org/parts')", HF_HUB_ENABLE_ZEST=None
        )
        assert plain.code == 0
        from_peers_alone(hub, make("B"), running.listen)
        assert is_alive(running.pid)
        (nearly_full / "rest").unlink()
        eventually(lambda: status_of(a)["files"] == FILES + 12, "with room again the rest is found")
        log = (nearly_full / "zest" / "zest.log").read_text()
        assert log.count("trying again") <= 2, log


def test_an_index_that_breaks_while_it_serves(leaving: Leaving) -> None:
    """It is made anew from the cache, by the same process."""
    a = leaving("A")
    snapshot(a)
    left(a)
    index = a.home / "zest" / "index.sqlite"
    eventually(lambda: status_of(a)["files"] == FILES, "all is offered")
    replacement = index.with_name("broken")
    replacement.write_bytes(b"no database" * 1000)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{index}{suffix}")
    os.replace(replacement, index)
    eventually(lambda: "damaged" in log_of(a), "it has noticed")
    eventually(lambda: status_of(a)["files"] == FILES, "all is offered again")
    with closing(sqlite3.connect(index)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_index_of_a_newer_version(leaving: Leaving) -> None:
    a = leaving("A")
    a.command("zest", "start")
    a.command("zest", "stop")
    with closing(sqlite3.connect(a.home / "zest" / "index.sqlite")) as db:
        db.execute("PRAGMA user_version = 1000")
    line = one_line(a.command("zest", "start"), 1)
    assert "schema version 1000" in line and "upgrade zest_hf" in line
    run = snapshot(a)
    assert re.search("no index.*schema version 1000", run.stderr)
    eventually(lambda: not Instance(a.home / "zest").is_taken(), "what was left could not start either")


def test_an_index_that_somebody_holds(leaving: Leaving) -> None:
    """A seeder that was stopped in the middle of a transaction, say: downloads go on, and are not noted."""
    a = leaving("A")
    a.command("zest", "start")
    with closing(sqlite3.connect(a.home / "zest" / "index.sqlite", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        began_s = time.monotonic()
        run = snapshot(a)
        assert time.monotonic() - began_s < 10
        (line,) = run.stderr.splitlines()
        assert "no index" in line and "another process has kept it locked" in line
    # What was not noted is found in the cache.
    eventually(lambda: status_of(a)["files"] == FILES, "it is offered all the same")


def test_it_ends_at_once_while_it_hashes(leaving: Leaving) -> None:
    a = leaving("A")
    blob = a.home / "hub" / "models--org--large" / "blobs" / ("ab" * 32)
    blob.parent.mkdir(parents=True)
    with blob.open("wb") as file:
        file.truncate(100 << 30)
    a.command("zest", "start")
    pid = state_of(a)["pid"]
    eventually(lambda: " hashing " in log_of(a), "it hashes")
    began_s = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not is_alive(pid), "it has ended")
    assert time.monotonic() - began_s < 2
    assert not (a.home / "zest" / "seed.json").exists()


def test_killed_at_any_moment(hub: HubProcess, leaving: Leaving, make: Callable[[str], Machine]) -> None:
    """While it hashes, writes and serves: the next one starts as if nothing had been, and the index is whole."""
    a = leaving("A")
    for repo in ("org/model", "org/parts"):
        done = a.python(
            f"import huggingface_hub; huggingface_hub.snapshot_download({repo!r})", HF_HUB_ENABLE_ZEST=None
        )
        assert done.code == 0, done.stderr
    index = a.home / "zest" / "index.sqlite"
    for round_ in range(6):
        assert one_line(a.command("zest", "start"), 0).startswith("zest-seed runs: ")
        state = state_of(a)
        b = make(f"B{round_}")
        code = f"{PRELUDE}REPO = 'org/model'\n{SNAPSHOT}"
        with b.running(sys.executable, "-c", code, ZEST_PEERS=state["listen"]) as download:
            time.sleep(0.25 * round_)  # from at once to when all is hashed and served
            os.kill(state["pid"], signal.SIGKILL)
            run = download.end()
        assert run.code == 0 and run.shown["total"] == XET_BYTES, run.stderr
        eventually(lambda pid=state["pid"]: not is_alive(pid), "it is gone")  # type: ignore[misc]
        with closing(sqlite3.connect(index)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    a.command("zest", "start")
    eventually(lambda: status_of(a)["files"] == FILES + 12, "everything is offered")
    from_peers_alone(hub, make("C"), state_of(a)["listen"])
    assert not list((a.home / "zest").glob("*.corrupt-*"))
