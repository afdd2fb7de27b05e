"""The CAS client against a real server on loopback and the faults that one can have."""

from __future__ import annotations

import gzip
import json
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from loopback_http import LoopbackServer, answer, drop, ranges_of, reset, running, stall, truncated

from zest_hf import cas as cas_module
from zest_hf.cas import CasClient, CasToken
from zest_hf.core.ids import XetHash, hash_to_text
from zest_hf.core.reconstruction import FetchRange
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

FILE = XetHash(bytes(range(32)))
XORB = XetHash(b"\xaa" * 32)
V1 = f"/cas/v1/reconstructions/{hash_to_text(FILE)}"
V2 = f"/cas/v2/reconstructions/{hash_to_text(FILE)}"
CONTENT = os.urandom(1 << 20)

_RANGE = {"start": 0, "end": 3}
_TERMS = {
    "offset_into_first_range": 0,
    "terms": [{"hash": hash_to_text(XORB), "unpacked_length": 9000, "range": _RANGE}],
}
_BYTES = {"start": 0, "end": 99}
PLAN_V1 = json.dumps(
    {
        **_TERMS,
        "fetch_info": {hash_to_text(XORB): [{"range": _RANGE, "url": "http://x/", "url_range": _BYTES}]},
    }
).encode()
PLAN_V2 = json.dumps(
    {
        **_TERMS,
        "xorbs": {
            hash_to_text(XORB): [{"url": "http://x/", "ranges": [{"chunks": _RANGE, "bytes": _BYTES}]}]
        },
    }
).encode()


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the proxies nor the netrc of whoever runs the tests."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with running() as one:
        yield one


@pytest.fixture
def cdn() -> Iterator[LoopbackServer]:
    with running() as one:
        yield one


class Bench:
    """A client with its surroundings: virtual clock and sleep, tokens t1, t2, ..."""

    def __init__(self, server: LoopbackServer, **options: Any) -> None:
        self.server = server
        self.now = 1000.0
        self.slept: list[float] = []
        self.forced: list[bool] = []
        self.token_lifetime_s = 3600.0
        options = {"read_timeout_s": 5.0, "sleep": self._sleep, **options}
        self.client = CasClient(
            self._provide,
            user_agent="zest-test/1",
            clock=lambda: self.now,
            wall_clock=lambda: self.now,
            jitter=lambda: 0.0,
            **options,
        )

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def _provide(self, force: bool) -> CasToken:
        self.forced.append(force)
        return CasToken(f"{self.server.url}/cas/", f"t{len(self.forced)}", self.now + self.token_lifetime_s)


@pytest.fixture
def bench(server: LoopbackServer) -> Iterator[Bench]:
    one = Bench(server)
    yield one
    one.client.close()


def fetch_of(
    server: LoopbackServer, start: int = 0, end: int = len(CONTENT), path: str = "/xorb"
) -> FetchRange:
    return FetchRange(XORB, 0, 3, server.url + path, start, end)


def read_all(client: CasClient, fetch: FetchRange, buffer_bytes: int = 1 << 20) -> bytes:
    buffer = memoryview(bytearray(buffer_bytes))
    parts = []
    with client.open_range(fetch) as body:
        while count := body.readinto(buffer):
            parts.append(bytes(buffer[:count]))
        assert body.received_bytes == body.size_bytes
    return b"".join(parts)


# Reconstructions


def test_v2_is_asked_first(bench: Bench) -> None:
    bench.server.on(V2, answer(200, PLAN_V2))
    plan = bench.client.reconstruction(FILE)
    assert plan.size_bytes == 9000
    (request,) = bench.server.requests
    assert request.headers["authorization"] == "Bearer t1"
    assert request.headers["user-agent"] == "zest-test/1"
    assert "range" not in request.headers


def test_byte_range_is_sent_inclusive(bench: Bench) -> None:
    bench.server.on(V2, answer(206, PLAN_V2))
    bench.client.reconstruction(FILE, (0, 256_000_000))
    assert bench.server.requests[0].headers["range"] == "bytes=0-255999999"
    with pytest.raises(CasRangeError):
        bench.client.reconstruction(FILE, (5, 5))


@pytest.mark.parametrize("status", [404, 501])
def test_v1_is_the_fallback_and_is_remembered(bench: Bench, status: int) -> None:
    bench.server.on(V2, answer(status))
    bench.server.on(V1, answer(200, PLAN_V1))
    first, second = bench.client.reconstruction(FILE), bench.client.reconstruction(FILE)
    assert first == second
    assert [request.path for request in bench.server.requests] == [V2, V1, V1]


