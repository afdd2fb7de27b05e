"""What came with nothing there to check it by, until a manifest says whether it is right. Pure.

From the CDN, or from a member of the crowd that was still fetching it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from zest_hf.core.begun import Giver, Givers, giver_at, here_bytes, members, peer_bytes
from zest_hf.core.knowledge import Knowledge
from zest_hf.core.manifest import Manifest
from zest_hf.core.plan import Fetch, FilePlan, Placement
from zest_hf.core.ranges import contains
from zest_hf.errors import ReconstructionError


@dataclass(frozen=True, slots=True)
class Part:
    """What was written at one placement."""

    fetch: Fetch
    place: Placement
    chunks: Manifest
    givers: Givers

    @property
    def is_from_peers(self) -> bool:
        """Some of it."""
        return bool(members(self.givers))

    @property
    def peer_bytes(self) -> int:
        return peer_bytes(self.givers, self.chunks)

    @property
    def here_bytes(self) -> int:
        """... and how many were on this disk."""
        return here_bytes(self.givers, self.chunks)


@dataclass(frozen=True, slots=True)
class Wrong:
    """What one GET has brought, and is not the file's. ``giver``: who is to blame."""

    giver: Giver
    parts: list[Part]


class Unproved:
    """The chunks that were written for each placement of each GET.

    Of a GET that was stopped that is a part: only who knows better lets one stop, so that it is settled at once.
    """

    def __init__(self) -> None:
        self._parts: dict[int, Part] = {}
        """By the first file chunk."""

    def add(self, fetch: Fetch, chunks: Manifest, givers: Givers) -> list[Part]:
        """A GET of the plan brought ``chunks``, all of its source or the first of it: what is where.

        What members have given has one placement. Raises ReconstructionError when a term has another size than the
        plan says.
        """
        source = fetch.source
        added = []
        for place in fetch.placements:
            start, end = place.start - source.start, min(place.end - source.start, len(chunks))
            if start >= end:
                continue
            part = chunks.slice(start, end)
            is_whole = place.end - source.start == end
            if part.size_bytes > place.size_bytes or (is_whole and part.size_bytes < place.size_bytes):
                raise ReconstructionError(
                    f"reconstruction: a term of {place.size_bytes} bytes has {part.size_bytes} in the xorb"
                )
            brought = replace(place, end=source.start + end, size_bytes=part.size_bytes)
            added.append(Part(fetch, brought, part, givers))
        self._parts |= {part.place.file_chunk: part for part in added}
        return added

    def given(self) -> list[Part]:
        """What members have sent."""
        return [part for part in self._parts.values() if part.is_from_peers]

    def settle(self, knowledge: Knowledge, terms: Iterable[int] | None = None) -> tuple[list[Placement], list[Wrong]]:
        """Forgets what is known by now: where it was right, and for each GET that was wrong, where.

        ``terms``: the first chunks of those to look at, else all.
        """
        right: list[Placement] = []
        wrong: dict[int, Wrong] = {}
        for first in list(self._parts if terms is None else terms):
            if first not in self._parts:
                continue
            part = self._parts[first]
            end = first + len(part.chunks)
            if not contains(knowledge.known, first, end):
                continue
            del self._parts[first]
            wanted = knowledge.part(first, end)
            if wanted == part.chunks:
                right.append(part.place)
            else:
                several = len(part.givers) > 1 or part.is_from_peers or part.here_bytes
                blame = giver_at(part.givers, first_wrong(wanted, part.chunks)) if several else None
                wrong.setdefault(id(part.fetch), Wrong(blame, [])).parts.append(part)
        return right, list(wrong.values())

    def manifest(self, plan: FilePlan, knowledge: Knowledge) -> Manifest:
        """With nothing missing: what the file's manifest is, if all that is here is right."""
        parts = []
        first = 0
        for term in plan.terms:
            end = first + term.end - term.start
            parts.append(self._parts[first].chunks if first in self._parts else knowledge.part(first, end))
            first = end
        return Manifest.join(parts)

    def drop(self) -> list[Wrong]:
        """Forgets everything, as some of it is wrong."""
        parts = [Wrong(None, [part]) for part in self._parts.values()]
        self._parts.clear()
        return parts


def first_wrong(known: Manifest, chunks: Manifest) -> int:
    """The first chunk that is another than it should be; as many as there are: none is."""
    count = min(len(known), len(chunks))
    if known.slice(0, count) == chunks.slice(0, count):
        return count
    return next(at for at in range(count) if known.hash(at) != chunks.hash(at) or known.length(at) != chunks.length(at))
