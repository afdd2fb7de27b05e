"""The xorb format: packing and decoding, with PyPI's lz4 and naive shuffles as independent oracles."""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import lz4.frame
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vectors import inputs

from zest_hf._native import codec
from zest_hf.errors import ProofError, XorbError, ZestError

SCHEMES = [None, codec.SCHEME_NONE, codec.SCHEME_LZ4, codec.SCHEME_BG4_LZ4, codec.SCHEME_BITSLICE_LZ4]
FOOTER = b"XETBLOB\x01" + bytes(40)


def header(packed: int, scheme: int, unpacked: int, version: int = 0) -> bytes:
    return bytes([version]) + packed.to_bytes(3, "little") + bytes([scheme]) + unpacked.to_bytes(3, "little")


def unpack(xorb: bytes, count: int, step: int = 0) -> codec.ChunkList:
    unpacker = codec.Unpacker(-1, 0, count)
    for at in range(0, len(xorb), step or max(1, len(xorb))):
        unpacker.feed(xorb[at : at + step] if step else xorb)
    return unpacker.finish()


def bg4(data: bytes) -> bytes:
    return data[0::4] + data[1::4] + data[2::4] + data[3::4]


def bitslice(data: bytes) -> bytes:
    bits = [(byte >> plane) & 1 for plane in range(8) for byte in data]
    return bytes(sum(bit << k for k, bit in enumerate(bits[i : i + 8])) for i in range(0, len(bits), 8))


SHUFFLES = {codec.SCHEME_LZ4: bytes, codec.SCHEME_BG4_LZ4: bg4, codec.SCHEME_BITSLICE_LZ4: bitslice}


