"""What follows the sections of a shard that is not an upload: look-up tables and the footer.

Part of the shard section of the Xet specification (https://huggingface.co/docs/xet/shard). A table is sorted by
the first 8 bytes of the hash it is about, as a number; its rows point to records of 48 bytes in their section.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from zest_hf.core.ids import HASH_SIZE
from zest_hf.errors import ShardError

FOOTER_VERSION: Final = 1
_FOOTER: Final = struct.Struct("<9Q32sQQ6Q4Q")
FOOTER_BYTES: Final = _FOOTER.size
_ROW: Final = struct.Struct("<QI")
_CHUNK_ROW: Final = struct.Struct("<QII")
NEVER_S: Final = (1 << 64) - 1

_Row = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShardFooter:
    """Times in seconds since 1970; `chunk_key` is 32 bytes, zero when the chunk hashes are the plain ones.

    `tables`: the shard has look-up tables for its files, xorbs and chunks. Offsets and sums of the footer follow
    from the sections and are not kept.
    """

    created_at_s: int = 0
    expires_at_s: int = NEVER_S
    chunk_key: bytes = bytes(HASH_SIZE)
    tables: tuple[bool, bool, bool] = (True, True, True)


@dataclass(slots=True)
class Lookups:
    """Rows (first word of the hash, index of the record[, index of the chunk]) in the order of the sections."""

    files: list[_Row] = field(default_factory=list)
    xorbs: list[_Row] = field(default_factory=list)
    chunks: list[_Row] = field(default_factory=list)
    stored_bytes: int = 0
    packed_bytes: int = 0
    materialized_bytes: int = 0


def write_footer(footer: ShardFooter, files_at: int, xorbs_at: int, end: int, rows: Lookups) -> bytes:
    """The tables and the footer of a shard whose sections begin at these offsets and end at `end`.

    Raises ShardError for a key or a time out of range.
    """
    if len(footer.chunk_key) != HASH_SIZE:
        raise ShardError(f"the chunk hash key of a shard has {HASH_SIZE} bytes, not {len(footer.chunk_key)}")
    if not all(0 <= time_s <= NEVER_S for time_s in (footer.created_at_s, footer.expires_at_s)):
        raise ShardError("a time of the shard is out of range")
    parts = []
    fields = [FOOTER_VERSION, files_at, xorbs_at]
    at = end
    for wanted, form, table in zip(footer.tables, (_ROW, _ROW, _CHUNK_ROW), _tables(rows), strict=True):
        packed = b"".join(form.pack(*row) for row in sorted(table)) if wanted else b""
        fields += [at, len(packed) // form.size]
        at += len(packed)
        parts.append(packed)
    times = (footer.created_at_s, footer.expires_at_s)
    sums = (rows.packed_bytes, rows.materialized_bytes, rows.stored_bytes)
    parts.append(_FOOTER.pack(*fields, footer.chunk_key, *times, *(0,) * 6, *sums, at))
    return b"".join(parts)


def read_footer(data: memoryview, files_at: int, xorbs_at: int, end: int, rows: Lookups) -> ShardFooter:
    """Check everything behind the sections, which end at `end`, against what they hold. Raises ShardError."""
    footer_at = len(data) - FOOTER_BYTES
    values = _FOOTER.unpack_from(data, footer_at)
    version, *places = values[:3]
    key, created_at_s, expires_at_s = values[9:12]
    if version != FOOTER_VERSION:
        raise ShardError(f"shard footer version {version} is not supported, only {FOOTER_VERSION}")
    if places != [files_at, xorbs_at] or values[-1] != footer_at:
        raise ShardError("the shard's footer says that the sections are somewhere else")
    at = end
    present = []
    for index, (form, table) in enumerate(zip((_ROW, _ROW, _CHUNK_ROW), _tables(rows), strict=True)):
        what = ("file", "xorb", "chunk")[index]
        offset, count = values[3 + 2 * index : 5 + 2 * index]
        # An empty table of an empty section counts as there: it is written the same way.
        present.append(count == len(table))
        if count not in (0, len(table)) or count * form.size > footer_at - at:
            raise ShardError(f"the {what} look-up table of the shard has {count} rows for {len(table)} records")
        if count and offset != at:
            raise ShardError(f"the {what} look-up table of the shard is not at {offset}")
        found = list(form.iter_unpack(data[at : at + count * form.size]))
        at += count * form.size
        if count:
            _check_table(found, table, what)
    if at != footer_at:
        raise ShardError(f"{footer_at - at} bytes lie between the look-up tables and the footer of the shard")
    files, xorbs, chunks = present
    return ShardFooter(created_at_s, expires_at_s, bytes(key), (files, xorbs, chunks))


def _check_table(found: list[_Row], wanted: list[_Row], what: str) -> None:
    words = [row[0] for row in found]
    # Rows of equal words may come in any order.
    if words != sorted(words) or Counter(found) != Counter(wanted):
        raise ShardError(f"the {what} look-up table of the shard does not match its records")


def _tables(rows: Lookups) -> tuple[list[_Row], list[_Row], list[_Row]]:
    return rows.files, rows.xorbs, rows.chunks
