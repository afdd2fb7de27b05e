"""Files without bytes: terms, xorbs and fetch ranges of any shape, with true hashes over invented chunks."""

from __future__ import annotations

import hashlib
import random
from array import array
from dataclasses import dataclass
from functools import cached_property

from hypothesis import strategies as st

from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.plan import FilePlan, plan_file
from zest_hf.core.reconstruction import FetchRange, Reconstruction, Term


@dataclass(frozen=True)
class Layout:
    """``piece_chunks``: how large the pieces of its plan are."""

    reconstruction: Reconstruction
    xorbs: dict[XetHash, Manifest]
    piece_chunks: int

    @cached_property
    def manifest(self) -> Manifest:
        """The file's true one."""
        terms = self.reconstruction.terms
        return Manifest.join(self.xorbs[term.xorb].slice(term.start, term.end) for term in terms)

    @cached_property
    def file_hash(self) -> XetHash:
        return self.manifest.file_hash()

    @cached_property
    def plan(self) -> FilePlan:
        return plan_file(self.reconstruction, self.piece_chunks)

    def truth(self, source: FetchRange) -> Manifest:
        """What an honest CDN sends for a fetch range."""
        return self.xorbs[source.xorb].slice(source.start, source.end)


def xorb(seed: str, lengths: list[int]) -> Manifest:
    """A xorb of chunks of these lengths with hashes that nothing else has."""
    hashes = b"".join(hashlib.sha256(f"{seed}/{i}".encode()).digest() for i in range(len(lengths)))
    return Manifest(hashes, array("I", lengths))


def layout(
    xorbs: list[Manifest],
    terms: list[tuple[int, int, int]],
    *,
    ranges: str = "merged",
    piece_chunks: int = 64,
) -> Layout:
    """``terms``: (number of the xorb, start, end). ``ranges``: "exact" (one a term), "merged" (a CAS's), "whole"."""
    by_hash = {one.xorb_hash(): one for one in xorbs}
    names = [one.xorb_hash() for one in xorbs]
    found = tuple(Term(names[x], a, b, xorbs[x].slice(a, b).size_bytes) for x, a, b in terms)
    fetch_ranges: dict[XetHash, tuple[FetchRange, ...]] = {}
    for name in dict.fromkeys(term.xorb for term in found):
        wanted = sorted({(term.start, term.end) for term in found if term.xorb == name})
        if ranges == "merged":
            wanted = _merged(wanted)
        elif ranges == "whole":
            wanted = [(0, len(by_hash[name]))]
        some = by_hash[name]
        fetch_ranges[name] = tuple(
            FetchRange(name, a, b, f"http://cdn/{name.hex()[:8]}", some.offset(a), some.offset(b)) for a, b in wanted
        )
    return Layout(Reconstruction(0, found, fetch_ranges), by_hash, piece_chunks)


def plain(xorbs: int, chunks: int, chunk_bytes: int = 65536, piece_chunks: int = 64) -> Layout:
    """A file that is so many whole xorbs, one after the other."""
    return layout(
        [xorb(f"plain{number}", [chunk_bytes] * chunks) for number in range(xorbs)],
        [(number, 0, chunks) for number in range(xorbs)],
        piece_chunks=piece_chunks,
    )


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for start, end in ranges:
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out


@st.composite
def layouts(draw: st.DrawFn, max_xorbs: int = 4, max_terms: int = 8) -> Layout:
    """Any file: terms that repeat, overlap, share a fetch range, use a part of one or all of it."""
    sizes = draw(st.lists(st.integers(1, 24), min_size=1, max_size=max_xorbs))
    rng = random.Random(draw(st.integers(0, 1 << 30)))
    xorbs = [xorb(f"{n}", [rng.randint(1, 131072) for _ in range(size)]) for n, size in enumerate(sizes)]
    terms = []
    for _ in range(draw(st.integers(1, max_terms))):
        number = draw(st.integers(0, len(xorbs) - 1))
        start = draw(st.integers(0, sizes[number] - 1))
        terms.append((number, start, draw(st.integers(start + 1, sizes[number]))))
    ranges = draw(st.sampled_from(["exact", "merged", "whole"]))
    return layout(xorbs, terms, ranges=ranges, piece_chunks=draw(st.integers(1, 9)))
