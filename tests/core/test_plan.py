"""The plan's promises, for any shape of file."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from layouts import Layout, layout, layouts, plain, xorb

from zest_hf.core.plan import PIECE_CHUNKS, fetches_of, plan_file
from zest_hf.core.reconstruction import Reconstruction


@given(layouts())
def test_every_chunk_is_in_one_piece_and_its_piece_in_one_get(file: Layout) -> None:
    plan = file.plan
    chunks = [chunk for piece in plan.pieces for chunk in range(piece.first, piece.first + piece.count)]
    assert chunks == list(range(len(file.manifest)))
    assert plan.chunk_count == len(file.manifest)
    assert plan.size_bytes == file.manifest.size_bytes
    for piece in plan.pieces:
        assert 1 <= piece.count <= file.piece_chunks
        source = plan.fetches[piece.fetch].source
        assert source.xorb == piece.xorb
        assert source.start <= piece.xorb_first and piece.xorb_first + piece.count <= source.end
        # The chunks of the xorb that a piece names are the file's.
        of_xorb = file.xorbs[piece.xorb].slice(piece.xorb_first, piece.xorb_first + piece.count)
        assert of_xorb == file.manifest.slice(piece.first, piece.first + piece.count)


@given(layouts())
def test_each_range_is_asked_for_once_and_put_where_the_terms_want_it(file: Layout) -> None:
    plan = file.plan
    assert max(Counter(fetch.source for fetch in plan.fetches).values()) == 1
    places = sorted(
        (place.file_chunk, place, fetch) for fetch in plan.fetches for place in fetch.placements
    )
    assert len(places) == len(plan.terms)
    for (file_chunk, place, fetch), term in zip(places, plan.terms, strict=True):
        assert (fetch.source.xorb, place.start, place.end) == (term.xorb, term.start, term.end)
        assert fetch.source.start <= place.start < place.end <= fetch.source.end
        assert place.file_offset == file.manifest.offset(file_chunk)
        assert place.size_bytes == term.size_bytes
    assert sum(fetch.size_bytes for fetch in plan.fetches) == plan.size_bytes


@given(layouts())
def test_gets_come_in_the_order_in_which_the_file_needs_them(file: Layout) -> None:
    firsts = [fetch.placements[0].file_chunk for fetch in file.plan.fetches]
    assert firsts == sorted(firsts)


@given(layouts())
def test_a_part_of_a_file_is_laid_out_from_where_it_begins(file: Layout) -> None:
    fetches = fetches_of(file.reconstruction, 1000, 7)
    for moved, fetch in zip(fetches, file.plan.fetches, strict=True):
        assert moved.source == fetch.source
        for one, other in zip(moved.placements, fetch.placements, strict=True):
            assert (one.file_offset, one.file_chunk) == (other.file_offset + 1000, other.file_chunk + 7)


def test_terms_that_repeat_share_one_get() -> None:
    file = layout([xorb("a", [10] * 20)], [(0, 0, 20), (0, 5, 8), (0, 0, 20)], piece_chunks=16)
    (fetch,) = file.plan.fetches
    assert [(place.start, place.end, place.file_offset) for place in fetch.placements] == [
        (0, 20, 0),
        (5, 8, 200),
        (0, 20, 230),
    ]
    assert [piece.count for piece in file.plan.pieces] == [16, 4, 3, 16, 4]
    assert fetch.size_bytes == 430 and fetch.source.size_bytes == 200


def test_pieces_are_a_few_megabytes() -> None:
    assert {piece.count for piece in plan_file(plain(1, 1000).reconstruction).pieces} == {
        PIECE_CHUNKS,
        1000 % PIECE_CHUNKS,
    }


def test_no_terms_are_no_work() -> None:
    plan = plan_file(Reconstruction(0, (), {}))
    assert (plan.pieces, plan.fetches, plan.chunk_count, plan.size_bytes) == ((), (), 0, 0)
