"""Chunk boundaries and file scans against two independent chunkers (tests/vectors/README.md)."""

from __future__ import annotations

import errno
import json
import os
import random
import re
from array import array
from itertools import pairwise
from pathlib import Path

import hf_xet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import inputs

from zest_hf._native import codec
from zest_hf.errors import StorageError, ZestError

VECTORS = json.loads((Path(inputs.__file__).parent / "codec.json").read_text(encoding="utf-8"))["data"]
by_label = pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["label"])


def boundaries(data: bytes, rule: int = codec.RULE_CURRENT) -> list[int]:
    chunker = codec.Chunker(rule)
    return chunker.feed(data) + chunker.finish()


def chunk_list(data: bytes, rule: int = codec.RULE_CURRENT) -> tuple[bytes, array[int]]:
    ends = [0, *boundaries(data, rule)]
    hashes = b"".join(codec.chunk_hash(data[a:b]) for a, b in pairwise(ends))
    return hashes, array("I", [b - a for a, b in pairwise(ends)])


def source(vector: dict) -> bytes:
    return inputs.data(vector["kind"], vector["label"], vector["size"])


@by_label
def test_early_rule_equals_the_javascript_client(vector: dict) -> None:
    data = source(vector)
    assert boundaries(data, codec.RULE_EARLY) == vector["early_ends"]
    hashes, lengths = chunk_list(data, codec.RULE_EARLY)
    if hashes:
        assert inputs.text(hashes[:32]) == vector["first_chunk"]
    assert inputs.text(codec.merkle_root(hashes, lengths)) == vector["early_xorb"]
    assert inputs.text(codec.file_hash(hashes, lengths)) == vector["early_file"]


@by_label
def test_current_rule_equals_hf_xet(vector: dict) -> None:
    assert inputs.text(codec.file_hash(*chunk_list(source(vector)))) == vector["file"]


def test_file_scan_equals_the_installed_hf_xet(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(inputs.data("weights", "scan", 3_000_000))
    with path.open("rb") as file:
        scan = codec.FileScan(file.fileno(), path.stat().st_size)
        hashes, lengths = scan.next(10_000)
        assert scan.next() == (b"", array("I"))
    assert inputs.text(codec.file_hash(hashes, lengths)) == hf_xet.hash_files([str(path)])[0].hash


def naive_boundaries(data: bytes) -> list[int]:
    """The definition: a chunk ends at 8192 bytes or more where the hash begins with 16 zero bits."""
    table = gear_table()
    ends, begin = [], 0
    while begin < len(data):
        value, end = 0, min(begin + codec.CHUNK_MAX_BYTES, len(data))
        for at in range(begin, end):
            value = ((value << 1) + table[data[at]]) & 0xFFFF_FFFF_FFFF_FFFF
            if at + 1 - begin >= codec.CHUNK_MIN_BYTES and value < 1 << 48:
                end = at + 1
                break
        ends.append(end)
        begin = end
    return ends


def gear_table() -> list[int]:
    header = Path(__file__).parents[2] / "native/src/codec/gear_table.h"
    words = re.findall(r"0x[0-9a-f]{16}", header.read_text(encoding="utf-8"))
    assert len(words) == 256
    return [int(word, 16) for word in words]


def test_boundaries_equal_the_definition() -> None:
    data = inputs.stream("definition", 1_200_000)
    assert boundaries(data) == naive_boundaries(data)


STREAM = inputs.data("random", "splits", 700_000)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.integers(1, 200), st.integers(1, 200_000)), min_size=1, max_size=40),
    st.integers(0, len(STREAM)),
    st.sampled_from([codec.RULE_CURRENT, codec.RULE_EARLY]),
)
def test_boundaries_do_not_depend_on_the_split(pieces: list[int], size: int, rule: int) -> None:
    data = STREAM[:size]
    chunker = codec.Chunker(rule)
    found, at = [], 0
    for piece in pieces:
        found += chunker.feed(data[at : at + piece])
        at = min(at + piece, size)
    found += chunker.feed(memoryview(data)[at:])
    found += chunker.finish()
    assert found == boundaries(data, rule)


@pytest.mark.parametrize("rule", [codec.RULE_CURRENT, codec.RULE_EARLY])
def test_nothing_is_lost_behind_the_last_boundary_of_a_feed(rule: int) -> None:
    """Feeds that complete as many chunks as they have room for, and a few bytes more."""
    data = random.Random(8).randbytes(1_000_000)
    whole = codec.Chunker(rule)
    ends = whole.feed(data) + whole.finish()
    for end in ends[:-1]:
        for before, behind in ((1, 1), (1, 8125), (100, 1), (8000, 127), (8126, 1)):
            chunker = codec.Chunker(rule)
            parts = (data[: end - before], data[end - before : end + behind], data[end + behind :])
            assert [at for part in parts for at in chunker.feed(part)] + chunker.finish() == ends


def test_a_finished_chunker_begins_a_new_stream() -> None:
    chunker = codec.Chunker()
    assert chunker.feed(b"x" * 100) == []
    assert chunker.finish() == [100]
    assert chunker.finish() == []
    assert chunker.feed(STREAM) + chunker.finish() == boundaries(STREAM)


@pytest.mark.parametrize("max_chunks", [1, 3, 1000])
@pytest.mark.parametrize("rule", [codec.RULE_CURRENT, codec.RULE_EARLY])
@pytest.mark.parametrize("size", [0, 1, 8192, 524_288, 655_360, 700_000])
def test_file_scan_equals_the_chunker(tmp_path: Path, size: int, rule: int, max_chunks: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(STREAM)
    hashes, lengths = b"", array("I")
    with path.open("rb") as file:
        scan = codec.FileScan(file.fileno(), size, rule)
        while (part := scan.next(max_chunks)).lengths:
            assert len(part.lengths) <= max_chunks
            hashes += part.hashes
            lengths += part.lengths
    assert (hashes, lengths) == chunk_list(STREAM[:size], rule)


def test_file_scan_of_a_file_that_shrank(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    with path.open("rb") as file, pytest.raises(StorageError, match="ended after 1000 of 1001 bytes"):
        codec.FileScan(file.fileno(), 1001).next()


def test_file_scan_of_what_cannot_be_read(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError) as caught:
            codec.FileScan(directory, 10).next()
    finally:
        os.close(directory)
    assert caught.value.errno == errno.EISDIR


def test_bad_arguments() -> None:
    with pytest.raises(ZestError, match="rule 7"):
        codec.Chunker(7)
    with pytest.raises(ZestError, match="rule -1"):
        codec.FileScan(0, 1, -1)
    with pytest.raises(ZestError, match="-1 bytes"):
        codec.FileScan(0, -1)
