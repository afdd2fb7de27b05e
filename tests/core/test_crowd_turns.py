"""Whose turn it is, against counting everybody."""

from __future__ import annotations

import random

import pytest

from zest_hf.core.crowd_claims import Member, Record, Unit, member_weight, product, unit_weight
from zest_hf.core.crowd_turns import Turns

UNITS = [Unit(8 * n, 8 * n + 8, 1000, loose=n % 5 == 4, followed=n % 10 == 9) for n in range(20)]
NOW_S = 100.0


def name(number: int) -> bytes:
    return number.to_bytes(20, "big")


def crowd(count: int, chance: random.Random) -> dict[bytes, Member]:
    """Some of them are not trusted."""
    until_s = [chance.choice((float("-inf"), NOW_S - 1, NOW_S + 1)) for _ in range(count)]
    return {name(n): Member(0.0, Record(until_s=until_s[n]), member_weight(name(n))) for n in range(1, count)}


def counted(me: bytes, number: int, members: dict[bytes, Member], busy: set[bytes], is_busy: bool) -> int:
    unit = UNITS[number]
    alike = unit.loose and not unit.followed

    def place(member: bytes) -> tuple[bool, int]:
        is_at_work = is_busy if member == me else member in busy
        return is_at_work and not alike, -product(member_weight(member), unit_weight(unit))

    trusted = [one for one, member in members.items() if member.record.until_s <= NOW_S]
    return sum(place(one) < place(me) for one in trusted)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("is_busy", [False, True])
def test_it_is_as_many_as_come_before(seed: int, is_busy: bool) -> None:
    chance = random.Random(seed)
    members = crowd(40, chance)
    busy = set(chance.sample(sorted(members), 12))
    turns = Turns(name(0), UNITS, members)
    for number in range(len(UNITS)):
        expected = counted(name(0), number, members, busy, is_busy)
        assert turns.rank(number, busy, is_busy, NOW_S) == expected
        for most in (0, 1, 5, 50):
            assert turns.rank(number, busy, is_busy, NOW_S, most) == min(expected, most + 1)


def test_who_comes_and_goes_counts_from_then_on() -> None:
    members: dict[bytes, Member] = {}
    turns = Turns(name(0), UNITS, members)
    assert turns.rank(0, set(), False, NOW_S) == 0
    members |= crowd(40, random.Random(1))
    assert turns.rank(0, set(), False, NOW_S) == counted(name(0), 0, members, set(), False) > 0
    members.clear()
    assert turns.rank(0, set(), False, NOW_S) == 0


def test_who_is_ahead_is_so_for_both() -> None:
    members = crowd(10, random.Random(2))
    one, other = name(0), name(3)
    turns = Turns(one, UNITS, members)
    theirs = Turns(other, UNITS, {one: Member(0.0, Record(), member_weight(one))})
    for number in range(len(UNITS)):
        assert turns.is_ahead(other, number) != theirs.is_ahead(one, number)
