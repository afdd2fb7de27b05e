"""HTTP for the CAS and the CDN: pooled connections, typed errors, credentials only where they belong.

Small answers come by requests. The bodies of ranges, which are all the bytes, come by libcurl: `ssl` hands out records
of 16 KiB and takes the interpreter's lock for each of them, so that eight connections spend their time with waiting for
it (1 GB over loopback: 1.5 times as long as hf_xet, with one processor idle).

Requests are sent through the session's adapter one hop at a time rather than with `Session.request`, because
that one follows redirects on its own terms: it keeps an Authorization header on some of them, reads netrc
for others, and reads the body of a redirect without any limit.
"""

from __future__ import annotations

import email.utils
import os
import ssl
import threading
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
import urllib3
from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import extract_zipped_paths, prepend_scheme_if_needed, select_proxy

from zest_hf.errors import CasError, CasUnavailable

if TYPE_CHECKING:
    from zest_hf._native.http import HttpClient, HttpFailed, HttpGet

MAX_REDIRECTS: Final = 5
MAX_LOCATION_BYTES: Final = 16384
MAX_ORIGINS: Final = 64

_TLS_HINT: Final = "set REQUESTS_CA_BUNDLE if your network has its own certificates"

_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_VARIABLES: Final = (*_PROXIES, *map(str.upper, _PROXIES), "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""What requests asks the environment for."""


class Answer(Protocol):
    """What the head of an answer says."""

    @property
    def url(self) -> str: ...
    @property
    def status_code(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def headers(self) -> MutableMapping[str, str]: ...

    def close(self) -> None: ...


_A = TypeVar("_A", bound=Answer)


class BulkAnswer:
    """An answer whose body is read into buffers, without the interpreter's lock. Used by one thread, except for `abort`."""

    def __init__(self, url: str, get: HttpGet) -> None:
        """Waits for the head. Raises HttpFailed."""
        self.url = url
        self._get = get
        status, _, fields = get.head().partition("\n")
        words = status.split(None, 2)
        self.status_code = int(words[1])
        self.reason = words[2].strip() if len(words) > 2 else ""
        self.headers: MutableMapping[str, str] = CaseInsensitiveDict()
        for line in fields.splitlines():
            name, colon, value = line.partition(":")
            if colon:
                before = self.headers.get(name)
                self.headers[name] = value.strip() if before is None else f"{before}, {value.strip()}"

    def readinto(self, buffer: memoryview) -> int:
        """The next bytes; how many, 0 at the end of the body. Raises CasUnavailable (retryable)."""
        from zest_hf._native.http import HttpFailed

        try:
            return self._get.read(buffer)
        except HttpFailed as error:
            raise _bulk_failure(place(self.url), error) from error

    def abort(self) -> None:
        """Make a readinto that waits in another thread fail now. Any thread; harmless afterwards."""
        self._get.abort()

    def close(self) -> None:
        """The connection is kept if the body was read to its end."""
        self._get.close()

    def __enter__(self) -> BulkAnswer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Transport:
    """A session with a connection pool; proxies and CA bundles of the environment are honoured. Thread-safe.

    `ca_bundle` takes the place of the built-in certificates. Both timeouts count for every single request:
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
        self._timeout = (connect_timeout_s, read_timeout_s)
        self._user_agent = user_agent
        self._pool_size = pool_size
        self._bulk_lock = threading.Lock()
        self._bulk: HttpClient | None = None
        self._verify: bool | str = True if ca_bundle is None else os.fspath(ca_bundle)
        self._headers = {"User-Agent": user_agent, "Accept": "*/*"}
        self._environment: dict[tuple[str | None, ...], dict[str, Any]] = {}
        """What the environment says of an origin: proxies, and certificates."""
        self._session = requests.Session()
        adapter = HTTPAdapter(pool_connections=pool_size, pool_maxsize=pool_size, max_retries=0)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def get(self, url: str, headers: Mapping[str, str], *, bearer: str | None = None) -> requests.Response:
        """The answer to a GET, its body still unread; the caller closes it. Raises CasUnavailable, CasError.

        Redirects are followed; with a `bearer` only within its origin (scheme, host and port).
        """
        return self._followed(url, bearer is not None, lambda url: self._hop("GET", url, headers, bearer))

    def get_bulk(self, url: str, headers: Mapping[str, str]) -> BulkAnswer:
        """The same, without credentials and for a body of many bytes."""
        return self._followed(url, False, lambda url: self._bulk_hop(url, headers))

    def _followed(self, url: str, credentials: bool, hop: Callable[[str], _A]) -> _A:
        for _ in range(MAX_REDIRECTS + 1):
            response = hop(url)
            location = response.headers.get("Location", "")
            if response.status_code not in {301, 302, 303, 307, 308} or not location:
                return response
            response.close()
            url = _redirected(url, location, credentials)
        raise CasError(f"{place(url)}: more than {MAX_REDIRECTS} redirects")

    def post(
        self, url: str, headers: Mapping[str, str], body: bytes, *, bearer: str | None = None
    ) -> requests.Response:
        """The answer to a POST, its body still unread; the caller closes it. Raises CasUnavailable, CasError.

        No redirect is followed.
        """
        return self._hop("POST", url, headers, bearer, body)

    def close(self) -> None:
        """Close the idle connections. Bodies in use end by themselves."""
        self._session.close()
        with self._bulk_lock:
            bulk = self._bulk
        if bulk is not None:
            bulk.close()

    def _bulk_hop(self, url: str, headers: Mapping[str, str]) -> BulkAnswer:
        # When the first range is wanted: see there.
        from zest_hf._native.http import HttpClient, HttpFailed

        try:
            with self._bulk_lock:
                if self._bulk is None:
                    connect_s, read_s = self._timeout
                    self._bulk = HttpClient(
                        user_agent=self._user_agent,
                        connect_timeout_s=connect_s,
                        read_timeout_s=read_s,
                        idle_max=self._pool_size,
                    )
                client = self._bulk
            proxy, trusted = self._way_of(url)
            get = client.get(url, headers, proxy=proxy, trusted=trusted)
            try:
                return BulkAnswer(url, get)
            except BaseException:
                get.close()
                raise
        except HttpFailed as error:
            raise _bulk_failure(place(url), error) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise failure(place(url), error) from error

    def _way_of(self, url: str) -> tuple[str, str]:
        """A proxy, "" for none, and a file or directory of certificates."""
        options = self._environment_of(url)
        proxy = select_proxy(url, options["proxies"])
        verify = options["verify"]
        trusted = verify if isinstance(verify, str) else extract_zipped_paths(DEFAULT_CA_BUNDLE_PATH)
        if url.lower().startswith("https:") and not os.path.exists(trusted):
            raise OSError(f"no certificates at {trusted}")
        return prepend_scheme_if_needed(proxy, "http") if proxy else "", trusted

    def _hop(
        self, method: str, url: str, headers: Mapping[str, str], bearer: str | None, body: bytes | None = None
    ) -> requests.Response:
        # Session.prepare_request would normalise the query, whose exact text signatures may cover, and take logins from
        # netrc and the url; and it takes as long as a request over loopback.
        prepared = requests.PreparedRequest()
        try:
            prepared.prepare_method(method)
            prepared.url = url
            prepared.prepare_headers({**self._headers, **headers})
            if bearer is not None:
                prepared.headers["Authorization"] = f"Bearer {bearer}"
            prepared.prepare_body(body, None)
            options = self._environment_of(url)
            return self._session.get_adapter(url).send(
                prepared,
                stream=True,
                timeout=self._timeout,
                verify=options["verify"] or True,
                cert=options["cert"],
                proxies=options["proxies"],
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise failure(place(url), error) from error

    def _environment_of(self, url: str) -> dict[str, Any]:
        parts = urlsplit(url)
        key = (parts.scheme, parts.netloc, *map(os.environ.get, _VARIABLES))
        options = self._environment.get(key)
        if options is None:
            if len(self._environment) >= MAX_ORIGINS:
                self._environment.clear()
            options = dict(self._session.merge_environment_settings(url, {}, True, self._verify, None))
            self._environment[key] = options
        return options


def retry_after_s(response: Answer, now_s: float) -> float | None:
    """Retry-After (RFC 9110, section 10.2.3) in seconds from `now_s` (Unix time); None if there is none."""
    text = response.headers.get("Retry-After", "").strip()
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


def failure(where: str, error: Exception) -> CasError:
    """The typed form of an exception of requests, urllib3 or the socket below."""
    if isinstance(_innermost(error), ssl.SSLCertVerificationError):
        return CasUnavailable(f"{where}: TLS failed ({_TLS_HINT}): {_reason(error)}")
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        kind = "connect" if isinstance(error, requests.ConnectTimeout) else "answer"
        return CasUnavailable(f"{where}: did not {kind} in time", retryable=True)
    transient = (
        requests.ConnectionError,
        requests.exceptions.ChunkedEncodingError,
        urllib3.exceptions.ProtocolError,
        urllib3.exceptions.SSLError,
        ConnectionError,
    )
    if isinstance(error, transient):
        return CasUnavailable(f"{where}: {_reason(error)}", retryable=True)
    return CasError(f"{where}: {_reason(error)}")


def _bulk_failure(where: str, error: HttpFailed) -> CasError:
    """The typed form of what libcurl says."""
    kind = error.kind.name
    if kind == "UNTRUSTED":
        return CasUnavailable(f"{where}: TLS failed ({_TLS_HINT}): {error}")
    if kind in {"NO_CONNECT", "STALLED"}:
        what = "connect" if kind == "NO_CONNECT" else "answer"
        return CasUnavailable(f"{where}: did not {what} in time", retryable=True)
    if kind == "BROKEN":
        return CasUnavailable(f"{where}: {error}", retryable=True)
    return CasError(f"{where}: {error}")


def _innermost(error: BaseException) -> BaseException:
    """The cause at the bottom, which is the one that says something."""
    for _ in range(8):
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((one for one in error.args if isinstance(one, BaseException)), None)
        if inner is None:
            break
        error = inner
    return error


def _reason(error: BaseException) -> str:
    """For a message; the outer layers would repeat the url with its signature."""
    inner = _innermost(error)
    return f"{type(inner).__name__}: {getattr(inner, 'strerror', None) or inner}"[:300]


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
