"""Whose turn it is to fetch a unit: rendezvous hashing over those who are there. Pure.

Of a large crowd nearly everybody comes long after the first: who asks whether it is its turn says how far back it
wants to know its place, and it is looked for others that come before only until there are so many.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Collection, Mapping, Sequence

from zest_hf.core.crowd_claims import Member, Unit, member_weight, product, unit_weight

CLOSING = unit_weight(Unit(0, 0, 0, True))
"""Of all that may not prove itself: who is to fetch that is to prove the file."""


class Turns:
    """``me`` names this node; ``members`` are the others who are there, by name, at any time."""

    def __init__(self, me: bytes, units: Sequence[Unit], members: Mapping[bytes, Member]) -> None:
        self.me = me
        self._weight = member_weight(me)
        self._units = units
        self._unit_weights = array("Q", map(unit_weight, units))
        self._members = members

    def score(self, member: bytes, number: int) -> int:
        """Of those who know each other the one with the highest is to fetch a unit."""
        weight = self._weight if member == self.me else self._members[member].weight
        return product(weight, self._unit_weights[number])

    def is_ahead(self, member: bytes, number: int) -> bool:
        """Whether it comes before us."""
        return self.score(member, number) > product(self._weight, self._unit_weights[number])

    def before_in_closing(self) -> list[bytes]:
        """Who is to prove the file rather than we."""
        mine = product(self._weight, CLOSING)
        return [name for name, one in self._members.items() if product(one.weight, CLOSING) > mine]

    def rank(
        self, number: int, busy: Collection[bytes], is_busy: bool, now_s: float, most: int = sys.maxsize
    ) -> int:
        """How many are to fetch it rather than we; more than ``most`` are not counted.

        Who is fetching nothing comes before who is (``busy``; ``is_busy``: we are): two GETs of one node share its
        line.
        """
        weight = self._unit_weights[number]
        mine = product(self._weight, weight)
        unit = self._units[number]
        if unit.loose and not unit.followed:
            busy, is_busy = (), False
        rank = 0
        for name, member in self._members.items():
            if member.record.until_s > now_s or (not is_busy and name in busy):
                continue
            if (is_busy and name not in busy) or product(member.weight, weight) > mine:
                rank += 1
                if rank > most:
                    break
        return rank
