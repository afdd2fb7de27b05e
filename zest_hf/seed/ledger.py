"""The seeder's books: what is moved now, in the last hour, today and all time."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any

from zest_hf.errors import StorageError
from zest_hf.seed.history import History, PeerRates
from zest_hf.swarm import Swarm
from zest_hf.traffic import Meter, Traffic, TrafficLog

log = logging.getLogger("zest_hf.seed")

RATE_TICKS = 10
"""Rates of uploads are means over the last ten or so."""
READ_S = 1.0
"""How old what other programs have noted may be, in seconds, when it is shown."""


class Ledger:
    """`tick` is called about once a second, by one thread; the reports by any.

    Uploads are the seeder's own up to this moment. What is downloaded is what every program of the ZEST_HOME has noted.
    """

    def __init__(self, traffic: TrafficLog, swarm: Swarm) -> None:
        """``traffic`` is closed by `close`."""
        self._traffic = traffic
        self._swarm = swarm
        self._meter = Meter(traffic, lambda: Traffic(uploaded=swarm.stats().bytes_up))
        self._lock = threading.Lock()
        now_s = self._started_s = time.monotonic()
        self._read_s = 0.0
        self._failed = False
        self._today = self._all = self._at_start = Traffic()
        self._is_known = False
        """Whether the file could be read once."""
        self._history = History(now_s, Traffic())
        self._peers = PeerRates()
        self._sent: deque[tuple[float, int]] = deque([(now_s, 0)], maxlen=RATE_TICKS)
        """When how many bytes had been uploaded."""
        self._read(now_s)

    def tick(self) -> None:
        """Takes samples. Raises SwarmError once the swarm is closed."""
        now_s = time.monotonic()
        with self._lock:
            self._peers.sample(now_s, self._swarm.peers())
            self._sent.append((now_s, self._swarm.stats().bytes_up))
            if self._history.is_due(now_s):
                self._read(now_s)
                self._history.sample(now_s, self._all + self._meter.pending())

    def close(self) -> None:
        """Notes what is not noted yet, while the swarm can still tell."""
        with self._lock:
            self._meter.note(last=True)
            self._traffic.close()

    def report(self) -> dict[str, Any]:
        """Of the status: ``uptime_seconds``, ``bytes`` since the start, ``rates`` (bytes per second), ``traffic``."""
        now_s = time.monotonic()
        with self._lock:
            if now_s - self._read_s >= READ_S:
                self._read(now_s)
            uploaded = self._swarm.stats().bytes_up
            since_s, before = self._sent[0]
            latest = self._history.latest()
            pending = self._meter.pending()
            since_start = self._all.since(self._at_start)
            return {
                "uptime_seconds": round(now_s - self._started_s, 1),
                "bytes": {
                    "local": since_start.local,
                    "peer": since_start.peer,
                    "cdn": since_start.cdn,
                    "uploaded": uploaded,
                },
                "rates": {
                    "up_bytes_s": round((uploaded - before) / max(1.0, now_s - since_s)),
                    "down_bytes_s": latest.peer + latest.cdn,
                },
                "traffic": {
                    "today": (self._today + pending).report(),
                    "all_time": (self._all + pending).report(),
                },
            }

    def history(self) -> dict[str, Any]:
        """The rates of the last hour, by ``uptime_seconds``."""
        with self._lock:
            return self._history.report()

    def peer(self, connection: int) -> dict[str, Any]:
        """What is known about a peer besides what the swarm says."""
        with self._lock:
            seconds, up, down = self._peers.of(connection, time.monotonic())
        return {"connected_seconds": round(seconds), "up_bytes_s": up, "down_bytes_s": down}

    def _read(self, now_s: float) -> None:
        self._read_s = now_s
        self._meter.note()
        try:
            self._today, self._all = self._traffic.totals()
        except StorageError as error:
            log.log(logging.INFO if self._failed else logging.WARNING, "no figures of today and all time: %s", error)
            self._failed = True
            return
        if not self._is_known:
            self._is_known = True
            self._at_start = self._all
            self._history.begin(now_s, self._all)
