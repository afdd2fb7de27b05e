"""The CDN: byte ranges of xorbs behind signed urls, sent without a copy. A bare ASGI application."""

from __future__ import annotations

import os
import re
import secrets
from typing import Any, BinaryIO
from urllib.parse import parse_qs

from zest_hf.hub.http import Refusal, parse_ranges
from zest_hf.hub.protocol import CONNECTION, ZERO_COPY
from zest_hf.hub.state import Hub

_PATH = re.compile(r"/_cdn/([0-9a-f]{64})")
# Small enough that statistics keep up with a transfer, large enough not to be felt.
_BLOCK_BYTES = 4 << 20
_COPY_BYTES = 256 << 10
MAX_RANGES = 512

Headers = list[tuple[bytes, bytes]]


class Cdn:
    """Answers ``GET /_cdn/{xorb}?range=...&expires=...&signature=...``."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        try:
            await self._answer(scope, send)
        except Refusal as refusal:
            await refusal.response()(scope, receive, send)

    async def _answer(self, scope: Any, send: Any) -> None:
        found = _PATH.fullmatch(scope["path"])
        if found is None:
            raise Refusal(404, "the CDN has nothing under this path")
        if scope["method"] not in ("GET", "HEAD"):
            raise Refusal(405, "the CDN only answers GET and HEAD", headers={"Allow": "GET, HEAD"})
        query = {
            name: values[0] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()
        }
        fields = (query.get(name, "") for name in ("range", "expires", "signature"))
        allowed = self._hub.signer.read_url(found[1], *fields)
        if "via" in query:
            target = scope["query_string"].replace(b"&via=1", b"")
            location = scope["path"].encode() + b"?" + target
            await _start(send, 302, [(b"location", location), (b"content-length", b"0")])
            await send({"type": "http.response.body", "body": b""})
            return
        try:
            file = open(self._hub.store.xorb_path(found[1]), "rb", buffering=0)  # noqa: SIM115
        except OSError:
            raise Refusal(404, "the xorb is not stored here") from None
        with file:
            size_bytes = os.fstat(file.fileno()).st_size
            header = next((value for name, value in scope["headers"] if name == b"range"), None)
            if header is None:
                wanted = [(0, size_bytes)]
            else:
                wanted = parse_ranges(header.decode("latin-1"), size_bytes, limit=MAX_RANGES)
            self._check(wanted, allowed)
            await self._send_ranges(scope, send, file, size_bytes, wanted, partial=header is not None)

    def _check(self, wanted: list[tuple[int, int]], allowed: tuple[tuple[int, int], ...]) -> None:
        if self._hub.options.exact_ranges:
            fits = tuple(wanted) == allowed
        else:
            fits = all(any(a <= start and end <= b for a, b in allowed) for start, end in wanted)
        if not fits:
            raise Refusal(403, "the url is not signed for this range")

    async def _send_ranges(
        self,
        scope: Any,
        send: Any,
        file: BinaryIO,
        size_bytes: int,
        wanted: list[tuple[int, int]],
        *,
        partial: bool,
    ) -> None:
        headers: Headers = [(b"accept-ranges", b"bytes"), (b"cache-control", b"private, immutable")]
        if len(wanted) == 1:
            start, end = wanted[0]
            headers.append((b"content-type", b"application/octet-stream"))
            if partial:
                headers.append((b"content-range", f"bytes {start}-{end - 1}/{size_bytes}".encode()))
            await _start(
                send, 206 if partial else 200, [*headers, (b"content-length", str(end - start).encode())]
            )
            await send_file(scope, send, file, start, end)
            return
        boundary = secrets.token_hex(16)
        heads = [_part_head(boundary, start, end, size_bytes) for start, end in wanted]
        tail = f"\r\n--{boundary}--\r\n".encode()
        total = sum(len(head) + end - start for head, (start, end) in zip(heads, wanted, strict=True)) + len(
            tail
        )
        headers.append((b"content-type", f"multipart/byteranges; boundary={boundary}".encode()))
        await _start(send, 206, [*headers, (b"content-length", str(total).encode())])
        for head, (start, end) in zip(heads, wanted, strict=True):
            await send({"type": "http.response.body", "body": head, "more_body": True})
            await send_file(scope, send, file, start, end, more_body=True)
        await send({"type": "http.response.body", "body": tail})


def _part_head(boundary: str, start: int, end: int, size_bytes: int) -> bytes:
    return (
        f"\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Range: bytes {start}-{end - 1}/{size_bytes}\r\n\r\n"
    ).encode()


async def _start(send: Any, status: int, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def send_file(
    scope: Any, send: Any, file: BinaryIO, start: int, end: int, *, more_body: bool = False
) -> None:
    """Send bytes start..end of an open file as body messages, without a copy where the server can.

    Returns early when the client has gone.
    """
    if scope["method"] == "HEAD":
        start = end
    extensions = scope.get("extensions", {})
    connection = extensions.get(CONNECTION)
    while start < end and (connection is None or connection.is_open):
        if ZERO_COPY in extensions:
            count = min(_BLOCK_BYTES, end - start)
            await send({"type": ZERO_COPY, "file": file, "offset": start, "count": count, "more_body": True})
        else:
            block = os.pread(file.fileno(), min(_COPY_BYTES, end - start), start)
            if not block:
                break
            count = len(block)
            await send({"type": "http.response.body", "body": block, "more_body": True})
        start += count
    if not more_body:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
