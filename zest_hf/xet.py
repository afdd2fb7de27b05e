"""The Xet format for programs: chunks, hashes, xorbs, shards and reconstructions, without a network.

This is the format in which the Hugging Face Hub stores large files (specification:
https://huggingface.co/docs/xet; sections are named below). Bytes go in and come out; only `chunk_file` and
`hash_file` open a file, and nothing here writes one or connects to anything::

    from zest_hf import xet

    manifest = xet.hash_file("model.safetensors")      # chunks with their hashes, in order
    print(xet.hash_to_text(manifest.file_hash()))      # what the Hub calls the file's Xet hash

    pieces = [piece.data for piece in xet.chunk(data)]
    packed = xet.pack_xorb(pieces)
    manifest, content = xet.unpack_xorb(packed)        # content == data

Shapes and units: a hash (`XetHash`) is 32 raw bytes, a list of n hashes 32 * n bytes, a list of lengths an
``array('I')`` of bytes. Sizes and offsets are bytes, ranges half-open. A buffer is bytes, bytearray or memoryview.
Errors derive from `ZestError`; whatever is malformed raises its subclass `ProtocolError` (`XorbError`, `ShardError`,
`ReconstructionError`), what does not match its hash `ProofError`. Limits of the format are checked before memory is
reserved: 131072 bytes a chunk, 8192 chunks and 64 MiB a xorb.

Chunking ("Content-defined chunking"): `chunk`, `chunk_stream`, `chunk_file`, `boundaries`, `Cutter`. ``rule`` is
RULE_CURRENT, or RULE_EARLY for what was uploaded by hf_xet before 1.1.10: only the rule of its upload gives a file its
hash.

Hashing ("Hashing"): `chunk_hash`, `Manifest.xorb_hash`, `Manifest.file_hash`, `verification_hash`, `keyed_hashes`,
`Tree` (file and xorb hash of a list that comes in pieces, in constant memory), `FileHasher`, `hash_file`,
`hash_to_text`, `hash_from_text`.

Xorbs ("Xorb format"): `pack_xorb`, `unpack_xorb`, `read_xorb`, `chunk_table`, `XorbFooter`, `parse_footer`.

Shards ("Shard format"): `Shard`, `ShardFile`, `ShardTerm`, `ShardXorb`, `ShardFooter`, `parse_shard`, `upload_order`.

Reconstruction ("File reconstruction"): `plan_range` and `RangePlan` (from terms to an answer of either version),
`parse_v1`, `parse_v2` (from an answer to a `Reconstruction`), `reconstruct` (from that to the bytes).
"""

from __future__ import annotations

import io
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zest_hf._native.codec import (
    CHUNK_MAX_BYTES,
    RULE_CURRENT,
    RULE_EARLY,
    SCHEME_BG4_LZ4,
    SCHEME_BITSLICE_LZ4,
    SCHEME_LZ4,
    SCHEME_NONE,
    Chunker,
    Tree,
    chunk_hash,
    keyed_hashes,
    verification_hash,
)
from zest_hf.core.ids import ZERO_HASH, XetHash, hash_from_raw, hash_from_text, hash_to_text
from zest_hf.core.manifest import Manifest
from zest_hf.core.planning import Part, RangePlan, plan_range
from zest_hf.core.rebuild import reconstruct
from zest_hf.core.reconstruction import FetchRange, Reconstruction, Term, parse_v1, parse_v2
from zest_hf.core.shard import Shard, ShardFile, ShardTerm, ShardXorb, parse_shard, upload_order
from zest_hf.core.shard_footer import ShardFooter
from zest_hf.core.xorb import (
    MAX_XORB_BYTES,
    MAX_XORB_CHUNKS,
    ChunkTable,
    Xorb,
    XorbFooter,
    chunk_table,
    pack_xorb,
    parse_footer,
    read_xorb,
    unpack_xorb,
)
from zest_hf.errors import (
    ProofError,
    ProtocolError,
    ReconstructionError,
    ShardError,
    StorageError,
    XorbError,
    ZestError,
)

__all__ = [
    "CHUNK_MAX_BYTES",
    "MAX_XORB_BYTES",
    "MAX_XORB_CHUNKS",
    "RULE_CURRENT",
    "RULE_EARLY",
    "SCHEME_BG4_LZ4",
    "SCHEME_BITSLICE_LZ4",
    "SCHEME_LZ4",
    "SCHEME_NONE",
    "ZERO_HASH",
    "Chunk",
    "ChunkTable",
    "Chunker",
    "Cutter",
    "FetchRange",
    "FileHasher",
    "Manifest",
    "Part",
    "ProofError",
    "ProtocolError",
    "RangePlan",
    "Reconstruction",
    "ReconstructionError",
    "Shard",
    "ShardError",
    "ShardFile",
    "ShardFooter",
    "ShardTerm",
    "ShardXorb",
    "StorageError",
    "Term",
    "Tree",
    "XetHash",
    "Xorb",
    "XorbError",
    "XorbFooter",
    "ZestError",
    "boundaries",
    "chunk",
    "chunk_file",
    "chunk_hash",
    "chunk_stream",
    "chunk_table",
    "hash_file",
    "hash_from_raw",
    "hash_from_text",
    "hash_to_text",
    "keyed_hashes",
    "pack_xorb",
    "parse_footer",
    "parse_shard",
    "parse_v1",
    "parse_v2",
    "plan_range",
    "read_xorb",
    "reconstruct",
    "unpack_xorb",
    "upload_order",
    "verification_hash",
]

