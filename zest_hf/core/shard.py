"""Shards: which files consist of which chunks of which xorbs.

Implements the shard section of the Xet specification (https://huggingface.co/docs/xet/shard). Pure: bytes in,
values out, nothing is looked up. All integers are little-endian, every record has 48 bytes, chunk ranges are
half-open.

A shard is uploaded without a footer. The CAS answers a deduplication query with a shard that has one, and look-up
tables in front of it; its chunk hashes may be keyed, so that only who has a chunk can find it there.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final

from zest_hf._native import codec
from zest_hf.core.ids import HASH_SIZE, ZERO_HASH, XetHash, hash_from_text, hash_to_text
from zest_hf.core.manifest import MAX_CHUNK_BYTES, Manifest
from zest_hf.core.shard_footer import FOOTER_BYTES, Lookups, ShardFooter, read_footer, write_footer
from zest_hf.core.xorb import MAX_XORB_BYTES, MAX_XORB_CHUNKS
from zest_hf.errors import ProtocolError, ShardError

HEADER_TAG: Final = b"HFRepoMetaData\0" + bytes(
    (85, 105, 103, 69, 106, 123, 129, 87, 131, 165, 189, 217, 92, 205, 209, 74, 169)
)
HEADER_VERSION: Final = 2
RECORD_BYTES: Final = 48
BOOKEND: Final = b"\xff" * 32 + bytes(16)
FLAG_VERIFICATION: Final = 1 << 31
FLAG_METADATA: Final = 1 << 30
FLAG_DEDUP_CHUNK: Final = 1 << 31
MAX_TERMS_PER_FILE: Final = 1 << 22

_HEADER: Final = struct.Struct("<32sQQ")
_FILE: Final = struct.Struct("<32sIIQ")
_ENTRY: Final = struct.Struct("<32sIIII")
_PADDING: Final = bytes(RECORD_BYTES - HASH_SIZE)


@dataclass(frozen=True, slots=True)
class ShardTerm:
    """One term of a file: chunks start..end of `xorb`, unpacked bytes, and the hash that vouches for the range.

    `verification` is the verification hash over the chunk hashes of the range; None when the shard has none.
    """

    xorb: XetHash
    start: int
    end: int
    size_bytes: int
    verification: bytes | None


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A file and how it is rebuilt; `sha256` in hexadecimal, None when the shard does not have it.

    Either all of a file's terms have a verification hash or none has; an empty file has no terms.
    """

    file_hash: XetHash
    terms: tuple[ShardTerm, ...]
    sha256: str | None

    @property
    def size_bytes(self) -> int:
        return sum(term.size_bytes for term in self.terms)


@dataclass(frozen=True, slots=True)
class ShardXorb:
    """A xorb as the shard describes it: its chunk hashes (joined) and unpacked lengths.

    `dedup_chunks` are the indices of chunks by which others shall find it; `packed_bytes` is what it takes on
    disk, 0 where nobody has said. In a shard with a chunk hash key `hashes` are the keyed ones.
    """

    xorb: XetHash
    hashes: bytes
    lengths: array[int]
    dedup_chunks: tuple[int, ...] = ()
    packed_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """Unpacked."""
        return sum(self.lengths)


@dataclass(frozen=True, slots=True)
class Shard:
    """`footer` None: as uploaded."""

    files: tuple[ShardFile, ...]
    xorbs: tuple[ShardXorb, ...]
    footer: ShardFooter | None = None

    def to_bytes(self) -> bytes:
        """Serialize in the order given; with a footer, look-up tables too. Raises ShardError for what
        `parse_shard` would refuse.
        """
        return _serialize(self)

    def keyed(self, key: bytes, created_at_s: int, expires_at_s: int) -> Shard:
        """The same shard as a deduplication query is answered: chunk hashes keyed with the 32 bytes of `key`.

        Times in seconds since 1970. Raises ShardError when the hashes are keyed already.
        """
        if self.footer is not None and any(self.footer.chunk_key):
            raise ShardError("the chunk hashes of the shard are keyed already")
        xorbs = tuple(replace(xorb, hashes=codec.keyed_hashes(xorb.hashes, key)) for xorb in self.xorbs)
        return Shard(self.files, xorbs, ShardFooter(created_at_s, expires_at_s, chunk_key=key))


def upload_order(value: XetHash) -> tuple[int, ...]:
    """Sort key of the order in which clients write files and xorbs: by the four words of the hash."""
    return struct.unpack("<4Q", value)


