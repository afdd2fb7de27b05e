"""What befalls a seeder that nobody looks after: versions, full disks, broken indexes, SIGSTOP and SIGKILL."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from machines import PRELUDE, eventually

from zest_hf.hub.process import HubProcess
from zest_hf.seed.instance import Instance

from .conftest import SNAPSHOT, XET_BYTES, MakeMachine, snapshot
from .seeders import LOGGED, Leaving, Mount, is_alive, left, log_of, none_left, one_line, state_of, status_of
from .test_seed import FILES, from_peers_alone, plain


def test_a_home_that_is_not_writable(leaving: Leaving, mount: Mount) -> None:
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
    hub: HubProcess, leaving: Leaving, make: MakeMachine, mount: Mount
) -> None:
    """One that an administrator has filled for all: it can be seeded from a home elsewhere."""
    a = leaving("A")
    plain(a)
    mount(a.home / "hub", "--bind", str(a.home / "hub"))
    mount(a.home / "hub", "-o", "remount,ro,bind")
    with a.seeder(ZEST_HOME=str(a.root / "elsewhere")) as seeder:
        seeder.wait_for_files(FILES)
        from_peers_alone(hub, make("B"), seeder.address)


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
    time.sleep(2.5)  # nothing is to happen in this time
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
    hub: HubProcess, leaving: Leaving, make: MakeMachine, mount: Mount, tmp_path: Path
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


def test_killed_at_any_moment(hub: HubProcess, leaving: Leaving, make: MakeMachine) -> None:
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
