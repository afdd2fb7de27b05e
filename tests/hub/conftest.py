from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zest_hf.hub.process import HubProcess

from .wire import Client, Packed, pack

RunPython = Callable[..., Any]


@pytest.fixture(scope="session")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture
def hub(shared_hub: HubProcess) -> Iterator[HubProcess]:
    """The hub of the whole run, without leftovers of other tests."""
    shared_hub.clear_faults()
    shared_hub.reset_stats()
    yield shared_hub
    shared_hub.clear_faults()


@pytest.fixture
def client(hub: HubProcess) -> Client:
    client = Client(hub.endpoint)
    client.create()
    return client


@pytest.fixture(scope="session")
def packed() -> Packed:
    """1 MB of incompressible content: about 16 chunks of one xorb."""
    return pack(random.Random(7).randbytes(1_000_000))


@pytest.fixture
def stored(client: Client, packed: Packed) -> Packed:
    """The same content, uploaded to ``client``'s repository."""
    client.upload(packed)
    return packed


@pytest.fixture
def run_python(tmp_path: Path) -> RunPython:
    """Run a script against a hub in a fresh interpreter; what it passes to ``report`` comes back.

    huggingface_hub reads its settings while it is imported, hence the process.
    """

    def run(script: str, endpoint: str, *arguments: str, **environment: str) -> Any:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "ZEST_", "HUGGING_FACE"))}
        home = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "*"}
        given = {"HF_ENDPOINT": endpoint, "HF_TOKEN": "any", "HF_HUB_DISABLE_TELEMETRY": "1"} | environment
        prologue = "import json, sys\ndef report(value): print('@@' + json.dumps(value))\n"
        done = subprocess.run(
            [sys.executable, "-c", prologue + script, *arguments],
            env=clean | home | given,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        lines = [line[2:] for line in done.stdout.splitlines() if line.startswith("@@")]
        return json.loads(lines[-1]) if lines else None

    return run
