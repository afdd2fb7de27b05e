"""How a file, or a byte range of it, is rebuilt: the plan behind both versions of the answer."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from zest_hf.core.ids import XetHash, hash_to_text
from zest_hf.errors import StorageError
from zest_hf.hub.auth import Ranges
from zest_hf.hub.store import CasStore, StoredFile, StoredTerm, StoredXorb

# url of a xorb (text hash) for these half-open byte ranges
UrlMaker = Callable[[str, Ranges], str]


@dataclass(frozen=True)
class Part:
    """A run of chunks of one xorb and where its packed bytes lie (both half-open)."""

    start: int
    end: int
    byte_start: int
    byte_end: int


@dataclass(frozen=True)
class Plan:
    """Terms that cover the range, bytes to skip in the first, the merged parts to fetch from each xorb."""

    offset_into_first_range: int
    terms: tuple[StoredTerm, ...]
    parts: dict[XetHash, tuple[Part, ...]]


def plan(store: CasStore, file: StoredFile, start: int, end: int) -> Plan:
    """The plan for bytes start..end (half-open) of a file; only chunks that the range touches are named."""
    terms: list[StoredTerm] = []
    offset = 0
    position = 0
    for term in file.terms:
        term_start, position = position, position + term.size_bytes
        if position <= start or term_start >= end:
            continue
        trimmed, skipped = _trim(store, term, start - term_start, end - term_start)
        if not terms:
            offset = start - term_start - skipped if start > term_start else 0
        terms.append(trimmed)
    wanted: dict[XetHash, list[tuple[int, int]]] = {}
    for term in terms:
        wanted.setdefault(term.xorb, []).append((term.start, term.end))
    parts = {xorb: tuple(_parts(store, xorb, runs)) for xorb, runs in wanted.items()}
    return Plan(offset, tuple(terms), parts)


def _trim(store: CasStore, term: StoredTerm, start: int, end: int) -> tuple[StoredTerm, int]:
    """The part of a term whose chunks touch its bytes start..end, and the bytes in front of that part."""
    if start <= 0 and end >= term.size_bytes:
        return term, 0
    lengths = _xorb(store, term.xorb).lengths[term.start : term.end]
    ends = list(accumulate(lengths))
    first = bisect.bisect_right(ends, max(start, 0))
    last = min(bisect.bisect_left(ends, min(end, term.size_bytes)), len(ends) - 1)
    skipped = ends[first - 1] if first else 0
    size_bytes = ends[last] - skipped
    return StoredTerm(term.xorb, term.start + first, term.start + last + 1, size_bytes), skipped


def _parts(store: CasStore, xorb: XetHash, runs: list[tuple[int, int]]) -> list[Part]:
    offsets = _xorb(store, xorb).offsets
    merged: list[tuple[int, int]] = []
    for start, end in sorted(runs):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return [Part(start, end, offsets[start], offsets[end]) for start, end in merged]


def _xorb(store: CasStore, xorb: XetHash) -> StoredXorb:
    found = store.xorb(xorb)
    if found is None:
        raise StorageError(f"xorb {hash_to_text(xorb)} is missing from the hub's state")
    return found


def _terms(the_plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "hash": hash_to_text(term.xorb),
            "unpacked_length": term.size_bytes,
            "range": {"start": term.start, "end": term.end},
        }
        for term in the_plan.terms
    ]


def answer_v1(the_plan: Plan, make_url: UrlMaker) -> dict[str, Any]:
    """Version 1: one url for every part. Byte ranges on the wire include their last byte."""
    fetch_info = {}
    for xorb, parts in the_plan.parts.items():
        name = hash_to_text(xorb)
        fetch_info[name] = [
            {
                "range": {"start": part.start, "end": part.end},
                "url": make_url(name, ((part.byte_start, part.byte_end),)),
                "url_range": {"start": part.byte_start, "end": part.byte_end - 1},
            }
            for part in parts
        ]
    return {
        "offset_into_first_range": the_plan.offset_into_first_range,
        "terms": _terms(the_plan),
        "fetch_info": fetch_info,
    }


def answer_v2(the_plan: Plan, make_url: UrlMaker, *, ranges_per_url: int) -> dict[str, Any]:
    """Version 2: up to ``ranges_per_url`` parts of a xorb share a url."""
    xorbs = {}
    for xorb, parts in the_plan.parts.items():
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
    return {
        "offset_into_first_range": the_plan.offset_into_first_range,
        "terms": _terms(the_plan),
        "xorbs": xorbs,
    }
