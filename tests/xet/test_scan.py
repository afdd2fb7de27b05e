"""Chunks of buffers, streams and files, on one core and on several: always the same."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from pathlib import Path

import hf_xet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import inputs

from zest_hf import parallel_scan, xet
from zest_hf.errors import StorageError, ZestError

DATA = inputs.data("weights", "streams", 900_000)
SMALL_PART = 2 * xet.CHUNK_MAX_BYTES


def pieces(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, len(DATA)),
    st.lists(st.integers(0, 200_000), max_size=12),
    st.sampled_from([xet.RULE_CURRENT, xet.RULE_EARLY]),
)
def test_a_stream_has_the_chunks_of_the_buffer(size: int, sizes: list[int], rule: int) -> None:
    data = DATA[:size]
    whole = list(xet.chunk(data, rule))
    streamed = list(xet.chunk_stream(pieces(data, sizes), rule))
    assert [(c.offset, bytes(c.data), c.hash) for c in whole] == [(c.offset, c.data, c.hash) for c in streamed]
    assert b"".join(c.data for c in streamed) == data
    hasher = xet.FileHasher(rule)
    for part in pieces(data, sizes):
        hasher.update(part)
        hasher.hexdigest()  # changes nothing
    manifest = xet.Manifest(b"".join(c.hash for c in whole), array("I", map(len, whole)))
    assert (hasher.file_hash(), hasher.size_bytes) == (manifest.file_hash(), size)
    assert xet.boundaries(data, rule) == [c.offset + len(c) for c in whole]


def test_a_cutter_begins_again() -> None:
    from zest_hf.xet import Cutter

    cutter = Cutter()
    for _ in range(2):
        found = cutter.feed(DATA) + cutter.finish()
        assert [c.offset for c in found] == [c.offset for c in xet.chunk(DATA)]


@pytest.mark.parametrize("size", [0, 1, 8192, 131_073, 900_000])
def test_a_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA[:size])
    manifest = xet.hash_file(path)
    assert [c.hash for c in xet.chunk_file(path)] == [manifest.hash(i) for i in range(len(manifest))]
    assert xet.hash_to_text(manifest.file_hash()) == hf_xet.hash_files([str(path)])[0].hash


def content(kind: str) -> bytes:
    size = 5_000_000
    if kind == "zeros":
        return bytes(size)
    if kind == "shifted zeros":
        return b"x" * 70_000 + bytes(size)
    if kind == "short period":
        return bytes(range(200)) * (size // 200)
    if kind == "mixed":
        noise = random.Random(1)
        return b"".join(noise.randbytes(400_000) + bytes(700_000) for _ in range(5))
    return inputs.data(kind, "parallel", size)


@pytest.mark.parametrize("rule", [xet.RULE_CURRENT, xet.RULE_EARLY])
@pytest.mark.parametrize("kind", ["random", "weights", "zeros", "shifted zeros", "short period", "mixed"])
def test_several_cores_find_what_one_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, rule: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content(kind))
    one = xet.hash_file(path, rule)
    for part_bytes in (SMALL_PART, SMALL_PART + 77, 3_000_000):
        monkeypatch.setattr(parallel_scan, "PART_BYTES", part_bytes)
        for threads in (2, 5):
            assert xet.hash_file(path, rule, threads=threads) == one


def test_errors_of_a_scan_on_several_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_scan, "PART_BYTES", SMALL_PART)
    path = tmp_path / "file"
    path.write_bytes(bytes(2_000_000))
    with path.open("rb") as file, pytest.raises(StorageError, match="ended after"):
        parallel_scan.scan_into(file.fileno(), 2_000_001, lambda hashes, lengths: None)
    for threads in (0, 65):
        with pytest.raises(ZestError, match="1 to 64 threads"):
            xet.hash_file(path, threads=threads)
    with pytest.raises(ZestError, match="rule 9"):
        xet.hash_file(path, 9, threads=2)


def test_a_part_of_a_file(tmp_path: Path) -> None:
    from zest_hf._native.codec import FileScan

    path = tmp_path / "file"
    path.write_bytes(DATA)
    whole = xet.hash_file(path)
    middle = whole.offset(3)
    with path.open("rb") as file:
        part = FileScan(file.fileno(), len(DATA), part=(middle, middle + 1)).next()
        assert (part.hashes, part.lengths) == (whole.hash(3), whole.lengths[3:4])
        rest = FileScan(file.fileno(), len(DATA), part=(middle, len(DATA))).next()
        assert rest.lengths == whole.lengths[3:]
        assert FileScan(file.fileno(), len(DATA), part=(5, 5)).next().lengths == array("I")
        for wrong in [(-1, 5), (6, 5), (0, len(DATA) + 1)]:
            with pytest.raises(ZestError, match="no part of a file"):
                FileScan(file.fileno(), len(DATA), part=wrong)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 40), max_size=20), st.integers(0, 2**32))
def test_a_tree_in_pieces(steps: list[int], seed: int) -> None:
    source = random.Random(seed)
    tree, hashes, lengths = xet.Tree(), b"", array("I")
    for count in steps:
        some, more = source.randbytes(32 * count), array("I", [source.randrange(2**32) for _ in range(count)])
        tree.add(some, more)
        hashes, lengths = hashes + some, lengths + more
        from zest_hf._native import codec

        assert tree.root() == codec.merkle_root(hashes, lengths)
        assert tree.file_hash() == codec.file_hash(hashes, lengths)
    other = tree.copy()
    other.add(bytes(32), [1])
    assert tree.root() == codec.merkle_root(hashes, lengths) if steps else tree.root() == bytes(32)


def test_keyed_hashes_are_keyed_blake3() -> None:
    import blake3

    key, hashes = random.Random(1).randbytes(32), random.Random(2).randbytes(96)
    wanted = b"".join(blake3.blake3(hashes[i : i + 32], key=key).digest() for i in (0, 32, 64))
    assert xet.keyed_hashes(hashes, key) == wanted
    assert xet.keyed_hashes(b"", key) == b""
    for wrong in [(hashes[:-1], key), (hashes, key[:-1])]:
        with pytest.raises(ZestError, match="32 bytes"):
            xet.keyed_hashes(*wrong)


def test_the_public_names_exist() -> None:
    assert sorted(xet.__all__, key=str) == sorted(set(xet.__all__), key=str)
    assert all(hasattr(xet, name) for name in xet.__all__)
