"""Xet tokens and the visibility of repositories, from the Hub's token route.

`GET {endpoint}/api/{models|datasets|spaces}/{repo}/xet-read-token/{revision}` answers with the CAS url, a
short-lived token and its expiry, in headers and again in a JSON body. It is asked through the Hub's own HTTP
client, so that proxies, certificates, client factories and offline mode count; the user's token goes to this
route and nowhere else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from zest_hf.errors import (
    CasError,
    CasForbidden,
    CasNotFound,
    CasUnauthorized,
    CasUnavailable,
    ProtocolError,
    ZestError,
)

if TYPE_CHECKING:
    from zest_hf.cas import CasToken

_log = logging.getLogger("zest_hf.hook")

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

REFRESH_EARLY_S = 60.0
ANONYMOUS_TIMEOUT_S = 5.0
TOKEN_RETRIES = 2
MAX_TOKEN_CHARS = 16 * 1024
MAX_URL_CHARS = 2048
MAX_BODY_BYTES = 64 * 1024
MAX_REASON_CHARS = 200
MAX_CACHED = 1000
VISIBLE_FOR_S = 600.0
ASK_AGAIN_AFTER_S = 30.0

_RETRIED_STATUS = (408, 429, 500, 502, 503, 504)
_ROUTE = re.compile(
    r"(?P<endpoint>https?://[^?#]+?)/api/(?P<kind>models|datasets|spaces)/(?P<repo>[^/?#]+(?:/[^/?#]+)?)"
    r"/xet-read-token(?:[/?#].*)?"
)


@dataclass(frozen=True)
class Route:
    """The repository behind a token route. ``repo_type`` is "model", "dataset" or "space"."""

    endpoint: str
    repo_type: str
    repo_id: str


def parse_route(url: str) -> Route | None:
    """The repository behind a token route; None for other urls, a bucket's say."""
    match = _ROUTE.fullmatch(url) if len(url) <= MAX_URL_CHARS else None
    if match is None:
        return None
    return Route(match["endpoint"], match["kind"].removesuffix("s"), unquote(match["repo"]))


@dataclass(frozen=True)
class _Cached:
    token: CasToken
    fetched_at_s: float  # monotonic
    anonymous: bool  # the request that brought it carried no credentials at all


