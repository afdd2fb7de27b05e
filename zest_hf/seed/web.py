"""The seeder's JSON API on this machine: `GET /v1/health`, `/v1/status`, `/v1/models`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from zest_hf.errors import ConfigError
from zest_hf.seed.seeder import Seeder
from zest_hf.setting_values import HostPort

STOP_S = 1.5
DATE_S = 1.0
LOOPBACK_NAMES = ["127.0.0.1", "localhost", "[::1]"]


def build_app(seeder: Seeder, host: str) -> Starlette:
    """The routes over ``seeder``. On loopback only requests that name it are answered.

    A page elsewhere could otherwise reach the API under a name of its own that resolves to 127.0.0.1.
    """

    async def health(request: Request) -> Response:
        if not seeder.ready.is_set():
            return JSONResponse({"status": "starting"}, status_code=503)
        return JSONResponse({"status": "ok"})

    async def status(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(seeder.status))

    async def models(request: Request) -> Response:
        return JSONResponse({"models": await run_in_threadpool(seeder.models)})

    guarded = [Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK_NAMES, host])] if _is_loopback(host) else []
    return Starlette(
        routes=[Route("/v1/health", health), Route("/v1/status", status), Route("/v1/models", models)],
        middleware=guarded,
    )


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")


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

    def __init__(self, seeder: Seeder, listener: socket.socket) -> None:
        host, port = listener.getsockname()[:2]
        self.address = f"http://{HostPort(host, port)}"
        self._listener = listener
        self._server = _Server(
            uvicorn.Config(
                build_app(seeder, host),
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
