"""The CAS: reconstructions, deduplication, and uploads of xorbs and shards.

Implements the server side of the Xet protocol (https://huggingface.co/docs/xet/api). Upload grants
(``/v1/xorb-grants``) answer 404, upon which clients post xorbs directly.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from zest_hf.core.ids import XetHash, hash_from_text
from zest_hf.core.shard import Shard, ShardXorb, parse_shard, upload_order
from zest_hf.errors import ProtocolError
from zest_hf.hub.auth import Scope, XetClaim
from zest_hf.hub.http import Refusal, parse_range, read_body, spooled_body
from zest_hf.hub.options import MAX_JSON_BODY_BYTES, MAX_SHARD_BODY_BYTES, MAX_XORB_BODY_BYTES
from zest_hf.hub.reconstruction import plan
from zest_hf.hub.state import Hub

DEDUP_LIFETIME_S = 3600
_MANY_RANGES = 256


def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


def _claim(request: Request, scope: Scope) -> XetClaim:
    """The token's claim; a write token may also read."""
    claim = _hub(request).signer.read_token(request.headers.get("authorization"))
    if scope == "write" and claim.scope != "write":
        raise Refusal(403, "a read token cannot be used for uploads")
    return claim


def _hash(request: Request, name: str) -> XetHash:
    try:
        return hash_from_text(request.path_params[name])
    except ProtocolError:
        raise Refusal(
            400, f"{request.path_params[name][:100]!r} is not a Xet hash: 64 hexadecimal digits"
        ) from None


def _prefix(request: Request) -> None:
    if request.path_params["prefix"] not in ("default", "default-merkledb"):
        raise Refusal(400, f"unknown prefix {request.path_params['prefix'][:100]!r}, accepted is default")


async def reconstruct_v1(request: Request) -> Response:
    return await _reconstruct(request, 1)


async def reconstruct_v2(request: Request) -> Response:
    if not _hub(request).options.v2:
        raise Refusal(404, "this hub only speaks version 1")
    return await _reconstruct(request, 2)


async def _reconstruct(request: Request, version: int) -> Response:
    claim = _claim(request, "read")
    body = await run_in_threadpool(_reconstruction, request, claim, _hash(request, "file"), version)
    return JSONResponse(body)


def _reconstruction(request: Request, claim: XetClaim, file_hash: XetHash, version: int) -> dict[str, Any]:
    hub = _hub(request)
    file = hub.store.file(file_hash)
    if file is None:
        raise Refusal(404, "no file of that hash is stored here")
    if not hub.store.repo_has_file(claim.repo_id, file_hash):
        raise Refusal(403, "the token is for another repository than this file")
    wanted = parse_range(request.headers.get("range"), file.size_bytes)
    start, end = wanted if wanted is not None else (0, file.size_bytes)
    the_plan = plan(hub.store, file, start, end)
    make_url = hub.url_maker(request)
    if version == 1:
        return the_plan.to_v1(make_url)
    return the_plan.to_v2(make_url, ranges_per_url=_MANY_RANGES if hub.options.multi_range else 1)


async def query_chunk(request: Request) -> Response:
    claim = _claim(request, "read")
    _prefix(request)
    chunk = _hash(request, "chunk")
    body = await run_in_threadpool(_dedup_answer, _hub(request), chunk, claim.repo_id)
    if body is None:
        raise Refusal(404, "no chunk of that hash is known")
    return Response(body, media_type="application/octet-stream")


def _dedup_answer(hub: Hub, chunk: bytes, repo_id: int) -> bytes | None:
    xorbs = hub.store.dedup_shard(chunk, repo_id)
    if not xorbs:
        return None
    now_s = int(time.time())
    described = sorted(
        (ShardXorb(x.xorb, x.hashes, x.lengths, packed_bytes=x.size_bytes) for x in xorbs),
        key=lambda x: upload_order(x.xorb),
    )
    # Keyed, so that the answer tells about no chunk that the client does not have.
    shard = Shard((), tuple(described)).keyed(secrets.token_bytes(32), now_s, now_s + DEDUP_LIFETIME_S)
    return shard.to_bytes()


async def grant_xorb(request: Request) -> Response:
    _claim(request, "write")
    raise Refusal(404, "this hub grants no direct uploads: post the xorb to /v1/xorbs")


async def upload_xorb(request: Request) -> Response:
    _claim(request, "write")
    _prefix(request)
    xorb = _hash(request, "xorb")
    hub = _hub(request)
    async with spooled_body(request, MAX_XORB_BODY_BYTES, "the xorb", hub.store.incoming) as path, hub.checks:
        inserted = await run_in_threadpool(hub.store.add_xorb, xorb, path)
    return JSONResponse({"was_inserted": inserted})


async def _add_shard(request: Request) -> bool:
    claim = _claim(request, "write")
    hub = _hub(request)
    async with (
        spooled_body(request, MAX_SHARD_BODY_BYTES, "the shard", hub.store.incoming) as path,
        hub.checks,
    ):
        return await run_in_threadpool(_check_shard, hub, path, claim.repo_id)


def _check_shard(hub: Hub, path: Path, repo_id: int) -> bool:
    return hub.store.add_shard(parse_shard(path.read_bytes()), repo_id)


async def upload_shard_v1(request: Request) -> Response:
    return JSONResponse({"result": int(await _add_shard(request))})


async def upload_shard_v2(request: Request) -> Response:
    if not _hub(request).options.v2:
        raise Refusal(404, "this hub only speaks version 1")
    await _add_shard(request)
    return Response(b'{"type":"result"}\n', media_type="application/x-ndjson")


async def telemetry(request: Request) -> Response:
    await read_body(request, MAX_JSON_BODY_BYTES, "the telemetry")
    return Response(status_code=204)


ROUTES = [
    Route("/v1/reconstructions/{file}", reconstruct_v1, methods=["GET"]),
    Route("/v2/reconstructions/{file}", reconstruct_v2, methods=["GET"]),
    Route("/v1/chunks/{prefix}/{chunk}", query_chunk, methods=["GET"]),
    Route("/v1/xorb-grants/{prefix}/{xorb}", grant_xorb, methods=["POST"]),
    Route("/v1/xorbs/{prefix}/{xorb}", upload_xorb, methods=["POST"]),
    Route("/v1/shards", upload_shard_v1, methods=["POST"]),
    Route("/v2/shards", upload_shard_v2, methods=["POST"]),
    Route("/v1/telemetry", telemetry, methods=["POST"]),
]
