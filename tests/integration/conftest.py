"""A local Hub with a public model, and users' machines that download from it and seed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machines import Machine, Run

from zest_hf.hub.process import HubProcess

from .seeders import Leaving, Mount, nothing_left

OWNER = "hf_owner"
CONTENT = {
    "model.safetensors": random.Random("model").randbytes(6_000_000),
    "vocabulary.bin": random.Random("vocabulary").randbytes(300_000),
    "config.json": b'{"model_type": "random"}',
}
PARTS = {f"part{n}.bin": random.Random(n).randbytes(200_000) for n in range(12)}
XET_NAMES = ("model.safetensors", "vocabulary.bin")
XET_BYTES = sum(len(CONTENT[name]) for name in XET_NAMES)

SNAPSHOT = """
import huggingface_hub as hub, zest_hf
path = hub.snapshot_download(REPO)
show(path=path, **zest_hf.status()["bytes"])
"""

MakeMachine = Callable[[str], Machine]


def snapshot(machine: Machine, repo: str = "org/model", **environ: str | None) -> Run:
    """`snapshot_download` of a repository; `shown` has its path and the bytes by source. The content is checked."""
    run = machine.python(f"REPO = {repo!r}\n{SNAPSHOT}", **environ)
    assert run.code == 0, run.stderr
    assert_right(Path(run.shown["path"]))
    return run


def assert_right(folder: Path) -> None:
    """Every file of the model is there and is what was uploaded, by SHA-256."""
    for name, data in CONTENT.items():
        assert sha256((folder / name).read_bytes()) == sha256(data), name


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def create(hub: HubProcess, root: Path, repos: dict[str, dict[str, bytes]]) -> None:
    """Repositories with their content. Those whose name ends in "secret" are private."""
    for name, data in {**CONTENT, **PARTS}.items():
        (root / name).write_bytes(data)
    code = f"""
from huggingface_hub import CommitOperationAdd, HfApi
api = HfApi()
for repo, names in { {repo: list(content) for repo, content in repos.items()} !r}.items():
    api.create_repo(repo, private=repo.endswith("secret"))
    files = [CommitOperationAdd(name, {str(root)!r} + "/" + name) for name in names]
    api.create_commit(repo, files, commit_message="files")
"""
    done = Machine(hub, root / "uploader").python(code, HF_TOKEN=OWNER, HF_HUB_ENABLE_ZEST=None)
    assert done.code == 0, done.stderr


def content_of(machine: Machine) -> list[Path]:
    """Files on the machine that have the model's size or its content under a final name."""
    sizes = {len(CONTENT[name]) for name in XET_NAMES}
    files = (path for path in machine.root.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if path.stat().st_size in sizes and path.suffix != ".incomplete"]


@pytest.fixture(scope="session")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    root = tmp_path_factory.mktemp("hub")
    with HubProcess(root / "state", token=OWNER) as hub:
        create(hub, root, {"org/model": CONTENT, "org/secret": CONTENT, "org/later": CONTENT, "org/parts": PARTS})
        yield hub


@pytest.fixture(scope="session")
def shared_owner(shared_hub: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    owner = Machine(shared_hub, tmp_path_factory.mktemp("owner"))
    assert snapshot(owner, ZEST_SEED="off").shown["cdn"] == XET_BYTES
    return owner


@pytest.fixture
def hub(shared_hub: HubProcess) -> Iterator[HubProcess]:
    """org/model (public) and org/secret (private) with the same content, org/parts; counters at zero."""
    shared_hub.reset_stats()
    yield shared_hub
    shared_hub.clear_faults()


@pytest.fixture
def make(hub: HubProcess, tmp_path: Path) -> MakeMachine:
    return lambda name: Machine(hub, tmp_path / name)


@pytest.fixture
def machine(make: MakeMachine) -> Machine:
    return make("A")


@pytest.fixture
def owner(shared_owner: Machine, hub: HubProcess) -> Machine:
    """A machine that has downloaded org/model with the hook. Shared: to be left as it is."""
    return shared_owner


@pytest.fixture
def nobody() -> str:
    """An address of this machine at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


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


@pytest.fixture
def mount() -> Iterator[Mount]:
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
