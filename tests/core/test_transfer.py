"""The transfer under any order of events, and the decisions that are worth a name."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from depth import examples
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from layouts import Layout, layout, layouts, plain, xorb
from transfers import SETTINGS, World

from zest_hf.core.actions import (
    AskPeer,
    FetchRun,
    FetchWhole,
    Follow,
    PeerTrouble,
    StopGet,
)
from zest_hf.core.assignments import Work
from zest_hf.core.crowd_claims import FULL
from zest_hf.core.pieces import State
from zest_hf.core.ranges import contains
from zest_hf.core.transfer import CDN_REST_S, MAX_WRONG_FETCHES, Transfer
from zest_hf.errors import CasUnavailable, ProofError, ReconstructionError

DEEP = replace(SETTINGS, min_depth=3, first_ask_bytes=1 << 30, least_ask_bytes=1 << 30)
"""Whole pieces, three at a time, of who was never heard of before."""


MEMBERS = [bytes([number]) * 20 for number in range(4)]


class AnyOrder(RuleBasedStateMachine):
    """Ends with the first error, as a download does.

    Peers come, lie about what they hold, break off and go; the CDN fails, or sends wrong chunks while it can."""

    @initialize(file=layouts(max_xorbs=3, max_terms=5), seed=st.none() | st.integers(0, 1 << 30), joins=st.booleans())
    def begin(self, file: Layout, seed: int | None, joins: bool) -> None:
        # A few chunks are a lot here, so that pieces are split.
        small = replace(SETTINGS, least_ask_bytes=1, first_ask_bytes=200_000)
        self.world = World(file, small if seed else SETTINGS, seed)
        if joins:
            self.world.join()
        self.over = False

    @rule(
        passed_s=st.sampled_from([0.0, 0.01, 0.5, 1.0, 5.0, 20.0, 40.0]), waiting=st.booleans(), may_come=st.booleans()
    )
    def act(self, passed_s: float, waiting: bool, may_come: bool) -> None:
        if self.over:
            return
        self.world.now_s += passed_s
        try:
            self.world.act(waiting, may_come)
        except CasUnavailable:
            # Only when nothing runs and there is nothing to hope for.
            assert all(state is not State.ASKED for state in self._states())
            self.over = True

    @rule(member=st.sampled_from(MEMBERS), data=st.data(), downloading=st.sampled_from([True, True, True, False]))
    def member_claims(self, member: bytes, data: st.DataObject, downloading: bool) -> None:
        numbers = st.integers(0, len(self.world.crowd.units) - 1)
        units = data.draw(st.lists(st.tuples(numbers, st.integers(0, FULL)), unique_by=lambda one: one[0]))
        self.world.hears(member, *units, downloading=downloading)

    @rule(member=st.sampled_from(MEMBERS))
    def member_leaves(self, member: bytes) -> None:
        self.world.crowd.others.left(member)

    @precondition(lambda self: not self.over)
    @precondition(lambda self: any(isinstance(a, Follow) for a in self.world.running.values()))
    @rule(data=st.data(), trouble=st.sampled_from([None, None, *PeerTrouble]), wrong=st.none() | st.integers(0, 99))
    def follow_ends(self, data: st.DataObject, trouble: PeerTrouble | None, wrong: int | None) -> None:
        follow = data.draw(st.sampled_from([a for a in self.world.running.values() if isinstance(a, Follow)]))
        count = self.world.count_of(follow)
        if trouble is not None:
            count = data.draw(st.integers(0, count - 1))
        self._risk(lambda: self.world.follow_ends(follow, count, trouble, wrong))

    @precondition(lambda self: not self.over)
    @precondition(lambda self: any(isinstance(a, Follow) for a in self.world.running.values()))
    @rule(data=st.data())
    def follow_brings(self, data: st.DataObject) -> None:
        follow = data.draw(st.sampled_from([a for a in self.world.running.values() if isinstance(a, Follow)]))
        self.world.follow_brings(follow, data.draw(st.integers(0, self.world.count_of(follow))))

    @precondition(lambda self: not self.over)
    @rule()
    def learn_the_manifest(self) -> None:
        self._risk(lambda: self.world.transfer.manifest_proved(self.world.file.manifest))

    @precondition(lambda self: not self.over)
    @rule(data=st.data())
    def learn_a_xorb(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.world.file.xorbs)))
        self._risk(lambda: self.world.transfer.xorb_proved(name, self.world.file.xorbs[name]))

    @rule(peer=st.integers(0, 3), data=st.data(), more=st.booleans())
    def peer_knows_a_xorb(self, peer: int, data: st.DataObject, more: bool) -> None:
        name = data.draw(st.sampled_from(list(self.world.file.xorbs)))
        end = len(self.world.file.xorbs[name])
        start = data.draw(st.integers(0, end - 1))
        part = [(start, data.draw(st.integers(start + 1, end)))]
        if more:
            self.world.transfer.peer_holds_more(peer, part, name)
        else:
            self.world.transfer.peer_lacks(peer, part, name)

    @rule(peer=st.integers(0, 3), data=st.data())
    def peer_holds_more(self, peer: int, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, len(self.world.file.manifest)))
        self.world.transfer.peer_holds_more(peer, [(start, start + data.draw(st.integers(0, 9)))])

    @rule(peer=st.integers(0, 3), data=st.data())
    def peer_holds(self, peer: int, data: st.DataObject) -> None:
        end = len(self.world.file.manifest)
        cuts = sorted(data.draw(st.lists(st.integers(0, end), min_size=2, max_size=6)))
        ranges = list(pairwise(cuts))[::2] if data.draw(st.booleans()) else [(0, end)]
        self.world.transfer.peer_holds(peer, ranges)

    @rule(peer=st.integers(0, 3))
    def peer_gone(self, peer: int) -> None:
        self.world.transfer.peer_gone(peer)

    @precondition(lambda self: not self.over)
    @precondition(lambda self: any(isinstance(a, AskPeer) for a in self.world.running.values()))
    @rule(data=st.data(), trouble=st.sampled_from([None, *PeerTrouble]))
    def peer_ends(self, data: st.DataObject, trouble: PeerTrouble | None) -> None:
        ask = data.draw(st.sampled_from([a for a in self.world.running.values() if isinstance(a, AskPeer)]))
        written = ask.count if trouble is None else data.draw(st.integers(0, ask.count - 1))
        self.world.peer_ends(ask, written, trouble)

    @precondition(lambda self: not self.over)
    @precondition(lambda self: any(isinstance(a, FetchWhole | FetchRun) for a in self.world.running.values()))
    @rule(data=st.data(), outcome=st.sampled_from(["right", "right", "wrong", "fails"]))
    def cdn_ends(self, data: st.DataObject, outcome: str) -> None:
        gets = [a for a in self.world.running.values() if isinstance(a, FetchWhole | FetchRun)]
        get = data.draw(st.sampled_from(gets))
        if outcome == "fails":
            self.world.cdn_fails(get)
        else:
            wrong = data.draw(st.integers(0, 100)) if outcome == "wrong" else None
            self._risk(lambda: self.world.cdn_ends(get, wrong))

    @precondition(lambda self: not self.over)
    @precondition(lambda self: any(isinstance(a, FetchWhole | FetchRun) for a in self.world.running.values()))
    @rule(data=st.data(), stops=st.booleans())
    def cdn_brings_some(self, data: st.DataObject, stops: bool) -> None:
        """A GET is somewhere, and may end there if others can bring the rest, whoever told it to."""
        world = self.world
        get = data.draw(st.sampled_from([a for a in world.running.values() if isinstance(a, FetchWhole | FetchRun)]))
        count = data.draw(st.integers(0, min(world.count_of(get), world.stops.get(get.assignment, 1 << 30))))
        known = world.transfer.knowledge.known
        if stops and all(contains(known, chunk, chunk + 1) for chunk in world.chunks_of(get)):
            world.stop(get, count)
        else:
            world.cdn_brings(get, count)

    @precondition(lambda self: not self.over)
    @rule()
    def finish(self) -> None:
        self._risk(self.world.finished)

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world") and not self.over:
            self.world.check()

    def teardown(self) -> None:
        """From wherever it is, with a CDN that works from now on, it comes to an end."""
        if not hasattr(self, "world") or self.over:
            return
        world = self.world
        bound = 50 + 10 * len(world.file.plan.pieces)
        for _ in range(bound):
            if self.over:
                return
            world.now_s += 0.5
            for action in list(world.running.values()):
                if isinstance(action, AskPeer):
                    world.peer_ends(action, action.count, None)
                elif isinstance(action, Follow):
                    self._risk(lambda one=action: world.follow_ends(one, world.count_of(one)))  # type: ignore[misc]
                else:
                    self._risk(lambda get=action: world.cdn_ends(get))  # type: ignore[misc]
            if not self.over and self._risk(world.finished):
                return
            try:
                world.act()
            except CasUnavailable:
                return
            world.check()
        raise AssertionError(f"not finished after {bound} steps")

    def _states(self) -> list[State]:
        return [piece.state for piece in self.world._pieces()]

    def _risk(self, step):  # type: ignore[no-untyped-def]
        """A step that may find out that the CDN lied too often."""
        try:
            return step()
        except ProofError:
            self.over = True


class AnyOrderInACrowd(AnyOrder):
    """... where others fetch the same, and are followed."""

    @initialize(count=st.integers(1, 4), size=st.integers(1, 12), seed=st.integers(0, 9), part=st.booleans())
    def begin(self, count: int, size: int, seed: int, part: bool) -> None:
        xorbs = [xorb(f"x{number}", [1000 + number + at for at in range(size)]) for number in range(count)]
        terms = [(number, 0, size - (part and number == count - 1 and size > 1)) for number in range(count)]
        self.world = World(layout(xorbs, terms, ranges="merged", piece_chunks=5), SETTINGS, seed)
        self.world.join()
        self.over = False
        self.claim(0)
        self.world.act()

    @rule(member=st.integers(0, 3), progress=st.integers(1, FULL))
    def claim(self, member: int, progress: int = 1) -> None:
        units = range(len(self.world.crowd.units))
        self.world.hears(MEMBERS[member], *((number, progress) for number in units))


@pytest.mark.parametrize("machine", [AnyOrder, AnyOrderInACrowd])
def test_any_order_of_events(machine: type[AnyOrder]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(150),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


# --- one source that works is enough ------------------------------------------------------------------


def drive(world: World, rng: random.Random, *, cdn: float, peers: float, bound: int) -> None:
    """Ends what runs at random: a GET fails with probability 1 - cdn, a peer's piece breaks off with 1 - peers."""
    for _ in range(bound):
        if world.finished():
            return
        world.act()
        if not world.running:
            world.now_s += 0.1
            continue
        world.now_s += rng.random() * 0.2
        action = rng.choice(list(world.running.values()))
        if not isinstance(action, AskPeer):
            if rng.random() < cdn:
                world.cdn_ends(action)
            else:
                world.cdn_fails(action)
        elif rng.random() < peers:
            world.peer_ends(action, action.count, None)
        else:
            trouble = rng.choice([PeerTrouble.LACKS, PeerTrouble.SILENT, PeerTrouble.BUSY, PeerTrouble.GONE])
            world.peer_ends(action, rng.randrange(action.count), trouble)
        world.check()
    raise AssertionError(f"not finished after {bound} steps")


