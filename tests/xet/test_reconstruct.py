"""Plans of byte ranges, and their execution."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zest_hf import xet
from zest_hf.errors import ProofError, ReconstructionError, XorbError

generator = random.Random(9)
XORBS: dict[xet.XetHash, bytes] = {}
TERMS: list[xet.Term] = []
CONTENT = b""
for _ in range(3):
    pieces = [generator.randbytes(generator.randrange(1, 900)) + bytes(50) for _ in range(8)]
    body = xet.pack_xorb(pieces, footer=True)
    name = xet.read_xorb(body).hash
    XORBS[name] = body
    # Out of order, repeated, overlapping and adjacent.
    for start, end in [(0, 3), (5, 8), (2, 6), (6, 7), (0, 3)]:
        part = b"".join(pieces[start:end])
        TERMS.append(xet.Term(name, start, end, len(part)))
        CONTENT += part
LAYOUTS = {name: xet.chunk_table(body) for name, body in XORBS.items()}
NAMES = {xet.hash_to_text(name): name for name in XORBS}


def url(name: str, ranges: tuple[tuple[int, int], ...]) -> str:
    return f"http://cdn/{name}?" + ",".join(f"{a}-{b}" for a, b in ranges)


def source(asked: list[xet.FetchRange] | None = None) -> Callable[[xet.FetchRange], bytes]:
    def read(fetch: xet.FetchRange) -> bytes:
        if asked is not None:
            asked.append(fetch)
        return XORBS[fetch.xorb][fetch.byte_start : fetch.byte_end]

    return read


def join(plan: xet.Reconstruction, **options: object) -> bytes:
    return b"".join(xet.reconstruct(plan, source(), **options))  # type: ignore[arg-type]


@settings(deadline=None, max_examples=200)
@given(st.integers(0, len(CONTENT) - 1), st.integers(1, len(CONTENT)), st.sampled_from([1, 2, 100]))
def test_any_range_by_both_versions(start: int, size: int, ranges_per_url: int) -> None:
    end = min(start + size, len(CONTENT))
    plan = xet.plan_range(TERMS, LAYOUTS.__getitem__, start, end)
    first = xet.parse_v1(plan.to_v1(url))
    second = xet.parse_v2(plan.to_v2(url, ranges_per_url=ranges_per_url))
    assert first.terms == second.terms == plan.terms
    assert first.offset_into_first_range == plan.offset_into_first_range
    for answer in (first, second):
        assert join(answer, size_bytes=end - start) == CONTENT[start:end]
    # No chunk that the range does not touch: the plan is less than a chunk longer on both sides.
    lengths = LAYOUTS[plan.terms[-1].xorb].lengths
    assert first.size_bytes - (end - start) < lengths[plan.terms[-1].end - 1]
    assert plan.offset_into_first_range < LAYOUTS[plan.terms[0].xorb].lengths[plan.terms[0].start]


def test_a_whole_file_is_proved() -> None:
    plan = xet.parse_v2(xet.plan_range(TERMS, LAYOUTS.__getitem__).to_v2(url))
    tree = xet.Tree()
    for term in TERMS:
        manifest = xet.read_xorb(XORBS[term.xorb]).manifest.slice(term.start, term.end)
        tree.add(manifest.hashes, manifest.lengths)
    assert join(plan, file_hash=xet.XetHash(tree.file_hash())) == CONTENT
    with pytest.raises(ProofError):
        join(plan, file_hash=xet.ZERO_HASH)
    with pytest.raises(ReconstructionError, match="part of a file"):
        xet.reconstruct(plan, source(), size_bytes=1, file_hash=xet.ZERO_HASH)


def test_each_range_is_read_once() -> None:
    plan = xet.parse_v1(xet.plan_range(TERMS, LAYOUTS.__getitem__).to_v1(url))
    asked: list[xet.FetchRange] = []
    assert b"".join(xet.reconstruct(plan, source(asked))) == CONTENT
    assert len(asked) == len(set(asked)) == len(XORBS)


def test_the_empty_file() -> None:
    plan = xet.plan_range([], LAYOUTS.__getitem__)
    for answer in (xet.parse_v1(plan.to_v1(url)), xet.parse_v2(plan.to_v2(url))):
        assert join(answer, file_hash=xet.ZERO_HASH) == b""
        with pytest.raises(ProofError):
            join(answer, file_hash=xet.XetHash(b"x" * 32))


@pytest.mark.parametrize("start, end", [(len(CONTENT), None), (len(CONTENT), len(CONTENT) + 1), (5, 5), (5, 2)])
def test_ranges_that_are_none(start: int, end: int | None) -> None:
    with pytest.raises(ReconstructionError, match="no range of"):
        xet.plan_range(TERMS, LAYOUTS.__getitem__, start, end)


def test_terms_that_their_xorb_does_not_have() -> None:
    beyond = [replace(TERMS[0], end=9)]
    with pytest.raises(ReconstructionError, match="does not have the chunks"):
        xet.plan_range(beyond, LAYOUTS.__getitem__)
    wrong = [replace(TERMS[0], size_bytes=TERMS[0].size_bytes - 1)]
    with pytest.raises(ReconstructionError, match="does not have the chunks"):
        xet.plan_range(wrong, LAYOUTS.__getitem__, 1)


def test_bytes_that_are_not_what_the_plan_says() -> None:
    plan = xet.parse_v1(xet.plan_range(TERMS[:1], LAYOUTS.__getitem__).to_v1(url))
    good = source()
    with pytest.raises(XorbError, match="instead of"):
        list(xet.reconstruct(plan, lambda fetch: good(fetch)[1:]))
    with pytest.raises(XorbError, match="header version"):
        list(xet.reconstruct(plan, lambda fetch: b"\x01" + good(fetch)[1:]))
    stored, fewer = (xet.pack_xorb([bytes(size)] * count, xet.SCHEME_NONE) for size, count in [(1000, 4), (1336, 3)])
    assert len(stored) == len(fewer)
    four = xet.Term(TERMS[0].xorb, 0, 4, 4000)
    layout = {four.xorb: xet.chunk_table(stored)}
    plan_of_four = xet.parse_v1(xet.plan_range([four], layout.__getitem__).to_v1(url))
    assert b"".join(xet.reconstruct(plan_of_four, lambda fetch: stored)) == bytes(4000)
    with pytest.raises(XorbError, match="hold 3 chunks"):
        list(xet.reconstruct(plan_of_four, lambda fetch: fewer))
    lying = xet.parse_v1(xet.plan_range([replace(TERMS[0], size_bytes=TERMS[0].size_bytes - 1)],
                                        LAYOUTS.__getitem__).to_v1(url))  # fmt: skip
    with pytest.raises(XorbError, match="the plan says"):
        join(lying)
    with pytest.raises(ReconstructionError, match="the plan gives"):
        join(plan, size_bytes=10**9)
