"""Ranges are sets: each function against the sets of Python."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from zest_hf.core.ranges import Ranges, added, common, contains, normalized, within, without

CHUNKS = 40
loose = st.lists(st.tuples(st.integers(-3, CHUNKS + 3), st.integers(-3, CHUNKS + 3)), max_size=8)
ranges = loose.map(lambda some: normalized(some, CHUNKS))
bounds = st.tuples(st.integers(0, CHUNKS), st.integers(0, CHUNKS)).map(sorted)


def chunks(some: Ranges) -> set[int]:
    return {chunk for start, end in some for chunk in range(start, end)}


@given(loose)
def test_normalized(some: list[tuple[int, int]]) -> None:
    out = normalized(some, CHUNKS)
    assert chunks(out) == {chunk for start, end in some for chunk in range(start, end) if 0 <= chunk < CHUNKS}
    assert all(start < end for start, end in out)
    assert all(one[1] < other[0] for one, other in pairwise(out))
    assert normalized(out, CHUNKS) == out


@given(ranges, bounds)
def test_added(some: Ranges, part: list[int]) -> None:
    assert added(some, *part) == normalized([*some, (part[0], part[1])], CHUNKS)


@given(ranges, bounds)
def test_without_and_within(some: Ranges, part: list[int]) -> None:
    first, end = part
    gone = set(range(first, end))
    assert chunks(without(some, first, end)) == chunks(some) - gone
    inside = tuple(within(some, first, end))
    assert chunks(inside) == chunks(some) & gone
    assert normalized(inside, CHUNKS) == inside


@given(ranges, bounds)
def test_contains(some: Ranges, part: list[int]) -> None:
    first, end = part
    if first < end:
        assert contains(some, first, end) == (set(range(first, end)) <= chunks(some))


@given(ranges, ranges)
def test_common(one: Ranges, other: Ranges) -> None:
    both = common(one, other)
    assert chunks(both) == chunks(one) & chunks(other)
    assert list(both) == sorted(both)
