"""Who may read next: fair shares and the cap, in virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pure_classes import Pure

BATCH = 512 * 1024
AT_ONCE = 4
US = 1_000_000


@pytest.fixture(scope="module")
def process() -> Iterator[Pure]:
    process = Pure()
    yield process
    process.close()


@pytest.fixture
def pure(process: Pure) -> Pure:
    process("reset")
    return process


class Crowd:
    """Connections that always want more. One batch is under way at a time, as with a slow disk."""

    def __init__(self, pure: Pure) -> None:
        self.pure = pure
        self.got: Counter[int] = Counter()
        self.weights: dict[int, tuple[str, float, int]] = {}

    def join(self, connection: int, host: str, weight: float = 1, batch: int = BATCH) -> None:
        self.weights[connection] = (host, weight, batch)
        self.pure("wait", connection, host, weight)

    def turn(self, now_us: int = 0) -> int | None:
        chosen = self.pure("next", now_us)
        if chosen == "-":
            return None
        connection = int(chosen)
        host, weight, batch = self.weights[connection]
        self.pure("used", connection, batch)
        self.got[connection] += batch
        self.pure("wait", connection, host, weight)
        self.pure("finished")
        return connection

    def run(self, bytes_: int) -> None:
        target = self.got.total() + bytes_
        while self.got.total() < target:
            assert self.turn() is not None

    def run_capped(self, begin_us: int, seconds: float) -> int:
        """Wakes up exactly when it is told to; the bytes that were let through."""
        before, now_us, end_us = self.got.total(), begin_us, begin_us + int(seconds * US)
        while now_us < end_us:
            while self.turn(now_us) is not None:
                pass
            wake = int(self.pure("wake", now_us))
            assert wake > now_us
            now_us = wake
        return self.got.total() - before


def test_alone_there_is_no_waiting(pure: Pure) -> None:
    for turn in range(100):
        pure("wait", 1, "a", 1)
        assert pure("next", turn) == "1"
        pure("used", 1, BATCH)
        pure("finished")
        assert pure("wake", turn) == "-"
    assert int(pure("batch")) == BATCH


def test_equal_parts_whatever_the_size_of_a_batch(pure: Pure) -> None:
    crowd = Crowd(pure)
    for connection, batch in enumerate((BATCH, BATCH // 4, 7000)):
        crowd.join(connection, f"host-{connection}", batch=batch)
    crowd.run(60 * BATCH)
    assert all(abs(got - 20 * BATCH) <= BATCH for got in crowd.got.values()), crowd.got


def test_many_connections_of_a_host_are_one_requester(pure: Pure) -> None:
    crowd = Crowd(pure)
    crowd.join(0, "modest")
    for connection in range(1, 6):
        crowd.join(connection, "greedy")
    crowd.run(200 * BATCH)
    assert abs(crowd.got[0] - 100 * BATCH) <= BATCH
    assert all(abs(crowd.got[connection] - 20 * BATCH) <= BATCH for connection in range(1, 6)), crowd.got


def test_a_giver_gets_four_times_as_much(pure: Pure) -> None:
    crowd = Crowd(pure)
    crowd.join(0, "taker")
    crowd.join(1, "another")
    crowd.join(2, "giver", weight=4)
    crowd.run(120 * BATCH)
    assert [round(crowd.got[connection] / BATCH) for connection in range(3)] == [20, 20, 80]


def test_a_giver_beside_a_taker_on_one_host(pure: Pure) -> None:
    crowd = Crowd(pure)
    crowd.join(0, "elsewhere")
    crowd.join(1, "both")
    crowd.join(2, "both", weight=4)
    crowd.run(250 * BATCH)
    assert abs(crowd.got[0] - 50 * BATCH) <= 2 * BATCH
    assert abs(crowd.got[1] - 40 * BATCH) <= 2 * BATCH


def test_who_was_idle_gets_no_more_later(pure: Pure) -> None:
    crowd = Crowd(pure)
    crowd.join(0, "early")
    crowd.join(1, "late")
    crowd.run(2 * BATCH)
    pure("forget", 1)
    crowd.run(50 * BATCH)
    crowd.got.clear()
    crowd.join(1, "late")
    crowd.run(40 * BATCH)
    assert all(abs(got - 20 * BATCH) <= BATCH for got in crowd.got.values()), crowd.got


def test_few_batches_are_under_way_at_once(pure: Pure) -> None:
    for connection in range(10):
        pure("wait", connection, f"host-{connection}", 1)
    chosen = []
    for _ in range(AT_ONCE):
        chosen.append(pure("next", 0))
        pure("used", chosen[-1], BATCH)
    assert "-" not in chosen and len(set(chosen)) == AT_ONCE
    assert pure("next", 0) == "-"
    pure("finished")
    assert pure("next", 0) not in ["-", *chosen]


@pytest.mark.parametrize("cap", [10_000, 1_000_000, 100_000_000])
def test_a_cap_is_kept_to_the_percent(pure: Pure, cap: int) -> None:
    pure("cap", cap, 0)
    crowd = Crowd(pure)
    batch = int(pure("batch"))
    assert 16 * 1024 <= batch <= BATCH
    for connection in range(3):
        crowd.join(connection, f"host-{connection}", batch=batch)
    seconds = 20 if cap > batch else 200
    assert crowd.run_capped(5 * US, seconds) == pytest.approx(seconds * cap, rel=0.01, abs=2 * batch)
    assert max(crowd.got.values()) - min(crowd.got.values()) <= batch


def test_no_second_is_much_above_the_cap(pure: Pure) -> None:
    """Also after a time in which nobody wanted anything."""
    cap = 4_000_000
    pure("cap", cap, 0)
    crowd = Crowd(pure)
    crowd.join(0, "a", batch=int(pure("batch")))
    assert crowd.run_capped(3600 * US, 1) <= 1.1 * cap + 1


def test_what_is_sent_out_of_turn_counts_too(pure: Pure) -> None:
    cap = 1_000_000
    pure("cap", cap, 0)
    crowd = Crowd(pure)
    crowd.join(0, "a", batch=10_000)
    pure("charge", 0, 500_000, 0)
    assert crowd.run_capped(0, 2) == pytest.approx(2 * cap - 500_000, rel=0.02)


def test_another_cap_holds_at_once(pure: Pure) -> None:
    crowd = Crowd(pure)
    pure("cap", 100_000_000, 0)
    crowd.join(0, "a")
    while crowd.turn(0) is not None:
        pass
    assert int(pure("wake", 0)) > 0
    pure("cap", 50_000, 0)
    assert crowd.turn(0) == 0
    pure("cap", 0, 0)
    assert pure("wake", 0) == "-"
    crowd.run(10 * BATCH)


def test_a_connection_that_ends_in_its_turn_holds_up_nobody(pure: Pure) -> None:
    for connection in (1, 2):
        pure("wait", connection, "a", 1)
    chosen = pure("next", 0)
    pure("forget", chosen)
    pure("used", chosen, 0)
    pure("finished")
    assert pure("next", 0) == str(3 - int(chosen))


def test_nothing_is_left_of_who_has_gone(pure: Pure) -> None:
    for connection in range(6):
        pure("wait", connection, f"host-{connection % 2}", 1)
    for connection in range(6):
        pure("forget", connection)
    assert pure("next", 0) == "-"
    pure("wait", 3, "host-9", 1)
    assert pure("next", 0) == "3"


CONNECTIONS = st.integers(0, 7)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), CONNECTIONS, st.sampled_from([1, 4])),
        st.tuples(st.just("forget"), CONNECTIONS),
        st.tuples(st.just("charge"), CONNECTIONS, st.integers(0, 10**6)),
        st.tuples(st.just("next"), st.integers(0, 10**6)),
        st.tuples(st.just("finished")),
        st.tuples(st.just("cap"), st.sampled_from([0, 10_000, 10**8])),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(STEPS)
def test_everybody_who_waits_gets_a_turn_and_nobody_else(process: Pure, steps: list[tuple[object, ...]]) -> None:
    process("reset")
    waiting: set[int] = set()
    under_way, now_us = 0, 0
    for what, *arguments in steps:
        now_us += 1000
        if what == "wait":
            connection, weight = arguments
            process("wait", connection, f"host-{connection % 3}", weight)  # type: ignore[operator]
            waiting.add(connection)  # type: ignore[arg-type]
        elif what == "forget":
            process("forget", *arguments)
            waiting.discard(arguments[0])  # type: ignore[arg-type]
        elif what in ("charge", "cap"):
            process(str(what), *arguments, now_us)
        elif what == "finished" and under_way:
            process("finished")
            under_way -= 1
        elif what == "next" and (chosen := process("next", now_us)) != "-":
            assert int(chosen) in waiting and under_way < AT_ONCE
            waiting.remove(int(chosen))
            under_way += 1
            process("used", chosen, *arguments)
    for _ in range(under_way):
        process("finished")
    while waiting:
        wake = process("wake", now_us)
        now_us = max(now_us, int(wake)) if wake != "-" else now_us
        chosen = process("next", now_us)
        waiting.remove(int(chosen))
        process("used", chosen, 1)
        process("finished")
    assert process("next", now_us + 10**12) == "-"
