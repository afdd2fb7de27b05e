"""What peers give to several downloads of a process."""

from __future__ import annotations

import pytest

from zest_hf.core.policy import NOTHING_ELSEWHERE
from zest_hf.peer_rates import PeerRates

MB = 1_000_000


def test_alone_there_is_nothing_elsewhere() -> None:
    rates = PeerRates()
    assert rates.note("one", 0, 0.0, 5.0) == NOTHING_ELSEWHERE
    assert rates.note("one", 10 * MB, 10.0 * MB, 6.0) == NOTHING_ELSEWHERE


def test_what_one_got_that_has_ended_is_not_missed_at_once() -> None:
    """The others will have it; their own rates do not say so yet."""
    rates = PeerRates()
    for tick in range(41):
        now_s = tick / 10
        rates.note("quick", 9 * MB * tick // 10, 9.0 * MB, now_s)
        elsewhere = rates.note("slow", 3 * MB * tick // 10, 3.0 * MB, now_s)
    assert elsewhere.files == 1 and elsewhere.bytes_s == pytest.approx(9 * MB, rel=0.05)
    rates.leave("quick")
    elsewhere = rates.note("slow", 12 * MB, 3.0 * MB, 4.1)
    assert elsewhere.files == 0 and elsewhere.bytes_s > 7 * MB
    # It was nobody else's share.
    assert rates.note("slow", 12 * MB, 3.0 * MB, 12.0).bytes_s < MB


def test_time_in_which_nobody_asks_peers_does_not_count() -> None:
    rates = PeerRates()
    for tick in range(1, 21):
        rates.note("first", MB * tick, 10.0 * MB, tick / 10)
    rates.leave("first")
    rates.leave("first")
    assert rates.note("second", 0, 0.0, 60.0).bytes_s == pytest.approx(10 * MB, rel=0.2)
