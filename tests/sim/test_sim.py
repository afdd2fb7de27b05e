"""What a user gets, from the rule about peer and CDN alone: no sockets, no threads, no waiting."""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace

import pytest
from depth import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from layouts import Layout, plain
from sim.world import CdnModel, PeerModel, Simulation, alone_s

from zest_hf.core.actions import AskPeer, FetchRun, FetchWhole, StopGet
from zest_hf.core.policy import PolicySettings
from zest_hf.core.transfer import Transfer
from zest_hf.errors import CasUnavailable

POLICY = PolicySettings()
MB = 1e6
GIGABYTE = plain(16, 1000)  # 16 xorbs of 62.5 MiB, like a large model's
SMALL = plain(1, 40)
NEVER = math.inf
ASK_BYTES = 1.5 * POLICY.most_ask_bytes


def ideal_s(file: Layout, *rates_bytes_s: float) -> float:
    return file.manifest.size_bytes / sum(rates_bytes_s)


@pytest.mark.parametrize("file", [GIGABYTE, SMALL], ids=["large", "small"])
def test_a_fast_peer_gives_everything(file: Layout) -> None:
    out = Simulation(file, CdnModel(100 * MB), [PeerModel(110 * MB)]).run()
    assert (out.cdn_bytes, out.cdn_sent_bytes) == (0, 0)
    assert out.took_s <= ideal_s(file, 110 * MB) + 0.1


def test_without_peers_the_cdn_is_asked_at_once() -> None:
    out = Simulation(GIGABYTE, CdnModel(100 * MB)).run()
    assert out.peer_bytes == 0
    assert out.cdn_sent_bytes == GIGABYTE.manifest.size_bytes
    assert out.took_s <= ideal_s(GIGABYTE, 100 * MB) + 0.2


@pytest.mark.parametrize(
    ("peer", "patience_s"),
    [
        (PeerModel(0, connects_s=NEVER), POLICY.dial_patience_s),
        (PeerModel(0, answers_s=NEVER), POLICY.answer_patience_s),
        (PeerModel(0, manifest_s=NEVER), POLICY.manifest_patience_s),
        # A peer that says that it has everything and then sends nothing.
        (PeerModel(0), POLICY.slow_after_s),
        (PeerModel(80 * MB, falls_silent_s=3.0), POLICY.piece_silence_s),
        (PeerModel(80 * MB, dies_s=3.0), 0.0),
    ],
    ids=["no connection", "no answer", "no manifest", "no bytes", "falls silent", "dies"],
)
@pytest.mark.parametrize("file", [GIGABYTE, SMALL], ids=["large", "small"])
@pytest.mark.parametrize("count", [1, 5])
def test_useless_peers_cost_at_most_the_stated_patience(
    file: Layout, peer: PeerModel, patience_s: float, count: int
) -> None:
    cdn = CdnModel(80 * MB)
    peers = [PeerModel(**{**vars(peer), "queue": []}) for _ in range(count)]
    out = Simulation(file, cdn, peers).run()
    # What was asked of the peers in vain is asked for again: one round more, of pieces alone.
    assert out.took_s <= alone_s(file, cdn) + patience_s + 0.3


@pytest.mark.parametrize("rate", [10.0, 1e5, 1e6, 5e6])
@pytest.mark.parametrize("cdn_rate", [1e6, 2e7, 2e8])
@pytest.mark.parametrize("count", [1, 4])
def test_slow_peers_are_helped_by_the_cdn(rate: float, cdn_rate: float, count: int) -> None:
    cdn = CdnModel(cdn_rate)
    out = Simulation(GIGABYTE, cdn, [PeerModel(rate) for _ in range(count)]).run()
    # What each slow peer has in hand at the end is fetched a second time.
    again_bytes = POLICY.min_depth * max(POLICY.first_ask_bytes, POLICY.ask_s * rate)
    again_s = count * again_bytes / cdn_rate
    bound_s = alone_s(GIGABYTE, cdn) + POLICY.slow_after_s + POLICY.overdue_s
    if rate * count < POLICY.fair_rate_bytes_s:
        assert out.took_s <= bound_s + min(again_s, again_bytes / rate)
    else:
        assert out.took_s <= ideal_s(GIGABYTE, rate * count) + 1


