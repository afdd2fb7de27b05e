"""Answers of megabytes, for many who ask and read slowly: made once for all of a moment, and kept small meanwhile."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

PART_BYTES: Final = 32 * 1024
SMALL_BYTES: Final = 64 * 1024
"""What is no larger is kept as it is."""


def json_bytes(value: Any) -> bytes:
    """In one line of ASCII: names of files may be no Unicode."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


class Packed:
    """Bytes that are kept compressed, as the same keys and names come again and again, and read in parts."""

    __slots__ = ("_is_plain", "_kept", "size_bytes")

    def __init__(self, data: bytes) -> None:
        self.size_bytes = len(data)
        self._is_plain = len(data) <= SMALL_BYTES
        self._kept = data if self._is_plain else zlib.compress(data, 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed) and (self.size_bytes, self._kept) == (other.size_bytes, other._kept)

    def __hash__(self) -> int:
        return hash(self._kept)

    def parts(self) -> Iterator[bytes]:
        """Everything, in parts of at most `PART_BYTES`."""
        if self._is_plain:
            for begin in range(0, self.size_bytes, PART_BYTES):
                yield self._kept[begin : begin + PART_BYTES]
            return
        unpack = zlib.decompressobj()
        for begin in range(0, len(self._kept), PART_BYTES):
            left = self._kept[begin : begin + PART_BYTES]
            while left:
                yield unpack.decompress(left, PART_BYTES)
                left = unpack.unconsumed_tail
        while not unpack.eof:
            yield unpack.decompress(b"", PART_BYTES)


class PackedResponse(Response):
    """No more of it than a part waits to be sent, besides what the connection's own buffers take."""

    def __init__(self, content: Packed, media_type: str) -> None:
        super().__init__(media_type=media_type, headers={"Content-Length": str(content.size_bytes)})
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self._content.parts():
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class SharedAnswer:
    """Makes an answer for all who ask while it was not yet begun: one at a time is made, and one may wait for that.

    What anybody gets was begun after he asked. To be used on one event loop.
    """

    def __init__(self, make: Callable[[], bytes]) -> None:
        """``make`` is called by other threads; what it raises everybody gets who waits for it."""
        self._make = make
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[Packed] | None = None

    async def get(self) -> Packed:
        if self._next is None:
            self._next = asyncio.create_task(self._run())
        # Who gives up does not end it for the others.
        return await asyncio.shield(self._next)

    async def _run(self) -> Packed:
        async with self._lock:
            self._next = None
            return await run_in_threadpool(lambda: Packed(self._make()))
