"""From terms and the layouts of xorbs to the plan of any byte range of a file, in both versions of the answer.

Implements the server side of the reconstruction section of the Xet specification
(https://huggingface.co/docs/xet/file-reconstruction). Pure: layouts come from a function. Ranges are half-open here;
in the answers, byte ranges include their last byte.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

from zest_hf.core.ids import XetHash, hash_to_text
from zest_hf.core.reconstruction import Term
from zest_hf.errors import ReconstructionError

UrlMaker = Callable[[str, tuple[tuple[int, int], ...]], str]
"""Url of a xorb (text form of its hash) for these byte ranges."""


class Layout(Protocol):
    """Where the n chunks of a xorb are: a `ChunkTable` is one."""

    @property
    def lengths(self) -> Sequence[int]:
        """Unpacked bytes of each."""

    @property
    def packed_offsets(self) -> Sequence[int]:
        """n + 1 byte offsets in the serialized xorb."""


@dataclass(frozen=True, slots=True)
class Part:
    """A run of chunks of one xorb and where its packed bytes lie."""

    start: int
    end: int
    byte_start: int
    byte_end: int


@dataclass(frozen=True, slots=True)
class RangePlan:
    """Terms that cover the range, bytes to skip in the first, the merged parts to fetch from each xorb."""

    offset_into_first_range: int
    terms: tuple[Term, ...]
    parts: Mapping[XetHash, tuple[Part, ...]]

    def to_v1(self, make_url: UrlMaker) -> dict[str, Any]:
        """The JSON of version 1: one url for every part."""
        fetch_info = {}
        for xorb, parts in self.parts.items():
            name = hash_to_text(xorb)
            fetch_info[name] = [
                {
                    "range": {"start": part.start, "end": part.end},
                    "url": make_url(name, ((part.byte_start, part.byte_end),)),
                    "url_range": {"start": part.byte_start, "end": part.byte_end - 1},
                }
                for part in parts
            ]
        return {**self._terms(), "fetch_info": fetch_info}

    def to_v2(self, make_url: UrlMaker, *, ranges_per_url: int = 1) -> dict[str, Any]:
        """The JSON of version 2: up to `ranges_per_url` parts of a xorb share a url."""
        xorbs = {}
        for xorb, parts in self.parts.items():
            name = hash_to_text(xorb)
            groups = [parts[at : at + ranges_per_url] for at in range(0, len(parts), ranges_per_url)]
            xorbs[name] = [
                {
                    "url": make_url(name, tuple((part.byte_start, part.byte_end) for part in group)),
                    "ranges": [
                        {
                            "chunks": {"start": part.start, "end": part.end},
                            "bytes": {"start": part.byte_start, "end": part.byte_end - 1},
                        }
                        for part in group
                    ],
                }
                for group in groups
            ]
        return {**self._terms(), "xorbs": xorbs}

    def _terms(self) -> dict[str, Any]:
        terms = [
            {
                "hash": hash_to_text(term.xorb),
                "unpacked_length": term.size_bytes,
                "range": {"start": term.start, "end": term.end},
            }
            for term in self.terms
        ]
        return {"offset_into_first_range": self.offset_into_first_range, "terms": terms}


def plan_range(
    terms: Iterable[Term], layout_of: Callable[[XetHash], Layout], start: int = 0, end: int | None = None
) -> RangePlan:
    """The plan for bytes start..end of the file that consists of `terms`; end None is its end.

    Only chunks that the range touches are named. `layout_of` is asked for the xorbs that the range needs, and
    may raise. Raises ReconstructionError for a term that its xorb's layout does not have, and for a range
    that begins at or behind the end of the file (but 0..0 of an empty file is well) or is empty.
    """
    if start < 0 or (end is not None and start >= end and (start, end) != (0, 0)):
        raise ReconstructionError(f"bytes {start}..{end} are no range of a file")
    touched: list[Term] = []
    offset = position = 0
    for term in terms:
        term_start, position = position, position + term.size_bytes
        if position <= start or (end is not None and term_start >= end):
            continue
        last = term.size_bytes if end is None else min(end - term_start, term.size_bytes)
        trimmed, skipped = _trim(layout_of, term, max(start - term_start, 0), last)
        if not touched:
            offset = max(start - term_start - skipped, 0)
        touched.append(trimmed)
    if not touched and (position or start):
        raise ReconstructionError(f"bytes {start}..{end} are no range of a file of {position} bytes")
    wanted: dict[XetHash, list[tuple[int, int]]] = {}
    for term in touched:
        wanted.setdefault(term.xorb, []).append((term.start, term.end))
    parts = {xorb: tuple(_parts(layout_of(xorb), runs, xorb)) for xorb, runs in wanted.items()}
    return RangePlan(offset, tuple(touched), parts)


def _trim(layout_of: Callable[[XetHash], Layout], term: Term, start: int, end: int) -> tuple[Term, int]:
    """The part of a term whose chunks touch its bytes start..end, and the bytes in front of that part."""
    if start == 0 and end == term.size_bytes:
        return term, 0
    ends = list(accumulate(layout_of(term.xorb).lengths[term.start : term.end]))
    if len(ends) != term.end - term.start or ends[-1] != term.size_bytes:
        raise _unknown(term.xorb, term.start, term.end)
    first = bisect_right(ends, start)
    last = bisect_left(ends, end)
    skipped = ends[first - 1] if first else 0
    return Term(term.xorb, term.start + first, term.start + last + 1, ends[last] - skipped), skipped


def _parts(layout: Layout, runs: list[tuple[int, int]], xorb: XetHash) -> Iterator[Part]:
    offsets = layout.packed_offsets
    merged: list[tuple[int, int]] = []
    for start, end in sorted(runs):
        if end >= len(offsets):
            raise _unknown(xorb, start, end)
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return (Part(start, end, offsets[start], offsets[end]) for start, end in merged)


def _unknown(xorb: XetHash, start: int, end: int) -> ReconstructionError:
    return ReconstructionError(f"xorb {hash_to_text(xorb)} does not have the chunks {start}..{end} of a term")