@pytest.mark.parametrize("seed", range(30))
def test_with_a_cdn_that_works_useless_peers_do_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    world = World(plain(3, 40, piece_chunks=7))
    if rng.random() < 0.7:
        world.transfer.manifest_proved(world.file.manifest)
    for peer in range(rng.randrange(4)):
        world.transfer.peer_holds(peer, [(rng.randrange(60), 60 + rng.randrange(60))])
    drive(world, rng, cdn=1.0, peers=0.2, bound=2000)


@pytest.mark.parametrize("seed", range(30))
def test_with_a_peer_that_works_a_dead_cdn_does_not_matter(seed: int) -> None:
    world = World(plain(3, 40, piece_chunks=7))
    world.transfer.peer_holds(1, [(0, 120)])
    world.transfer.peer_holds(2, [(0, 120)])
    world.transfer.manifest_proved(world.file.manifest)
    rng = random.Random(seed)
    for _ in range(2000):
        if world.finished():
            return
        world.act()
        world.now_s += 0.1 if not world.running else rng.random() * 0.2
        if not world.running:
            continue
        action = rng.choice(list(world.running.values()))
        if not isinstance(action, AskPeer):
            world.cdn_fails(action)
        elif action.peer == 2:
            world.peer_ends(action, 0, rng.choice(list(PeerTrouble)))
        elif rng.random() < 0.3:
            world.peer_ends(action, rng.randrange(action.count), PeerTrouble.BUSY)
        else:
            world.peer_ends(action, action.count, None)
        world.check()
    raise AssertionError("not finished")