def parse_shard(data: bytes | bytearray | memoryview) -> Shard:
    """Parse a whole shard, with or without look-up tables and footer.

    Raises ShardError on anything that breaks the format or its limits. Memory and time are in proportion to
    `data`. What has no meaning (padding, the flags of terms and xorbs) is not kept.
    """
    view = memoryview(data)
    if len(view) < _HEADER.size:
        raise ShardError(f"a shard has at least {_HEADER.size} bytes, this one has {len(view)}")
    tag, version, footer_bytes = _HEADER.unpack_from(view)
    if tag != HEADER_TAG:
        raise ShardError("the shard does not begin with the shard tag")
    if version != HEADER_VERSION:
        raise ShardError(f"shard version {version} is not supported, only {HEADER_VERSION}")
    if footer_bytes not in (0, FOOTER_BYTES):
        raise ShardError(f"a shard footer has 0 or {FOOTER_BYTES} bytes, not {footer_bytes}")
    records = _Records(view, _HEADER.size)
    files = tuple(_files(records))
    xorbs_at = records.offset
    xorbs = tuple(_xorbs(records))
    rest_bytes = len(view) - records.offset
    if rest_bytes < footer_bytes or (footer_bytes == 0 and rest_bytes):
        raise ShardError(f"{rest_bytes} bytes behind the sections do not match a footer of {footer_bytes}")
    if footer_bytes == 0:
        return Shard(files, xorbs)
    footer = read_footer(view, _HEADER.size, xorbs_at, records.offset, _lookups(files, xorbs))
    return Shard(files, xorbs, footer)


class _Records:
    """Hands out 48-byte records one after the other and refuses to run past the end."""

    def __init__(self, data: memoryview, offset: int) -> None:
        self._data = data
        self.offset = offset

    def take(self, count: int, what: str) -> memoryview:
        end = self.offset + count * RECORD_BYTES
        if end > len(self._data):
            raise ShardError(f"the shard ends inside {what}")
        part = self._data[self.offset : end]
        self.offset = end
        return part


def _files(records: _Records) -> Iterator[ShardFile]:
    while True:
        header = records.take(1, "the file section")
        file_hash, flags, count, _ = _FILE.unpack(header)
        if file_hash == BOOKEND[:32]:
            return
        name = hash_to_text(XetHash(file_hash))
        if flags & ~(FLAG_VERIFICATION | FLAG_METADATA):
            raise ShardError(f"file {name} has unknown flags {flags:#x}")
        _check_term_count(XetHash(file_hash), count)
        entries = records.take(count, f"the terms of file {name}")
        proofs = None
        if flags & FLAG_VERIFICATION:
            proofs = records.take(count, f"the verification hashes of file {name}")
        terms = []
        for index, (xorb, _, size_bytes, start, end) in enumerate(_ENTRY.iter_unpack(entries)):
            at = index * RECORD_BYTES
            proof = None if proofs is None else bytes(proofs[at : at + HASH_SIZE])
            term = ShardTerm(XetHash(xorb), start, end, size_bytes, proof)
            _check_term(term, index, XetHash(file_hash))
            terms.append(term)
        sha256 = None
        if flags & FLAG_METADATA:
            # Stored in the word order of Xet hashes, so that its text form is the usual hexadecimal one.
            sha256 = hash_to_text(XetHash(bytes(records.take(1, f"the metadata of file {name}")[:HASH_SIZE])))
        yield ShardFile(XetHash(file_hash), tuple(terms), sha256)


def _check_term_count(file_hash: XetHash, count: int) -> None:
    if count > MAX_TERMS_PER_FILE or (count == 0) != (file_hash == ZERO_HASH):
        raise ShardError(
            f"file {hash_to_text(file_hash)} has {count} terms, accepted are 1 to {MAX_TERMS_PER_FILE}, 0 if empty"
        )


def _check_term(term: ShardTerm, index: int, file_hash: XetHash) -> None:
    where = f"term {index} of file {hash_to_text(file_hash)}"
    if not 0 <= term.start < term.end <= MAX_XORB_CHUNKS:
        raise ShardError(f"{where} has the chunk range {term.start}..{term.end}")
    if not 0 < term.size_bytes <= MAX_XORB_BYTES:
        raise ShardError(f"{where} has {term.size_bytes} bytes")


def _xorbs(records: _Records) -> Iterator[ShardXorb]:
    while True:
        header = records.take(1, "the xorb section")
        xorb, _, count, total_bytes, packed_bytes = _ENTRY.unpack(header)
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
        if position != total_bytes or position > MAX_XORB_BYTES:
            raise ShardError(f"xorb {name} states {total_bytes} bytes, its chunks have {position}")
        yield ShardXorb(XetHash(xorb), b"".join(hashes), lengths, tuple(dedup), packed_bytes)


