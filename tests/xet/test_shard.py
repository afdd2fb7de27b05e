"""Shards: what is written reads back, damage is refused, and the form is that of real clients."""

from __future__ import annotations

import hashlib
import random
import struct
from array import array
from dataclasses import replace

import pytest
from hub.wire import build_shard
from hypothesis import given, settings
from hypothesis import strategies as st

from zest_hf._native import codec
from zest_hf.core.ids import ZERO_HASH, XetHash, hash_from_text
from zest_hf.core.shard import Shard, ShardFile, ShardTerm, ShardXorb, parse_shard, upload_order
from zest_hf.core.shard_footer import FOOTER_BYTES, ShardFooter
from zest_hf.errors import ShardError, ZestError

XORB = XetHash(bytes(range(32)))
FILE = XetHash(bytes(range(1, 33)))
HASHES = random.Random(1).randbytes(96)
LENGTHS = array("I", [10_000, 20_000, 7])
SHA256 = hashlib.sha256(b"content").hexdigest()
PLAIN = Shard(
    (ShardFile(FILE, (ShardTerm(XORB, 0, 3, 30_007, b"v" * 32),), SHA256),), (ShardXorb(XORB, HASHES, LENGTHS),)
)
GOOD = PLAIN.to_bytes()
KEY = b"k" * 32
KEYED = PLAIN.keyed(KEY, 1_000, 2_000)
FOOTED = KEYED.to_bytes()

hashes = st.binary(min_size=32, max_size=32).filter(lambda h: h not in (b"\xff" * 32, ZERO_HASH)).map(XetHash)


@st.composite
def terms(draw: st.DrawFn, verified: bool) -> ShardTerm:
    start = draw(st.integers(0, 8191))
    end = draw(st.integers(start + 1, 8192))
    proof = draw(st.binary(min_size=32, max_size=32)) if verified else None
    return ShardTerm(draw(hashes), start, end, draw(st.integers(1, 64 << 20)), proof)


@st.composite
def files(draw: st.DrawFn) -> ShardFile:
    sha256 = draw(st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex))
    if draw(st.integers(0, 9)) == 0:
        return ShardFile(ZERO_HASH, (), sha256)
    some = draw(st.lists(terms(draw(st.booleans())), min_size=1, max_size=4))
    return ShardFile(draw(hashes), tuple(some), sha256)


@st.composite
def xorbs(draw: st.DrawFn) -> ShardXorb:
    lengths = draw(st.lists(st.integers(1, 131_072), min_size=1, max_size=5))
    joined = b"".join(draw(hashes) for _ in lengths)
    flagged = draw(st.sets(st.integers(0, len(lengths) - 1)))
    return ShardXorb(
        draw(hashes), joined, array("I", lengths), tuple(sorted(flagged)), draw(st.integers(0, 2**32 - 1))
    )


footers = st.builds(
    ShardFooter,
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=32, max_size=32),
    st.just((True, True, True)),
)


@settings(deadline=None)
@given(st.builds(Shard, st.lists(files(), max_size=3).map(tuple), st.lists(xorbs(), max_size=3).map(tuple),
                 st.none() | footers))  # fmt: skip
def test_round_trip(shard: Shard) -> None:
    data = shard.to_bytes()
    assert parse_shard(data) == shard
    assert parse_shard(memoryview(data)).to_bytes() == data


def test_an_independent_writer_agrees() -> None:
    assert build_shard([(FILE, [(XORB, 0, 3, 30_007, b"v" * 32)], SHA256)], [(XORB, HASHES, LENGTHS)]) == GOOD


def test_the_sha256_is_stored_in_the_word_order_of_xet_hashes() -> None:
    record = GOOD[48 * 4 : 48 * 4 + 32]
    assert record == hash_from_text(SHA256)
    assert record != bytes.fromhex(SHA256)
    assert struct.pack("<4Q", *struct.unpack(">4Q", record)) == bytes.fromhex(SHA256)


def test_keyed_hashes_find_a_chunk_only_for_who_has_it() -> None:
    shard = parse_shard(FOOTED)
    assert shard.footer is not None and shard.footer.chunk_key == KEY
    assert (shard.footer.created_at_s, shard.footer.expires_at_s) == (1_000, 2_000)
    (xorb,) = shard.xorbs
    assert xorb.hashes == codec.keyed_hashes(HASHES, KEY) and HASHES[:32] not in FOOTED
    with pytest.raises(ShardError, match="keyed already"):
        shard.keyed(KEY, 0, 0)


