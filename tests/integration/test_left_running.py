"""The zest-seed that a download leaves behind (`ZEST_DAEMON=auto`): when there is one, and what becomes of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from machines import PRELUDE, Program, eventually

from zest_hf.hub.process import HubProcess

from .conftest import SNAPSHOT, XET_BYTES, MakeMachine, snapshot
from .seeders import LOGGED, Leaving, is_alive, left, log_of, none_left, one_line, processes_of, state_of, status_of
from .test_seed import FILES, SETTLED, from_peers_alone


def test_a_download_leaves_a_seeder(hub: HubProcess, leaving: Leaving, make: MakeMachine) -> None:
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


def test_a_process_that_lives_on(hub: HubProcess, leaving: Leaving, make: MakeMachine) -> None:
    """It seeds by itself; after some quiet seconds one is left as well, at the next free port. Both serve."""
    a = leaving("A")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environ = {"ZEST_LISTEN": f"127.0.0.1:{port}"}
    quick = "import zest_hf.seed.leave as leave; leave.QUIET_S = 0.5\n"
    with a.console(**environ) as console:
        # It is there first, however long it takes until what it has downloaded is offered.
        assert console.run("from zest_hf.engine import get_engine; assert get_engine().swarm()").code == 0
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


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(0)", "os.kill(os.getpid(), 15)"])
def test_a_process_that_is_killed_a_moment_after_its_last_file(leaving: Leaving, end: str) -> None:
    a = leaving("A")
    with a.console() as console:
        assert console.run(f"REPO = 'org/model'\n{SNAPSHOT}").shown["cdn"] == XET_BYTES
        guarded = "import zest_hf.seed.leave as leave; show(guarded=leave._leaver.is_guarded)"
        eventually(lambda: console.run(guarded).shown["guarded"], "somebody waits for its end")
        # A child that lives longer, and knows nothing of it, holds up nobody.
        fork = "child = os.fork()\nif not child: import time; time.sleep(60)\nshow(child=child)"
        child = console.run(fork).shown["child"]
        try:
            assert none_left(a)
            assert console.process.stdin is not None
            console.process.stdin.write(json.dumps(end) + "\n")
            console.process.stdin.flush()
            state = left(a)
        finally:
            os.kill(child, signal.SIGKILL)
    eventually(lambda: status_of(a)["files"] == FILES, "what it has downloaded is offered")
    assert state["by"] == "hook" and os.readlink(f"/proc/{state['pid']}/cwd") == str(a.home / "zest")


def test_who_waits_for_the_end_of_a_process_ends_with_it(leaving: Leaving) -> None:
    a = leaving("A")
    with a.console() as console:
        console.run(f"REPO = 'org/parts'\n{SNAPSHOT}")
        assert console.process.stdin is not None
        console.process.stdin.close()
        assert console.end().code == 0
    pid = left(a)["pid"]
    eventually(lambda: processes_of(a) == {pid}, "only the seeder is left")
    assert "it runs already" not in log_of(a)


def test_users_of_one_machine(hub: HubProcess, leaving: Leaving, make: MakeMachine) -> None:
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