def test_when_nothing_works_the_cdns_error_comes_soon() -> None:
    world = World(plain(1, 10))
    world.transfer.manifest_proved(world.file.manifest)
    world.transfer.peer_holds(1, [(0, 10)])
    began_s = world.now_s
    with pytest.raises(CasUnavailable):
        while world.now_s < began_s + 120:
            world.act()
            for action in list(world.running.values()):
                if isinstance(action, AskPeer):
                    world.now_s += SETTINGS.piece_silence_s
                    world.peer_ends(action, 0, PeerTrouble.SILENT)
                else:
                    world.cdn_fails(action)
            world.now_s += 0.1
    assert world.now_s - began_s < SETTINGS.piece_silence_s + SETTINGS.comeback_patience_s + 5


def test_a_peer_that_gives_a_little_now_and_then_keeps_hope_alive() -> None:
    world = World(plain(1, 60, piece_chunks=60))
    world.transfer.manifest_proved(world.file.manifest)
    world.transfer.peer_holds(1, [(0, 60)])
    for _ in range(10_000):
        for action in world.act():
            if isinstance(action, AskPeer):
                world.peer_ends(action, 1, None if action.count == 1 else PeerTrouble.SILENT)
            else:
                world.cdn_fails(action)
        if world.finished():
            return
        world.now_s += 0.5
    raise AssertionError("not finished")


