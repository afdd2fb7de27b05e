"""Around every answer: counting what is sent, and the faults that were asked for."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

from zest_hf.errors import ZestError
from zest_hf.hub.faults import Bucket, Rule
from zest_hf.hub.http import Refusal
from zest_hf.hub.protocol import CONNECTION, SENT, ZERO_COPY
from zest_hf.hub.state import Hub
from zest_hf.hub.stats import Listener

_CONTENT_RANGE = re.compile(rb"bytes (\d+)-")
_HASH = re.compile(r"[0-9a-f]{64}")
_NAMES = frozenset(
    (
        *("resolve", "tree", "paths-info", "revision", "refs", "branch", "tag", "commits", "settings"),
        *("reconstructions", "chunks", "xorbs", "xorb-grants", "shards", "telemetry"),
        *("preupload", "commit", "xet-read-token", "xet-write-token", "whoami-v2", "validate-yaml", "repos"),
    )
)


def listener_of(path: str) -> Listener:
    if path.startswith("/_cdn/"):
        return "cdn"
    if path.startswith(("/v1/", "/v2/")):
        return "cas"
    return "control" if path.startswith("/_") else "hub"


def route_name(method: str, path: str, listener: Listener) -> str:
    """A name with no repository, file or hash in it, so that the list of routes stays short."""
    if listener == "cdn":
        return f"{method} cdn"
    name = next((part for part in path.split("/") if part in _NAMES), "other")
    return f"{method} {path[:3]}/{name}" if listener == "cas" else f"{method} {name}"


class Counting:
    """ASGI middleware: requests, statuses and body bytes per route and per xorb."""

    def __init__(self, application: Any, hub: Hub) -> None:
        self._application = application
        self._hub = hub

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        listener = listener_of(path)
        if scope["type"] != "http" or listener == "control":
            await self._application(scope, receive, send)
            return
        stats = self._hub.stats
        route = route_name(scope["method"], path, listener)
        found = _HASH.search(path) if listener == "cdn" else None
        xorb = found[0] if found else None
        connection = scope.get("extensions", {}).get(CONNECTION)
        stats.request(listener, route)

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                stats.status(route, xorb, message["status"])
            try:
                await send(message)
            finally:
                if message["type"] == ZERO_COPY:
                    count = message.get(SENT, 0)
                elif message["type"] == "http.response.body" and (connection is None or connection.is_open):
                    count = 0 if scope["method"] == "HEAD" else len(message.get("body", b""))
                else:
                    count = 0
                if count:
                    stats.sent(listener, route, xorb, count)

        await self._application(scope, receive, counted)


class _Cut(ZestError):
    """The rest of the answer is not wanted any more."""


class Misbehaving:
    """ASGI middleware: applies the rules of ``hub.faults``; without a rule it costs one lookup."""

    def __init__(self, application: Any, hub: Hub) -> None:
        self._application = application
        self._hub = hub

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        listener = listener_of(path)
        if scope["type"] != "http" or listener == "control":
            await self._application(scope, receive, send)
            return
        query = scope["query_string"].decode("latin-1")
        rules = self._hub.faults.take(listener, f"{path}?{query}" if query else path)
        if not rules:
            await self._application(scope, receive, send)
            return
        for rule in rules:
            if rule.kind == "latency":
                await asyncio.sleep(rule.parameters["seconds"])
        for rule in rules:
            if await _replaced(rule, listener, send):
                return
        # Bytes that are to be looked at or paced have to pass through here.
        scope["extensions"] = {k: v for k, v in scope.get("extensions", {}).items() if k != ZERO_COPY}
        falsifier = _Falsifier(self._hub, rules, listener, scope, receive, send)
        with contextlib.suppress(_Cut):
            await self._application(scope, receive, falsifier)


async def _replaced(rule: Rule, listener: Listener, send: Any) -> bool:
    """Answer in place of the application if the rule says so."""
    headers = [(b"content-type", b"application/json")]
    if rule.kind == "status":
        status = int(rule.parameters["status"])
        body = b"" if status in (204, 304) else b'{"error":"a fault rule asked for this status"}'
        if "retry_after" in rule.parameters:
            headers.append((b"retry-after", str(int(rule.parameters["retry_after"])).encode()))
    elif rule.kind == "expire":
        refusal = Refusal(403 if listener == "cdn" else 401, "a fault rule says that this has expired")
        status, body = refusal.status, bytes(refusal.response().body)
    elif rule.kind == "garbage":
        status, body = 200, b'{"terms":[{"hash":"not a hash",\x00\xff'
    else:
        return False
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
    return True


class _Falsifier:
    """``send`` of one request with rate, truncate, corrupt and stall rules applied."""

    def __init__(
        self, hub: Hub, rules: list[Rule], listener: Listener, scope: Any, receive: Any, send: Any
    ) -> None:
        self._hub = hub
        self._connection = scope["extensions"].get(CONNECTION)
        self._receive = receive
        self._send = send
        self._corrupt = [r for r in rules if r.kind == "corrupt"]
        self._truncate = min(
            (int(r.parameters["after_bytes"]) for r in rules if r.kind == "truncate"), default=None
        )
        self._stall = min(
            (int(r.parameters["after_bytes"]) for r in rules if r.kind == "stall"), default=None
        )
        self._buckets = [hub.faults.bucket(r, listener) for r in rules if r.kind == "rate"]
        self._buckets += [Bucket(r.parameters["bytes_per_second"]) for r in rules if r.kind == "pace"]
        self._first = 0
        self._sent = 0

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._begin(message)
            await self._send(message)
            return
        body = self._corrupted(message.get("body", b""))
        more = message.get("more_body", False)
        stops = [stop for stop in (self._truncate, self._stall) if stop is not None]
        if stops and self._sent + len(body) >= min(stops) and (body or more):
            await self._pace(body[: min(stops) - self._sent])
            await self._stop(hang_up=min(stops) == self._truncate)
        await self._pace(body)
        await self._send({"type": "http.response.body", "body": b"", "more_body": more})

    def _begin(self, message: Any) -> None:
        headers = dict(message["headers"])
        found = _CONTENT_RANGE.match(headers.get(b"content-range", b""))
        self._first = int(found[1]) if found else 0
        size_bytes = int(headers.get(b"content-length", b"0"))
        for rule in list(self._corrupt):
            if not self._first <= rule.parameters["offset"] < self._first + size_bytes:
                self._corrupt.remove(rule)
                self._hub.faults.give_back(rule)

    def _corrupted(self, body: bytes) -> bytes:
        for rule in self._corrupt:
            at = int(rule.parameters["offset"]) - self._first - self._sent
            if 0 <= at < len(body):
                body = body[:at] + bytes([body[at] ^ 0x01]) + body[at + 1 :]
        return body

    async def _pace(self, body: bytes) -> None:
        block_bytes = min((bucket.block_bytes for bucket in self._buckets), default=len(body) or 1)
        for at in range(0, len(body), block_bytes):
            block = body[at : at + block_bytes]
            for bucket in self._buckets:
                delay_s = bucket.reserve(len(block))
                if delay_s > 0:
                    await asyncio.sleep(delay_s)
            if self._connection is not None and not self._connection.is_open:
                raise _Cut("the client has gone")
            await self._send({"type": "http.response.body", "body": block, "more_body": True})
            self._sent += len(block)

    async def _stop(self, *, hang_up: bool) -> None:
        if not hang_up:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        if self._connection is not None:
            self._connection.hang_up()
        raise _Cut("a fault rule ended the answer here")
