from __future__ import annotations

import hashlib
import random
import struct
from pathlib import Path

import pytest
from hub.conftest import RunPython
from hub.conftest import hub as hub
from hub.conftest import run_python as run_python
from hub.conftest import shared_hub as shared_hub

__all__ = ["RunPython", "digests", "hub", "run_python", "shared_hub"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, noise, a file that shares most of its content with another, small and empty ones."""
    root = tmp_path_factory.mktemp("folder")
    generator = random.Random(21)
    weights = b"".join(struct.pack("<f", generator.gauss(0, 0.02))[2:] for _ in range(400_000))
    noise = generator.randbytes(2_000_000)
    (root / "weights.safetensors").write_bytes(weights)
    (root / "noise.bin").write_bytes(noise)
    (root / "sub").mkdir()
    (root / "sub" / "edited.bin").write_bytes(noise[:900_000] + b"edit" + noise[900_000:])
    (root / "one.bin").write_bytes(b"\0")
    (root / "empty.bin").write_bytes(b"")
    (root / "README.md").write_text("# text\n")
    return root


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