# --- decisions ------------------------------------------------------------------------------------------


def only(actions: list[Work]) -> Work:
    (action,) = actions
    return action


def test_a_peer_that_cannot_be_asked_for_want_of_a_manifest_is_not_counted_on() -> None:
    world = World(plain(2, 10))
    world.transfer.peer_holds(1, [(0, 20)])
    assert world.act(waiting=True) == []
    assert all(isinstance(action, FetchWhole) and action.expected is None for action in world.act())


def test_part_of_a_file_at_a_peer_without_a_manifest() -> None:
    world = World(plain(1, 20, piece_chunks=4))
    world.transfer.peer_holds(1, [(4, 8)])
    assert isinstance(only(world.act()), FetchWhole)


def test_nobody_is_waited_for_beyond_the_patience() -> None:
    world = World(plain(1, 10))
    assert world.act(waiting=True) == []
    world.now_s += SETTINGS.patience_s - 0.01
    assert world.act(waiting=True) == []
    world.now_s += 0.01
    assert isinstance(only(world.act(waiting=True)), FetchWhole)


def test_a_cdn_at_work_does_not_stop_for_somebody_who_may_turn_up() -> None:
    world = World(plain(20, 10))
    first = world.act()
    world.cdn_ends(first[0])  # type: ignore[arg-type]
    assert isinstance(only(world.act(waiting=True)), FetchWhole)


