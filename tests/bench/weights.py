"""Content of the kind that models are made of, without a model: bf16 numbers around zero, never twice the same."""

from __future__ import annotations

import random
import struct
from pathlib import Path

BLOCK_BYTES = 4 << 20


def write_weights(path: Path, size_bytes: int, seed: int) -> None:
    """A file of bf16 numbers (normal, sigma 0.02); compresses as weights do, and no two files share a chunk."""
    source = random.Random(seed)
    # The upper half of a float32 is a bf16. Sampling all of them would take minutes: one block is sampled, and the
    # mantissas of each further one are drawn anew.
    samples = (source.gauss(0.0, 0.02) for _ in range(BLOCK_BYTES // 2))
    block = b"".join(struct.pack("<f", value)[2:] for value in samples)
    pattern = int.from_bytes(block, "little")
    mantissas = int.from_bytes(b"\x7f\x00" * (BLOCK_BYTES // 2), "little")
    with path.open("wb") as file:
        left = size_bytes
        while left > 0:
            noise = int.from_bytes(source.randbytes(BLOCK_BYTES), "little") & mantissas
            file.write((pattern ^ noise).to_bytes(BLOCK_BYTES, "little")[:left])
            left -= BLOCK_BYTES
