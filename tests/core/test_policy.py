from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zest_hf.core.policy import CdnUse, PolicySettings, View, cdn_use, depth

SETTINGS = PolicySettings()
SLOW, FAST = SETTINGS.fair_rate_bytes_s - 1, SETTINGS.fair_rate_bytes_s
SOON, LATER = 100.0 + SETTINGS.slow_after_s - 0.01, 100.0 + SETTINGS.slow_after_s


@pytest.mark.parametrize(
    ("now_s", "waiting", "useful", "since_s", "rate", "use"),
    [
        # Nobody to ask: wait while somebody may turn up, then the CDN gives all.
        (100.0, True, 0, None, 0.0, CdnUse.NOTHING),
        (100.0, False, 0, None, 0.0, CdnUse.EVERYTHING),
        (LATER, False, 0, 100.0, FAST, CdnUse.EVERYTHING),
        # Peers that were asked just now are not judged yet.
        (SOON, False, 1, 100.0, 0.0, CdnUse.ORPHANS),
        (SOON, True, 1, 100.0, 0.0, CdnUse.NOTHING),
        (SOON, False, 1, None, 0.0, CdnUse.ORPHANS),
        # Later their rate counts, whoever else may turn up.
        (LATER, False, 1, 100.0, SLOW, CdnUse.EVERYTHING),
        (LATER, True, 1, 100.0, SLOW, CdnUse.EVERYTHING),
        (LATER, False, 9, 100.0, FAST, CdnUse.ORPHANS),
        (LATER, True, 9, 100.0, FAST, CdnUse.NOTHING),
    ],
)
def test_peer_or_cdn(
    now_s: float, waiting: bool, useful: int, since_s: float | None, rate: float, use: CdnUse
) -> None:
    view = View(now_s, waiting, useful, since_s, rate)
    assert cdn_use(view, SETTINGS) is use


@given(
    st.floats(0, 1e6),
    st.booleans(),
    st.integers(0, 500),
    st.none() | st.floats(0, 1e6),
    st.floats(0, 1e12),
)
def test_somebody_is_asked_or_waited_for(
    now_s: float, waiting: bool, useful: int, since_s: float | None, rate: float
) -> None:
    use = cdn_use(View(now_s, waiting, useful, since_s, rate), SETTINGS)
    if not waiting:
        assert use is not CdnUse.NOTHING
    if not waiting and useful == 0:
        assert use is CdnUse.EVERYTHING


@pytest.mark.parametrize(
    ("rate", "piece", "wanted"),
    [(0.0, 4e6, 3), (1e6, 4e6, 3), (1e8, 4e6, 6), (1e9, 4e6, 12), (1e8, 0.0, 12), (1e12, 1.0, 12)],
)
def test_depth_grows_with_the_rate_between_its_bounds(rate: float, piece: float, wanted: int) -> None:
    assert depth(rate, piece, SETTINGS) == wanted


@given(st.floats(0, 1e12), st.floats(0, 1e12), st.floats(0, 1e9))
def test_a_faster_peer_never_gets_less(one: float, other: float, piece: float) -> None:
    low, high = sorted((one, other))
    assert depth(low, piece, SETTINGS) <= depth(high, piece, SETTINGS)


def test_the_whole_patience_is_that_of_its_steps() -> None:
    assert SETTINGS.patience_s == 2.0 + 1.0 + 2.5 + 2.5 + 4.0
