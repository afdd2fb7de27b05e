"""What the GETs of a transfer bring, told from what comes when."""

from __future__ import annotations

import pytest

from zest_hf.core.flow import Flow
from zest_hf.core.policy import PolicySettings

MB = 1_000_000


def running(flow: Flow, number: int, rate_bytes_s: float, now_s: float, for_s: float) -> float:
    """A GET brings so much a second for so long; what time it is then."""
    flow.began(number, now_s)
    for tick in range(round(for_s / 0.1) + 1):
        flow.note({number: int(rate_bytes_s * tick * 0.1)}, now_s + tick * 0.1)
    return now_s + for_s


def test_what_the_cdn_gave_is_remembered_while_nothing_is_asked_of_it() -> None:
    """Whether it would be sooner than a peer that creeps may be asked much later."""
    flow = Flow(PolicySettings())
    now_s = running(flow, 1, 5 * MB, 100.0, 4.0)
    flow.ended(1, 20 * MB, now_s)
    for tick in range(600):
        flow.note({}, now_s + tick * 0.1)
    assert flow.bytes_s(now_s + 60.0) == pytest.approx(5 * MB, rel=0.05)


def test_silence_of_a_get_that_runs_is_the_cdns() -> None:
    flow = Flow(PolicySettings())
    now_s = running(flow, 1, 5 * MB, 100.0, 4.0)
    for tick in range(100):
        flow.note({1: 20 * MB}, now_s + tick * 0.1)
    assert (flow.bytes_s(now_s + 10.0) or 0.0) < 1000
    assert flow.silent_s(1, now_s + 10.0) == pytest.approx(10.0)


def test_each_time_it_is_measured_anew() -> None:
    flow = Flow(PolicySettings())
    now_s = running(flow, 1, 5 * MB, 100.0, 4.0)
    flow.ended(1, 20 * MB, now_s)
    flow.began(2, now_s + 60.0)
    assert flow.bytes_s(now_s + 60.0) is None
    now_s = running(flow, 2, 1 * MB, now_s + 60.0, 4.0)
    assert flow.bytes_s(now_s) == pytest.approx(1 * MB, rel=0.05)