Buffer = bytes | bytearray | memoryview
READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk at `offset` of its stream. `data` may be a view of the caller's buffer."""

    offset: int
    data: Buffer
    hash: XetHash

    def __len__(self) -> int:
        return len(self.data)


def boundaries(data: Buffer, rule: int = RULE_CURRENT) -> list[int]:
    """The offsets at which the chunks of `data` end, in order; empty for no data. Raises ZestError (rule)."""
    chunker = Chunker(rule)
    return chunker.feed(data) + chunker.finish()


def chunk(data: Buffer, rule: int = RULE_CURRENT) -> Iterator[Chunk]:
    """The chunks of a buffer, as views of it. Raises ZestError (rule)."""
    view = memoryview(data).cast("B")
    start = 0
    for end in boundaries(view, rule):
        yield Chunk(start, view[start:end], XetHash(chunk_hash(view[start:end])))
        start = end


def chunk_stream(parts: Iterable[Buffer], rule: int = RULE_CURRENT) -> Iterator[Chunk]:
    """The chunks of a stream that comes in parts of any size, empty ones too; each `data` is bytes of its own.

    Memory: a chunk and a part. Raises ZestError (rule), and what `parts` raises.
    """
    cutter = Cutter(rule)
    for part in parts:
        yield from cutter.feed(part)
    yield from cutter.finish()


def chunk_file(path: str | os.PathLike[str], rule: int = RULE_CURRENT) -> Iterator[Chunk]:
    """The chunks of a file with their content. Raises OSError, ZestError (rule)."""
    with open(path, "rb", buffering=0) as file:
        yield from chunk_stream(_parts(file), rule)


def hash_file(path: str | os.PathLike[str], rule: int = RULE_CURRENT, *, threads: int = 1) -> Manifest:
    """The manifest of a file: hash and length of each of its chunks, read in native code on so many cores.

    Memory: 44 bytes for each 64 KiB of file, and 1 MiB a thread. Raises OSError, StorageError (the file became
    shorter meanwhile), ZestError (rule, threads).
    """
    from zest_hf.parallel_scan import scan_manifest

    return scan_manifest(Path(path), rule=rule, threads=threads)


class FileHasher:
    """The file hash of a stream, in constant memory, with the interface of hashlib.

    `size_bytes` and `chunk_count` are of what `update` has been given; `file_hash` and `hexdigest` (the text form)
    may be asked for at any time, as though the stream ended there.
    """

    __slots__ = ("_cutter", "_tree", "chunk_count", "size_bytes")

    def __init__(self, rule: int = RULE_CURRENT) -> None:
        self._cutter = Cutter(rule)
        self._tree = Tree()
        self.size_bytes = 0
        self.chunk_count = 0

    def update(self, data: Buffer) -> None:
        """Take the next bytes."""
        for piece in self._cutter.feed(data):
            self._tree.add(piece.hash, array("I", [len(piece)]))
            self.chunk_count += 1
        self.size_bytes += len(data)

    def file_hash(self) -> XetHash:
        """32 zero bytes for an empty stream."""
        rest = self._cutter.rest
        if not rest:
            return XetHash(self._tree.file_hash())
        # The unfinished chunk must not stay in the tree: the list is short-lived, the tree is not.
        ended = self._tree.copy()
        ended.add(chunk_hash(rest), array("I", [len(rest)]))
        return XetHash(ended.file_hash())

    def hexdigest(self) -> str:
        return hash_to_text(self.file_hash())


class Cutter:
    """Cuts a stream into chunks: `feed` the next bytes, take the chunks that they complete, `finish` for the last."""

    __slots__ = ("_chunker", "_offset", "rest")

    def __init__(self, rule: int = RULE_CURRENT) -> None:
        self._chunker = Chunker(rule)
        self._offset = 0  # of the current chunk
        self.rest = bytearray()
        """The bytes of the chunk that has no end yet."""

    def feed(self, data: Buffer) -> list[Chunk]:
        view = memoryview(data).cast("B")
        found = []
        begin = self._offset + len(self.rest)  # of `view` in the stream
        at = 0
        for end in self._chunker.feed(view):
            content = bytes(view[at : end - begin])
            if self.rest:
                content = bytes(self.rest) + content
                self.rest.clear()
            found.append(Chunk(self._offset, content, XetHash(chunk_hash(content))))
            self._offset = end
            at = end - begin
        self.rest += view[at:]
        return found

    def finish(self) -> list[Chunk]:
        """The last chunk, if there is one; a new stream begins after it."""
        content = bytes(self.rest)
        found = [Chunk(self._offset, content, XetHash(chunk_hash(content)))] if content else []
        self._chunker.finish()
        self._offset = 0
        self.rest.clear()
        return found


def _parts(file: io.FileIO) -> Iterator[bytes]:
    while data := file.read(READ_BYTES):
        yield data
