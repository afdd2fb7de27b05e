"""The budget of a download: exact, on a virtual clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zest_hf.rate_cap import BURST_S, LEAST_WAIT_S, RateCap


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, time_s: float) -> None:
        assert time_s > 0
        self.now_s += time_s


@given(st.lists(st.integers(1, 1 << 20), min_size=30, max_size=200))
def test_the_rate_is_kept(sizes: list[int]) -> None:
    clock = Clock()
    cap = RateCap(1_000_000, clock, clock.sleep)
    for size in sizes:
        cap.take(size, lambda: False)
    total_s = sum(sizes) / 1e6
    assert total_s - BURST_S - LEAST_WAIT_S <= clock.now_s <= total_s + 1e-6


def test_a_pause_is_not_made_up_for() -> None:
    clock = Clock()
    cap = RateCap(1_000_000, clock, clock.sleep)
    clock.now_s = 1000.0
    cap.take(2_000_000, lambda: False)
    assert 1002.0 - BURST_S - LEAST_WAIT_S <= clock.now_s <= 1002.0


def test_what_peers_bring_is_taken_from_the_cdn() -> None:
    clock = Clock()
    cap = RateCap(1_000_000, clock, clock.sleep)
    cap.watch(lambda: 1_000_000 + int(clock.now_s * 750_000))
    taken = 0
    while clock.now_s < 20:
        cap.take(10_000, lambda: False)
        taken += 10_000
    assert 0.95 * 5_000_000 <= taken <= 1.05 * 5_000_000


def test_peers_that_take_all_leave_nothing_and_the_wait_can_be_ended() -> None:
    clock = Clock()
    cap = RateCap(1_000_000, clock, clock.sleep)
    cap.watch(lambda: int(clock.now_s * 1_000_000))
    cap.take(200_000, lambda: clock.now_s > 5.0)
    assert 5.0 < clock.now_s < 6.0
