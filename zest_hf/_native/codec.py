"""Hashes, chunk boundaries and the serialized xorb format of the Xet protocol.

Typed over ``native/include/zest_codec.h``, which states the limits of every value. A hash is 32 raw
bytes, a list of hashes their concatenation, a list of lengths an ``array('I')`` of bytes. Every call
releases the GIL; an object may be used by one thread at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from zest_hf._native.lib import check, exception_for, ffi, lib
from zest_hf.errors import ZestError

HASH_SIZE: int = lib.ZEST_HASH_SIZE
CHUNK_MIN_BYTES: int = lib.ZEST_CHUNK_MIN
CHUNK_MAX_BYTES: int = lib.ZEST_CHUNK_MAX
CHUNK_PACKED_MAX_BYTES: int = lib.ZEST_CHUNK_PACKED_MAX
CHUNK_HEADER_SIZE: int = lib.ZEST_CHUNK_HEADER_SIZE
XORB_MAX_CHUNKS: int = lib.ZEST_XORB_MAX_CHUNKS

SCHEME_NONE: int = lib.ZEST_SCHEME_NONE
SCHEME_LZ4: int = lib.ZEST_SCHEME_LZ4
SCHEME_BG4_LZ4: int = lib.ZEST_SCHEME_BG4_LZ4
SCHEME_BITSLICE_LZ4: int = lib.ZEST_SCHEME_BITSLICE_LZ4

RULE_CURRENT: int = lib.ZEST_RULE_CURRENT
RULE_EARLY: int = lib.ZEST_RULE_EARLY
"""Chunking of uploads before September 2025: to match a file with its hash, try both rules."""

Buffer = bytes | bytearray | memoryview


class ChunkList(NamedTuple):
    """Chunks in order: ``hashes`` is 32 bytes a chunk, ``lengths`` the unpacked bytes of each."""

    hashes: bytes
    lengths: array[int]


class XorbLayout(NamedTuple):
    """Chunks of a serialized xorb; chunk i lies packed in ``[packed_offsets[i], packed_offsets[i + 1])``."""

    hashes: bytes
    lengths: array[int]
    packed_offsets: array[int]


def chunk_hash(data: Buffer) -> bytes:
    """Hash of a chunk: BLAKE3 keyed with the protocol's data key."""
    out = ffi.new("uint8_t[32]")
    view = ffi.from_buffer("uint8_t[]", data)
    lib.zest_chunk_hash(view, len(view), out)
    return bytes(ffi.buffer(out))


def merkle_root(hashes: Buffer, lengths: Sequence[int]) -> bytes:
    """Root over an ordered list of (hash, length), which of a xorb is its hash; 32 zero bytes if empty.

    Raises ZestError when the two lists do not have the same number of members or a length is not a u32.
    """
    return _list_hash(lib.zest_merkle_root, hashes, lengths)


def file_hash(hashes: Buffer, lengths: Sequence[int]) -> bytes:
    """File hash over the ordered list of a file's chunks; 32 zero bytes for an empty file.

    Raises ZestError as merkle_root does.
    """
    return _list_hash(lib.zest_file_hash, hashes, lengths)


