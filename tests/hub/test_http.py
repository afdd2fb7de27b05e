from __future__ import annotations

import pytest

from zest_hf.hub.http import Refusal, parse_range, parse_ranges


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 100)),
        ("bytes=10-500", (10, 100)),
        ("bytes=99-", (99, 100)),
        ("bytes=-1", (99, 100)),
        ("bytes=-500", (0, 100)),
        ("Bytes=5-6", (5, 7)),
    ],
)
def test_a_range_is_cut_to_the_body(header: str | None, wanted: tuple[int, int] | None) -> None:
    assert parse_range(header, 100) == wanted


@pytest.mark.parametrize(
    "header",
    (
        *("bytes=100-", "bytes=100-200", "bytes=5-4", "bytes=-0", "bytes=-", "bytes=a-b", "bytes=1"),
        *("items=0-1", "bytes=0-1,3-4", "", "bytes=٣-٤", "bytes=0-" + "9" * 60),
    ),
)
def test_a_range_outside_the_body_is_refused(header: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_range(header, 100)
    assert caught.value.status == 416
    assert caught.value.headers["Content-Range"] == "bytes */100"


def test_nothing_of_an_empty_body_can_be_asked_for() -> None:
    for header in ("bytes=0-0", "bytes=-1", "bytes=0-"):
        with pytest.raises(Refusal):
            parse_range(header, 0)


def test_several_ranges_keep_their_order() -> None:
    assert parse_ranges("bytes=50-59, 0-9", 100, limit=2) == [(50, 60), (0, 10)]
