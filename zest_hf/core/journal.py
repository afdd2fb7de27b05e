"""The format of a journal: what has been written of a file on its way, so that a process that was killed can be gone on
from. Pure.

Cutting what lies there into chunks again would do without one, but it cannot tell where what was written ends and
something else begins (a file system may not know holes, and the last chunk is cut off at one), takes a pass over the
disk before anything else can be done, and finds out about nothing that has changed since. A journal names every chunk
by its hash: where it lies is known at once, and whether it still does is seen when it is read.

A record is its payload's length and CRC-32 (both u32, big-endian) and the payload, whose first byte is its kind. What
follows a damaged record, as the last one may be, does not count. None of it is believed: a journal lies on the user's
disk, where anything may have happened to it and to the file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from zest_hf.core.ids import HASH_SIZE, XetHash
from zest_hf.core.local import LocalFile
from zest_hf.core.manifest import Manifest
from zest_hf.core.reconstruction import Term
from zest_hf.errors import ProofError, ProtocolError

MAGIC: Final = b"zest_hf journal 1\n"
MAX_BYTES: Final = 1 << 30
"""A file of a terabyte needs as much."""
_HEAD: Final = struct.Struct(">II")
_CHUNKS: Final = struct.Struct(">32sIQ")
_PLACE, _WRITTEN, _MANIFEST = b"P", b"W", b"M"


@dataclass(slots=True)
class Written:
    """What a journal says. ``path``: where the file lay at first; ``parts``: stretches of it, as noted."""

    file_hash: XetHash
    path: bytes
    parts: list[LocalFile] = field(default_factory=list)
    manifest: Manifest | None = None
    """The file's, proved."""

    @property
    def size_bytes(self) -> int:
        """Of what was written; what was written twice counts twice."""
        return sum(part.manifest.size_bytes for part in self.parts)


def place_record(file_hash: XetHash, path: bytes) -> bytes:
    """The first one: whose journal it is, and where the file lies."""
    return _record(_PLACE + file_hash + path)


def written_record(xorb: XetHash, first: int, offset: int, chunks: Manifest) -> bytes:
    """Chunks of a xorb from ``first`` on lie one after the other from byte ``offset`` of the file on."""
    return _record(_WRITTEN + _CHUNKS.pack(xorb, first, offset) + chunks.to_bytes())


def manifest_record(manifest: Manifest) -> bytes:
    """The file's manifest."""
    return _record(_MANIFEST + manifest.to_bytes())


def parse(data: bytes) -> Written | None:
    """What a journal says as far as it is whole. None: it is none."""
    records = _records(data)
    first = next(records, b"")
    if first[:1] != _PLACE or len(first) <= HASH_SIZE:
        return None
    file_hash = XetHash(first[1 : 1 + HASH_SIZE])
    written = Written(file_hash, first[1 + HASH_SIZE :])
    noted: list[tuple[XetHash, int, int, Manifest]] = []
    for payload in records:
        kind, body = payload[:1], payload[1:]
        try:
            if kind == _MANIFEST:
                manifest = Manifest.from_bytes(body)
                manifest.prove_file(file_hash)
                written.manifest = manifest
            elif kind == _WRITTEN and len(body) > _CHUNKS.size:
                xorb, start, offset = _CHUNKS.unpack_from(body)
                noted.append((XetHash(xorb), start, offset, Manifest.from_bytes(body[_CHUNKS.size :])))
        except (ProtocolError, ProofError):
            continue
    written.parts = _joined(noted)
    return written


def _records(data: bytes) -> Iterator[bytes]:
    if not data.startswith(MAGIC):
        return
    view, at = memoryview(data), len(MAGIC)
    while at + _HEAD.size <= len(data):
        size, crc = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        payload = bytes(view[at : at + size])
        if len(payload) < size or not size or zlib.crc32(payload) != crc:
            return
        yield payload
        at += size


def _record(payload: bytes) -> bytes:
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def _joined(noted: list[tuple[XetHash, int, int, Manifest]]) -> list[LocalFile]:
    """As few stretches as possible: each record goes on where another one of the same xorb ended."""
    runs: list[tuple[XetHash, int, int, list[Manifest]]] = []
    ends: dict[tuple[XetHash, int, int], int] = {}
    for xorb, first, offset, chunks in noted:
        at = ends.pop((xorb, first, offset), None)
        if at is None:
            at = len(runs)
            runs.append((xorb, first, offset, []))
        runs[at][3].append(chunks)
        ends[xorb, first + len(chunks), offset + chunks.size_bytes] = at
    out = []
    for xorb, first, offset, parts in runs:
        manifest = Manifest.join(parts)
        term = Term(xorb, first, first + len(manifest), manifest.size_bytes)
        out.append(LocalFile(manifest, (term,), offset))
    return out
