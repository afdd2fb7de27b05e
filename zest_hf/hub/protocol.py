"""uvicorn's HTTP/1.1 protocol with zero-copy sends.

Adds the ASGI extension ``http.response.zerocopysend`` (https://asgi.readthedocs.io/en/latest/extensions.html),
which uvicorn lacks: file bytes go from the page cache to the socket through ``loop.sendfile`` and never enter
Python. Needs an asyncio event loop; uvloop has no sendfile.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any, BinaryIO

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_logger = logging.getLogger("zest_hf.hub")

ZERO_COPY = "http.response.zerocopysend"
CONNECTION = "zest_hf.connection"
# A zero-copy message gets the number of bytes that reached the socket under this key, also when it fails.
SENT = "zest_hf.sent"


class Connection:
    """What a route may know and do about the connection it answers on."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    @property
    def is_open(self) -> bool:
        # A write to who has gone closes the transport at once, while the protocol hears of it when the loop turns.
        return not self._cycle.disconnected and not self._cycle.transport.is_closing()

    def hang_up(self) -> None:
        """Close in the middle of an answer, after the bytes that were already written."""
        self._cycle.disconnected = True
        self._cycle.transport.close()


class ZeroCopyProtocol(HttpToolsProtocol):
    """Wraps the application so that it sees the extension and its messages are understood."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        application = self.app

        async def with_zero_copy(scope: Any, receive: Any, send: Any) -> None:
            cycle = getattr(send, "__self__", None)
            if isinstance(cycle, RequestResponseCycle):
                extensions = scope.setdefault("extensions", {})
                if scope["scheme"] == "http":  # what is to be encrypted has to pass through here
                    extensions[ZERO_COPY] = {}
                extensions[CONNECTION] = Connection(cycle)
                send = _Sender(cycle)
            try:
                await application(scope, receive, send)
            except asyncio.CancelledError:
                # The server stops and has waited long enough for this answer.
                if not isinstance(cycle, RequestResponseCycle):
                    raise
                Connection(cycle).hang_up()
            except Exception:
                _logger.exception("%s %s failed", scope.get("method"), scope.get("path"))
                raise

        self.app = with_zero_copy


class _Sender:
    """``send`` of one request; everything but zero-copy messages goes to uvicorn unchanged."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    async def __call__(self, message: Any) -> None:
        if message["type"] == ZERO_COPY:
            await self._send_file(message)
            message = {
                "type": "http.response.body",
                "body": b"",
                "more_body": message.get("more_body", False),
            }
            if message["more_body"]:
                return
        await self._cycle.send(message)

    async def _send_file(self, message: dict[str, Any]) -> None:
        cycle = self._cycle
        file: BinaryIO = message["file"]
        offset: int = message["offset"]
        count: int = message["count"]
        message[SENT] = 0
        # uvicorn's bookkeeping is kept exact: its last body message checks that nothing is missing.
        if cycle.chunked_encoding or count > cycle.expected_content_length:
            raise RuntimeError("zero-copy bodies need a Content-Length that covers them")
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected or cycle.transport.is_closing():
            cycle.disconnected = True
            return
        os.lseek(file.fileno(), offset, os.SEEK_SET)
        try:
            await asyncio.get_running_loop().sendfile(cycle.transport, file, offset, count)
        except OSError:
            # Reading is paused during sendfile, so a client that goes away shows here first.
            cycle.disconnected = True
            cycle.transport.abort()
        finally:
            # asyncio leaves the file position behind the last byte that was sent, whatever happened.
            message[SENT] = os.lseek(file.fileno(), 0, os.SEEK_CUR) - offset
        if not cycle.disconnected:
            if message[SENT] != count:
                raise RuntimeError(f"the file ended after {message[SENT]} of {count} bytes")
            cycle.expected_content_length -= count
