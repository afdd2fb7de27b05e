"""Sets of chunks, against Python's sets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pure_classes import Pure

SPAN = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: (min(pair), max(pair)))
SPANS = st.lists(SPAN, max_size=12)


@pytest.fixture(scope="module")
def pure() -> Iterator[Pure]:
    pure = Pure()
    yield pure
    pure.close()


def members(spans: list[tuple[int, int]]) -> set[int]:
    return {number for first, end in spans for number in range(first, end)}


def runs(numbers: set[int]) -> list[tuple[int, int]]:
    """In order, neither overlapping nor touching."""
    out: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if out and out[-1][1] == number:
            out[-1] = (out[-1][0], number + 1)
        else:
            out.append((number, number + 1))
    return out


def text(spans: list[tuple[int, int]]) -> str:
    return ",".join(f"{first}-{end}" for first, end in spans) or "-"


@given(SPANS, SPAN)
def test_a_set_that_grows(pure: Pure, spans: list[tuple[int, int]], within: tuple[int, int]) -> None:
    pure("reset")
    held: set[int] = set()
    for span in spans:
        new = members([span]) - held
        assert int(pure("add", *span)) == len(new)
        held |= new
        assert pure("count") == f"{len(held)} {len(runs(held))}"
    assert pure("runs") == text(runs(held))
    inside = runs(held & members([within]))
    first, end = map(int, pure("first", *within).split())
    assert (first, end) == (inside[0] if inside else (within[1], within[1]))


@given(SPANS, st.integers(0, 6))
def test_merged(pure: Pure, spans: list[tuple[int, int]], limit: int) -> None:
    assert pure("merged", text(spans), limit) == text(runs(members(spans))[:limit])


@given(SPANS, SPANS)
def test_what_is_added(pure: Pure, before: list[tuple[int, int]], more: list[tuple[int, int]]) -> None:
    old, new = members(before), members(before) | members(more)
    assert pure("added", text(runs(old)), text(runs(new))) == text(runs(new - old))


@given(SPANS, SPANS)
def test_what_is_lost(pure: Pure, before: list[tuple[int, int]], now: list[tuple[int, int]]) -> None:
    old, new = members(before), members(now)
    expected = text(runs(new - old)) if old <= new else "lost"
    assert pure("added", text(runs(old)), text(runs(new))) == expected
