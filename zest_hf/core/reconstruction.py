"""The plan of a file: which chunk ranges of which xorbs it is made of, and where their bytes can be fetched.

Parses the decoded JSON of `GET /v1/reconstructions/{file}` and `GET /v2/reconstructions/{file}` (Xet
specification, "Reconstruction"). Both forms of the same plan parse to equal values. On the wire chunk
ranges are half-open and byte ranges inclusive; here everything is half-open.

The promise to callers: any decoded JSON gives a `Reconstruction` whose terms are all covered by a fetch
range, or `ReconstructionError`, in time and memory proportional to the JSON.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from zest_hf.core.ids import XetHash, hash_from_text, hash_to_text
from zest_hf.core.manifest import MAX_CHUNK_BYTES
from zest_hf.errors import ProtocolError, ReconstructionError

MAX_TERMS: Final = 1 << 20
"""Even with one 64 KiB chunk per term this is 64 GiB in one answer; larger files are asked for in ranges."""

MAX_FETCH_RANGES: Final = 1 << 20
"""A plan needs at most one fetch range per term."""

MAX_CHUNKS_PER_XORB: Final = 8192
"""Xet specification, limits of a xorb."""

MAX_XORB_BYTES: Final = 128 << 20
"""Serialized bytes. The specification stops at 64 MiB; twice that leaves room for headers and a footer."""

MAX_URL_BYTES: Final = 8192
"""What common servers accept in a request line."""

# Signed urls are plain ASCII. Anything else would be rewritten on its way to the CDN, or split its request.
_URL: Final = re.compile(r"https?://[\x21-\x7e]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Term:
    """A piece of the file: chunks start..end (half-open) of `xorb`, `size_bytes` unpacked."""

    xorb: XetHash
    start: int
    end: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FetchRange:
    """Chunks start..end of `xorb` are the serialized bytes byte_start..byte_end (both half-open) behind
    `url`.
    """

    xorb: XetHash
    start: int
    end: int
    url: str = field(repr=False)  # carries a signature
    byte_start: int
    byte_end: int

    @property
    def size_bytes(self) -> int:
        """How many bytes travel."""
        return self.byte_end - self.byte_start


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """`terms` in file order; the wanted bytes begin `offset_into_first_range` bytes into the first one.

    When a byte range was asked for, the last term may reach beyond its end. The fetch ranges of a xorb are
    sorted by (start, end, byte_start, byte_end, url).
    """

    offset_into_first_range: int
    terms: tuple[Term, ...]
    fetch_ranges: Mapping[XetHash, tuple[FetchRange, ...]]
    _covers: dict[XetHash, _Cover] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "_covers", {xorb: _Cover(ranges) for xorb, ranges in self.fetch_ranges.items() if ranges}
        )

    @property
    def size_bytes(self) -> int:
        """Unpacked bytes from the offset to the end of the last term."""
        return sum(term.size_bytes for term in self.terms) - self.offset_into_first_range

    def covering(self, term: Term) -> FetchRange:
        """A fetch range that holds all chunks of `term` (which may be a part of one of the plan's terms).

        Raises ReconstructionError when there is none. Cost: logarithmic in the xorb's ranges.
        """
        cover = self._covers.get(term.xorb)
        found = cover.find(term.start, term.end) if cover else None
        if found is None:
            chunks = f"{term.start}..{term.end}"
            raise _error(f"no url for chunks {chunks} of xorb {hash_to_text(term.xorb)}")
        return found


class _Cover:
    """Containment look-up over the fetch ranges of one xorb, sorted by start."""

    __slots__ = ("_reach", "_starts")

    def __init__(self, ranges: tuple[FetchRange, ...]) -> None:
        self._starts = [one.start for one in ranges]
        # For each position the range that reaches furthest among those up to it: if it does not
        # contain a wanted end, none that starts early enough does.
        self._reach: list[FetchRange] = []
        for one in ranges:
            furthest = self._reach[-1] if self._reach else one
            self._reach.append(one if one.end >= furthest.end else furthest)

    def find(self, start: int, end: int) -> FetchRange | None:
        position = bisect_right(self._starts, start) - 1
        if position < 0 or self._reach[position].end < end:
            return None
        return self._reach[position]


def parse_v1(obj: object) -> Reconstruction:
    """`obj`: the decoded JSON of a V1 answer. Raises ReconstructionError on anything malformed."""
    top = _object(obj, "answer")
    fetch_info = _object(_member(top, "fetch_info", "answer"), "fetch_info")
    return _build(top, _v1_ranges(fetch_info))


def parse_v2(obj: object) -> Reconstruction:
    """`obj`: the decoded JSON of a V2 answer; each of an url's ranges becomes a FetchRange. Raises
    ReconstructionError.
    """
    top = _object(obj, "answer")
    xorbs = _object(_member(top, "xorbs", "answer"), "xorbs")
    return _build(top, _v2_ranges(xorbs))


def _v1_ranges(fetch_info: dict[str, Any]) -> Iterator[FetchRange]:
    for text, entries in fetch_info.items():
        xorb = _hash(text, "fetch_info")
        for i, raw in enumerate(_list(entries, "fetch_info entry")):
            where = f"fetch_info[{text[:8]}][{i}]"
            entry = _object(raw, where)
            url = _url(_member(entry, "url", where), where)
            chunks = _member(entry, "range", where)
            yield _fetch_range(xorb, url, chunks, _member(entry, "url_range", where), where)


def _v2_ranges(xorbs: dict[str, Any]) -> Iterator[FetchRange]:
    for text, entries in xorbs.items():
        xorb = _hash(text, "xorbs")
        for i, raw in enumerate(_list(entries, "xorbs entry")):
            where = f"xorbs[{text[:8]}][{i}]"
            entry = _object(raw, where)
            url = _url(_member(entry, "url", where), where)
            for raw_range in _list(_member(entry, "ranges", where), f"{where}.ranges"):
                pair = _object(raw_range, f"{where}.ranges")
                chunks = _member(pair, "chunks", where)
                yield _fetch_range(xorb, url, chunks, _member(pair, "bytes", where), where)


def _build(top: dict[str, Any], ranges: Iterator[FetchRange]) -> Reconstruction:
    raw_terms = _list(_member(top, "terms", "answer"), "terms")
    if len(raw_terms) > MAX_TERMS:
        raise _error(f"{len(raw_terms)} terms, at most {MAX_TERMS} are accepted")
    terms = tuple(_term(raw, f"terms[{i}]") for i, raw in enumerate(raw_terms))

    # An empty file has no terms and no first one to be inside of.
    first_bytes = terms[0].size_bytes if terms else 1
    key = "offset_into_first_range"
    offset = _int(_member(top, key, "answer"), key, 0, first_bytes - 1)

    by_xorb: dict[XetHash, list[FetchRange]] = {}
    for count, one in enumerate(ranges, 1):
        if count > MAX_FETCH_RANGES:
            raise _error(f"more than {MAX_FETCH_RANGES} fetch ranges")
        by_xorb.setdefault(one.xorb, []).append(one)
    fetch_ranges = {xorb: tuple(sorted(some, key=_order)) for xorb, some in by_xorb.items()}
    result = Reconstruction(offset, terms, MappingProxyType(fetch_ranges))
    for term in terms:
        result.covering(term)
    return result


def _order(one: FetchRange) -> tuple[int, int, int, int, str]:
    return (one.start, one.end, one.byte_start, one.byte_end, one.url)


def _term(raw: object, where: str) -> Term:
    term = _object(raw, where)
    xorb = _hash(_member(term, "hash", where), where)
    start, end = _chunk_range(_member(term, "range", where), f"{where}.range")
    count = end - start
    size = _int(
        _member(term, "unpacked_length", where), f"{where}.unpacked_length", count, count * MAX_CHUNK_BYTES
    )
    return Term(xorb, start, end, size)


def _fetch_range(xorb: XetHash, url: str, chunks: object, raw_bytes: object, where: str) -> FetchRange:
    start, end = _chunk_range(chunks, f"{where}.chunks")
    inclusive = _object(raw_bytes, f"{where}.bytes")
    first = _int(_member(inclusive, "start", where), f"{where}.bytes.start", 0, MAX_XORB_BYTES - 1)
    last = _int(_member(inclusive, "end", where), f"{where}.bytes.end", first, MAX_XORB_BYTES - 1)
    return FetchRange(xorb, start, end, url, first, last + 1)


def _chunk_range(raw: object, where: str) -> tuple[int, int]:
    pair = _object(raw, where)
    start = _int(_member(pair, "start", where), f"{where}.start", 0, MAX_CHUNKS_PER_XORB - 1)
    return start, _int(_member(pair, "end", where), f"{where}.end", start + 1, MAX_CHUNKS_PER_XORB)


def _url(raw: object, where: str) -> str:
    if not isinstance(raw, str):
        raise _error(f"{where}.url is not a string")
    if len(raw) > MAX_URL_BYTES:
        raise _error(f"{where}.url has {len(raw)} characters, at most {MAX_URL_BYTES} are accepted")
    try:
        host = urlsplit(raw).hostname if _URL.fullmatch(raw) else None
    except ValueError:
        host = None
    if not host:
        raise _error(f"{where}.url is not an http(s) url")
    return raw


def _hash(raw: object, where: str) -> XetHash:
    if not isinstance(raw, str):
        raise _error(f"{where}: hash is not a string")
    try:
        return hash_from_text(raw)
    except ProtocolError as error:
        raise _error(f"{where}: {error}") from None


def _int(raw: object, where: str, low: int, high: int) -> int:
    # bool is a subclass of int, and 1.0 is not an index: only a JSON integer will do.
    if type(raw) is not int:
        raise _error(f"{where} is not an integer")
    if not low <= raw <= high:
        # A hostile number may be too long to print.
        shown = str(raw) if raw.bit_length() <= 64 else "a huge number"
        raise _error(f"{where} is {shown}, accepted is {low}..{high}")
    return raw


def _object(raw: object, where: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise _error(f"{where} is not an object")
    return raw


def _list(raw: object, where: str) -> list[Any]:
    if not isinstance(raw, list):
        raise _error(f"{where} is not a list")
    return raw


def _member(raw: dict[str, Any], key: str, where: str) -> object:
    if key not in raw:
        raise _error(f"{where} lacks {key!r}")
    return raw[key]


def _error(what: str) -> ReconstructionError:
    return ReconstructionError(f"reconstruction: {what}")
