from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zest_hf.core.policy import (
    CdnUse,
    Elsewhere,
    PolicySettings,
    Rates,
    View,
    ask_bytes,
    cdn_use,
    discovery_patience_s,
    has_room,
    is_worth_stopping,
    peers_are_slow,
    peers_suffice,
    peers_suffice_beside,
    rest_s,
    share_bytes,
)

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


@pytest.mark.parametrize(
    ("own", "others", "files", "slow"),
    [
        # Four files share a line that peers fill.
        (FAST / 4, 3 * FAST / 4, 3, False),
        (FAST / 32, 31 * FAST / 32, 3, False),
        # ... of which this one gets next to nothing,
        (FAST / 32 - 1, 10 * FAST, 3, True),
        # ... or that they do not fill.
        (FAST / 4, SLOW / 2, 3, True),
        (SLOW, 0.0, 0, True),
        # The others have ended a moment ago, and what they got is about to come to this one.
        (FAST / 4, 3 * FAST / 4, 0, False),
        (SLOW, 1.0, 1, False),
    ],
)
def test_files_share_what_peers_give(own: float, others: float, files: int, slow: bool) -> None:
    view = View(LATER, False, 1, 100.0, own, elsewhere=Elsewhere(others, files))
    assert peers_are_slow(view, SETTINGS) is slow
    assert (cdn_use(view, SETTINGS) is CdnUse.EVERYTHING) is slow


@pytest.mark.parametrize(
    ("peers", "cdn", "rest_s", "use"),
    [
        # Not worth finding out,
        (FAST, None, SETTINGS.worth_measuring_s - 1, CdnUse.ORPHANS),
        (SETTINGS.enough_bytes_s, None, 1000.0, CdnUse.ORPHANS),
        # ... or worth it,
        (FAST, None, SETTINGS.worth_measuring_s, CdnUse.EVERYTHING),
        (SETTINGS.enough_bytes_s - 1, None, 1000.0, CdnUse.EVERYTHING),
        # ... and found out.
        (FAST, FAST, 1000.0, CdnUse.ORPHANS),
        (FAST, 2 * FAST, 1000.0, CdnUse.EVERYTHING),
        (FAST, 2 * FAST, 1.0, CdnUse.EVERYTHING),
    ],
)
def test_a_cdn_that_may_be_quicker(peers: float, cdn: float | None, rest_s: float, use: CdnUse) -> None:
    view = View(LATER, False, 1, 100.0, peers, cdn_bytes_s=cdn, rest_bytes=peers * rest_s)
    assert cdn_use(view, SETTINGS) is use
    # While it is found out, what peers gave before counts.
    beside = replace(view, peer_rate_bytes_s=peers / 10, alone_bytes_s=peers)
    assert cdn_use(beside, SETTINGS) is use


def test_slow_peers_that_fill_the_line_are_left_alone() -> None:
    view = View(LATER, False, 1, 100.0, SLOW, cdn_bytes_s=SLOW / 2, rest_bytes=1e9)
    assert cdn_use(view, SETTINGS) is CdnUse.EVERYTHING
    assert cdn_use(replace(view, cdn_adds_nothing=True), SETTINGS) is CdnUse.ORPHANS


@pytest.mark.parametrize(
    ("alone", "peers", "cdn", "is_only_file", "suffice"),
    [
        # Not measured yet.
        (FAST, FAST, None, True, False),
        # A line that both share,
        (4 * FAST, FAST, 3 * FAST, True, True),
        (SLOW, SLOW / 9, 8 * SLOW / 9, True, True),
        # ... of which this file has a part,
        (SLOW, SLOW / 9, 8 * SLOW / 9, False, False),
        # ... or one each.
        (SLOW, SLOW, SLOW / 4, True, False),
        (FAST, FAST, 2 * FAST, True, False),
        (FAST, FAST, FAST / 2, True, True),
    ],
)
def test_when_gets_beside_peers_are_stopped(
    alone: float, peers: float, cdn: float | None, is_only_file: bool, suffice: bool
) -> None:
    assert peers_suffice_beside(alone, Rates(peers, cdn), is_only_file, SETTINGS) is suffice


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


def test_a_cdn_that_leads_goes_on_until_peers_suffice() -> None:
    assert cdn_use(View(LATER, False, 5, 100.0, FAST, cdn_leads=True), SETTINGS) is CdnUse.EVERYTHING


