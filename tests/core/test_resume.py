"""A journal says what was written, damaged or not; a transfer goes on from GETs that an earlier process has begun."""

from __future__ import annotations

import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import Layout, layout, layouts, plain, xorb
from transfers import World

from zest_hf.core.actions import FetchWhole
from zest_hf.core.assignments import Work
from zest_hf.core.begun import HERE, Begun
from zest_hf.core.journal import MAGIC, Written, manifest_record, parse, place_record, written_record
from zest_hf.core.local import LocalFile, LocalFiles, begun_fetches
from zest_hf.core.manifest import Manifest

FILE = plain(3, 200)


def journal(file: Layout, *ranges: tuple[int, int], step: int = 3) -> bytes:
    """Of a file of which these chunks were written, a few at a time."""
    out = MAGIC + place_record(file.file_hash, b"/cache/one.incomplete")
    first = 0
    for term in file.reconstruction.terms:
        for start, end in ranges:
            at, last = max(start, first), min(end, first + term.end - term.start)
            while at < last:
                upto = min(at + step, last)
                out += written_record(
                    term.xorb, term.start + at - first, file.manifest.offset(at), file.manifest.slice(at, upto)
                )
                at = upto
        first += term.end - term.start
    return out


def written(data: bytes) -> Written:
    found = parse(data)
    assert found is not None
    return found


def begun(file: Layout, parts: list[LocalFile]) -> dict[int, Begun]:
    return dict(begun_fetches(file.plan, parts, {x for x, _ in LocalFiles(parts).proved_xorbs(file.plan)}))


def test_what_was_noted_in_small_parts_is_found_as_stretches() -> None:
    found = written(journal(FILE, (0, 50), (60, 90), (200, 400)) + manifest_record(FILE.manifest))
    assert found.path == b"/cache/one.incomplete" and found.file_hash == FILE.file_hash
    assert [(one.offset // 65536, len(one.manifest)) for one in found.parts] == [(0, 50), (60, 30), (200, 200)]
    assert found.manifest == FILE.manifest
    (xorb_proved,) = LocalFiles(found.parts).proved_xorbs(FILE.plan)
    assert xorb_proved[0] == FILE.reconstruction.terms[1].xorb
    assert begun(FILE, found.parts) == {0: Begun(FILE.manifest.slice(0, 50), ((50, HERE),))}


def test_a_manifest_that_proves_nothing_is_no_manifest() -> None:
    assert written(journal(FILE) + manifest_record(plain(3, 199).manifest)).manifest is None


@given(st.data())
def test_a_journal_that_was_cut_off_or_damaged(data: st.DataObject) -> None:
    """What comes of it is a part of what was noted."""
    whole = journal(plain(2, 40), (0, 80), step=data.draw(st.integers(1, 20)))
    noted = written(whole).size_bytes
    cut = parse(whole[: data.draw(st.integers(0, len(whole)))])
    assert cut is None or cut.size_bytes <= noted
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = parse(whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :])
    assert damaged is None or damaged.size_bytes <= noted
    parse(MAGIC + data.draw(st.binary(max_size=200)))
    parse(data.draw(st.binary(max_size=200)))


def resumed(world: World, *ranges: tuple[int, int]) -> None:
    """These chunks of its file are there."""
    parts = written(journal(world.file, *ranges)).parts
    found = begun(world.file, parts)
    for start, end in ranges:
        world._write(start, end)
    world.transfer.local_files(LocalFiles(parts))
    world.transfer.resume(found)


def gets(actions: list[Work]) -> list[FetchWhole]:
    return [action for action in actions if isinstance(action, FetchWhole)]


def test_what_was_begun_is_gone_on_with_before_anything_else() -> None:
    world = World(plain(12, 100))
    resumed(world, (900, 940), (1100, 1199))
    assert world.transfer.begun_bytes == 139 * 65536
    first = gets(world.act())
    assert [one.fetch.placements[0].file_chunk for one in first[:2]] == [900, 1100]
    assert [len(one.begun.chunks) for one in first[:2] if one.begun] == [40, 99]
    assert all(one.begun is None for one in first[2:])
    while not world.transfer.complete:
        for get in list(world.running.values()):
            assert isinstance(get, FetchWhole)
            world.cdn_ends(get)
            world.check()
        world.act()
    assert world.finished()
    assert world.transfer.counts.local == 139 * 65536


def test_a_get_that_lacks_nothing_is_not_made() -> None:
    """Of a xorb of which the file takes a part nothing but the file proves it."""
    one, two = xorb("one", [65536] * 100), xorb("two", [65536] * 100)
    world = World(layout([one, two], [(0, 10, 60), (1, 0, 100)]))
    resumed(world, (0, 50))
    (get,) = gets(world.act())
    assert get.fetch.source.xorb == two.xorb_hash()
    world.cdn_ends(get)
    world.check()
    assert world.finished()
    assert world.transfer.counts.local == 50 * 65536


def test_after_a_failure_of_the_cdn_the_rest_is_asked_for_again() -> None:
    world = World(plain(1, 100))
    resumed(world, (0, 70))
    (get,) = gets(world.act())
    world.cdn_fails(get)
    world.now_s += 100
    (get,) = gets(world.act())
    assert get.begun is not None and len(get.begun.chunks) == 70
    world.cdn_ends(get)
    assert world.finished()


@pytest.mark.parametrize("xorb_is_whole", [True, False])
def test_what_is_wrong_there_is_found_out_and_is_nobodys_fault(xorb_is_whole: bool) -> None:
    """By the xorb's hash, or by the file's."""
    parts = [xorb(f"wrong {number}", [65536] * 100) for number in range(2)]
    file = layout(parts, [(0, 0 if xorb_is_whole else 1, 100), (1, 0, 100)])
    world = World(file)
    count = 70
    hashes = bytearray(file.manifest.slice(0, count).hashes)
    hashes[32 * 5 : 32 * 6] = b"\xdd" * 32
    wrong = Manifest(bytes(hashes), array("I", [65536] * count))
    world.transfer.resume({0: Begun(wrong, ((count, HERE),))})
    world._write(0, count)
    seen = 0
    while not world.finished():
        world.act()
        for get in list(world.running.values()):
            assert isinstance(get, FetchWhole)
            if get.begun is None:
                world.cdn_ends(get)
                continue
            seen += 1
            del world.running[get.assignment]
            truth = file.truth(get.fetch.source)
            first = get.fetch.placements[0].file_chunk
            world._write(first, first + len(truth))
            brought = Manifest.join((get.begun.chunks, truth.slice(count, len(truth))))
            world.transfer.cdn_ended(get.assignment, brought, world.now_s)
    assert seen == 1
    assert world.transfer.take_liars() == []
    assert world.transfer.counts.local == 0


@given(layouts(), st.integers(0, 1 << 30))
def test_any_file_of_which_anything_is_there(file: Layout, seed: int) -> None:
    rng = random.Random(seed)
    world = World(file)
    chunks = len(file.manifest)
    ranges, at = [], 0
    while at < chunks:
        start = at + rng.randrange(chunks)
        end = start + 1 + rng.randrange(chunks)
        if start < chunks:
            ranges.append((start, min(end, chunks)))
        at = end + 1
    resumed(world, *ranges)
    for _ in range(10 * chunks + 10):
        if world.finished():
            break
        world.act()
        world.check()
        for work in list(world.running.values()):
            if isinstance(work, FetchWhole):
                world.cdn_ends(work)
            else:
                end = getattr(world, "copy_ends", None) if hasattr(work, "source_offset") else world.cdn_ends
                assert end is not None
                end(work)
            world.check()
    assert world.transfer.complete
