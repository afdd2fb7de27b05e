"""Nodes that download the same file at the same time, with nothing there before: real engines, sockets and a Hub."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from downloads import Publisher, StoredFile, engine, fetch, xorb

from zest_hf.engine import Engine
from zest_hf.hub.process import HubProcess

XORBS, XORB_BYTES, NODES = 8, 2_500_000, 4


@pytest.fixture(scope="module")
def publisher(running_hub: HubProcess) -> Publisher:
    return Publisher(running_hub.endpoint, "org/crowd")


@pytest.fixture(scope="module")
def stored(publisher: Publisher) -> StoredFile:
    return publisher.put(*(xorb(f"crowd {number}", XORB_BYTES) for number in range(XORBS)))


@contextlib.contextmanager
def crowd(tmp_path: Path, count: int) -> Iterator[list[Engine]]:
    """Engines that are connected with each other."""
    with contextlib.ExitStack() as stack:
        engines: list[Engine] = []
        # Who knows of nobody asks nobody: the first has been given one who is not there.
        ports = [9]
        for number in range(count):
            one = stack.enter_context(engine(tmp_path / f"home{number}", ports))
            swarm = one.swarm()
            assert swarm is not None
            ports.append(swarm.port)
            engines.append(one)
        yield engines


def download_together(engines: list[Engine], file: StoredFile, tmp_path: Path) -> list[int]:
    """Bytes that each got from the CDN."""
    out = [-1] * len(engines)

    def run(number: int) -> None:
        out[number] = fetch(engines[number], file, tmp_path / f"file{number}").bytes_cdn

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out


def test_the_origin_sends_about_one_copy(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "zest_hf")
    local_hub.fault("cdn", "rate", bytes_per_second=5_000_000)
    with crowd(tmp_path, NODES) as engines:
        by_cdn = download_together(engines, stored, tmp_path)
    copies = local_hub.stats()["cdn_bytes"] / len(stored.content)
    for record in caplog.records:
        print(record.relativeCreated, record.threadName, record.getMessage())
    assert min(by_cdn) >= 0, "each has the file"
    # One copy and a bit on hosts of their own (make bench-crowd); here they share the processors with other tests.
    assert copies <= NODES / 1.6, by_cdn