@pytest.mark.parametrize(
    ("peers", "cdn", "suffice"),
    [
        (None, 1.0, False),
        (FAST, None, False),
        (FAST, FAST, True),
        (FAST, 0.0, True),
        (SLOW, 0.0, False),
        (FAST, 1e9, False),
    ],
)
def test_peers_suffice_when_they_are_as_fast_as_the_cdn_and_a_usual_line(
    peers: float | None, cdn: float | None, suffice: bool
) -> None:
    assert peers_suffice(Rates(peers, cdn), SETTINGS) is suffice


def test_a_get_that_is_nearly_done_is_left_alone() -> None:
    rates = Rates(100e6, 10e6)
    assert not is_worth_stopping(0.9e6, 10e6, rates, SETTINGS)
    assert is_worth_stopping(2e6, 10e6, rates, SETTINGS)
    assert is_worth_stopping(1.0, 0.0, rates, SETTINGS)


rates_bytes_s = st.floats(1.0, 1e9)


@given(st.floats(1e6, 1e12), st.floats(0, 1e9), rates_bytes_s, rates_bytes_s)
def test_a_share_is_given_before_the_cdn_is_done_with_the_rest(
    rest: float, ahead: float, peers: float, cdn: float
) -> None:
    share = share_bytes(rest, ahead, peers, Rates(peers, cdn), SETTINGS)
    assert 0.0 <= share <= rest
    assert share == 0.0 or (ahead + share) / peers <= (rest - share) / cdn * (1 + 1e-6) + 1e-6


@given(st.floats(0, 1e12), st.floats(0, 1e9), st.floats(0, 1e9), st.none() | rates_bytes_s)
def test_who_is_not_known_is_never_left_all(rest: float, ahead: float, peers: float, cdn: float | None) -> None:
    assert share_bytes(rest, ahead, peers, Rates(None, cdn), SETTINGS) <= SETTINGS.unmeasured_share * rest
    assert share_bytes(0.1 * (cdn or 0.0), ahead, 0.0, Rates(None, cdn), SETTINGS) == 0.0


@pytest.mark.parametrize(
    ("rate", "wanted"),
    [(0.0, 1 << 20), (1.0, 256 << 10), (1e6, 256 << 10), (4e6, 1e6), (12.5e6, 12.5e6 / 4), (1e9, 4 << 20)],
)
def test_a_peer_is_asked_for_a_quarter_of_a_second_within_bounds(rate: float, wanted: float) -> None:
    assert ask_bytes(rate, SETTINGS) == wanted


@given(st.floats(1, 1e12), st.floats(1, 1e12), st.integers(0, 20), st.integers(0, 1 << 30))
def test_a_faster_peer_never_gets_less(one: float, other: float, requests: int, ahead: int) -> None:
    low, high = sorted((one, other))
    assert ask_bytes(low, SETTINGS) <= ask_bytes(high, SETTINGS)
    assert has_room(requests, ahead, low, SETTINGS) <= has_room(requests, ahead, high, SETTINGS)


@given(st.floats(0, 1e12), st.integers(0, 1 << 30))
def test_how_much_is_ahead_is_bounded(rate: float, ahead: int) -> None:
    assert has_room(SETTINGS.min_depth - 1, ahead, rate, SETTINGS)
    assert not has_room(SETTINGS.max_depth, 0, rate, SETTINGS)
    assert not has_room(SETTINGS.min_depth, max(ahead, int(rate * SETTINGS.window_s) + 1), rate, SETTINGS)


@pytest.mark.parametrize(
    ("size", "wanted_s"), [(0, 0.0), (8 << 20, 0.05), (125_000_000, 0.05), (10**9, 0.16), (10**12, 0.3)]
)
def test_the_wait_for_unknown_peers_is_a_small_part_of_the_download(size: int, wanted_s: float) -> None:
    assert discovery_patience_s(size, SETTINGS) == pytest.approx(wanted_s)


def test_a_useless_peer_rests_longer_each_time() -> None:
    rests = [rest_s(times, 15.0, 240.0) for times in range(8)]
    assert rests == [15.0, 15.0, 30.0, 60.0, 120.0, 240.0, 240.0, 240.0]


def test_the_whole_patience_is_that_of_its_steps() -> None:
    assert SETTINGS.patience_s == 2.0 + 1.0 + 2.5 + 2.5 + 0.5 + 4.0