def test_an_unknown_file_does_not_end_v2(bench: Bench) -> None:
    with pytest.raises(CasNotFound) as caught:
        bench.client.reconstruction(FILE)
    assert caught.value.status == 404
    bench.server.on(V2, answer(200, PLAN_V2))
    bench.client.reconstruction(FILE)
    assert [request.path for request in bench.server.requests] == [V2, V1, V2]


def test_compressed_json(bench: Bench) -> None:
    bench.server.on(V2, answer(200, gzip.compress(PLAN_V2), Content_Encoding="gzip"))
    assert bench.client.reconstruction(FILE).size_bytes == 9000


@pytest.mark.parametrize(
    ("status", "kind"), [(403, CasForbidden), (416, CasRangeError), (400, CasError), (505, CasUnavailable)]
)
def test_final_refusals(bench: Bench, status: int, kind: type[CasError]) -> None:
    bench.server.on(V2, answer(status))
    with pytest.raises(kind) as caught:
        bench.client.reconstruction(FILE)
    assert (caught.value.status, caught.value.retryable) == (status, False)
    assert len(bench.server.requests) == 1 and not bench.slept


def test_401_refreshes_the_token_once(bench: Bench) -> None:
    bench.server.on(V2, answer(401), answer(200, PLAN_V2))
    bench.client.reconstruction(FILE)
    assert bench.forced == [False, True]
    assert [request.headers["authorization"] for request in bench.server.requests] == [
        "Bearer t1",
        "Bearer t2",
    ]

    bench.server.on(V2, answer(401))
    with pytest.raises(CasUnauthorized):
        bench.client.reconstruction(FILE)
    assert bench.forced == [False, True, True]
    assert not bench.slept


def test_token_is_kept_until_a_minute_before_expiry(bench: Bench) -> None:
    bench.server.on(V2, answer(200, PLAN_V2))
    bench.client.reconstruction(FILE)
    bench.now += 3539
    bench.client.reconstruction(FILE)
    assert bench.forced == [False]
    bench.now += 2
    bench.client.reconstruction(FILE)
    assert bench.forced == [False, True]


