"""HTTP of the status page, for clients that mean no good: few connections, and none that is silent or deaf for long."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 64
REQUEST_S = 5.0
"""How long a request may take to arrive; between 1 and 2 times that."""
SEND_BUFFER_BYTES = 128 * 1024
"""Of the kernel, for each connection; by itself it takes megabytes."""
STALLED_S = 8.0
"""How long nothing of an answer may be taken."""
MIN_BYTES_S = 1000
"""How little of an answer that does not fit into the buffers may be taken, as a mean over `STALLED_S`."""


class PageProtocol(H11Protocol):
    """uvicorn limits the size of what it takes (64 KiB of headers) and keeps to send, not how long it waits for it."""

    _look: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _answered: object = None
    """The last request of which the end was seen."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            # A seeder must not run out of file descriptors because of its page.
            transport.abort()
            return
        _limit(transport.get_extra_info("socket"))
        self._look = self.loop.call_later(REQUEST_S, self._hang_up_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._look, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def _watch_writing(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._stalled = self.loop.call_later(STALLED_S, self._hang_up_if_stalled, left)

    def _hang_up_if_stalled(self, before: int) -> None:
        if self.transport.get_write_buffer_size() > before - MIN_BYTES_S * STALLED_S:
            self.transport.abort()  # close() would wait for what is to be sent
        else:
            self._watch_writing()

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        super().resume_writing()

    def _hang_up_if_silent(self) -> None:
        cycle = self.cycle
        # What is still to be sent to who reads slowly is not over.
        is_idle = cycle is None or (cycle.response_complete and not self.transport.get_write_buffer_size())
        if is_idle and cycle is self._answered:
            self.transport.abort()
            return
        if is_idle:
            self._answered = cycle
        self._look = self.loop.call_later(REQUEST_S, self._hang_up_if_silent)


def _limit(line: Any) -> None:
    with contextlib.suppress(OSError):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # What the kernel holds for who does not read is not seen in our own buffer.
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED_S * 1000))
