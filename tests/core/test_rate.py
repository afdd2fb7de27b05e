from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zest_hf.core.rate import RateMeter


def test_nothing_is_known_at_first() -> None:
    meter = RateMeter()
    assert meter.bytes_s(5.0) == 0.0
    meter.start(5.0)
    assert meter.bytes_s(9.0) == 0.0


def test_the_first_arrival_says_it_all() -> None:
    meter = RateMeter()
    meter.start(10.0)
    meter.add(4_000_000, 12.0)
    assert meter.bytes_s(12.0) == 2_000_000


@given(st.floats(1e3, 1e9), st.floats(0.001, 1.0))
def test_a_steady_flow_is_seen_as_it_is(rate: float, interval_s: float) -> None:
    meter = RateMeter()
    meter.start(0.0)
    for step in range(1, 40):
        meter.add(int(rate * interval_s), step * interval_s)
    assert meter.bytes_s(39 * interval_s) == pytest.approx(rate, rel=0.02, abs=2 / interval_s)


def test_a_change_is_followed_within_some_windows() -> None:
    meter = RateMeter(window_s=1.0)
    meter.start(0.0)
    now_s = 0.0
    for rate in (1e6, 9e6):
        for _ in range(50):
            now_s += 0.1
            meter.add(int(rate * 0.1), now_s)
        assert meter.bytes_s(now_s) == pytest.approx(rate, rel=0.05)


def test_arrivals_at_one_instant_are_one_arrival() -> None:
    meter = RateMeter()
    meter.start(0.0)
    meter.add(1000, 1.0)
    for _ in range(100):
        meter.add(1000, 1.0)
    meter.add(1000, 2.0)
    assert 1000 < meter.bytes_s(2.0) <= 101_000


def test_large_pieces_come_seldom_and_that_is_no_silence() -> None:
    meter = RateMeter(window_s=1.0)
    meter.start(0.0)
    for step in range(1, 6):
        meter.add(4_000_000, 2.0 * step)
    assert meter.bytes_s(10.0 + 2.0) == pytest.approx(2e6)
    assert meter.bytes_s(10.0 + 8.0) < 2e6 / 20


def test_who_is_asked_for_nothing_keeps_its_rate() -> None:
    meter = RateMeter()
    meter.start(0.0)
    meter.add(5_000_000, 1.0)
    meter.stop()
    assert meter.bytes_s(1000.0) == 5_000_000
    meter.start(1000.0)
    assert meter.bytes_s(1010.0) < 5_000


@given(
    st.lists(st.tuples(st.integers(0, 1 << 40), st.floats(0, 100)), max_size=20),
    st.floats(0, 1000),
    st.floats(0, 1000),
)
def test_it_never_turns_negative_and_falls_in_silence(
    arrivals: list[tuple[int, float]], first_s: float, second_s: float
) -> None:
    meter = RateMeter()
    now_s = 0.0
    meter.start(now_s)
    for size, passed_s in arrivals:
        now_s += passed_s
        meter.add(size, now_s)
    early, late = sorted((first_s, second_s))
    assert meter.bytes_s(now_s + early) >= meter.bytes_s(now_s + late) >= 0.0
