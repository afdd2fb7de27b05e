"""What is on this disk already: how it is found, copied as far as it is proved, and given up where it is wrong."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import Layout, layout, layouts, plain, xorb
from transfers import SETTINGS, World

from zest_hf.core.actions import AskPeer, CopyLocal, FetchRun, FetchWhole
from zest_hf.core.local import MAX_WRONG, MIN_CHUNKS, LocalFile, LocalFiles
from zest_hf.core.manifest import Manifest

ONE, TWO, NEW = xorb("one", [65536] * 100), xorb("two", [40000] * 80), xorb("new", [50000] * 60)


def here(file: Layout) -> LocalFile:
    return LocalFile(file.manifest, file.reconstruction.terms)


def copies(world: World, *files: LocalFile) -> list[CopyLocal]:
    world.transfer.local_files(LocalFiles(files))
    return [action for action in world.act() if isinstance(action, CopyLocal)]


def test_a_revision_copies_what_is_old_and_fetches_what_is_new() -> None:
    old = layout([ONE, TWO], [(0, 0, 100), (1, 0, 80)])
    world = World(layout([ONE, TWO, NEW], [(0, 0, 40), (2, 0, 60), (0, 60, 100), (1, 0, 80)]))
    world.transfer.local_files(LocalFiles([here(old)]))
    work = world.act()
    assert {type(action) for action in work} == {CopyLocal, FetchWhole}
    (get,) = [action for action in work if isinstance(action, FetchWhole)]
    assert get.fetch.source.xorb == NEW.xorb_hash()
    for action in work:
        if isinstance(action, CopyLocal):
            assert action.chunks == world.file.manifest.slice(action.first, action.first + len(action.chunks))
            assert action.offset == world.file.manifest.offset(action.first)
            at = [old.manifest.offset(i) for i in range(len(old.manifest))].index(action.source_offset)
            assert old.manifest.slice(at, at + len(action.chunks)) == action.chunks
            world.copy_ends(action)
        else:
            world.cdn_ends(action)
        world.check()
    assert world.finished()
    counts = world.transfer.counts
    assert (counts.cdn, counts.local) == (NEW.size_bytes, world.file.manifest.size_bytes - NEW.size_bytes)


def test_what_several_files_have_of_a_xorb_proves_it_together() -> None:
    first, second = layout([ONE], [(0, 0, 70)]), layout([ONE], [(0, 50, 100)])
    wanted = layout([ONE, TWO], [(0, 20, 90), (1, 0, 80)])
    assert sum(len(copy.chunks) for copy in copies(World(wanted), here(first), here(second))) == 70
    # One alone could be anything.
    assert copies(World(wanted), here(first)) == []
    assert list(LocalFiles([here(second)]).proved_xorbs(wanted.plan)) == []


def test_what_proves_nothing_is_used_once_the_file_is_known() -> None:
    world = World(layout([ONE, TWO], [(0, 0, 100), (1, 0, 80)]))
    assert copies(world, here(layout([ONE], [(0, 0, 70)]))) == []
    for get in [action for action in world.running.values() if isinstance(action, FetchWhole)]:
        world.cdn_fails(get)
    world.transfer.manifest_proved(world.file.manifest)
    assert sum(len(copy.chunks) for copy in world.act() if isinstance(copy, CopyLocal)) == 70


def test_a_file_without_terms_is_used_by_chunk() -> None:
    world = World(layout([ONE, TWO], [(0, 0, 100), (1, 0, 80)]))
    world.transfer.manifest_proved(world.file.manifest)
    elsewhere = Manifest.join([NEW, TWO])
    (copy,) = copies(world, LocalFile(elsewhere, ()))
    assert (copy.first, len(copy.chunks), copy.source_offset) == (100, 80, NEW.size_bytes)


def test_an_index_whose_terms_are_wrong_is_not_believed() -> None:
    term = layout([ONE], [(0, 0, 100)]).reconstruction.terms[0]
    liar = LocalFile(xorb("other", [65536] * 100), (term,))
    world = World(layout([ONE], [(0, 0, 100)]))
    assert copies(world, liar) == []


def test_short_stretches_inside_of_a_get_are_left_to_it() -> None:
    base = layout([ONE], [(0, 0, 100)])
    wanted = layout([ONE], [(0, 0, 100)])
    part = Manifest.join([ONE.slice(20, 20 + MIN_CHUNKS - 1), ONE.slice(60, 60 + MIN_CHUNKS)])
    world = World(wanted)
    world.transfer.manifest_proved(wanted.manifest)
    assert [(copy.first, len(copy.chunks)) for copy in copies(world, LocalFile(part, ()))] == [(60, MIN_CHUNKS)]
    # But all of a GET is copied, however little that is.
    few = World(layout([ONE, NEW], [(0, 5, 8), (1, 0, 60)]))
    assert [(copy.first, len(copy.chunks)) for copy in copies(few, here(base))] == [(0, 3)]


def test_what_is_wrong_is_fetched_and_a_file_that_is_often_wrong_is_given_up() -> None:
    old = plain(1, 600)
    world = World(replace(old, piece_chunks=8))
    begun = copies(world, here(old))
    assert len(begun) >= MAX_WRONG + 1
    world.copy_ends(begun[0], 3)
    again = world.act()
    world.check()
    # One is not what it was; those behind it may be.
    copy, get = again
    assert isinstance(get, FetchRun) and (get.first, len(get.chunks)) == (3, 1)
    assert isinstance(copy, CopyLocal)
    assert (copy.first, copy.first + len(copy.chunks)) == (4, len(begun[0].chunks))
    for one in (copy, *begun[1:]):
        world.copy_ends(one, 0)
    while gets := [action for action in [*world.running.values(), *world.act()] if isinstance(action, FetchRun)]:
        world.cdn_ends(gets[0])
    assert not any(isinstance(action, CopyLocal) for action in world.running.values())
    assert world.finished() and world.transfer.counts.local == 3 * 65536


def test_a_file_that_is_gone_is_given_up_at_once_and_another_copy_of_it_taken() -> None:
    old = plain(2, 64)
    world = World(old)
    for copy in copies(world, here(old), here(old)):
        assert copy.source == 0
        world.copy_ends(copy, 0, opened=False)
    again = world.act()
    assert again and all(isinstance(copy, CopyLocal) and copy.source == 1 for copy in again)
    for copy in again:
        assert isinstance(copy, CopyLocal)
        world.copy_ends(copy)
    assert world.finished() and world.transfer.counts.local == old.manifest.size_bytes


def test_a_disk_that_does_not_answer_is_not_waited_for() -> None:
    old = plain(1, 64)
    world = World(old)
    (copy,) = copies(world, here(old))
    assert world.act() == []
    world.now_s += SETTINGS.copy_patience_s - 0.1
    assert world.act() == []
    world.now_s += 0.2
    (get,) = world.act()
    assert isinstance(get, FetchRun | FetchWhole)
    world.cdn_ends(get)
    assert world.finished()
    world.copy_ends(copy)
    assert (world.transfer.counts.local, world.transfer.counts.cdn) == (0, old.manifest.size_bytes)


@given(layouts(), layouts(), st.integers(0, 1 << 30), st.booleans())
def test_any_file_from_any_other(wanted: Layout, other: Layout, seed: int, known: bool) -> None:
    rng = random.Random(seed)
    world = World(wanted)
    # The xorbs of layouts are named by number, those of the same sizes are the same.
    half = layout(list(wanted.xorbs.values()), [(0, 0, len(next(iter(wanted.xorbs.values()))))])
    if known:
        world.transfer.manifest_proved(wanted.manifest)
    world.transfer.local_files(LocalFiles([here(other), here(half)]))
    for _ in range(1000):
        world.act()
        world.check()
        if not world.running:
            break
        one = rng.choice(list(world.running.values()))
        if isinstance(one, CopyLocal):
            written = rng.randint(0, len(one.chunks)) if rng.random() < 0.5 else len(one.chunks)
            world.copy_ends(one, written, opened=written > 0)
        else:
            assert not isinstance(one, AskPeer)
            world.cdn_ends(one)  # type: ignore[arg-type]
        world.now_s += 0.1
    assert world.finished()


@pytest.mark.parametrize("chunks", [1, 64, 65, 1000])
def test_parts_are_of_a_bearable_size(chunks: int) -> None:
    old = plain(1, chunks)
    found = copies(World(old), here(old))
    assert sum(len(copy.chunks) for copy in found) == chunks
    assert all(copy.chunks.size_bytes <= 12 << 20 for copy in found)
