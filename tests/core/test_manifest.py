"""Manifests: indexing, proofs, and the stored form."""

from __future__ import annotations

import contextlib
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zest_hf._native import codec
from zest_hf.core.ids import ZERO_HASH, XetHash, hash_to_text
from zest_hf.core.manifest import MAX_CHUNK_BYTES, Manifest
from zest_hf.errors import ProofError, ProtocolError


def manifest_of(count: int) -> Manifest:
    """Chunks "chunk 0", "chunk 1", ... with the pretended lengths 8192, 8193, ..."""
    hashes = b"".join(codec.chunk_hash(b"chunk %d" % i) for i in range(count))
    return Manifest(hashes, array("I", (8192 + i for i in range(count))))


rows = st.tuples(st.binary(min_size=32, max_size=32), st.integers(1, MAX_CHUNK_BYTES))
manifests = st.lists(rows, max_size=40).map(
    lambda some: Manifest(b"".join(row[0] for row in some), array("I", (row[1] for row in some)))
)

# Root and file hash of manifest_of(n), computed once with the Python binding of BLAKE3's reference
# implementation and a direct transcription of the grouping rule of the Xet specification.
GOLDEN = {
    1: (
        "51ecf3cc6134bc64b40b6bafc1d77b28fb53fec6754c7ff546d694bc8b7ac5d3",
        "ccea3af1b8f604220010b23bad003ee8671f648ecc4ddc1be55ff0289a8c77c7",
    ),
    10: (
        "68e22a721f4f17eb1b56dba1597c180cfa8a81edbb5157ffb46c2588df191d1e",
        "a3ccb98fa1139039b26b7461d3602ab48f9b79f59eaf6cd2e3c31bda1920654a",
    ),
    1000: (
        "23f4d18e4a80170b212ecd355de1be14193a6b4a6ad0a2842c03af63ee30f323",
        "a040e3a4b6daaaaa9c0fdc8cee4308c365afcac269067fa9312b03ed221704d5",
    ),
}


@pytest.mark.parametrize("count", GOLDEN)
def test_golden_hashes(count: int) -> None:
    manifest = manifest_of(count)
    assert (hash_to_text(manifest.root()), hash_to_text(manifest.file_hash())) == GOLDEN[count]
    assert manifest.xorb_hash() == manifest.root()


def test_empty_manifest() -> None:
    empty = Manifest(b"", array("I"))
    assert (len(empty), empty.size_bytes, empty.offset(0)) == (0, 0, 0)
    assert empty.file_hash() == ZERO_HASH
    assert Manifest.from_bytes(b"") == empty == Manifest.join([])


def test_indexing() -> None:
    manifest = manifest_of(3)
    assert manifest.hash(1) == codec.chunk_hash(b"chunk 1")
    assert [manifest.length(i) for i in range(3)] == [8192, 8193, 8194]
    assert [manifest.offset(i) for i in range(4)] == [0, 8192, 16385, 24579]
    assert manifest.size_bytes == 24579


@pytest.mark.parametrize("index", [-1, 3, 10**9])
def test_indices_outside(index: int) -> None:
    manifest = manifest_of(3)
    for call in (manifest.hash, manifest.length, lambda i: manifest.offset(i if i != 3 else 4)):
        with pytest.raises(IndexError):
            call(index)
    with pytest.raises(IndexError):
        manifest.slice(index, 4)


def test_proofs() -> None:
    manifest = manifest_of(100)
    manifest.prove_xorb(manifest.xorb_hash())
    manifest.prove_file(manifest.file_hash())
    with pytest.raises(ProofError) as caught:
        manifest.prove_xorb(manifest.file_hash())
    assert (caught.value.wanted, caught.value.got) == (manifest.file_hash(), manifest.xorb_hash())
    with pytest.raises(ProofError):
        manifest.prove_file(manifest.xorb_hash())


@pytest.mark.parametrize(
    "other",
    [
        manifest_of(99),
        manifest_of(100).slice(1, 100),
        Manifest.join([manifest_of(100).slice(50, 100), manifest_of(100).slice(0, 50)]),
        Manifest(manifest_of(100).hashes, array("I", [1] * 100)),
    ],
    ids=["one less", "first missing", "another order", "other lengths"],
)
def test_a_changed_list_does_not_prove(other: Manifest) -> None:
    with pytest.raises(ProofError):
        other.prove_xorb(manifest_of(100).xorb_hash())


@given(manifests, st.data())
def test_slices_join_to_the_whole(manifest: Manifest, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(manifest)))
    left, right = manifest.slice(0, cut), manifest.slice(cut, len(manifest))
    assert Manifest.join([left, right]) == manifest
    assert left.size_bytes == manifest.offset(cut)
    assert left.size_bytes + right.size_bytes == manifest.size_bytes


@given(manifests)
def test_stored_form_round_trips(manifest: Manifest) -> None:
    stored = manifest.to_bytes()
    assert len(stored) == 36 * len(manifest)
    assert Manifest.from_bytes(stored) == manifest
    assert hash(Manifest.from_bytes(stored)) == hash(manifest)


def test_stored_form_is_raw_hash_and_big_endian_length() -> None:
    assert Manifest(b"\x07" * 32, array("I", [0x1FFFF])).to_bytes() == b"\x07" * 32 + b"\x00\x01\xff\xff"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert Manifest.from_bytes(data).to_bytes() == data


@pytest.mark.parametrize("length", [0, MAX_CHUNK_BYTES + 1, 2**32 - 1])
def test_lengths_no_chunk_can_have(length: int) -> None:
    with pytest.raises(ProtocolError):
        Manifest.from_bytes(bytes(32) + length.to_bytes(4, "big"))


def test_hashes_and_lengths_must_agree() -> None:
    with pytest.raises(ProtocolError):
        Manifest(bytes(33), array("I", [1]))


def test_hash_type_is_bytes() -> None:
    assert type(manifest_of(1).hash(0)) is bytes
    assert manifest_of(1).hash(0) == XetHash(codec.chunk_hash(b"chunk 0"))
