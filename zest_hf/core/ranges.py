"""Sets of chunks as half-open ranges in order, apart from each other. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

Ranges = tuple[tuple[int, int], ...]


def normalized(ranges: Iterable[tuple[int, int]], chunks: int) -> Ranges:
    """Ranges in order, merged, and within an object of so many chunks."""
    out: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        start, end = max(start, 0), min(end, chunks)
        if start >= end:
            continue
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return tuple(out)


def added(ranges: Ranges, first: int, end: int) -> Ranges:
    """Ranges and first..end as well: cheap, where that is little next to many."""
    if first >= end:
        return ranges
    if contains(ranges, first, end):
        return ranges
    at = bisect_left(ranges, (first,))
    if at and ranges[at - 1][1] >= first:
        at -= 1
        first = ranges[at][0]
    stop = at
    while stop < len(ranges) and ranges[stop][0] <= end:
        end = max(end, ranges[stop][1])
        stop += 1
    return (*ranges[:at], (first, end), *ranges[stop:])


def without(ranges: Ranges, first: int, end: int) -> Ranges:
    """Ranges less first..end."""
    out: list[tuple[int, int]] = []
    for start, stop in ranges:
        if stop <= first or end <= start:
            out.append((start, stop))
            continue
        if start < first:
            out.append((start, first))
        if end < stop:
            out.append((end, stop))
    return tuple(out)


def within(ranges: Ranges, first: int, end: int) -> Iterator[tuple[int, int]]:
    """What of first..end lies in the ranges, in order."""
    at = max(0, bisect_left(ranges, (first + 1,)) - 1)
    while at < len(ranges) and ranges[at][0] < end:
        start, stop = max(first, ranges[at][0]), min(end, ranges[at][1])
        if start < stop:
            yield start, stop
        at += 1


def contains(ranges: Ranges, first: int, end: int) -> bool:
    """Whether one of the ranges holds all of first..end."""
    at = bisect_left(ranges, (first + 1,)) - 1
    return at >= 0 and ranges[at][0] <= first and end <= ranges[at][1]


def common(one: Ranges, other: Ranges) -> Ranges:
    """What lies in both."""
    few, many = (one, other) if len(one) <= len(other) else (other, one)
    out: list[tuple[int, int]] = []
    for start, end in few:
        # Told of often: what is there as a whole.
        if contains(many, start, end):
            out.append((start, end))
        else:
            out += within(many, start, end)
    return tuple(out)
