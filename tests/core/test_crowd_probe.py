"""Whether the CDN is asked for what another fetches already, and whether that goes on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from test_crowd_rules import claim, name

from zest_hf.core.crowd import Crowd
from zest_hf.core.crowd_claims import FETCHING, FULL, CrowdSettings, Unit
from zest_hf.core.crowd_decision import Decision, Reason

SETTINGS = CrowdSettings()
MB = 1_000_000
SIZE = 40 * MB
TICK_S = 0.5
"""How often members tell how far they are."""
Rate = Callable[[float], float]
"""Bytes a second, by the seconds since the probe began."""


class Pair:
    """We, who follow another that fetches a file of one unit."""

    def __init__(self, given: float, before: float) -> None:
        """Bytes a second: what the other gives us, and gets."""
        self.crowd = Crowd(name(1), [Unit(0, 10, SIZE, False, True)])
        self.now_s, self.theirs, self.ours = 0.0, 0.0, 0.0
        while not self.crowd.is_to_probe(0, given if self.now_s >= 1 else 0.0, self.now_s):
            assert self.now_s < 5.0, "it is never in doubt"
            self._tick(before)
            self.crowd.choose(self.now_s, lambda: iter([0]), lambda: iter([0]))
        self.crowd.began(0, self.now_s)
        self.began_s = self.now_s

    def _tick(self, rate: float) -> None:
        self.theirs = min(SIZE, self.theirs + rate * TICK_S)
        self.now_s += TICK_S
        told = claim(0, FETCHING, min(FULL - 1, int(self.theirs / SIZE * FULL)))
        self.crowd.others.heard(name(2), True, [told], self.now_s)

    def goes_on_s(self, theirs: Rate, ours: Rate) -> float | None:
        """When the probe ends before it is done."""
        while self.ours < SIZE:
            since_s = self.now_s - self.began_s
            if self.crowd.stops(self.now_s) == [Decision(0, Reason.COLLISION)]:
                return since_s
            self.ours += ours(since_s) * TICK_S
            self._tick(theirs(since_s))
            self.crowd.progress(0, int(self.ours), self.now_s)
            self.crowd.claims()
        return None


def test_a_slow_line_is_found_out() -> None:
    """That of the other, whose progress we had as soon as it."""
    assert Pair(given=0.5 * MB, before=0.5 * MB).goes_on_s(lambda _: 0.5 * MB, lambda _: 8 * MB) is None


def test_who_gives_little_of_what_it_gets_is_found_out() -> None:
    """It says to get as much as we do from the CDN, with which it shares a line."""
    assert Pair(given=0.4 * MB, before=4 * MB).goes_on_s(lambda _: 4 * MB, lambda _: 4 * MB) is None


@pytest.mark.parametrize("before", [2 * MB, 5 * MB])
def test_what_is_only_taken_from_the_other_is_left_to_it(before: float) -> None:
    """Though it is quicker: the line is both's, and the other has more files on it, which give way as well."""
    pair = Pair(given=before, before=before)
    end_s = pair.goes_on_s(lambda _: 0.6 * before, lambda _: 1.4 * before)
    assert end_s is not None and end_s <= SETTINGS.probe_s + TICK_S


@pytest.mark.parametrize("slow_s", [0.0, 1.0, 2.0])
def test_who_was_slow_for_a_while_goes_on(slow_s: float) -> None:
    """Its machine was busy: at first we get much more, and then as much as it."""
    pair = Pair(given=0.5 * MB, before=0.5 * MB)
    end_s = pair.goes_on_s(lambda since_s: (0.5 if since_s < slow_s else 5) * MB, lambda _: 3 * MB)
    assert end_s is not None and end_s <= slow_s + 4.0


def test_what_a_get_has_brought_that_just_ended_counts() -> None:
    """It had the line for itself; the other has it from now on, which takes a moment to show."""
    crowd = Crowd(name(1), [Unit(0, 10, SIZE, False, True), Unit(10, 20, SIZE, False, True)])
    now_s, quick, slow = 0.0, 0.0, 0.0
    doubted_s = None
    ended_s = 2.0
    while doubted_s is None:
        assert now_s < ended_s + 4.0, "it is never in doubt"
        now_s += TICK_S
        quick, slow = min(SIZE, now_s / ended_s * SIZE), slow + 0.5 * MB * TICK_S
        told = [
            claim(0, FETCHING, FULL if quick == SIZE else int(quick / SIZE * FULL)),
            claim(1, FETCHING, int(slow / SIZE * FULL)),
        ]
        crowd.others.heard(name(2), True, told, now_s)
        crowd.choose(now_s, lambda: iter([0, 1]), lambda: iter([0, 1]))
        if crowd.is_to_probe(1, 0.5 * MB, now_s):
            doubted_s = now_s
    # Not as long as that; and then, as the line is still slow.
    assert ended_s + 0.5 <= doubted_s <= ended_s + 2.0