@pytest.mark.parametrize(("cdn", "peer"), [(3.5, 3.5), (4, 3), (3, 4), (1, 6), (5, 2), (5, 9)])
@pytest.mark.parametrize("xorbs", [2, 4])
def test_a_slow_peer_and_a_slow_cdn_bring_nothing_twice(xorbs: int, cdn: float, peer: float) -> None:
    """The peer is done with its part first again and again: the CDN leaves it the end of what it has begun."""
    file = plain(xorbs, 1000)
    out = Simulation(file, CdnModel(cdn * MB), [PeerModel(peer * MB)]).run()
    assert out.cdn_sent_bytes + out.peer_bytes <= 1.01 * file.manifest.size_bytes
    assert out.took_s <= 1.03 * ideal_s(file, cdn * MB, peer * MB) + POLICY.slow_after_s


@pytest.mark.parametrize("line", [3.0, 7.0, 11.0, 40.0, 90.0])
@pytest.mark.parametrize(("cdn", "peer"), [(10, 60), (60, 60), (200, 60), (200, 300)])
def test_peers_that_fill_the_line_are_left_alone(line: float, cdn: float, peer: float) -> None:
    """Whatever the CDN could give: it is asked until that shows."""
    file = plain(max(2, int(30 * line / 64)), 1000)
    out = Simulation(file, CdnModel(cdn * MB), [PeerModel(peer * MB)], line_bytes_s=line * MB).run()
    assert out.took_s <= 1.03 * ideal_s(file, min(line, peer) * MB) + 0.3
    if line <= peer:
        # Where they are slow, and so the CDN might help, it is looked again once.
        looks = 2 if line * MB < POLICY.fair_rate_bytes_s else 1
        assert out.cdn_sent_bytes <= looks * (POLICY.cdn_measured_s + 0.5) * line * MB


@pytest.mark.parametrize("dies_s", [5.0, 8.0])
def test_when_peers_do_not_fill_the_line_any_more_the_cdn_helps_at_once(dies_s: float) -> None:
    """It was left alone for a while, as it added nothing."""
    file = plain(4, 1000)
    line = 8.0
    peers = [PeerModel(5 * MB), PeerModel(5 * MB, dies_s=dies_s)]
    out = Simulation(file, CdnModel(3.5 * MB), peers, line_bytes_s=line * MB).run()
    # Until that is seen, what the other could not give is missed.
    assert out.took_s <= 1.03 * ideal_s(file, line * MB) + POLICY.recovers_s * (line - 5) / line + 0.5


@pytest.mark.parametrize("found_s", [6.0, 9.0])
def test_what_a_peer_gave_that_is_gone_says_nothing_of_another(found_s: float) -> None:
    """The first was quicker than the CDN, the second is much slower."""
    file = plain(8, 1000)
    quick = PeerModel(30 * MB, dies_s=5.0)
    slow = PeerModel(0.5 * MB, found_s, found_s + 0.02, found_s + 0.04, given=False)
    out = Simulation(file, CdnModel(20 * MB), [quick, slow]).run()
    assert out.took_s <= 5.0 + (file.manifest.size_bytes - out.peer_bytes) / (20 * MB) + 0.6


@pytest.mark.parametrize(("cdn", "peer"), [(25, 12), (110, 12), (110, 40), (110, 90), (14, 12)])
def test_peers_that_are_slower_than_the_cdn_cost_nothing(cdn: float, peer: float) -> None:
    """They have the file for themselves for a moment, and give their part of it then."""
    file = plain(int(20 * cdn / 64), 1000)
    out = Simulation(file, CdnModel(cdn * MB), [PeerModel(peer * MB)]).run()
    assert out.took_s <= ideal_s(file, cdn * MB) + 0.3
    assert out.took_s <= 1.03 * ideal_s(file, cdn * MB, peer * MB) + POLICY.slow_after_s + 0.3


