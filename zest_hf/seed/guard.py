"""Who may ask the status page.

Four kinds of strangers: a web page elsewhere that has the user's browser ask (its Origin gives it away); one whose
name is made to resolve to this machine (its Host does); other users of this machine, who may look and not touch; and,
where the page is not on loopback alone, everybody on the network (they do not have the token, which is in a file that
the user alone may read).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import ipaddress
import os
import secrets
import socket
import tempfile
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from zest_hf.errors import StorageError
from zest_hf.seed.other_users import is_another_users

TOKEN_NAME = "status.token"
MIN_TOKEN_BYTES, MAX_TOKEN_BYTES = 16, 256
LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})
FREE_PATHS = frozenset({"/v1/health"})
"""Says no more than that it runs; what restarts containers has no token."""


class Guard:
    """Answers what may not be asked, and hands on the rest. ``token``: None where only loopback can ask."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(Headers(scope=scope), scope) if scope["type"] == "http" else None
        if refusal is None and self._token is None and scope.get("method") not in LOOKING:
            client, server = scope.get("client"), scope.get("server")
            # Of a connection that was reset before it was looked at nobody knows whose it was.
            if not client or not server or await run_in_threadpool(is_another_users, client, server):
                refusal = _no(403, "only the user whose seeder this is may do that")
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, headers: Headers, scope: Scope) -> Response | None:
        host = headers.get("host", "")
        if not _is_ours(host, loopback=self._token is None):
            return _no(400, "this name is not this machine's: ask by its address")
        own = (f"http://{host}", f"https://{host}")
        if any(origin not in own for origin in headers.getlist("origin")) or _is_foreign(headers, scope):
            return _no(403, "pages elsewhere may not ask")
        if self._token is not None and scope["path"] not in FREE_PATHS and not _has(headers, self._token):
            answer = _no(401, f"a token is needed: it is in {TOKEN_NAME} of the seeder's ZEST_HOME")
            answer.headers["WWW-Authenticate"] = 'Basic realm="zest-seed", charset="UTF-8"'
            return answer
        return None


def _no(status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status_code=status)


def _is_ours(host: str, *, loopback: bool) -> bool:
    """Whether the Host header names this machine; the port is another one behind a tunnel."""
    name = host.partition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
    name = name.lower().rstrip(".")
    own = socket.gethostname().lower()
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(name)
        return address.is_loopback or not loopback
    return name == "localhost" or (not loopback and (name == own or name.startswith(f"{own}.")))


def _is_foreign(headers: Headers, scope: Scope) -> bool:
    """By what browsers say of themselves: not everything has an Origin. A link to the page may be followed."""
    site = headers.get("sec-fetch-site", "none")
    followed = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
    return site not in ("none", "same-origin") and not followed


def _has(headers: Headers, token: str) -> bool:
    """As a bearer's token, or as the password of anybody, for which browsers ask."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    given = b""
    if kind.lower() == "bearer":
        given = value.strip().encode("latin-1")
    elif kind.lower() == "basic":
        with contextlib.suppress(binascii.Error, ValueError):
            given = base64.b64decode(value.strip(), validate=True).partition(b":")[2]
    return hmac.compare_digest(given, token.encode())


def is_loopback(host: str) -> bool:
    """Whether who listens on this address hears this machine alone."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def page_token(home: Path) -> str:
    """The token in ``home``; made if there is none. Raises StorageError."""
    path = home / TOKEN_NAME
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make_token(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}; the status page needs it") from error
    return read_token(home)


def _make_token(path: Path) -> None:
    """Unless another process has made one meanwhile, which its page goes by."""
    fd, scratch = tempfile.mkstemp(dir=path.parent, prefix=TOKEN_NAME)  # readable by the user alone
    try:
        with os.fdopen(fd, "w") as stream:
            stream.write(secrets.token_urlsafe(32) + "\n")
        try:
            os.link(scratch, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            os.replace(scratch, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(scratch)


def read_token(home: Path) -> str:
    """Raises StorageError when there is none, or none that is good."""
    path = home / TOKEN_NAME
    try:
        with path.open("rb") as stream:
            token = stream.read(MAX_TOKEN_BYTES + 2).strip()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    if not MIN_TOKEN_BYTES <= len(token) <= MAX_TOKEN_BYTES or not token.isascii():
        raise StorageError(f"{path} holds no token of {MIN_TOKEN_BYTES}..{MAX_TOKEN_BYTES} characters: remove the file")
    return token.decode("ascii")
