"""The ASGI applications of a hub: API and CDN on one address, or the CDN on its own."""

from __future__ import annotations

import logging
import sqlite3
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from zest_hf.errors import ProtocolError, StorageError
from zest_hf.hub import api, cas, control, resolve
from zest_hf.hub.cdn import Cdn
from zest_hf.hub.http import Refusal
from zest_hf.hub.middleware import Counting, Misbehaving
from zest_hf.hub.state import Hub

_logger = logging.getLogger("zest_hf.hub")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response()


async def _malformed(request: Request, error: Exception) -> Response:
    return Refusal(400, str(error)).response()


async def _broken(request: Request, error: Exception) -> Response:
    _logger.error("%s %s: %s", request.method, request.url.path, error)
    return Refusal(500, str(error)).response()


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Refusal(error.status_code, f"{error.detail}: {request.method} {request.url.path}"[:300]).response()


def _api(hub: Hub) -> Starlette:
    application = Starlette(
        routes=[*control.ROUTES, *cas.ROUTES, *api.ROUTES, *resolve.ROUTES],
        exception_handlers={
            Refusal: _refused,
            ProtocolError: _malformed,
            StorageError: _broken,
            sqlite3.Error: _broken,
            HTTPException: _not_routed,
        },
    )
    application.state.hub = hub
    return application


def build_app(hub: Hub, *, cdn_only: bool = False) -> Any:
    """The application of one listener."""
    cdn = Cdn(hub)
    application = None if cdn_only else _api(hub)

    async def by_path(scope: Any, receive: Any, send: Any) -> None:
        if application is None or scope.get("path", "").startswith("/_cdn/"):
            await cdn(scope, receive, send)
        else:
            await application(scope, receive, send)

    return Counting(Misbehaving(by_path, hub), hub)
