"""How long it takes until a peer's first chunk is in place, by how the peer was found."""

from __future__ import annotations

import socket
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from hosts import SWITCH
from machines import eventually
from table import Figure
from world import World

TRACKER_PORT = 6969
CDN_BYTES_S = 5e6


def measure(world: World, runs: int) -> list[Figure]:
    # A CDN in the next room would be through before anybody is found.
    world.hub.fault("cdn", "rate", bytes_per_second=CDN_BYTES_S)
    figures = []
    with world.machine("owner").seeder("--no-scan") as seeder:
        figures.append(_figure(world, "given", 0.150, runs, ZEST_PEERS=seeder.address))
    with world.machine("owner").seeder("--no-scan", ZEST_LSD="on"):
        figures.append(_figure(world, "by LSD", 0.500, runs, ZEST_LSD="on"))
    with _tracker(world) as url, world.machine("owner").seeder("--no-scan", ZEST_TRACKERS=url):
        figures.append(_figure(world, "by tracker", 1.0, runs, ZEST_TRACKERS=url))
    return figures


def _figure(world: World, name: str, target_s: float, runs: int, **environ: str) -> Figure:
    machine = world.machine(f"first {name}")
    shown = [machine.download(**environ) for _ in range(runs)]
    taken = [each["first_seconds"] for each in shown]
    if None in taken:
        return Figure(name, None, target_s * 1000, "ms", note=f"in {taken.count(None)} of {runs} runs no peer gave any")
    values = [1000 * value for value in taken]
    since_call = statistics.median(1000 * each["first_since_call_seconds"] for each in shown)
    note = f"median of {runs}: {min(values):.0f}..{max(values):.0f}; with the Hub's own questions {since_call:.0f}"
    return Figure(name, statistics.median(values), target_s * 1000, "ms", note=note)


@contextmanager
def _tracker(world: World) -> Iterator[str]:
    """A real opentracker, that tracks what it is told to: the file's swarm."""
    folder = world.root / "tracker"
    folder.mkdir()
    (folder / "allowed").write_text(f"{world.info_hash.hex()}\n")
    address = ["-i", SWITCH, "-p", str(TRACKER_PORT), "-P", str(TRACKER_PORT)]
    process = subprocess.Popen(
        ["opentracker", *address, "-d", str(folder), "-w", "allowed"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(_listening, "opentracker listens")
        yield f"http://{SWITCH}:{TRACKER_PORT}/announce"
    finally:
        process.kill()
        process.wait()


def _listening() -> bool:
    with socket.socket() as caller:
        return caller.connect_ex((SWITCH, TRACKER_PORT)) == 0
