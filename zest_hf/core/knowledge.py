"""Which chunks of a file are known by hash and length, so that anybody's bytes can be checked against them. Pure.

The file's proved manifest gives all of them. Before there is one, the proved manifest of a xorb gives those of every
term that takes from it: a fine-tune's xorbs are known to who holds its base, and what the CDN sent as a
whole xorb proves itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate

from zest_hf.core.ids import XetHash, hash_to_text
from zest_hf.core.manifest import Manifest
from zest_hf.core.plan import Fetch, FilePlan
from zest_hf.core.ranges import Ranges, normalized
from zest_hf.errors import ReconstructionError


class Knowledge:
    """Of one file. Chunks are numbered through the file."""

    def __init__(self, plan: FilePlan) -> None:
        self._plan = plan
        terms = plan.terms
        self._firsts = list(accumulate((term.end - term.start for term in terms), initial=0))
        """First chunk of each term, and the end."""
        self._offsets = list(accumulate((term.size_bytes for term in terms), initial=0))
        self._terms_of: dict[XetHash, list[int]] = {}
        for number, term in enumerate(terms):
            self._terms_of.setdefault(term.xorb, []).append(number)
        self._xorbs: dict[XetHash, Manifest] = {}
        self._file: Manifest | None = None
        self.known: Ranges = ()
        """The chunks that are known."""

    @property
    def file(self) -> Manifest | None:
        """The file's proved manifest."""
        return self._file

    def knows_xorb(self, xorb: XetHash) -> bool:
        return self._file is not None or xorb in self._xorbs

    def file_proved(self, manifest: Manifest) -> None:
        """Raises ReconstructionError when a term does not begin and end where the manifest says.

        The CDN's chunks are written by the plan: one that is wrong would spoil its neighbours.
        """
        if len(manifest) != self._plan.chunk_count or any(
            manifest.offset(first) != offset for first, offset in zip(self._firsts, self._offsets, strict=True)
        ):
            raise ReconstructionError("reconstruction: it does not fit the file's proved manifest")
        self._file = manifest
        self.known = normalized([(0, len(manifest))], len(manifest))

    def xorb_proved(self, xorb: XetHash, manifest: Manifest) -> None:
        """Raises ReconstructionError when the plan has a term that this xorb does not have."""
        if self.knows_xorb(xorb) or xorb not in self._terms_of:
            return
        for number in self._terms_of[xorb]:
            term = self._plan.terms[number]
            if (
                term.end > len(manifest)
                or manifest.offset(term.end) - manifest.offset(term.start) != term.size_bytes
            ):
                raise ReconstructionError(
                    f"reconstruction: it does not fit the proved manifest of xorb {hash_to_text(xorb)}"
                )
        self._xorbs[xorb] = manifest
        new = [(self._firsts[number], self._firsts[number + 1]) for number in self._terms_of[xorb]]
        self.known = normalized([*self.known, *new], self._plan.chunk_count)

    def terms_of(self, xorb: XetHash) -> list[int]:
        """The first chunks of the terms that take from a xorb."""
        return [self._firsts[number] for number in self._terms_of.get(xorb, ())]

    def offset(self, chunk: int) -> int:
        """The byte of the file at which a chunk that is known begins, or where a term ends."""
        if self._file is not None:
            return self._file.offset(chunk)
        number = bisect_right(self._firsts, chunk) - 1
        inside = chunk - self._firsts[number]
        if inside == 0:
            return self._offsets[number]
        term = self._plan.terms[number]
        xorb = self._xorbs[term.xorb]
        return self._offsets[number] + xorb.offset(term.start + inside) - xorb.offset(term.start)

    def part(self, first: int, end: int) -> Manifest:
        """Hashes and lengths of chunks that are known."""
        if self._file is not None:
            return self._file.slice(first, end)
        return Manifest.join(
            self._xorbs[xorb].slice(xorb_first, xorb_first + count)
            for xorb, xorb_first, count in self.in_xorbs(first, end)
        )

    def in_file(self, xorb: XetHash, ranges: Iterable[tuple[int, int]]) -> Ranges:
        """Chunks of a xorb as chunks of the file: wherever its terms put them."""
        held = normalized(ranges, 1 << 28)
        out: list[tuple[int, int]] = []
        for number in self._terms_of.get(xorb, ()):
            term = self._plan.terms[number]
            shift = self._firsts[number] - term.start
            out += [
                (max(start, term.start) + shift, min(end, term.end) + shift)
                for start, end in held
                if start < term.end and term.start < end
            ]
        return normalized(out, self._plan.chunk_count)

    def expected_of(self, fetch: Fetch) -> bytes | None:
        """The hashes of all chunks of a GET's source, when every one of them is known."""
        source = fetch.source
        xorb = self._xorbs.get(source.xorb)
        if xorb is not None and source.end <= len(xorb):
            return xorb.hashes[32 * source.start : 32 * source.end]
        if self._file is None:
            return None
        known: list[bytes | None] = [None] * (source.end - source.start)
        for place in fetch.placements:
            first, count = place.file_chunk, place.end - place.start
            hashes = self._file.hashes[32 * first : 32 * (first + count)]
            if count == len(known):
                return hashes
            at = place.start - source.start
            known[at : at + count] = [hashes[32 * i : 32 * i + 32] for i in range(count)]
        complete = [one for one in known if one is not None]
        return b"".join(complete) if len(complete) == len(known) else None

    def in_xorbs(self, first: int, end: int) -> Iterable[tuple[XetHash, int, int]]:
        """Which chunks of which xorbs these of the file are: the xorb, the first of them there, how many."""
        while first < end:
            number = bisect_right(self._firsts, first) - 1
            term = self._plan.terms[number]
            count = min(end, self._firsts[number + 1]) - first
            yield term.xorb, term.start + first - self._firsts[number], count
            first += count
