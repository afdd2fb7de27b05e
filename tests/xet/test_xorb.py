"""Serialized xorbs and their footer."""

from __future__ import annotations

import random
import struct
from array import array
from dataclasses import replace
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zest_hf._native import codec
from zest_hf.core import xorb as xorbs
from zest_hf.core.ids import XetHash
from zest_hf.core.xorb import XorbFooter, chunk_table, pack_xorb, parse_footer, read_xorb, unpack_xorb
from zest_hf.errors import XorbError, ZestError

CHUNKS = [random.Random(i).randbytes(300 * i) + bytes(500) for i in range(1, 5)]
PACKED = pack_xorb(CHUNKS)
FOOTED = pack_xorb(CHUNKS, footer=True)
FOOTER = FOOTED[len(PACKED) :]
some_chunks = st.lists(st.binary(min_size=1, max_size=200) | st.just(b"ab" * 500), min_size=1, max_size=6)


@settings(deadline=None)
@given(some_chunks, st.sampled_from([None, 0, 1, 2, 3]), st.booleans(), st.data())
def test_round_trip(chunks: list[bytes], scheme: int | None, footer: bool, data: st.DataObject) -> None:
    packed = pack_xorb(chunks, scheme, footer=footer)
    xorb = read_xorb(packed)
    assert xorb.manifest.lengths.tolist() == list(map(len, chunks))
    assert xorb.manifest.hashes == b"".join(map(codec.chunk_hash, chunks))
    assert (xorb.footer is not None) == footer
    if xorb.footer is not None:
        assert xorb.footer.xorb == xorb.hash
        assert packed[xorb.table.packed_bytes :] == xorb.footer.to_bytes()
    start = data.draw(st.integers(0, len(chunks) - 1))
    end = data.draw(st.integers(start + 1, len(chunks)))
    manifest, content = unpack_xorb(packed, start, end)
    assert content == b"".join(chunks[start:end])
    assert manifest == xorb.manifest.slice(start, end)


def test_the_footer_is_laid_out_as_specified() -> None:
    """Written again with nothing but struct."""
    count = len(CHUNKS)
    hashes = b"".join(map(codec.chunk_hash, CHUNKS))
    lengths = array("I", map(len, CHUNKS))
    ends = chunk_table(PACKED).packed_offsets[1:]
    head = b"XETBLOB\x01" + codec.merkle_root(hashes, lengths)
    section = b"XBLBHSH\x00" + struct.pack("<I", count) + hashes
    boundaries = b"XBLBBND\x01" + struct.pack(f"<{2 * count + 1}I", count, *ends, *accumulate(lengths))
    tail = struct.pack("<III", count, len(section + boundaries) + 28, len(boundaries) + 28) + bytes(16)
    info = head + section + boundaries + tail
    assert info + struct.pack("<I", len(info)) == FOOTER
    # An empty info has 92 bytes in the reference implementation.
    assert len(info) == 92 + 40 * count


def test_version_0_of_the_footer_is_read() -> None:
    old = replace(parse_footer(FOOTER), lengths=None)
    assert old.to_bytes()[7] == 0
    assert parse_footer(old.to_bytes()) == old
    assert read_xorb(PACKED + old.to_bytes()).footer == old


def test_the_reserved_bytes_prove_nothing_and_are_kept() -> None:
    marked = replace(parse_footer(FOOTER), reserved=b"nonce" + bytes(11))
    assert read_xorb(PACKED + marked.to_bytes()).footer == marked


@pytest.mark.parametrize("version", [0, 1])
def test_every_damaged_byte_of_a_footer_is_noticed(version: int) -> None:
    footer = parse_footer(FOOTER)
    data = (footer if version else replace(footer, lengths=None)).to_bytes()
    reserved = range(len(data) - 20, len(data) - 4)
    for at in range(len(data)):
        wrong = bytearray(data)
        wrong[at] ^= 0x41
        if at in reserved:
            read_xorb(PACKED + wrong)
            continue
        with pytest.raises(XorbError) as caught:
            read_xorb(PACKED + wrong)
        assert "\n" not in str(caught.value)


def test_footers_cut_short_or_too_long() -> None:
    for size in range(1, len(FOOTER)):
        with pytest.raises(XorbError):
            read_xorb(PACKED + FOOTER[:size])
        with pytest.raises(XorbError):
            parse_footer(FOOTER[:size])
    with pytest.raises(XorbError, match="says that it has"):
        read_xorb(FOOTED + b"\0")


