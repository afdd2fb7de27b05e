"""The scan of a cache that was there before: its rate, a second look without a change, what the index takes.

    python tests/bench/scan.py [--megabytes 2048] [--files 1000] [--small 100000]

Three caches in the layout of the Hub: one of large files (bf16 weights), which is in the page cache; one of many files,
looked at again; one of very many tiny ones. Rates are those of one thread, CPU is the process's. The exit code is 1
when a figure is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path

from zest_hf.bench.weights import write_weights
from zest_hf.index import Index
from zest_hf.seed import scan as scanning

LEAST_GB_S, MOST_RESCAN_S, MOST_DISK = 1.5, 1.0, 0.005


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2048, help="of large files (%(default)s)")
    parser.add_argument("--files", type=int, default=1000, help="of 100 kB, looked at again (%(default)s)")
    parser.add_argument("--small", type=int, default=100_000, help="tiny files (%(default)s)")
    parser.add_argument("--dir", type=Path, help="work here (default: a temporary directory)")
    args = parser.parse_args()
    scanning.NOTED_S = 0.0  # all of these files come now
    print(f"load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="zest-bench-", dir=args.dir) as folder:
        checks = [large(Path(folder, "large"), args.megabytes), many(Path(folder, "many"), args.files)]
        checks.append(tiny(Path(folder, "tiny"), args.small))
    print(f"load {os.getloadavg()[0]:.1f}")
    return 0 if all(checks) else 1


def large(work: Path, megabytes: int) -> bool:
    blobs = folders(work)
    for number in range(4):
        write_weights(work / "new", megabytes << 18, number)
        name = sha256(b"%d" % number).hexdigest()
        (work / "new").rename(blobs / name)
    size = megabytes << 20
    with closing(Index(work / "index.sqlite")) as index:
        wall_s, cpu_s = run(work, index, 4)
    rate, disk = size / 1e9 / cpu_s, used(work) / size
    print(f"{size / 1e9:.1f} GB in 4 files: {size / 1e9 / wall_s:.2f} GB/s, {rate:.2f} GB/s of CPU time")
    print(f"  the index is {disk:.3%} of them")
    return rate >= LEAST_GB_S and disk <= MOST_DISK


def many(work: Path, count: int) -> bool:
    blobs = folders(work)
    for _ in range(count):
        data = os.urandom(100_000)
        (blobs / sha256(data).hexdigest()).write_bytes(data)
    with closing(Index(work / "index.sqlite")) as index:
        first_s, _ = run(work, index, count)
        again_s, _ = run(work, index, 0)
    print(f"{count} files: {first_s:.2f} s, looked at again without a change {again_s:.3f} s")
    return again_s <= MOST_RESCAN_S


def tiny(work: Path, count: int) -> bool:
    """As a data set of pictures: a few hundred bytes each, in one repository, with links to them."""
    blobs = folders(work)
    snapshot = blobs.parent / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for number in range(count):
        data = b"%d" % number * 50
        name = sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        (snapshot / f"{number}.png").symlink_to(f"../../blobs/{name}")
    with closing(Index(work / "index.sqlite")) as index:
        first_s, cpu_s = run(work, index, count)
        again_s, _ = run(work, index, 0)
    print(f"{count} tiny files: {first_s:.1f} s ({cpu_s:.1f} s CPU), again {again_s:.1f} s")
    return True


def folders(work: Path) -> Path:
    blobs = work / "hub" / "models--bench--model" / "blobs"
    blobs.mkdir(parents=True)
    return blobs


def run(work: Path, index: Index, expected: int) -> tuple[float, float]:
    """Wall and CPU seconds of one scan, as after a start."""
    scan = scanning.CacheScan(work / "hub", index, threading.Event(), lambda hub, file, file_hash: True)
    wall, cpu = time.monotonic(), time.process_time()
    added = scan.run()
    took = time.monotonic() - wall, time.process_time() - cpu
    if added != expected:
        raise SystemExit(f"{added} files were added, not {expected}")
    return took


def used(work: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in work.glob("index.sqlite*"))


if __name__ == "__main__":
    sys.exit(main())