def test_tables_may_be_missing() -> None:
    assert KEYED.footer is not None
    for tables in [(False, True, True), (True, False, True), (True, True, False), (False, False, False)]:
        shard = replace(KEYED, footer=replace(KEYED.footer, tables=tables))
        assert parse_shard(shard.to_bytes()) == shard


def test_tables_point_to_their_records() -> None:
    values = struct.unpack("<9Q", FOOTED[-FOOTER_BYTES:][:72])
    assert values[:3] == (1, 48, 48 * 6)
    word, at, index = struct.unpack_from("<QII", FOOTED, values[7])
    record = values[2] + 48 * (at + 1 + index)
    assert struct.unpack_from("<Q", FOOTED, record) == (word,)
    (footer_at,) = struct.unpack_from("<Q", FOOTED, len(FOOTED) - 8)
    assert footer_at == len(FOOTED) - FOOTER_BYTES


def test_upload_order_is_by_words() -> None:
    low, high = XetHash(b"\xff" + bytes(31)), XetHash(b"\0" * 7 + b"\x01" + bytes(24))
    assert sorted([high, low], key=upload_order) == [low, high]


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
        (48 + 32, b"\x01", "unknown flags"),
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


AT = len(FOOTED) - FOOTER_BYTES


@pytest.mark.parametrize(
    ("offset", "message"),
    [
        (AT, "footer version"),
        (AT + 8, "somewhere else"),
        (AT + 16, "somewhere else"),
        (AT + 24, "not at"),
        (AT + 32, "rows for"),
        (AT + 48, "rows for"),
        (AT + 64, "rows for"),
        (len(FOOTED) - 8, "somewhere else"),
        (AT - 16, "does not match"),
        (AT - 48, "does not match"),
    ],
)
def test_a_wrong_footer_is_refused(offset: int, message: str) -> None:
    wrong = bytearray(FOOTED)
    wrong[offset] ^= 2
    with pytest.raises(ShardError, match=message):
        parse_shard(wrong)


def test_bytes_behind_the_sections_are_refused() -> None:
    with pytest.raises(ShardError, match="footer"):
        parse_shard(GOOD + b"x")
    with pytest.raises(ShardError, match="footer"):
        parse_shard(FOOTED[:AT] + b"x" + FOOTED[AT:])


@pytest.mark.parametrize(
    "shard",
    [
        replace(PLAIN, files=(ShardFile(FILE, (), None),)),
        replace(PLAIN, files=(ShardFile(FILE, PLAIN.files[0].terms, "no hash"),)),
        replace(PLAIN, files=(ShardFile(FILE, (replace(PLAIN.files[0].terms[0], end=9000),), None),)),
        replace(PLAIN, files=(ShardFile(FILE, (replace(PLAIN.files[0].terms[0], verification=b"x"),), None),)),
        replace(PLAIN, files=(ShardFile(FILE, (PLAIN.files[0].terms[0], ShardTerm(XORB, 0, 1, 1, None)), None),)),
        replace(PLAIN, xorbs=(ShardXorb(XORB, HASHES, LENGTHS[:2]),)),
        replace(PLAIN, xorbs=(ShardXorb(XORB, b"", array("I")),)),
        replace(PLAIN, xorbs=(ShardXorb(XORB, HASHES, array("I", [1, 131_073, 1])),)),
        replace(PLAIN, xorbs=(ShardXorb(XORB, HASHES, LENGTHS, (3,)),)),
        replace(PLAIN, footer=ShardFooter(-1)),
        replace(PLAIN, footer=ShardFooter(chunk_key=b"short")),
    ],
)
def test_what_would_not_read_back_is_not_written(shard: Shard) -> None:
    with pytest.raises(ShardError):
        shard.to_bytes()


@pytest.mark.parametrize("data", [GOOD, FOOTED], ids=["uploaded", "with footer"])
def test_damage_never_escapes_as_another_error(data: bytes) -> None:
    generator = random.Random(3)
    for _ in range(600):
        damaged = bytearray(data)
        at = generator.randrange(len(data))
        damaged[at : at + generator.randrange(1, 9)] = generator.randbytes(generator.randrange(0, 12))
        try:
            parse_shard(damaged)
        except ZestError as error:
            assert isinstance(error, ShardError) and "\n" not in str(error)
