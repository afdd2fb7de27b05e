"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Send

from zest_hf.seed.large_answer import json_bytes

HEARTBEAT = b": still here\n\n"


def event(name: str, value: Any) -> bytes:
    """One event with a JSON value, which has no line breaks."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), json_bytes(value))


class EventStream(StreamingResponse):
    """Events as they come. Whoever makes them hears at once (``aclose``) when nobody listens any more."""

    def __init__(self, events: AsyncIterator[bytes], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-store", **(headers or {})}
        )

    async def stream_response(self, send: Send) -> None:
        async with contextlib.AsyncExitStack() as stack:
            close = getattr(self.body_iterator, "aclose", None)
            if close is not None:
                stack.push_async_callback(close)
            await super().stream_response(send)
