"""What is proved of a file on its way, and what came without proof, by whom it was given. Pure.

What the CDN has sent wrongly is asked of it again, a few times. Who passes on what it is still fetching is to blame
when a proved manifest says that it is wrong, and only then: a xorb of which the file takes a part has another root.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from zest_hf.core.crowd_claims import WHOLE_XORB_BYTES
from zest_hf.core.ids import XetHash
from zest_hf.core.knowledge import Knowledge
from zest_hf.core.manifest import Manifest
from zest_hf.core.pieces import Pieces
from zest_hf.core.plan import Fetch, FilePlan
from zest_hf.core.ranges import Ranges, normalized
from zest_hf.core.unproved import Giver, Unproved, Wrong
from zest_hf.errors import ProofError

MAX_WRONG_FETCHES = 3
"""GETs without known hashes that may turn out wrong before the transfer is given up."""


@dataclass(slots=True)
class Counts:
    """Bytes of the file by where they came from."""

    peer: int = 0
    cdn: int = 0
    local: int = 0

    @property
    def total(self) -> int:
        return self.peer + self.cdn + self.local


class Proof:
    """See the module."""

    def __init__(self, plan: FilePlan, file_hash: XetHash, pieces: Pieces, knowledge: Knowledge) -> None:
        self._plan = plan
        self._file_hash = file_hash
        self._pieces = pieces
        self._knowledge = knowledge
        self._unproved = Unproved()
        self._suspects: dict[XetHash, list[tuple[bytes, Fetch, Manifest]]] = {}
        """What was not kept, as it does not prove itself; whether that is its giver's fault may be known later."""
        self._new: list[tuple[int, int]] = []
        self._liars: set[bytes] = set()
        self._wrong_fetches = 0
        self.refetched = False
        """The file turned out wrong once, and what could not be proved was fetched again."""
        self.counts = Counts()

    def file(self, manifest: Manifest) -> None:
        """The file's manifest was proved by its hash."""
        self._knowledge.file_proved(manifest)
        self.settle(None)
        for xorb in list(self._suspects):
            self._judge(xorb)

    def xorb(self, xorb: XetHash, manifest: Manifest) -> None:
        """A xorb's manifest was proved by its hash."""
        self._knowledge.xorb_proved(xorb, manifest)
        self.settle(self._knowledge.terms_of(xorb))
        self._judge(xorb)

    def proved(self, first: int, end: int) -> None:
        """Chunks of the file were written that were checked before."""
        self._new.append((first, end))

    def take_proved(self) -> Ranges:
        """Chunks that have been written and proved since it was asked last."""
        proved, self._new = normalized(self._new, self._plan.chunk_count), []
        return proved

    def take_liars(self) -> list[bytes]:
        """Members that have sent what is known to be wrong, and that nobody was told of yet."""
        liars, self._liars = sorted(self._liars), set()
        return liars

    def keep(self, fetch: Fetch, chunks: Manifest, giver: Giver = None) -> int:
        """What came without proof, all of a GET or the first of it, which is known then: how many bytes of the file.

        Raises ReconstructionError when a term has another size than the plan says.
        """
        size = self._unproved.add(fetch, chunks, giver)
        self._count(giver, size)
        return size

    def is_wrong(self, fetch: Fetch, chunks: Manifest, giver: bytes) -> bool:
        """Whether all of a GET, as a member passed it on, cannot be right: that is remembered until it is known why."""
        source = fetch.source
        is_whole = source.start == 0 and source.byte_end - source.byte_start >= WHOLE_XORB_BYTES
        if chunks.size_bytes == fetch.size_bytes and (not is_whole or chunks.xorb_hash() == source.xorb):
            return False
        self._suspect(giver, fetch, chunks)
        return True

    def right(self, fetch: Fetch, chunks: Manifest, giver: bytes) -> int:
        """With all of a GET known: how many of the first chunks that a member passed on are right."""
        (place,) = fetch.placements
        known = self._knowledge.part(place.file_chunk, place.file_chunk + place.end - place.start)
        right = _common(known, chunks)
        if right < len(chunks):
            self._liars.add(giver)
        return right

    def is_xorb(self, fetch: Fetch, chunks: Manifest) -> bool:
        """Whether all of a GET is a xorb that nobody knew of: it proves itself."""
        source = fetch.source
        return source.start == 0 and not self._knowledge.knows_xorb(source.xorb) and chunks.xorb_hash() == source.xorb

    def settle(self, terms: Iterable[int] | None) -> None:
        """Compare what came without hashes with what is known by now. ``terms``: which, by first chunk; None: all."""
        right, wrong = self._unproved.settle(self._knowledge, terms)
        for place in right:
            self.proved(place.file_chunk, place.file_chunk + place.end - place.start)
        for one in wrong:
            if one.giver is not None:
                self._liars.add(one.giver)
            else:
                self._wrong_fetches += 1
                if self._wrong_fetches > MAX_WRONG_FETCHES:
                    raise ProofError("the CDN keeps sending chunks that are not the file's")
            self._undo(one)

    def finish(self) -> Manifest | None:
        """With everything written: the file's manifest, by the file hash; None: what is in doubt is wanted again.

        That happens once: what xorbs have proved is kept. Raises ProofError the second time.
        """
        manifest = self._unproved.manifest(self._plan, self._knowledge)
        try:
            manifest.prove_file(self._file_hash)
        except ProofError:
            for part in self._unproved.given():
                assert part.giver is not None
                self._suspect(part.giver, part.fetch, part.chunks)
            doubtful = [] if self.refetched else self._unproved.drop()
            if not doubtful:
                raise
            self.refetched = True
            for one in doubtful:
                self._undo(one)
            return None
        return manifest

    def _suspect(self, giver: bytes, fetch: Fetch, chunks: Manifest) -> None:
        self._suspects.setdefault(fetch.source.xorb, []).append((giver, fetch, chunks))

    def _judge(self, xorb: XetHash) -> None:
        for giver, fetch, chunks in self._suspects.pop(xorb, ()):
            self.right(fetch, chunks, giver)

    def _undo(self, wrong: Wrong) -> None:
        for place in wrong.places:
            self._pieces.undo(place.file_chunk, place.file_chunk + place.end - place.start)
            self._count(wrong.giver, -place.size_bytes)

    def _count(self, giver: Giver, size_bytes: int) -> None:
        if giver is None:
            self.counts.cdn += size_bytes
        else:
            self.counts.peer += size_bytes


def _common(one: Manifest, other: Manifest) -> int:
    """How many of the first chunks are the same."""
    count = min(len(one), len(other))
    if one.slice(0, count) == other.slice(0, count):
        return count
    return next(at for at in range(count) if one.hash(at) != other.hash(at) or one.length(at) != other.length(at))
