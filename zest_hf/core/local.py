"""What of a wanted file is on this disk already, in files that are known, and what to copy of it. Pure.

Two ways lead from a wanted chunk to one that is here: both files take it from the same place of the same xorb, or both
manifests name it by the same hash. The first one needs no manifest of the wanted file: what is here of a xorb, from all
files together, proves itself when it is the whole xorb. Only what is proved is copied, so that each chunk is checked on
its way: whatever happened to a file since it was noted can only make it useless.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from zest_hf.core.actions import CopyLocal
from zest_hf.core.assignments import Assignment, Assignments
from zest_hf.core.begun import HERE, Begun
from zest_hf.core.ids import HASH_SIZE, XetHash
from zest_hf.core.knowledge import Knowledge
from zest_hf.core.manifest import Manifest
from zest_hf.core.pieces import Piece, Pieces
from zest_hf.core.plan import FilePlan
from zest_hf.core.ranges import Ranges, contains, normalized, within, without
from zest_hf.core.reconstruction import Term

COPY_BYTES = 8 << 20
"""... at once: some milliseconds of a disk, and much more than it costs to say so."""

MIN_CHUNKS = 16
"""A shorter stretch inside of a GET is not worth making two of it, each with its own way to the CAS and the CDN."""

MAX_WRONG = 3
"""So often may a file turn out to be another than it was, before nothing more of it is tried."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this disk as it was when it was proved, or what of one lies from byte `offset` on.

    ``terms`` may be empty: they are not known.
    """

    manifest: Manifest
    terms: tuple[Term, ...]
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """Wanted file chunks first..end are chunks from `chunk` on of a local file; ``source``: which one."""

    first: int
    end: int
    source: int
    chunk: int


@dataclass(frozen=True, slots=True)
class _Span:
    """Chunks start..end of a xorb are those from `chunk` on of a local file."""

    start: int
    end: int
    source: int
    chunk: int


class LocalFiles:
    """Files of this disk that may have something of a wanted one, the best first."""

    def __init__(self, files: Sequence[LocalFile]) -> None:
        self.files = tuple(files)
        self._spans: dict[XetHash, list[_Span]] = {}
        for source, file in enumerate(self.files):
            chunk = 0
            for term in file.terms:
                count = term.end - term.start
                self._spans.setdefault(term.xorb, []).append(_Span(term.start, term.end, source, chunk))
                chunk += count

    def proved_xorbs(self, plan: FilePlan) -> Iterator[tuple[XetHash, Manifest]]:
        """Those of the plan that are here as a whole, by their own hash."""
        terms_of: dict[XetHash, list[Term]] = {}
        for term in plan.terms:
            terms_of.setdefault(term.xorb, []).append(term)
        for xorb, terms in terms_of.items():
            parts: list[Manifest] = []
            end = 0
            for span in sorted(self._spans.get(xorb, ()), key=lambda span: (span.start, -span.end)):
                if span.start > end:
                    break
                if span.end > end:
                    at = span.chunk + end - span.start
                    parts.append(self.files[span.source].manifest.slice(at, at + span.end - end))
                    end = span.end
            if not parts:
                continue
            manifest = Manifest.join(parts)
            # Whether these are all of its chunks only its hash can say, which says nothing of the length of a lone one.
            if manifest.xorb_hash() == xorb and all(_fits(term, manifest) for term in terms):
                yield xorb, manifest

    def by_xorb(self, plan: FilePlan) -> list[Held]:
        """What they have of the plan's terms."""
        held = []
        first = 0
        for term in plan.terms:
            for span in self._spans.get(term.xorb, ()):
                start, end = max(span.start, term.start), min(span.end, term.end)
                if start < end:
                    shift = first - term.start
                    held.append(Held(start + shift, end + shift, span.source, span.chunk + start - span.start))
            first += term.end - term.start
        return _joined(held)

    def by_chunk(self, wanted: Manifest, ranges: Ranges) -> list[Held]:
        """What they have of these chunks of a file of which all hashes are known."""
        missing: dict[bytes, list[int]] = {}
        for first, end in ranges:
            for chunk in range(first, end):
                missing.setdefault(wanted.hash(chunk), []).append(chunk)
        held = []
        for source, file in enumerate(self.files):
            if not missing:
                break
            hashes = file.manifest.hashes
            for at in range(len(file.manifest)):
                found = missing.pop(hashes[HASH_SIZE * at : HASH_SIZE * at + HASH_SIZE], ())
                held += [Held(chunk, chunk + 1, source, at) for chunk in found]
        return _joined(held)


