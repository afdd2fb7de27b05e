"""What a crowd of downloads gets from each other: by their decisions alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from layouts import Layout, layout, plain, xorb
from sim.crowd import Crowd, Node, seeder

from zest_hf.core.actions import PeerTrouble
from zest_hf.core.policy import PolicySettings

MB = 1e6
LINK = 12.5 * MB
"""100 Mbit/s."""
MODEL = plain(4, 1000)  # 262 MB in 4 xorbs
SMALL = plain(1, 300)  # 20 MB in one
POLICY = PolicySettings()
# A CDN that is there, but slower than anybody would wait for.
NO_CDN = 1e3


def size(file: Layout) -> int:
    return file.manifest.size_bytes


@pytest.mark.parametrize("rates", [(1, 1, 1, 1), (1, 1, 1, 1, 0.1), (1, 0.5, 0.25, 0.1), (1,)])
def test_peers_are_striped_by_rate(rates: tuple[float, ...]) -> None:
    """At least 90 % of what their links give together."""
    nodes = [seeder(MODEL, rate * LINK) for rate in rates]
    crowd = Crowd([*nodes, Node(0.0, file=MODEL)], NO_CDN)
    took_s = crowd.run()
    assert took_s <= size(MODEL) / (sum(rates) * LINK) / 0.9
    # Little is sent twice.
    assert sum(node.sent_bytes for node in nodes) <= 1.02 * size(MODEL)


def test_a_peer_that_is_slow_at_the_end_is_not_waited_for() -> None:
    nodes = [seeder(SMALL, LINK), seeder(SMALL, 0.001 * LINK)]
    took_s = Crowd([*nodes, Node(0.0, file=SMALL)], NO_CDN).run()
    assert took_s <= size(SMALL) / LINK + POLICY.overdue_s + 0.5


@pytest.mark.parametrize("file", [MODEL, SMALL], ids=["large", "small"])
@pytest.mark.parametrize("count", [3, 6])
def test_leechers_that_start_together_feed_each_other(file: Layout, count: int) -> None:
    """One after the other they would take ``count`` times as long as one."""
    first = seeder(file, 2 * LINK)
    policy = replace(POLICY, fair_rate_bytes_s=1.0)
    crowd = Crowd([first, *(Node(2 * LINK, file=file) for _ in range(count))], NO_CDN, policy)
    took_s = crowd.run()
    alone_s = size(file) / (2 * LINK)
    assert took_s <= (1.5 if file is MODEL else 3.0) * alone_s
    assert first.sent_bytes <= (1.5 if file is MODEL else 3.0) * size(file)


def test_one_who_comes_later_is_fed_by_all() -> None:
    half = len(MODEL.manifest) // 2
    nodes = [
        Node(LINK, holds=((0, half),), knows_manifest=True),
        Node(LINK, holds=((half, 2 * half),), knows_manifest=True),
        Node(LINK, holds=((half // 2, half + half // 2),), knows_manifest=True),
    ]
    took_s = Crowd([*nodes, Node(0.0, file=MODEL)], NO_CDN).run()
    assert took_s <= size(MODEL) / (3 * LINK) / 0.85


def test_small_parts_of_pieces_are_of_use() -> None:
    """Everybody holds every third stretch of 20 chunks, none of which is a whole piece."""
    chunks = len(MODEL.manifest)
    nodes = [
        Node(
            LINK,
            holds=tuple((at, min(at + 20, chunks)) for at in range(20 * part, chunks, 60)),
            knows_manifest=True,
        )
        for part in range(3)
    ]
    crowd = Crowd([*nodes, Node(0.0, file=MODEL)], NO_CDN)
    took_s = crowd.run()
    assert crowd.counts()[0].cdn == 0
    assert took_s <= size(MODEL) / (3 * LINK) / 0.8


def test_a_fine_tune_takes_its_bases_xorbs_from_who_has_the_base() -> None:
    base = [xorb(f"base{number}", [65536] * 500) for number in range(4)]
    own = [xorb(f"own{number}", [65536] * 500) for number in range(2)]
    tuned = layout([*base, *own], [(0, 0, 500), (4, 0, 500), (1, 0, 500), (2, 100, 400), (5, 0, 500), (3, 0, 500)])
    holder = Node(4 * LINK, xorbs=tuple(one.xorb_hash() for one in base))
    crowd = Crowd([holder, Node(0.0, file=tuned)], 4 * LINK)
    took_s = crowd.run()
    (counts,) = crowd.counts()
    assert counts.cdn == 1000 * 65536
    assert counts.peer == 1800 * 65536
    assert took_s <= max(counts.peer, counts.cdn) / (4 * LINK) + 0.5


@pytest.mark.parametrize("answer", [PeerTrouble.LACKS, PeerTrouble.BUSY, PeerTrouble.SILENT])
@pytest.mark.parametrize("useless", [1, 8])
def test_who_claims_everything_and_gives_nothing_does_not_matter(answer: PeerTrouble, useless: int) -> None:
    """... next to a peer that does give: within the stated silence, if at all."""
    liars = [replace(seeder(MODEL, LINK), answer=answer) for _ in range(useless)]
    took_s = Crowd([*liars, seeder(MODEL, 2 * LINK), Node(0.0, file=MODEL)], NO_CDN).run()
    assert took_s <= size(MODEL) / (2 * LINK) * 1.05 + POLICY.overdue_s


def test_how_often_a_useless_peer_is_asked_is_bounded() -> None:
    """Three answers of no use, then 15 s, 30 s, 60 s... of rest."""
    file = plain(40, 1000)
    liar = replace(seeder(file, LINK), answer=PeerTrouble.LACKS)
    crowd = Crowd([liar, seeder(file, LINK), Node(0.0, file=file)], NO_CDN)
    asked = []
    assert crowd.loaders[0].transfer is not None
    actions = crowd.loaders[0].transfer.actions

    def watched(now_s: float, waiting: bool) -> list[object]:
        out = actions(now_s, waiting)
        asked.extend(one for one in out if getattr(one, "peer", None) == 0)
        return list(out)

    crowd.loaders[0].transfer.actions = watched  # type: ignore[method-assign,assignment]
    took_s = crowd.run()
    assert took_s > 200
    assert len(asked) <= 30
