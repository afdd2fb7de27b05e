"""The seeder's page on this machine, and the API behind it; for programs and for Prometheus.

`GET /v1/health`, `/v1/status`, `/v1/models`, `/v1/history`, `/metrics`; `POST /v1/pull/stop`, `/v1/stop`. Answers with
server-sent events come to `GET /v1/events` and `POST /v1/pull`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from zest_hf.errors import ConfigError, ZestError
from zest_hf.seed.assets import SafeHeaders, asset_routes
from zest_hf.seed.event_stream import EventStream
from zest_hf.seed.feed import Feed
from zest_hf.seed.guard import Guard, is_loopback, page_token
from zest_hf.seed.large_answer import PackedResponse, SharedAnswer, json_bytes
from zest_hf.seed.metrics import Metrics
from zest_hf.seed.page_protocol import ACCEPTED_AT_ONCE, QUEUED, PageProtocol
from zest_hf.seed.pull_request import MAX_BODY_BYTES, PullRequest, Refused, parse
from zest_hf.seed.pulls import Pulls
from zest_hf.seed.status import Status
from zest_hf.setting_values import HostPort

STOP_S = 1.5
DATE_S = 1.0
BODY_S = 5.0
"""How long the body of a request may take to arrive."""


def build_app(status: Status, feed: Feed, pulls: Pulls, token: str | None) -> ASGIApp:
    """The routes, behind a `Guard`. ``token``: None where only loopback can ask."""
    metrics = Metrics(status)
    reports = SharedAnswer(lambda: json_bytes(status.report()))
    lists = SharedAnswer(lambda: json_bytes({"models": status.models()}))
    expositions = SharedAnswer(metrics.text)

    async def health(request: Request) -> Response:
        if not status.is_ready:
            return JSONResponse({"status": "starting"}, status_code=503)
        return JSONResponse({"status": "ok"})

    async def report(request: Request) -> Response:
        return PackedResponse(await reports.get(), "application/json")

    async def models(request: Request) -> Response:
        return PackedResponse(await lists.get(), "application/json")

    async def history(request: Request) -> Response:
        return JSONResponse(status.history())

    async def for_prometheus(request: Request) -> Response:
        return PackedResponse(await expositions.get(), metrics.media_type)

    async def events(request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        if feed.is_full:
            return JSONResponse({"error": "too many look at the page already"}, 503, headers={"Retry-After": "5"})
        return EventStream(feed.follow())

    async def pull(request: Request) -> Response:
        # An answer is read, or not: the pull goes on.
        return EventStream(pulls.start(await _pull_request(request)).follow())

    async def stop_pull(request: Request) -> Response:
        wanted = await _pull_request(request)
        if not pulls.stop(wanted.key):
            raise Refused(404, f"{wanted.repo} is not being pulled")
        return JSONResponse({"status": "stopping"})

    async def stop(request: Request) -> Response:
        return JSONResponse({"status": "ending"}, background=BackgroundTask(status.end))

    async def refused(request: Request, error: Exception) -> Response:
        status_code = error.status if isinstance(error, Refused) else 503
        return JSONResponse({"error": str(error)}, status_code)

    routes = [
        *asset_routes(),
        Route("/v1/health", health),
        Route("/v1/status", report),
        Route("/v1/models", models),
        Route("/v1/history", history),
        Route("/v1/events", events),
        Route("/metrics", for_prometheus),
        Route("/v1/pull", pull, methods=["POST"]),
        Route("/v1/pull/stop", stop_pull, methods=["POST"]),
        Route("/v1/stop", stop, methods=["POST"]),
    ]
    return SafeHeaders(Guard(Starlette(routes=routes, exception_handlers={ZestError: refused}), token))


async def _pull_request(request: Request) -> PullRequest:
    """What the body says. Raises Refused."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        # Of pages elsewhere a browser would have to ask first whether it may send this.
        raise Refused(415, "the body is JSON: send it with Content-Type: application/json")
    try:
        return parse(await asyncio.wait_for(_body(request), BODY_S))
    except asyncio.TimeoutError as error:
        raise Refused(408, f"the body has not come within {BODY_S:g} s") from error
    except ClientDisconnect as error:
        raise Refused(400, "the body is not complete") from error


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise Refused(413, f"the body is longer than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises ConfigError when the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off for sockets that say they are TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(QUEUED)  # from now on callers wait instead of being refused
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"the status page cannot listen on {HostPort(host, port)}: {error.strerror} (another zest-seed, perhaps: "
            "`zest status` tells); set ZEST_STATUS to another address, or to off"
        ) from error
    return listener


class _Server(uvicorn.Server):
    """Wakes up once a second, for the date that answers bear, instead of ten times to see whether it is to end."""

    def __init__(self, config: uvicorn.Config, at_end: Callable[[], Awaitable[None]]) -> None:
        """``at_end`` ends the answers that would go on."""
        super().__init__(config)
        self._at_end = at_end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()

    def end(self) -> None:
        """From any thread."""
        self.should_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._ended.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(QUEUED)  # asyncio knows one number for this and for how many it takes at once

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ended.wait(), DATE_S)
        await self._at_end()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the seeder handles them


class StatusServer:
    """Serves on a thread of its own from `start` to `stop`."""

    def __init__(self, status: Status, listener: socket.socket, home: Path) -> None:
        """``home``: where the token is, if the address needs one. Raises StorageError."""
        host, port = listener.getsockname()[:2]
        self.address = f"http://{HostPort(host, port)}"
        self._listener = listener
        feed, pulls = Feed(status), Pulls()
        status.pulls = pulls.report

        async def at_end() -> None:
            feed.close()
            await pulls.close()

        self._server = _Server(
            uvicorn.Config(
                build_app(status, feed, pulls, None if is_loopback(host) else page_token(home)),
                http=PageProtocol,
                loop="asyncio",
                backlog=ACCEPTED_AT_ONCE,
                log_config=None,
                log_level="error",  # what is no HTTP is the business of who sends it
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=1,
            ),
            at_end,
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