def verification_hash(hashes: Buffer) -> bytes:
    """Verification hash of a term, over the hashes of its chunks. Raises ZestError for a part of a hash."""
    view = ffi.from_buffer("uint8_t[]", hashes)
    if len(view) % HASH_SIZE:
        raise ZestError(f"a list of hashes has {HASH_SIZE} bytes a member, not {len(view)} in all")
    out = ffi.new("uint8_t[32]")
    lib.zest_verification_hash(view, len(view) // HASH_SIZE, out)
    return bytes(ffi.buffer(out))


def keyed_hashes(hashes: Buffer, key: Buffer) -> bytes:
    """Each hash of a list keyed with the 32 bytes of ``key``: what shards with a chunk hash key hold instead.

    Raises ZestError for a part of a hash or a key of another size.
    """
    view, secret = ffi.from_buffer("uint8_t[]", hashes), ffi.from_buffer("uint8_t[]", key)
    if len(view) % HASH_SIZE or len(secret) != HASH_SIZE:
        raise ZestError(f"a hash and a key have {HASH_SIZE} bytes, not {len(view)} and {len(secret)} in all")
    out = ffi.new("uint8_t[]", max(len(view), 1))
    lib.zest_keyed_hashes(view, len(view) // HASH_SIZE, secret, out)
    return bytes(ffi.buffer(out, len(view)))


class Tree:
    """merkle_root and file_hash over a list that comes in pieces; needs 32 KiB, however long the list.

    ``root`` and ``file_hash`` may be asked for at any time and change nothing.
    """

    __slots__ = ("_tree",)

    def __init__(self, start: Tree | None = None) -> None:
        """A tree of nothing, or one that goes on where ``start`` is."""
        err = ffi.new("zest_error *")
        made = lib.zest_tree_new(err) if start is None else lib.zest_tree_copy(start._tree, err)
        if made == ffi.NULL:
            raise exception_for(err)
        self._tree: Any = ffi.gc(made, lib.zest_tree_free)

    def copy(self) -> Tree:
        """Another tree over the same list so far."""
        return Tree(self)

    def add(self, hashes: Buffer, lengths: Sequence[int]) -> None:
        """Appends members. Raises ZestError as merkle_root does."""
        view, lengths = _list(hashes, lengths)
        lib.zest_tree_add(self._tree, view, ffi.from_buffer("uint32_t[]", lengths), len(lengths))

    def root(self) -> bytes:
        """The xorb hash when the list is the chunks of a xorb; 32 zero bytes if empty."""
        return self._ask(lib.zest_tree_root)

    def file_hash(self) -> bytes:
        """The file hash when the list is the chunks of a file; 32 zero bytes if empty."""
        return self._ask(lib.zest_tree_file_hash)

    def _ask(self, function: Any) -> bytes:
        out = ffi.new("uint8_t[32]")
        function(self._tree, out)
        return bytes(ffi.buffer(out))


class Unpacker:
    """Streaming decoder of the packed chunks ``[first_chunk, end_chunk)`` of a xorb.

    Every chunk is decoded, hashed, compared with ``expected`` (32 bytes a chunk of the range) if that is
    given, and written with ``pwrite`` to ``fd`` at each of the ``placements`` that contains it:
    ``(start, end, file_offset)`` puts chunks [start, end) of the xorb, back to back, at file_offset.
    ``fd`` is borrowed; -1 decodes and hashes only.

    Raises ZestError for ranges that are empty or outside each other.
    """

    __slots__ = ("_count", "_err", "_state", "_unpacker")

    def __init__(
        self,
        fd: int,
        first_chunk: int,
        end_chunk: int,
        placements: Sequence[tuple[int, int, int]] = (),
        expected: Buffer | None = None,
    ) -> None:
        if not 0 <= first_chunk < end_chunk <= XORB_MAX_CHUNKS:
            raise ZestError(f"chunk range [{first_chunk}, {end_chunk}) is empty or beyond {XORB_MAX_CHUNKS}")
        self._count = end_chunk - first_chunk
        wanted: Any = ffi.NULL
        if expected is not None:
            wanted = ffi.from_buffer("uint8_t[]", expected)
            if len(wanted) != self._count * HASH_SIZE:
                raise ZestError(
                    f"{self._count} chunks have {self._count * HASH_SIZE} bytes of hashes, not {len(wanted)}"
                )
        try:
            targets = ffi.new("zest_placement[]", [tuple(placement) for placement in placements])
        except (OverflowError, TypeError) as error:
            raise ZestError(f"a placement is (first chunk, end chunk, file offset): {error}") from error
        self._err = ffi.new("zest_error *")
        made = lib.zest_unpacker_new(fd, first_chunk, end_chunk, targets, len(targets), wanted, self._err)
        if made == ffi.NULL:
            raise exception_for(self._err)
        self._unpacker = ffi.gc(made, lib.zest_unpacker_free)
        self._state = lib.zest_unpacker_unpacked(made)

    def feed(self, data: Buffer) -> None:
        """Takes the next bytes, split anywhere.

        Raises XorbError (malformed), ProofError (a chunk is not the expected one; it was not written),
        OSError (writing failed). After an error the object only answers its properties, and repeats it.
        """
        # Released at once: an exception keeps this frame, and with it the buffer, until the interpreter's last
        # garbage collection, which crashes over a memoryview that is still exported.
        with ffi.from_buffer("uint8_t[]", data) as view:
            check(lib.zest_unpacker_feed(self._unpacker, view, len(view), self._err), self._err)

    def limit(self, end_chunk: int) -> int:
        """No chunk of the xorb from ``end_chunk`` on is wanted any more, nor needed by `finish`.

        Nothing behind what this returns is written from now on: the first chunk that is not done, if that is later.
        """
        return int(lib.zest_unpacker_limit(self._unpacker, max(0, min(end_chunk, XORB_MAX_CHUNKS))))

    def finish(self) -> ChunkList:
        """Ends the input: hashes and lengths of all chunks.

        Raises XorbError when chunks are missing, or bytes that are no footer are left over.
        """
        check(lib.zest_unpacker_finish(self._unpacker, self._err), self._err)
        return self.chunks()

    def chunks(self, first: int = 0) -> ChunkList:
        """Hashes and lengths of the chunks done so far, from the ``first`` of them on."""
        if first < 0:
            raise ZestError(f"there is no chunk {first}")
        state = self._state
        count = max(0, int(state.chunks_done) - first)
        return ChunkList(
            bytes(ffi.buffer(state.hashes + first * HASH_SIZE, count * HASH_SIZE)),
            _array("I", state.lengths + first, count),
        )

    @property
    def chunks_done(self) -> int:
        """Chunks decoded, proved and written so far."""
        return int(self._state.chunks_done)

    @property
    def bytes_written(self) -> int:
        """Bytes written so far, over all placements."""
        return int(self._state.bytes_written)


def inspect_xorb(data: Buffer) -> XorbLayout:
    """Decodes and hashes a whole serialized xorb, up to its end or its footer. Raises XorbError."""
    view = ffi.from_buffer("uint8_t[]", data)
    err = ffi.new("zest_error *")
    made = lib.zest_layout_new(view, len(view), err)
    if made == ffi.NULL:
        raise exception_for(err)
    layout = ffi.gc(made, lib.zest_layout_free)
    count = lib.zest_layout_count(layout)
    return XorbLayout(
        bytes(ffi.buffer(lib.zest_layout_hashes(layout), count * HASH_SIZE)),
        _array("I", lib.zest_layout_lengths(layout), count),
        _array("Q", lib.zest_layout_packed_offsets(layout), count + 1),
    )


def unpack_into(data: Buffer, count: int, out: Buffer, *, hashed: bool = True) -> bytes:
    """Decodes exactly ``count`` packed chunks, without a footer, that fill the writable ``out`` exactly.

    The hashes of the chunks, nothing when not ``hashed``. Raises XorbError; ``out`` then holds what was
    decoded before. Raises ZestError for a count or an ``out`` out of range.
    """
    if not 0 <= count <= XORB_MAX_CHUNKS:
        raise ZestError(f"{count} chunks, a xorb has at most {XORB_MAX_CHUNKS}")
    try:
        room = ffi.from_buffer("uint8_t[]", out, require_writable=True)
    except (BufferError, TypeError) as error:
        raise ZestError(f"chunks are decoded into a writable buffer: {error}") from error
    view = ffi.from_buffer("uint8_t[]", data)
    hashes = ffi.new("uint8_t[]", count * HASH_SIZE) if hashed and count else ffi.NULL
    err = ffi.new("zest_error *")
    check(lib.zest_unpack(view, len(view), count, room, len(room), hashes, err), err)
    return bytes(ffi.buffer(hashes, count * HASH_SIZE)) if hashes != ffi.NULL else b""


def pack_xorb(chunks: Iterable[Buffer], scheme: int | None = None) -> bytes:
    """Serializes chunks of 1..131072 bytes, without a footer.

    ``scheme`` None chooses for each chunk as the reference uploader does. A chunk that does not shrink is
    stored. Raises ZestError for a chunk or a scheme out of range.
    """
    if scheme is not None and not SCHEME_NONE <= scheme <= SCHEME_BITSLICE_LZ4:
        raise ZestError(f"compression scheme {scheme} is not in {SCHEME_NONE}..{SCHEME_BITSLICE_LZ4}")
    wanted = lib.ZEST_SCHEME_AUTO if scheme is None else scheme
    capacity = lib.zest_pack_bound(CHUNK_MAX_BYTES)
    room = ffi.new("uint8_t[]", capacity)
    packed_size = ffi.new("size_t *")
    err = ffi.new("zest_error *")
    packed = []
    for chunk in chunks:
        view = ffi.from_buffer("uint8_t[]", chunk)
        check(lib.zest_pack_chunk(view, len(view), wanted, room, capacity, packed_size, err), err)
        packed.append(bytes(ffi.buffer(room, packed_size[0])))
    return b"".join(packed)


class Chunker:
    """Content-defined chunk boundaries of a stream; the result does not depend on how it is split into feeds.

    ``rule`` is RULE_CURRENT or RULE_EARLY, else ZestError.
    """

    __slots__ = ("_chunker", "_last", "_offset", "_rule")

    def __init__(self, rule: int = RULE_CURRENT) -> None:
        self._rule = rule
        self._start()

    def _start(self) -> None:
        err = ffi.new("zest_error *")
        made = lib.zest_chunker_new(self._rule, err)
        if made == ffi.NULL:
            raise exception_for(err)
        self._chunker = ffi.gc(made, lib.zest_chunker_free)
        self._offset = 0
        self._last = 0

    def feed(self, data: Buffer) -> list[int]:
        """Takes the next bytes; stream offsets of the ends of the chunks that they complete."""
        view = ffi.from_buffer("uint8_t[]", data)
        capacity = lib.zest_chunker_bound(len(view))
        ends = ffi.new("uint64_t[]", capacity)
        count = lib.zest_chunker_feed(self._chunker, view, len(view), ends, capacity)
        found: list[int] = ffi.unpack(ends, count) if count else []
        self._offset += len(view)
        if found:
            self._last = found[-1]
        return found

    def finish(self) -> list[int]:
        """Ends the stream: the end of its last chunk if that was not reported yet, else nothing.

        A new stream begins after it.
        """
        left = [self._offset] if self._offset > self._last else []
        self._start()
        return left


class FileScan:
    """Chunks and hashes the first ``size_bytes`` bytes of a file, through one small buffer.

    ``fd`` is borrowed. ``rule`` is RULE_CURRENT or RULE_EARLY. With a ``part`` (begin, end), only the chunks
    that start in it, the first of them at its begin: these are chunks of the file if the file has a chunk
    boundary there. Raises ZestError for a size, a part or a rule out of range.
    """

    __slots__ = ("_err", "_scan")

    def __init__(
        self, fd: int, size_bytes: int, rule: int = RULE_CURRENT, *, part: tuple[int, int] | None = None
    ) -> None:
        if not 0 <= size_bytes < 1 << 62:
            raise ZestError(f"a file does not have {size_bytes} bytes")
        begin, end = part if part is not None else (0, size_bytes)
        if not 0 <= begin <= end <= size_bytes:
            raise ZestError(f"{begin}..{end} is no part of a file of {size_bytes} bytes")
        self._err = ffi.new("zest_error *")
        made = lib.zest_scan_new(fd, begin, end, size_bytes, rule, self._err)
        if made == ffi.NULL:
            raise exception_for(self._err)
        self._scan = ffi.gc(made, lib.zest_scan_free)

    def next(self, max_chunks: int = 1024) -> ChunkList:
        """The next at most ``max_chunks`` chunks; empty at the end.

        Raises OSError (reading failed), StorageError (the file ended early: it changed while it was read).
        """
        room = max(1, min(max_chunks, 65536))
        hashes = ffi.new("uint8_t[]", room * HASH_SIZE)
        lengths = ffi.new("uint32_t[]", room)
        count = ffi.new("size_t *")
        check(lib.zest_scan_next(self._scan, room, hashes, lengths, count, self._err), self._err)
        return ChunkList(bytes(ffi.buffer(hashes, count[0] * HASH_SIZE)), _array("I", lengths, count[0]))


def copy_chunks(
    source_fd: int, source_offset: int, fd: int, offset: int, hashes: Buffer, lengths: Sequence[int]
) -> int:
    """Copies chunks that lie one after the other in one file into another, each only if its hash is right.

    How many of the first were: what has changed, or cannot be read, ends it. Offsets are bytes, less than 2^62. Raises
    OSError (writing failed), ZestError as merkle_root does.
    """
    if not (0 <= source_offset < 1 << 62 and 0 <= offset < 1 << 62):
        raise ZestError(f"no file has an offset of {max(source_offset, offset)} bytes")
    view, lengths = _list(hashes, lengths)
    err, copied = ffi.new("zest_error *"), ffi.new("size_t *")
    sizes = ffi.from_buffer("uint32_t[]", lengths)
    check(lib.zest_copy_chunks(source_fd, source_offset, fd, offset, view, sizes, len(lengths), copied, err), err)
    return int(copied[0])


def give_way() -> bool:
    """Has the thread that calls this get the disk when nobody else wants it, and less of the processors, for good.

    False: the system would not have it.
    """
    return bool(lib.zest_give_way())


def _list(hashes: Buffer, lengths: Sequence[int]) -> tuple[Any, array[int]]:
    view = ffi.from_buffer("uint8_t[]", hashes)
    count = len(lengths)
    if len(view) != count * HASH_SIZE:
        raise ZestError(f"{count} lengths need {count * HASH_SIZE} bytes of hashes, not {len(view)}")
    if not isinstance(lengths, array) or lengths.typecode != "I":
        try:
            lengths = array("I", lengths)
        except (OverflowError, TypeError) as error:
            raise ZestError(f"a chunk length is not an unsigned 32-bit number: {error}") from error
    return view, lengths


def _list_hash(function: Any, hashes: Buffer, lengths: Sequence[int]) -> bytes:
    view, lengths = _list(hashes, lengths)
    out = ffi.new("uint8_t[32]")
    err = ffi.new("zest_error *")
    check(function(view, ffi.from_buffer("uint32_t[]", lengths), len(lengths), out, err), err)
    return bytes(ffi.buffer(out))


def _array(typecode: str, pointer: Any, count: int) -> array[int]:
    out = array(typecode)
    if count:
        out.frombytes(ffi.buffer(pointer, count * out.itemsize))
    return out
