"""Who is dialled, and when: whatever is heard and however dials end, the limits of native/PROTOCOL.md hold."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pure_classes import DIALER, Pure

LSD, TRACKER, DHT, PEX = 3, 4, 5, 6
FAILED, TWIN, OURSELVES, LEFT = range(4)


class Dial(NamedTuple):
    swarm: int
    host: int
    port: int
    source: int


class Dialer:
    """The native one; the first dial of everybody may be at 1,000 ms."""

    def __init__(self) -> None:
        self._pure = Pure(DIALER)

    def close(self) -> None:
        self._pure.close()

    def heard(self, dial: Dial, now_ms: int) -> None:
        self._pure("heard", *dial, now_ms)

    def due(self, now_ms: int) -> list[Dial]:
        return [Dial(*map(int, item.split(":"))) for item in self._pure("due", now_ms).split()]

    def ready(self, dial: Dial, now_ms: int) -> None:
        self._pure("ready", dial.host, dial.port, now_ms)

    def ended(self, dial: Dial, end: int, now_ms: int) -> None:
        self._pure("ended", dial.host, dial.port, end, now_ms)

    def taken(self, dial: Dial) -> None:
        self._pure("taken", dial.host, dial.port)

    def vacant(self, dial: Dial) -> None:
        self._pure("vacant", dial.host, dial.port)

    def forget(self, swarm: int) -> None:
        self._pure("forget", swarm)

    @property
    def flying(self) -> int:
        return int(self._pure("flying"))

    @property
    def when_ms(self) -> int:
        return int(self._pure("when"))


@pytest.fixture
def dialer() -> Iterator[Dialer]:
    dialer = Dialer()
    yield dialer
    dialer.close()


def test_the_latest_first_and_few_at_a_time(dialer: Dialer) -> None:
    for host in range(10_000):
        dialer.heard(Dial(1, host, 5000, TRACKER), 1000)
    assert [dial.host for dial in dialer.due(1000)] == list(range(9999, 9987, -1))
    assert dialer.due(1000) == []
    dialer.ended(Dial(1, 9999, 5000, TRACKER), FAILED, 2000)
    assert [dial.host for dial in dialer.due(2000)] == [9987]


def test_one_way_does_not_crowd_out_the_others(dialer: Dialer) -> None:
    for swarm in range(20):
        for host in range(100):
            dialer.heard(Dial(swarm, swarm * 100 + host, 5000, TRACKER), 1000)
    assert len(dialer.due(1000)) == 48
    dialer.heard(Dial(3, 60_000, 5000, PEX), 1000)
    dialer.heard(Dial(3, 60_001, 5000, LSD), 1000)
    assert dialer.due(1000) == [Dial(3, 60_001, 5000, LSD)]


def test_a_minute_of_failures(dialer: Dialer) -> None:
    """Forty at once, then forty a minute, however fast they fail."""
    for host in range(100):
        dialer.heard(Dial(1, host, 5000, DHT), 0)
    count = 0
    for now_ms in range(0, 60_000, 100):
        for dial in dialer.due(now_ms):
            count += 1
            dialer.ended(dial, FAILED, now_ms)
    assert 78 <= count <= 81


def test_a_host_that_somebody_has_chosen_as_a_victim(dialer: Dialer) -> None:
    for port in range(100):
        for swarm in range(3):
            dialer.heard(Dial(swarm, 7, 5000 + port, PEX), 0)
    count = 0
    for now_ms in range(0, 60_000, 100):
        for dial in dialer.due(now_ms):
            count += 1
            dialer.ended(dial, FAILED, now_ms)
    assert count <= 32 + 31


def test_rests_grow_and_end(dialer: Dialer) -> None:
    peer, at_ms, dials = Dial(1, 5, 5000, DHT), 0, []
    dialer.heard(peer, 0)
    while at_ms < 24 * 3_600_000:
        for dial in dialer.due(at_ms):
            dials.append(at_ms)
            dialer.ended(dial, FAILED, at_ms)
        at_ms += 1000
    rests = [later - earlier for earlier, later in itertools.pairwise(dials)]
    assert len(rests) == 5
    assert all(15_000 << n <= rest <= 1.5 * (15_000 << n) + 1000 for n, rest in enumerate(rests))
    # Somebody says that it is there.
    dialer.heard(peer, at_ms)
    assert dialer.due(at_ms) == [peer]


def test_who_left_is_dialled_again_by_who_dialled(dialer: Dialer) -> None:
    peer = Dial(1, 5, 5000, LSD)
    dialer.heard(peer, 0)
    assert dialer.due(0) == [peer]
    dialer.ready(peer, 100)
    assert dialer.flying == 0
    dialer.ended(peer, LEFT, 100_000)
    assert dialer.due(104_999) == []
    assert dialer.due(110_000) == [peer]


def test_ourselves_never_again(dialer: Dialer) -> None:
    peer = Dial(1, 5, 5000, LSD)
    dialer.heard(peer, 0)
    dialer.due(0)
    dialer.ended(peer, OURSELVES, 10)
    dialer.heard(peer, 10_000_000)
    assert dialer.due(10_000_000) == []


def test_who_is_connected_already(dialer: Dialer) -> None:
    peer = Dial(1, 5, 5000, LSD)
    dialer.taken(peer)
    dialer.heard(peer, 0)
    assert dialer.due(0) == []
    dialer.vacant(peer)
    assert dialer.due(1) == [peer]


hosts = st.integers(0, 5)
dials = st.builds(Dial, st.integers(0, 3), hosts, st.integers(5000, 5004), st.sampled_from([LSD, TRACKER, DHT, PEX]))
steps = st.one_of(
    st.tuples(st.just("heard"), dials),
    st.tuples(st.just("due"), st.integers(0, 200_000)),
    st.tuples(st.just("ready"), st.integers(0, 50)),
    st.tuples(st.just("ended"), st.integers(0, 50), st.sampled_from([FAILED, TWIN, LEFT])),
    st.tuples(st.just("forget"), st.integers(0, 3)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=80))
def test_whatever_happens(script: list[tuple[Any, ...]]) -> None:
    """Nobody is dialled twice at a time, nor by a name that was not heard; what flies is counted right."""
    dialer, now_ms = Dialer(), 0
    running: dict[tuple[int, int], tuple[Dial, bool]] = {}
    heard: set[Dial] = set()
    for what, *arguments in script:
        if what == "heard":
            (dial,) = arguments
            heard.add(dial)
            dialer.heard(dial, now_ms)
        elif what == "forget":
            dialer.forget(arguments[0])
            heard = {dial for dial in heard if dial.swarm != arguments[0]}
        elif what == "due":
            now_ms += arguments[0]
            for dial in dialer.due(now_ms):
                assert dial in heard
                assert dial[1:3] not in running
                running[dial.host, dial.port] = (dial, False)
            assert dialer.when_ms > now_ms or not heard or dialer.due(now_ms) == []
        elif running:
            key = list(running)[arguments[0] % len(running)]
            dial, _ = running[key]
            if what == "ready":
                dialer.ready(dial, now_ms)
                running[key] = (dial, True)
            else:
                del running[key]
                dialer.ended(dial, arguments[1], now_ms)
        flying = Counter((dial.swarm, dial.source) for dial, ready in running.values() if not ready)
        assert dialer.flying == flying.total()
        assert all(count <= 12 for count in flying.values())
    dialer.close()
