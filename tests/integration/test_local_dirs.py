"""What was downloaded to a directory of the user's is seeded, and found again when the index is lost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from machines import Machine

from zest_hf.hook.local_dirs import MAX_BYTES, LocalDir, local_files, note, noted
from zest_hf.hub.process import HubProcess

from .conftest import OWNER, XET_BYTES, XET_NAMES, MakeMachine
from .test_seed import from_peers_alone

FETCH = """
import huggingface_hub as hub
hub.snapshot_download("org/model", local_dir="mine/model")
os.chdir("mine")
hub.snapshot_download("org/model", local_dir=".")
show()
"""


def scanned(machine: Machine, **environ: str) -> dict[str, Any]:
    done = machine.command("zest", "scan", "--json", **environ)
    assert done.code == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


def fetched(machine: Machine, **environ: str) -> Path:
    run = machine.python(FETCH.replace("org/model", environ.pop("repo", "org/model")), **environ)
    assert run.code == 0, run.stderr
    return machine.root / "mine"


def forget(machine: Machine) -> None:
    for path in (machine.home / "zest").glob("index.sqlite*"):
        path.unlink()


def test_an_index_that_is_lost(hub: HubProcess, make: MakeMachine) -> None:
    a = make("A")
    root = fetched(a)
    assert noted(a.home / "zest") == [LocalDir(str(path), "model", "org/model") for path in (root / "model", root)]
    forget(a)
    with a.seeder() as seeder:
        seeder.wait_for_files(2 * len(XET_NAMES))
        from_peers_alone(hub, make("B"), seeder.address)
        (model,) = seeder.ask()["models"]
        assert model["repo"] == "org/model"
    assert scanned(a)["new"] == 0


def edited(path: Path) -> None:
    """By its user, some time after it came."""
    path.chmod(0o644)
    with path.open("ab") as file:
        file.write(b"mine")
    at = time.time() + 60
    os.utime(path, (at, at))


def unlisted(path: Path) -> None:
    (path.parent / ".cache" / "huggingface" / "download" / f"{path.name}.metadata").unlink()


def damaged(path: Path) -> None:
    (path.parent / ".cache" / "huggingface" / "download" / f"{path.name}.metadata").write_bytes(b"\xff\n\n")


@pytest.mark.parametrize("harm", [edited, unlisted, damaged, os.unlink])
def test_only_what_is_as_it_came_is_found(make: MakeMachine, harm: Callable[[Path], None]) -> None:
    a = make("A")
    harm(fetched(a) / "model.safetensors")
    forget(a)
    result = scanned(a)
    assert result["files"] == result["offered"]["files"] == 2 * len(XET_NAMES) - 1


def test_what_is_private_is_not_offered(make: MakeMachine) -> None:
    a = make("A")
    fetched(a, repo="org/secret", HF_TOKEN=OWNER)
    forget(a)
    result = scanned(a, HF_TOKEN=OWNER)
    assert (result["bytes"], result["offered"]["files"]) == (2 * XET_BYTES, 0)


def test_what_was_noted(tmp_path: Path) -> None:
    ones = [LocalDir(f"/a\n\udcff{n}", "dataset", "org/name") for n in range(3)]
    assert noted(tmp_path) == []
    for one in (*ones, ones[0]):
        note(tmp_path / "home", one)
    with (tmp_path / "home" / "local_dirs").open("ab") as file:
        file.write(b'["/cut off", "model')
    note(tmp_path / "home", ones[1])
    later = LocalDir("/later", "model", "org/name")
    note(tmp_path / "home", later)
    assert noted(tmp_path / "home") == [*ones, later]
    assert list(local_files([*ones, later])) == []
    (tmp_path / "home" / "local_dirs").write_bytes(os.urandom(MAX_BYTES))
    assert noted(tmp_path / "home") == []
