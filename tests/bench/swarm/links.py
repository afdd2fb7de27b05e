"""One file from four peers, each behind a slow link."""

from __future__ import annotations

from contextlib import ExitStack

from table import Figure
from world import World

SEEDERS = 4
MEGABITS_S = 100
SHARE = 0.9


def measure(world: World) -> list[Figure]:
    bound = SEEDERS * MEGABITS_S / 8
    with ExitStack() as stack:
        addresses = []
        for _ in range(SEEDERS):
            machine = world.machine("owner")
            addresses.append(stack.enter_context(machine.seeder("--no-scan")).address)
            machine.host.limit(MEGABITS_S)
        shown = world.machine("links").download(ZEST_PEERS=",".join(addresses))
    rates = {name: world.size_bytes / 1e6 / shown[f"{name}seconds"] for name in ("", "engine_")}
    note = f"{shown['peer'] / world.size_bytes:.0%} from peers, {shown['cdn'] / world.size_bytes:.0%} from the CDN"
    return [
        Figure("whole call", rates[""], SHARE * bound, "MB/s", at_least=True, note=note),
        Figure("engine alone", rates["engine_"], SHARE * bound, "MB/s", at_least=True),
    ]
