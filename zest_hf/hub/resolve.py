"""``/{repo}/resolve/{revision}/{path}``: metadata for clients that speak Xet, bytes for those that do not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from zest_hf._native import codec
from zest_hf.core.ids import hash_from_text
from zest_hf.core.reconstruction import Term
from zest_hf.errors import StorageError
from zest_hf.hub.access import find_repo, require_content, segments
from zest_hf.hub.api_tokens import xet_auth_url
from zest_hf.hub.cdn import send_file
from zest_hf.hub.http import Refusal, parse_range
from zest_hf.hub.protocol import CONNECTION
from zest_hf.hub.reconstruction import plan
from zest_hf.hub.repos import KINDS, Commit, Entry, Repo
from zest_hf.hub.state import Hub
from zest_hf.hub.store import CasStore

# A file is unpacked piece by piece: the first byte leaves early and scratch space stays small.
_PIECE_CHUNKS = 128
_READ_BYTES = 1 << 20


class FileBody(Response):
    """Sends prepared headers and then what ``pieces`` yields: open files and the part of each to send."""

    def __init__(
        self, status: int, headers: dict[str, str], pieces: Iterator[tuple[BinaryIO, int, int]]
    ) -> None:
        super().__init__(status_code=status, headers=headers)
        self._pieces = pieces

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            connection = scope.get("extensions", {}).get(CONNECTION)
            while (piece := await run_in_threadpool(next, self._pieces, None)) is not None:
                if connection is not None and not connection.is_open:
                    piece[0].close()
                    return
                file, start, end = piece
                with file:
                    await send_file(scope, send, file, start, end, more_body=True)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def resolve(request: Request) -> Response:
    return await run_in_threadpool(_resolve, request)


def _resolve(request: Request) -> Response:
    hub: Hub = request.app.state.hub
    parts = segments(request)
    kind = KINDS.get(parts[0], "model")
    if parts[0] in KINDS:
        parts = parts[1:]
    at = 2 if len(parts) > 2 and parts[2] == "resolve" else 1
    if len(parts) < at + 3 or parts[at] != "resolve":
        raise Refusal(404, "this hub has nothing under this path")
    repo = find_repo(request, hub, kind, "/".join(parts[:at]))
    require_content(request, hub, repo)
    commit = hub.repos.commit_of(repo, parts[at + 1])
    path = "/".join(parts[at + 2 :])
    entry = commit.entries().get(path)
    if entry is None:
        raise Refusal(404, "Entry not found", code="EntryNotFound", headers={"X-Repo-Commit": commit.sha})
    return _file_response(request, hub, repo, commit, entry)


def _file_response(request: Request, hub: Hub, repo: Repo, commit: Commit, entry: Entry) -> Response:
    wanted = parse_range(request.headers.get("range"), entry.size_bytes) if request.method == "GET" else None
    start, end = wanted if wanted is not None else (0, entry.size_bytes)
    name = quote(entry.path.rpartition("/")[2])
    headers = {
        "X-Repo-Commit": commit.sha,
        "ETag": f'"{entry.sha256 or entry.oid}"',
        "Accept-Ranges": "bytes",
        "Content-Length": str(end - start),
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f"inline; filename*=UTF-8''{name}",
        "Access-Control-Expose-Headers": "X-Repo-Commit,X-Linked-Size,X-Linked-ETag,X-Xet-Hash",
    }
    if wanted is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{entry.size_bytes}"
    status = 200 if wanted is None else 206
    if entry.xet_hash is None:
        return FileBody(status, headers, _small_pieces(hub, entry, start, end))
    auth = xet_auth_url(hub, request, repo, commit.sha)
    rebuild = f"{hub.base_url(request)}/v1/reconstructions/{entry.xet_hash}"
    headers |= {
        "X-Linked-Etag": f'"{entry.sha256}"',
        "X-Linked-Size": str(entry.size_bytes),
        "X-Xet-Hash": entry.xet_hash,
        "Link": f'<{auth}>; rel="xet-auth", <{rebuild}>; rel="xet-reconstruction-info"',
    }
    return FileBody(status, headers, _xet_pieces(hub.store, entry.xet_hash, start, end))


def _small_pieces(hub: Hub, entry: Entry, start: int, end: int) -> Iterator[tuple[BinaryIO, int, int]]:
    if start < end:
        yield open(hub.repos.blob_path(entry.oid), "rb", buffering=0), start, end  # noqa: SIM115


def _xet_pieces(store: CasStore, xet_hash: str, start: int, end: int) -> Iterator[tuple[BinaryIO, int, int]]:
    file = store.file(hash_from_text(xet_hash))
    if file is None:
        raise StorageError(f"file {xet_hash} is missing from the hub's state")
    if start >= end:
        return
    the_plan = plan(store, file, start, end)
    skip = the_plan.offset_into_first_range
    left = end - start
    for term in the_plan.terms:
        for first in range(term.start, term.end, _PIECE_CHUNKS):
            last = min(first + _PIECE_CHUNKS, term.end)
            scratch, size_bytes = _unpack(store, term, first, last)
            stop = min(size_bytes, skip + left)
            if skip < stop:
                yield scratch, skip, stop
                left -= stop - skip
            else:
                scratch.close()
            skip = max(0, skip - size_bytes)


def _unpack(store: CasStore, term: Term, first: int, last: int) -> tuple[BinaryIO, int]:
    """Chunks first..last of a xorb, unpacked into a scratch file, and their bytes; every chunk is checked."""
    xorb = store.xorb(term.xorb)
    assert xorb is not None
    scratch = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (the caller closes it)
    expected = xorb.hashes[32 * first : 32 * last]
    unpacker = codec.Unpacker(scratch.fileno(), first, last, [(first, last, 0)], expected)
    with open(store.xorb_path_of(term.xorb), "rb", buffering=0) as packed:
        packed.seek(xorb.packed_offsets[first])
        left = xorb.packed_offsets[last] - xorb.packed_offsets[first]
        while left:
            block = packed.read(min(_READ_BYTES, left))
            if not block:
                raise StorageError("a xorb is shorter on disk than the hub's state says")
            unpacker.feed(block)
            left -= len(block)
    unpacker.finish()
    return scratch, sum(xorb.lengths[first:last])


ROUTES = [Route("/{path:path}", resolve, methods=["GET", "HEAD"])]
