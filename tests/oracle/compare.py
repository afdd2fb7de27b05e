"""Our codec and our hub against the JavaScript clients, which share no code with them (`make oracle`).

    python tests/oracle/compare.py DIR      DIR: where oracle.mjs and its node_modules are

Chunk boundaries and all kinds of hashes of made-up content, then files through the local hub: uploaded by us and by
hf_xet, downloaded by @huggingface/hub. The JavaScript chunker has the early rule (RULE_EARLY).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from zest_hf import xet
from zest_hf.hub.process import HubProcess

KEY = xet.XetHash(hashlib.sha256(b"a key").digest())
SIZES = [0, 1, 8191, 8192, 8193, 131_071, 131_072, 131_073, 3_000_000]
REPO = "oracle/files"


def contents() -> Iterator[tuple[str, bytes]]:
    for size in SIZES:
        source = random.Random(size)
        yield f"random-{size}", source.randbytes(size)
        yield f"constant-{size}", b"\x07" * size
        yield f"text-{size}", b"".join(b"line %d of a text\n" % i for i in range(size // 16 + 1))[:size]
        weights = (struct.pack("<f", source.gauss(0, 0.02))[2:] for _ in range(size // 2 + 1))
        yield f"weights-{size}", b"".join(weights)[:size]


def node(work: Path, *arguments: str | Path) -> str:
    done = subprocess.run(["node", "oracle.mjs", *map(str, arguments)], cwd=work, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the oracle failed: {done.stderr.strip()}")
    return done.stdout


def hashes_of(data: bytes) -> dict[str, object]:
    """Our side of the comparison, as oracle.mjs prints it."""
    text = xet.hash_to_text
    pieces = list(xet.chunk(data, xet.RULE_EARLY))
    names = [piece.hash for piece in pieces]
    tree, hasher = xet.Tree(), xet.FileHasher(xet.RULE_EARLY)
    for piece in pieces:
        tree.add(piece.hash, [len(piece)])
        hasher.update(piece.data)
    return {
        "lengths": [len(piece) for piece in pieces],
        "chunks": [text(name) for name in names],
        "keyed": [text(xet.XetHash(xet.keyed_hashes(name, KEY))) for name in names],
        "xorb": text(xet.XetHash(tree.root())) if names else None,
        "file": hasher.hexdigest() if names else None,
        "verification": text(xet.XetHash(xet.verification_hash(b"".join(names)))) if names else None,
    }


def compare_hashes(work: Path, folder: Path) -> Iterator[tuple[str, bool]]:
    made = dict(contents())
    for name, data in made.items():
        (folder / name).write_bytes(data)
    lines = node(work, "hash", xet.hash_to_text(KEY), *(folder / name for name in made)).splitlines()
    for (name, data), line in zip(made.items(), lines, strict=True):
        yield f"hashes of {name}", json.loads(line) == hashes_of(data)


def compare_transfers(work: Path, folder: Path) -> Iterator[tuple[str, bool]]:
    files = {"noise.bin": 3_000_000, "weights.safetensors": 3_000_000, "small.bin": 20_000}
    for name, size in files.items():
        (folder / name).write_bytes(dict(contents())["weights-3000000"] if "weights" in name else os.urandom(size))
    with HubProcess(folder / "hub") as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_any", "HF_HOME": str(folder / "home")}
        bin_folder = Path(sys.executable).parent

        def run(*command: str | Path) -> None:
            subprocess.run([str(part) for part in command], env=environment, check=True, capture_output=True)

        for name in files:
            run(bin_folder / "zest", "xet", "upload", folder / name, "--repo", REPO)
            run(bin_folder / "hf", "upload", f"{REPO}-hf", folder / name, name)
            for repo in (REPO, f"{REPO}-hf"):
                node(work, "download", hub.endpoint, repo, name, folder / "out")
                same = (folder / "out").read_bytes() == (folder / name).read_bytes()
                yield f"@huggingface/hub downloads {repo}/{name}", same


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write("usage: compare.py DIR\n")
        return 2
    work = Path(sys.argv[1]).resolve()
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="zest-oracle-") as folder:
        for check in (compare_hashes, compare_transfers):
            for what, right in check(work, Path(folder)):
                passed, failed = passed + right, failed + (not right)
                if not right:
                    print(f"DIFFERENT: {what}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
