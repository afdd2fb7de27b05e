"""Through the Hub's own functions: a second revision, and a download that was killed."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path

from downloads import Publisher, xorb
from machines import PRELUDE, eventually

from zest_hf.hook.staging import left_overs
from zest_hf.hub.process import HubProcess

from .conftest import OWNER, Machine

PUBLISH = """
import random
from huggingface_hub import CommitOperationAdd, HfApi
data = bytearray(random.Random('revisions').randbytes(4_000_000))
api = HfApi()
api.create_repo('org/revisions', private=True)
for name in ('one', 'two'):
    api.create_commit('org/revisions', [CommitOperationAdd('model.bin', bytes(data))], commit_message=name)
    api.create_tag('org/revisions', tag=name)
    data[2_000_000:2_000_100] = bytes(100)
"""
FETCH = """
import hashlib, huggingface_hub as hub, zest_hf
path = hub.hf_hub_download('org/revisions', 'model.bin', revision=REVISION)
show(sha=hashlib.sha256(open(path, 'rb').read()).hexdigest(), bytes=zest_hf.status()['bytes'])
"""


def test_a_second_revision_of_a_private_repository(machine: Machine) -> None:
    done = machine.python(PUBLISH, HF_TOKEN=OWNER, HF_HUB_ENABLE_ZEST=None)
    assert done.code == 0, done.stderr
    shown = []
    for revision in ("one", "two"):
        machine.hub.reset_stats()
        run = machine.python(FETCH.replace("REVISION", repr(revision)), HF_TOKEN=OWNER)
        assert run.stderr == ""
        shown.append(run.shown)
    first, second = (one["bytes"] for one in shown)
    assert shown[0]["sha"] != shown[1]["sha"]
    assert (first["local"], first["total"]) == (0, 4_000_000)
    assert second["total"] == 4_000_000 and second["cdn"] + second["local"] == 4_000_000
    assert second["local"] >= 3_500_000
    assert machine.hub.stats()["cdn_bytes"] < 500_000


FETCH_LARGE = """
import hashlib, huggingface_hub as hub, zest_hf
path = hub.hf_hub_download('org/large', 'file1.bin')
show(sha=hashlib.sha256(open(path, 'rb').read()).hexdigest(), bytes=zest_hf.status()['bytes'])
"""


def test_a_download_that_was_killed_is_gone_on_with(local_hub: HubProcess, tmp_path: Path) -> None:
    file = Publisher(local_hub.endpoint, "org/large").put(*(xorb(f"large {n}", 1_000_000 * (n + 1)) for n in range(4)))
    machine = Machine(local_hub, tmp_path)
    local_hub.fault("cdn", "rate", bytes_per_second=6_000_000)
    with machine.running(sys.executable, "-c", PRELUDE + FETCH_LARGE) as program:
        # The smaller ones are here, and the largest is not.
        eventually(lambda: local_hub.stats()["cdn_bytes"] >= 7_000_000, "most of it has come")
        program.end(signal.SIGKILL)
    local_hub.clear_faults()
    local_hub.reset_stats()
    assert len(machine.left_behind()) == 1
    run = machine.python(FETCH_LARGE)
    assert run.stderr == "" and run.shown["sha"] == hashlib.sha256(file.content).hexdigest()
    assert run.shown["bytes"]["local"] >= 1_000_000
    assert local_hub.stats()["cdn_bytes"] <= 1.01 * (len(file.content) - run.shown["bytes"]["local"])


def test_what_was_left_of_the_same_file_is_found_by_its_name(tmp_path: Path) -> None:
    names = [f"abc.{number:08x}.incomplete" for number in range(6)]
    others = ["abc.incomplete", "abcd.00000000.incomplete", "abc.0000000g.incomplete", "abc", "abc.00000000"]
    for age, name in enumerate(names + others):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, ns=(0, 10**18 - age))
    assert left_overs(tmp_path / names[1]) == tuple(tmp_path / names[number] for number in (0, 2, 3))
    assert left_overs(tmp_path / "abc.incomplete") == left_overs(tmp_path / "abc") == ()
    assert left_overs(tmp_path / "gone" / names[0]) == ()
