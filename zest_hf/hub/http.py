"""Small HTTP helpers that every route uses: refusals, ranges, bounded bodies."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from zest_hf.errors import StorageError, ZestError
from zest_hf.terminal import printable


class Refusal(ZestError):
    """An answer that is not a success: status, one clear line, and the headers clients look at.

    ``code`` becomes ``X-Error-Code`` (RepoNotFound, RevisionNotFound, EntryNotFound, GatedRepo), ``extra`` is
    merged into the JSON body.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    def response(self) -> Response:
        line = str(self)
        headers = {"X-Error-Message": _header(line), **self.headers}
        if self.code is not None:
            headers["X-Error-Code"] = self.code
        return JSONResponse({"error": line, **self.extra}, status_code=self.status, headers=headers)


def _header(text: str) -> str:
    """As much of a text as a header can bear: it may name a path, which may have anything in it."""
    return printable(text).encode("latin-1", "replace").decode("latin-1")


def parse_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """A single-range ``Range`` header as half-open bytes, None when there is none.

    The end is cut to ``size_bytes``. Raises Refusal 416 when the range is malformed or begins past the end
    (RFC 9110 section 14).
    """
    if header is None:
        return None
    (only,) = parse_ranges(header, size_bytes, limit=1)
    return only


def parse_ranges(header: str, size_bytes: int, *, limit: int) -> list[tuple[int, int]]:
    """Up to ``limit`` ranges of a ``Range`` header as half-open bytes, in the order given."""
    refused = Refusal(
        416,
        f"the range {header[:100]!r} does not fit a body of {size_bytes} bytes",
        headers={"Content-Range": f"bytes */{size_bytes}"},
    )
    unit, equals, value = header.partition("=")
    parts = value.split(",")
    if unit.strip().lower() != "bytes" or not equals or len(parts) > limit:
        raise refused
    return [_one_range(part.strip(), size_bytes, refused) for part in parts]


def _one_range(part: str, size_bytes: int, refused: Refusal) -> tuple[int, int]:
    first, dash, last = part.partition("-")
    if not dash or len(part) > 40 or not all(s == "" or (s.isascii() and s.isdigit()) for s in (first, last)):
        raise refused
    if first == "":
        if last == "" or int(last) == 0 or size_bytes == 0:
            raise refused
        return max(0, size_bytes - int(last)), size_bytes
    start = int(first)
    end = size_bytes if last == "" else min(int(last) + 1, size_bytes)
    if start >= end:
        raise refused
    return start, end


async def read_body(request: Request, limit_bytes: int, what: str) -> bytearray:
    """The whole request body; Refusal 413 before anything is read when it is announced as too large."""
    _refuse_large(request, limit_bytes, what)
    body = bytearray()
    await _receive(request, limit_bytes, what, body.extend)
    return body


@contextlib.asynccontextmanager
async def spooled_body(request: Request, limit_bytes: int, what: str, directory: Path) -> AsyncIterator[Path]:
    """The request body in a temporary file of ``directory``, which the caller may rename into place.

    Large uploads stay out of memory this way, however many come in at once and however slowly.
    """
    _refuse_large(request, limit_bytes, what)
    descriptor, name = tempfile.mkstemp(dir=directory)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            try:
                await _receive(request, limit_bytes, what, file.write)
            except OSError as error:
                raise StorageError(f"cannot store {what}: {error.strerror}") from error
        yield path
    finally:
        path.unlink(missing_ok=True)


def _refuse_large(request: Request, limit_bytes: int, what: str) -> None:
    announced = request.headers.get("content-length", "0")
    if not announced.isdigit() or int(announced) > limit_bytes:
        raise _too_large(limit_bytes, what)


def _too_large(limit_bytes: int, what: str) -> Refusal:
    return Refusal(413, f"{what} is larger than {limit_bytes} bytes", headers={"Connection": "close"})


async def _receive(request: Request, limit_bytes: int, what: str, write: Callable[[bytes], object]) -> None:
    received = 0
    try:
        async for part in request.stream():
            received += len(part)
            if received > limit_bytes:
                raise _too_large(limit_bytes, what)
            write(part)
    except ClientDisconnect:
        raise Refusal(400, f"{what} ended early") from None


def parse_json_object(body: bytes | bytearray, what: str) -> dict[str, Any]:
    """The JSON object in ``body``; Refusal 400 when it is anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, f"{what} is not valid JSON") from None
    if not isinstance(value, dict):
        raise Refusal(400, f"{what} must be a JSON object")
    return value
