"""Xorbs and files: what the CAS knows, and how uploads are checked before they count."""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zest_hf._native import codec
from zest_hf.core.ids import XetHash, hash_to_text
from zest_hf.core.reconstruction import Term
from zest_hf.core.shard import Shard, ShardFile, ShardXorb
from zest_hf.core.xorb import Xorb, read_xorb
from zest_hf.errors import ShardError, StorageError, XorbError
from zest_hf.hub.database import Database

_TERM = struct.Struct("<32sIII")
_CACHED_XORBS = 64
# Clients ask for the first chunk of a file and for chunks whose hash is a multiple of this.
_DEDUP_MODULUS = 1024


@dataclass(frozen=True)
class StoredXorb:
    """A xorb on disk: joined chunk hashes, unpacked lengths, and n+1 byte offsets of its packed chunks."""

    xorb: XetHash
    size_bytes: int
    hashes: bytes
    lengths: array[int]
    packed_offsets: array[int]


@dataclass(frozen=True)
class StoredFile:
    file_hash: XetHash
    size_bytes: int
    terms: tuple[Term, ...]


class CasStore:
    """Content-addressed part of the state. Methods block on the disk: call them from a worker thread."""

    def __init__(self, root: Path, database: Database) -> None:
        self._root = root
        self._database = database
        self.incoming = root / "incoming"
        """Where uploads are received; on the file system of the xorbs, so that a rename publishes them."""
        self._cache: OrderedDict[XetHash, StoredXorb] = OrderedDict()
        self._cache_lock = threading.Lock()

    def xorb_path(self, text_hash: str) -> Path:
        return self._root / "xorbs" / text_hash[:2] / text_hash

    def xorb_path_of(self, xorb: XetHash) -> Path:
        return self.xorb_path(hash_to_text(xorb))

    # Xorbs

    def has_xorb(self, xorb: XetHash) -> bool:
        return bool(self._database.rows("SELECT 1 FROM xorbs WHERE hash = ?", xorb))

    def xorb(self, xorb: XetHash) -> StoredXorb | None:
        with self._cache_lock:
            found = self._cache.get(xorb)
            if found is not None:
                self._cache.move_to_end(xorb)
                return found
        rows = self._database.rows(
            "SELECT size_bytes, hashes, lengths, offsets FROM xorbs WHERE hash = ?", xorb
        )
        if not rows:
            return None
        size_bytes, hashes, lengths, offsets = rows[0]
        assert isinstance(size_bytes, int) and isinstance(hashes, bytes)
        assert isinstance(lengths, bytes) and isinstance(offsets, bytes)
        record = StoredXorb(xorb, size_bytes, hashes, array("I", lengths), array("Q", offsets))
        with self._cache_lock:
            self._cache[xorb] = record
            while len(self._cache) > _CACHED_XORBS:
                self._cache.popitem(last=False)
        return record

    def add_xorb(self, xorb: XetHash, path: Path) -> bool:
        """Decode and check an uploaded xorb and move its file into place; False when it was there already.

        Raises XorbError when the bytes do not decode, break a limit, or are not the xorb of that hash.
        """
        if self.has_xorb(xorb):
            return False
        name = hash_to_text(xorb)
        uploaded = _read(path)
        if uploaded.hash != xorb:
            raise XorbError(f"the uploaded bytes are xorb {hash_to_text(uploaded.hash)}, not {name}")
        # A footer says nothing that the chunks do not say, so it is not kept.
        table = uploaded.table
        try:
            os.truncate(path, table.packed_bytes)
            self.xorb_path_of(xorb).parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, self.xorb_path_of(xorb))
        except OSError as error:
            raise StorageError(f"cannot keep xorb {name}: {error.strerror}") from error
        with self._database.transaction() as sql:
            cursor = sql.execute(
                "INSERT OR IGNORE INTO xorbs VALUES (?, ?, ?, ?, ?)",
                (
                    xorb,
                    table.packed_bytes,
                    uploaded.manifest.hashes,
                    table.lengths.tobytes(),
                    table.packed_offsets.tobytes(),
                ),
            )
        return cursor.rowcount == 1

    # Files

    def file(self, file_hash: XetHash) -> StoredFile | None:
        rows = self._database.rows("SELECT size_bytes, terms FROM files WHERE hash = ?", file_hash)
        if not rows:
            return None
        size_bytes, terms = rows[0]
        assert isinstance(size_bytes, int) and isinstance(terms, bytes)
        return StoredFile(file_hash, size_bytes, tuple(Term(*row) for row in _TERM.iter_unpack(terms)))

    def repo_has_file(self, repo_id: int, file_hash: XetHash) -> bool:
        query = "SELECT 1 FROM repo_files WHERE repo_id = ? AND file_hash = ?"
        return bool(self._database.rows(query, repo_id, file_hash))

    def file_of_sha256(self, sha256: str, repo_id: int) -> StoredFile | None:
        """The file whose uploader stated this SHA-256: an upload to this repository counts before others."""
        query = "SELECT file_hash FROM repo_files WHERE sha256 = ? ORDER BY repo_id != ? LIMIT 1"
        rows = self._database.rows(query, sha256, repo_id)
        if not rows:
            return None
        (file_hash,) = rows[0]
        assert isinstance(file_hash, bytes)
        return self.file(XetHash(file_hash))

    def link_file(self, repo_id: int, file_hash: XetHash, sha256: str) -> None:
        """Let tokens of a repository read a file that is stored already."""
        with self._database.transaction() as sql:
            sql.execute("INSERT OR IGNORE INTO repo_files VALUES (?, ?, ?)", (repo_id, file_hash, sha256))

    def add_shard(self, shard: Shard, repo_id: int) -> bool:
        """Check an uploaded shard against the stored xorbs and keep its files; False when all were known.

        Raises ShardError naming the first thing that is wrong; then nothing of the shard is kept.
        """
        for described in shard.xorbs:
            self._check_xorb(described)
        files = [self._check_file(file) for file in shard.files]
        new = False
        with self._database.transaction() as sql:
            for file, uploaded in zip(files, shard.files, strict=True):
                terms = b"".join(_TERM.pack(t.xorb, t.start, t.end, t.size_bytes) for t in file.terms)
                row = (file.file_hash, file.size_bytes, terms)
                new |= sql.execute("INSERT OR IGNORE INTO files VALUES (?, ?, ?)", row).rowcount == 1
                sql.execute(
                    "INSERT INTO repo_files VALUES (?, ?, ?) ON CONFLICT (repo_id, file_hash) DO UPDATE "
                    "SET sha256 = coalesce(excluded.sha256, sha256)",
                    (repo_id, file.file_hash, uploaded.sha256),
                )
            if shard.xorbs:
                cursor = sql.execute("INSERT INTO shards VALUES (NULL, ?, ?)", (repo_id, time.time()))
                members = [(cursor.lastrowid, x.xorb) for x in shard.xorbs]
                sql.executemany("INSERT INTO shard_xorbs VALUES (?, ?)", members)
                chunks = [(chunk, cursor.lastrowid) for chunk in _dedup_chunks(shard)]
                sql.executemany("INSERT OR IGNORE INTO dedup_chunks VALUES (?, ?)", chunks)
        return new

    def _check_xorb(self, described: ShardXorb) -> None:
        stored = self.xorb(described.xorb)
        name = hash_to_text(described.xorb)
        if stored is None:
            raise ShardError(f"the shard names xorb {name}, which has not been uploaded")
        if stored.hashes != described.hashes or stored.lengths != described.lengths:
            raise ShardError(f"the shard's chunks of xorb {name} are not those of the uploaded xorb")

    def _check_file(self, file: ShardFile) -> StoredFile:
        name = hash_to_text(file.file_hash)
        hashes = bytearray()
        lengths = array("I")
        for index, term in enumerate(file.terms):
            where = f"term {index} of file {name}"
            if term.verification is None:
                raise ShardError(f"file {name} comes without verification hashes")
            stored = self.xorb(term.xorb)
            if stored is None:
                raise ShardError(f"{where} names xorb {hash_to_text(term.xorb)}, which has not been uploaded")
            if term.end > len(stored.lengths):
                raise ShardError(
                    f"{where} ends at chunk {term.end} of a xorb with {len(stored.lengths)} chunks"
                )
            part_lengths = stored.lengths[term.start : term.end]
            part_hashes = stored.hashes[32 * term.start : 32 * term.end]
            if sum(part_lengths) != term.size_bytes:
                raise ShardError(
                    f"{where} states {term.size_bytes} bytes, its chunks have {sum(part_lengths)}"
                )
            if codec.verification_hash(part_hashes) != term.verification:
                raise ShardError(f"{where} has a wrong verification hash")
            hashes += part_hashes
            lengths += part_lengths
        if codec.file_hash(bytes(hashes), lengths) != file.file_hash:
            raise ShardError(f"the terms of file {name} do not rebuild a file of that hash")
        terms = tuple(Term(t.xorb, t.start, t.end, t.size_bytes) for t in file.terms)
        return StoredFile(file.file_hash, file.size_bytes, terms)

    # Deduplication

    def dedup_shard(self, chunk: bytes, repo_id: int) -> list[StoredXorb]:
        """The xorbs that were uploaded together with this chunk; empty when it is unknown.

        The answer names other chunks: what came in through a private repository is told to that one only.
        """
        rows = self._database.rows(
            "SELECT d.shard_id FROM dedup_chunks d JOIN shards s ON s.id = d.shard_id "
            "LEFT JOIN repos r ON r.id = s.repo_id WHERE d.chunk = ? "
            "AND (s.repo_id = ? OR (r.private = 0 AND r.gated = 0)) ORDER BY d.shard_id DESC LIMIT 1",
            chunk,
            repo_id,
        )
        if not rows:
            return []
        members = self._database.rows("SELECT xorb FROM shard_xorbs WHERE shard_id = ?", rows[0][0])
        found = (self.xorb(XetHash(xorb)) for (xorb,) in members if isinstance(xorb, bytes))
        return [xorb for xorb in found if xorb is not None]


def _read(path: Path) -> Xorb:
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise XorbError("the uploaded xorb is empty")
        # Not closed by hand: while an error is on its way up, the codec's view of it is still alive.
        return read_xorb(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))


def _dedup_chunks(shard: Shard) -> Iterator[bytes]:
    xorbs = {x.xorb: x for x in shard.xorbs}
    for file in shard.files:
        first = file.terms[0] if file.terms else None
        if first is not None and first.xorb in xorbs:
            yield xorbs[first.xorb].hashes[32 * first.start : 32 * first.start + 32]
    for xorb in shard.xorbs:
        for index in range(len(xorb.lengths)):
            chunk = xorb.hashes[32 * index : 32 * index + 32]
            if int.from_bytes(chunk[24:], "little") % _DEDUP_MODULUS == 0:
                yield chunk
        for index in xorb.dedup_chunks:
            yield xorb.hashes[32 * index : 32 * index + 32]
