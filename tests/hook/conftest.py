"""A local Hub with a few repositories, and interpreters of their own that download from it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import Machine as Machine

from zest_hf.hub.process import HubProcess

OWNER = "hf_owner"
SIZE = 300_000
NAMES = tuple(f"part{n}.safetensors" for n in range(8))


def content(name: str) -> bytes:
    """What is in the repositories under a name."""
    return random.Random(name).randbytes(SIZE)


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """org/model (public), org/data (a public data set), org/secret (private), one after the other."""
    root = tmp_path_factory.mktemp("hub")
    for name in NAMES:
        (root / name).write_bytes(content(name))
    with HubProcess(root / "state", token=OWNER) as process:
        code = f"""
from huggingface_hub import CommitOperationAdd, HfApi
api = HfApi()
for repo, kind in (("org/model", "model"), ("org/data", "dataset"), ("org/secret", "model")):
    api.create_repo(repo, repo_type=kind, private=repo == "org/secret")
    files = [CommitOperationAdd(n, {str(root)!r} + "/" + n) for n in {NAMES!r}]
    api.create_commit(repo, files, repo_type=kind, commit_message="files")
"""
        machine = Machine(process, root)
        done = machine.python(code, HF_TOKEN=OWNER, HF_HUB_ENABLE_ZEST=None)
        assert done.code == 0, done.stderr
        yield process


@pytest.fixture
def machine(hub: HubProcess, tmp_path: Path) -> Iterator[Machine]:
    hub.reset_stats()
    yield Machine(hub, tmp_path)
    hub.clear_faults()
