"""Content of the kind that models are made of, without a model: bf16 numbers around zero, never twice the same."""

from __future__ import annotations

import functools
import random
import struct
from pathlib import Path

BLOCK_BYTES = 4 << 20


def write_weights(path: Path, size_bytes: int, seed: int) -> None:
    """A file of bf16 numbers (normal, sigma 0.02); compresses as weights do, and no two files share a chunk."""
    source = random.Random(seed)
    with path.open("wb") as file:
        for at in range(0, size_bytes, BLOCK_BYTES):
            file.write(_block(min(BLOCK_BYTES, size_bytes - at), source))


def _block(size_bytes: int, source: random.Random) -> bytes:
    # The low seven bits of each number are its mantissa, which is as good as random in weights too. So that of each
    # block is drawn anew, while signs and exponents are always the same: to sample all of them would take minutes.
    pattern, mantissas = _patterns(size_bytes)
    noise = int.from_bytes(source.randbytes(size_bytes), "little") & mantissas
    return (pattern ^ noise).to_bytes(size_bytes, "little")


@functools.lru_cache(maxsize=4)
def _patterns(size_bytes: int) -> tuple[int, int]:
    """The numbers of a block, and which of their bits are drawn anew."""
    mantissas = (b"\x7f\x00" * (size_bytes // 2 + 1))[:size_bytes]
    return int.from_bytes(_samples()[:size_bytes], "little"), int.from_bytes(mantissas, "little")


@functools.lru_cache(maxsize=1)
def _samples() -> bytes:
    source = random.Random(0)
    # The upper half of a float32 is a bf16.
    return b"".join(struct.pack("<f", source.gauss(0.0, 0.02))[2:] for _ in range(BLOCK_BYTES // 2))
