"""Figures of the swarm, on hosts of a network of its own. Needs root.

PYTHONPATH=tests:tests/bench tests/private-network python tests/bench/swarm [--megabytes 256] [links first idle keyed]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import first
import idle
import keyed
import links
from table import show
from world import world

PARTS = ("links", "first", "idle", "keyed")
FIRST_MEGABYTES = 64
KEYED_MEGABYTES = 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=256, help="size of the file behind slow links (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="downloads of which a median is taken (%(default)s)")
    parser.add_argument("--dir", type=Path, help="work here (default: a temporary directory)")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (all)")
    args = parser.parse_args()
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no {min(unknown)}: the parts are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(prefix="zest-bench-", dir=args.dir) as folder:
        for part in args.parts or PARTS:
            run(part, Path(folder) / part, args.megabytes, args.runs)
    return 0


def run(part: str, root: Path, megabytes: int, runs: int) -> None:
    root.mkdir()
    if part == "links":
        title = f"{megabytes} MiB from {links.SEEDERS} peers, each behind {links.MEGABITS_S} Mbit/s"
        with world(root, megabytes) as it:
            show(title, links.measure(it))
    elif part == "first":
        with world(root, FIRST_MEGABYTES) as it:
            show("The first chunk from a peer that is", first.measure(it, runs))
    elif part == "idle":
        show(f"A seeder of {idle.XORBS} xorbs that nobody asks", idle.measure(root))
    else:
        with world(root, KEYED_MEGABYTES) as it:
            show(f"{KEYED_MEGABYTES} MiB from one peer", keyed.measure(it, runs))
    shutil.rmtree(root)


if __name__ == "__main__":
    sys.exit(main())
