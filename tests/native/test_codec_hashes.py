"""Hashes against PyPI's blake3 and against vectors of independent programs (tests/vectors/README.md)."""

from __future__ import annotations

import json
from array import array
from pathlib import Path

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vectors import inputs

from zest_hf._native import codec
from zest_hf.errors import ZestError

VECTORS = json.loads((Path(inputs.__file__).parent / "codec.json").read_text(encoding="utf-8"))
DATA_KEY = bytes.fromhex("6697f5775b9550de3135cbaca597181c9de421109beb2b58b4d0b04b93adf229")
NODE_KEY = bytes.fromhex("017ec5c7a5472996fd946666b48a02e65ddd536f37c76dd2f86352e64a53713f")


@given(st.binary(max_size=4096))
def test_chunk_hash_is_keyed_blake3(data: bytes) -> None:
    assert codec.chunk_hash(data) == blake3.blake3(data, key=DATA_KEY).digest()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_chunk_hash_takes_any_buffer(kind: type) -> None:
    assert codec.chunk_hash(kind(b"abc")) == codec.chunk_hash(b"abc")


@pytest.mark.parametrize("vector", VECTORS["lists"], ids=lambda v: v["label"])
def test_lists(vector: dict) -> None:
    members = [inputs.member(vector["label"], i) for i in range(vector["count"])]
    hashes = b"".join(digest for digest, _ in members)
    lengths = array("I", [length for _, length in members])
    assert inputs.text(codec.merkle_root(hashes, lengths)) == vector["xorb"]
    assert inputs.text(codec.file_hash(hashes, lengths)) == vector["file"]
    assert inputs.text(codec.verification_hash(hashes)) == vector["verification"]


def naive_root(nodes: list[tuple[bytes, int]]) -> bytes:
    while len(nodes) > 1:
        level = []
        while nodes:
            size = min(len(nodes), 9)
            for i in range(2, size):
                if nodes[i][0][24] % 4 == 0:
                    size = i + 1
                    break
            lines = "".join(f"{inputs.text(digest)} : {length}\n" for digest, length in nodes[:size])
            digest = blake3.blake3(lines.encode(), key=NODE_KEY).digest()
            level.append((digest, sum(n for _, n in nodes[:size])))
            nodes = nodes[size:]
        nodes = level
    return nodes[0][0]


members = st.tuples(
    st.binary(min_size=32, max_size=32), st.one_of(st.integers(0, 9), st.integers(0, 2**32 - 1))
)


@given(st.lists(members, min_size=1, max_size=60))
def test_root_equals_the_definition(nodes: list[tuple[bytes, int]]) -> None:
    assert codec.merkle_root(b"".join(h for h, _ in nodes), [n for _, n in nodes]) == naive_root(nodes)


def test_empty_lists() -> None:
    assert codec.merkle_root(b"", []) == codec.file_hash(b"", array("I")) == bytes(32)


def test_lists_that_do_not_fit_each_other() -> None:
    for call in (codec.merkle_root, codec.file_hash):
        with pytest.raises(ZestError, match="2 lengths need 64 bytes of hashes, not 32"):
            call(bytes(32), [1, 2])
        with pytest.raises(ZestError, match="unsigned 32-bit"):
            call(bytes(32), [-1])
        with pytest.raises(ZestError, match="unsigned 32-bit"):
            call(bytes(32), [2**32])
    with pytest.raises(ZestError, match="32 bytes a member"):
        codec.verification_hash(bytes(33))
