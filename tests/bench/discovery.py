"""Figures of discovery: a seeder that is found in many swarms and does nothing, and how fast a DHT takes its names.

    python tests/bench/discovery.py [FILES] [XORBS]

The DHT is one of independent nodes on this machine (PyPI's libtorrent), the tracker a scripted one.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from swarm import dht_nodes
from swarm import wire_peer as wire
from swarm.node import Node
from swarm.trackers import HttpTracker, peers_answer
from swarm.wire_peer import WirePeer

from zest_hf._native.events import Kind
from zest_hf.core.ids import XetHash

IDLE_S = 10.0


def memory_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def idle_percent(node: Node) -> float:
    """CPU time of this process, most of which is the session's."""
    before, begun_s = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    while time.monotonic() - begun_s < IDLE_S:
        node.pump(IDLE_S)
        node.events.clear()
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return 100 * spent_s / (time.monotonic() - begun_s)


def main(files: int, xorbs: int) -> None:
    empty_mb = memory_mb()
    names = [XetHash(os.urandom(32)) for _ in range(xorbs)]
    with dht_nodes.running() as dht, HttpTracker(lambda _: peers_answer([])) as tracker:
        with Node(lsd=True, dht=True, dht_bootstrap=dht.bootstrap, trackers=[tracker.url]) as node:
            print(f"a session with nothing: {memory_mb() - empty_mb:.1f} MB, {idle_percent(node):.2f} % of a core")
            begun_s = time.monotonic()
            for _ in range(files):
                node.session.join(Kind.FILE, XetHash(os.urandom(32)), announce=True)
            for name in names:
                node.session.join(Kind.XORB, name, announce=True)
            print(f"{files} file swarms and {xorbs} xorb swarms joined in {time.monotonic() - begun_s:.3f} s")
            node.until(lambda: len(tracker.announces) >= files, deadline_s=300)
            print(f"all told to the tracker after {time.monotonic() - begun_s:.1f} s")
            # Files first, then xorbs, each in the order of their names' deadlines: the last of a sample is the measure.
            left_s = (files + xorbs) / 20 - (time.monotonic() - begun_s)
            print(f"announcing to the DHT: {idle_percent(node):.2f} % of a core")
            while left_s > 0 and time.monotonic() - begun_s < (files + xorbs) / 20 + 5:
                node.pump(1)
            sample = [wire.xorb_swarm(name) for name in names[:: max(1, xorbs // 100)]]
            found = dht.found(sample)
            print(f"in the DHT after {time.monotonic() - begun_s:.0f} s: {found} of {len(sample)} xorbs looked up")
            grown_mb = memory_mb() - empty_mb
            idle = idle_percent(node)
            print(f"then: {grown_mb:.1f} MB over the {empty_mb:.1f} MB of Python, {idle:.2f} % of a core")
            peers = [WirePeer.dial(node.port, host=f"127.0.1.{number // 50 + 1}") for number in range(200)]
            node.until(lambda: node.session.stats().peers_ready == 200)
            node.pump(1)
            print(f"with 200 idle peers: {memory_mb() - empty_mb:.1f} MB, {idle_percent(node):.2f} % of a core")
            for peer in peers:
                peer.close()
            begun_s = time.monotonic()
        print(f"closed in {time.monotonic() - begun_s:.2f} s")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3])) if len(sys.argv) > 2 else main(500, 2500)
