"""One peer and the CDN behind links of all kinds: how long it takes, and what the CDN sends. Needs root.

PYTHONPATH=tests:tests/bench/swarm tests/private-network python tests/bench/mixed

The peer, the Hub and the host that downloads have links of their own. What they carry decides who could give most:
the aim is never to take longer than hf_xet does, to fill the host's link where both together can, and to leave the
CDN alone where the peer can by itself.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import crowds
from crowds import SNAPSHOT, HostMachine, Site, consoles, shown, together
from table import Figure, show

REPO = "org/model"
MB = 1_000_000
LISTEN = "0.0.0.0:6881"


@dataclass(frozen=True)
class Case:
    """Links in Mbit/s. ``origin_share``: of the file, what the CDN may send at most."""

    peer: float
    origin: float
    own: float
    origin_share: float

    def bound_s(self, size_bytes: int) -> float:
        """With all links full from the beginning; 5 % of a link is not data."""
        return size_bytes * 8 / (0.95e6 * min(self.own, self.peer + self.origin))


CASES = [
    # The host's own link is what both come over: the CDN adds nothing.
    Case(500, 80, 60, 0.2),
    Case(500, 400, 60, 0.2),
    # Each of them is slower than that link.
    Case(60, 80, 500, 0.7),
    Case(60, 20, 500, 0.4),
    Case(100, 200, 500, 0.75),
    # The peer is quicker than the CDN.
    Case(300, 80, 500, 0.2),
]


def seconds(site: Site, machine: HostMachine, **environ: str | None) -> float:
    """A download to an empty disk, that is checked."""
    site.fresh()
    with consoles([machine], REPO, **environ) as one:
        began_s = time.monotonic()
        code = SNAPSHOT if environ.get("HF_HUB_ENABLE_ZEST", "1") else "path = hub.snapshot_download(REPO)\nshow()"
        shown(together(one, code))
        took_s = time.monotonic() - began_s
    site.assert_right(machine, REPO)
    return took_s


def measure(case: Case, site: Site, peer: HostMachine, size_bytes: int, rounds: int) -> None:
    given = {"ZEST_LSD": "off", "ZEST_PEERS": f"{peer.host.address}:6881"}
    ways: dict[str, dict[str, str | None]] = {"hf_xet": {"HF_HUB_ENABLE_ZEST": None}, "given": given, "found": {}}
    took: dict[str, list[float]] = {way: [] for way in ways}
    sent: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, environ in ways.items():
            _, machine = site.machines(2, mbit=case.own)
            peer.host.limit(case.peer)
            took_s = seconds(site, machine, **environ)
            if number:
                took[way].append(took_s)
                sent[way].append(site.origin_bytes() / size_bytes)
    median = {way: statistics.median(times) for way, times in took.items()}
    rows = []
    for way in ("given", "found"):
        ratio = median[way] / median["hf_xet"]
        note = f"hf_xet {median['hf_xet']:.2f} s, {ratio:.2f}x; full links {case.bound_s(size_bytes):.2f} s"
        rows.append(Figure(f"a peer that is {way}", median[way], 1.03 * median["hf_xet"], "s", note=note))
        rows.append(Figure("... sent by the CDN", statistics.median(sent[way]), case.origin_share, "of it"))
    show(f"peer {case.peer:g}, origin {case.origin:g}, own link {case.own:g} Mbit/s", rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100, help="size of the file (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="that count; one more comes first (%(default)s)")
    args = parser.parse_args()
    size_bytes = args.megabytes * MB
    with tempfile.TemporaryDirectory(prefix="zest-mixed-") as folder:
        root = Path(folder)
        file = root / "model.bin"
        file.write_bytes(random.Random("mixed").randbytes(size_bytes))
        for origin in sorted({case.origin for case in CASES}):
            (root / f"{origin:g}").mkdir()
            with crowds.site(root / f"{origin:g}", origin_mbit=origin) as site:
                site.upload({REPO: [file]})
                (peer,) = site.machines(1, mbit=1000)
                with consoles([peer], REPO, ZEST_LISTEN=LISTEN) as holder:
                    shown(together(holder, SNAPSHOT))
                    for case in CASES:
                        if case.origin == origin:
                            measure(case, site, peer, size_bytes, args.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