def test_threads_share_one_refresh(bench: Bench) -> None:
    gate = threading.Barrier(4)

    def refuse_old(handler: Any) -> None:
        if handler.headers["Authorization"] == "Bearer t1":
            gate.wait(5)
            answer(401)(handler)
        else:
            answer(200, PLAN_V2)(handler)

    bench.server.on(V2, refuse_old)
    threads = [threading.Thread(target=bench.client.reconstruction, args=(FILE,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bench.forced == [False, True]


def test_errors_of_the_token_provider_pass(server: LoopbackServer) -> None:
    def refuse(force: bool) -> CasToken:
        raise CasForbidden("gated", status=403)

    with pytest.raises(CasForbidden, match="gated"):
        CasClient(refuse, user_agent="x").reconstruction(FILE)


@pytest.mark.parametrize(
    "fault",
    [answer(503), answer(429), answer(408), answer(500), drop, truncated(200, PLAN_V2[:50], len(PLAN_V2)),
     reset(200, PLAN_V2[:50], len(PLAN_V2))],
    ids=["503", "429", "408", "500", "dropped", "truncated", "reset"],
)  # fmt: skip
def test_passing_faults_are_retried(bench: Bench, fault: Callable[[Any], None]) -> None:
    bench.server.on(V2, fault, fault, answer(200, PLAN_V2))
    assert bench.client.reconstruction(FILE).size_bytes == 9000
    assert bench.slept == [0.25, 0.5]


def test_retries_end_with_the_deadline(server: LoopbackServer) -> None:
    bench = Bench(server, deadline_s=20.0)
    server.on(V2, answer(503))
    with pytest.raises(CasUnavailable) as caught:
        bench.client.reconstruction(FILE)
    assert (caught.value.status, caught.value.retryable) == (503, True)
    assert 10 < sum(bench.slept) <= 20


def test_retry_after_is_honoured_within_bounds(bench: Bench) -> None:
    bench.server.on(V2, answer(429, Retry_After="7"), answer(200, PLAN_V2))
    bench.client.reconstruction(FILE)
    assert bench.slept == [7.0]
    bench.server.on(V2, answer(429, Retry_After="Thu, 01 Jan 1970 00:17:10 GMT"), answer(200, PLAN_V2))
    bench.now = 1000.0
    bench.client.reconstruction(FILE)
    assert bench.slept == [7.0, 30.0]
    bench.server.on(V2, answer(429, Retry_After="3600"))
    with pytest.raises(CasUnavailable) as caught:
        bench.client.reconstruction(FILE)
    assert caught.value.retry_after_s == 3600
    assert len(bench.slept) == 2


def test_stalled_answer_ends_in_the_read_timeout(server: LoopbackServer) -> None:
    bench = Bench(server, read_timeout_s=0.1, deadline_s=0.1)
    for fault in (stall(200, PLAN_V2[:50], len(PLAN_V2)), lambda handler: handler.server.stopping.wait()):
        server.on(V2, fault)
        with pytest.raises(CasUnavailable, match="in time"):
            bench.client.reconstruction(FILE)


def test_trickling_answer_ends_in_the_deadline(server: LoopbackServer) -> None:
    bench = Bench(server, deadline_s=5.0)

    def trickle(handler: Any) -> None:
        bench.now += 6
        answer(200, PLAN_V2)(handler)

    server.on(V2, trickle)
    with pytest.raises(CasUnavailable, match="takes too long"):
        bench.client.reconstruction(FILE)


def test_nobody_listens(server: LoopbackServer) -> None:
    bench = Bench(server, deadline_s=1.0)
    server.server_close()
    with pytest.raises(CasUnavailable, match="refused") as caught:
        bench.client.reconstruction(FILE)
    assert caught.value.status is None and bench.slept


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b"[]", b"null", PLAN_V1]
)
def test_answers_that_are_no_plan(bench: Bench, body: bytes) -> None:
    bench.server.on(V2, answer(200, body))
    with pytest.raises(ReconstructionError):
        bench.client.reconstruction(FILE)
    assert not bench.slept


def test_huge_json_is_not_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cas_module, "MAX_JSON_BYTES", 100_000)
    bench.server.on(V2, stall(200, b" ", 100_001))
    with pytest.raises(CasError, match="at most 100000"):
        bench.client.reconstruction(FILE)
    # A decompression bomb: announced small, large only once it is unpacked.
    bench.server.on(V2, answer(200, gzip.compress(b" " * 10_000_000), Content_Encoding="gzip"))
    with pytest.raises(CasError, match="more than 100000"):
        bench.client.reconstruction(FILE)


def test_close_wakes_up_a_retry(server: LoopbackServer) -> None:
    bench = Bench(server, sleep=None)
    failures: list[CasUnavailable] = []

    def ask() -> None:
        try:
            bench.client.reconstruction(FILE)
        except CasUnavailable as error:
            failures.append(error)

    server.on(V2, answer(503, Retry_After="29"))
    thread = threading.Thread(target=ask)
    began = time.monotonic()
    thread.start()
    bench.client.close()
    thread.join(5)
    assert failures and time.monotonic() - began < 5
    with pytest.raises(CasUnavailable, match="closed"):
        bench.client.open_range(fetch_of(server))


# Credentials


def test_bearer_does_not_follow_a_redirect_elsewhere(bench: Bench, cdn: LoopbackServer) -> None:
    bench.server.on(V2, answer(302, Location=f"{cdn.url}{V2}"))
    cdn.on(V2, answer(200, PLAN_V2))
    with pytest.raises(CasError, match="refused"):
        bench.client.reconstruction(FILE)
    assert not cdn.requests


def test_bearer_follows_a_redirect_within_its_origin(bench: Bench) -> None:
    bench.server.on(V2, answer(307, Location="/elsewhere"))
    bench.server.on("/elsewhere", answer(200, PLAN_V2))
    bench.client.reconstruction(FILE)
    assert bench.server.requests[1].headers["authorization"] == "Bearer t1"


def test_cdn_gets_no_credentials(bench: Bench, cdn: LoopbackServer) -> None:
    bench.server.on(V2, answer(200, PLAN_V2, Set_Cookie="session=1"))
    bench.client.reconstruction(FILE)
    bench.server.on("/xorb", answer(302, Location=f"{cdn.url}/xorb?sig=%7e%2f"))
    cdn.on("/xorb", ranges_of(CONTENT))
    assert read_all(bench.client, fetch_of(bench.server)) == CONTENT
    hop, last = bench.server.requests[-1], cdn.requests[-1]
    for request in (hop, last):
        assert "authorization" not in request.headers
        assert "cookie" not in request.headers
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["range"] == f"bytes=0-{len(CONTENT) - 1}"
    assert last.path.lower() == "/xorb?sig=%7e%2f"


