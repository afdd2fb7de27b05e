"""How links share lines: evenly, and what one of them cannot use the others get."""

from __future__ import annotations

from collections.abc import Sequence

ROUNDS = 3

Link = tuple[int, int, float]
"""Whose line up and whose line down it takes, and how many bytes it has to carry at most."""


def shares(links: Sequence[Link], up: dict[int, float], down: dict[int, float]) -> list[float]:
    """How many bytes each link carries, with so many left of each line, which are taken from those."""
    taken = [0.0] * len(links)
    open_ = list(range(len(links)))
    for last in range(ROUNDS, 0, -1):
        ups: dict[int, int] = {}
        downs: dict[int, int] = {}
        for at in open_:
            giver, taker, _ = links[at]
            ups[giver] = ups.get(giver, 0) + 1
            downs[taker] = downs.get(taker, 0) + 1
        fair_up = {one: up[one] / count for one, count in ups.items()}
        fair_down = {one: down[one] / count for one, count in downs.items()}
        still = []
        for at in open_:
            giver, taker, most = links[at]
            size = min(fair_up[giver], fair_down[taker])
            if most - taken[at] <= size:
                size = most - taken[at]
            elif last > 1:
                still.append(at)
            taken[at] += size
            up[giver] -= size
            down[taker] -= size
        open_ = still
    return taken
