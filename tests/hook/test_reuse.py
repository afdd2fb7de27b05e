"""Through the Hub's own functions: a second revision, and a download that was killed."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from downloads import Publisher, StoredFile, xorb
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


FETCH_KILLED = """
import hashlib, huggingface_hub as hub, zest_hf
path = hub.hf_hub_download('org/killed', 'file1.bin')
show(sha=hashlib.sha256(open(path, 'rb').read()).hexdigest(), bytes=zest_hf.status()['bytes'], path=path)
"""
KILLED_XORBS, KILLED_XORB_BYTES = 4, 12_000_000


@pytest.fixture(scope="module")
def killed(running_hub: HubProcess) -> StoredFile:
    """A file of several xorbs, each too large to come in a moment."""
    parts = [xorb(f"killed {number}", KILLED_XORB_BYTES) for number in range(KILLED_XORBS)]
    return Publisher(running_hub.endpoint, "org/killed").put(*parts)


def kill_at(machine: Machine, hub: HubProcess, cdn_bytes: int, number: int = signal.SIGKILL) -> None:
    with machine.running(sys.executable, "-c", PRELUDE + FETCH_KILLED) as program:
        eventually(lambda: hub.stats()["cdn_bytes"] >= cdn_bytes, f"{cdn_bytes} bytes have come")
        program.end(number)


def complete(machine: Machine, file: StoredFile) -> dict[str, int]:
    """The download is finished; nothing of it is left elsewhere. The bytes by source."""
    run = machine.python(FETCH_KILLED)
    assert run.stderr == "" and run.shown["sha"] == hashlib.sha256(file.content).hexdigest()
    assert machine.left_behind() == []
    assert list((machine.home / "zest" / "unfinished").iterdir()) == []
    counts: dict[str, int] = run.shown["bytes"]
    assert counts["total"] == len(file.content)
    return counts


def test_a_download_that_is_killed_again_and_again(
    local_hub: HubProcess, killed: StoredFile, tmp_path: Path
) -> None:
    machine, size = Machine(local_hub, tmp_path), len(killed.content)
    # What is on its way when it is killed is lost: that must be little.
    local_hub.fault("cdn", "rate", bytes_per_second=6_000_000)
    for share in (0.02, 0.2, 0.5, 0.9):
        kill_at(machine, local_hub, int(share * size))
        (left,) = machine.left_behind()
        # Half a file has no other name, and is there once.
        assert not [path for path in machine.root.rglob("*") if path.name == left.split(".")[0]]
    local_hub.clear_faults()
    counts = complete(machine, killed)
    assert counts["local"] >= 0.8 * size
    assert local_hub.stats()["cdn_bytes"] <= 1.1 * size


def test_after_ctrl_c_it_is_gone_on_with_as_well(local_hub: HubProcess, killed: StoredFile, tmp_path: Path) -> None:
    machine, size = Machine(local_hub, tmp_path), len(killed.content)
    local_hub.fault("cdn", "rate", bytes_per_second=6_000_000)
    kill_at(machine, local_hub, size // 2, signal.SIGINT)
    assert len(machine.left_behind()) == 1
    local_hub.clear_faults()
    assert complete(machine, killed)["local"] >= 0.4 * size
    assert local_hub.stats()["cdn_bytes"] <= 1.1 * size


def torn(path: Path) -> None:
    """A page in each xorb is another one, as after a power failure."""
    with path.open("r+b") as file:
        for number in range(KILLED_XORBS):
            file.seek(KILLED_XORB_BYTES * number + 1_000_000)
            file.write(os.urandom(4096))


def cut(path: Path) -> None:
    os.truncate(path, 6_000_000)


def other(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


@pytest.mark.parametrize(("harm", "least"), [(torn, 3_000_000), (cut, 4_000_000), (other, 0), (os.unlink, 0)])
def test_what_has_happened_to_it_since_is_found_out(
    local_hub: HubProcess, killed: StoredFile, tmp_path: Path, harm: Callable[[Path], None], least: int
) -> None:
    machine, size = Machine(local_hub, tmp_path), len(killed.content)
    local_hub.fault("cdn", "rate", bytes_per_second=6_000_000)
    kill_at(machine, local_hub, size // 2)
    local_hub.clear_faults()
    (left,) = machine.root.rglob("*.incomplete")
    harm(left)
    assert complete(machine, killed)["local"] >= least


def test_what_was_left_of_the_same_file_is_found_by_its_name(tmp_path: Path) -> None:
    names = [f"abc.{number:08x}.incomplete" for number in range(12)]
    others = ["abc.incomplete", "abcd.00000000.incomplete", "abc.0000000g.incomplete", "abc", "abc.00000000"]
    for age, name in enumerate(names + others):
        (tmp_path / name).write_bytes(b"begun")
        os.utime(tmp_path / name, ns=(0, 10**18 - age))
    # Many processes may have been killed before anything had come.
    for number in range(20):
        (tmp_path / f"abc.{number + 100:08x}.incomplete").touch()
    assert left_overs(tmp_path / names[1]) == tuple(tmp_path / names[number] for number in (0, *range(2, 9)))
    (tmp_path / names[11]).write_bytes(bytes(100_000))
    assert left_overs(tmp_path / names[1])[0] == tmp_path / names[11]
    assert left_overs(tmp_path / "abc.incomplete") == left_overs(tmp_path / "abc") == ()
    assert left_overs(tmp_path / "gone" / names[0]) == ()
