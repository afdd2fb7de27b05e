"""Who of a crowd fetches what: the rules one by one, and that nobody waits for ever."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import pytest
from depth import examples
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from zest_hf.core.crowd import Crowd
from zest_hf.core.crowd_claims import FETCHING, FULL, HELD, CrowdSettings, Told, Unit
from zest_hf.core.crowd_decision import Decision, Reason
from zest_hf.core.crowd_pace import FIRST, GROWTH, Pace

SETTINGS = CrowdSettings()
MB = 1_000_000


def name(number: int) -> bytes:
    return hashlib.sha1(b"%d" % number).digest()


def units(count: int, loose: int = 0) -> list[Unit]:
    """The last ``loose`` ones may not prove themselves."""
    return [Unit(10 * n, 10 * n + 10, 50 * MB, n >= count - loose) for n in range(count)]


def claim(unit: int, state: int = FETCHING, progress: int = 0) -> Told:
    return 10 * unit, 10 * unit + 10, state, progress


class Node:
    """One member with the units that it lacks."""

    def __init__(self, me: int, count: int = 8, loose: int = 0) -> None:
        self.crowd = Crowd(name(me), units(count, loose))
        self.missing = list(range(count))

    def choose(self, now_s: float) -> list[Decision]:
        def missing() -> Iterator[int]:
            yield from self.missing

        chosen = self.crowd.choose(now_s, missing, missing)
        for one in chosen:
            self.crowd.began(one.fetch, now_s)
            if one.fetch in self.missing:
                self.missing.remove(one.fetch)
        return chosen


def owners(members: list[bytes], count: int) -> list[bytes]:
    crowd = Crowd(members[0], units(count))
    for other in members[1:]:
        crowd.others.heard(other, True, (), 0.0)
    return [crowd.owner(unit) for unit in range(count)]


@given(st.sets(st.integers(0, 500), min_size=1, max_size=12), st.integers(1, 40), st.randoms())
def test_every_unit_has_one_owner(members: set[int], count: int, rng: random.Random) -> None:
    names = [name(number) for number in members]
    views = []
    for me in names:
        others = [one for one in names if one != me]
        rng.shuffle(others)
        views.append(owners([me, *others], count))
    assert all(view == views[0] for view in views)
    # Whoever leaves changes the owner of nothing but its own.
    gone = names[-1]
    if len(names) > 1:
        left = owners(names[:-1], count)
        assert all(now == before for now, before in zip(left, views[0], strict=True) if before != gone)


@given(st.sets(st.integers(0, 500), min_size=2, max_size=12))
def test_who_has_the_same_view_starts_different_units(members: set[int]) -> None:
    nodes = [Node(number) for number in members]
    for node in nodes:
        for other in members:
            node.crowd.others.heard(name(other), True, (), 0.0)
    started: list[int] = []
    # Each takes one at a time: what else is due is for those who are told of it and have nothing to do.
    for now_s in (1.0, 1.2, 1.4):
        took = {node: [one.fetch for one in node.choose(now_s)] for node in nodes}
        for node, units in took.items():
            assert len(units) <= 1
            started += units
            for other in nodes:
                if other is not node and units:
                    claims = sorted(node.crowd.claims())
                    other.crowd.others.heard(node.crowd.me, True, claims, now_s)
    assert sorted(started) == list(range(FIRST))


def pair() -> tuple[Node, Node, int]:
    """Two nodes that know each other, and a unit that is due and belongs to the first."""
    one, other = Node(1), Node(2)
    one.crowd.others.heard(name(2), True, (), 0.0)
    other.crowd.others.heard(name(1), True, (), 0.0)
    unit = next(unit for unit in range(8) if one.crowd.owner(unit) == name(1))
    one.missing = [unit]
    other.missing = [unit]
    return one, other, unit


def test_what_its_owner_does_not_claim_goes_to_the_next() -> None:
    _, other, unit = pair()
    assert other.choose(1.0) == []
    assert other.choose(1.0 + SETTINGS.answer_s - 0.01) == []
    assert other.choose(1.0 + SETTINGS.answer_s) == [Decision(unit, Reason.OVERDUE)]


def test_a_claim_without_progress_is_void() -> None:
    _, other, unit = pair()
    other.crowd.others.heard(name(1), True, [claim(unit)], 1.0)
    other.crowd.others.heard(name(1), True, [claim(unit, progress=FULL // 4)], 2.0)
    assert other.choose(2.0 + SETTINGS.stall_s - 0.1) == []
    assert other.choose(2.0 + SETTINGS.stall_s) == []
    assert other.choose(2.0 + SETTINGS.stall_s + SETTINGS.answer_s) == [Decision(unit, Reason.OVERDUE)]


def test_who_leaves_leaves_its_units() -> None:
    _, other, unit = pair()
    other.crowd.others.heard(name(1), True, [claim(unit, progress=1)], 1.0)
    other.crowd.others.left(name(1))
    assert other.choose(1.1) == [Decision(unit, Reason.OWNED)]


def test_who_is_done_is_asked_first() -> None:
    _, other, unit = pair()
    other.crowd.others.heard(name(1), True, [claim(unit, progress=1)], 1.0)
    assert other.crowd.others.heard(name(1), False, (), 2.0) == [unit]
    assert other.choose(2.1) == []
    assert other.choose(2.0 + SETTINGS.stall_s) == [Decision(unit, Reason.OWNED)]


def test_who_was_found_out_twice_counts_no_more() -> None:
    node = Node(1)
    node.crowd.others.heard(name(2), True, [claim(unit) for unit in range(8)], 0.0)
    node.choose(SETTINGS.stall_s)
    assert all(node.crowd.owner(unit, SETTINGS.stall_s + 0.1) == name(1) for unit in range(8))
    later_s = SETTINGS.stall_s + SETTINGS.distrust_s
    assert any(node.crowd.owner(unit, later_s) == name(2) for unit in range(8))


@pytest.mark.parametrize("evens_out", [True, False])
def test_who_comes_late_on_a_shared_line_is_not_slow_at_once(evens_out: bool) -> None:
    """Six had the line for themselves; six more get little of it at first, and perhaps for ever."""
    size = 1000 * MB
    crowd = Crowd(name(1), [Unit(10 * n, 10 * n + 10, size, False) for n in range(12)])
    done = dict.fromkeys(range(12), 0.0)
    slow_s = None
    for tick in range(1, 100):
        now_s = tick / 2
        late_s = now_s - 20.0
        for unit in range(12 if late_s >= 0 else 6):
            rate = 4.0 if late_s < 0 else 2.0 if evens_out and late_s > 8.0 else 3.5 if unit < 6 else 0.5
            done[unit] += 0.5 * rate * MB
            crowd.others.heard(name(2 + unit), True, [claim(unit, FETCHING, int(done[unit] / size * FULL))], now_s)
        crowd.choose(now_s, lambda: iter(range(12)), lambda: iter(range(12)))
        if slow_s is None and any(note.reason is Reason.SLOW for note in crowd.notes):
            slow_s = late_s
    assert slow_s is None if evens_out else slow_s is not None and SETTINGS.shared_slow_s <= slow_s <= 20.0


def test_of_two_that_fetch_the_same_one_stops() -> None:
    one, other, unit = pair()
    one.crowd.began(unit, 1.0)
    other.crowd.began(unit, 1.0)
    for node, them in ((one, 2), (other, 1)):
        node.crowd.others.heard(name(them), True, [claim(unit)], 1.1)
    stops = [node.crowd.stops(1.1 + SETTINGS.answer_s) for node in (one, other)]
    assert stops == [[], [Decision(unit, Reason.COLLISION)]]
    # Who has come much further goes on.
    one, other, unit = pair()
    one.crowd.began(unit, 1.0)
    one.crowd.others.heard(name(2), True, [claim(unit, progress=FULL // 2)], 1.1)
    assert one.crowd.stops(1.1 + SETTINGS.answer_s) == [Decision(unit, Reason.COLLISION)]


def test_what_does_not_prove_itself_has_one_owner() -> None:
    node = Node(1, count=12, loose=5)
    for number in range(2, 9):
        node.crowd.others.heard(name(number), True, (), 0.0)
    assert len({node.crowd.owner(unit) for unit in range(7, 12)}) == 1


def test_more_at_once_as_long_as_that_gives_more() -> None:
    def run(rate_of: dict[int, float], until_s: float) -> list[int]:
        pace, allowed, seen = Pace(), FIRST, []
        for tick in range(int(until_s * 10)):
            pace.moved(0.1 * rate_of.get(allowed, max(rate_of.values())))
            allowed = pace.limit(tick / 10, allowed, 0.0)
            seen.append(allowed)
        return seen

    shared = run({count: 10.0 for count in range(100)}, 60.0)
    assert max(shared) == FIRST + 1 and shared.count(FIRST) > 0.8 * len(shared)
    each = run({count: min(count, 24) * GROWTH for count in range(100)}, 60.0)
    assert max(each) >= 24


MESSAGES = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from([FETCHING, HELD]), st.integers(0, FULL)),
    max_size=8,
    unique_by=lambda one: one[0],
)
EVENTS = st.lists(st.tuples(st.integers(2, 5), st.sampled_from(["claims", "left", "done"]), MESSAGES), max_size=60)


@settings(deadline=None, max_examples=examples(60), phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(EVENTS, st.booleans())
def test_nobody_waits_for_ever(events: list[tuple[int, str, list[tuple[int, int, int]]]], again: bool) -> None:
    """Whatever others say, none of whom ever gives anything."""
    node = Node(1, count=10)
    running: dict[int, float] = {}
    at = 0
    for tick in range(1500):
        now_s = tick / 10
        if at < len(events) or (again and events):
            member, what, told = events[at % len(events)]
            at += 1
            claims = [claim(*one) for one in sorted(told)]
            # With others that come again under new names all the time.
            who = name(member + (at if again and what == "left" else 0))
            if what == "left":
                node.crowd.others.left(who)
            else:
                node.crowd.others.heard(who, what == "claims", claims, now_s)
        for one in node.choose(now_s):
            running[one.fetch] = now_s
        for stop in node.crowd.stops(now_s):
            del running[stop.fetch]
            node.crowd.ended(stop.fetch, False, False, now_s)
            node.missing = sorted([*node.missing, stop.fetch])
        for fetch, began_s in list(running.items()):
            node.crowd.progress(fetch, int((now_s - began_s) * 50 * MB), now_s)
            if now_s - began_s >= 1.0:
                del running[fetch]
                node.crowd.ended(fetch, True, True, now_s)
        if not node.missing and not running:
            break
    assert not node.missing and not running, node.missing
