"""For whoever runs the hub: statistics and faults. Answered to this machine only unless told otherwise."""

from __future__ import annotations

import ipaddress
import json

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from zest_hf.errors import ProtocolError
from zest_hf.hub.faults import parse_rule
from zest_hf.hub.http import Refusal, read_body
from zest_hf.hub.state import Hub

_MAX_BODY_BYTES = 1 << 20


def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    host = request.client.host if request.client else ""
    try:
        local = ipaddress.ip_address(host.removeprefix("::ffff:")).is_loopback
    except ValueError:
        local = False
    if not local and not hub.options.remote_control:
        raise Refusal(
            403, "statistics and faults are for this machine only: start the hub with --remote-control"
        )
    return hub


async def stats(request: Request) -> Response:
    return JSONResponse(_hub(request).stats.snapshot())


async def reset_stats(request: Request) -> Response:
    _hub(request).stats.reset()
    return JSONResponse({})


async def faults(request: Request) -> Response:
    hub = _hub(request)
    if request.method == "DELETE":
        hub.faults.clear()
    elif request.method == "POST":
        body = await read_body(request, _MAX_BODY_BYTES, "the list of fault rules")
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            raise Refusal(400, "fault rules are a JSON list of objects") from None
        rows = value if isinstance(value, list) else [value]
        try:
            hub.faults.add([parse_rule(row) for row in rows])
        except ProtocolError as error:
            raise Refusal(400, str(error)) from None
    return JSONResponse({"rules": hub.faults.to_json()})


ROUTES = [
    Route("/_stats", stats, methods=["GET"]),
    Route("/_stats/reset", reset_stats, methods=["POST"]),
    Route("/_faults", faults, methods=["GET", "POST", "DELETE"]),
]