@pytest.fixture
def target(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    path = tmp_path / "target"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    yield fd, path
    os.close(fd)


# Chunks that compress and chunks that do not.
repetitive = st.builds(
    lambda unit, n: (unit * n)[:131072], st.binary(min_size=1, max_size=9), st.integers(1, 3000)
)
chunks = st.lists(st.one_of(st.binary(min_size=1, max_size=300), repetitive), min_size=1, max_size=8)


@settings(deadline=None)
@given(chunks, st.sampled_from(SCHEMES), st.integers(1, 5000))
def test_round_trip(data: list[bytes], scheme: int | None, step: int) -> None:
    xorb = codec.pack_xorb(data, scheme)
    hashes = b"".join(map(codec.chunk_hash, data))
    lengths = array("I", map(len, data))
    assert unpack(xorb, len(data)) == unpack(xorb, len(data), step) == (hashes, lengths)
    layout = codec.inspect_xorb(xorb)
    assert (layout.hashes, layout.lengths) == (hashes, lengths)
    assert layout.packed_offsets[0] == 0 and layout.packed_offsets[-1] == len(xorb)
    for i, (start, end) in enumerate(pairwise(layout.packed_offsets)):
        assert codec.inspect_xorb(xorb[start:end]).hashes == hashes[32 * i : 32 * i + 32]


@pytest.mark.parametrize("size", [*range(1, 70), 1000, 1001, 1002, 1003, 65535, 65536, 65537, 131071, 131072])
@pytest.mark.parametrize("scheme", SHUFFLES)
def test_shuffles_equal_their_definition(scheme: int, size: int) -> None:
    if scheme == codec.SCHEME_BITSLICE_LZ4 and size > 2000:
        size -= 64_000
    data = inputs.data("weights", "shuffle", size)
    frame = lz4.frame.compress(SHUFFLES[scheme](data), store_size=False)
    assert unpack(header(len(frame), scheme, size) + frame, 1).hashes == codec.chunk_hash(data)
    packed = codec.pack_xorb([data], scheme)
    if packed[4] != codec.SCHEME_NONE:
        assert lz4.frame.decompress(packed[8:]) == SHUFFLES[scheme](data)


def test_frames_look_like_those_of_uploaders() -> None:
    small, large = (codec.pack_xorb([bytes(size)], codec.SCHEME_LZ4) for size in (65536, 65537))
    assert small[8:14] == bytes.fromhex("04224d186040")
    assert large[8:14] == bytes.fromhex("04224d186050")
    assert small[-4:] == large[-4:] == bytes(4)


@pytest.mark.parametrize("store_size", [False, True])
@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("block_size", [lz4.frame.BLOCKSIZE_MAX64KB, lz4.frame.BLOCKSIZE_MAX4MB])
def test_any_valid_frame_is_accepted(store_size: bool, checksum: bool, linked: bool, block_size: int) -> None:
    data = inputs.data("repeat", "frames", 131072)
    frame = lz4.frame.compress(
        data, block_size=block_size, block_linked=linked, store_size=store_size, content_checksum=checksum,
        block_checksum=checksum,
    )  # fmt: skip
    xorb = header(len(frame), codec.SCHEME_LZ4, len(data)) + frame
    assert unpack(xorb * 2, 2).hashes == codec.chunk_hash(data) * 2


def test_uploader_choice_of_scheme() -> None:
    weights, noise = inputs.data("weights", "w", 65536), inputs.data("random", "n", 65536)
    assert codec.pack_xorb([weights])[4] == codec.SCHEME_BG4_LZ4
    assert codec.pack_xorb([b"some texts " * 5000])[4] == codec.SCHEME_LZ4
    assert codec.pack_xorb([noise])[4] == codec.SCHEME_NONE
    assert len(codec.pack_xorb([noise], codec.SCHEME_BG4_LZ4)) == len(noise) + 8


def test_placements(target: tuple[int, Path]) -> None:
    fd, path = target
    data = [bytes([65 + i]) * (i + 1) for i in range(6)]
    places = [(12, 14, 0), (10, 16, 100), (11, 12, 50), (15, 16, 60), (12, 14, 20)]
    unpacker = codec.Unpacker(fd, 10, 16, places)
    unpacker.feed(codec.pack_xorb(data))
    assert unpacker.chunks_done == 6
    assert unpacker.bytes_written == 7 + 21 + 2 + 6 + 7
    unpacker.finish()
    out = path.read_bytes()
    assert out[0:7] == out[20:27] == b"CCCDDDD"
    assert out[100:] == b"".join(data)
    assert (out[50:52], out[60:66]) == (b"BB", b"FFFFFF")


def test_a_wrong_chunk_is_not_written(target: tuple[int, Path]) -> None:
    fd, path = target
    data = [b"good", b"evil", b"more"]
    expected = codec.chunk_hash(b"good") + codec.chunk_hash(b"best") + codec.chunk_hash(b"more")
    unpacker = codec.Unpacker(fd, 0, 3, [(0, 3, 0)], expected)
    for _ in range(2):  # the error is repeated, nothing more is read
        with pytest.raises(ProofError, match="chunk 1") as caught:
            unpacker.feed(codec.pack_xorb(data))
        assert caught.value.wanted == codec.chunk_hash(b"best")
        assert caught.value.got == codec.chunk_hash(b"evil")
    with pytest.raises(ProofError):
        unpacker.finish()
    assert path.read_bytes() == b"good"
    assert unpacker.chunks() == (codec.chunk_hash(b"good"), array("I", [4]))


@given(
    sizes=st.lists(st.sampled_from([1, 5_000, 65_536, 131_072]), min_size=2, max_size=30),
    scheme=st.sampled_from([codec.SCHEME_NONE, codec.SCHEME_LZ4, codec.SCHEME_BG4_LZ4]),
    data=st.data(),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_before_a_wrong_chunk_is_written(
    target: tuple[int, Path], sizes: list[int], scheme: int, data: st.DataObject
) -> None:
    """In one feed, so that chunks are written together; into two places that begin and end somewhere."""
    fd, path = target
    os.ftruncate(fd, 0)
    plain = [bytes([i + 1]) * size for i, size in enumerate(sizes)]
    wrong = data.draw(st.integers(0, len(plain) - 1))
    starts = [data.draw(st.integers(0, len(plain) - 1)) for _ in range(2)]
    ends = [data.draw(st.integers(start + 1, len(plain))) for start in starts]
    room = sum(sizes)
    places = [(start, end, at * room) for at, (start, end) in enumerate(zip(starts, ends, strict=True))]
    hashes = [codec.chunk_hash(chunk) for chunk in plain]
    hashes[wrong] = bytes(32)
    unpacker = codec.Unpacker(fd, 0, len(plain), places, b"".join(hashes))
    with pytest.raises(ProofError):
        unpacker.feed(codec.pack_xorb(plain, scheme))
    assert unpacker.chunks_done == wrong
    assert list(unpacker.chunks().lengths) == sizes[:wrong]
    written = [b"".join(plain[start : min(end, wrong)]) for start, end, _ in places]
    assert unpacker.bytes_written == sum(map(len, written))
    found = path.read_bytes()
    for (_, _, at), expected in zip(places, written, strict=True):
        assert found[at : at + len(expected)] == expected
        assert not found[at + len(expected) : at + room].strip(b"\0")


@given(st.integers(0, 6), st.integers(0, 7), st.integers(1, 200))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_limit(target: tuple[int, Path], fed: int, end: int, step: int) -> None:
    """What is behind it is never written, however the bytes are split; what came before is all there."""
    fd, path = target
    os.truncate(path, 0)
    chunks = [bytes([i]) * 50 for i in range(6)]
    packed = codec.pack_xorb(chunks)
    begins = [len(codec.pack_xorb(chunks[:i])) for i in range(7)]
    unpacker = codec.Unpacker(fd, 10, 16, [(10, 13, 0), (12, 16, 1000)])
    # Half of the next chunk is on its way already.
    half = min(len(packed), begins[fed] + 20)
    unpacker.feed(packed[:half])
    stops = unpacker.limit(10 + end)
    assert stops == min(16, max(10 + end, 10 + fed)) == unpacker.limit(16)
    for at in range(half, len(packed), step):
        unpacker.feed(packed[at : at + step])
    assert unpacker.finish().lengths.tolist() == [50] * (stops - 10)
    wanted = b"".join(chunks[: min(3, stops - 10)])
    if stops > 12:
        wanted = wanted.ljust(1000, b"\0") + b"".join(chunks[2 : stops - 10])
    assert path.read_bytes() == wanted


def test_a_write_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "read-only"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="cannot write a chunk") as caught:
            codec.Unpacker(fd, 0, 1, [(0, 1, 0)]).feed(codec.pack_xorb([b"x"]))
    finally:
        os.close(fd)
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("tail", [b"", FOOTER, FOOTER[:7]])
def test_a_footer_ends_the_chunks(tail: bytes) -> None:
    xorb = codec.pack_xorb([b"a", b"b"]) + tail
    assert unpack(xorb, 2) == unpack(xorb, 2, 3)
    assert list(codec.inspect_xorb(xorb).packed_offsets) == [0, 9, 18]


@pytest.mark.parametrize("tail", [b"\0", b"XETBLO", b"XETBLOC!", codec.pack_xorb([b"c"])])
def test_other_bytes_after_the_last_chunk(tail: bytes) -> None:
    for step in (0, 1):
        with pytest.raises(XorbError, match="no footer follow"):
            unpack(codec.pack_xorb([b"a", b"b"]) + tail, 2, step)


def test_missing_chunks() -> None:
    with pytest.raises(XorbError, match="end after 1 of 2 chunks"):
        unpack(codec.pack_xorb([b"a"]), 2)
    with pytest.raises(XorbError, match="footer begins after 1 of 2 chunks"):
        unpack(codec.pack_xorb([b"a"]) + FOOTER, 2)
    with pytest.raises(XorbError, match="end after 0 of 1 chunks"):
        unpack(b"", 1)
    for empty in (b"", FOOTER):
        with pytest.raises(XorbError, match="no chunk"):
            codec.inspect_xorb(empty)


FRAME = lz4.frame.compress(bytes(100), store_size=False)
BOMB = lz4.frame.compress(bytes(10_000_000), store_size=False)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (header(1, 0, 1, version=1) + b"x", "version 1"),
        (header(1, 4, 1) + b"x", "scheme 4"),
        (header(1, 255, 1) + b"x", "scheme 255"),
        (header(1, 0, 0) + b"x", "unpacked size 0"),
        (header(1, 1, 131073) + b"x", "unpacked size 131073"),
        (header(0, 1, 1), "packed size 0"),
        (header(262145, 1, 131072), "packed size 262145"),
        (header(2, 0, 1) + b"xx", "sizes 2 and 1 differ"),
        (header(len(FRAME), 1, 99) + FRAME, "does not expand to 99"),
        (header(len(FRAME), 1, 101) + FRAME, "does not expand to 101"),
        (header(len(FRAME) - 1, 1, 100) + FRAME[:-1], "does not expand"),
        (header(len(FRAME) + 1, 1, 100) + FRAME + b"\0", "does not expand"),
        (header(len(FRAME) * 2, 1, 100) + FRAME * 2, "does not expand"),
        (header(len(BOMB), 1, 131072) + BOMB, "does not expand"),
        (header(10, 1, 10) + b"not a frame"[:10], "does not expand"),
    ],
)
def test_malformed_chunks(bad: bytes, why: str) -> None:
    good = codec.pack_xorb([b"first"])
    for step in (0, 1):
        with pytest.raises(XorbError, match=f"chunk 1: .*{why}") as caught:
            unpack(good + bad, 2, step)
        assert "\n" not in str(caught.value)
    with pytest.raises(XorbError, match=why):
        codec.inspect_xorb(good + bad)


