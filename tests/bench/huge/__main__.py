"""One very large file by hf_xet and by zest_hf: time, and the memory that each needs for it.

    PYTHONPATH=tests python tests/bench/huge [--gigabytes 20] [--distinct 4] [--dir DIR]

The file repeats so many gigabytes of random xorbs until it has its size, so that neither the Hub nor the upload needs
all of it on the disk; each repetition is fetched or copied as the client likes. Each client runs once, in an empty
cache, and what it has made is compared by its SHA-256 and removed. The exit code is 1 when that is wrong, or zest_hf
needs more than 300 MB.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path

from hub.wire import Client, Packed, build_shard, pack

from zest_hf._native import codec
from zest_hf.bench.downloads.content import digest
from zest_hf.bench.downloads.world import REPO, SNAPSHOT, environment, ours
from zest_hf.core.ids import hash_to_text
from zest_hf.core.manifest import Manifest
from zest_hf.hub.process import HubProcess

XORB_BYTES = 60_000_000
MOST_BYTES = 300_000_000
HOST = "127.0.0.1"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=20, help="size of the file (%(default)s)")
    parser.add_argument("--distinct", type=float, default=4, help="gigabytes that differ (%(default)s)")
    parser.add_argument("--dir", type=Path, help="work below this directory (the system's for what is temporary)")
    args = parser.parse_args()
    failed = False
    with (
        tempfile.TemporaryDirectory(prefix="zest-bench-", dir=args.dir) as folder,
        HubProcess(Path(folder) / "hub") as hub,
    ):
        size, sha256 = publish(hub, int(args.gigabytes * 1e9), int(args.distinct * 1e9))
        print(f"{size / 1e9:.1f} GB")
        for name, settings in (("hf_xet", {}), ("zest_hf", ours(HOST))):
            into = Path(folder) / name
            hub.reset_stats()
            run = subprocess.run(
                [sys.executable, "-c", SNAPSHOT, REPO],
                env={**environment(hub.endpoint), **settings, "HF_HOME": str(into)},
                stdout=subprocess.PIPE,
                check=True,
            )
            said = json.loads(run.stdout)
            is_right = [digest(path) for path in into.rglob("model.bin")] == [sha256]
            shutil.rmtree(into)
            failed |= not is_right or (name == "zest_hf" and said["peak_bytes"] > MOST_BYTES)
            took_s, peak_mb, cdn_gb = said["call_s"], said["peak_bytes"] / 1e6, hub.stats()["cdn_bytes"] / 1e9
            print(
                f"{name:<8} {took_s:7.1f} s {size / took_s / 1e6:6.0f} MB/s {peak_mb:6.0f} MB of memory"
                f" {cdn_gb:6.2f} GB from the CDN{'' if is_right else '; WRONG CONTENT'}"
            )
    return int(failed)


def publish(hub: HubProcess, size_bytes: int, distinct_bytes: int) -> tuple[int, bytes]:
    """The file's size, a whole number of xorbs, and its SHA-256."""
    client = Client(hub.endpoint, REPO)
    client.create()
    count = max(1, size_bytes // XORB_BYTES)
    distinct = max(1, min(count, distinct_bytes // XORB_BYTES))
    known: list[tuple[Packed, bytes]] = []
    for number in range(distinct):
        xorb = content_of(number)
        answer = client.post(f"/v1/xorbs/default/{hash_to_text(xorb.xorb)}", xorb.body)
        assert answer.status_code == 200, answer.text
        known.append((Packed(b"", b"", xorb.hashes, xorb.lengths), codec.verification_hash(xorb.hashes)))
    sequence = list(itertools.islice(itertools.cycle(known), count))
    terms = [(xorb.xorb, 0, len(xorb.lengths), sum(xorb.lengths), proof) for xorb, proof in sequence]
    manifest = Manifest.join(Manifest(xorb.hashes, xorb.lengths) for xorb, _ in sequence)
    hasher = hashlib.sha256()
    for content in contents(count, distinct):
        hasher.update(content)
    xorbs: list[tuple[bytes, bytes, array[int]]] = [(xorb.xorb, xorb.hashes, xorb.lengths) for xorb, _ in known]
    answer = client.post("/v1/shards", build_shard([(manifest.file_hash(), terms, hasher.hexdigest())], xorbs))
    assert answer.status_code == 200, answer.text
    assert client.commit("model.bin", hasher.hexdigest(), manifest.size_bytes).status_code == 200
    return manifest.size_bytes, hasher.digest()


def content_of(number: int) -> Packed:
    return pack(random.Random(number).randbytes(XORB_BYTES))


def contents(count: int, distinct: int) -> Iterator[bytes]:
    """Made again instead of kept: the distinct part may be larger than the memory."""
    return (random.Random(number % distinct).randbytes(XORB_BYTES) for number in range(count))


if __name__ == "__main__":
    sys.exit(main())