class _Tokens:
    """Process-wide: one request per (route, authorization), however many files wait for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.key_locks: dict[Hashable, threading.Lock] = {}
        self.tokens: dict[tuple[str, str], _Cached] = {}
        self.public: dict[Route, tuple[bool, float]] = {}  # with the monotonic time until which it is good
        self.connections: dict[tuple[str, ...], Connection] = {}

    def lock_for(self, key: Hashable) -> threading.Lock:
        with self.lock:
            # That of who has waited for very long is forgotten: then two may ask the same.
            return self.key_locks.get(key) or _kept(self.key_locks, key, threading.Lock(), 2 * MAX_CACHED)

    def keep(self, key: tuple[str, str], cached: _Cached) -> None:
        with self.lock:
            _kept(self.tokens, key, cached)

    def keep_public(self, route: Route, public: bool, until_s: float) -> None:
        with self.lock:
            _kept(self.public, route, (public, until_s))


def _kept(there: dict[K, V], key: K, value: V, most: int = MAX_CACHED) -> V:
    """``value``, which is put there; the oldest goes where there are too many."""
    there.pop(key, None)
    while len(there) >= most:
        del there[next(iter(there))]
    there[key] = value
    return value


_shared = _Tokens()


def _after_fork_in_child() -> None:
    # The parent's threads may have held any of the locks. What was learned stays good.
    for field in ("lock", "key_locks"):
        setattr(_shared, field, getattr(_Tokens(), field))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def connect(url: str, headers: Mapping[str, str]) -> Connection:
    """The connection for a token route and the Hub's request headers.

    All files of a revision get the same one, by which the engine knows that they can share more. Raises
    ProtocolError for a route that `parse_route` does not know.
    """
    from zest_hf.download import RepoRef
    from zest_hf.engine import get_engine

    route = parse_route(url)
    if route is None:
        raise ProtocolError("the Hub named a token route of an unknown form")
    key = (url, *sorted(f"{name.lower()}: {value}" for name, value in headers.items()))
    with _shared.lock:
        connection = _shared.connections.get(key)
        if connection is None:
            repo = RepoRef(route.endpoint, route.repo_type, route.repo_id)
            connection = Connection(
                url,
                route,
                headers,
                remembered=lambda: get_engine().remembered_visibility(repo),
                remember=lambda public: get_engine().remember_visibility(repo, public),
            )
            _kept(_shared.connections, key, connection)
        return connection


class Connection:
    """What files need to know about their repository.

    ``url`` is the token route, ``headers`` the Hub's request headers with the user's token in them.
    ``remembered`` and ``remember`` keep the visibility of the repository over processes.
    """

    def __init__(
        self,
        url: str,
        route: Route,
        headers: Mapping[str, str],
        *,
        remembered: Callable[[], bool | None] = lambda: None,
        remember: Callable[[bool], None] = lambda _public: None,
    ) -> None:
        self.route = route
        self._url, self._headers = url, dict(headers)
        self._remembered, self._remember = remembered, remember
        authorization = next((v for k, v in headers.items() if k.lower() == "authorization"), "")
        self._key = (url, authorization)

    def token(self, force: bool) -> CasToken:
        """The engine's `TokenProvider`: a token that is good for another minute at least.

        ``force``: one that was fetched after this call began. Raises CasError or ProtocolError.
        """
        asked_at_s = time.monotonic()
        with _shared.lock_for(self._key):
            cached = _shared.tokens.get(self._key)
            if cached is not None and self._is_good(cached, asked_at_s if force else None):
                return cached.token
            cached = self._fetch()
            _shared.keep(self._key, cached)
            return cached.token

    def is_public_with_token(self) -> bool:
        """As `is_public`, for a download: without credentials the token that it needs anyway is the answer."""
        if self._key[1] == "":
            with contextlib.suppress(Exception):  # the download itself will say what is wrong
                self.token(False)
        return self.is_public()

    def is_public(self) -> bool:
        """Whether the Hub shows the repository to everyone; False as long as that is not known.

        May wait for one request of at most `ANONYMOUS_TIMEOUT_S`. Raises nothing.
        """
        if self._key[1] == "":
            cached = _shared.tokens.get(self._key)
            if cached is not None and cached.anonymous and self._is_good(cached, None):
                return True
        with _shared.lock_for(self.route):
            public, good_until_s = _shared.public.get(self.route, (False, 0.0))
            if time.monotonic() < good_until_s:
                return public
            known: bool | None = None
            try:
                known = self._remembered()
                if known is None:
                    known = self._ask_anonymously()
                    if known is not None:
                        self._remember(known)
            except Exception as error:
                _log.debug("whether %s is public is not known: %s", self.route.repo_id, error)
            good_for_s = ASK_AGAIN_AFTER_S if known is None else VISIBLE_FOR_S
            _shared.keep_public(self.route, bool(known), time.monotonic() + good_for_s)
            return bool(known)

    def known_to_be_public(self) -> bool | None:
        """True if `is_public` would say so without asking anybody; None if it might have to ask."""
        cached = _shared.tokens.get(self._key)
        if self._key[1] == "" and cached is not None and cached.anonymous and self._is_good(cached, None):
            return True
        public, good_until_s = _shared.public.get(self.route, (False, 0.0))
        return True if public and time.monotonic() < good_until_s else None

    @staticmethod
    def _is_good(cached: _Cached, fetched_after_s: float | None) -> bool:
        if fetched_after_s is not None and cached.fetched_at_s < fetched_after_s:
            return False
        return cached.token.expires_at_s - REFRESH_EARLY_S > time.time()

    def _fetch(self) -> _Cached:
        from huggingface_hub import constants
        from huggingface_hub.utils._http import hf_raise_for_status, http_backoff

        try:
            response = http_backoff(
                "GET",
                self._url,
                max_retries=TOKEN_RETRIES,
                retry_on_status_codes=_RETRIED_STATUS,
                headers=self._headers,
                timeout=constants.HF_HUB_ETAG_TIMEOUT,
            )
            hf_raise_for_status(response)
        except Exception as error:
            raise as_cas_error(error) from error
        anonymous = _was_anonymous(response)
        return _Cached(parse_token(response), time.monotonic(), anonymous)

    def _ask_anonymously(self) -> bool | None:
        from huggingface_hub.utils._http import get_session

        agent = {k: v for k, v in self._headers.items() if k.lower() == "user-agent"}
        # `auth`: without it a .netrc entry for the host would make the request somebody's.
        response: Any = get_session().get(
            self._url, headers=agent, timeout=ANONYMOUS_TIMEOUT_S, auth=lambda request: request
        )
        if not _was_anonymous(response):
            return None
        if response.status_code == 200:
            # A login page or a captive portal answers 200 as well: only a token for everyone says "public".
            try:
                parse_token(response)
            except ProtocolError:
                return None
            return True
        return False if response.status_code in (401, 403, 404) else None


def _was_anonymous(response: Any) -> bool:
    """Judged by what was sent: client factories, cookies and .netrc files add credentials on their own."""
    sent = {str(name).lower() for name in response.request.headers}
    return not sent & {"authorization", "cookie"}


def parse_token(response: Any) -> CasToken:
    from zest_hf.cas import CasToken

    headers = response.headers
    found = [headers.get(f"X-Xet-{name}") for name in ("Cas-Url", "Access-Token", "Token-Expiration")]
    if None in found:
        try:
            body: Any = response.json() if len(response.content) <= MAX_BODY_BYTES else None
            found = [body[name] for name in ("casUrl", "accessToken", "exp")]
        except (ValueError, TypeError, KeyError) as error:
            raise ProtocolError("the Hub's answer to the request for a Xet token holds no token") from error
    url, token, expires_at = found
    if not isinstance(url, str) or not re.fullmatch(r"https?://\S+", url) or len(url) > MAX_URL_CHARS:
        raise ProtocolError("the Hub named a CAS url that is not an http(s) url")
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token) or len(token) > MAX_TOKEN_CHARS:
        raise ProtocolError("the Hub's Xet token is not a token")
    try:
        expires_at_s = float(int(expires_at))
    except (TypeError, ValueError, OverflowError) as error:
        raise ProtocolError("the Hub's Xet token has no expiry") from error
    return CasToken(url, token, expires_at_s)


def as_cas_error(error: Exception) -> ZestError:
    """From HfHubHTTPError or whatever the HTTP library of the Hub's client raises (three of them so far)."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if not isinstance(status, int):
        reason = " ".join(str(error).split())[:MAX_REASON_CHARS] or type(error).__name__
        return CasUnavailable(f"the Hub cannot be reached for a Xet token: {reason}", retryable=True)
    said = " ".join(str(getattr(error, "server_message", None) or "").split())[:MAX_REASON_CHARS]
    message = f"the Hub answered {status} to the request for a Xet token{': ' if said else ''}{said}"
    kinds: dict[int, type[CasError]] = {401: CasUnauthorized, 403: CasForbidden, 404: CasNotFound}
    if status in _RETRIED_STATUS:
        return CasUnavailable(message, status=status, retryable=True)
    return kinds.get(status, CasError)(message, status=status)