def test_a_footer_of_other_chunks() -> None:
    other = pack_xorb([b"other", *CHUNKS[1:]], footer=True)
    with pytest.raises(XorbError, match="its chunks are not"):
        read_xorb(PACKED + other[chunk_table(other).packed_bytes :])
    moved = parse_footer(FOOTER)
    stored = pack_xorb(CHUNKS, codec.SCHEME_NONE)
    with pytest.raises(XorbError, match="not where it says"):
        read_xorb(stored + moved.to_bytes())


def test_counts_are_limited_before_anything_is_read() -> None:
    for at in (8 + 32 + 8, 8 + 32):
        huge = bytearray(FOOTER if at != 40 else replace(parse_footer(FOOTER), lengths=None).to_bytes())
        struct.pack_into("<I", huge, at, 0xFFFF_FFFF)
        with pytest.raises(XorbError, match="4294967295 chunks"):
            parse_footer(huge)


def test_limits_of_a_xorb(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(XorbError, match="1 to 8192 chunks"):
        pack_xorb([])
    with pytest.raises(XorbError, match="1 to 8192 chunks"):
        pack_xorb([b"x"] * 8193)
    one = pack_xorb([b"x"])
    assert len(chunk_table(one * 8192)) == 8192
    with pytest.raises(XorbError, match="more than 8192"):
        chunk_table(one * 8193)
    monkeypatch.setattr(xorbs, "MAX_XORB_BYTES", 1000)
    with pytest.raises(XorbError, match="of 1000 bytes"):
        pack_xorb([b"x" * 500] * 3)
    with pytest.raises(XorbError, match="more than 1000"):
        chunk_table(codec.pack_xorb([b"x" * 500] * 3))


@pytest.mark.parametrize("start, end", [(0, 5), (4, 5), (2, 2), (-1, 2), (3, 1)])
def test_chunks_that_a_xorb_does_not_have(start: int, end: int) -> None:
    with pytest.raises(XorbError, match="has 4"):
        unpack_xorb(PACKED, start, end)


def test_the_python_walk_and_the_native_decoder_agree_on_damage() -> None:
    generator = random.Random(5)
    for _ in range(800):
        damaged = bytearray(FOOTED)
        at = generator.randrange(len(damaged))
        damaged[at : at + generator.randrange(1, 5)] = generator.randbytes(generator.randrange(0, 6))
        outcomes = []
        for read in (read_xorb, chunk_table, unpack_xorb):
            try:
                outcomes.append(read(damaged))
            except ZestError as error:
                assert isinstance(error, XorbError) and "\n" not in str(error)
                outcomes.append(None)
        whole, table, unpacked = outcomes
        if whole is not None:
            assert whole.table == table and unpacked[0] == whole.manifest


def test_lists_that_do_not_fit_are_not_written() -> None:
    footer = parse_footer(FOOTER)
    for wrong in (
        replace(footer, hashes=footer.hashes[:-1]),
        replace(footer, lengths=footer.lengths[:-1] if footer.lengths else None),
        replace(footer, reserved=b""),
    ):
        with pytest.raises(XorbError):
            wrong.to_bytes()
    assert XorbFooter(XetHash(bytes(32)), b"", array("Q", [0]), None).to_bytes()[:8] == b"XETBLOB\0"


def test_unpacking_into_a_buffer() -> None:
    size = sum(map(len, CHUNKS))
    hashes = b"".join(map(codec.chunk_hash, CHUNKS))
    out = bytearray(size)
    assert codec.unpack_into(PACKED, 4, out) == hashes and out == b"".join(CHUNKS)
    assert codec.unpack_into(PACKED, 4, out, hashed=False) == b""
    assert codec.unpack_into(b"", 0, bytearray()) == b""
    for data, count, room, message in [
        (PACKED, 4, size - 1, "larger than announced"),
        (PACKED, 4, size + 1, "0 packed and 1 unpacked bytes are left"),
        (PACKED, 3, size, "are left after 3 chunks"),
        (PACKED, 5, size, "end after 4 of 5"),
        (PACKED[:-1], 4, size, "end inside chunk 3"),
    ]:
        with pytest.raises(XorbError, match=message):
            codec.unpack_into(data, count, bytearray(room))
    with pytest.raises(ZestError, match="writable"):
        codec.unpack_into(PACKED, 4, bytes(size))
    with pytest.raises(ZestError, match="at most 8192"):
        codec.unpack_into(PACKED, 8193, out)
