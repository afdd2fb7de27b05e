"""What commands print: figures, and what strangers wrote."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from huggingface_hub import constants, errors

from zest_hf.hook.reasons import explain, one_line
from zest_hf.seed import status_text
from zest_hf.terminal import duration_text, size_text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_951, "1.0 MB"), (1e15, "1.0 PB")],
)
def test_sizes(count: float, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 min 0 s"), (61.9, "1 min 1 s"), (3600, "1 h 0 min"), (86400 * 2.5, "2 d 12 h"), (-1, "0 min 0 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


STATUS: dict[str, Any] = {
    "version": "1",
    "listen": "0.0.0.0:1",
    "uptime_seconds": 1.0,
    "rates": {"up_bytes_s": 0, "down_bytes_s": 0},
    "bytes": {"local": 0, "peer": 0, "cdn": 0, "uploaded": 0},
    "peers_connected": 1,
    "discovery": {"given": [], "lsd": True, "dht": True, "dht_nodes": 1, "trackers": [{"url": "u", "working": None}]},
    "models": [{"repo": "org/x", "repo_type": "model", "files": 1, "size": 1, "uploaded": 0, "peers": 0}],
    "peers": [{"address": "a", "client": "c", "found_by": "f", "bytes_up": 0, "bytes_down": 0}],
    "banned": [{"address": "a", "reason": "r"}],
}
STRANGE = "\x1b]0;owned\x07\r\u202e\udcff"


def everywhere(value: Any) -> Any:
    """The same with something that a terminal would obey in every text."""
    if isinstance(value, dict):
        return {key: everywhere(one) for key, one in value.items()}
    if isinstance(value, list):
        return [everywhere(one) for one in value]
    return value + STRANGE if isinstance(value, str) else value


@pytest.mark.parametrize("width", [None, 40, 200])
def test_a_seeder_that_may_be_anybody(width: int | None) -> None:
    text = list(status_text.lines(everywhere(STATUS), width))
    assert any("owned" in line for line in text) and all(line.isprintable() for line in text)


@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e400", "[]", '"many"', "null", "[" * 900 + "]" * 900])
def test_what_is_no_status(number: str) -> None:
    assert status_text.is_status(STATUS)
    for key in ("uptime_seconds", "peers", "models"):
        value = copy.deepcopy(STATUS)
        value[key] = json.loads(number)
        status_text.is_status(value)  # says yes or no
    value["uptime_seconds"] = json.loads(number)
    assert not status_text.is_status(value)


def test_reasons_are_one_line_that_a_terminal_does_not_obey() -> None:
    assert one_line(Exception(f"a\n b{STRANGE}")).isprintable()
    assert one_line(Exception("a\n b")) == "a b" and one_line(Exception("\n")) == "Exception"


@pytest.mark.parametrize(("repo_type", "page"), [("model", "/org/x,"), ("dataset", "/datasets/org/x,")])
def test_where_access_is_asked_for(repo_type: str, page: str) -> None:
    error = errors.GatedRepoError.__new__(errors.GatedRepoError)
    assert f"{constants.ENDPOINT}{page}" in explain(error, "org/x", repo_type, None)
