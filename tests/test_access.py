"""Quiet hours and lists of repositories: how they are read, and what follows from them."""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zest_hf.access import MINUTES_A_DAY, QuietHours, minute_of_day, patterns, permits, quiet_hours, upload_cap
from zest_hf.setting_values import Rejected


def at(clock: str) -> int:
    hour, minute = clock.split(":")
    return int(hour) * 60 + int(minute)


RANGES = st.builds(
    QuietHours,
    st.integers(0, MINUTES_A_DAY - 1),
    st.integers(1, MINUTES_A_DAY),
    st.one_of(st.just(0), st.integers(1, 10**15)),
).filter(lambda one: one.begin_minute != one.end_minute)


@given(st.lists(RANGES, min_size=1, unique=True))
def test_what_is_shown_is_what_was_read(hours: list[QuietHours]) -> None:
    assert quiet_hours(",".join(map(str, hours))) == tuple(hours)


@given(RANGES)
def test_a_range_and_its_opposite_are_the_whole_day(one: QuietHours) -> None:
    """By what the words mean, minute after minute, also across midnight."""
    walk = one.begin_minute
    covered = set()
    while walk != one.end_minute % MINUTES_A_DAY:
        covered.add(walk)
        walk = (walk + 1) % MINUTES_A_DAY
    if one == (0, MINUTES_A_DAY, one.max_up_bytes_s):
        covered = set(range(MINUTES_A_DAY))
    assert {minute for minute in range(MINUTES_A_DAY) if one.cover(minute)} == covered


@given(st.text())
@example("22:00-22:00")
@example("24:00-01:00")
@example("22:60-23:00")
@example("22:00-24:01")
@example("22:00")
@example("22-07")
@example("22:00-07:00=")
@example("22:00-07:00=fast")
@example("٢٢:00-07:00")
def test_everything_else_is_refused(text: str) -> None:
    try:
        found = quiet_hours(text)
    except Rejected as error:
        assert "accepted are" in str(error)
    else:
        for one in found:
            assert 0 <= one.begin_minute < MINUTES_A_DAY and 0 < one.end_minute <= MINUTES_A_DAY
            assert one.begin_minute != one.end_minute


@pytest.mark.parametrize("text", ["22:00-22:00", "24:00-01:00", "22:60-23:00", "22-07", "22:00-07:00=", "٢٢:00-07:00"])
def test_a_range_that_is_none(text: str) -> None:
    with pytest.raises(Rejected):
        quiet_hours(text)


def test_the_least_cap_counts() -> None:
    hours = quiet_hours("22:00-07:00, 8:00-18:00=1MB,12:00-13:00=500kB, 23:30-00:00=2MB")
    caps = {
        "21:59": None,
        "22:00": 0,
        "23:45": 0,
        "00:00": 0,
        "06:59": 0,
        "07:00": None,
        "08:00": 10**6,
        "12:30": 500_000,
        "13:00": 10**6,
        "18:00": None,
    }
    assert {clock: upload_cap(hours, at(clock), None) for clock in caps} == caps
    assert upload_cap(hours, at("09:00"), 2 * 10**6) == 10**6
    assert upload_cap(hours, at("09:00"), 1000) == 1000
    assert upload_cap(hours, at("20:00"), 1000) == 1000
    assert upload_cap((), at("20:00"), None) is None


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("berlin")
def test_the_nights_in_which_the_clock_is_put() -> None:
    """2026-03-29: 02:00 becomes 03:00. 2026-10-25: 03:00 becomes 02:00."""
    hours = quiet_hours("02:00-03:00")

    def quiet_minutes(day: tuple[int, int, int]) -> int:
        noon = calendar.timegm((*day, 12, 0, 0))
        night = range(noon - 12 * 3600, noon, 60)
        return sum(upload_cap(hours, minute_of_day(wall_s), None) == 0 for wall_s in night)

    assert [quiet_minutes((2026, *day)) for day in ((3, 28), (3, 29), (10, 25))] == [60, 0, 120]


@pytest.mark.parametrize(
    ("allow", "deny", "repo_type", "repo_id", "expected"),
    [
        ("", "", "model", "org/a", True),
        ("org/*", "", "model", "org/a", True),
        ("org/*", "", "dataset", "org/a", True),
        ("org/*", "", "model", "other/a", False),
        ("models/org/*", "", "dataset", "org/a", False),
        ("datasets/*", "", "dataset", "org/a", True),
        ("datasets/*", "", "model", "org/a", False),
        ("", "org/*", "model", "org/a", False),
        ("", "org/*", "space", "other/a", True),
        ("org/*", "org/secret-*", "model", "org/secret-1", False),
        ("org/*", "org/secret-*", "model", "org/public", True),
        ("org/a", "org/a", "model", "org/a", False),
        ("Meta-Llama/*", "", "model", "meta-llama/Llama-3", True),
        ("", "META-LLAMA/LLAMA-?", "model", "meta-llama/Llama-3", False),
        ("gpt2", "", "model", "gpt2", True),
        ("gpt2", "", "model", "org/gpt2", False),
        ("*", "*", "model", "org/a", False),
        ("org/[ab]", "", "model", "org/c", False),
    ],
)
def test_lists(allow: str, deny: str, repo_type: str, repo_id: str, expected: bool) -> None:
    assert permits(patterns(allow), patterns(deny), repo_type, repo_id) is expected


NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,8}/[A-Za-z0-9._-]{1,8}", fullmatch=True)


@given(NAMES, st.lists(NAMES, max_size=3))
def test_deny_wins(name: str, others: list[str]) -> None:
    assert not permits([name, *others], [*others, name.upper()], "model", name)
    assert permits([*others, name], [], "model", name)


def test_a_pattern_that_is_none() -> None:
    for text in ("org/a;b", "https://huggingface.co/org/a", "org/ü"):
        with pytest.raises(Rejected):
            patterns(text)
    with pytest.raises(Rejected):
        patterns(",".join(f"org/{n}" for n in range(2000)))