def test_netrc_does_not_override(
    bench: Bench, cdn: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login user password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    bench.server.on(V2, answer(200, PLAN_V2))
    bench.client.reconstruction(FILE)
    assert bench.server.requests[0].headers["authorization"] == "Bearer t1"
    bench.server.on("/xorb", answer(302, Location=f"{cdn.url}/xorb"))
    cdn.on("/xorb", ranges_of(CONTENT))
    read_all(bench.client, fetch_of(bench.server))
    assert "authorization" not in bench.server.requests[-1].headers
    assert "authorization" not in cdn.requests[-1].headers


def test_proxy_of_the_environment(bench: Bench, cdn: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = cdn  # a forwarding proxy gets absolute urls in the request line
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("http_proxy", proxy.url)
    proxy.on(f"{bench.server.url}{V2}", answer(200, PLAN_V2))
    proxy.on("http://cdn.example/xorb", ranges_of(CONTENT))
    bench.client.reconstruction(FILE)
    fetch = FetchRange(XORB, 0, 3, "http://cdn.example/xorb?a=b", 10, 20)
    assert read_all(bench.client, fetch) == CONTENT[10:20]
    assert not bench.server.requests
    assert len(proxy.requests) == 2
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    bench.server.on(V2, answer(200, PLAN_V2))
    bench.client.reconstruction(FILE)
    assert len(bench.server.requests) == 1


# Ranges


@pytest.mark.parametrize("buffer_bytes", [1 << 20, 100_000, 7777])
@pytest.mark.parametrize(("start", "end"), [(0, len(CONTENT)), (1000, 700_000), (5, 6)])
def test_range(bench: Bench, start: int, end: int, buffer_bytes: int) -> None:
    bench.server.on("/xorb", ranges_of(CONTENT))
    assert read_all(bench.client, fetch_of(bench.server, start, end), buffer_bytes) == CONTENT[start:end]


def test_connection_is_used_again(bench: Bench) -> None:
    bench.server.on("/xorb", ranges_of(CONTENT))
    for _ in range(3):
        read_all(bench.client, fetch_of(bench.server))
    assert len({request.client_port for request in bench.server.requests}) == 1


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (403, UrlExpired, False), (404, CasNotFound, False), (416, CasRangeError, False),
        (503, CasUnavailable, True), (429, CasUnavailable, True), (400, CasError, False),
    ],
)  # fmt: skip
def test_refused_range(bench: Bench, status: int, kind: type[CasError], retryable: bool) -> None:
    bench.server.on("/xorb", answer(status, Retry_After="3"))
    with pytest.raises(kind) as caught:
        bench.client.open_range(fetch_of(bench.server))
    assert (caught.value.status, caught.value.retryable) == (status, retryable)
    assert len(bench.server.requests) == 1, "the engine decides about retries"
    assert caught.value.retry_after_s == (3.0 if retryable else None)


SIZE = len(CONTENT)


@pytest.mark.parametrize(
    "action",
    [
        answer(206, CONTENT[1:], Content_Range=f"bytes 1-{SIZE - 1}/{SIZE}"),
        answer(206, CONTENT, Content_Range="bytes a-b/c"),
        answer(206, CONTENT, Content_Range=f"bytes 0-{SIZE - 2}/{SIZE}"),
        answer(206, CONTENT[:-1]),
        answer(206, CONTENT, Content_Type="multipart/byteranges; boundary=x"),
        answer(206, CONTENT, Content_Encoding="gzip"),
        answer(200, CONTENT[:-1]),
    ],
    ids=["shifted", "nonsense", "short", "length", "multipart", "encoded", "200 too short"],
)
def test_wrong_answer_to_a_range(bench: Bench, action: Callable[[Any], None]) -> None:
    bench.server.on("/xorb", action)
    with pytest.raises(CasUnavailable, match="wrong answer") as caught:
        bench.client.open_range(fetch_of(bench.server))
    assert not caught.value.retryable


def test_200_is_taken_for_a_beginning_only(bench: Bench) -> None:
    bench.server.on("/xorb", answer(200, CONTENT))
    assert read_all(bench.client, fetch_of(bench.server, 0, 1000)) == CONTENT[:1000]
    with pytest.raises(CasUnavailable, match="ignores Range"):
        bench.client.open_range(fetch_of(bench.server, 1000, 2000))


