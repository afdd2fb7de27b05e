"""What came with nothing there to check it by, until a manifest says whether it is right. Pure.

From the CDN, or from a member of the crowd that was still fetching it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from zest_hf.core.knowledge import Knowledge
from zest_hf.core.manifest import Manifest
from zest_hf.core.plan import Fetch, FilePlan, Placement
from zest_hf.core.ranges import contains
from zest_hf.errors import ReconstructionError

Giver = bytes | None
"""The member that has sent something; None: the CDN."""


@dataclass(frozen=True, slots=True)
class Part:
    """What was written at one placement."""

    fetch: Fetch
    place: Placement
    chunks: Manifest
    giver: Giver


@dataclass(frozen=True, slots=True)
class Wrong:
    """What one GET has brought, and is not the file's."""

    giver: Giver
    places: list[Placement]


class Unproved:
    """The chunks that were written for each placement of each GET.

    Of a GET that was stopped that is a part: only who knows better lets one stop, so that it is settled at once.
    """

    def __init__(self) -> None:
        self._parts: dict[int, Part] = {}
        """By the first file chunk."""

    def add(self, fetch: Fetch, chunks: Manifest, giver: Giver = None) -> int:
        """A GET of the plan brought ``chunks``, all of its source or the first of it: so many bytes of the file.

        Raises ReconstructionError when a term has another size than the plan says.
        """
        source = fetch.source
        size = 0
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
            self._parts[place.file_chunk] = Part(fetch, brought, part, giver)
            size += part.size_bytes
        return size

    def given(self) -> list[Part]:
        """What members have sent."""
        return [part for part in self._parts.values() if part.giver is not None]

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
                wrong.setdefault(id(part.fetch), Wrong(part.giver, [])).places.append(part.place)
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
        parts = [Wrong(part.giver, [part.place]) for part in self._parts.values()]
        self._parts.clear()
        return parts
