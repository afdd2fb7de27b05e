"""What was moved: by day, by several processes, and on bad days of the file; and the rates that come of it."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from zest_hf._native.events import PeerInfo, Source
from zest_hf.errors import StorageError
from zest_hf.seed.history import MAX_SAMPLES, SAMPLE_S, SPAN_S, History, PeerRates
from zest_hf.traffic import FILE_NAME, Meter, Traffic, TrafficLog

DAY_S = 86_400.0
NOON_S = 1_700_000_000.0
"""Some time, by the clock on the wall."""


def test_days(tmp_path: Path) -> None:
    now_s = NOON_S
    log = TrafficLog(tmp_path / "home", wall_clock=lambda: now_s)
    assert log.totals() == (Traffic(), Traffic())
    log.add(Traffic(local=1, peer=2, cdn=3, uploaded=4))
    log.add(Traffic(peer=10))
    assert log.totals() == (Traffic(1, 12, 3, 4), Traffic(1, 12, 3, 4))
    now_s += DAY_S
    assert log.totals() == (Traffic(), Traffic(1, 12, 3, 4))
    log.add(Traffic(uploaded=1 << 50))
    now_s -= DAY_S  # the clock is put back
    log.add(Traffic(cdn=1))
    assert log.totals() == (Traffic(1, 12, 4, 4), Traffic(1, 12, 4, 4 + (1 << 50)))
    log.close()
    with pytest.raises(StorageError):
        log.totals()


def _add(home: Path, times: int) -> None:
    log = TrafficLog(home)
    for _ in range(times):
        log.add(Traffic(1, 2, 3, 4))
    log.close()


def test_several_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_add, args=(tmp_path, 100)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    log = TrafficLog(tmp_path)
    assert log.totals()[1] == Traffic(200, 400, 600, 800)
    log.close()


def test_what_cannot_be_noted_is_noted_later(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_bytes(b"")  # no directory
    log = TrafficLog(home, patience_s=0.05)
    moved = Traffic(cdn=5)
    meter = Meter(log, lambda: moved)
    assert not meter.note() and meter.pending() == Traffic(cdn=5)
    home.unlink()
    moved = Traffic(cdn=7, uploaded=1)
    assert not meter.note(), "it is left alone for a while"
    assert meter.note(last=True) and meter.pending() == Traffic()
    assert log.totals()[1] == moved
    # A range that is fetched again is taken back first; it counts once.
    for cdn in (3, 7, 9):
        moved = Traffic(cdn=cdn, uploaded=1)
        assert meter.note(last=True)
    assert log.totals()[1] == Traffic(cdn=9, uploaded=1)
    log.close()


def test_nothing_is_written_of_nothing(tmp_path: Path) -> None:
    log = TrafficLog(tmp_path)
    assert Meter(log, Traffic).note() and not (tmp_path / FILE_NAME).exists()


def test_ratio() -> None:
    assert Traffic(local=5, uploaded=5).ratio is None
    assert Traffic(peer=1, cdn=3, uploaded=2).ratio == 0.5
    assert Traffic(1, 2, 3, 4).report() == {"local": 1, "peer": 2, "cdn": 3, "uploaded": 4, "ratio": 0.8}


def test_an_hour_of_rates() -> None:
    history = History(100.0, Traffic(cdn=1000))
    assert history.report()["points"] == [] and history.latest() == Traffic()
    assert not history.is_due(100.0 + SAMPLE_S / 2) and history.is_due(100.0 + SAMPLE_S)
    history.sample(105.0, Traffic(cdn=2000, uploaded=50))
    assert history.report()["points"] == [(5.0, 0, 0, 200, 10)]
    history.sample(115.0, Traffic())  # the file was made anew
    assert history.latest() == Traffic()
    for number in range(2 * MAX_SAMPLES):
        history.sample(120.0 + number * SAMPLE_S, Traffic(peer=(number + 1) * 500))
    points = history.report()["points"]
    assert len(points) == MAX_SAMPLES and {point[2] for point in points} == {100}
    assert points[-1][0] - points[0][0] <= SPAN_S
    # The machine has slept: what lies before is older than an hour.
    history.sample(1e6, Traffic(peer=10**9))
    assert len(history.report()["points"]) == 1


def test_rates_of_peers() -> None:
    peer = PeerInfo(7, "192.0.2.1:1", "x", "", False, True, True, 0, 0, 0, 0, Source.INCOMING)
    rates = PeerRates()
    assert rates.of(7, 0.0) == (0.0, 0, 0)
    for second in range(20):
        rates.sample(float(second), [replace(peer, bytes_up=1000 * second, bytes_down=10 * second)])
    assert rates.of(7, 19.0) == (19.0, 1000, 10)
    for second in range(20, 30):
        rates.sample(float(second), [replace(peer, bytes_up=19_000, bytes_down=190)])
    assert rates.of(7, 29.0) == (29.0, 0, 0)
    rates.sample(30.0, [])
    assert rates.of(7, 30.0) == (0.0, 0, 0)
