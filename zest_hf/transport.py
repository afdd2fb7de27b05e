"""HTTP for the CAS and the CDN: pooled connections, typed errors, credentials only where they belong.

By libcurl, not by requests. Python's `ssl` hands out records of 16 KiB and takes the interpreter's lock for each of
them, so that eight connections spend their time with waiting for it: 1 GB over TLS and loopback took 1.5 times as long
as with hf_xet, while a processor was idle. And requests takes 50 ms of a process's first download, to be loaded and to
read the certificates.
"""

from __future__ import annotations

import email.utils
import os
import re
import urllib.request
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

import certifi

from zest_hf._native.http import HttpClient, HttpFailed, HttpGet, Kind
from zest_hf.errors import CasError, CasUnavailable

MAX_REDIRECTS: Final = 5
MAX_LOCATION_BYTES: Final = 16384

_PROXY_VARIABLES: Final = tuple(
    name for kind in ("http", "https", "all", "no") for name in (f"{kind}_proxy", f"{kind.upper()}_PROXY")
)
_STATUS: Final = re.compile(r"HTTP/[0-9.]+ +([0-9]{3})(?![0-9])(.*)")


class Answer:
    """An answer, its body still unread. A context manager; used by one thread, except for `abort`."""

    def __init__(self, url: str, get: HttpGet) -> None:
        """Waits for the head. Raises HttpFailed."""
        self.url = url
        self._get = get
        first, _, fields = get.head().partition("\n")
        status = _STATUS.match(first)
        if status is None:
            raise HttpFailed(Kind.BROKEN, "the answer does not begin with a status")
        self.status_code = int(status[1])
        self.reason = status[2].strip()
        self.headers: dict[str, str] = {}
        """Names in lower case."""
        for line in fields.splitlines():
            name, colon, value = line.partition(":")
            if colon:
                name, value = name.strip().lower(), value.strip()
                self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value

    def readinto(self, buffer: memoryview) -> int:
        """Put the next bytes into `buffer` and return their number; 0 at the end of the body.

        Waits until it is full, but not for long once something has come. Raises CasUnavailable (retryable).
        """
        try:
            return self._get.read(buffer)
        except HttpFailed as error:
            raise _failure(place(self.url), error) from error

    def abort(self) -> None:
        """Make a readinto that waits in another thread fail now. Any thread; harmless afterwards."""
        self._get.abort()

    def close(self) -> None:
        """The connection is kept if the body was read to its end."""
        self._get.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Transport:
    """A pool of connections; the environment's proxies are honoured. Thread-safe.

    `ca_bundle` takes the place of certifi's certificates. Both timeouts count for every single request:
    no connection within `connect_timeout_s`, or no byte for `read_timeout_s`, ends in CasUnavailable.
    """

    def __init__(
        self,
        *,
        user_agent: str,
        connect_timeout_s: float,
        read_timeout_s: float,
        pool_size: int,
        ca_bundle: str | os.PathLike[str] | None = None,
    ) -> None:
        self._ca_bundle = None if ca_bundle is None else os.fspath(ca_bundle)
        self._client = HttpClient(
            user_agent=user_agent,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            idle_max=pool_size,
        )
        self._proxies: tuple[tuple[str | None, ...] | None, dict[str, str]] = None, {}
        """By what the environment says of them."""

    def get(
        self, url: str, headers: Mapping[str, str], *, bearer: str | None = None, takes_gzip: bool = False
    ) -> Answer:
        """The answer to a GET, its body still unread; the caller closes it. Raises CasUnavailable, CasError.

        Redirects are followed; with a `bearer` only within its origin (scheme, host and port). With `takes_gzip` a body
        that comes packed is unpacked.
        """
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._hop(url, headers, bearer, takes_gzip=takes_gzip)
            location = answer.headers.get("location", "")
            if answer.status_code not in {301, 302, 303, 307, 308} or not location:
                return answer
            answer.close()
            url = _redirected(url, location, bearer is not None)
        raise CasError(f"{place(url)}: more than {MAX_REDIRECTS} redirects")

    def post(self, url: str, headers: Mapping[str, str], body: bytes, *, bearer: str | None = None) -> Answer:
        """The answer to a POST, its body still unread; the caller closes it. Raises CasUnavailable, CasError.

        No redirect is followed.
        """
        # Not asking whether it may be sent saves a round trip.
        return self._hop(url, {**headers, "Expect": ""}, bearer, body)

    def close(self) -> None:
        """Close the idle connections. Bodies in use end by themselves."""
        self._client.close()

    def _hop(
        self,
        url: str,
        headers: Mapping[str, str],
        bearer: str | None,
        body: bytes | None = None,
        *,
        takes_gzip: bool = False,
    ) -> Answer:
        if bearer is not None:
            headers = {**headers, "Authorization": f"Bearer {bearer}"}
        try:
            proxy, no_proxy = self._proxy_of(url)
            get = self._client.ask(
                url,
                headers,
                body=body,
                takes_gzip=takes_gzip,
                proxy=proxy,
                no_proxy=no_proxy,
                trusted=self._trusted(),
            )
            try:
                return Answer(url, get)
            except BaseException:
                get.close()
                raise
        except HttpFailed as error:
            raise _failure(place(url), error, self._trusted()) from error
        except ValueError as error:
            raise CasError(f"{place(url)}: {error}") from error

    def _trusted(self) -> str:
        return self._ca_bundle or certifi.where()

    def _proxy_of(self, url: str) -> tuple[str, str]:
        """A proxy, "" for none, and the hosts that are asked without it."""
        named, proxies = self._proxies
        now_named = tuple(map(os.environ.get, _PROXY_VARIABLES))
        if named != now_named:
            # Goes through the whole environment, and may ask the system: not for each of many small files.
            proxies = urllib.request.getproxies()
            self._proxies = now_named, proxies
        scheme = url.partition(":")[0].lower()
        return proxies.get(scheme) or proxies.get("all") or "", proxies.get("no") or ""


