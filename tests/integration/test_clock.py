"""A seeder whose clock jumps, by days and both ways, while it serves (libfaketime)."""

from __future__ import annotations

import signal
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path

import pages
import pytest
from machines import Machine, Seeder, eventually

from zest_hf.hub.process import HubProcess

from .conftest import XET_BYTES, XET_NAMES, MakeMachine
from .test_seed import from_peers_alone

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


@pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not installed")
@pytest.mark.parametrize("days", [400, -400])
def test_a_clock_that_jumps(hub: HubProcess, make: MakeMachine, owner: Machine, days: int, tmp_path: Path) -> None:
    jump = tmp_path / "jump"
    jump.write_text("+0d\n")
    clock = {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(jump),
        "FAKETIME_NO_CACHE": "1",
        # What a clock that is set does not touch.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
        "ZEST_LOG": "info",
    }
    with owner.seeder(**clock) as seeder:
        seeder.wait_for_files(len(XET_NAMES))
        from_peers_alone(hub, make("B"), seeder.address)
        before_s = seeder.ask()["uptime_seconds"]
        jump.write_text(f"{days:+}d\n")
        eventually(lambda: abs(_clock(seeder) - datetime.now(timezone.utc)) > timedelta(days=300), "it has jumped")
        from_peers_alone(hub, make("C"), seeder.address)
        status = eventually(lambda: _uploaded(seeder.ask(), 2 * XET_BYTES), "both are counted")
        assert before_s <= status["uptime_seconds"] < before_s + 100
        jump.write_text("+0d\n")
        from_peers_alone(hub, make("D"), seeder.address)
        assert eventually(lambda: _uploaded(seeder.ask(), 3 * XET_BYTES), "all are counted")
        ended = seeder.end(signal.SIGTERM)
    assert ended.code == 0 and "Traceback" not in ended.stderr


def _clock(seeder: Seeder) -> datetime:
    return parsedate_to_datetime(pages.ask(seeder, "/v1/health").headers["date"])


def _uploaded(status: dict[str, object], least: int) -> dict[str, object] | None:
    traffic = status["traffic"]
    assert isinstance(traffic, dict)
    return status if traffic["all_time"]["uploaded"] >= least else None
