"""The same download from one peer in clear and in a swarm with a key."""

from __future__ import annotations

import statistics

from table import Figure
from world import World

SHARE = 0.7
KEY = "a secret of this benchmark"


def measure(world: World, runs: int) -> list[Figure]:
    """Rates by turns, so that both see the same machine. The first round is thrown away."""
    taken: dict[str | None, list[float]] = {None: [], KEY: []}
    downloader = world.machine("keyed")
    with (
        world.machine("owner").seeder("--no-scan") as open_seeder,
        world.machine("owner").seeder("--no-scan", ZEST_SWARM_KEY=KEY) as keyed_seeder,
    ):
        # Without the key the keyed seeder gives nothing: else what is measured would be no keyed swarm.
        if downloader.download(ZEST_PEERS=keyed_seeder.address)["peer"]:
            return [Figure("keyed", None, SHARE, "x", at_least=True, note="the seeder served somebody without the key")]
        for _ in range(runs + 1):
            for key, seeder in ((None, open_seeder), (KEY, keyed_seeder)):
                shown = downloader.download(ZEST_PEERS=seeder.address, ZEST_SWARM_KEY=key)
                if shown["cdn"]:
                    note = f"{shown['cdn'] / 1e6:.0f} MB came from the CDN"
                    return [Figure("keyed", None, SHARE, "x", at_least=True, note=note)]
                taken[key].append(shown["engine_seconds"])
    clear, keyed = (world.size_bytes / 1e6 / statistics.median(taken[key][1:]) for key in (None, KEY))
    note = f"{keyed:.0f} MB/s keyed, {clear:.0f} MB/s in clear; medians of {runs}"
    return [Figure("keyed / clear", keyed / clear, SHARE, "x", at_least=True, note=note)]
