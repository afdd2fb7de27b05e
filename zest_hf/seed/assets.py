"""The page's own files, and what a browser is told about everything that comes from here."""

from __future__ import annotations

from importlib import resources
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SCRIPTS: Final = ("page.js", "live.js", "plot.js", "pulls.js", "table.js", "format.js")
_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{f"/{name}": (name, "text/javascript; charset=utf-8") for name in _SCRIPTS},
}

_HEADERS: Final = {
    # Nothing from elsewhere, nothing inline, and in nobody's frame: a page around it could have its buttons clicked.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def asset_routes() -> list[Route]:
    """The page at `/`. Its files are read now."""
    folder = resources.files("zest_hf.seed").joinpath("page")
    return [_route(path, folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in _FILES.items()]


def _route(path: str, content: bytes, media_type: str) -> Route:
    async def asset(request: Request) -> Response:
        # Of another version after the next start.
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return Route(path, asset)


class SafeHeaders:
    """Adds to every answer what keeps browsers from doing more with it than is meant."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, with_headers)
