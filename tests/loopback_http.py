"""A real HTTP server on loopback whose answers, and faults at socket level, a test writes down in advance.

    server.on("/path", answer(503), answer(200, b"..."))    # one after the other, the last one for ever

Every request is recorded in `server.requests`.
"""

from __future__ import annotations

import http.server
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Recorded:
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    client_port: int
    body: bytes = b""


Action = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackServer

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        self.server.requests.append(Recorded(self.path, headers, self.client_address[1], body))
        self.server.action_for(self.path)(self)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


class LoopbackServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.requests: list[Recorded] = []
        self.stopping = threading.Event()
        self._routes: dict[str, list[Action]] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.server_address[1]}"

    def on(self, path: str, *actions: Action) -> None:
        self._routes[path] = list(actions)

    def action_for(self, path: str) -> Action:
        with self._lock:
            actions = self._routes.get(path) or self._routes.get(path.partition("?")[0]) or [answer(404)]
            return actions.pop(0) if len(actions) > 1 else actions[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that goes away is part of many tests


@contextmanager
def running(tls: ssl.SSLContext | None = None) -> Iterator[LoopbackServer]:
    server = LoopbackServer(tls)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


def answer(status: int, body: bytes = b"", **headers: str) -> Action:
    """A complete answer. Header names are given with underscores; Content-Length is added unless given."""

    def act(handler: Handler) -> None:
        _head(handler, status, {"Content-Length": str(len(body)), **_names(headers)})
        handler.wfile.write(body)

    return act


def truncated(status: int, body: bytes, announced: int, **headers: str) -> Action:
    """Announces more than it sends, then closes in an orderly way."""

    def act(handler: Handler) -> None:
        _head(handler, status, {"Content-Length": str(announced), **_names(headers)})
        handler.wfile.write(body)
        handler.close_connection = True

    return act


def reset(status: int, body: bytes, announced: int) -> Action:
    """Like `truncated`, but the connection ends in a TCP reset."""

    def act(handler: Handler) -> None:
        _head(handler, status, {"Content-Length": str(announced)})
        handler.wfile.write(body)
        handler.wfile.flush()
        drop(handler)

    return act


def drop(handler: Handler) -> None:
    """No answer at all: TCP reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # The request's file objects keep the socket open until they are closed too.
    handler.wfile.close()
    handler.rfile.close()
    handler.connection.close()
    handler.close_connection = True


def stall(status: int, body: bytes, announced: int, **headers: str) -> Action:
    """Sends a part of the answer and then nothing more until the server stops."""

    def act(handler: Handler) -> None:
        _head(handler, status, {"Content-Length": str(announced), **_names(headers)})
        handler.wfile.write(body)
        handler.wfile.flush()
        handler.server.stopping.wait()
        handler.close_connection = True

    return act


def ranges_of(content: bytes) -> Action:
    """Serves single ranges of `content` as a CDN does."""

    def act(handler: Handler) -> None:
        first, last = (int(part) for part in handler.headers["Range"].removeprefix("bytes=").split("-"))
        body = content[first : last + 1]
        content_range = f"bytes {first}-{first + len(body) - 1}/{len(content)}"
        answer(206, body, Content_Range=content_range)(handler)

    return act


def _head(handler: Handler, status: int, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        if value:
            handler.send_header(name, value)
    handler.end_headers()


def _names(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
