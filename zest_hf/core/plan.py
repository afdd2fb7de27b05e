"""From a reconstruction to work: what one GET brings where, and the pieces that sources are asked for.

Pure. Three measures occur: chunks of a xorb, chunks of the file (numbered through all terms), bytes of the file.
All ranges are half-open.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from zest_hf.core.ids import XetHash
from zest_hf.core.reconstruction import FetchRange, Reconstruction, Term

PIECE_CHUNKS: Final = 64
"""Chunks asked of a peer at once: about 4 MiB. Enough that the hop through Python costs nothing, few enough that
losing a peer in the middle of one, or waiting for the last one, costs little.
"""


@dataclass(frozen=True, slots=True)
class Placement:
    """Chunks start..end of a xorb lie in the file from byte file_offset on, as its chunks from file_chunk on."""

    start: int
    end: int
    file_offset: int
    file_chunk: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """One ranged GET and what of it goes where."""

    source: FetchRange
    placements: tuple[Placement, ...]

    @property
    def is_one_piece(self) -> bool:
        """Whether all that it brings lies together in the file."""
        if len(self.placements) != 1:
            return False
        place = self.placements[0]
        return (place.start, place.end) == (self.source.start, self.source.end)

    @property
    def size_bytes(self) -> int:
        """Bytes of the file that it gives."""
        return sum(placement.size_bytes for placement in self.placements)


@dataclass(frozen=True, slots=True)
class PlannedPiece:
    """File chunks first..first+count, which are chunks xorb_first.. of `xorb`; `fetch` is the index of its GET."""

    first: int
    count: int
    xorb: XetHash
    xorb_first: int
    fetch: int


@dataclass(frozen=True, slots=True)
class FilePlan:
    """A whole file: its terms, the GETs that would bring all of it, and its pieces in file order."""

    terms: tuple[Term, ...]
    chunk_count: int
    size_bytes: int
    fetches: tuple[Fetch, ...]
    pieces: tuple[PlannedPiece, ...]


def fetches_of(plan: Reconstruction, file_offset: int = 0, file_chunk: int = 0) -> tuple[Fetch, ...]:
    """The GETs for a reconstruction, in the order in which the file needs them.

    ``file_offset`` and ``file_chunk`` say where its first term begins. Each fetch range is asked for once,
    also when several terms lie in it.
    """
    placements: dict[FetchRange, list[Placement]] = {}
    for term in plan.terms:
        placement = Placement(term.start, term.end, file_offset, file_chunk, term.size_bytes)
        placements.setdefault(plan.covering(term), []).append(placement)
        file_offset += term.size_bytes
        file_chunk += term.end - term.start
    return tuple(Fetch(source, tuple(places)) for source, places in placements.items())


def plan_file(plan: Reconstruction, piece_chunks: int = PIECE_CHUNKS) -> FilePlan:
    """The work for a whole file from the reconstruction of all of it (offset_into_first_range 0)."""
    fetches = fetches_of(plan)
    index_of = {fetch.source: index for index, fetch in enumerate(fetches)}
    firsts = list(accumulate((term.end - term.start for term in plan.terms), initial=0))
    pieces = tuple(
        PlannedPiece(
            first=first + (start - term.start),
            count=min(piece_chunks, term.end - start),
            xorb=term.xorb,
            xorb_first=start,
            fetch=index_of[plan.covering(term)],
        )
        for term, first in zip(plan.terms, firsts, strict=False)
        for start in range(term.start, term.end, piece_chunks)
    )
    return FilePlan(plan.terms, firsts[-1], plan.size_bytes, fetches, pieces)
