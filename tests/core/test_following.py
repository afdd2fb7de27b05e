"""Whom of the crowd to follow, what becomes of what came so, and who is to blame when it was wrong."""

from __future__ import annotations

import pytest
from layouts import Layout, layout, plain, xorb
from transfers import World

from zest_hf.core.actions import FetchRun, FetchWhole, Follow, PeerTrouble
from zest_hf.core.assignments import Work
from zest_hf.core.crowd_claims import FULL
from zest_hf.core.following import BUSY_S, FEW, MAX_FOLLOWS, MAX_UNTRIED, MAX_WRONG

SOME = FULL // 2
LARGE = plain(3, 500, 131072)
"""Whole xorbs, by their size."""
SMALL = plain(3, 10)


def name(number: int) -> bytes:
    return number.to_bytes(20, "big")


def follows(actions: list[Work]) -> list[Follow]:
    return [action for action in actions if isinstance(action, Follow)]


def crowd(file: Layout = SMALL, *, members: int = 1, progress: int = SOME) -> World:
    """``members`` of which each fetches one unit, or the first all of them."""
    world = World(file, seed=1)
    world.join()
    units = [(number, progress) for number in range(len(file.plan.fetches))]
    for number in range(members):
        world.hears(name(number), *(units if members == 1 else units[number : number + 1]))
    return world


def test_what_others_fetch_is_taken_from_them_while_it_comes() -> None:
    world = crowd(members=3)
    found = follows(world.act())
    assert sorted(one.fetch.source.xorb for one in found) == sorted(SMALL.xorbs)
    assert {one.member for one in found} == {name(0), name(1), name(2)}
    for follow in found:
        before = world.transfer.counts.total
        world.follow_brings(follow, 5)
        assert world.transfer.take_proved() == ()
        assert world.transfer.counts.total == before
        world.follow_ends(follow, 10)
        # A whole xorb proves itself.
        first = follow.fetch.placements[0].file_chunk
        assert world.transfer.take_proved() == ((first, first + 10),)
    assert world.finished()
    assert world.transfer.counts.peer == SMALL.manifest.size_bytes


def test_nobody_is_followed_who_shows_no_progress_or_has_got_it_all() -> None:
    for progress in (0, FULL):
        assert follows(crowd(progress=progress).act()) == []


def test_half_of_what_nobody_knows_is_lost() -> None:
    world = crowd()
    follow = follows(world.act())[0]
    world.follow_ends(follow, 5, PeerTrouble.GONE)
    assert world.transfer.counts.total == 0
    world.check()
    # Not of the same member again.
    assert all(one.fetch != follow.fetch for one in follows(world.act()))


def test_half_of_what_is_known_by_then_is_kept() -> None:
    world = crowd(members=3)
    follow = follows(world.act())[0]
    world.transfer.xorb_proved(follow.fetch.source.xorb, world.file.xorbs[follow.fetch.source.xorb])
    world.follow_ends(follow, 5, PeerTrouble.GONE)
    assert world.transfer.counts.peer == 5 * 65536
    world.check()


def test_it_ends_when_peers_can_prove_what_is_still_to_come() -> None:
    world = crowd(members=3)
    follow = follows(world.act())[0]
    place = follow.fetch.placements[0]
    world.follow_brings(follow, 5)
    world.transfer.xorb_proved(follow.fetch.source.xorb, world.file.xorbs[follow.fetch.source.xorb])
    world.now_s += 0.1
    world.act()
    assert world.cancelled == set()
    world.transfer.peer_holds(7, [(place.file_chunk, place.file_chunk + 10)])
    world.now_s += 0.1
    world.act()
    assert world.cancelled == {follow.assignment}
    world.follow_ends(follow, 5, PeerTrouble.CANCELLED)
    assert world.transfer.counts.peer == 5 * 65536
    world.check()


def test_a_xorb_that_is_not_what_it_should_be_is_dropped_at_once() -> None:
    world = crowd(LARGE)
    first, second = follows(world.act())
    world.follow_ends(first, 500, wrong=7)
    assert world.transfer.counts.total == 0
    # Whether that is its fault nobody knows, but it is not followed any more.
    assert world.transfer.take_liars() == []
    assert follows(world.act()) == []
    world.transfer.xorb_proved(first.fetch.source.xorb, LARGE.xorbs[first.fetch.source.xorb])
    assert world.transfer.take_liars() == [name(0)]
    world.follow_ends(second, 500)
    world.check()


def test_a_unit_that_proves_itself_nowhere_is_followed_seldom() -> None:
    """All of it came right from whom it was taken, but it is a part of a xorb."""
    whole = xorb("longer", [131072] * 501)
    world = World(layout([whole], [(0, 0, 500)]), seed=1)
    world.join()
    for number in range(5):
        world.hears(name(number), (0, SOME))
    for _ in range(MAX_WRONG):
        (follow,) = follows(world.act())
        world.follow_ends(follow, 500)
    assert follows(world.act()) == []
    # Nobody lied.
    world.transfer.xorb_proved(whole.xorb_hash(), whole)
    assert world.transfer.take_liars() == []


def test_part_of_a_xorb_is_known_to_be_wrong_by_the_file() -> None:
    """It is asked of the CDN then, whoever has sent it."""
    ends = layout([xorb("a", [65536] * 10), xorb("b", [65536] * 10)], [(0, 0, 10), (1, 2, 8)])
    world = crowd(ends, members=2)
    for follow in follows(world.act()):
        world.follow_ends(follow, world.count_of(follow), wrong=3 if follow.member == name(1) else None)
    assert world.transfer.complete and not world.finished()
    world.check()
    assert world.transfer.take_liars() == []
    world.hears(name(1), (1, SOME))
    world.hears(name(2), (1, SOME))
    for _ in range(60):
        world.now_s += 0.5
        for action in [*world.act(), *world.running.values()]:
            if isinstance(action, FetchWhole | FetchRun) and action.assignment in world.running:
                world.cdn_ends(action)
        if world.finished():
            return
    raise AssertionError("not finished")


