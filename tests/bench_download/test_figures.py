"""What is said of rounds: medians, ratios of pairs, spread, and whether to trust them."""

from __future__ import annotations

import dataclasses
import json
import re
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zest_hf.bench.downloads import noise, report
from zest_hf.bench.downloads.cases import KINDS
from zest_hf.bench.downloads.figures import Ratio, Results, Run, median, medians, ratio, ratio_of, spread
from zest_hf.bench.downloads.noise import Load
from zest_hf.bench.downloads.report import Outcome

IDLE = Load(0.1, 0.1, 0.1)
CALM = Run(
    call_s=2.0,
    process_s=2.5,
    cpu_s=3.0,
    peak_bytes=600_000_000,
    server_cpu_s=0.5,
    server_peak_bytes=40_000_000,
    hub_requests=3,
    cas_requests=4,
    cdn_requests=8,
    cdn_bytes=900_000_000,
    others_cores=0.0,
)

times = st.floats(min_value=1e-3, max_value=1e4)
pairs = st.lists(st.tuples(times, times), min_size=1, max_size=30)


def run(**values: float) -> Run:
    return dataclasses.replace(CALM, **values)  # type: ignore[arg-type]


def outcome(results: Results, reasons: list[str] | None = None) -> Outcome:
    return Outcome(
        results=results,
        total_bytes=1_000_000_000,
        files=4,
        load_before=str(IDLE),
        load_after=str(IDLE),
        reasons=reasons or [],
        machine={"cores": 2},
        options={"tls": False},
    )


@given(pairs)
def test_a_ratio_lies_between_its_pairs(found: list[tuple[float, float]]) -> None:
    values, bases = zip(*found, strict=True)
    against = ratio(values, bases)
    assert against.low <= against.median <= against.high
    assert any(value / base == against.low for value, base in found)
    assert against.is_clear == all(v > b for v, b in found) or against.is_clear == all(v < b for v, b in found)


@given(pairs, st.floats(min_value=0.1, max_value=10))
def test_a_ratio_does_not_depend_on_how_busy_each_round_was(found: list[tuple[float, float]], slower: float) -> None:
    values, bases = zip(*found, strict=True)
    # A round in which everything takes longer says the same of both.
    other = ratio([value * slower for value in values], [base * slower for base in bases])
    assert dataclasses.astuple(other) == pytest.approx(dataclasses.astuple(ratio(values, bases)))


@given(pairs)
def test_a_ratio_the_other_way_round(found: list[tuple[float, float]]) -> None:
    values, bases = zip(*found, strict=True)
    there, back = ratio(values, bases), ratio(bases, values)
    assert there.low == pytest.approx(1 / back.high)
    assert there.high == pytest.approx(1 / back.low)
    if len(found) % 2:
        assert there.median == pytest.approx(1 / back.median)


def test_pairs_belong_together() -> None:
    with pytest.raises(ValueError):
        ratio([1.0, 2.0], [1.0])
    # The ratio of the medians would be 1.
    assert ratio([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == Ratio(1.0, 1 / 3, 3.0)
    assert ratio([1.0, 9.0, 3.0], [2.0, 3.0, 1.0]) == Ratio(3.0, 0.5, 3.0)


@given(st.lists(times, min_size=2, max_size=30), st.floats(min_value=0.1, max_value=10))
def test_spread_has_no_unit(values: list[float], unit: float) -> None:
    assert spread(values) >= 0
    assert spread([value * unit for value in values]) == pytest.approx(spread(values), abs=1e-9)


@given(times, st.integers(min_value=2, max_value=30))
def test_spread_is_not_moved_by_one_of_many(value: float, count: int) -> None:
    assert spread([value] * count) == 0
    assert spread([value] * (count + 7) + [1e6]) == 0


def test_spread_of_nothing_to_compare() -> None:
    assert spread([]) == spread([3.0]) == spread([0.0, 0.0]) == 0
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)


@given(st.lists(times, min_size=1, max_size=30))
def test_medians_are_of_each_field_by_itself(values: list[float]) -> None:
    runs = [run(call_s=value, cpu_s=1e4 - value) for value in values]
    assert median(runs, "call_s") == statistics.median(values)
    assert medians(runs)["cpu_s"] == statistics.median([1e4 - value for value in values])
    assert medians(runs)["cas_requests"] == 4


def test_no_ratio_of_what_took_nothing() -> None:
    results = {"hf_xet": [run(server_cpu_s=0.0)], "zest": [run(server_cpu_s=0.1)]}
    assert ratio_of(results, "zest", "hf_xet", "server_cpu_s") is None
    assert ratio_of(results, "zest", "hf_xet", "call_s") == Ratio(1.0, 1.0, 1.0)


def test_calm_rounds_are_trusted() -> None:
    assert list(noise.reasons({"hf_xet": [CALM] * 7, "zest": [CALM] * 7}, 2)) == []


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([CALM] * 3, "3 rounds: "),
        ([CALM], "1 round: "),
        ([run(others_cores=0.5)] * 6 + [run(others_cores=1.0)], "other processes used 29% of .*at worst 50%"),
        ([run(call_s=1 + number / 10) for number in range(7)], "times of zest vary: .* by 23%"),
    ],
)
def test_why_rounds_are_not_trusted(runs: list[Run], reason: str) -> None:
    (only,) = noise.reasons({"zest": runs}, 2)
    assert re.search(reason, only), only


def test_the_table_has_a_line_for_each_case_and_compares_pairs() -> None:
    results = {
        "hf_xet": [run(call_s=value) for value in (2.0, 4.0, 3.0)],
        "zest": [run(call_s=value, cpu_s=1.5, peak_bytes=60_000_000) for value in (1.0, 2.4, 2.1)],
        "zest-peer": [run(call_s=value, cdn_bytes=0) for value in (1.0, 1.0, 1.0)],
        "tcp": [run(call_s=value) for value in (0.8, 0.9, 1.2)],
    }
    lines = list(report.lines(outcome(results), None))
    rows = {line.split("  ")[0]: line for line in lines}
    assert [KINDS[name].title for name in results] == [line.split("  ")[0] for line in lines[3:7]]
    assert " 0.60  0.50..0.70 " in rows["zest_hf, no peer"]
    assert " 333 " in rows["hf_xet"]  # MB/s at 3 s
    assert "zest_hf, one peer: 0.90 times the rate of TCP alone (0.80..1.20): no difference that" in "\n".join(lines)
    assert "0.50 times the processor time of hf_xet (0.50..0.50), 0.10 times its memory" in "\n".join(lines)
    assert lines[-1] == "nothing speaks against these figures"
    assert list(report.lines(outcome(results, ["a reason"]), None))[-2:] == ["NOT to be trusted:", "- a reason"]


def test_a_narrow_terminal_gets_the_columns_that_matter() -> None:
    results = {"hf_xet": [CALM] * 7, "zest": [CALM] * 7}
    table = list(report.lines(outcome(results), 79))[2:5]
    assert max(map(len, table)) <= 79
    for head in ("wall", "x hf_xet", "CPU s/GB", "RSS MB"):
        assert head in table[0]


def test_without_hf_xet_the_first_is_what_others_are_compared_with() -> None:
    value = json.loads(json.dumps(report.as_json(outcome({"zest": [CALM], "aria2": [run(call_s=4.0)]}))))
    assert value["base"] == "zest"
    assert value["cases"]["aria2"]["of_base"]["call_s"] == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert value["cases"]["zest"]["runs"] == [dataclasses.asdict(CALM)]
    assert value["peer_rate_of"] == {}
