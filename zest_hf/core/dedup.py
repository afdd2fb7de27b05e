"""Which chunks of a file are stored already, and what its terms are: the decisions of an upload.

Pure: chunks and known xorbs come in, terms and new xorbs come out. Implements the deduplication section of the Xet
specification (https://huggingface.co/docs/xet/deduplication).
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from zest_hf._native import codec
from zest_hf.core.ids import HASH_SIZE, XetHash
from zest_hf.core.shard import Shard, ShardFile, ShardTerm, ShardXorb
from zest_hf.core.xorb import MAX_XORB_BYTES, MAX_XORB_CHUNKS

QUERY_MODULUS: Final = 1024
"""The CAS can be asked for the first chunk of a file, and for chunks whose hash is a multiple of this."""

RECENT_TERMS: Final = 128
MIN_CHUNKS_PER_TERM: Final = 8
"""When the last RECENT_TERMS terms are shorter than this on average, a shorter match is not taken: a file in crumbs
takes more requests to download than its chunks take space.
"""

Buffer = bytes | bytearray | memoryview


class Piece(Protocol):
    """A chunk with its content: `xet.Chunk` is one."""

    @property
    def data(self) -> Buffer: ...
    @property
    def hash(self) -> XetHash: ...


@dataclass(eq=False, slots=True)
class Source:
    """A xorb that terms can refer to: one that the CAS knows, or one in the making (then `xorb` comes later)."""

    hashes: bytearray = field(default_factory=bytearray)
    lengths: array[int] = field(default_factory=lambda: array("I"))
    xorb: XetHash | None = None
    chunks: list[Buffer] = field(default_factory=list)
    """The content of a new xorb until it has been packed."""
    size_bytes: int = 0
    dedup_chunks: list[int] = field(default_factory=list)

    def describe(self) -> ShardXorb:
        assert self.xorb is not None
        return ShardXorb(self.xorb, bytes(self.hashes), self.lengths, tuple(self.dedup_chunks))


@dataclass(slots=True)
class _OpenTerm:
    source: Source
    start: int
    end: int
    size_bytes: int
    hashes: bytearray
    verification: bytes = b""


class _KeyedXorbs:
    """What one deduplication answer tells: places by (keyed) hash."""

    def __init__(self, shard: Shard) -> None:
        key = shard.footer.chunk_key if shard.footer is not None else bytes(HASH_SIZE)
        self._key = key if any(key) else None
        self.places: dict[bytes, tuple[Source, int]] = {}
        for one in shard.xorbs:
            source = Source(bytearray(one.hashes), one.lengths, one.xorb)
            for index in range(len(one.lengths)):
                self.places[one.hashes[HASH_SIZE * index : HASH_SIZE * (index + 1)]] = (source, index)

    def keyed(self, hashes: bytes) -> bytes:
        return hashes if self._key is None else codec.keyed_hashes(hashes, self._key)


class Deduplicator:
    """Feed it the chunks of one file after the other; call `end_file` between them and `flush` at the end.

    `sealed` is called with each new xorb that is complete, its `xorb` set; the caller uploads it and takes its `chunks`
    away. A file is complete once all new xorbs that it refers to are sealed.
    """

    def __init__(self, sealed: Callable[[Source], None]) -> None:
        self._sealed = sealed
        self._open = Source()
        self._places: dict[bytes, tuple[Source, int]] = {}
        self._answers: list[_KeyedXorbs] = []
        self._new: list[Source] = []  # sealed, not yet in a shard
        self._ended: list[tuple[XetHash, list[_OpenTerm], str]] = []
        self._begin_file()
        self.waiting_records = 0
        """About how many 48-byte records the next shard has."""
        self.new_bytes = 0
        """Unpacked bytes that had to be stored."""

    def _begin_file(self) -> None:
        self._tree = codec.Tree()
        self._terms: list[_OpenTerm] = []
        self._recent: deque[int] = deque(maxlen=RECENT_TERMS)
        self._chunk_count = 0

    def to_query(self, pieces: Sequence[Piece]) -> list[XetHash]:
        """The chunks among the file's next ones for which the CAS should be asked before `add`."""
        some = []
        for index, piece in enumerate(pieces):
            first = self._chunk_count + index == 0
            eligible = first or int.from_bytes(piece.hash[24:], "little") % QUERY_MODULUS == 0
            if eligible and piece.hash not in self._places:
                some.append(piece.hash)
        if not some or not self._answers:
            return some
        known = set()
        for answer in self._answers:
            keyed = _split(answer.keyed(b"".join(some)))
            known |= {plain for plain, key in zip(some, keyed, strict=True) if key in answer.places}
        return [one for one in some if one not in known]

    def learn(self, shard: Shard) -> None:
        """Take in an answer to a deduplication query."""
        if shard.xorbs:
            self._answers.append(_KeyedXorbs(shard))

    def add(self, pieces: Sequence[Piece]) -> None:
        """The next chunks of the file."""
        joined = b"".join(piece.hash for piece in pieces)
        self._tree.add(joined, array("I", [len(piece.data) for piece in pieces]))
        # Own xorbs last: the more answers know a run, the earlier it is found whole.
        views = [(answer.places, _split(answer.keyed(joined))) for answer in self._answers]
        views.append((self._places, _split(joined)))
        at = 0
        while at < len(pieces):
            source, index, count = self._longest(views, at)
            if source is not None and self._worth_it(source, index, count):
                self._refer(source, index, count, joined[HASH_SIZE * at : HASH_SIZE * (at + count)])
                at += count
            else:
                self._store(pieces[at])
                at += 1
        self._chunk_count += len(pieces)

    def end_file(self, sha256: str) -> XetHash:
        """The hash of the file that the chunks since the last call make."""
        if self._terms:
            _close(self._terms[-1])
        file_hash = XetHash(self._tree.file_hash())
        self._ended.append((file_hash, self._terms, sha256))
        self.waiting_records += 2 + 2 * len(self._terms)
        self._begin_file()
        return file_hash

    def flush(self) -> None:
        """Seal the xorb in the making, so that all ended files are complete."""
        if self._open.chunks:
            self._seal()

    def take_shard(self) -> Shard | None:
        """New xorbs and complete files since the last call, None for nothing. The xorbs must have been stored."""
        files: dict[XetHash, ShardFile] = {}
        waiting = []
        for one in self._ended:
            file_hash, terms, sha256 = one
            if all(term.source.xorb is not None for term in terms):
                files[file_hash] = ShardFile(file_hash, tuple(map(_shard_term, terms)), sha256)
            else:
                waiting.append(one)
        self._ended = waiting
        self.waiting_records = sum(2 + 2 * len(terms) for _, terms, _ in waiting)
        if not files and not self._new:
            return None
        xorbs = {one.xorb: one.describe() for one in self._new if one.xorb is not None}
        self._new = []
        return Shard(tuple(files.values()), tuple(xorbs.values()))

    def _longest(
        self, views: list[tuple[dict[bytes, tuple[Source, int]], list[bytes]]], at: int
    ) -> tuple[Source | None, int, int]:
        best: tuple[Source | None, int, int] = (None, 0, 0)
        for places, hashes in views:
            found = places.get(hashes[at])
            if found is None:
                continue
            source, index = found
            known, count = source.hashes, 1
            most = min(len(hashes) - at, len(source.lengths) - index)
            while (
                count < most
                and known[HASH_SIZE * (index + count) : HASH_SIZE * (index + count + 1)] == hashes[at + count]
            ):
                count += 1
            if count > best[2]:
                best = (source, index, count)
        return best

    def _worth_it(self, source: Source, index: int, count: int) -> bool:
        if self._continues(source, index) or len(self._recent) < RECENT_TERMS:
            return True
        return count >= MIN_CHUNKS_PER_TERM or sum(self._recent) >= MIN_CHUNKS_PER_TERM * RECENT_TERMS

    def _continues(self, source: Source, index: int) -> bool:
        return bool(self._terms) and self._terms[-1].source is source and self._terms[-1].end == index

    def _refer(self, source: Source, index: int, count: int, hashes: bytes) -> None:
        size_bytes = sum(source.lengths[index : index + count])
        if self._continues(source, index):
            term = self._terms[-1]
            term.end += count
            term.size_bytes += size_bytes
            term.hashes += hashes
            self._recent[-1] += count
            return
        if self._terms:
            _close(self._terms[-1])
        self._terms.append(_OpenTerm(source, index, index + count, size_bytes, bytearray(hashes)))
        self._recent.append(count)

    def _store(self, piece: Piece) -> None:
        size_bytes = len(piece.data)
        if len(self._open.chunks) == MAX_XORB_CHUNKS or self._open.size_bytes + size_bytes > MAX_XORB_BYTES:
            self._seal()
        source = self._open
        index = len(source.chunks)
        if not self._terms:
            # The first chunk of a file is what others ask for.
            source.dedup_chunks.append(index)
        source.chunks.append(piece.data)
        source.hashes += piece.hash
        source.lengths.append(size_bytes)
        source.size_bytes += size_bytes
        self._places[piece.hash] = (source, index)
        self.new_bytes += size_bytes
        self._refer(source, index, 1, piece.hash)

    def _seal(self) -> None:
        source, self._open = self._open, Source()
        source.xorb = XetHash(codec.merkle_root(source.hashes, source.lengths))
        self._new.append(source)
        self.waiting_records += 1 + len(source.lengths)
        self._sealed(source)


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + HASH_SIZE] for at in range(0, len(hashes), HASH_SIZE)]


def _close(term: _OpenTerm) -> None:
    term.verification = codec.verification_hash(term.hashes)
    term.hashes = bytearray()


def _shard_term(term: _OpenTerm) -> ShardTerm:
    assert term.source.xorb is not None
    return ShardTerm(term.source.xorb, term.start, term.end, term.size_bytes, term.verification)
