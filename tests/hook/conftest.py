"""A local Hub with a few repositories, and interpreters of their own that download from it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from zest_hf.hub.process import HubProcess

OWNER = "hf_owner"
SIZE = 300_000
NAMES = tuple(f"part{n}.safetensors" for n in range(8))
RUN_TIMEOUT_S = 60

# The code of every run may use these; `show` is what the test gets back.
PRELUDE = """
import json, os, sys
def show(**values): print("RESULT " + json.dumps(values))
def total():
    import zest_hf
    return zest_hf.status()["bytes"]["total"]
def size(path): return os.stat(path).st_size
"""


def content(name: str) -> bytes:
    """What is in the repositories under a name."""
    return random.Random(name).randbytes(SIZE)


@dataclass
class Run:
    """What an interpreter left behind. ``shown``: the keyword arguments of its last `show`."""

    code: int
    stdout: str
    stderr: str

    @property
    def shown(self) -> dict[str, Any]:
        lines = [line for line in self.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, f"nothing was shown; stderr: {self.stderr}"
        shown: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
        return shown

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if "zest_hf:" in line]


class Machine:
    """A user's machine: its own HF_HOME, and a Hub somewhere else."""

    def __init__(self, hub: HubProcess, root: Path) -> None:
        self.hub, self.root = hub, root
        self.home = root / "home"
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "ZEST_", "TQDM_"))}
        self.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        self.environ |= {
            # Most of the time goes into imports; compile only once.
            "PYTHONPYCACHEPREFIX": str(hub.state_dir.parent / "bytecode"),
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_ENABLE_ZEST": "1",
            "ZEST_DAEMON": "off",
            "ZEST_DHT": "off",
            "ZEST_LISTEN": "127.0.0.1:0",
            "ZEST_LSD": "off",
        }

    def command(self, *arguments: str, **environ: str | None) -> Run:
        """Run a command line to its end. None removes a variable."""
        env = self.environ | {k: v for k, v in environ.items() if v is not None}
        env = {k: v for k, v in env.items() if environ.get(k, "") is not None}
        done = subprocess.run(
            arguments, env=env, cwd=self.root, capture_output=True, text=True, timeout=RUN_TIMEOUT_S
        )
        return Run(done.returncode, done.stdout, done.stderr)

    def python(self, code: str, **environ: str | None) -> Run:
        """Run code after PRELUDE."""
        return self.command(sys.executable, "-c", PRELUDE + code, **environ)

    def left_behind(self) -> list[str]:
        """Names of unfinished files anywhere on the machine."""
        return sorted(path.name for path in self.root.rglob("*.incomplete"))


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