def broken_read(client: CasClient, fetch: FetchRange) -> tuple[CasUnavailable, int]:
    buffer = memoryview(bytearray(1 << 20))
    with client.open_range(fetch) as body, pytest.raises(CasUnavailable) as caught:
        while body.readinto(buffer):
            pass
    assert caught.value.retryable
    return caught.value, body.received_bytes


@pytest.mark.parametrize("fault", [truncated, reset, stall])
def test_broken_body(server: LoopbackServer, fault: Callable[..., Any]) -> None:
    bench = Bench(server, read_timeout_s=0.2)
    server.on("/xorb", fault(206, CONTENT[:300_000], SIZE))
    error, received = broken_read(bench.client, fetch_of(server))
    assert received <= 300_000
    assert f"{received} of {SIZE} bytes received" in str(error)
    if fault is truncated:
        assert received == 300_000


def test_dropped_request(bench: Bench) -> None:
    bench.server.on("/xorb", drop)
    with pytest.raises(CasUnavailable) as caught:
        bench.client.open_range(fetch_of(bench.server))
    assert caught.value.retryable


def test_abort_ends_a_read_of_another_thread(bench: Bench) -> None:
    bench.server.on("/xorb", stall(206, CONTENT[: 64 * 1024], SIZE))
    buffer = memoryview(bytearray(1 << 20))
    with bench.client.open_range(fetch_of(bench.server)) as body:
        assert body.readinto(buffer) == 64 * 1024
        timer = threading.Timer(0.05, body.abort)
        timer.start()
        began = time.monotonic()
        with pytest.raises(CasUnavailable):
            body.readinto(buffer)
        assert time.monotonic() - began < 2
        timer.join()
    body.abort()


@pytest.mark.parametrize(
    "location", ["ftp://cdn/", "http://[::1", "file:///etc/passwd", "http://h/" + "x" * 20000]
)
def test_useless_redirect(bench: Bench, location: str) -> None:
    bench.server.on("/xorb", answer(302, Location=location))
    with pytest.raises(CasError, match="redirect"):
        bench.client.open_range(fetch_of(bench.server))


def test_endless_redirect(bench: Bench) -> None:
    bench.server.on("/xorb", answer(302, Location="/xorb"))
    with pytest.raises(CasError, match="more than 5 redirects"):
        bench.client.open_range(fetch_of(bench.server))
    assert len(bench.server.requests) == 6


def test_messages_carry_no_signature(bench: Bench) -> None:
    with pytest.raises(CasNotFound) as missing:
        bench.client.open_range(fetch_of(bench.server, path="/xorb?signature=s3cret"))
    bench.server.server_close()
    bench.server.shutdown()
    bench.client.close()
    other = Bench(bench.server)
    with pytest.raises(CasUnavailable) as refused:
        other.client.open_range(fetch_of(bench.server, path="/xorb?signature=s3cret"))
    assert "s3cret" not in f"{missing.value} {refused.value}"


def test_the_ca_bundle_is_trusted_and_no_other(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    for name, ca in (("ours.pem", authority), ("other.pem", stranger)):
        ca.cert_pem.write_to_path(str(tmp_path / name))
    with running(tls) as server:
        server.on(V2, answer(200, PLAN_V2))
        server.on("/xorb", ranges_of(CONTENT))
        good = Bench(server, ca_bundle=tmp_path / "ours.pem")
        assert good.client.reconstruction(FILE).terms
        fetch = fetch_of(server)
        with good.client.open_range(fetch) as body:
            assert body.readinto(memoryview(bytearray(len(CONTENT)))) > 0
        good.client.close()
        for other in (tmp_path / "other.pem", None):
            with pytest.raises(CasError, match="certificate"):
                Bench(server, ca_bundle=other, deadline_s=1.0).client.open_range(fetch)


def test_ca_bundle_that_does_not_exist(server: LoopbackServer, tmp_path: Path) -> None:
    bench = Bench(server, ca_bundle=tmp_path / "none.pem")
    with pytest.raises(CasError, match=r"none\.pem") as caught:
        bench.client.open_range(FetchRange(XORB, 0, 1, "https://127.0.0.1:1/", 0, 1))
    assert not caught.value.retryable


def test_tokens_stay_out_of_logs() -> None:
    assert "s3cret" not in repr(CasToken("https://cas/", "s3cret", 0.0))
