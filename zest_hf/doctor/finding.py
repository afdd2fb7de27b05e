"""What a check says, and the runner: every check has a deadline, whatever it is waiting for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from zest_hf.hook.reasons import one_line

Verdict = Literal["ok", "note", "wrong", "skipped"]


@dataclass(frozen=True)
class Finding:
    """``verdict``: "wrong" is what stops downloads or seeding, "note" what costs something. ``advice``: what to do."""

    verdict: Verdict
    text: str
    advice: str = ""


Check = Callable[[], Finding]


def ok(text: str) -> Finding:
    return Finding("ok", text)


def note(text: str, advice: str = "") -> Finding:
    return Finding("note", text, advice)


def wrong(text: str, advice: str) -> Finding:
    return Finding("wrong", text, advice)


def skipped(text: str) -> Finding:
    return Finding("skipped", text)


def run_all(checks: Mapping[str, Check], deadline_s: float) -> dict[str, Finding]:
    """All at the same time; one that takes longer than ``deadline_s`` is left behind and counts as wrong."""
    found: dict[str, Finding] = {}

    def run(name: str, check: Check) -> None:
        try:
            found[name] = check()
        except Exception as error:  # what a check does not expect is what it is there to find
            found[name] = wrong(one_line(error), "this check failed in a way it does not know")

    # Of daemon threads alone: nothing interrupts a look at a file system or a name server that does not answer.
    threads = [threading.Thread(target=run, args=item, daemon=True) for item in checks.items()]
    for thread in threads:
        thread.start()
    end_s = time.monotonic() + deadline_s
    for thread in threads:
        thread.join(max(0.0, end_s - time.monotonic()))
    late = wrong(f"no answer within {deadline_s:g} s", "what it looks at hangs, or is very slow")
    return {name: found.get(name, late) for name in checks}
