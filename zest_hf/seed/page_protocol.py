"""HTTP of the status page, for clients that mean no good: few connections, and none that is silent or deaf for long."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 64
ACCEPTED_AT_ONCE = 8
"""How many connections are taken before those that have been are heard: few beside `MAX_CONNECTIONS`."""
QUEUED = 128
"""How many wait in the kernel to be taken."""
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

    connections: set[PageProtocol]  # type: ignore[assignment]
    _look: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _answered: object = None
    """The last request of which the end was seen."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._number = next(_numbers)
        _limit(transport.get_extra_info("socket"))
        self._look = self.loop.call_later(REQUEST_S, self._hang_up_if_silent)
        if len(self.connections) > MAX_CONNECTIONS:
            # A seeder must not run out of file descriptors because of its page. Who came last may be who means good:
            # a crowd that asks nothing, or has left while nobody looked, gives way to it.
            silent = [one for one in self.connections if one is not self and one._is_idle()]
            min(silent, key=lambda one: one._number, default=self)._hang_up()

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
            # At once: else the kernel keeps what it has for who does not take it.
            with contextlib.suppress(OSError):
                line = self.transport.get_extra_info("socket")
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._hang_up()
        else:
            self._watch_writing()

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        super().resume_writing()

    def _hang_up_if_silent(self) -> None:
        is_idle = self._is_idle()
        if is_idle and self.cycle is self._answered:
            self._hang_up()
            return
        if is_idle:
            self._answered = self.cycle
        self._look = self.loop.call_later(REQUEST_S, self._hang_up_if_silent)

    def _is_idle(self) -> bool:
        """Whether no request is to be answered. What is still to be sent to who reads slowly is part of an answer."""
        cycle = self.cycle
        return cycle is None or (cycle.response_complete and not self.transport.get_write_buffer_size())

    def _hang_up(self) -> None:
        self.connections.discard(self)  # it makes room now, not when the loop gets to it
        self.transport.abort()  # close() would wait for what is to be sent


_numbers = itertools.count()
"""Of connections, in the order in which they came."""


def _limit(line: Any) -> None:
    with contextlib.suppress(OSError):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # What the kernel holds for who does not read is not seen in our own buffer.
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED_S * 1000))
