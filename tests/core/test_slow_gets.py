"""Which GETs are gone on with on another connection. The clock is virtual."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zest_hf.core.policy import PolicySettings
from zest_hf.core.slow_gets import SlowGets

SETTINGS = PolicySettings()
MB = 1_000_000
SIZE = 60 * MB
TICK_S = 0.1


class Connections:
    """GETs of SIZE, with what each gets a second."""

    def __init__(self) -> None:
        self.slow = SlowGets(SETTINGS)
        self.rates: dict[int, float] = {}
        self.brought: dict[int, float] = {}
        self.now_s = 50.0
        self.replaced: list[tuple[int, float]] = []
        """Which, and after how long."""
        self._began_s = self.now_s

    def begin(self, *rates: float, size_bytes: int = SIZE) -> None:
        for rate in rates:
            number = len(self.brought) + 1
            self.slow.began(number, size_bytes)
            self.rates[number], self.brought[number] = rate, 0.0

    def run(self, for_s: float) -> list[tuple[int, float]]:
        end_s = self.now_s + for_s
        while self.now_s < end_s:
            self.now_s += TICK_S
            for number, rate in list(self.rates.items()):
                self.brought[number] += rate * TICK_S
                if self.brought[number] >= SIZE:
                    del self.rates[number]
                    self.slow.ended(number, self.now_s)
            brought = {number: int(self.brought[number]) for number in self.rates}
            # The CDN sends them compressed.
            received = {number: size // 2 for number, size in brought.items() if size}
            self.slow.note(brought, received, self.now_s)
            self.replaced += [(number, self.now_s - self._began_s) for number in self.slow.replaced(self.now_s)]
        return self.replaced


def test_one_among_quick_ones() -> None:
    connections = Connections()
    connections.begin(5 * MB, 5 * MB, 0.05 * MB)
    ((number, after_s),) = connections.run(7.0)
    assert number == 3 and after_s <= SETTINGS.slow_get_s + 2 * TICK_S


def test_it_is_so_often() -> None:
    connections = Connections()
    connections.begin(5 * MB, 0.05 * MB)
    assert [number for number, _ in connections.run(60.0)] == [2] * SETTINGS.most_replaced


def test_one_that_has_become_slow() -> None:
    connections = Connections()
    connections.begin(2 * MB, 2 * MB, 2 * MB)
    assert not connections.run(10.0)
    connections.rates[1] = 0.01 * MB
    ((number, after_s), *_) = connections.run(11.0)
    assert number == 1 and after_s <= 10.0 + 2 * SETTINGS.slow_get_s + 4 * TICK_S


def test_the_last_one_is_compared_with_those_that_were() -> None:
    connections = Connections()
    connections.begin(20 * MB, 20 * MB)
    assert not connections.run(4.0)
    connections.begin(0.1 * MB)
    assert [number for number, _ in connections.run(6.0)] == [3]


@pytest.mark.parametrize("rates", [(MB, MB, MB), (3 * MB, MB, 0.5 * MB), (0.01 * MB, 0.01 * MB), (0.1 * MB,)])
def test_where_all_get_little_the_line_is_slow(rates: tuple[float, ...]) -> None:
    connections = Connections()
    connections.begin(*rates)
    assert not connections.run(60.0)


def test_one_that_is_nearly_done_is_left_to_end() -> None:
    """All of it may have to be brought again."""
    connections = Connections()
    connections.begin(2 * MB, 2 * MB, 2 * MB)
    connections.run(29.0)
    connections.begin(2 * MB, 2 * MB)
    connections.rates[1] = 0.2 * MB
    assert not connections.run(20.0)


def test_one_that_was_answered_and_gets_nothing() -> None:
    connections = Connections()
    connections.begin(5 * MB, 5 * MB, 5 * MB)
    connections.run(1.0)
    connections.rates[3] = 0.0
    assert next(number for number, _ in connections.run(10.0)) == 3


def test_one_alone_that_gets_next_to_nothing() -> None:
    connections = Connections()
    connections.begin(0.001 * MB)
    assert [number for number, _ in connections.run(60.0)] == [1] * SETTINGS.most_replaced


def test_what_has_not_begun_waits_for_its_turn() -> None:
    connections = Connections()
    connections.begin(5 * MB, 5 * MB, 0.0)
    assert not connections.run(11.0)


def test_where_nothing_comes_by_any_none_is_slower() -> None:
    """They end by themselves, in the time that the source knows."""
    connections = Connections()
    connections.begin(5 * MB, 5 * MB)
    connections.run(SETTINGS.slow_get_s / 2)
    connections.rates = {1: 0.0, 2: 0.0}
    assert not connections.run(60.0)


RATES = st.sampled_from([0.0, 0.001 * MB, 0.1 * MB, 5 * MB, 50 * MB])


@given(
    first=st.lists(RATES, min_size=1, max_size=4),
    changes=st.lists(st.tuples(st.floats(0.0, 12.0), st.lists(RATES, max_size=4), st.lists(RATES, max_size=2))),
)
def test_whatever_the_connections_give(
    first: list[float], changes: list[tuple[float, list[float], list[float]]]
) -> None:
    """One that is there is said, and not too often."""
    connections = Connections()
    connections.begin(*first)
    for for_s, rates, more in changes:
        connections.rates.update((number, rate) for number, rate in zip(connections.rates, rates, strict=False))
        connections.begin(*more)
        connections.run(for_s)
    assert {number for number, _ in connections.replaced} <= set(connections.brought)
    assert all(count <= SETTINGS.most_replaced for count in Counter(n for n, _ in connections.replaced).values())
