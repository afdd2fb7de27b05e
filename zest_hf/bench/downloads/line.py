"""A line between who downloads and who gives, with delay, loss, and a rate: what it does to each packet. Pure.

Each way has its own: a queue like a router's, which drops what finds it full, and sends one packet after the other at
the line's rate; then the delay. Packets keep their order. Rates count IP packets, with their headers and without those
of Ethernet: of 100 Mbit/s a TCP connection has 96.5.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

MTU_BYTES = 1500
QUEUE_S = 0.1
"""What a queue holds at most, in the time that the line takes to send it: as much as a connection over 100 ms has on
its way (the product of rate and delay by which routers are built)."""


@dataclass(frozen=True)
class Line:
    """``delay_s`` is that of a round trip. ``loss`` is the share of all packets that get lost by chance, each way.

    ``congestion``: which of the system's ways TCP has to find out what a line carries (tcp(7), tcp_congestion_control).
    """

    delay_s: float
    loss: float
    mbit_s: float
    congestion: str

    def __str__(self) -> str:
        return f"{self.mbit_s:g} Mbit/s, {self.delay_s * 1e3:g} ms, {self.loss * 100:g} % lost, {self.congestion}"

    @property
    def json(self) -> dict[str, object]:
        return {
            "mbit_s": self.mbit_s,
            "delay_ms": self.delay_s * 1e3,
            "loss": self.loss,
            "queue_ms": QUEUE_S * 1e3,
            "congestion": self.congestion,
        }


def line_text(value: Mapping[str, object] | None) -> str:
    """Behind what was measured, from `Line.json`; nothing without a line. Raises KeyError, TypeError, ValueError."""
    if value is None:
        return ""
    delay_ms, loss, mbit_s = (float(str(value[name])) for name in ("delay_ms", "loss", "mbit_s"))
    return f", over a line of {Line(delay_ms / 1e3, loss, mbit_s, str(value['congestion']))}"


class Lane:
    """One way of a line. ``seed``: by which packets get lost."""

    def __init__(self, line: Line, seed: int) -> None:
        self._delay_s = line.delay_s / 2
        self._loss = line.loss
        self._byte_s = 8 / (line.mbit_s * 1e6)
        self._random = random.Random(seed).random
        self._free_s = float("-inf")
        """When it has sent all that it took."""
        self.carried_bytes = 0
        self.lost = self.dropped = 0
        """Packets: by chance, and because the queue was full."""

    def arrival_s(self, size_bytes: int, now_s: float) -> float | None:
        """When a packet that comes now, not before the one that came last, is at the other end; None: never."""
        if self._random() < self._loss:
            self.lost += 1
            return None
        begins_s = max(self._free_s, now_s)
        ends_s = begins_s + size_bytes * self._byte_s
        if ends_s - now_s > QUEUE_S:
            self.dropped += 1
            return None
        self._free_s = ends_s
        self.carried_bytes += size_bytes
        return ends_s + self._delay_s
