"""Whether zest_hf has become worse than an earlier run says (`--against`). Pure, but for reading its file.

What is compared are ratios of pairs, never seconds: they are nearly the same on another machine, and on this one when
it is busy. It has become worse where every pair is, by more than `TOLERANCE`, against what was the median then: a
single round that was disturbed is no reason to look for a fault.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zest_hf.bench.downloads.cases import KINDS, ZEST, ZEST_PEER
from zest_hf.bench.downloads.line import line_text
from zest_hf.errors import ZestError

TOLERANCE = 0.05
FIELDS = {"call_s": "wall time", "cpu_s": "processor time", "peak_bytes": "memory"}
MOST_BYTES = 64 << 20


def read(path: Path) -> dict[str, Any]:
    """What `--json` has written. Raises ZestError for anything else."""
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(MOST_BYTES))
    except OSError as error:
        raise ZestError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ZestError(f"{path} is no JSON: it takes what `zest bench download --json FILE` has written") from None
    try:
        for name in (ZEST, ZEST_PEER):
            for field in FIELDS:
                if (found := _ratio(value, name, field)) is not None:
                    float(found["median"])
        for found in value["peer_rate_of"].values():
            float(found["median"])
        measured(value)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ZestError(f"{path} is not what `zest bench download --json FILE` writes") from None
    checked: dict[str, Any] = value
    return checked


def measured(value: Mapping[str, Any]) -> str:
    """What a run is of: two of which this differs are not to be compared."""
    options = value["options"]
    tls = ", over TLS" if options["tls"] else ""
    over = line_text(options.get("line"))
    return f"{options['megabytes']} MB in {options['files']} files{tls}{over}, against {value['base']}"


def worse(now: Mapping[str, Any], then: Mapping[str, Any]) -> Iterator[str]:
    """A line for each ratio of ours that is worse in ``now``; both as `report.as_json` gives them."""
    for name in (ZEST, ZEST_PEER):
        for field, what in FIELDS.items():
            found, before = (_ratio(value, name, field) for value in (now, then))
            if found is not None and before is not None and found["low"] > before["median"] * (1 + TOLERANCE):
                yield (
                    f"{KINDS[name].title}: {found['median']:.2f} times the {what} of {now['base']} "
                    f"({found['low']:.2f}..{found['high']:.2f}), and it was {before['median']:.2f}"
                )
    for name, found in now["peer_rate_of"].items():
        before = then["peer_rate_of"].get(name)
        if before is not None and found["high"] < before["median"] / (1 + TOLERANCE):
            yield (
                f"{KINDS[ZEST_PEER].title}: {found['median']:.2f} times the rate of {KINDS[name].title} "
                f"({found['low']:.2f}..{found['high']:.2f}), and it was {before['median']:.2f}"
            )


def _ratio(value: Mapping[str, Any], name: str, field: str) -> Mapping[str, float] | None:
    case = value["cases"].get(name)
    return None if case is None else case["of_base"][field]
