"""What encryption costs: the same file from one session to another over loopback, in the clear and in a keyed swarm.

    python tests/bench/keyed.py [--size-mb 1024] [--rounds 3] [--dir /dev/shm]

Seeder and downloader are processes of their own. Every chunk is proved and written. Prints a table: MB/s (best and
median of the rounds) and the CPU seconds per GB of each side.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path

from zest_hf._native import codec
from zest_hf._native.events import Kind, PeerReady, PieceEnd
from zest_hf._native.session import Session
from zest_hf._native.writable_file import WritableFile
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest

CHUNK_BYTES = 65536
PIECE_CHUNKS = 1024
PIECES_OPEN = 4
KEY = b"a key for the benchmark, 32 byte"


def make(path: Path, size_bytes: int) -> None:
    """Random bytes, written a MiB at a time; each begins with its number."""
    block = os.urandom(1 << 20)
    with path.open("wb") as out:
        for number in range(size_bytes >> 20):
            out.write(number.to_bytes(8, "big") + block[8:])


def manifest_of(path: Path) -> Manifest:
    hashes = bytearray()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            hashes += codec.chunk_hash(chunk)
    count = len(hashes) // 32
    return Manifest(bytes(hashes), array("I", [CHUNK_BYTES]) * count)


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def seed(path: Path, manifest: Manifest, key: bytes | None) -> None:
    """Says its port, seeds until its standard input ends, then says what it used."""
    file = XetHash(codec.file_hash(manifest.hashes, manifest.lengths))
    session = Session(node_id=os.urandom(20), listen_host="127.0.0.1", swarm_key=key, scratch_dir=path.parent)
    stat = path.stat()
    session.share(str(path), stat.st_size, stat.st_mtime_ns, file, manifest, ())
    before_s = cpu_s()
    print(session.port, flush=True)
    sys.stdin.read()
    print(cpu_s() - before_s, flush=True)
    session.close()


def download(target: Path, manifest: Manifest, port: int, key: bytes | None) -> tuple[float, float]:
    """(seconds, CPU seconds)"""
    file = XetHash(codec.file_hash(manifest.hashes, manifest.lengths))
    session = Session(node_id=os.urandom(20), listen_host="127.0.0.1", swarm_key=key)
    session.dial("127.0.0.1", port, 1)
    peer = 0
    while not peer:
        peer = next((event.peer for event in session.events(5.0) if isinstance(event, PeerReady)), 0)
    # Made and written before the clock runs, so that both ways write to pages that are there.
    with target.open("r+b") as out:
        writable = WritableFile(out.fileno(), manifest)
        began_s, cpu_before_s = time.monotonic(), cpu_s()
        todo = list(range(0, len(manifest), PIECE_CHUNKS))
        running = 0
        while todo or running:
            while todo and running < PIECES_OPEN:
                first = todo.pop(0)
                count = min(PIECE_CHUNKS, len(manifest) - first)
                session.ask_piece(100 + first, peer, writable, Kind.FILE, file, first, first, count, 30.0)
                running += 1
            for event in session.events(10.0):
                if isinstance(event, PieceEnd):
                    assert event.outcome == 0, event
                    running -= 1
        took = time.monotonic() - began_s, cpu_s() - cpu_before_s
        writable.close()
    session.close()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mb", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--seed", nargs=2, metavar=("FILE", "MODE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seed:
        path = Path(options.seed[0])
        return seed(path, manifest_of(path), KEY if options.seed[1] == "keyed" else None)

    size_gb = options.size_mb / 1024 * 1.073741824
    runs: dict[str, list[tuple[float, float, float]]] = {"clear": [], "keyed": []}
    with tempfile.TemporaryDirectory(dir=options.dir) as scratch:
        source, target = Path(scratch, "source"), Path(scratch, "target")
        make(source, options.size_mb << 20)
        target.write_bytes(b"")
        with target.open("wb") as out:
            os.posix_fallocate(out.fileno(), 0, source.stat().st_size)
        manifest = manifest_of(source)
        for _ in range(options.rounds):
            for mode, done in runs.items():
                with subprocess.Popen(
                    [sys.executable, __file__, "--seed", str(source), mode],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                ) as seeder:
                    assert seeder.stdin and seeder.stdout
                    port = int(seeder.stdout.readline())
                    took_s, used_s = download(target, manifest, port, KEY if mode == "keyed" else None)
                    seeder.stdin.close()
                    done.append((took_s, used_s, float(seeder.stdout.readline())))
                assert manifest_of(target) == manifest
    print("mode    MB/s best  median   CPU s/GB downloader  seeder")
    for mode, done in runs.items():
        rates = [size_gb * 1000 / took_s for took_s, _, _ in done]
        mine, theirs = (statistics.median(run[i] for run in done) / size_gb for i in (1, 2))
        print(f"{mode:7} {max(rates):9.0f} {statistics.median(rates):7.0f} {mine:21.2f} {theirs:7.2f}")
    best = {mode: min(took_s for took_s, _, _ in done) for mode, done in runs.items()}
    print(f"keyed / clear: {best['clear'] / best['keyed']:.2f} of the best rounds")


if __name__ == "__main__":
    main()
