"""What is proved of a file on its way, and what came without proof, by whom it was given. Pure.

What the CDN has sent wrongly is asked of it again, a few times. Who passes on what it is still fetching is to blame
when a proved manifest says that it is wrong, and only then: a xorb of which the file takes a part has another root.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from zest_hf.core.begun import HERE, Begun, Givers, giver_at
from zest_hf.core.crowd_claims import WHOLE_XORB_BYTES
from zest_hf.core.ids import XetHash
from zest_hf.core.knowledge import Knowledge
from zest_hf.core.manifest import Manifest
from zest_hf.core.pieces import Pieces, State
from zest_hf.core.plan import Fetch, FilePlan
from zest_hf.core.ranges import Ranges, contains, normalized
from zest_hf.core.unproved import Part, Unproved, Wrong, first_wrong
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
        self._suspects: dict[XetHash, list[tuple[Fetch, Manifest, Givers]]] = {}
        """What was not kept, as it does not prove itself; whether that is its giver's fault may be known later."""
        self._doubted: set[bytes] = set()
        self.begun: dict[int, Begun] = {}
        """What is there of GETs that were broken off, by their numbers, and nobody goes on with."""
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

    def keep(self, fetch: Fetch, chunks: Manifest, givers: Givers) -> int:
        """What came without proof, all of a GET or the first of it, which is known then: how many bytes of the file.

        Raises ReconstructionError when a term has another size than the plan says.
        """
        parts = self._unproved.add(fetch, chunks, givers)
        for part in parts:
            self._count(part, 1)
        return sum(part.place.size_bytes for part in parts)

    def is_wrong(self, fetch: Fetch, chunks: Manifest, givers: Givers) -> bool:
        """Whether all of a GET, as members passed it on, cannot be right: that is remembered until it is known why."""
        source = fetch.source
        is_whole = source.start == 0 and source.byte_end - source.byte_start >= WHOLE_XORB_BYTES
        if chunks.size_bytes == fetch.size_bytes and (not is_whole or chunks.xorb_hash() == source.xorb):
            return False
        self._suspect(fetch, chunks, givers)
        return True

    def right(self, fetch: Fetch, chunks: Manifest, givers: Givers) -> int:
        """With all of a GET known: how many of the first chunks that were passed on are right."""
        (place,) = fetch.placements
        known = self._knowledge.part(place.file_chunk, place.file_chunk + place.end - place.start)
        right = first_wrong(known, chunks)
        if right < len(chunks):
            self._blame(giver_at(givers, right))
        return right

    def break_off(self, number: int, chunks: Manifest, givers: Givers) -> None:
        """A GET has ended with its first ``chunks``, of which nothing is known: who takes it up goes on from there."""
        fetch = self._plan.fetches[number]
        if any(giver in self._doubted for _, giver in givers):
            return
        if fetch.is_one_piece and len(chunks) and chunks.size_bytes < fetch.size_bytes:
            self.begun[number] = Begun(chunks, givers)

    def resume(self, begun: Mapping[int, Begun]) -> None:
        """An earlier process has begun these GETs, by number. Raises ReconstructionError as `keep` does."""
        for number, there in begun.items():
            fetch = self._plan.fetches[number]
            untouched = self._pieces.is_whole(number, self._pieces.of_fetch(number)) and all(
                self._pieces[begin].state is State.WANTED for begin in self._pieces.of_fetch(number)
            )
            if not untouched or self._knowledge.knows_xorb(fetch.source.xorb):
                continue
            if len(there.chunks) < fetch.source.end - fetch.source.start:
                self.break_off(number, there.chunks, there.givers)
            elif not self.is_wrong(fetch, there.chunks, there.givers):
                self.keep(fetch, there.chunks, there.givers)
                for begin in list(self._pieces.of_fetch(number)):
                    self._pieces.done(begin)

    def doubt(self, member: bytes) -> None:
        """It has passed on what does not prove itself: nobody goes on with what it has begun."""
        self._doubted.add(member)
        for number, begun in list(self.begun.items()):
            if any(giver == member for _, giver in begun.givers):
                del self.begun[number]

    def settle_begun(self) -> None:
        """What is there of GETs that nobody goes on with may be known by now."""
        for number in list(self.begun):
            fetch = self._plan.fetches[number]
            (place,) = fetch.placements
            if contains(self._knowledge.known, place.file_chunk, place.file_chunk + place.end - place.start):
                begun = self.begun.pop(number)
                right = self.right(fetch, begun.chunks, begun.givers)
                self.keep(fetch, begun.chunks.slice(0, right), begun.givers)
                for begin in self._pieces.of_fetch(number):
                    self._pieces.advance(begin, min(self._pieces[begin].end, place.file_chunk + right))
                self.settle([place.file_chunk])

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
            self._undo(one)
            self._blame(one.giver)

    def finish(self) -> Manifest | None:
        """With everything written: the file's manifest, by the file hash; None: what is in doubt is wanted again.

        That happens once: what xorbs have proved is kept. Raises ProofError the second time.
        """
        manifest = self._unproved.manifest(self._plan, self._knowledge)
        try:
            manifest.prove_file(self._file_hash)
        except ProofError:
            for part in self._unproved.given():
                self._suspect(part.fetch, part.chunks, part.givers)
            doubtful = [] if self.refetched else self._unproved.drop()
            if not doubtful:
                raise
            self.refetched = True
            self.begun.clear()
            for one in doubtful:
                self._undo(one)
            return None
        return manifest

    def _blame(self, giver: bytes | None) -> None:
        if giver == HERE:
            return  # whatever has happened to it is over
        if giver is not None:
            self._liars.add(giver)
            return
        self._wrong_fetches += 1
        if self._wrong_fetches > MAX_WRONG_FETCHES:
            raise ProofError("the CDN keeps sending chunks that are not the file's")

    def _suspect(self, fetch: Fetch, chunks: Manifest, givers: Givers) -> None:
        self._suspects.setdefault(fetch.source.xorb, []).append((fetch, chunks, givers))

    def _judge(self, xorb: XetHash) -> None:
        for suspect in self._suspects.pop(xorb, ()):
            self.right(*suspect)

    def _undo(self, wrong: Wrong) -> None:
        for part in wrong.parts:
            place = part.place
            self._pieces.undo(place.file_chunk, place.file_chunk + place.end - place.start)
            self._count(part, -1)

    def _count(self, part: Part, sign: int) -> None:
        by_peers, here = part.peer_bytes, part.here_bytes
        self.counts.peer += sign * by_peers
        self.counts.local += sign * here
        self.counts.cdn += sign * (part.place.size_bytes - by_peers - here)