class Copies:
    """Which chunks of one file are copied from which other one."""

    def __init__(
        self, plan: FilePlan, files: LocalFiles, pieces: Pieces, knowledge: Knowledge, assignments: Assignments
    ) -> None:
        self._plan = plan
        self._files = files
        self._pieces = pieces
        self._knowledge = knowledge
        self._assignments = assignments
        self._held = _worth_it(plan, files.by_xorb(plan))
        self._looked_for_chunks = False
        self._wrong = [0] * len(files.files)
        self._seen: tuple[Ranges, int] | None = None
        """What was known, and the pieces' generation, when it was looked last: until one changes nothing can begin."""

    def starts(self, now_s: float) -> Iterator[CopyLocal]:
        """All that can be copied: nobody else need be asked for it."""
        if self._seen == (self._knowledge.known, self._pieces.generation):
            return
        if self._knowledge.file is not None and not self._looked_for_chunks:
            self._looked_for_chunks = True
            self._held += self._held_by_chunk(self._knowledge.file)
        for held in self._held:
            for first, end in within(self._knowledge.known, held.first, held.end):
                yield from self._copy(replace(held, first=first, end=end, chunk=held.chunk + first - held.first), now_s)
        self._seen = (self._knowledge.known, self._pieces.generation)

    def ended(self, ended: Assignment, chunks_written: int, opened: bool, now_s: float) -> None:
        """A copy has ended, perhaps early: with a chunk that is another one than it was, or not there."""
        action = ended.action
        assert isinstance(action, CopyLocal)
        # They wait for each other: that one has ended shows that the disk answers.
        for other in self._assignments.running_copies():
            other.asked_s = now_s
        if chunks_written == len(action.chunks):
            return
        self._wrong[action.source] += 1
        if not opened or self._wrong[action.source] >= MAX_WRONG:
            self._held = [held for held in self._held if held.source != action.source]
            return
        # Those behind it may be right.
        wrong = action.first + chunks_written
        self._held = [part for held in self._held for part in _less(held, action.source, wrong, wrong + 1)]

    def _held_by_chunk(self, manifest: Manifest) -> list[Held]:
        ranges: Ranges = normalized([(0, len(manifest))], len(manifest))
        for held in self._held:
            ranges = without(ranges, held.first, held.end)
        return _worth_it(self._plan, self._files.by_chunk(manifest, ranges))

    def _copy(self, held: Held, now_s: float) -> Iterator[CopyLocal]:
        """What is wanted of it, in parts."""
        begins = []
        for piece in list(self._pieces.wanted_in(((held.first, held.end),))):
            begin = piece.begin
            if piece.first < held.first:
                self._pieces.split(begin, held.first)
                begin = held.first
            if held.end < self._pieces[begin].end:
                self._pieces.split(begin, held.end)
            begins.append(begin)
        for run in self._pieces.runs(begins):
            for part in _parts([self._pieces[begin] for begin in run], self._knowledge):
                first, end = part[0].first, part[-1].end
                file = self._files.files[held.source]
                action = CopyLocal(
                    self._assignments.next_number,
                    first,
                    self._knowledge.offset(first),
                    held.source,
                    file.offset + file.manifest.offset(held.chunk + first - held.first),
                    self._knowledge.part(first, end),
                )
                self._assignments.begin(action, [piece.begin for piece in part], now_s)
                yield action


def begun_fetches(
    plan: FilePlan, parts: Sequence[LocalFile], proved: Collection[XetHash]
) -> Iterator[tuple[int, Begun]]:
    """Which GETs of the plan have been begun in the file itself, by what it is said to be made of: their first chunks.

    ``proved``: xorbs that are known anyway. Each is to be read before anything is made of it.
    """
    of_xorb: dict[XetHash, list[tuple[Term, LocalFile]]] = {}
    for part in parts:
        (term,) = part.terms
        of_xorb.setdefault(term.xorb, []).append((term, part))
    for number, fetch in enumerate(plan.fetches):
        if not fetch.is_one_piece or fetch.source.xorb in proved:
            continue
        (place,), source = fetch.placements, fetch.source
        for term, part in of_xorb.get(source.xorb, ()):
            skipped = source.start - term.start
            if not 0 <= skipped < len(part.manifest):
                continue
            if part.offset + part.manifest.offset(skipped) != place.file_offset:
                continue
            chunks = part.manifest.slice(skipped, min(len(part.manifest), skipped + source.end - source.start))
            is_whole = len(chunks) == source.end - source.start
            if chunks.size_bytes == place.size_bytes if is_whole else chunks.size_bytes < place.size_bytes:
                yield number, Begun(chunks, ((len(chunks), HERE),))


def _fits(term: Term, xorb: Manifest) -> bool:
    return term.end <= len(xorb) and xorb.offset(term.end) - xorb.offset(term.start) == term.size_bytes


def _parts(pieces: list[Piece], knowledge: Knowledge) -> Iterator[list[Piece]]:
    """Pieces that lie together, as groups of about `COPY_BYTES`."""
    start = knowledge.offset(pieces[0].first)
    for _, part in groupby(pieces, lambda piece: (knowledge.offset(piece.first) - start) // COPY_BYTES):
        yield list(part)


def _joined(held: list[Held]) -> list[Held]:
    """In the order of the sources and the file, with what lies together in both as one."""
    out: list[Held] = []
    for one in sorted(held, key=lambda one: (one.source, one.first, one.chunk)):
        last = out[-1] if out else None
        if (
            last is not None
            and (last.source, last.end) == (one.source, one.first)
            and last.chunk + last.end - last.first == one.chunk
        ):
            out[-1] = replace(last, end=one.end)
        else:
            out.append(one)
    return out


def _worth_it(plan: FilePlan, held: list[Held]) -> list[Held]:
    """Without short stretches that would leave the rest of a GET in many parts."""
    placed = [
        (place.file_chunk, place.file_chunk + place.end - place.start)
        for fetch in plan.fetches
        for place in fetch.placements
    ]
    covered = normalized([(one.first, one.end) for one in held], plan.chunk_count)
    worth = normalized(
        [part for part in covered if part[1] - part[0] >= MIN_CHUNKS]
        + [place for place in placed if contains(covered, *place)],
        plan.chunk_count,
    )
    return [
        replace(one, first=first, end=end, chunk=one.chunk + first - one.first)
        for one in held
        for first, end in within(worth, one.first, one.end)
    ]


def _less(held: Held, source: int, first: int, end: int) -> list[Held]:
    """What is left when nothing of first..end is taken from that source any more."""
    if held.source != source:
        return [held]
    return [
        replace(held, first=start, end=stop, chunk=held.chunk + start - held.first)
        for start, stop in without(((held.first, held.end),), first, end)
    ]
