"""A plan is taken for a file's only if it has the file's chunks."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import pytest

from zest_hf.core.fitting import check_fits
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.reconstruction import Reconstruction, Term
from zest_hf.errors import ReconstructionError

SIZES = (1000, 2000, 3000, 1000, 2000, 5000)
X, Y = XetHash(b"x" * 32), XetHash(b"y" * 32)


def manifest(names: str = "abcabd") -> Manifest:
    return Manifest(b"".join(name.encode() * 32 for name in names), array("I", SIZES))


def fits(*terms: tuple[XetHash, int, int, int], offset: int = 0, names: str = "abcabd") -> bool:
    try:
        check_fits(Reconstruction(offset, tuple(Term(*term) for term in terms), {}), manifest(names))
    except ReconstructionError:
        return False
    return True


@pytest.mark.parametrize(
    "terms",
    [
        [(X, 0, 6, 14_000)],
        [(X, 5, 8, 6000), (Y, 0, 3, 8000)],
        [(X, 7, 10, 6000), (X, 7, 9, 3000), (Y, 0, 1, 5000)],
        [(X, 0, 3, 6000), (X, 3, 6, 8000)],
    ],
)
def test_a_plan_of_the_file(terms: Sequence[tuple[XetHash, int, int, int]]) -> None:
    assert fits(*terms)


@pytest.mark.parametrize(
    "terms",
    [
        [],
        [(X, 0, 5, 9000)],
        [(X, 0, 7, 14_000)],
        [(X, 0, 6, 13_999)],
        [(X, 0, 2, 3001), (X, 2, 6, 10_999)],
        [(X, 0, 3, 6000), (X, 1, 4, 8000)],  # chunk 1 would be b and a
        [(X, 0, 4, 7000), (Y, 0, 1, 2000), (X, 2, 3, 5000)],  # within another one
    ],
)
def test_a_plan_of_another_file(terms: Sequence[tuple[XetHash, int, int, int]]) -> None:
    assert not fits(*terms)


def test_a_plan_of_a_part_of_it() -> None:
    assert not fits((X, 0, 6, 14_000), offset=10)