def retry_after_s(answer: Answer, now_s: float) -> float | None:
    """Retry-After (RFC 9110, section 10.2.3) in seconds from `now_s` (Unix time); None if there is none."""
    text = answer.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 20:
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def place(url: str) -> str:
    """Scheme and host of an url: enough for a message, and without its signature."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    except ValueError:
        return "malformed url"


def _failure(where: str, error: HttpFailed, trusted: str = "") -> CasError:
    """The typed form of what libcurl says."""
    if error.kind is Kind.UNTRUSTED:
        hint = "set REQUESTS_CA_BUNDLE if your network has its own certificates"
        using = f", trusting {trusted}" if trusted else ""
        return CasUnavailable(f"{where}: TLS failed ({hint}){using}: {error}")
    if error.kind is Kind.NO_CONNECT:
        return CasUnavailable(f"{where}: did not connect in time", retryable=True)
    if error.kind is Kind.STALLED:
        return CasUnavailable(f"{where}: did not answer in time", retryable=True)
    if error.kind is Kind.BROKEN:
        return CasUnavailable(f"{where}: {error}", retryable=True)
    return CasError(f"{where}: {error}")


def _redirected(url: str, location: str, credentials: bool) -> str:
    if len(location) > MAX_LOCATION_BYTES:
        raise CasError(f"{place(url)}: redirect to an url of {len(location)} characters")
    try:
        target = urljoin(url, location)
        parts, origin = urlsplit(target), urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        same_origin = _origin(parts) == _origin(origin)
    except ValueError:
        usable = same_origin = False
        target = location
    if not usable:
        raise CasError(f"{place(url)}: redirect to something that is no http(s) url")
    if credentials and not same_origin:
        raise CasError(f"{place(url)}: redirects a request with credentials to {place(target)}; refused")
    return target


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
