"""What those who download the same file tell each other, and what is made of it. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from zest_hf.core.plan import Fetch, FilePlan

FETCHING = 1
HELD = 2
"""States of a claim."""
FULL = 65535
"""Progress of a claim: all of its bytes."""

WHOLE_XORB_BYTES = 60 * 1024 * 1024
"""Xorbs are closed when the next chunk would make them larger than 64 MiB: of this size one is whole."""

RATE_OVER_S = 0.4
"""Progress is told every 0.5 s; over less than this it says nothing."""
RATE_WINDOW_S = 3.0
"""A rate is one of the last 3..6 s: GETs that began at different times share the same line."""

Told = tuple[int, int, int, int]
"""A claim as it is told: first chunk of the file, end, state, progress."""

LOOSE = b"loose"
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class CrowdSettings:
    """Times in seconds."""

    answer_s: float = 0.5
    """An owner claims what is due within this time, or the next one does."""
    hear_s: float = 0.3
    """Who has just met the first of the others hears within this time what is fetched, and held."""
    stall_s: float = 3.0
    """A claim without progress for so long is void,"""
    held_s: float = 6.0
    """... and one to hold what is not to be had for so long."""
    unproved_s: float = 1.0
    """How long what has come completely may remain without proof."""
    distrust_s: float = 30.0
    """How long a member that was found out twice is not counted on; twice as long each time."""
    patience_s: float = 3.0
    """How long a node that has got nothing waits at least before it asks the CDN out of turn,"""
    longest_patience_s: float = 15.0
    """... and at most."""
    slow_factor: float = 3.0
    """A claim that will take so many times as long as others would is void,"""
    slow_s: float = 3.0
    """... if it was heard of so long ago: it may just be the one that comes last on a busy line;"""
    shared_slow_s: float = 10.0
    """... as long as the line is everybody's, of which some get much more than others for a while."""
    probe_after_s: float = 1.0
    """Who fetches what nothing else can be compared with is compared with the CDN after this time,"""
    worth_probe_s: float = 4.0
    """... if it would take this much longer,"""
    doubted_bytes_s: float = 8e6
    """... unless all together get as much, or did in that time: half of what a usual line gives,"""
    probe_s: float = 1.0
    """... and for so long, unless that brings it sooner;"""
    seen_s: float = 30.0
    """... What others have got is compared with for so long."""
    fair_share: float = 0.6
    """Who gets less from the crowd than this part of what the CDN alone has given it takes more."""
    little_share: float = 1 / 64
    """... and who got less than this part of a unit while it waited has got nothing."""
    help_s: float = 2.0
    """... one GET in this time."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One GET: ``first``..``end`` are chunks of the file at its first place. ``loose``: it may not prove itself.

    ``followed``: others get it while it comes, so that each of them has what proves the file.
    """

    first: int
    end: int
    size_bytes: int
    loose: bool
    followed: bool = False


@dataclass(slots=True)
class Claim:
    """What one member says of one unit, and when that was heard."""

    state: int
    progress: int
    began_s: float
    moved_s: float
    began_at: int
    """Progress when it was heard of first."""
    voided: bool = False
    """It was found out."""
    _since: tuple[float, int] | None = None
    """From where the rate is counted: a time and the progress then,"""
    _next: tuple[float, int] | None = None
    """... and from where it will be, in a while."""

    def moved(self, progress: int, now_s: float) -> None:
        """So far it is now."""
        if self._next is None:
            self._next = self.began_s, self.began_at
        if now_s - self._next[0] >= RATE_WINDOW_S:
            self._since, self._next = self._next, (self.moved_s, self.progress)
        self.progress, self.moved_s = progress, now_s

    def rate(self, now_s: float) -> float:
        """Progress per second, of late; 0 while it was told of in one breath."""
        since_s, progress = self._since or (self.began_s, self.began_at)
        passed_s = self.moved_s - since_s
        return max(0, self.progress - progress) / passed_s if passed_s >= RATE_OVER_S else 0.0

    def expected(self, now_s: float) -> float:
        """The progress that it should have made by now."""
        return min(float(FULL), self.progress + self.rate(now_s) * (now_s - self.moved_s))

    def rest_s(self, now_s: float) -> float:
        """When it will be done."""
        rate = self.rate(now_s)
        return (FULL - self.progress) / rate - (now_s - self.moved_s) if rate > 0 else float("inf")


@dataclass(slots=True)
class Member:
    """Another node that downloads the file."""

    joined_s: float
    record: Record
    weight: int
    """What its turns depend on."""
    claims: dict[int, Claim] = field(default_factory=dict)
    fetching: dict[int, Claim] = field(default_factory=dict)
    """Those that are not of what it holds."""


@dataclass(slots=True)
class Record:
    """What is remembered of a member, also when it has left."""

    faults: int = 0
    """Claims that were void."""
    distrusted: int = 0
    """How often."""
    until_s: float = float("-inf")
    """... and until when it is."""


def units_of(plan: FilePlan) -> list[Unit]:
    """One for each of the plan's GETs."""
    last = max(range(len(plan.fetches)), key=lambda number: plan.fetches[number].placements[0].file_chunk, default=-1)
    return [_unit(fetch, is_last=number == last) for number, fetch in enumerate(plan.fetches)]


def _unit(fetch: Fetch, *, is_last: bool) -> Unit:
    place, source = fetch.placements[0], fetch.source
    # The last xorb of a file often goes on with another's content.
    loose = source.start > 0 or (is_last and source.byte_end - source.byte_start < WHOLE_XORB_BYTES)
    end = place.file_chunk + place.end - place.start
    return Unit(place.file_chunk, end, fetch.size_bytes, loose, fetch.is_one_piece)


def member_weight(member: bytes) -> int:
    return name_score(member, b"member")


def unit_weight(unit: Unit) -> int:
    """What is multiplied with each member's weight: whose product is the highest is to fetch the unit."""
    # All that may not prove itself has one owner, who proves the file.
    return name_score(b"unit", LOOSE if unit.loose else b"%d-%d" % (unit.first, unit.end)) | 1


def product(one: int, other: int) -> int:
    """As good as a hash of both, as both are hashes, and much cheaper: it is done for each member and unit."""
    return one * other & _MASK


def name_score(member: bytes, name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, key=member, digest_size=8).digest(), "big")