@pytest.mark.parametrize(("cdn", "peer"), [(5, 40), (20, 40), (39, 40), (50, 90)])
def test_peers_that_are_quicker_than_the_cdn_suffice(cdn: float, peer: float) -> None:
    file = plain(int(20 * peer / 64), 1000)
    out = Simulation(file, CdnModel(cdn * MB), [PeerModel(peer * MB)]).run()
    assert out.took_s <= ideal_s(file, peer * MB) + 0.3
    assert out.cdn_sent_bytes <= (POLICY.cdn_measured_s + 0.5) * cdn * MB


def test_a_small_file_from_a_trickling_peer() -> None:
    cdn = CdnModel(20 * MB)
    out = Simulation(SMALL, cdn, [PeerModel(100.0)]).run()
    assert out.took_s <= alone_s(SMALL, cdn) + POLICY.slow_after_s + 0.3


def test_a_slow_cdn_does_not_hold_up_peers_that_it_was_to_help() -> None:
    # The peers are below the fair rate, so the CDN takes hundreds of megabytes from the back; it is slower still.
    out = Simulation(GIGABYTE, CdnModel(0.5 * MB), [PeerModel(10 * MB)]).run()
    assert out.took_s <= ideal_s(GIGABYTE, 10 * MB) * 1.05 + 2


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_peer_that_dies_half_way_is_replaced(share: float) -> None:
    rate, cdn = 100 * MB, CdnModel(50 * MB)
    dies_s = share * ideal_s(GIGABYTE, rate)
    out = Simulation(GIGABYTE, cdn, [PeerModel(rate, dies_s=dies_s)]).run()
    assert out.peer_bytes >= share * GIGABYTE.manifest.size_bytes * 0.9
    rest = GIGABYTE.manifest.size_bytes - out.peer_bytes
    assert out.cdn_bytes == rest
    assert out.took_s <= dies_s + rest / cdn.rate_bytes_s + 0.5


@pytest.mark.parametrize("rates", [(100, 100), (100, 50), (100, 10), (100, 1), (100, 0.01), (40, 30, 20, 10)])
def test_peers_of_any_rate_end_together(rates: tuple[float, ...]) -> None:
    """Within 10 % and the time after which somebody else is asked for what a slow one still has."""
    out = Simulation(GIGABYTE, CdnModel(1 * MB), [PeerModel(rate * MB) for rate in rates]).run()
    assert out.cdn_bytes == 0
    assert out.took_s <= 1.1 * ideal_s(GIGABYTE, *(rate * MB for rate in rates)) + POLICY.overdue_s + 0.5


