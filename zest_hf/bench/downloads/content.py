"""The files that are downloaded, and whether what was fetched is the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zest_hf.bench.weights import write_weights
from zest_hf.errors import ZestError

BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class Content:
    """Generated weights in a folder. All files have the same size."""

    folder: Path
    names: Sequence[str]
    size_bytes: int
    """Of one."""
    sha256: Mapping[str, bytes]

    @property
    def total_bytes(self) -> int:
        return self.size_bytes * len(self.names)

    @classmethod
    def write(cls, folder: Path, total_bytes: int, files: int) -> Content:
        folder.mkdir()
        names = [f"model-{number:05}.safetensors" for number in range(files)]
        for seed, name in enumerate(names):
            write_weights(folder / name, total_bytes // files, seed)
        return cls(folder, names, total_bytes // files, {name: digest(folder / name) for name in names})

    def check(self, below: Path) -> None:
        """Whether all files are somewhere below a directory, as they ought to be. Raises ZestError."""
        found = {path.name: path for path in below.rglob("model-*.safetensors")}
        for name, wanted in self.sha256.items():
            if name not in found:
                raise ZestError(f"{name} is missing")
            if digest(found[name]) != wanted:
                raise ZestError(f"{name} is not what it ought to be")


def digest(path: Path) -> bytes:
    """SHA-256 of a file."""
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(BUFFER_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
    return hasher.digest()
