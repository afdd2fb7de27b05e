"""The fuzz corpora, replayed and mutated a little; `tests/xet/fuzz.py` does it at length."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .fuzz_targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
MUTATIONS = 1200


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_and_mutations_of_it(name: str) -> None:
    inputs = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    assert inputs
    target = TARGETS[name]
    target(b"")
    for data in inputs:
        target(data)
    generator = random.Random(name)
    for _ in range(MUTATIONS):
        target(mutated(generator, inputs))


def mutated(generator: random.Random, inputs: list[bytes]) -> bytes:
    """Some bytes overwritten with telling values, removed, doubled, or taken from another input."""
    data = bytearray(generator.choice(inputs))
    for _ in range(generator.randrange(1, 4)):
        at = generator.randrange(len(data) + 1)
        size = generator.choice([1, 1, 2, 4, 8, 48])
        kind = generator.randrange(5)
        if kind == 0:
            data[at : at + size] = generator.randbytes(size)
        elif kind == 1:
            data[at : at + size] = generator.choice([b"\xff", b"\x00", b"\x7f", b"\x80", b'"', b"9", b"-"]) * size
        elif kind == 2:
            del data[at : at + size]
        elif kind == 3:
            data[at:at] = data[at : at + size]
        else:
            other = generator.choice(inputs)
            begin = generator.randrange(len(other) + 1)
            data[at : at + size] = other[begin : begin + size]
    return bytes(data)
