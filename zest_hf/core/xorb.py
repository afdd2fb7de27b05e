"""Serialized xorbs: the table of packed chunks, and the footer that may follow them.

Implements the xorb section of the Xet specification (https://huggingface.co/docs/xet/xorb). All integers are
little-endian, all ranges half-open. What is unpacked is hashed, and every limit is checked before memory is
reserved for what it limits.

Uploaders send xorbs without a footer: where the chunks are follows from their headers. With a footer a reader
finds that, and the hash of every chunk, without the chunks.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

from zest_hf._native import codec
from zest_hf.core.ids import HASH_SIZE, XetHash, hash_to_text
from zest_hf.core.manifest import MAX_CHUNK_BYTES, Manifest
from zest_hf.errors import ProofError, ProtocolError, XorbError

MAX_XORB_CHUNKS: Final = 8192
MAX_XORB_BYTES: Final = 64 << 20
"""Unpacked bytes of a xorb; packed it may have a header of 8 bytes for each chunk more."""

FOOTER_IDENT: Final = b"XETBLOB"
_HASHES_IDENT: Final = b"XBLBHSH"
_BOUNDARIES_IDENT: Final = b"XBLBBND"
_RESERVED_BYTES: Final = 16

_HEADER: Final = struct.Struct("<B3sB3s")
_HEAD: Final = struct.Struct("<7sB32s")
_SECTION: Final = struct.Struct("<7sBI")
_TAIL: Final = struct.Struct("<III16s")
_WORD: Final = struct.Struct("<I")

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class ChunkTable:
    """What the chunk headers say: chunk i has `lengths[i]` bytes, packed with scheme `schemes[i]` (0..3) into the
    bytes packed_offsets[i]..packed_offsets[i + 1], its header included.

    `lengths` and `schemes` have n members, `packed_offsets` n + 1, the first of them 0.
    """

    lengths: array[int]
    packed_offsets: array[int]
    schemes: bytes

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def size_bytes(self) -> int:
        """Unpacked."""
        return sum(self.lengths)

    @property
    def packed_bytes(self) -> int:
        return self.packed_offsets[-1]


def chunk_table(data: Buffer) -> ChunkTable:
    """The table of a serialized xorb, or of a run of its chunks, up to the end or the footer.

    Nothing is decoded. Raises XorbError for a malformed header and for what breaks a limit of a xorb.
    """
    view = memoryview(data).cast("B")
    lengths, offsets, schemes = array("I"), array("Q", [0]), bytearray()
    at = total = 0
    while at < len(view) and bytes(view[at : at + len(FOOTER_IDENT)]) != FOOTER_IDENT:
        index = len(lengths)
        if index == MAX_XORB_CHUNKS:
            raise XorbError(f"malformed xorb: more than {MAX_XORB_CHUNKS} chunks")
        if len(view) - at < _HEADER.size:
            raise XorbError(f"malformed xorb: the bytes end inside the header of chunk {index}")
        version, packed, scheme, unpacked = _HEADER.unpack_from(view, at)
        packed_bytes, length = int.from_bytes(packed, "little"), int.from_bytes(unpacked, "little")
        wrong = (
            version != 0
            or scheme > codec.SCHEME_BITSLICE_LZ4
            or not 0 < length <= MAX_CHUNK_BYTES
            or not 0 < packed_bytes <= codec.CHUNK_PACKED_MAX_BYTES
            or (scheme == codec.SCHEME_NONE and packed_bytes != length)
        )
        if wrong:
            raise XorbError(
                f"malformed xorb: chunk {index} has header version {version}, scheme {scheme}, "
                f"{packed_bytes} packed and {length} unpacked bytes"
            )
        at += _HEADER.size + packed_bytes
        if at > len(view):
            raise XorbError(f"malformed xorb: the bytes end inside chunk {index}")
        total += length
        if total > MAX_XORB_BYTES:
            raise XorbError(f"malformed xorb: more than {MAX_XORB_BYTES} unpacked bytes")
        lengths.append(length)
        offsets.append(at)
        schemes.append(scheme)
    return ChunkTable(lengths, offsets, bytes(schemes))


@dataclass(frozen=True, slots=True)
class XorbFooter:
    """The footer of `xorb`: hashes (32 * n bytes) and places of its n chunks.

    `lengths` (unpacked bytes) is None in version 0 of the footer, which does not have them. `reserved` are the 16
    bytes at the end, of which an uploader may use the first 4 to make equal xorbs differ; they prove nothing.
    """

    xorb: XetHash
    hashes: bytes
    packed_offsets: array[int]
    lengths: array[int] | None
    reserved: bytes = bytes(_RESERVED_BYTES)

    def to_bytes(self) -> bytes:
        """The footer and the word behind it that says how long it is. Raises XorbError when the lists differ."""
        count = len(self.packed_offsets) - 1
        lists = [len(self.hashes), HASH_SIZE * count if self.lengths is None else HASH_SIZE * len(self.lengths)]
        if lists != [HASH_SIZE * count] * 2 or len(self.reserved) != _RESERVED_BYTES:
            raise XorbError("a xorb's footer needs as many hashes and lengths as places")
        ends = struct.pack(f"<{count}I", *self.packed_offsets[1:])
        if self.lengths is None:
            head = _HEAD.pack(FOOTER_IDENT, 0, self.xorb) + _WORD.pack(count)
            info = head + ends + self.hashes + self.reserved
        else:
            unpacked_ends = struct.pack(f"<{count}I", *accumulate(self.lengths))
            hashes = _SECTION.pack(_HASHES_IDENT, 0, count) + self.hashes
            boundaries = _SECTION.pack(_BOUNDARIES_IDENT, 1, count) + ends + unpacked_ends
            from_end = len(boundaries) + _TAIL.size
            tail = _TAIL.pack(count, len(hashes) + from_end, from_end, self.reserved)
            info = _HEAD.pack(FOOTER_IDENT, 1, self.xorb) + hashes + boundaries + tail
        return info + _WORD.pack(len(info))


def parse_footer(data: Buffer) -> XorbFooter:
    """Parse a whole footer, from its ident to the length word behind it, both versions.

    Raises XorbError for anything malformed, and for hashes that are not those of the xorb it names (version 1;
    version 0 cannot be checked without the chunks).
    """
    view = memoryview(data).cast("B")
    if len(view) < _HEAD.size + _WORD.size or bytes(view[: len(FOOTER_IDENT)]) != FOOTER_IDENT:
        raise _wrong("it does not begin with the ident of a footer")
    (stated,) = _WORD.unpack_from(view, len(view) - _WORD.size)
    info = view[: -_WORD.size]
    if stated != len(info):
        raise _wrong(f"it says that it has {stated} bytes and has {len(info)}")
    _, version, xorb = _HEAD.unpack_from(info)
    if version not in (0, 1):
        raise _wrong(f"version {version} is unknown")
    read = _version_1 if version else _version_0
    hashes, ends, unpacked_ends, reserved = read(info)
    offsets = array("Q", [0, *ends])
    for index, (start, end) in enumerate(pairwise(offsets)):
        if not _HEADER.size < end - start <= _HEADER.size + codec.CHUNK_PACKED_MAX_BYTES:
            raise _wrong(f"chunk {index} lies packed in bytes {start}..{end}")
    lengths = None if unpacked_ends is None else _lengths(unpacked_ends)
    footer = XorbFooter(XetHash(xorb), hashes, offsets, lengths, reserved)
    if lengths is not None:
        try:
            Manifest(hashes, lengths).prove_xorb(footer.xorb)
        except (ProofError, ProtocolError) as error:
            raise _wrong(str(error)) from error
    return footer


_Parts = tuple[bytes, Sequence[int], "Sequence[int] | None", bytes]


def _version_0(info: memoryview) -> _Parts:
    count = _count(info, _HEAD.size)
    at = _HEAD.size + _WORD.size
    if len(info) != at + count * (_WORD.size + HASH_SIZE) + _RESERVED_BYTES:
        raise _wrong(f"{len(info)} bytes do not fit {count} chunks")
    ends = struct.unpack_from(f"<{count}I", info, at)
    at += count * _WORD.size
    return bytes(info[at : at + count * HASH_SIZE]), ends, None, bytes(info[-_RESERVED_BYTES:])


def _version_1(info: memoryview) -> _Parts:
    if len(info) < _HEAD.size + 2 * _SECTION.size + _TAIL.size:
        raise _wrong("it ends early")
    count = _count(info, _HEAD.size + _SECTION.size - _WORD.size)
    hashes_at = _HEAD.size
    boundaries_at = hashes_at + _SECTION.size + count * HASH_SIZE
    tail_at = boundaries_at + _SECTION.size + 2 * count * _WORD.size
    if len(info) != tail_at + _TAIL.size:
        raise _wrong(f"{len(info)} bytes do not fit {count} chunks")
    if _SECTION.unpack_from(info, hashes_at) != (_HASHES_IDENT, 0, count):
        raise _wrong("the section of the hashes is not where it belongs")
    if _SECTION.unpack_from(info, boundaries_at) != (_BOUNDARIES_IDENT, 1, count):
        raise _wrong("the section of the boundaries is not where it belongs")
    *places, reserved = _TAIL.unpack_from(info, tail_at)
    if places != [count, len(info) - hashes_at, len(info) - boundaries_at]:
        raise _wrong("it contradicts itself about its sections")
    hashes = bytes(info[hashes_at + _SECTION.size : boundaries_at])
    ends = struct.unpack_from(f"<{2 * count}I", info, boundaries_at + _SECTION.size)
    return hashes, ends[:count], ends[count:], reserved


def _count(info: memoryview, at: int) -> int:
    if len(info) < at + _WORD.size:
        raise _wrong("it ends early")
    count: int = _WORD.unpack_from(info, at)[0]
    if not 0 < count <= MAX_XORB_CHUNKS:
        raise _wrong(f"{count} chunks, accepted are 1 to {MAX_XORB_CHUNKS}")
    return count


def _lengths(ends: Sequence[int]) -> array[int]:
    lengths = array("I")
    for index, (start, end) in enumerate(pairwise((0, *ends))):
        if not start < end <= min(start + MAX_CHUNK_BYTES, MAX_XORB_BYTES):
            raise _wrong(f"chunk {index} has bytes {start}..{end} of the content")
        lengths.append(end - start)
    return lengths


def _wrong(what: str) -> XorbError:
    return XorbError(f"malformed footer of a xorb: {what}")


@dataclass(frozen=True, slots=True)
class Xorb:
    """A serialized xorb that has been decoded and hashed as a whole."""

    manifest: Manifest
    table: ChunkTable
    footer: XorbFooter | None

    @property
    def hash(self) -> XetHash:
        """The xorb hash."""
        return self.manifest.xorb_hash()


def read_xorb(data: Buffer) -> Xorb:
    """Decode and hash a whole serialized xorb, with or without a footer.

    Raises XorbError for anything malformed, and for a footer that says something else than the chunks.
    Compare `Xorb.hash` with the hash that it was asked for by. Memory: the table, not the content.
    """
    view = memoryview(data).cast("B")
    table = chunk_table(view)
    if not len(table):
        raise XorbError("malformed xorb: it holds no chunk")
    hashes, lengths, _ = codec.inspect_xorb(view[: table.packed_bytes])
    manifest = Manifest(hashes, lengths)
    footer = None
    if table.packed_bytes < len(view):
        footer = parse_footer(view[table.packed_bytes :])
        _check_footer(footer, manifest, table)
    return Xorb(manifest, table, footer)


def _check_footer(footer: XorbFooter, manifest: Manifest, table: ChunkTable) -> None:
    if footer.hashes != manifest.hashes or footer.xorb != manifest.xorb_hash():
        found, named = hash_to_text(manifest.xorb_hash()), hash_to_text(footer.xorb)
        raise _wrong(f"it is that of xorb {named}, its chunks are not, but those of {found}")
    if footer.packed_offsets != table.packed_offsets or footer.lengths not in (None, table.lengths):
        raise _wrong("the chunks are not where it says")


def unpack_xorb(data: Buffer, start: int = 0, end: int | None = None) -> tuple[Manifest, bytearray]:
    """Chunks start..end of a serialized xorb (all by default): their manifest, and their content back to back.

    Raises XorbError for anything malformed (a footer is left alone) and for chunks that the xorb does not
    have. Memory: the content, at most 64 MiB.
    """
    view = memoryview(data).cast("B")
    table = chunk_table(view)
    last = len(table) if end is None else end
    if not 0 <= start < last <= len(table):
        raise XorbError(f"chunks {start}..{last} of a xorb that has {len(table)}")
    lengths = table.lengths[start:last]
    content = bytearray(sum(lengths))
    packed = view[table.packed_offsets[start] : table.packed_offsets[last]]
    return Manifest(codec.unpack_into(packed, last - start, content), lengths), content


def pack_xorb(chunks: Iterable[Buffer], scheme: int | None = None, *, footer: bool = False) -> bytes:
    """Serialize 1..8192 chunks of 1..131072 bytes, 64 MiB in all.

    `scheme` is 0 (stored), 1 (LZ4), 2 (bytes grouped by 4, LZ4), 3 (bit planes, LZ4) or None: choose for each
    chunk as uploaders do. A chunk that does not shrink is stored. Raises XorbError for too many chunks or
    bytes, ZestError for a chunk or a scheme out of range.
    """
    kept = list(chunks)
    if not 0 < len(kept) <= MAX_XORB_CHUNKS or sum(map(len, kept)) > MAX_XORB_BYTES:
        raise XorbError(
            f"a xorb has 1 to {MAX_XORB_CHUNKS} chunks of {MAX_XORB_BYTES} bytes at most, "
            f"not {len(kept)} of {sum(map(len, kept))}"
        )
    packed = codec.pack_xorb(kept, scheme)
    if not footer:
        return packed
    manifest = Manifest(b"".join(map(codec.chunk_hash, kept)), array("I", map(len, kept)))
    table = chunk_table(packed)
    made = XorbFooter(manifest.xorb_hash(), manifest.hashes, table.packed_offsets, manifest.lengths)
    return packed + made.to_bytes()
