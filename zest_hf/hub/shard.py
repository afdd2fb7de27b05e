"""Shards: parsing what clients upload, writing what a deduplication query is answered with.

Implements the shard section of the Xet specification (https://huggingface.co/docs/xet/shard). Pure: bytes in,
dataclasses out, nothing is looked up. All integers are little-endian; every record has 48 bytes.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from zest_hf.core.ids import ZERO_HASH, XetHash, hash_to_text
from zest_hf.errors import ShardError
from zest_hf.hub.options import MAX_CHUNK_BYTES, MAX_XORB_CHUNKS, MAX_XORB_UNPACKED_BYTES

HEADER_TAG = b"HFRepoMetaData\0" + bytes(
    (85, 105, 103, 69, 106, 123, 129, 87, 131, 165, 189, 217, 92, 205, 209, 74, 169)
)
HEADER_VERSION = 2
FOOTER_VERSION = 1
RECORD_BYTES = 48
BOOKEND = b"\xff" * 32 + bytes(16)
FLAG_VERIFICATION = 1 << 31
FLAG_METADATA = 1 << 30
FLAG_DEDUP_CHUNK = 1 << 31
MAX_TERMS_PER_FILE = 1 << 22

_HEADER = struct.Struct("<32sQQ")
_FILE = struct.Struct("<32sIIQ")
_ENTRY = struct.Struct("<32sIIII")
_FOOTER = struct.Struct("<9Q32sQQ6Q4Q")


@dataclass(frozen=True)
class ShardTerm:
    """One term of a file: half-open chunk range, unpacked bytes and the hash that vouches for the range."""

    xorb: XetHash
    start: int
    end: int
    size_bytes: int
    verification: bytes


@dataclass(frozen=True)
class ShardFile:
    """A file and how it is rebuilt; ``sha256`` in hexadecimal, None when the client did not send it."""

    file_hash: XetHash
    terms: tuple[ShardTerm, ...]
    sha256: str | None

    @property
    def size_bytes(self) -> int:
        return sum(term.size_bytes for term in self.terms)


@dataclass(frozen=True)
class ShardXorb:
    """A xorb as the shard describes it: its chunk hashes (joined) and unpacked lengths."""

    xorb: XetHash
    hashes: bytes
    lengths: array[int]
    dedup_chunks: tuple[int, ...]


@dataclass(frozen=True)
class Shard:
    files: tuple[ShardFile, ...]
    xorbs: tuple[ShardXorb, ...]


class _Records:
    """Hands out 48-byte records one after the other and refuses to run past the end."""

    def __init__(self, data: memoryview, offset: int) -> None:
        self._data = data
        self._offset = offset

    def take(self, count: int, what: str) -> memoryview:
        end = self._offset + count * RECORD_BYTES
        if end > len(self._data):
            raise ShardError(f"the shard ends inside {what}")
        part = self._data[self._offset : end]
        self._offset = end
        return part

    @property
    def offset(self) -> int:
        return self._offset


def parse_shard(data: bytes | bytearray | memoryview) -> Shard:
    """Parse a whole shard, with or without lookup tables and footer behind the two sections.

    Raises ShardError on anything that breaks the format or its limits.
    """
    view = memoryview(data)
    if len(view) < _HEADER.size:
        raise ShardError(f"a shard has at least {_HEADER.size} bytes, this one has {len(view)}")
    tag, version, footer_bytes = _HEADER.unpack_from(view)
    if tag != HEADER_TAG:
        raise ShardError("the shard does not begin with the shard tag")
    if version != HEADER_VERSION:
        raise ShardError(f"shard version {version} is not supported, only {HEADER_VERSION}")
    if footer_bytes not in (0, _FOOTER.size):
        raise ShardError(f"a shard footer has 0 or {_FOOTER.size} bytes, not {footer_bytes}")
    records = _Records(view, _HEADER.size)
    files = tuple(_files(records))
    xorbs = tuple(_xorbs(records))
    rest_bytes = len(view) - records.offset
    if rest_bytes < footer_bytes or (footer_bytes == 0 and rest_bytes):
        raise ShardError(f"{rest_bytes} bytes behind the sections do not match a footer of {footer_bytes}")
    return Shard(files, xorbs)


def _files(records: _Records) -> Iterable[ShardFile]:
    while True:
        header = records.take(1, "the file section")
        file_hash, flags, count, _ = _FILE.unpack(header)
        if file_hash == BOOKEND[:32]:
            return
        name = hash_to_text(XetHash(file_hash))
        if flags & ~(FLAG_VERIFICATION | FLAG_METADATA):
            raise ShardError(f"file {name} has unknown flags {flags:#x}")
        if not flags & FLAG_VERIFICATION:
            raise ShardError(f"file {name} comes without verification hashes")
        if count > MAX_TERMS_PER_FILE or (count == 0) != (file_hash == ZERO_HASH):
            raise ShardError(
                f"file {name} has {count} terms, accepted are 1 to {MAX_TERMS_PER_FILE}, 0 if empty"
            )
        entries = records.take(count, f"the terms of file {name}")
        proofs = records.take(count, f"the verification hashes of file {name}")
        terms = []
        for index, (xorb, _, size_bytes, start, end) in enumerate(_ENTRY.iter_unpack(entries)):
            if not start < end <= MAX_XORB_CHUNKS:
                raise ShardError(f"term {index} of file {name} has the chunk range {start}..{end}")
            if not 0 < size_bytes <= MAX_XORB_UNPACKED_BYTES:
                raise ShardError(f"term {index} of file {name} has {size_bytes} bytes")
            proof = bytes(proofs[index * RECORD_BYTES : index * RECORD_BYTES + 32])
            terms.append(ShardTerm(XetHash(xorb), start, end, size_bytes, proof))
        sha256 = None
        if flags & FLAG_METADATA:
            # Stored in the word order of Xet hashes, so that its text form is the usual hexadecimal one.
            sha256 = hash_to_text(XetHash(bytes(records.take(1, f"the metadata of file {name}")[:32])))
        yield ShardFile(XetHash(file_hash), tuple(terms), sha256)


def _xorbs(records: _Records) -> Iterable[ShardXorb]:
    while True:
        header = records.take(1, "the xorb section")
        xorb, _, count, total_bytes, _ = _ENTRY.unpack(header)
        if xorb == BOOKEND[:32]:
            return
        name = hash_to_text(XetHash(xorb))
        if not 0 < count <= MAX_XORB_CHUNKS:
            raise ShardError(f"xorb {name} has {count} chunks, accepted are 1 to {MAX_XORB_CHUNKS}")
        hashes = []
        lengths = array("I")
        dedup = []
        position = 0
        chunks = records.take(count, f"the chunks of xorb {name}")
        for index, (chunk, offset, length, flags, _) in enumerate(_ENTRY.iter_unpack(chunks)):
            if offset != position or not 0 < length <= MAX_CHUNK_BYTES:
                raise ShardError(f"chunk {index} of xorb {name} has offset {offset} and {length} bytes")
            position += length
            hashes.append(chunk)
            lengths.append(length)
            if flags & FLAG_DEDUP_CHUNK:
                dedup.append(index)
        if position != total_bytes or position > MAX_XORB_UNPACKED_BYTES:
            raise ShardError(f"xorb {name} states {total_bytes} bytes, its chunks have {position}")
        yield ShardXorb(XetHash(xorb), b"".join(hashes), lengths, tuple(dedup))


def _word(raw: bytes) -> int:
    return int.from_bytes(raw[:8], "little")


def build_dedup_shard(
    xorbs: Iterable[tuple[XetHash, bytes, array[int], int]], created_at_s: int, expires_at_s: int
) -> bytes:
    """A shard with lookup tables and footer that tells a client which chunks are already stored.

    ``xorbs`` are (hash, joined chunk hashes, unpacked lengths, bytes on disk).
    """
    body = bytearray()
    xorb_lookup: list[tuple[int, int]] = []
    chunk_lookup: list[tuple[int, int, int]] = []
    stored_bytes = disk_total_bytes = 0
    position = 0
    for xorb, hashes, lengths, disk_bytes in sorted(xorbs):
        xorb_lookup.append((_word(xorb), position))
        total_bytes = sum(lengths)
        body += _ENTRY.pack(xorb, 0, len(lengths), total_bytes, disk_bytes)
        offset = 0
        for index, length in enumerate(lengths):
            chunk = hashes[32 * index : 32 * index + 32]
            body += _ENTRY.pack(chunk, offset, length, 0, 0)
            chunk_lookup.append((_word(chunk), position, index))
            offset += length
        position += 1 + len(lengths)
        stored_bytes += total_bytes
        disk_total_bytes += disk_bytes
    file_info_at = _HEADER.size
    xorb_info_at = file_info_at + RECORD_BYTES
    file_lookup_at = xorb_info_at + len(body) + RECORD_BYTES
    chunk_lookup_at = file_lookup_at + 12 * len(xorb_lookup)
    footer_at = chunk_lookup_at + 16 * len(chunk_lookup)
    parts = [_HEADER.pack(HEADER_TAG, HEADER_VERSION, _FOOTER.size), BOOKEND, bytes(body), BOOKEND]
    parts += [struct.pack("<QI", *row) for row in sorted(xorb_lookup)]
    parts += [struct.pack("<QII", *row) for row in sorted(chunk_lookup)]
    parts.append(
        _FOOTER.pack(
            FOOTER_VERSION,
            file_info_at,
            xorb_info_at,
            *(file_lookup_at, 0),
            *(file_lookup_at, len(xorb_lookup)),
            *(chunk_lookup_at, len(chunk_lookup)),
            bytes(32),
            created_at_s,
            expires_at_s,
            *(0, 0, 0, 0, 0, 0),
            *(disk_total_bytes, 0, stored_bytes, footer_at),
        )
    )
    return b"".join(parts)
