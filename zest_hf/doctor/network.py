"""Checks of others. No address is contacted but those that the settings name, and those that the Hub names."""

from __future__ import annotations

import inspect
import secrets
import socket
import struct
import time
from typing import Any
from urllib.parse import quote, urlsplit

from zest_hf import __version__
from zest_hf.config import Settings
from zest_hf.doctor.finding import Finding, note, ok, skipped, wrong
from zest_hf.errors import CasError, CasUnavailable, ZestError
from zest_hf.hook.cache import endpoint
from zest_hf.hook.connection import Connection, Route
from zest_hf.hook.reasons import explain, one_line

ANSWER_S = 4.0
OFFLINE = "HF_HUB_OFFLINE is set"
USER_AGENT = f"zest_hf/{__version__}"
_UDP_TRACKER_MAGIC = 0x41727101980


def hub(settings: Settings) -> Finding:
    if settings.hub_offline:
        return skipped(OFFLINE)
    place = endpoint()
    try:
        response = _session_call("head", place, auth=_nobody)
    except Exception as error:
        return wrong(
            f"{place} cannot be reached ({one_line(error)})", "check the network, proxies (HTTPS_PROXY) and HF_ENDPOINT"
        )
    if response.status_code >= 500:
        return wrong(f"{place} answers {response.status_code}", "try again later, or check HF_ENDPOINT")
    return ok(f"{place} answers")


def token(settings: Settings) -> Finding:
    """The user's token is shown to the Hub alone, as always, and to nobody here."""
    from huggingface_hub import get_token

    value = get_token()
    if value is None:
        return ok("none: public repositories only (`hf auth login` for others)")
    if settings.hub_offline:
        return skipped(f"there is one; {OFFLINE}")
    try:
        response = _session_call("get", f"{endpoint()}/api/whoami-v2", headers={"authorization": f"Bearer {value}"})
    except Exception as error:
        return note(f"there is one; whether the Hub accepts it is not known ({one_line(error)})")
    if response.status_code in (401, 403):
        return wrong(
            f"{endpoint()} does not accept it ({response.status_code})", "`hf auth login`, or check HF_TOKEN"
        )
    return ok("the Hub accepts it") if response.status_code == 200 else note(f"the Hub says {response.status_code}")


def cas(settings: Settings, repo: str | None, repo_type: str) -> Finding:
    """The store that the Hub names for a repository: whether it takes the token that the Hub issues for it."""
    if repo is None:
        return skipped("name a repository with --repo")
    if settings.hub_offline:
        return skipped(OFFLINE)
    from huggingface_hub import HfApi
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils._validators import validate_repo_id

    from zest_hf.cas import CasClient
    from zest_hf.core.ids import hash_from_raw

    try:
        validate_repo_id(repo)
        # The token route needs the commit; this also says what is wrong with the repository.
        info: Any = HfApi(endpoint()).repo_info(repo, repo_type=repo_type, timeout=ANSWER_S)
    except Exception as error:
        return wrong(explain(error, repo, repo_type, None), "name another repository with --repo")
    url = f"{endpoint()}/api/{repo_type}s/{quote(repo)}/xet-read-token/{info.sha}"
    connection = Connection(url, Route(endpoint(), repo_type, repo), build_hf_headers(user_agent=USER_AGENT))
    try:
        place = connection.token(False).url
    except ZestError as error:
        return wrong(f"the Hub issues no token for {repo}: {error}", "try another repository; this one may not use Xet")
    client = CasClient(
        connection.token,
        user_agent=USER_AGENT,
        connect_timeout_s=ANSWER_S,
        read_timeout_s=ANSWER_S,
        deadline_s=ANSWER_S,
        ca_bundle=settings.ca_bundle,
    )
    try:
        # A file that does not exist: what is of interest is that it answers as it does to us.
        client.reconstruction(hash_from_raw(secrets.token_bytes(32)))
    except CasUnavailable as error:
        return wrong(f"{place} cannot be reached ({error})", "check the network, proxies and certificates")
    except CasError as error:
        if error.status == 401:
            return wrong(f"{place} does not accept the Hub's token ({error})", "check the clock of this machine")
    finally:
        client.close()
    return ok(f"{place} answers")


def tracker(url: str, settings: Settings) -> Finding:
    """Whether somebody answers there; nothing is announced, and no swarm is named."""
    if settings.hub_offline:
        return skipped(OFFLINE)
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    if not port:
        return wrong("it has no port", "udp:// trackers are written as udp://host:port")
    try:
        if parts.scheme == "udp":
            _ask_udp_tracker(host, port)
        else:
            socket.create_connection((host, port), timeout=ANSWER_S).close()
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or one_line(error)
        return note(f"{reason}", "check the address in ZEST_TRACKERS, and that the tracker runs")
    return ok("answers")


def _ask_udp_tracker(host: str, port: int) -> None:
    """The first message of BEP 15, which says nothing but that somebody is there. Raises OSError."""
    end_s = time.monotonic() + ANSWER_S
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as line:
        line.connect(address)
        transaction = secrets.token_bytes(4)
        wanted = struct.pack(">I", 0) + transaction
        line.send(struct.pack(">QI", _UDP_TRACKER_MAGIC, 0) + transaction)
        answer = b""
        while len(answer) < 16 or not answer.startswith(wanted):
            line.settimeout(max(0.001, end_s - time.monotonic()))
            answer = line.recv(2048)


def dht(settings: Settings) -> Finding:
    """Whether the names to start from resolve; no node is asked anything."""
    if settings.hub_offline or not settings.dht or settings.swarm_key is not None:
        if settings.dht and not settings.hub_offline:
            return skipped("off in a swarm with a key")
        return skipped("ZEST_DHT is off" if not settings.dht else OFFLINE)
    from zest_hf.swarm import DHT_BOOTSTRAP

    names = settings.dht_bootstrap or DHT_BOOTSTRAP
    unknown = [name.host for name in names if not _resolves(name.host)]
    if len(unknown) == len(names):
        return note(
            f"none of {', '.join(unknown)} resolves: nobody is found by the DHT",
            "check the name server, or set ZEST_DHT_BOOTSTRAP, or ZEST_DHT=off",
        )
    return ok(f"{len(names) - len(unknown)} of {len(names)} nodes to start from have an address")


def _resolves(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except (OSError, UnicodeError):
        return False


def _session_call(method: str, url: str, **options: Any) -> Any:
    """By the Hub's own client: with its proxies and certificates. Redirects are not followed."""
    from huggingface_hub.utils._http import get_session

    call = getattr(get_session(), method)
    # requests has one name for it, the two kinds of httpx have another.
    follow = "follow_redirects" if "follow_redirects" in inspect.signature(call).parameters else "allow_redirects"
    headers = {"user-agent": USER_AGENT, **options.pop("headers", {})}
    return call(url, headers=headers, timeout=ANSWER_S, **{follow: False}, **options)


def _nobody(request: Any) -> Any:
    # Without it a .netrc entry for the host would make the request somebody's.
    return request
