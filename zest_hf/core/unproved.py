"""What the CDN sent with nothing there to check it by, until the file's manifest says whether it is right. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from zest_hf.core.manifest import Manifest
from zest_hf.core.plan import Fetch, Placement
from zest_hf.errors import ReconstructionError


class Unproved:
    """The chunks that were written for each placement of each GET."""

    def __init__(self) -> None:
        self._parts: dict[int, tuple[Fetch, Placement, Manifest]] = {}
        """By the first file chunk."""

    def add(self, fetch: Fetch, chunks: Manifest) -> None:
        """A GET of the plan brought ``chunks`` of its source.

        Raises ReconstructionError when a term has another size than the plan says.
        """
        source = fetch.source
        for place in fetch.placements:
            part = chunks.slice(place.start - source.start, place.end - source.start)
            if part.size_bytes != place.size_bytes:
                raise ReconstructionError(
                    f"reconstruction: a term of {place.size_bytes} bytes has {part.size_bytes} in the xorb"
                )
            self._parts[place.file_chunk] = fetch, place, part

    def settle(self, manifest: Manifest) -> list[list[Placement]]:
        """Forgets everything; for each GET that the file's proved manifest contradicts, where it does."""
        parts, self._parts = self._parts, {}
        wrong: dict[int, list[Placement]] = {}
        for first, (fetch, place, part) in parts.items():
            wanted = manifest.slice(first, first + len(part))
            if wanted.hashes != part.hashes or wanted.lengths != part.lengths:
                wrong.setdefault(id(fetch), []).append(place)
        return list(wrong.values())

    def manifest(self) -> Manifest:
        """All parts in file order: the file's manifest if nothing is missing and nothing wrong."""
        return Manifest.join(self._parts[first][2] for first in sorted(self._parts))

    def drop_doubtful(self, fetches: Iterable[Fetch]) -> list[Placement]:
        """Forgets all GETs but those that brought a whole xorb with the right hash; where they were placed."""
        dropped = []
        for fetch in fetches:
            _, place, part = self._parts[fetch.placements[0].file_chunk]
            whole = fetch.source.start == 0 and (place.start, place.end) == (0, fetch.source.end)
            if whole and part.xorb_hash() == fetch.source.xorb:
                continue
            for place in fetch.placements:
                del self._parts[place.file_chunk]
                dropped.append(place)
        return dropped
