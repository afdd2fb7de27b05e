"""HTTP requests whose answers are received, and decrypted, without the interpreter's lock: libcurl.

Typed over ``native/include/zest_http.h``. A compiled module of its own: libcurl brings thirty libraries, which a seeder
does not need.
"""

from __future__ import annotations

import enum
import os
import re
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from zest_hf.errors import NativeUnavailable

HTTP_ABI = 1

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_MOST_MS = 100
"""A read hands out what it has after so long: on a slow line a caller wants to see progress."""


def _load() -> tuple[Any, Any]:
    try:
        module: Any = import_module("zest_hf._native._zest_http")
    except ImportError as error:
        raise NativeUnavailable(f"the HTTP module of zest_hf does not load on this machine: {error}") from error
    if module.lib.zest_http_abi() != HTTP_ABI:
        raise NativeUnavailable("the HTTP module of zest_hf is of another version: reinstall zest_hf")
    return module.ffi, module.lib


ffi, lib = _load()


class Kind(enum.Enum):
    """Why there is no answer, or no more of it."""

    BAD_REQUEST = lib.ZEST_HTTP_BAD_REQUEST
    """Asking again would not help."""
    UNTRUSTED = lib.ZEST_HTTP_UNTRUSTED
    """Its certificate is not one of those that are trusted."""
    NO_CONNECT = lib.ZEST_HTTP_NO_CONNECT
    """No connection in time."""
    STALLED = lib.ZEST_HTTP_STALLED
    """No byte in time."""
    BROKEN = lib.ZEST_HTTP_BROKEN
    """No connection, or it broke, or was aborted."""


class HttpFailed(Exception):
    """A GET that cannot go on; the text never holds its url."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class HttpClient:
    """Idle connections, used again for the same origin. Thread-safe.

    Every single GET has to have a connection after `connect_timeout_s`, TLS included, and must not go without a byte
    for `read_timeout_s`. At most `idle_max` connections are kept that are not in use.
    """

    __slots__ = ("_client",)

    def __init__(self, *, user_agent: str, connect_timeout_s: float, read_timeout_s: float, idle_max: int) -> None:
        err = ffi.new("zest_http_error *")
        connect_ms, read_ms = (max(1, round(seconds * 1000)) for seconds in (connect_timeout_s, read_timeout_s))
        made = lib.zest_http_client_new(user_agent.encode(), connect_ms, read_ms, idle_max, err)
        if made == ffi.NULL:
            raise _failed(err)
        self._client: Any = ffi.gc(made, lib.zest_http_client_free)

    def ask(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        body: bytes | None = None,
        takes_gzip: bool = False,
        proxy: str = "",
        no_proxy: str = "",
        trusted: str,
    ) -> HttpGet:
        """Ask for `url` by HTTP/1.1, with a `body` by POST; no redirect is followed. With `takes_gzip` the body of the
        answer may come packed, and is unpacked.

        `proxy` is an url, "" for none, but for the hosts of `no_proxy`; `trusted` names a file or a directory of
        certificates. Raises HttpFailed (BAD_REQUEST, or UNTRUSTED if there are no certificates).
        """
        if any(_CONTROL.search(text) for text in (url, *headers, *headers.values())):
            raise HttpFailed(Kind.BAD_REQUEST, "a control character in an url or a header")
        lines = "".join(f"{name}: {value}\n" for name, value in headers.items())
        err = ffi.new("zest_http_error *")
        data = ffi.NULL if body is None else ffi.from_buffer("uint8_t[]", body)
        made = lib.zest_http_get_new(
            self._client,
            url.encode(),
            lines.encode(),
            data,
            0 if body is None else len(body),
            takes_gzip,
            proxy.encode(),
            no_proxy.encode(),
            os.fsencode(trusted),
            err,
        )
        if made == ffi.NULL:
            raise _failed(err)
        return HttpGet(made, data)

    def close(self) -> None:
        """Close what is idle. No connection is kept from now on; GETs go on."""
        lib.zest_http_client_close(self._client)


class HttpGet:
    """One request and its answer; used by one thread, except for `abort`."""

    __slots__ = ("_body", "_err", "_get", "_lock", "is_closed")

    def __init__(self, made: Any, body: Any) -> None:
        self._body = body
        self._get = ffi.gc(made, lib.zest_http_get_free)
        self._err = ffi.new("zest_http_error *")
        self._lock = threading.Lock()
        """Held while the GET must not go away, or goes."""
        self.is_closed = False

    def head(self) -> str:
        """Wait for the answer: its status line and fields as they came. Raises HttpFailed."""
        text, size = ffi.new("char **"), ffi.new("size_t *")
        if lib.zest_http_get_head(self._open(), text, size, self._err) != lib.ZEST_HTTP_OK:
            raise _failed(self._err)
        return bytes(ffi.buffer(text[0], size[0])).decode("latin-1")

    def read(self, buffer: memoryview) -> int:
        """Put the next bytes of the body into `buffer`; how many, 0 only at the end. Raises HttpFailed.

        Waits until the buffer is full, but not for long once something has come.
        """
        count = ffi.new("size_t *")
        with ffi.from_buffer("uint8_t[]", buffer, require_writable=True) as view:
            status = lib.zest_http_get_read(self._open(), view, len(view), _MOST_MS, count, self._err)
        if status != lib.ZEST_HTTP_OK:
            raise _failed(self._err)
        return int(count[0])

    def abort(self) -> None:
        """Make a call that waits in another thread fail now, and every later one. Any thread; harmless afterwards."""
        with self._lock:
            if not self.is_closed:
                lib.zest_http_get_abort(self._get)

    def close(self) -> None:
        """End the GET. Its connection is kept if the body was read to its end. Idempotent."""
        with self._lock:
            if not self.is_closed:
                self.is_closed = True
                ffi.release(self._get)

    def _open(self) -> Any:
        if self.is_closed:
            raise HttpFailed(Kind.BROKEN, "closed")
        return self._get


def _failed(err: Any) -> HttpFailed:
    return HttpFailed(Kind(err.status), ffi.string(err.message).decode("utf-8", "replace"))