def _serialize(shard: Shard) -> bytes:
    out = [_HEADER.pack(HEADER_TAG, HEADER_VERSION, FOOTER_BYTES if shard.footer is not None else 0)]
    for file in shard.files:
        out.append(_file_section(file))
    out.append(BOOKEND)
    xorbs_at = sum(map(len, out))
    for xorb in shard.xorbs:
        out += _xorb_section(xorb)
    out.append(BOOKEND)
    if shard.footer is not None:
        end = xorbs_at + sum(map(len, out[1 + len(shard.files) + 1 :]))
        out.append(write_footer(shard.footer, _HEADER.size, xorbs_at, end, _lookups(shard.files, shard.xorbs)))
    return b"".join(out)


def _file_section(file: ShardFile) -> bytes:
    name = hash_to_text(file.file_hash)
    _check_term_count(file.file_hash, len(file.terms))
    proofs = [term.verification for term in file.terms if term.verification is not None]
    if len(proofs) not in (0, len(file.terms)) or any(len(proof) != HASH_SIZE for proof in proofs):
        raise ShardError(f"file {name} needs a verification hash for all of its terms or for none")
    # An empty file has no term that could lack one.
    flags = FLAG_VERIFICATION if len(proofs) == len(file.terms) else 0
    records = []
    for index, term in enumerate(file.terms):
        _check_term(term, index, file.file_hash)
        records.append(_ENTRY.pack(term.xorb, 0, term.size_bytes, term.start, term.end))
    records += [proof + _PADDING for proof in proofs]
    if file.sha256 is not None:
        flags |= FLAG_METADATA
        try:
            records.append(hash_from_text(file.sha256) + _PADDING)
        except ProtocolError:
            raise ShardError(f"the SHA-256 of file {name} is not 64 hexadecimal digits") from None
    return _FILE.pack(file.file_hash, flags, len(file.terms), 0) + b"".join(records)


def _xorb_section(xorb: ShardXorb) -> list[bytes]:
    name = hash_to_text(xorb.xorb)
    count = len(xorb.lengths)
    if not 0 < count <= MAX_XORB_CHUNKS or xorb.size_bytes > MAX_XORB_BYTES:
        raise ShardError(f"xorb {name} has {count} chunks of {xorb.size_bytes} bytes, which is over the limits")
    try:
        Manifest(xorb.hashes, xorb.lengths)
    except ProtocolError as error:
        raise ShardError(f"xorb {name}: {error}") from None
    if not all(0 <= index < count for index in xorb.dedup_chunks) or not 0 <= xorb.packed_bytes < 1 << 32:
        raise ShardError(f"xorb {name} does not have the chunks or the size on disk that the shard states")
    flagged = frozenset(xorb.dedup_chunks)
    out = [_ENTRY.pack(xorb.xorb, 0, count, xorb.size_bytes, xorb.packed_bytes)]
    offsets = accumulate(xorb.lengths, initial=0)
    for index, (offset, length) in enumerate(zip(offsets, xorb.lengths, strict=False)):
        flags = FLAG_DEDUP_CHUNK if index in flagged else 0
        out.append(_ENTRY.pack(xorb.hashes[HASH_SIZE * index : HASH_SIZE * (index + 1)], offset, length, flags, 0))
    return out


def _lookups(files: Iterable[ShardFile], xorbs: Iterable[ShardXorb]) -> Lookups:
    """What the look-up tables and the footer say about these sections."""
    tables = Lookups()
    at = 0
    for file in files:
        tables.files.append((_word(file.file_hash), at))
        verified = not file.terms or file.terms[0].verification is not None
        at += 1 + len(file.terms) * (2 if verified else 1) + (file.sha256 is not None)
        tables.materialized_bytes += file.size_bytes
    at = 0
    for xorb in xorbs:
        tables.xorbs.append((_word(xorb.xorb), at))
        words = (_word(xorb.hashes[i : i + 8]) for i in range(0, len(xorb.hashes), HASH_SIZE))
        tables.chunks.extend((word, at, index) for index, word in enumerate(words))
        at += 1 + len(xorb.lengths)
        tables.stored_bytes += xorb.size_bytes
        tables.packed_bytes += xorb.packed_bytes
    return tables


def _word(raw: bytes) -> int:
    return int.from_bytes(raw[:8], "little")
