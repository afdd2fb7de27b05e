"""Swarms are joined for as long as somebody needs them, and nobody waits for those who never come."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from zest_hf._native.events import Kind
from zest_hf.core.ids import XetHash
from zest_hf.meetings import DISCOVERY_S, MAX_LOOKUPS, Meetings

A, B = XetHash(b"a" * 32), XetHash(b"b" * 32)


class World:
    """What a session would be in."""

    def __init__(self, *, finds_soon: bool = True, finds_xorbs: bool = True) -> None:
        self.joined: dict[tuple[Kind, XetHash], bool] = {}
        self.calls = 0
        self.meetings = Meetings(self._join, self._leave, finds_soon=finds_soon, finds_xorbs=finds_xorbs)

    def _join(self, kind: Kind, hash_: XetHash, announce: bool) -> None:
        self.calls += 1
        assert self.joined.get((kind, hash_)) is not announce
        self.joined[kind, hash_] = announce

    def _leave(self, kind: Kind, hash_: XetHash) -> None:
        self.calls += 1
        del self.joined[kind, hash_]


def test_two_downloads_and_a_copy() -> None:
    world = World()
    meetings = world.meetings
    meetings.look(A, 0.0)
    meetings.look(A, 0.0)
    assert world.joined == {(Kind.FILE, A): False} and world.calls == 1
    meetings.hold("path", A, frozenset([B]))
    assert world.joined == {(Kind.FILE, A): True, (Kind.XORB, B): True}
    meetings.look_no_more(A)
    meetings.look_no_more(A)
    meetings.hold("other path", A, frozenset([B]))
    meetings.let_go("path", A, frozenset([B]))
    assert world.joined == {(Kind.FILE, A): True, (Kind.XORB, B): True}
    meetings.let_go("never held", A, frozenset([B]))
    meetings.let_go("other path", A, frozenset([B]))
    assert world.joined == {}


def test_a_holder_that_lets_go_while_somebody_looks() -> None:
    world = World()
    world.meetings.look(A, 0.0)
    world.meetings.hold("path", A, frozenset())
    world.meetings.let_go("path", A, frozenset())
    assert world.joined == {(Kind.FILE, A): False}


def test_xorbs_only_where_they_can_be_found() -> None:
    world = World(finds_xorbs=False)
    world.meetings.look_for_xorb(A)
    world.meetings.hold("path", B, frozenset([A]))
    assert world.joined == {(Kind.FILE, B): True}


def test_not_more_lookups_than_are_useful() -> None:
    world = World()
    xorbs = [XetHash(os.urandom(32)) for _ in range(MAX_LOOKUPS + 3)]
    for xorb in xorbs + xorbs[-3:]:
        world.meetings.look_for_xorb(xorb)
    assert set(world.joined) == {(Kind.XORB, xorb) for xorb in xorbs[3:]}


def test_the_first_look_is_waited_for_and_later_ones_if_it_found_somebody() -> None:
    meetings = World().meetings
    assert not meetings.discovering(0.0)
    meetings.look(A, 10.0)
    assert meetings.discovering(10.0 + DISCOVERY_S / 2)
    assert not meetings.discovering(10.0 + DISCOVERY_S)
    meetings.look(B, 20.0)
    assert not meetings.discovering(20.0)
    meetings.met_somebody()
    assert meetings.discovering(20.0)
    assert not meetings.discovering(20.0 + DISCOVERY_S)
    meetings.look(A, 30.0)
    assert meetings.discovering(30.0)


def test_nothing_is_waited_for_where_nothing_finds_soon() -> None:
    meetings = World(finds_soon=False).meetings
    meetings.look(A, 10.0)
    meetings.met_somebody()
    assert not meetings.discovering(10.0)


@given(st.lists(st.tuples(st.sampled_from("lnhd"), st.sampled_from([A, B]), st.sampled_from("xyz")), max_size=60))
def test_what_is_joined_is_what_is_needed(steps: list[tuple[str, XetHash, str]]) -> None:
    world = World()
    looking = {A: 0, B: 0}
    holding = {A: [], B: []}  # type: dict[XetHash, list[str]]
    for step, hash_, what in steps:
        if step == "l":
            world.meetings.look(hash_, 0.0)
            looking[hash_] += 1
        elif step == "n" and looking[hash_]:
            world.meetings.look_no_more(hash_)
            looking[hash_] -= 1
        elif step == "h":
            world.meetings.hold(what, hash_, frozenset())
            holding[hash_].append(what)
        elif step == "d":
            world.meetings.let_go(what, hash_, frozenset())
            if what in holding[hash_]:
                holding[hash_].remove(what)
        assert world.joined == {
            (Kind.FILE, one): bool(holding[one]) for one in (A, B) if holding[one] or looking[one]
        }
