"""How many GETs run at once, of a CDN that gives in all kinds of ways. The clock is virtual."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zest_hf.core.concurrency import Concurrency, ConcurrencySettings

SETTINGS = ConcurrencySettings()
TICK_S = 0.05
MB = 1_000_000
STEP_S = SETTINGS.settle_s + SETTINGS.window_s + 2 * TICK_S


class Cdn:
    """``gives``: bytes a second, by how many are asked at once."""

    def __init__(self, gives: Callable[[int], float], work: int = 1000) -> None:
        self.concurrency = Concurrency(SETTINGS)
        self.gives = gives
        self.work = work
        self.now_s = self.came = 0.0
        self.history: list[int] = []

    def run(self, for_s: float) -> int:
        end_s = self.now_s + for_s
        while self.now_s < end_s:
            running = min(self.work, self.concurrency.allowed)
            self.now_s += TICK_S
            self.came += self.gives(running) * TICK_S
            allowed = self.concurrency.note(running, int(self.came), self.now_s)
            if not self.history or self.history[-1] != allowed:
                self.history.append(allowed)
        return self.concurrency.allowed


def each(bytes_s: float, line_bytes_s: float = float("inf")) -> Callable[[int], float]:
    """Each connection gets so much, all together a line."""
    return lambda count: min(count * bytes_s, line_bytes_s)


def test_a_cdn_that_limits_each_connection_is_asked_by_more() -> None:
    cdn = Cdn(each(MB))
    assert cdn.run(20.0) == SETTINGS.most
    assert cdn.history == [8, 16, 32]


def test_a_full_line_is_left_as_it_is() -> None:
    """More is tried once, and then seldom."""
    cdn = Cdn(each(100 * MB, 100 * MB))
    cdn.run(120.0)
    assert set(cdn.history) == {8, 16}
    tried_s = cdn.history.count(16) * STEP_S
    assert tried_s < 0.15 * 120.0


def test_it_stops_where_the_line_is_full() -> None:
    cdn = Cdn(each(MB, 14 * MB))
    cdn.run(12.0)
    assert cdn.history == [8, 16, 32, 16]


def test_what_gets_worse_is_given_up() -> None:
    cdn = Cdn(lambda count: MB * min(count, 8) / max(1.0, count / 8))
    cdn.run(10.0)
    assert cdn.history == [8, 16, 8]


@pytest.mark.parametrize("work", [1, 7])
def test_where_there_is_little_to_ask_for_nothing_is_tried(work: int) -> None:
    cdn = Cdn(each(MB), work)
    assert cdn.run(60.0) == SETTINGS.first
    assert cdn.history == [8]


def test_a_short_download_is_no_trial() -> None:
    assert Cdn(each(MB)).run(SETTINGS.settle_s + SETTINGS.window_s - TICK_S) == SETTINGS.first


def test_between_two_gets_there_may_be_a_moment() -> None:
    cdn = Cdn(each(MB))
    for _ in range(40):
        cdn.work = 1000
        cdn.run(0.9)
        cdn.work = 7
        cdn.run(SETTINGS.gap_s / 2)
    assert cdn.concurrency.allowed > SETTINGS.first


def test_who_wants_all_of_it_begins_with_many() -> None:
    cdn = Cdn(each(MB))
    cdn.run(5.0)
    cdn.concurrency.go_high()
    assert cdn.concurrency.allowed == SETTINGS.high_first
    assert cdn.run(20.0) == SETTINGS.high_most
    cdn.concurrency.go_high()
    assert cdn.concurrency.allowed == SETTINGS.high_most


@given(st.lists(st.tuples(st.floats(0.01, 3.0), st.integers(0, 80), st.integers(0, 10**9)), max_size=200))
def test_it_stays_within_its_bounds(steps: list[tuple[float, int, int]]) -> None:
    concurrency = Concurrency(SETTINGS)
    now_s, came = 0.0, 0
    for passed_s, running, more in steps:
        now_s, came = now_s + passed_s, came + more
        assert SETTINGS.first <= concurrency.note(running, came, now_s) <= SETTINGS.most