def test_the_cdn_helps_slow_peers_from_the_back() -> None:
    world = World(plain(20, 64, piece_chunks=64), DEEP)
    world.transfer.manifest_proved(world.file.manifest)
    world.transfer.peer_holds(1, [(0, 20 * 64)])
    assert [ask.first for ask in world.act() if isinstance(ask, AskPeer)] == [0, 64, 128]
    world.now_s += SETTINGS.slow_after_s
    helped = [world.chunks_of(action)[0] // 64 for action in world.act()]
    assert helped == [19, 18, 17, 16, 15, 14, 13, 12]


def test_hashes_are_given_along_as_soon_as_they_are_known() -> None:
    file = layout(
        [xorb("a", [10] * 20), xorb("b", [10] * 20), xorb("c", [10] * 30)],
        [(0, 0, 20), (1, 5, 9), (1, 12, 20), (2, 0, 15), (2, 10, 30)],
        ranges="whole",
    )
    world = World(file)
    world.transfer.manifest_proved(file.manifest)
    expected = {a.fetch.source.xorb: a.expected for a in world.act() if isinstance(a, FetchWhole)}
    a, b, c = file.xorbs
    assert expected == {a: file.xorbs[a].hashes, b: None, c: file.xorbs[c].hashes}


def test_a_peer_takes_the_whole_file_and_the_cdn_nothing() -> None:
    world = World(plain(4, 128, piece_chunks=16))
    world.transfer.manifest_proved(world.file.manifest)
    world.transfer.peer_holds(1, [(0, 512)])
    while not world.finished():
        for action in world.act():
            assert isinstance(action, AskPeer)
        world.now_s += 0.01
        world.peer_ends(next(iter(world.running.values())), 16, None)  # type: ignore[arg-type]
    assert (world.transfer.counts.cdn, world.transfer.counts.peer) == (0, world.file.manifest.size_bytes)


def test_the_cdn_gives_what_no_peer_holds_in_gets_no_larger_than_the_plans() -> None:
    world = World(plain(4, 100, piece_chunks=10))
    world.transfer.manifest_proved(world.file.manifest)
    world.transfer.peer_holds(1, [(0, 95), (170, 200), (200, 215)])
    gets = [action for action in world.act() if not isinstance(action, AskPeer)]
    ranges = sorted((min(world.chunks_of(get)), max(world.chunks_of(get)) + 1) for get in gets)
    # Chunks 90..95 and 210..215 lie in pieces that the peer has only a part of.
    assert ranges == [(90, 100), (100, 170), (210, 300), (300, 400)]
    assert sum(isinstance(get, FetchWhole) for get in gets) == 1


def test_a_break_in_the_middle_of_a_piece_keeps_what_came() -> None:
    world = World(plain(1, 64), DEEP)
    world.transfer.manifest_proved(world.file.manifest)
    world.transfer.peer_holds(1, [(0, 64)])
    ask = only(world.act())
    assert isinstance(ask, AskPeer)
    world.peer_ends(ask, 40, PeerTrouble.GONE)
    rest = only(world.act())
    assert isinstance(rest, FetchRun)
    assert (rest.first, rest.byte_start, rest.byte_end) == (40, 40 * 65536, 64 * 65536)
    assert rest.chunks == world.file.manifest.slice(40, 64)
    world.cdn_ends(rest)
    assert world.finished()
    assert world.transfer.counts.peer == 40 * 65536


def test_an_idle_peer_takes_over_what_a_slow_one_has_had_for_too_long() -> None:
    world = World(plain(1, 60, piece_chunks=10), DEEP)
    world.transfer.manifest_proved(world.file.manifest)
    for peer in (1, 2):
        world.transfer.peer_holds(peer, [(0, 60)])
    asks = world.act()
    for ask in asks:
        assert isinstance(ask, AskPeer)
        if ask.peer == 1:
            world.now_s += 0.05
            world.peer_ends(ask, 10, None)
    assert world.act() == []
    world.now_s += SETTINGS.overdue_s
    again = world.act()
    assert {action.peer for action in again if isinstance(action, AskPeer)} == {1}
    assert sorted(map(min, map(world.chunks_of, again))) == sorted(
        ask.first for ask in asks if isinstance(ask, AskPeer) and ask.peer == 2
    )
    for ask in again:
        world.peer_ends(ask, 10, None)  # type: ignore[arg-type]
    assert world.finished()
    # What the slow one still sends does no harm and is not counted twice.
    for ask in list(world.running.values()):
        world.peer_ends(ask, 10, None)  # type: ignore[arg-type]
    assert world.finished()


def test_what_both_a_slow_peer_and_the_cdn_bring_is_counted_once() -> None:
    world = World(plain(1, 30, piece_chunks=10), DEEP)
    world.transfer.manifest_proved(world.file.manifest)
    world.transfer.peer_holds(1, [(0, 30)])
    asks = {ask.first: ask for ask in world.act() if isinstance(ask, AskPeer)}
    world.now_s += SETTINGS.slow_after_s
    get = only(world.act())
    assert isinstance(get, FetchWhole) and get.expected is not None
    world.peer_ends(asks[0], 10, None)
    world.peer_ends(asks[10], 4, PeerTrouble.SILENT)
    world.cdn_ends(get)
    assert world.finished()
    world.peer_ends(asks[20], 10, None)
    assert world.finished()
    assert (world.transfer.counts.peer, world.transfer.counts.cdn) == (14 * 65536, 16 * 65536)


def test_the_cdn_helps_even_when_two_peers_were_asked_in_vain() -> None:
    world = World(plain(1, 10), DEEP)
    world.transfer.manifest_proved(world.file.manifest)
    for peer in (1, 2, 3):
        world.transfer.peer_holds(peer, [(0, 10)])
    world.act()
    world.now_s += SETTINGS.overdue_s
    assert isinstance(only(world.act()), AskPeer)
    world.now_s += SETTINGS.slow_after_s - SETTINGS.overdue_s
    assert isinstance(only(world.act()), FetchWhole)
    world.now_s += 10
    assert world.act() == []


def test_who_lacks_a_piece_is_not_asked_for_it_again() -> None:
    world = World(plain(1, 30, piece_chunks=10), DEEP)
    world.transfer.manifest_proved(world.file.manifest)
    world.transfer.peer_holds(1, [(0, 30)])
    ask = world.act()[1]
    assert isinstance(ask, AskPeer) and ask.first == 10
    world.peer_ends(ask, 3, PeerTrouble.LACKS)
    rest = only(world.act())
    assert isinstance(rest, FetchRun) and (rest.first, len(rest.chunks)) == (13, 7)
    world.cdn_fails(rest)
    assert world.act() == []


def test_a_get_without_known_hashes_is_nobody_elses() -> None:
    world = World(plain(1, 20))
    get = only(world.act())
    world.transfer.manifest_proved(world.file.manifest)
    world.transfer.peer_holds(1, [(0, 20)])
    world.now_s += 100
    assert world.act() == []
    # What it has not come to may be taken from it, when it has said where it stops.
    assert world.stops == {get.assignment: 16}
    ask = only(world.act())
    assert isinstance(ask, AskPeer) and (ask.first, ask.count) == (16, 4)
    world.cdn_ends(get)  # type: ignore[arg-type]
    world.peer_ends(ask, 4, None)
    assert world.finished()
    assert (world.transfer.counts.peer, world.transfer.counts.cdn) == (4 * 65536, 16 * 65536)


@pytest.mark.parametrize("late", [True, False])
def test_what_came_without_hashes_is_settled_by_the_manifest(late: bool) -> None:
    world = World(plain(3, 10))
    gets = world.act()
    if not late:
        world.transfer.manifest_proved(world.file.manifest)
    for number, get in enumerate(gets):
        world.cdn_ends(get, wrong=3 if number == 1 else None)  # type: ignore[arg-type]
    if late:
        world.transfer.manifest_proved(world.file.manifest)
    assert not world.finished()
    again = only(world.act())
    assert isinstance(again, FetchWhole) and again.fetch == gets[1].fetch  # type: ignore[union-attr]
    assert again.expected is not None
    world.cdn_ends(again)
    assert world.finished()


def test_one_wrong_get_is_one_however_often_the_file_uses_it() -> None:
    file = layout([xorb("a", [10] * 4), xorb("b", [10])], [(0, 0, 4)] * (MAX_WRONG_FETCHES + 2) + [(1, 0, 1)])
    world = World(file)
    wrong, _ = world.act()
    world.cdn_ends(wrong, wrong=0)  # type: ignore[arg-type]
    world.transfer.manifest_proved(file.manifest)
    world.check()
    for get in list(world.running.values()) + world.act():
        if get.assignment in world.running:
            world.cdn_ends(get)  # type: ignore[arg-type]
    assert world.finished()


def test_a_cdn_that_keeps_sending_wrong_chunks_is_given_up() -> None:
    world = World(plain(MAX_WRONG_FETCHES + 1, 10))
    gets = world.act()
    for get in gets:
        world.cdn_ends(get, wrong=0)  # type: ignore[arg-type]
    with pytest.raises(ProofError, match="keeps sending"):
        world.transfer.manifest_proved(world.file.manifest)


def test_without_a_manifest_one_wrong_xorb_is_fetched_once_more() -> None:
    file = layout(
        [xorb("a", [10] * 20), xorb("b", [10] * 20), xorb("c", [10] * 30)],
        [(0, 0, 20), (1, 0, 20), (0, 0, 20), (2, 3, 10)],
    )
    world = World(file)
    for get in world.act():
        assert isinstance(get, FetchWhole)
        world.cdn_ends(get, wrong=1 if get.fetch.source.xorb == file.reconstruction.terms[1].xorb else None)
    assert not world.finished()
    assert world.transfer.counts.total == 400
    again = world.act()
    # The first proves itself, the wrong one does not, of the third only a part is there: that proves nothing.
    fetched = [get.fetch.source.xorb for get in again if isinstance(get, FetchWhole)]
    assert fetched == [file.reconstruction.terms[1].xorb, file.reconstruction.terms[3].xorb]
    for get in again:
        world.cdn_ends(get)  # type: ignore[arg-type]
    assert world.finished()


def test_a_second_failure_of_the_proof_is_the_last() -> None:
    world = World(plain(2, 10))
    for _ in range(2):
        for get in world.act():
            world.cdn_ends(get, wrong=0)  # type: ignore[arg-type]
        if not world.transfer._proof.refetched:
            assert world.transfer.finish() is None
    with pytest.raises(ProofError):
        world.transfer.finish()


def test_right_xorbs_in_the_wrong_order_are_not_fetched_again() -> None:
    xorbs = [xorb("plain0", [65536] * 10), xorb("plain1", [65536] * 10)]
    right, wrong = plain(2, 10), layout(xorbs, [(1, 0, 10), (0, 0, 10)])
    world = World(wrong)
    world.transfer = Transfer(wrong.plan, right.file_hash, SETTINGS)
    for get in world.act():
        world.cdn_ends(get)  # type: ignore[arg-type]
    with pytest.raises(ProofError):
        world.transfer.finish()


def test_a_plan_that_the_manifest_contradicts_is_not_followed() -> None:
    file, other = plain(2, 10), plain(2, 11)
    with pytest.raises(ReconstructionError):
        World(file).transfer.manifest_proved(other.manifest)
    # The same number of chunks and bytes, but the terms meet elsewhere: writing by that plan would spoil neighbours.
    lengths = [100, 200, 300, 400]
    one = layout([xorb("x", lengths), xorb("y", [50])], [(0, 0, 4), (1, 0, 1)])
    two = layout([xorb("x", [*lengths[:3], 50]), xorb("y", [400])], [(0, 0, 4), (1, 0, 1)])
    assert one.manifest.size_bytes == two.manifest.size_bytes
    with pytest.raises(ReconstructionError):
        World(one).transfer.manifest_proved(two.manifest)


def test_a_term_of_another_size_than_planned_ends_the_transfer() -> None:
    file = plain(1, 4, chunk_bytes=1000)
    world = World(file)
    get = only(world.act())
    longer = xorb("longer", [1000, 1000, 1000, 1001])
    with pytest.raises(ReconstructionError):
        world.transfer.cdn_ended(get.assignment, longer, world.now_s)


def test_the_cdn_rests_after_a_failure_while_peers_give() -> None:
    world = World(plain(2, 20, piece_chunks=2))
    world.transfer.manifest_proved(world.file.manifest)
    world.transfer.peer_holds(1, [(0, 20)])
    for action in world.act():
        if not isinstance(action, AskPeer):
            world.cdn_fails(action)
    world.now_s += CDN_REST_S / 2
    assert all(isinstance(action, AskPeer) for action in world.act())
    world.now_s += CDN_REST_S
    assert any(not isinstance(action, AskPeer) for action in world.act())


def test_a_busy_peer_is_asked_again_soon_a_silent_one_later() -> None:
    for trouble, rest_s in ((PeerTrouble.BUSY, SETTINGS.busy_rest_s), (PeerTrouble.SILENT, SETTINGS.suspension_s)):
        world = World(plain(1, 20))
        world.transfer.manifest_proved(world.file.manifest)
        world.transfer.peer_holds(1, [(0, 20)])
        world.peer_ends(only(world.act()), 0, trouble)  # type: ignore[arg-type]
        get = only(world.act())
        assert isinstance(get, FetchWhole)
        world.cdn_fails(get)
        world.now_s += rest_s - 0.01
        assert world.act() == []
        world.now_s += 0.02
        assert isinstance(only(world.act()), AskPeer)


def test_who_holds_just_the_rest_of_a_piece_is_asked_for_it() -> None:
    world = World(plain(1, 64), DEEP)
    world.transfer.manifest_proved(world.file.manifest)
    world.transfer.peer_holds(1, [(0, 64)])
    world.peer_ends(only(world.act()), 40, PeerTrouble.GONE)  # type: ignore[arg-type]
    world.transfer.peer_holds(2, [(40, 64)])
    rest = only(world.act())
    assert isinstance(rest, AskPeer)
    assert (rest.peer, rest.first, rest.count, rest.xorb_first) == (2, 40, 24, 40)


def test_what_a_peer_leaves_behind_the_end_of_a_get_is_wanted() -> None:
    """The GET has said that it ends there: nobody waits for it to do so."""
    world = World(plain(1, 2), SETTINGS)
    world.transfer.manifest_proved(world.file.manifest)
    (get,) = world.act()
    assert isinstance(get, FetchWhole)
    world.transfer.peer_holds(0, [(0, 2)])
    world.now_s += 1.0
    (ask,) = (one for one in world.act() if isinstance(one, AskPeer))
    world.stop(get, 1)
    world.peer_ends(ask, 1, PeerTrouble.LACKS)
    world.check()
    assert world.transfer._pieces.wanted == [0]


@pytest.mark.parametrize("others_may_come", [False, True])
@pytest.mark.parametrize("seed", [None, 1])
def test_what_a_stopped_get_leaves_waits_for_its_end_when_nothing_is_known_of_it(
    others_may_come: bool, seed: int | None
) -> None:
    """It was stopped for a member that is gone. The rest begins at a byte that nobody knows."""
    world = World(plain(xorbs=1, chunks=4, piece_chunks=4), seed=seed)
    (get,) = world.act(others_may_come=others_may_come)
    assert isinstance(get, FetchWhole) and get.expected is None
    world.stop(get, 1)
    assert not world.act(others_may_come=others_may_come)
    world.cdn_ends(get)
    (again,) = world.act(others_may_come=others_may_come)
    assert isinstance(again, FetchWhole) and again.begun is not None and len(again.begun.chunks) == 1
    world.cdn_ends(again)
    assert world.finished()


def test_a_get_that_is_stopped_at_its_beginning_is_not_stopped_again() -> None:
    """Also when a part of what it was made for was done by a peer before."""
    world = World(layout([xorb("x", [1000] * 6)], [(0, 0, 6)], piece_chunks=5), seed=0)
    world.join()
    world.hears(MEMBERS[0], (0, 1))
    (follow,) = world.act()
    assert isinstance(follow, Follow)
    world.transfer.manifest_proved(world.file.manifest)
    world.transfer.peer_holds(0, [(0, 6)])
    world.follow_ends(follow, 6, wrong=0)
    begun = world.act()
    world.now_s += 5.0
    begun += world.act()
    (get,) = (one for one in begun if isinstance(one, FetchWhole))
    (last,) = (one for one in begun if isinstance(one, AskPeer) and one.first == 5)
    world.peer_ends(last, 1, None)
    world.stop(get, 0)
    world.hears(MEMBERS[1], (0, 1))
    assert not any(isinstance(one, StopGet) for one in world.transfer.actions(world.now_s, False))
