"""`--synthetic`: what the native kernels do on one core, without a network: MB of file per second of processor time.

Processor time and not the clock's: it is the same whoever else uses the machine, but for the caches. Of several runs
the median; the first is thrown away.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zest_hf import xet
from zest_hf._native import codec
from zest_hf.bench.weights import write_weights
from zest_hf.errors import ProofError
from zest_hf.terminal import columns

MOST_DECODED_BYTES = 60 << 20
"""What fits into a xorb."""
FED_BYTES = 1 << 20
SCHEMES = {"stored": xet.SCHEME_NONE, "bg4-LZ4": xet.SCHEME_BG4_LZ4, "bit planes": xet.SCHEME_BITSLICE_LZ4}
"""Those that weights are stored in: plain LZ4 does not shrink them."""


@dataclass(frozen=True)
class Kernel:
    """MB/s on one core."""

    name: str
    median: float
    low: float
    high: float


def rates(size_bytes: int, runs: int, job: Callable[[], object]) -> tuple[float, float, float]:
    """Median, least and most MB/s of processor time."""
    found = []
    for _ in range(runs + 1):
        began_s = time.process_time()
        job()
        found.append(size_bytes / 1e6 / max(time.process_time() - began_s, 1e-9))
    counted = found[1:]
    return float(statistics.median(counted)), min(counted), max(counted)


def kernels(path: Path, size_bytes: int, runs: int) -> Iterator[Kernel]:
    """Writes a file of weights, and measures each kernel on it."""
    write_weights(path, size_bytes, 1)
    content = path.read_bytes()

    def cut() -> None:
        chunker = codec.Chunker()
        for at in range(0, size_bytes, FED_BYTES):
            chunker.feed(memoryview(content)[at : at + FED_BYTES])
        chunker.finish()

    yield Kernel("cut into chunks", *rates(size_bytes, runs, cut))
    yield Kernel("cut a file into chunks and hash it", *rates(size_bytes, runs, lambda: xet.hash_file(path)))
    chunks = list(xet.chunk(content[:MOST_DECODED_BYTES]))
    pieces = [chunk.data for chunk in chunks]
    packed_bytes, wanted = sum(map(len, pieces)), b"".join(map(codec.chunk_hash, pieces))
    out = bytearray(packed_bytes)
    for name, scheme in SCHEMES.items():
        packed = codec.pack_xorb(pieces, scheme)

        def decode(packed: bytes = packed) -> None:
            codec.unpack_into(packed, len(pieces), out, hashed=False)

        def prove(packed: bytes = packed) -> None:
            if codec.unpack_into(packed, len(pieces), out) != wanted:
                raise ProofError("a chunk was decoded to something else")

        yield Kernel(f"decode {name}", *rates(packed_bytes, runs, decode))
        yield Kernel(f"decode {name}, every chunk proved", *rates(packed_bytes, runs, prove))
    yield Kernel("pack, best scheme", *rates(packed_bytes, runs, lambda: codec.pack_xorb(pieces)))


def lines(found: list[Kernel], size_bytes: int, runs: int) -> Iterator[str]:
    yield f"{size_bytes / 1e6:.0f} MB of bf16 weights, medians of {runs} runs; MB per second of processor time"
    yield ""
    rows = [[each.name, f"{each.median:.0f}", f"{each.low:.0f}..{each.high:.0f}"] for each in found]
    yield from columns(("one core", "MB/s", "(runs)"), rows)


def as_json(found: list[Kernel]) -> dict[str, dict[str, float]]:
    return {each.name: {"median": each.median, "low": each.low, "high": each.high} for each in found}