def test_peers_with_parts_and_the_cdn_for_the_rest() -> None:
    chunks = len(GIGABYTE.manifest)
    peers = [
        PeerModel(100 * MB, holds=((0, chunks // 3),)),
        PeerModel(100 * MB, holds=((chunks // 2, chunks),)),
    ]
    out = Simulation(GIGABYTE, CdnModel(100 * MB), peers).run()
    missing = GIGABYTE.manifest.offset(chunks // 2) - GIGABYTE.manifest.offset(chunks // 3)
    assert missing <= out.cdn_bytes <= missing + 2 * 64 * 65536


def test_a_dead_cdn_does_not_matter_to_who_has_a_peer() -> None:
    out = Simulation(GIGABYTE, CdnModel(1, fails=True), [PeerModel(2 * MB)]).run()
    assert out.took_s <= ideal_s(GIGABYTE, 2 * MB) + 1


def test_when_the_last_source_dies_its_error_comes_in_bounded_time() -> None:
    world = Simulation(GIGABYTE, CdnModel(1, fails=True), [PeerModel(100 * MB, falls_silent_s=2.0)])
    with pytest.raises(CasUnavailable):
        world.run()
    assert world.now_s <= 2.0 + POLICY.piece_silence_s + POLICY.comeback_patience_s + 1


def _random_world(seed: int) -> tuple[Simulation, Layout, CdnModel]:
    rng = random.Random(seed)
    file = plain(rng.randint(1, 6), rng.randint(1, 400), piece_chunks=rng.choice([8, 64]))
    cdn = CdnModel(10 ** rng.uniform(5.5, 8.5), latency_s=rng.uniform(0, 0.3))
    peers = []
    for _ in range(rng.randint(0, 5)):
        connects_s = rng.choice([0.0, 0.01, 0.5, 3.0, NEVER])
        answers_s = connects_s + rng.choice([0.01, 1.0, NEVER])
        peers.append(
            PeerModel(
                10 ** rng.uniform(1, 9),
                connects_s=connects_s,
                answers_s=answers_s,
                manifest_s=answers_s + rng.choice([0.01, 5.0, NEVER]),
                dies_s=rng.choice([NEVER, rng.uniform(0, 20)]),
                falls_silent_s=rng.choice([NEVER, NEVER, rng.uniform(0, 20)]),
                holds=rng.choice([None, None, ((0, 50),), ((10, 60), (90, 400))]),
            )
        )
    return Simulation(file, cdn, peers), file, cdn


@given(st.integers(0, 1 << 40))
@example(38284)  # a fast peer has given all that it holds, and another creeps
@example(5443)  # the CDN has left the last to peers that creep, and nothing comes from it meanwhile
@settings(max_examples=examples(60), deadline=None)
def test_never_much_slower_than_the_cdn_alone(seed: int) -> None:
    """Whatever peers do: the patience with them, one silence, and a second fetch of what they had in hand."""
    world, file, cdn = _random_world(seed)
    out = world.run()
    again = len(world.peers) * POLICY.max_depth * ASK_BYTES / cdn.rate_bytes_s
    bound_s = POLICY.patience_s + POLICY.slow_after_s + POLICY.piece_silence_s + POLICY.overdue_s + 1
    assert out.took_s <= 2 * alone_s(file, cdn) + bound_s or out.took_s <= alone_s(file, cdn) + bound_s + again


@pytest.mark.parametrize("seed", range(3))
def test_a_run_is_determined_by_its_seed(seed: int) -> None:
    assert _random_world(seed)[0].run().log == _random_world(seed)[0].run().log


def test_a_hundred_gigabytes_cost_little_to_decide() -> None:
    """30,000 pieces from peers with parts, the CDN beside them: microseconds a decision, or the file's rate is ours."""
    file = plain(1500, 20, piece_chunks=1)
    # That peers are quick enough keeps what is left in small pieces: the CDN would take it in whole xorbs.
    transfer = Transfer(file.plan, file.file_hash, replace(POLICY, enough_bytes_s=0.0))
    transfer.manifest_proved(file.manifest)
    chunks = len(file.manifest)
    for number in range(8):
        transfer.peer_holds(number, [(i, i + 500) for i in range(number * 250, chunks, 1000)])
    rng = random.Random(5)
    running: list[AskPeer | FetchRun | FetchWhole] = []
    stops: dict[int, int] = {}
    now_s, steps = 0.0, 0
    began_s = time.process_time()
    while not transfer.complete:
        for one in transfer.actions(now_s, False):
            if isinstance(one, StopGet):
                transfer.cdn_stops(one.assignment, one.chunks)
                stops[one.assignment] = one.chunks
            elif isinstance(one, AskPeer | FetchRun | FetchWhole):
                running.append(one)
        now_s += 0.002
        steps += 1
        action = running.pop(rng.randrange(min(len(running), 20)))
        if isinstance(action, AskPeer):
            transfer.peer_ended(action.assignment, action.count, None, now_s)
        else:
            brought = stops.get(action.assignment, len(file.manifest))
            transfer.cdn_ended(action.assignment, file.manifest.slice(0, brought), now_s)
    spent_s = time.process_time() - began_s
    assert steps >= 30_000
    assert spent_s / steps < 400e-6, f"{spent_s / steps * 1e6:.0f} microseconds a step"