def test_chunks_of_the_limits() -> None:
    data = inputs.data("random", "limit", 131072)
    assert unpack(codec.pack_xorb([data, data[:1]]), 2).lengths == array("I", [131072, 1])
    for size in (0, 131073):
        with pytest.raises(ZestError, match="a chunk has"):
            codec.pack_xorb([bytes(size)])
    many = codec.pack_xorb([b"x"]) * 8192
    assert len(codec.inspect_xorb(many).lengths) == len(unpack(many, 8192).lengths) == 8192
    with pytest.raises(XorbError, match="more than 8192"):
        codec.inspect_xorb(many + codec.pack_xorb([b"x"]))


XORB = codec.pack_xorb(
    [inputs.data(kind, kind, 700) for kind in ("weights", "random", "repeat")], codec.SCHEME_BG4_LZ4
) + codec.pack_xorb([bytes(3000)], codec.SCHEME_BITSLICE_LZ4)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_corrupted_input_gives_a_typed_error(data: st.DataObject) -> None:
    wrong = bytearray(XORB[: data.draw(st.integers(0, len(XORB)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if wrong:
            wrong[data.draw(st.integers(0, len(wrong) - 1))] ^= data.draw(st.integers(1, 255))
    outcomes = []
    for step in (0, data.draw(st.integers(1, 900))):
        try:
            outcomes.append(unpack(bytes(wrong), 4, step))
        except XorbError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
    try:
        codec.inspect_xorb(wrong)
    except XorbError:
        assert isinstance(outcomes[0], str)


@pytest.mark.parametrize("cut", range(0, len(XORB), 7))
def test_truncated_input(cut: int) -> None:
    with pytest.raises(XorbError):
        unpack(XORB[:cut], 4)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((0, 0), "empty"),
        ((-1, 1), "empty"),
        ((0, 8193), "8192"),
        ((2, 4, [(1, 3, 0)]), "outside"),
        ((2, 4, [(2, 5, 0)]), "outside"),
        ((2, 4, [(3, 3, 0)]), "empty"),
        ((2, 4, [(2, 4, -1)]), "placement"),
        ((2, 4, [(2, 4, 2**62 + 1)]), "2.62"),
        ((2, 4, [], bytes(63)), "64 bytes of hashes, not 63"),
    ],
)
def test_bad_arguments(arguments: tuple, why: str) -> None:
    with pytest.raises(ZestError, match=why):
        codec.Unpacker(-1, *arguments)


def test_bad_scheme() -> None:
    for scheme in (-1, 4):
        with pytest.raises(ZestError, match="scheme"):
            codec.pack_xorb([b"x"], scheme)
