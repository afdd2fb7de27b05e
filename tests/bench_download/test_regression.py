"""Whether it has become worse."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zest_hf.bench.downloads import regression
from zest_hf.cli import main
from zest_hf.errors import ZestError

ratios = st.lists(st.floats(min_value=0.1, max_value=10), min_size=3, max_size=3).map(sorted)


def value(low: float = 0.5, median: float = 0.6, high: float = 0.7, rate: float = 2.0) -> dict[str, Any]:
    one = {"low": 1.0, "median": 1.0, "high": 1.0}
    found = {"low": low, "median": median, "high": high}
    return {
        "options": {"runs": 5, "megabytes": 300, "files": 4, "tls": False},
        "base": "hf_xet",
        "cases": {
            "hf_xet": {"of_base": dict.fromkeys(regression.FIELDS, one)},
            "zest": {"of_base": {**dict.fromkeys(regression.FIELDS, one), "call_s": found}},
            "zest-peer": {"of_base": dict.fromkeys(regression.FIELDS)},
        },
        "peer_rate_of": {"tcp": {"low": rate - 0.1, "median": rate, "high": rate + 0.1}},
    }


def test_the_same_is_not_worse() -> None:
    assert list(regression.worse(value(), value())) == []


def test_one_round_that_was_disturbed_is_no_reason() -> None:
    assert list(regression.worse(value(0.6, 0.9, 5.0), value())) == []
    (line,) = regression.worse(value(0.64, 0.9, 5.0), value())
    assert line == "zest_hf, no peer: 0.90 times the wall time of hf_xet (0.64..5.00), and it was 0.60"


def test_a_rate_that_is_less_is_worse() -> None:
    assert list(regression.worse(value(rate=1.85), value())) == []
    (line,) = regression.worse(value(rate=1.7), value())
    assert line.startswith("zest_hf, one peer: 1.70 times the rate of TCP alone")


@given(ratios, ratios)
def test_two_runs_are_never_worse_than_each_other(one: list[float], other: list[float]) -> None:
    there = list(regression.worse(value(*one), value(*other)))
    back = list(regression.worse(value(*other), value(*one)))
    assert not there or not back


def test_what_is_new_is_compared_with_nothing() -> None:
    then = value()
    del then["cases"]["zest"], then["peer_rate_of"]["tcp"]
    assert list(regression.worse(value(), then)) == list(regression.worse(then, value())) == []


def test_a_file_that_json_has_written(tmp_path: Path) -> None:
    path = tmp_path / "then.json"
    path.write_text(json.dumps(value()))
    assert regression.read(path) == value()
    assert regression.measured(value()) == "300 MB in 4 files, against hf_xet"


WAYS = [["cases"], ["cases", "zest", "of_base"], ["options"], ["options", "tls"], ["base"], ["peer_rate_of"]]


@pytest.mark.parametrize("way", WAYS, ids=".".join)
def test_files_in_which_something_is_missing(way: list[str], tmp_path: Path) -> None:
    path, damaged = tmp_path / "then.json", copy.deepcopy(value())
    inner = damaged
    for name in way[:-1]:
        inner = inner[name]
    del inner[way[-1]]
    path.write_text(json.dumps(damaged))
    with pytest.raises(ZestError, match="is not what `zest bench download --json FILE` writes"):
        regression.read(path)


BAD = [(None, "cannot be read: No such file"), ("{", "is no JSON"), ("[]", "is not what"), ('{"cases": 3}', "is not")]


@pytest.mark.parametrize(("text", "line"), BAD)
def test_bad_files_are_one_line(
    text: str | None, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "then.json"
    if text is not None:
        path.write_text(text)
    assert main(["bench", "download", "--only", "tcp", "--against", str(path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"zest: {path} {line}") and err.count("\n") == 1


def test_other_sizes_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from zest_hf.bench.downloads.command import _compare

    other = value()
    other["options"]["megabytes"] = 1000
    with pytest.raises(ZestError, match="this was 1000 MB in 4 files, against hf_xet; --against has 300 MB"):
        _compare(other, value())
    assert _compare(value(), value()) == 0
    assert _compare(value(rate=1.0), value()) == 1
    assert [line[:5] for line in capsys.readouterr().err.splitlines()] == ["not w", "worse"]