@pytest.mark.parametrize("file", [SMALL, LARGE, plain(6, 30)], ids=["small", "large", "many"])
@pytest.mark.parametrize("liars", [1, 5, 20])
def test_any_number_of_liars(file: Layout, liars: int) -> None:
    """Who say that they fetch everything and send what is wrong: the file comes out right."""
    world = World(file, seed=3)
    world.join()
    wrong = 0
    for step in range(400):
        if world.finished():
            break
        units = [(number, min(FULL - 1, 1000 + 100 * step)) for number in range(len(file.plan.fetches))]
        for number in range(liars):
            world.hears(name(number), *units)
        world.now_s += 0.5
        world.act()
        for action in list(world.running.values()):
            if isinstance(action, Follow):
                wrong += 1
                world.follow_ends(action, world.count_of(action), wrong=wrong)
            elif isinstance(action, FetchWhole | FetchRun):
                world.cdn_ends(action)
        world.check()
    assert world.finished()
    assert wrong <= 3 * liars + len(file.plan.fetches)


def test_who_is_busy_is_asked_again_later() -> None:
    world = crowd(members=3)
    follow = follows(world.act())[0]
    world.follow_ends(follow, 0, PeerTrouble.BUSY)
    assert follow.fetch not in [one.fetch for one in follows(world.act())]
    world.now_s += BUSY_S
    assert follow.fetch in [one.fetch for one in follows(world.act())]


def test_who_has_sent_nothing_yet_is_tried_with_little() -> None:
    world = crowd(plain(20, 10))
    found = follows(world.act())
    assert len(found) == MAX_UNTRIED
    world.follow_brings(found[0], 1)
    world.now_s += 0.1
    assert len(follows(world.act())) == MAX_FOLLOWS - MAX_UNTRIED


def test_who_claims_to_get_on_and_sends_nothing_counts_no_more() -> None:
    world = crowd(plain(20, 10))
    for follow in follows(world.act()):
        world.follow_ends(follow, 0, PeerTrouble.SILENT)
    assert not world.crowd.others.is_trusted(name(0), world.now_s)
    world.hears(name(0), *((number, SOME + 100) for number in range(20)))
    assert follows(world.act()) == []


def test_few_of_many_follow_a_unit() -> None:
    file = plain(1, 10)
    counts = 0
    for node in range(200):
        world = World(file, seed=node)
        world.crowd.me = world.crowd.others.me = name(node)
        world.join()
        for other in range(200):
            if other != node:
                world.hears(name(other), *([(0, SOME)] if other == 7 else []))
        counts += len(follows(world.act()))
    assert FEW / 2 <= counts <= 2 * FEW


def test_one_get_while_others_may_come() -> None:
    firsts = set()
    for seed in range(20):
        world = World(plain(5, 10), seed=seed)
        (get,) = world.act(others_may_come=True)
        assert isinstance(get, FetchWhole)
        firsts.add(get.fetch.source.xorb)
        assert world.act(others_may_come=True) == []
        # Nobody came.
        assert len(world.act()) == 4
    assert len(firsts) == 5


def test_what_who_is_gone_has_sent_is_gone_on_with() -> None:
    world = crowd(members=3)
    follow = follows(world.act())[0]
    world.follow_ends(follow, 5, PeerTrouble.GONE)
    world.hears(name(9), (SMALL.plan.fetches.index(follow.fetch), FULL - 1))
    (again,) = follows(world.act())
    assert again.fetch == follow.fetch and again.begun is not None and len(again.begun.chunks) == 5


@pytest.mark.parametrize("trouble", [one for one in PeerTrouble if one is not PeerTrouble.GONE])
def test_what_who_is_still_there_has_sent_is_not(trouble: PeerTrouble) -> None:
    """It may be there to make what others add to it useless."""
    world = crowd(members=3)
    follow = follows(world.act())[0]
    world.follow_ends(follow, 5, trouble)
    world.hears(name(9), (SMALL.plan.fetches.index(follow.fetch), FULL - 1))
    world.now_s += BUSY_S / 2
    (again,) = follows(world.act())
    assert again.member == name(9) and again.begun is None


def test_nothing_is_added_to_what_a_member_has_begun_that_was_wrong_elsewhere() -> None:
    world = crowd(LARGE)
    first, second = follows(world.act())
    world.follow_ends(first, 200, PeerTrouble.GONE)
    world.follow_ends(second, 500, wrong=7)
    world.hears(name(9), (LARGE.plan.fetches.index(first.fetch), FULL - 1))
    (again,) = follows(world.act())
    assert again.fetch == first.fetch and again.begun is None


def test_who_is_behind_is_not_followed() -> None:
    """Nothing would come before it is where we are, and that looks like silence."""
    world = crowd(members=3)
    follow = follows(world.act())[0]
    number = SMALL.plan.fetches.index(follow.fetch)
    world.follow_ends(follow, 5, PeerTrouble.GONE)
    world.hears(name(9), (number, FULL // 4))
    assert follows(world.act()) == []
    world.hears(name(9), (number, FULL * 3 // 4))
    assert len(follows(world.act())) == 1
