"""What GETs beside peers show of the line: measured once, acted on, and forgotten when it says nothing any more."""

from __future__ import annotations

import pytest

from zest_hf.core.beside import Beside
from zest_hf.core.flow import Flow
from zest_hf.core.policy import NOTHING_ELSEWHERE, Elsewhere, PolicySettings

SETTINGS = PolicySettings()
SLOW, QUICK = 5e6, 50e6
"""Peers below and above what a usual line gives."""
LOOK_S = 0.1


class Line:
    """One GET beside peers, with what both give."""

    def __init__(self) -> None:
        self.flow = Flow(SETTINGS)
        self.beside = Beside(self.flow, SETTINGS)
        self.now_s = 100.0
        self._brought = 0.0
        self._number = 0

    def begin(self, alone_bytes_s: float) -> None:
        self._number += 1
        self._brought = 0.0
        self.flow.began(self._number, self.now_s)
        self.beside.began(alone_bytes_s)

    def stop(self) -> None:
        self.flow.ended(self._number, int(self._brought), self.now_s)

    def give(
        self, peers_bytes_s: float, cdn_bytes_s: float, for_s: float, elsewhere: Elsewhere = NOTHING_ELSEWHERE
    ) -> None:
        for _ in range(round(for_s / LOOK_S)):
            self.now_s += LOOK_S
            if self.flow.brought:
                self._brought += cdn_bytes_s * LOOK_S
                self.flow.note({self._number: int(self._brought)}, self.now_s)
            self.beside.look(peers_bytes_s, elsewhere, self.now_s)

    def suffices(self) -> bool:
        return self.beside.peers_suffice(self.now_s)


def test_nothing_is_said_before_it_can_be_told() -> None:
    line = Line()
    line.begin(SLOW)
    line.give(SLOW / 2, SLOW / 2, SETTINGS.cdn_measured_s - LOOK_S)
    assert line.beside.cdn_bytes_s is None
    assert not line.suffices()
    line.give(SLOW / 2, SLOW / 2, 4 * LOOK_S)
    assert line.beside.cdn_bytes_s == pytest.approx(SLOW / 2, rel=0.1)
    assert line.suffices()


def test_what_the_cdn_gave_is_remembered_after_its_gets_are_over() -> None:
    line = Line()
    line.begin(QUICK)
    line.give(QUICK, QUICK / 2, 2.0)
    line.stop()
    line.give(QUICK, 0.0, 60.0)
    assert not line.beside.runs
    assert line.beside.cdn_bytes_s == pytest.approx(QUICK / 2, rel=0.1)


def test_peers_are_taken_for_as_quick_as_before_until_they_have_the_line_again() -> None:
    line = Line()
    line.begin(SLOW)
    line.give(SLOW / 2, SLOW / 2, 2.0)
    assert line.beside.alone_bytes_s(line.now_s) == SLOW
    assert line.suffices()
    line.stop()
    line.give(SLOW / 2, 0.0, SETTINGS.recovers_s - 2 * LOOK_S)
    assert line.beside.alone_bytes_s(line.now_s) == SLOW
    line.give(SLOW, 0.0, 4 * LOOK_S)
    assert line.beside.alone_bytes_s(line.now_s) == 0.0


def test_a_cdn_that_adds_nothing_is_left_alone_for_longer_each_time() -> None:
    line = Line()
    for times in (1, 2, 4):
        line.begin(SLOW)
        line.give(SLOW / 2, SLOW / 2, 2.0)
        assert line.suffices()
        line.stop()
        line.give(SLOW, 0.0, times * SETTINGS.adds_nothing_s - 2 * LOOK_S)
        assert line.beside.adds_nothing(line.now_s)
        line.give(SLOW, 0.0, 4 * LOOK_S)
        assert not line.beside.adds_nothing(line.now_s)


def test_that_is_over_as_soon_as_peers_fill_the_line_no_more() -> None:
    line = Line()
    line.begin(SLOW)
    line.give(SLOW / 2, SLOW / 2, 2.0)
    assert line.suffices()
    line.stop()
    line.give(SLOW / 2, 0.0, SETTINGS.recovers_s - 2 * LOOK_S)
    assert line.beside.adds_nothing(line.now_s)
    line.give(SLOW / 2, 0.0, 4 * LOOK_S)
    assert not line.beside.adds_nothing(line.now_s)


def test_one_that_adds_to_slow_peers_stays() -> None:
    line = Line()
    line.begin(SLOW)
    line.give(SLOW, SLOW / 4, 2.0)
    assert not line.suffices()
    assert not line.beside.adds_nothing(line.now_s)


def test_beside_quick_peers_only_a_quicker_one_stays() -> None:
    for cdn_bytes_s, suffices in ((QUICK, True), (1.2 * QUICK, False)):
        line = Line()
        line.begin(QUICK)
        line.give(QUICK, cdn_bytes_s, 2.0)
        assert line.suffices() is suffices
        # That peers fill the line does not show: the CDN may have a line of its own.
        assert not line.beside.adds_nothing(line.now_s)


def test_other_files_have_a_part_of_the_line_that_is_not_seen_here() -> None:
    line = Line()
    line.begin(SLOW)
    line.give(SLOW / 2, SLOW / 2, 2.0, Elsewhere(bytes_s=0.0, files=1))
    assert not line.suffices()


def test_what_was_found_out_with_peers_that_are_gone_is_forgotten() -> None:
    line = Line()
    line.begin(SLOW)
    line.give(SLOW / 2, SLOW / 2, 2.0)
    assert line.suffices()
    line.beside.forget()
    assert not line.beside.runs
    assert line.beside.cdn_bytes_s is None
    assert line.beside.alone_bytes_s(line.now_s) == 0.0
    assert not line.beside.adds_nothing(line.now_s)


def test_the_next_gets_are_measured_anew() -> None:
    line = Line()
    line.begin(QUICK)
    line.give(QUICK, 2 * QUICK, 2.0)
    line.stop()
    line.begin(SLOW)
    line.give(SLOW, SLOW / 2, SETTINGS.cdn_measured_s - LOOK_S)
    assert line.beside.cdn_bytes_s is None
