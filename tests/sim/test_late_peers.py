"""Peers that turn out to be there while the CDN is at work: how long it takes, and how much the CDN still gives."""

from __future__ import annotations

import math
from typing import Any

import pytest
from layouts import Layout, plain
from sim.world import CdnModel, Outcome, PeerModel, Simulation

from zest_hf.core.policy import PolicySettings

POLICY = PolicySettings()
MB = 1e6
FILES = {"64 MB": plain(1, 1000), "250 MB": plain(4, 1000), "700 MB": plain(11, 1000)}
every_file = pytest.mark.parametrize("file", FILES.values(), ids=FILES)
every_time = pytest.mark.parametrize("found_s", [0.1, 0.5, 2.0])


def late(rate: float, found_s: float, **more: Any) -> PeerModel:
    return PeerModel(rate * MB, found_s, found_s + 0.02, found_s + 0.04, given=False, **more)


def run(file: Layout, cdn: float, *peers: PeerModel) -> Outcome:
    return Simulation(file, CdnModel(cdn * MB), list(peers)).run()


def alone_s(file: Layout, rate: float) -> float:
    return file.manifest.size_bytes / (rate * MB)


def bound_s(file: Layout, cdn: float, peers: float, found_s: float) -> float:
    """Of the better of the two alone, where peers begin when they are found."""
    return 1.1 * min(alone_s(file, cdn) + 0.05, found_s + 0.04 + alone_s(file, peers)) + 0.3


@every_file
@every_time
@pytest.mark.parametrize("count", [1, 4])
def test_a_fast_peer_takes_over(file: Layout, found_s: float, count: int) -> None:
    out = run(file, 12.5, *(late(100 / count, found_s) for _ in range(count)))
    assert out.took_s <= bound_s(file, 12.5, 100, found_s)
    # What the CDN gives until it is known to be slower, and what it is sending then.
    assert out.cdn_sent_bytes <= 12.5 * MB * (found_s + 0.04 + 0.5) + 2 * MB
    assert out.cdn_sent_bytes + out.peer_bytes <= file.manifest.size_bytes + 2 * MB


@every_file
@every_time
@pytest.mark.parametrize("rate", [0.0001, 1, 5])
def test_a_slow_peer_does_not_hold_up_a_fast_cdn(file: Layout, found_s: float, rate: float) -> None:
    out = run(file, 100, late(rate, found_s))
    assert out.took_s <= bound_s(file, 100, rate, found_s)


@every_file
@every_time
@pytest.mark.parametrize(("cdn", "peer"), [(20, 20), (5, 5), (2, 8), (8, 2), (1, 10), (100, 50), (40, 100)])
def test_two_of_any_rates(file: Layout, found_s: float, cdn: float, peer: float) -> None:
    out = run(file, cdn, late(peer, found_s))
    assert out.took_s <= bound_s(file, cdn, peer, found_s)


@pytest.mark.parametrize(("cdn", "peer"), [(5, 5), (2, 8), (8, 2)])
def test_two_slow_ones_are_as_fast_as_both_together(cdn: float, peer: float) -> None:
    file = FILES["250 MB"]
    out = run(file, cdn, late(peer, 0.5))
    assert out.took_s <= 1.1 * alone_s(file, cdn + peer) + 1
    assert out.cdn_sent_bytes + out.peer_bytes <= 1.03 * file.manifest.size_bytes


@every_file
@pytest.mark.parametrize("dies_s", [0.3, 0.8, 1.5])
def test_a_peer_that_dies_after_the_gets_were_stopped(file: Layout, dies_s: float) -> None:
    out = run(file, 12.5, late(100, 0.1, dies_s=dies_s))
    left = file.manifest.size_bytes - out.peer_bytes
    assert out.cdn_bytes == left
    # The CDN begins again where it was, but for the time that it did not run.
    assert out.took_s <= 1.1 * (dies_s + left / (12.5 * MB)) + 0.3
    assert out.took_s <= 1.1 * alone_s(file, 12.5) + 0.3


@every_file
@pytest.mark.parametrize("silent_s", [0.15, 0.3, 0.5])
def test_a_peer_that_stalls_costs_at_most_the_patience_with_it(file: Layout, silent_s: float) -> None:
    out = run(file, 12.5, late(100, 0.1, falls_silent_s=silent_s))
    assert out.took_s <= 1.1 * alone_s(file, 12.5) + 0.3 + POLICY.piece_silence_s


@every_file
@pytest.mark.parametrize("rate", [12.5, 100])
def test_a_peer_that_never_gives_a_byte(file: Layout, rate: float) -> None:
    out = run(file, rate, late(0, 0.1))
    assert out.took_s <= 1.1 * alone_s(file, rate) + 0.3 + POLICY.left_alone_s
    assert out.cdn_bytes == file.manifest.size_bytes


def test_peers_with_parts_take_over_those() -> None:
    file = FILES["250 MB"]
    out = run(file, 12.5, late(100, 0.1, holds=((1500, 2500), (3000, 4000))))
    # A GET gives away its end: what it still needs after that of a peer it brings by itself.
    assert out.peer_bytes >= 0.9 * 1500 * 65536
    assert out.took_s <= 1.1 * (file.manifest.size_bytes - out.peer_bytes) / (12.5 * MB) + 0.5


def test_nobody_comes() -> None:
    for file in FILES.values():
        out = run(file, 100, PeerModel(0, math.inf, given=False))
        assert out.took_s <= alone_s(file, 100) + 0.15
        assert out.cdn_sent_bytes == file.manifest.size_bytes
