"""What is known of one peer of a file. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain

from zest_hf.core.pieces import Piece
from zest_hf.core.ranges import Ranges, contains, within
from zest_hf.core.rate import RateMeter

_NEVER = float("-inf")


@dataclass(slots=True)
class Peer:
    """What is known of one. Ranges are chunks of the file."""

    by_file: Ranges = ()
    by_xorb: Ranges = ()
    """What it holds of xorbs that the file takes from."""
    askable: Ranges = ()
    """... of both, as far as it can be checked."""
    assignments: dict[int, int] = field(default_factory=dict)
    """Bytes that it was asked for, in the order of asking."""
    ahead_bytes: int = 0
    """... all of them."""
    meter: RateMeter = field(default_factory=RateMeter)
    suspended_until_s: float = _NEVER
    struck_s: float = _NEVER
    """When it was of no use last, and how often in a row:"""
    strikes: int = 0
    cursor: tuple[int, int] | None = None
    """Where the last piece ended that it was asked for, and the GET of that."""
    looked_s: float = _NEVER
    """When it was looked for what it could take over from others."""
    idle_generation: int = -1
    """Of the pieces, when it was found that it holds nothing that is wanted."""

    def is_able(self, now_s: float) -> bool:
        return bool(self.askable) and self.suspended_until_s <= now_s

    def has_all_of(self, piece: Piece) -> bool:
        """Whether it holds what is left of a piece, in one way or the other."""
        return contains(self.by_file, piece.first, piece.end) or contains(self.by_xorb, piece.first, piece.end)

    def part_of(self, piece: Piece) -> tuple[int, int] | None:
        """The longest part of what is left of a piece that it holds in one way or the other."""
        if self.has_all_of(piece):
            return piece.first, piece.end
        parts = chain(within(self.by_file, piece.first, piece.end), within(self.by_xorb, piece.first, piece.end))
        return max(parts, key=length_of, default=None)

    def expected_end_s(self, assignment: int, now_s: float) -> float:
        """How long it will need for one of the things that it was asked for."""
        rate = self.meter.bytes_s(now_s)
        ahead = sum(size for other, size in self.assignments.items() if other <= assignment)
        return ahead / rate if rate > 0 else float("inf")


def length_of(part: tuple[int, int]) -> int:
    """How many chunks a part has."""
    return part[1] - part[0]
