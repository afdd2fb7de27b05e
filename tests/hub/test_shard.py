from __future__ import annotations

import random
import struct
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zest_hf.core.ids import XetHash
from zest_hf.errors import ShardError
from zest_hf.hub.shard import build_dedup_shard, parse_shard

from .wire import build_shard

XORB = XetHash(bytes(range(32)))
FILE = XetHash(bytes(range(1, 33)))
HASHES = random.Random(1).randbytes(96)
LENGTHS = array("I", [10_000, 20_000, 7])
SHA256 = "ab" * 32
GOOD = build_shard([(FILE, [(XORB, 0, 3, 30_007, b"v" * 32)], SHA256)], [(XORB, HASHES, LENGTHS)])


def test_parse_reads_back_what_was_described() -> None:
    shard = parse_shard(GOOD)
    (file,) = shard.files
    assert (file.file_hash, file.sha256, file.size_bytes) == (FILE, SHA256, 30_007)
    assert [(t.xorb, t.start, t.end, t.verification) for t in file.terms] == [(XORB, 0, 3, b"v" * 32)]
    (xorb,) = shard.xorbs
    assert (xorb.xorb, xorb.hashes, xorb.lengths) == (XORB, HASHES, LENGTHS)


def test_a_dedup_shard_parses_and_ends_in_its_footer() -> None:
    data = build_dedup_shard([(XORB, HASHES, LENGTHS, 1234)], 1_000, 2_000)
    shard = parse_shard(data)
    assert not shard.files
    assert (shard.xorbs[0].hashes, shard.xorbs[0].lengths) == (HASHES, LENGTHS)
    (footer_at,) = struct.unpack_from("<Q", data, len(data) - 8)
    assert footer_at == len(data) - 200


@pytest.mark.parametrize("size", [0, 10, 47, 48, 100, len(GOOD) - 48, len(GOOD) - 1])
def test_truncated_shards_are_refused(size: int) -> None:
    with pytest.raises(ShardError):
        parse_shard(GOOD[:size])


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, b"X", "tag"),
        (32, b"\x03", "version"),
        (40, b"\x07", "footer"),
        (48 + 35, b"\x00", "without verification"),
        (48 + 36, b"\xff\xff\xff\x7f", "terms"),
        (48 + 36, b"\0\0\0\0", "terms"),
        (96 + 40, b"\x03\0\0\0", "chunk range"),
        (96 + 36, b"\xff\xff\xff\xff", "bytes"),
        (48 * 6 + 36, b"\0\0\0\0", "chunks"),
        (48 * 6 + 40, b"\0", "states"),
        (48 * 7 + 32, b"\x01", "offset"),
    ],
)
def test_a_wrong_field_is_named(offset: int, value: bytes, message: str) -> None:
    with pytest.raises(ShardError, match=message):
        parse_shard(GOOD[:offset] + value + GOOD[offset + len(value) :])


def test_bytes_behind_the_sections_are_refused() -> None:
    with pytest.raises(ShardError, match="footer"):
        parse_shard(GOOD + b"x")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8))
def test_damage_never_escapes_as_another_error(offset: int, value: bytes) -> None:
    damaged = GOOD[:offset] + value + GOOD[offset + len(value) :]
    try:
        parse_shard(damaged)
    except ShardError as error:
        assert "\n" not in str(error)
