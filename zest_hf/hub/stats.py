"""Counters of what this hub has answered and sent."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any, Literal

Listener = Literal["hub", "cas", "cdn", "control"]


class Stats:
    """Thread-safe counters; bytes are body bytes that were handed to a socket."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        with self._lock:
            self._requests: dict[str, int] = defaultdict(int)
            self._bytes: dict[str, int] = defaultdict(int)
            self._routes: dict[str, dict[str, Any]] = {}
            self._xorbs: dict[str, dict[str, int]] = {}

    def request(self, listener: Listener, route: str) -> None:
        with self._lock:
            self._requests[listener] += 1
            self._route(route)["requests"] += 1

    def status(self, route: str, xorb: str | None, status: int) -> None:
        with self._lock:
            if xorb is not None and status in (200, 206):
                self._xorb(xorb)["requests"] += 1
            statuses = self._route(route)["statuses"]
            statuses[str(status)] = statuses.get(str(status), 0) + 1

    def sent(self, listener: Listener, route: str, xorb: str | None, count: int) -> None:
        with self._lock:
            self._bytes[listener] += count
            self._route(route)["bytes"] += count
            if xorb is not None:
                self._xorb(xorb)["bytes"] += count

    def _route(self, route: str) -> dict[str, Any]:
        return self._routes.setdefault(route, {"requests": 0, "bytes": 0, "statuses": {}})

    def _xorb(self, xorb: str) -> dict[str, int]:
        return self._xorbs.setdefault(xorb, {"requests": 0, "bytes": 0})

    def snapshot(self) -> dict[str, Any]:
        with self._lock:
            counts: dict[str, Any] = {}
            for listener in ("hub", "cas", "cdn"):
                counts[f"{listener}_requests"] = self._requests[listener]
                counts[f"{listener}_bytes"] = self._bytes[listener]
            counts["by_route"] = {
                name: {**row, "statuses": dict(row["statuses"])} for name, row in self._routes.items()
            }
            counts["by_xorb"] = {name: dict(row) for name, row in self._xorbs.items()}
            return counts
