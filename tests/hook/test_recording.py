"""What happens to a file that is complete: the index, and whether it may be offered. Nobody waits for either."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from machines import eventually
from test_index import held_by_another_process

from zest_hf.index import Index

from .conftest import NAMES, OWNER, SIZE, Machine, content

ONE = """
import time, huggingface_hub as hub
hub.HfApi().model_info('org/model')  # imports, connections
began = time.monotonic()
hub.hf_hub_download('org/model', 'part0.safetensors')
show(seconds=time.monotonic() - began, ended=time.time(), total=total())
"""
ALL = """
import time, huggingface_hub as hub
began = time.monotonic()
for name in NAMES: hub.hf_hub_download('org/model', name)
show(seconds=time.monotonic() - began, total=total())
"""


SLOW_S = 7.0
"""Of a Hub: longer than all else takes on a busy machine, so that waiting twice is told from waiting once."""


def index_of(machine: Machine) -> Path:
    return machine.home / "zest" / "index.sqlite"


def recorded(machine: Machine) -> list[bool]:
    """Of each file in the index, whether it may be offered."""
    with closing(Index(index_of(machine))) as index:
        return [file.public for file in index.entries()]


def token_requests(machine: Machine) -> int:
    return int(machine.hub.stats()["by_route"]["GET xet-read-token"]["requests"])


def test_a_slow_hub_is_waited_for_once(machine: Machine) -> None:
    machine.hub.fault("hub", "latency", seconds=SLOW_S, match="xet-read-token")
    run = machine.python(ONE, HF_TOKEN=OWNER)
    since_s = time.time() - run.shown["ended"]
    assert run.stderr == "" and run.shown["total"] == SIZE
    assert SLOW_S <= run.shown["seconds"] < 2 * SLOW_S
    assert since_s < SLOW_S, "nor does the end of the program wait"
    assert recorded(machine) == [False], "in the index all the same; nobody has said that it is public"


def test_with_a_token_it_is_found_out_that_a_repository_is_public(machine: Machine) -> None:
    with machine.console(HF_TOKEN=OWNER) as console:
        assert console.run(ONE).code == 0
        eventually(lambda: recorded(machine) == [True], "the answer is in the index")
    assert token_requests(machine) == 2


def test_without_seeding_and_peers_nobody_asks(machine: Machine) -> None:
    assert machine.python(ONE, HF_TOKEN=OWNER, ZEST_SEED="off").shown["total"] == SIZE
    assert token_requests(machine) == 1
    assert recorded(machine) == [False]


def test_without_a_token_it_is_known_at_once(machine: Machine) -> None:
    assert machine.python(ONE, ZEST_SEED="off").shown["total"] == SIZE
    assert token_requests(machine) == 1
    assert recorded(machine) == [True]


@pytest.mark.skipif(os.name != "posix", reason="needs flock")
@pytest.mark.parametrize("kind", ["file", "database"])
def test_a_locked_index(machine: Machine, kind: str) -> None:
    with closing(Index(index_of(machine))) as index:
        index.generation()
    with held_by_another_process(kind, index_of(machine)):
        run = machine.python(f"NAMES = {NAMES!r}\n{ALL}", HF_TOKEN=OWNER)
    assert run.shown["total"] == SIZE * len(NAMES)
    # Each would wait for 10 s if it had the seeder's patience.
    assert run.shown["seconds"] < 9.0
    (warning,) = run.warnings
    assert "kept it locked" in warning
    assert recorded(machine) == []


def test_a_repository_that_becomes_private_is_withdrawn_while_the_process_lives(machine: Machine) -> None:
    api = HfApi(machine.hub.endpoint, token=OWNER)
    api.create_repo("org/turns")
    api.upload_file(path_or_fileobj=content("part1.safetensors"), path_in_repo="turns.safetensors", repo_id="org/turns")
    with machine.console() as console:
        # As if days went by in moments.
        code = """
import huggingface_hub as hub, zest_hf
from zest_hf import engine, finished
from zest_hf.hook import connection
finished.VISIBILITY_AGE_S = finished.VISIBILITY_LOOK_S = 0.05
connection.VISIBLE_FOR_S, connection.ASK_AGAIN_AFTER_S = 0.0, 0.0
hub.hf_hub_download('org/turns', 'turns.safetensors')
# Who asks for the download whether it is public may still be about to, and would get another token.
import threading
engine.get_engine()._askers.close()
for thread in threading.enumerate():
    if thread.name == "zest-ask": thread.join()
connection._shared.tokens.clear()
show(files=zest_hf.status()["files"])
"""
        run = console.run(code)
        assert run.shown == {"files": 1}, run.stderr
        api.update_repo_settings("org/turns", private=True)

        def offered() -> int:
            return int(console.run("show(files=zest_hf.status()['files'])").shown["files"])

        eventually(lambda: offered() == 0, "it is withdrawn")
    with closing(sqlite3.connect(index_of(machine))) as index:
        assert index.execute("SELECT public FROM visibility").fetchall() == [(0,)]
    assert recorded(machine) == [False]


@pytest.mark.parametrize("step", ["_chmod_and_move", "_create_symlink"])
def test_what_does_not_get_to_its_place_is_not_offered(machine: Machine, step: str) -> None:
    """Its content is undefined from then on, and its descriptor would keep the room on the disk."""
    code = f"""
import huggingface_hub as hub
from huggingface_hub import file_download
from zest_hf.engine import get_engine
def no_room(*args, **kwargs):
    global before
    before = len(get_engine()._finished._offered)
    raise OSError("no room")
file_download.{step} = no_room
try:
    hub.hf_hub_download('org/model', 'part0.safetensors')
except OSError as error:
    failed = str(error)
show(failed=failed, before=before, after=len(get_engine()._finished._offered), shared=get_engine().status()["files"])
"""
    run = machine.python(code, ZEST_PEERS="127.0.0.1:9")
    assert run.shown == {"failed": "no room", "before": 1, "after": 0, "shared": 0}
