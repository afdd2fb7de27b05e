"""Figures of the codec, each beside the bar it has to pass, and beside hf_xet's where that does the same.

    python tests/bench/xet.py [--megabytes 256] [--runs 5] [--dir DIR] [--json FILE]

Bytes are unpacked ones, a GB is 10^9. A figure is the best of the runs, since everything else on the machine can only
make it worse; what is compared is measured in turn. Files are in the page cache. For whole downloads see
`zest bench download`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import hf_xet

from zest_hf import xet
from zest_hf._native import codec
from zest_hf.bench.weights import write_weights
from zest_hf.hub.process import HubProcess

SPARSE_BYTES = 10**10
HASH_AND_PEAK = """
import sys
from zest_hf.cli import main
assert main(["xet", "hash", sys.argv[1]]) == 0
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")))
"""


class Report:
    """Prints lines as they come and keeps them."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self.missed: list[str] = []

    def line(
        self, name: str, value: float, unit: str, *, least: float | None = None, most: float | None = None
    ) -> None:
        good = (least is None or value >= least) and (most is None or value <= most)
        bar = f"bar {least:g}" if least is not None else f"at most {most:g}" if most is not None else ""
        print(f"{name:<52}{value:>9.2f} {unit:<6}{bar:<14}{'' if good else 'MISSED'}", flush=True)
        self.figures[name] = value
        if not good:
            self.missed.append(name)


def best(runs: int, *jobs: Callable[[], object]) -> list[float]:
    """The least seconds of each job, over rounds in which all of them run."""
    least = [float("inf")] * len(jobs)
    for _ in range(runs):
        for index, job in enumerate(jobs):
            began = time.perf_counter()
            job()
            least[index] = min(least[index], time.perf_counter() - began)
    return least


def boundaries(report: Report, path: Path, runs: int) -> None:
    data = path.read_bytes()
    view = memoryview(data)

    def run() -> None:
        chunker = codec.Chunker()
        for at in range(0, len(view), 1 << 20):
            chunker.feed(view[at : at + (1 << 20)])

    (taken,) = best(runs, run)
    report.line("chunk boundaries, one core", len(data) / taken / 1e9, "GB/s", least=2.5)


def cpu_s(path: Path, threads: int) -> float:
    """The least processor time: what a busy machine does not hide."""
    least = float("inf")
    for _ in range(3):
        began = time.process_time()
        xet.hash_file(path, threads=threads)
        least = min(least, time.process_time() - began)
    return least


def files(report: Report, path: Path, runs: int) -> None:
    size = path.stat().st_size / 1e9
    one, two, theirs = best(
        runs,
        lambda: xet.hash_file(path, threads=1),
        lambda: xet.hash_file(path, threads=2),
        lambda: hf_xet.hash_files([str(path)]),
    )
    assert xet.hash_to_text(xet.hash_file(path).file_hash()) == hf_xet.hash_files([str(path)])[0].hash
    report.line("chunk and hash a file, one core", size / one, "GB/s", least=1.6)
    report.line("chunk and hash a file, two cores", size / two, "GB/s")
    report.line("  two cores against one", one / two, "x", least=1.8)
    report.line("  processor time of two cores against one", cpu_s(path, 2) / cpu_s(path, 1), "x")
    report.line("hf_xet.hash_files (all cores it takes)", size / theirs, "GB/s")
    report.line("  ours on one core against it", theirs / one, "x")
    report.line("  ours on two cores against it", theirs / two, "x")


def decoding(report: Report, path: Path, runs: int) -> None:
    with path.open("rb") as file:
        data = file.read(64 << 20)
    pieces = [piece.data for piece in xet.chunk(data)][:-1]
    size = sum(map(len, pieces))
    out = bytearray(size)
    schemes = [
        ("bg4-LZ4", xet.SCHEME_BG4_LZ4, 2.0),
        ("stored", xet.SCHEME_NONE, 5.0),
        ("bit planes", xet.SCHEME_BITSLICE_LZ4, None),
    ]
    for name, scheme, bar in schemes:
        packed = xet.pack_xorb(pieces, scheme)
        assert scheme in xet.chunk_table(packed).schemes
        plain, hashed = best(
            runs,
            lambda packed=packed: codec.unpack_into(packed, len(pieces), out, hashed=False),  # type: ignore[misc]
            lambda packed=packed: codec.unpack_into(packed, len(pieces), out),  # type: ignore[misc]
        )
        report.line(f"decode bf16, {name}, without hashing", size / plain / 1e9, "GB/s", least=bar)
        report.line(f"decode bf16, {name}, hashed", size / hashed / 1e9, "GB/s")
    for name, scheme in {"choosing": None, "bg4-LZ4": xet.SCHEME_BG4_LZ4}.items():
        (taken,) = best(2, lambda scheme=scheme: codec.pack_xorb(pieces, scheme))  # type: ignore[misc]
        report.line(f"pack bf16, {name}, one core", size / taken / 1e9, "GB/s")


def uploads(report: Report, path: Path, runs: int, work: Path) -> None:
    """Whole processes, each to a hub that has nothing yet."""
    bin_folder = Path(sys.executable).parent
    taken: dict[str, list[float]] = {"zest xet upload": [], "hf upload": []}
    for number in range(runs):
        for name, times in taken.items():
            with HubProcess(work / f"hub-{name.split()[0]}-{number}") as hub:
                kept = {k: v for k, v in os.environ.items() if not k.startswith(("ZEST_", "HF_"))}
                env = {**kept, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_any", "HF_HOME": str(work / "home")}
                command = [bin_folder / "hf", "upload", "bench/one", path]
                if name.startswith("zest"):
                    command = [bin_folder / "zest", "xet", "upload", path, "--repo", "bench/one"]
                began = time.perf_counter()
                subprocess.run(list(map(str, command)), env=env, check=True, capture_output=True)
                times.append(time.perf_counter() - began)
    ours, theirs = (min(times) for times in taken.values())
    report.line("zest xet upload, whole process", path.stat().st_size / ours / 1e6, "MB/s")
    report.line("  against hf upload", theirs / ours, "x")


def sparse(report: Report, work: Path) -> None:
    path = work / "sparse"
    with path.open("wb") as file:
        file.truncate(SPARSE_BYTES)
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", HASH_AND_PEAK, str(path)], check=True, capture_output=True, text=True)
    taken = time.perf_counter() - began
    path.unlink()
    report.line("zest xet hash of a sparse file of 10 GB", SPARSE_BYTES / taken / 1e9, "GB/s")
    report.line("  its peak memory", int(done.stdout.split()[-1]) / 1024, "MiB", most=150)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=256, help="size of the file (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="of each figure (%(default)s)")
    parser.add_argument("--dir", type=Path, help="work here (default: a temporary directory)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory(prefix="zest-bench-", dir=args.dir) as folder:
        path = Path(folder) / "weights.safetensors"
        write_weights(path, args.megabytes << 20, 1)
        print(f"{os.cpu_count()} cores, {args.megabytes << 20} bytes of bf16 weights, best of {args.runs} runs")
        boundaries(report, path, args.runs)
        files(report, path, args.runs)
        decoding(report, path, args.runs)
        uploads(report, path, min(args.runs, 2), Path(folder))
        sparse(report, Path(folder))
    if args.json is not None:
        args.json.write_text(json.dumps(report.figures, indent=1))
    if report.missed:
        print(f"missed: {', '.join(report.missed)} (on a machine that does something else, measure again)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
