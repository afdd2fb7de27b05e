"""Listening: one uvicorn server for the API, and one of its own thread and event loop for the CDN."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from zest_hf.errors import ConfigError
from zest_hf.hub.app import build_app
from zest_hf.hub.protocol import ZeroCopyProtocol
from zest_hf.hub.state import Hub, join_host

_BACKLOG = 1024
CDN_THREADS = 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listen(address: tuple[str, int]) -> socket.socket:
    """A listening socket; ConfigError with one clear line when the address cannot be used."""
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off for sockets that say they are TCP, which create_server's do not.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {join_host(host, port)}: {error.strerror or error}") from error
    return listener


class _Server(uvicorn.Server):
    """Says when it accepts connections and leaves signals to us."""

    def __init__(self, application: Any, tls: tuple[Path, Path] | None, on_ready: Callable[[], None]) -> None:
        certificate, key = tls or (None, None)
        super().__init__(
            uvicorn.Config(
                application,
                ssl_certfile=certificate,
                ssl_keyfile=key,
                loop="asyncio",
                http=ZeroCopyProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=1,
            )
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(
    hub: Hub,
    api: socket.socket,
    cdn: socket.socket | None,
    on_ready: Callable[[], None],
    *,
    cdn_threads: int = CDN_THREADS,
) -> None:
    """Serve until SIGTERM or SIGINT; ``on_ready`` is called once when everything accepts connections.

    Several CDN threads accept from the same socket; sendfile runs without the GIL, so they send in parallel.
    """
    tls = hub.options.tls
    started = threading.Semaphore(0)
    sockets = [] if cdn is None else [cdn, *(cdn.dup() for _ in range(cdn_threads - 1))]
    servers = [(_Server(build_app(hub, cdn_only=True), tls, started.release), each) for each in sockets]
    threads = [
        threading.Thread(target=asyncio.run, args=(server.serve([each]),), name=f"zest-hub-cdn-{number}")
        for number, (server, each) in enumerate(servers)
    ]

    def ready() -> None:
        for _ in threads:
            started.acquire()
        on_ready()

    api_server = _Server(build_app(hub), tls, ready)

    def stop(number: int, frame: FrameType | None) -> None:
        api_server.should_exit = True

    # What it reports as errors are clients that leave; failures of ours are logged before it sees them.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    previous = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        for thread in threads:
            thread.start()
        asyncio.run(api_server.serve([api]))
    finally:
        for server, _ in servers:
            server.should_exit = True
        for thread in threads:
            thread.join()
        for number, handler in previous.items():
            signal.signal(number, handler)
