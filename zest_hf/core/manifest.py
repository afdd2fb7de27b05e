"""The manifest: the ordered (chunk hash, unpacked length) list of a xorb, a file, or a part of one.

A manifest is a claim until `Manifest.prove_xorb` or `Manifest.prove_file` has passed. A proved one then
proves single chunks: there is no way to prove a lone chunk against a xorb or file hash. A slice of a proved
manifest holds proved chunks, but its own root proves nothing.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from zest_hf._native import codec
from zest_hf.core.ids import HASH_SIZE, XetHash, hash_to_text
from zest_hf.errors import ProofError, ProtocolError

MAX_CHUNK_BYTES: Final = 128 * 1024
"""Upper bound of an unpacked chunk (Xet specification, content-defined chunking)."""

# The stored form in u32: eight of the hash, one of the length.
_WORD_BYTES: Final = 4
_HASH_WORDS: Final = HASH_SIZE // _WORD_BYTES
_RECORD_WORDS: Final = _HASH_WORDS + 1
_RECORD_BYTES: Final = _WORD_BYTES * _RECORD_WORDS


@dataclass(frozen=True, slots=True)
class Manifest:
    """`hashes` is 32*n raw bytes, `lengths` the n unpacked chunk lengths in bytes (array type "I").

    The array belongs to the manifest from then on and is never changed. Raises ProtocolError when
    the two disagree in number or a length is not in 1..131072. Indices outside the manifest are the caller's
    mistake: IndexError.
    """

    hashes: bytes
    lengths: array[int]
    _size_bytes: int = field(init=False, repr=False, compare=False)
    _offsets: array[int] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.hashes) != HASH_SIZE * len(self.lengths):
            raise ProtocolError(
                f"manifest with {len(self.hashes)} bytes of hashes for {len(self.lengths)} chunk lengths"
            )
        if self.lengths and not (min(self.lengths) >= 1 and max(self.lengths) <= MAX_CHUNK_BYTES):
            raise ProtocolError(f"manifest with a chunk length outside 1..{MAX_CHUNK_BYTES}")
        object.__setattr__(self, "_size_bytes", sum(self.lengths))
        object.__setattr__(self, "_offsets", None)

    def __len__(self) -> int:
        return len(self.lengths)

    def __hash__(self) -> int:
        return hash(self.hashes)

    def __repr__(self) -> str:
        return f"<Manifest of {len(self)} chunks, {self.size_bytes} bytes>"

    @property
    def size_bytes(self) -> int:
        """Unpacked size of all chunks together."""
        return self._size_bytes

    def hash(self, index: int) -> XetHash:
        """The hash of chunk `index`."""
        self._check(index, len(self) - 1)
        return XetHash(self.hashes[HASH_SIZE * index : HASH_SIZE * (index + 1)])

    def length(self, index: int) -> int:
        """The unpacked length of chunk `index` in bytes."""
        self._check(index, len(self) - 1)
        return self.lengths[index]

    def offset(self, index: int) -> int:
        """Where chunk `index` begins, in unpacked bytes; `index == len(self)` gives the size."""
        self._check(index, len(self))
        offsets = self._offsets
        if offsets is None:
            # Not at once: what is only stored or offered never needs them.
            offsets = array("Q", accumulate(self.lengths, initial=0))
            object.__setattr__(self, "_offsets", offsets)
        return offsets[index]

    def slice(self, start: int, end: int) -> Manifest:
        """The chunks of the half-open range start..end as a manifest of their own."""
        self._check(start, len(self))
        self._check(end, len(self))
        return Manifest(self.hashes[HASH_SIZE * start : HASH_SIZE * end], self.lengths[start:end])

    @staticmethod
    def join(parts: Iterable[Manifest]) -> Manifest:
        """The chunks of all parts, in order."""
        hashes: list[bytes] = []
        lengths = array("I")
        for part in parts:
            hashes.append(part.hashes)
            lengths.extend(part.lengths)
        return Manifest(b"".join(hashes), lengths)

    def root(self) -> XetHash:
        """The merkle root over the list (Xet specification, aggregated hash tree)."""
        return XetHash(codec.merkle_root(self.hashes, self.lengths))

    def xorb_hash(self) -> XetHash:
        """The hash of the xorb that consists of exactly these chunks."""
        return self.root()

    def file_hash(self) -> XetHash:
        """The hash of the file that consists of exactly these chunks; 32 zero bytes for no chunks."""
        return XetHash(codec.file_hash(self.hashes, self.lengths))

    def prove_xorb(self, xorb: XetHash) -> None:
        """Raises ProofError unless this is the complete manifest of `xorb`."""
        _prove("xorb", xorb, self.xorb_hash())

    def prove_file(self, file: XetHash) -> None:
        """Raises ProofError unless this is the complete manifest of `file`."""
        _prove("file", file, self.file_hash())

    def to_bytes(self) -> bytes:
        """The stored form: per chunk 32 raw bytes and the length as big-endian u32."""
        # Slices with a step, as records are many and Python is slow with each.
        words = array("I", bytes(_RECORD_BYTES * len(self)))
        hashes = array("I", self.hashes)
        for at in range(_HASH_WORDS):
            words[at::_RECORD_WORDS] = hashes[at::_HASH_WORDS]
        words[_HASH_WORDS::_RECORD_WORDS] = _big_endian(self.lengths[:])
        return words.tobytes()

    @staticmethod
    def from_bytes(data: bytes) -> Manifest:
        """Parse the stored form; raises ProtocolError. Needs memory in proportion to `data` only."""
        if len(data) % _RECORD_BYTES:
            raise ProtocolError(f"manifest of {len(data)} bytes is no multiple of {_RECORD_BYTES}")
        words = array("I", data)
        lengths = _big_endian(words[_HASH_WORDS::_RECORD_WORDS])
        del words[_HASH_WORDS::_RECORD_WORDS]
        return Manifest(words.tobytes(), lengths)

    def _check(self, index: int, last: int) -> None:
        if not 0 <= index <= last:
            raise IndexError(f"chunk {index} of a manifest of {len(self)}")


def _big_endian(words: array[int]) -> array[int]:
    """``words``, changed in place: from the order of this machine to big-endian, or back."""
    if sys.byteorder == "little":
        words.byteswap()
    return words


def _prove(kind: str, wanted: XetHash, got: XetHash) -> None:
    if wanted != got:
        raise ProofError(
            f"the chunks have the {kind} hash {hash_to_text(got)}, wanted {hash_to_text(wanted)}",
            wanted=wanted,
            got=got,
        )
