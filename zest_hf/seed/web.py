"""The seeder's JSON API on this machine: `GET /v1/health`, `/v1/status`, `/v1/models`, `POST /v1/stop`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from zest_hf.errors import ConfigError
from zest_hf.seed.guard import Guard, is_loopback, page_token
from zest_hf.seed.page_protocol import PageProtocol
from zest_hf.seed.seeder import Seeder
from zest_hf.setting_values import HostPort

STOP_S = 1.5
DATE_S = 1.0


def build_app(seeder: Seeder, token: str | None) -> ASGIApp:
    """The routes over ``seeder``, behind a `Guard`. ``token``: None where only loopback can ask."""

    async def health(request: Request) -> Response:
        if not seeder.ready.is_set():
            return JSONResponse({"status": "starting"}, status_code=503)
        return JSONResponse({"status": "ok"})

    async def status(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(seeder.status))

    async def models(request: Request) -> Response:
        return JSONResponse({"models": await run_in_threadpool(seeder.models)})

    async def stop(request: Request) -> Response:
        return JSONResponse({"status": "ending"}, background=BackgroundTask(seeder.end))

    routes = [
        Route("/v1/health", health),
        Route("/v1/status", status),
        Route("/v1/models", models),
        Route("/v1/stop", stop, methods=["POST"]),
    ]
    return Guard(Starlette(routes=routes), token)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises ConfigError when the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off for sockets that say they are TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(64)  # from now on callers wait instead of being refused
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"the status page cannot listen on {HostPort(host, port)}: {error.strerror} (another zest-seed, perhaps: "
            "`zest status` tells); set ZEST_STATUS to another address, or to off"
        ) from error
    return listener


class _Server(uvicorn.Server):
    """Wakes up once a second, for the date that answers bear, instead of ten times to see whether it is to end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()

    def end(self) -> None:
        """From any thread."""
        self.should_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._ended.set)

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ended.wait(), DATE_S)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the seeder handles them


class StatusServer:
    """Serves on a thread of its own from `start` to `stop`."""

    def __init__(self, seeder: Seeder, listener: socket.socket, home: Path) -> None:
        """``home``: where the token is, if the address needs one. Raises StorageError."""
        host, port = listener.getsockname()[:2]
        self.address = f"http://{HostPort(host, port)}"
        self._listener = listener
        self._server = _Server(
            uvicorn.Config(
                build_app(seeder, None if is_loopback(host) else page_token(home)),
                http=PageProtocol,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="zest-status", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.end()
        self._thread.join(STOP_S)
        self._listener.close()
