"""Whole crowds on a virtual clock, with the transfer and the crowd of every node as they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zest_hf.bench.crowd_sim import NodeSpec, Outcome, Scenario, Simulation
from zest_hf.bench.virtual import VirtualFile

MB = 1e6
ORIGIN = 12.5 * MB
HOST = 4 * ORIGIN
SMALL = VirtualFile(300_000_000, piece_chunks=128)
LARGE = VirtualFile(1_000_000_000, piece_chunks=128)


def hosts(count: int, over_s: float = 0.0, rate: float = HOST) -> list[NodeSpec]:
    """``over_s``: from the first one's start to the last one's."""
    return [NodeSpec(rate, rate, start_s=over_s * number / max(count - 1, 1)) for number in range(count)]


def run(file: VirtualFile, nodes: list[NodeSpec], **changes: object) -> Outcome:
    scenario = Scenario(file, nodes, ORIGIN, latest_s=300.0)
    outcome = Simulation(replace(scenario, **changes)).run()  # type: ignore[arg-type]
    print(outcome)
    return outcome



@pytest.mark.parametrize(
    ("file", "over_s"),
    [
        pytest.param(SMALL, 0.0, id="300MB-together"),
        pytest.param(SMALL, 10.0, id="300MB-over 10 s"),
        pytest.param(LARGE, 0.0, id="1GB-together"),
        pytest.param(LARGE, 10.0, id="1GB-over 10 s"),
    ],
)
def test_the_origin_sends_one_copy_and_it_takes_as_long_as_one(file: VirtualFile, over_s: float) -> None:
    outcome = run(file, hosts(8, over_s))
    assert outcome.copies <= 1.05
    assert outcome.slowdown <= 1.25
    assert outcome.control_bytes <= 0.01 * outcome.payload_bytes


def test_alone_nothing_is_different() -> None:
    with_crowd, without = run(SMALL, hosts(1)), run(SMALL, hosts(1), crowd=False)
    assert with_crowd == without


def test_it_can_be_run_again() -> None:
    logs: list[list[str]] = [[], []]
    for log in logs:
        run(SMALL, hosts(5, 3.0), log=log.append, seed=7)
    assert logs[0] == logs[1] and logs[0]


def test_who_dies_takes_only_its_own_part_along() -> None:
    """Two of eight, half-way."""
    nodes = hosts(8)
    for number in (2, 5):
        nodes[number] = replace(nodes[number], dies_s=12.0)
    outcome = run(SMALL, nodes)
    assert outcome.copies <= 1.6
    assert outcome.slowdown <= 1.6


@pytest.mark.parametrize("liar", ["claims", "creeps", "haves", "floods"])
@pytest.mark.parametrize("liars", [1, 3])
def test_liars_cost_a_bounded_time(liar: str, liars: int) -> None:
    nodes = hosts(8)
    for number in range(liars):
        nodes[number] = replace(nodes[number], liar=liar)
    outcome = run(SMALL, nodes)
    assert outcome.copies <= 1.6
    # Claims are void after 3 s, haves after as long.
    assert max(outcome.done_s) <= 1.25 * outcome.bound_s + 12.0


def test_a_network_that_splits_and_heals() -> None:
    nodes = [replace(node, group=number % 2) for number, node in enumerate(hosts(8))]
    outcome = run(LARGE, nodes, split_s=(20.0, 50.0))
    assert outcome.copies <= 1.6
    assert outcome.slowdown <= 1.6


def test_links_of_all_kinds() -> None:
    nodes = hosts(8)
    for number, factor in ((1, 0.5), (2, 0.5), (3, 2.0)):
        nodes[number] = NodeSpec(factor * HOST, factor * HOST)
    outcome = run(SMALL, nodes)
    assert outcome.copies <= 1.1
    assert outcome.slowdown <= 1.35


def test_a_cdn_that_limits_each_connection() -> None:
    """Then more GETs run at once: it ends long before one after the other would."""
    each = ORIGIN / 8
    outcome = run(SMALL, hosts(8), per_connection_bytes_s=each)
    assert outcome.copies <= 1.1
    assert max(outcome.done_s) <= 0.5 * outcome.size_bytes / each


def test_a_file_that_no_xorb_proves_all_of() -> None:
    """One member proves the file with the part that belongs to another's, and gives it to all."""
    outcome = run(replace(SMALL, shared=True), hosts(8))
    assert outcome.copies <= 1.1
    assert outcome.slowdown <= 1.5
