"""Plans: both JSON forms, their limits, and the promise "a value or ReconstructionError"."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zest_hf.core import reconstruction as module
from zest_hf.core.ids import XetHash, hash_to_text
from zest_hf.core.reconstruction import FetchRange, Reconstruction, Term, parse_v1, parse_v2
from zest_hf.errors import ReconstructionError

A = XetHash(b"\xaa" * 32)
B = XetHash(b"\xbb" * 32)


def v1_plan() -> dict[str, Any]:
    return {
        "offset_into_first_range": 100,
        "terms": [
            {"hash": hash_to_text(A), "unpacked_length": 9000, "range": {"start": 2, "end": 4}},
            {"hash": hash_to_text(B), "unpacked_length": 131072, "range": {"start": 0, "end": 1}},
            {"hash": hash_to_text(A), "unpacked_length": 70000, "range": {"start": 7, "end": 8}},
        ],
        "fetch_info": {
            hash_to_text(A): [
                {
                    "range": {"start": 7, "end": 9},
                    "url": "https://cdn/a?x=2",
                    "url_range": {"start": 500, "end": 999},
                },
                {
                    "range": {"start": 2, "end": 4},
                    "url": "https://cdn/a?x=1",
                    "url_range": {"start": 10, "end": 19},
                },
            ],
            hash_to_text(B): [
                {
                    "range": {"start": 0, "end": 1},
                    "url": "http://[::1]:80/b",
                    "url_range": {"start": 0, "end": 0},
                }
            ],
        },
    }


def to_v2(v1: dict[str, Any]) -> dict[str, Any]:
    """The same plan with the ranges of equal urls gathered, as servers of V2 do."""
    xorbs: dict[str, list[dict[str, Any]]] = {}
    for xorb, entries in v1["fetch_info"].items():
        by_url: dict[str, list[dict[str, Any]]] = {}
        for entry in entries:
            by_url.setdefault(entry["url"], []).append(
                {"chunks": entry["range"], "bytes": entry["url_range"]}
            )
        xorbs[xorb] = [{"url": url, "ranges": ranges} for url, ranges in by_url.items()]
    return {**{k: v for k, v in v1.items() if k != "fetch_info"}, "xorbs": xorbs}


def test_v1_becomes_half_open() -> None:
    plan = parse_v1(v1_plan())
    assert plan.offset_into_first_range == 100
    assert plan.terms == (Term(A, 2, 4, 9000), Term(B, 0, 1, 131072), Term(A, 7, 8, 70000))
    assert plan.size_bytes == 9000 + 131072 + 70000 - 100
    assert plan.fetch_ranges[A] == (
        FetchRange(A, 2, 4, "https://cdn/a?x=1", 10, 20),
        FetchRange(A, 7, 9, "https://cdn/a?x=2", 500, 1000),
    )
    assert plan.fetch_ranges[B][0].size_bytes == 1


def test_v2_of_the_same_plan_is_equal() -> None:
    assert parse_v2(to_v2(v1_plan())) == parse_v1(v1_plan())


def test_v2_several_ranges_of_one_url() -> None:
    plan = v1_plan()
    for entry in plan["fetch_info"][hash_to_text(A)]:
        entry["url"] = "https://cdn/a?ranges=2"
    parsed = parse_v2(to_v2(plan))
    assert [(one.start, one.end, one.url) for one in parsed.fetch_ranges[A]] == [
        (2, 4, "https://cdn/a?ranges=2"),
        (7, 9, "https://cdn/a?ranges=2"),
    ]
    assert parsed == parse_v1(plan)


def test_empty_file() -> None:
    plan = parse_v1({"offset_into_first_range": 0, "terms": [], "fetch_info": {}})
    assert plan.size_bytes == 0
    assert plan == parse_v2({"offset_into_first_range": 0, "terms": [], "xorbs": {}})


def test_covering_finds_parts_and_refuses_gaps() -> None:
    plan = parse_v1(v1_plan())
    assert plan.covering(plan.terms[2]).byte_start == 500
    assert plan.covering(Term(A, 8, 9, 1)).byte_start == 500
    for gap in (Term(A, 3, 5, 1), Term(A, 0, 1, 1), Term(A, 9, 10, 1), Term(XetHash(bytes(32)), 0, 1, 1)):
        with pytest.raises(ReconstructionError, match="no url for chunks"):
            plan.covering(gap)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), min_size=1, max_size=20),
    st.tuples(st.integers(0, 30), st.integers(1, 10)),
)
def test_covering_agrees_with_a_search(spans: list[tuple[int, int]], wanted: tuple[int, int]) -> None:
    ranges = tuple(
        sorted((FetchRange(A, s, s + n, "https://c/", s, s + n) for s, n in spans), key=lambda r: r.start)
    )
    plan = Reconstruction(0, (), {A: ranges})
    start, end = wanted[0], wanted[0] + wanted[1]
    holders = [one for one in ranges if one.start <= start and end <= one.end]
    if holders:
        assert plan.covering(Term(A, start, end, 1)) in holders
    else:
        with pytest.raises(ReconstructionError):
            plan.covering(Term(A, start, end, 1))


def _set(*path: str | int) -> Callable[[dict[str, Any], Any], None]:
    def change(plan: dict[str, Any], value: Any) -> None:
        target: Any = plan
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return change


_A, _B = hash_to_text(A), hash_to_text(B)
OFFSET = _set("offset_into_first_range")
TERMS = _set("terms")
TERM = _set("terms", 0)
HASH = _set("terms", 0, "hash")
SIZE = _set("terms", 0, "unpacked_length")
START = _set("terms", 0, "range", "start")
END = _set("terms", 0, "range", "end")
INFO = _set("fetch_info")
ENTRIES = _set("fetch_info", _B)
URL = _set("fetch_info", _B, 0, "url")
URL_START = _set("fetch_info", _B, 0, "url_range", "start")
URL_END = _set("fetch_info", _B, 0, "url_range", "end")
CHUNKS = _set("fetch_info", _B, 0, "range")


@pytest.mark.parametrize(
    ("change", "value"),
    [
        (OFFSET, -1), (OFFSET, 9000), (OFFSET, True), (OFFSET, 0.0), (OFFSET, "0"), (OFFSET, None),
        (OFFSET, 10**400),
        (TERMS, None), (TERMS, {}), (TERMS, "x"), (TERM, []), (TERM, {}),
        (HASH, None), (HASH, "0" * 63), (HASH, 5), (HASH, _B),
        (SIZE, 0), (SIZE, 1), (SIZE, 2 * 131072 + 1), (SIZE, True), (SIZE, 9000.0),
        (START, -1), (START, 4), (START, 5), (START, False), (START, 1), (START, "2"),
        (END, 2), (END, 8193), (END, 2**64), (END, 5),
        (INFO, []), (INFO, {}), (INFO, {_B: []}), (INFO, {"nonsense": []}),
        (ENTRIES, {}), (ENTRIES, [None]), (ENTRIES, [{}]), (ENTRIES, []),
        (URL, "ftp://cdn/b"), (URL, "//cdn/b"), (URL, "https://"), (URL, "https:///b"),
        (URL, "https://[::1/b"),
        (URL, "https://cdn/" + "x" * 8181), (URL, "https://cdn/a b"), (URL, "https://cdn/\r\nX: y"),
        (URL, None),
        (URL, "https://cdn/\ud800"), (URL, "https://cdn/\u00e9"), (URL, "file:///etc/passwd"),
        (URL_START, -1), (URL_START, 1), (URL_END, -1), (URL_END, 2**27), (URL_END, True),
        (CHUNKS, {"start": 0, "end": 0}), (CHUNKS, {"start": 1, "end": 2}), (CHUNKS, {"start": 0}),
        (CHUNKS, 3),
    ],
)  # fmt: skip
def test_malformed(change: Callable[[dict[str, Any], Any], None], value: Any) -> None:
    plan = v1_plan()
    change(plan, value)
    with pytest.raises(ReconstructionError) as caught:
        parse_v1(plan)
    assert len(str(caught.value)) < 300
    if change not in (INFO, ENTRIES):  # those have no V2 form
        with pytest.raises(ReconstructionError):
            parse_v2(to_v2(plan))


def test_number_too_long_to_print() -> None:
    with pytest.raises(ReconstructionError, match="a huge number"):
        parse_v1({**v1_plan(), "offset_into_first_range": 10**5000})


@pytest.mark.parametrize("key", ["offset_into_first_range", "terms", "fetch_info"])
def test_missing_member(key: str) -> None:
    plan = v1_plan()
    del plan[key]
    with pytest.raises(ReconstructionError, match=key):
        parse_v1(plan)


def test_url_at_the_limit_is_accepted() -> None:
    plan = v1_plan()
    URL(plan, "https://cdn/" + "x" * 8180)
    assert len(parse_v1(plan).fetch_ranges[B][0].url) == 8192


def test_counts_over_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TERMS", 2)
    with pytest.raises(ReconstructionError, match="3 terms"):
        parse_v1(v1_plan())
    monkeypatch.setattr(module, "MAX_TERMS", 3)
    monkeypatch.setattr(module, "MAX_FETCH_RANGES", 2)
    with pytest.raises(ReconstructionError, match="more than 2 fetch ranges"):
        parse_v2(to_v2(v1_plan()))


def test_unknown_members_are_left_alone() -> None:
    plan = v1_plan()
    plan["later"] = plan["terms"][0]["later"] = {"anything": 1}
    assert parse_v1(plan) == parse_v1(v1_plan())


def test_signatures_stay_out_of_logs() -> None:
    assert "x=1" not in repr(parse_v1(v1_plan()))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
paths = st.sampled_from(
    [OFFSET, TERMS, TERM, HASH, SIZE, START, END, INFO, ENTRIES, URL, URL_START, URL_END, CHUNKS]
)


@given(json_values)
def test_any_json_is_a_plan_or_an_error(value: Any) -> None:
    for parse in (parse_v1, parse_v2):
        with pytest.raises(ReconstructionError):
            parse(value)


@given(st.lists(st.tuples(paths, json_values), min_size=1, max_size=3))
def test_any_damage_is_a_plan_or_an_error(damages: list[tuple[Any, Any]]) -> None:
    plan = v1_plan()
    for change, value in damages:
        try:
            change(plan, copy.deepcopy(value))
        except (KeyError, IndexError, TypeError):
            break  # an earlier damage took the place away
    try:
        parsed = parse_v1(plan)
    except ReconstructionError:
        return
    assert parsed == parse_v2(to_v2(plan))
    assert all(parsed.covering(term) for term in parsed.terms)


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    """Valid V1 plans: fetch ranges first, then terms inside of them."""
    info: dict[str, list[dict[str, Any]]] = {}
    terms: list[dict[str, Any]] = []
    for i in range(draw(st.integers(1, 4))):
        xorb = hash_to_text(XetHash(bytes([i]) * 32))
        for j in range(draw(st.integers(1, 4))):
            start = draw(st.integers(0, 8000))
            end = start + draw(st.integers(1, 150))
            first = draw(st.integers(0, 2**20))
            entry = {
                "range": {"start": start, "end": end},
                "url": f"https://cdn/{i}/{draw(st.integers(0, j))}",
                "url_range": {"start": first, "end": first + draw(st.integers(0, 2**20))},
            }
            info.setdefault(xorb, []).append(entry)
            a = draw(st.integers(start, end - 1))
            b = draw(st.integers(a + 1, end))
            size = draw(st.integers(b - a, (b - a) * 131072))
            terms.append({"hash": xorb, "unpacked_length": size, "range": {"start": a, "end": b}})
    terms = draw(st.permutations(terms))
    offset = draw(st.integers(0, terms[0]["unpacked_length"] - 1))
    return {"offset_into_first_range": offset, "terms": terms, "fetch_info": info}


@given(plans())
def test_v1_and_v2_of_a_plan_are_equal(plan: dict[str, Any]) -> None:
    plan = json.loads(json.dumps(plan))
    assert parse_v1(plan) == parse_v2(to_v2(plan))
