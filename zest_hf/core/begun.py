"""The first chunks of a GET that came to an end too early: written, and as unproved as the rest will be. Pure.

Who goes on with it, from the CDN or with another member, need not begin again, nor need a process that comes after one
that was killed. The root over all chunks proves these as well; if it does not, the first that is wrong shows who is to
blame, as all behind it lie where it says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from zest_hf.core.manifest import Manifest

Giver = bytes | None
"""The member that has sent something; None: the CDN."""

HERE: Giver = b""
"""What lies on this disk since an earlier process wrote it, and is as it was then."""

LEFT_CHUNKS = 32
"""So many of the last chunks that are there are fetched once more: others have a little less, and may follow then."""

Givers = tuple[tuple[int, Giver], ...]
"""Before which chunk, counted from the first of a GET, who has sent what."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What is there of a GET: its first chunks."""

    chunks: Manifest
    givers: Givers

    @property
    def size_bytes(self) -> int:
        return self.chunks.size_bytes

    def shortened(self) -> Begun | None:
        """For a GET that others who have been following the same are to follow. None: there is too little."""
        count = len(self.chunks) - LEFT_CHUNKS
        if count <= 0:
            return None
        ends = [(min(end, count), giver) for end, giver in self.givers]
        before = (0, *(end for end, _ in ends))
        givers = tuple(one for one, first in zip(ends, before, strict=False) if one[0] > first)
        return Begun(self.chunks.slice(0, count), givers)


def givers_of(chunks: Manifest, giver: Giver, begun: Begun | None) -> Givers:
    """Who has given all chunks of a GET that ``giver`` has gone on with, if it has."""
    if begun is None or len(chunks) < len(begun.chunks) or chunks.slice(0, len(begun.chunks)) != begun.chunks:
        return ((len(chunks), giver),)
    rest = ((len(chunks), giver),) if len(chunks) > len(begun.chunks) else ()
    return begun.givers + rest


def giver_at(givers: Givers, chunk: int) -> Giver:
    """Who has given a chunk."""
    return next(giver for end, giver in givers if chunk < end)


def members(givers: Givers) -> list[bytes]:
    """Those of them that are members of a crowd."""
    return [giver for _, giver in givers if giver]


def peer_bytes(givers: Givers, chunks: Manifest) -> int:
    """How many bytes of the chunks members have given."""
    return sum(size for giver, size in _sizes(givers, chunks) if giver)


def here_bytes(givers: Givers, chunks: Manifest) -> int:
    """How many bytes of the chunks were on this disk."""
    return sum(size for giver, size in _sizes(givers, chunks) if giver == HERE)


def _sizes(givers: Givers, chunks: Manifest) -> Iterator[tuple[Giver, int]]:
    first = 0
    for end, giver in givers:
        end = min(end, len(chunks))
        if end > first:
            yield giver, chunks.offset(end) - chunks.offset(first)
        first = max(first, end)


def begun_bytes(begun: Begun | None, chunks: Manifest) -> int:
    """How much of what there is now was there before."""
    return 0 if begun is None else min(begun.size_bytes, chunks.size_bytes)
