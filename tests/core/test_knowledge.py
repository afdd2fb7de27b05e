"""What is known of a file by its xorbs is what its manifest says, for any shape of file."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import Layout, layout, layouts, plain, xorb

from zest_hf.core.knowledge import Knowledge
from zest_hf.core.ranges import contains
from zest_hf.errors import ReconstructionError


def term_bounds(file: Layout) -> list[int]:
    return list(accumulate((term.end - term.start for term in file.reconstruction.terms), initial=0))


@given(layouts(), st.data())
def test_xorbs_say_what_the_file_says(file: Layout, data: st.DataObject) -> None:
    knowledge = Knowledge(file.plan)
    learnt = data.draw(st.lists(st.sampled_from(list(file.xorbs)), unique=True))
    for name in learnt:
        knowledge.xorb_proved(name, file.xorbs[name])
        knowledge.xorb_proved(name, file.xorbs[name])
    bounds = term_bounds(file)
    for term, first, end in zip(file.reconstruction.terms, bounds[:-1], bounds[1:], strict=True):
        known = term.xorb in learnt
        assert contains(knowledge.known, first, end) == known == knowledge.knows_xorb(term.xorb)
        if known:
            for chunk in range(first, end + 1):
                assert knowledge.offset(chunk) == file.manifest.offset(chunk)
    for first, end in knowledge.known:
        assert knowledge.part(first, end) == file.manifest.slice(first, end)
    for fetch in file.plan.fetches:
        expected = knowledge.expected_of(fetch)
        assert expected == (file.truth(fetch.source).hashes if fetch.source.xorb in learnt else None)
    knowledge.file_proved(file.manifest)
    assert knowledge.known == ((0, len(file.manifest)),)
    assert knowledge.part(0, len(file.manifest)) == file.manifest


@given(layouts(), st.data())
def test_chunks_of_a_xorb_lie_where_its_terms_put_them(file: Layout, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(file.xorbs)))
    count = len(file.xorbs[name])
    start = data.draw(st.integers(0, count - 1))
    end = data.draw(st.integers(start + 1, count))
    wanted = set()
    for term, first in zip(file.reconstruction.terms, term_bounds(file), strict=False):
        if term.xorb == name:
            wanted |= {first + c - term.start for c in range(max(start, term.start), min(end, term.end))}
    got = Knowledge(file.plan).in_file(name, [(start, end)])
    assert {chunk for a, b in got for chunk in range(a, b)} == wanted


def test_a_xorb_that_contradicts_the_plan() -> None:
    """... is right, and the plan is not: nothing may be written by it."""
    name = xorb("x", [100, 200, 300]).xorb_hash()
    file = layout([xorb("x", [100, 200, 300])], [(0, 0, 3)])
    for other in (xorb("y", [100, 200]), xorb("y", [100, 200, 301])):
        with pytest.raises(ReconstructionError):
            Knowledge(file.plan).xorb_proved(name, other)


def test_a_xorb_that_the_file_does_not_use_says_nothing() -> None:
    knowledge = Knowledge(plain(2, 10).plan)
    stranger = xorb("stranger", [10])
    knowledge.xorb_proved(stranger.xorb_hash(), stranger)
    assert knowledge.known == ()
