"""Client of the content-addressed store: reconstructions (Xet specification, V2 and V1) and ranges of xorbs.

What it does not do: prove anything (that is the manifest's business), retry the body of a range (the
engine goes on elsewhere with what is missing), or know the Hub (the token comes from a function).
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from zest_hf.core.ids import XetHash, hash_to_text
from zest_hf.core.reconstruction import FetchRange, Reconstruction, parse_v1, parse_v2
from zest_hf.core.retry import RetryPolicy
from zest_hf.errors import (
    CasError,
    CasForbidden,
    CasNotFound,
    CasRangeError,
    CasUnauthorized,
    CasUnavailable,
    ReconstructionError,
    UrlExpired,
)
from zest_hf.http_body import RangeBody, ranged_body, read_limited
from zest_hf.transport import Answer, Transport, place, retry_after_s

__all__ = ["CasClient", "CasToken", "RangeBody", "TokenProvider"]

log = logging.getLogger("zest_hf.cas")

MAX_JSON_BYTES: Final = 64 << 20
"""A term takes about 160 bytes of JSON and a signed url 1 KiB: room for 100,000 terms with half as many
urls.
"""

REFRESH_BEFORE_EXPIRY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class CasToken:
    """Where the CAS is (`url`) and the bearer token for it; `expires_at_s` is Unix time in seconds."""

    url: str
    token: str = field(repr=False)
    expires_at_s: float


TokenProvider = Callable[[bool], CasToken]
"""Gives a token; True forbids one from a cache. Called under a lock, one call at a time per client."""


_T = TypeVar("_T")


def _join(base: str, path: str) -> str:
    return base.rstrip("/") + path


class CasClient:
    """Thread-safe; one connection pool. Belongs to the process that made it: not to be used after a fork.

    `deadline_s` bounds the time from the first attempt to the last retry of a reconstruction. The clocks,
    the sleep and the random source exist for tests; `sleep` is by default one that `close` interrupts.
    """

    def __init__(
        self,
        token_provider: TokenProvider,
        *,
        user_agent: str,
        connect_timeout_s: float = 10.0,
        read_timeout_s: float = 30.0,
        deadline_s: float = 60.0,
        pool_size: int = 32,
        ca_bundle: str | os.PathLike[str] | None = None,
        retry: RetryPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], object] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._provider = token_provider
        self._transport = Transport(
            user_agent=user_agent,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            pool_size=pool_size,
            ca_bundle=ca_bundle,
        )
        self._retry = replace(retry or RetryPolicy(), deadline_s=deadline_s)
        self._clock, self._wall_clock, self._jitter = clock, wall_clock, jitter
        self._closed = threading.Event()
        self._sleep = sleep or self._closed.wait
        self._token_lock = threading.Lock()
        self._token: CasToken | None = None
        self._v1_only: set[str] = set()
        """CAS urls that have shown to know only V1. Set operations are atomic, and a lost one costs a
        request.
        """

    def reconstruction(self, file: XetHash, byte_range: tuple[int, int] | None = None) -> Reconstruction:
        """The plan of `file`, or of its bytes byte_range (half-open).

        Raises CasNotFound, CasUnauthorized (also after a refresh), CasForbidden, CasRangeError (begins
        past the end), CasUnavailable (after retries within the deadline), ReconstructionError, and what
        the token provider raises.
        """
        headers = {"Accept": "application/json"}
        if byte_range is not None:
            first, end = byte_range
            if not 0 <= first < end:
                raise CasRangeError(f"bytes {first}..{end} of a file are no range", status=416)
            headers["Range"] = f"bytes={first}-{end - 1}"

        base = self._current_token().url
        if base not in self._v1_only:
            try:
                return parse_v2(self._json("v2", file, headers))
            except CasError as error:
                if error.status not in {404, 501}:
                    raise
        plan = parse_v1(self._json("v1", file, headers))
        # Only now: a 404 of V2 alone could as well have meant the file.
        self._v1_only.add(base)
        return plan

    def open_range(self, fetch: FetchRange) -> RangeBody:
        """Ask the CDN for the serialized bytes of `fetch`; use the result in a with statement.

        No retry and no credentials. Raises UrlExpired (ask for the reconstruction again), CasNotFound,
        CasRangeError, CasUnavailable; `retryable` says whether the same range may be asked for again.
        """
        headers = {"Range": f"bytes={fetch.byte_start}-{fetch.byte_end - 1}", "Accept-Encoding": "identity"}
        self._check_open()
        response = self._transport.get(fetch.url, headers)
        if response.status_code in {200, 206}:
            return ranged_body(response, fetch.byte_start, fetch.byte_end)
        with response:
            if response.status_code in {401, 403, 410}:
                raise UrlExpired(f"{place(fetch.url)}: url expired", status=response.status_code)
            raise self._refusal(response)

    def close(self) -> None:
        """Wake up whoever waits for a retry and close the idle connections. Idempotent."""
        self._closed.set()
        self._transport.close()

    def _json(self, version: str, file: XetHash, headers: dict[str, str]) -> object:
        """GET one reconstruction, with retries and one refresh of the token; the decoded JSON."""
        path = f"/{version}/reconstructions/{hash_to_text(file)}"
        return self._retrying(lambda token, until_s: self._attempt(_join(token.url, path), headers, token, until_s))

    def _retrying(self, attempt_with: Callable[[CasToken, float], _T]) -> _T:
        """What `attempt_with` (the token, the end of the deadline) returns at last: repeated while the CAS is
        unavailable, and once with a fresh token.
        """
        began = self._clock()
        attempt = 0
        refreshed = False
        while True:
            self._check_open()
            token = self._current_token()
            try:
                return attempt_with(token, began + self._retry.deadline_s)
            except CasUnauthorized:
                if refreshed:
                    raise
                refreshed = True
                self._replace_token(token)
                continue
            except CasUnavailable as error:
                if not error.retryable:
                    raise
                delay = self._retry.delay_s(
                    attempt, self._clock() - began, self._jitter(), error.retry_after_s
                )
                if delay is None:
                    raise
                log.info("%s; trying again in %.1f s", error, delay)
                attempt += 1
                self._sleep(delay)

    def _attempt(self, url: str, headers: dict[str, str], token: CasToken, until_s: float) -> object:
        response = self._transport.get(url, headers, bearer=token.token, takes_gzip=True)
        if response.status_code not in {200, 206}:
            with response:
                raise self._refusal(response)
        data = read_limited(response, MAX_JSON_BYTES, until_s=until_s, clock=self._clock)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ReconstructionError(f"{place(url)}: the reconstruction is not JSON: {error}") from None

    def _refusal(self, response: Answer) -> CasError:
        status = response.status_code
        message = f"{place(response.url)}: HTTP {status} {(response.reason or '')[:80]}"
        if status == 401:
            return CasUnauthorized(message, status=status)
        if status == 403:
            return CasForbidden(message, status=status)
        if status == 404:
            return CasNotFound(message, status=status)
        if status == 416:
            return CasRangeError(message, status=status)
        if self._retry.is_retryable(status):
            wait_s = retry_after_s(response, self._wall_clock())
            return CasUnavailable(message, status=status, retryable=True, retry_after_s=wait_s)
        if status >= 500:
            return CasUnavailable(message, status=status)
        return CasError(message, status=status)

    def _current_token(self) -> CasToken:
        with self._token_lock:
            token = self._token
            if token is None or token.expires_at_s - self._wall_clock() < REFRESH_BEFORE_EXPIRY_S:
                # A provider's cache may hold the very token that is about to expire.
                token = self._token = self._provider(token is not None)
            return token

    def _replace_token(self, refused: CasToken) -> None:
        with self._token_lock:
            # Another thread may have been quicker; a second refresh would only load the Hub.
            if self._token == refused:
                self._token = self._provider(True)

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise CasUnavailable("the CAS client is closed")
