"""libcurl's side of the transport, against servers on loopback that misbehave as servers do."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback_http import Handler, LoopbackServer, answer, ranges_of, running, stall

from zest_hf._native.http import HttpClient, HttpFailed, HttpGet, Kind
from zest_hf.errors import CasError
from zest_hf.transport import Transport

CONTENT = b"".join(hashlib.sha256(bytes([i])).digest() * 1024 for i in range(40))
NO_CERTIFICATES = "/dev/null"


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with running() as one:
        yield one


@pytest.fixture
def client() -> Iterator[HttpClient]:
    yield from made()


def made(idle_max: int = 4, connect_timeout_s: float = 5.0, read_timeout_s: float = 5.0) -> Iterator[HttpClient]:
    one = HttpClient(
        user_agent="a/1", connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s, idle_max=idle_max
    )
    yield one
    one.close()


def ask(client: HttpClient, url: str, **headers: str) -> HttpGet:
    return client.ask(url, headers, trusted=NO_CERTIFICATES)


def whole(get: HttpGet, step_bytes: int = 100_000) -> bytes:
    buffer = memoryview(bytearray(step_bytes))
    parts = []
    while count := get.read(buffer):
        parts.append(bytes(buffer[:count]))
    return b"".join(parts)


@contextlib.contextmanager
def raw_server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """Its url; ``talk`` gets each connection on a thread of its own, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    talk(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize("step_bytes", [1, 4096, 100_000, 10 << 20])
def test_a_body_comes_whole_however_it_is_read(server: LoopbackServer, client: HttpClient, step_bytes: int) -> None:
    content = CONTENT[:5000] if step_bytes == 1 else CONTENT
    server.on("/x", answer(200, content))
    get = ask(client, server.url + "/x")
    assert get.head().startswith("HTTP/1.1 200 OK\r\n")
    assert whole(get, step_bytes) == content
    assert get.read(memoryview(bytearray(1))) == 0
    get.close()
    get.close()


def test_a_connection_is_used_again_if_its_answer_was_read(server: LoopbackServer, client: HttpClient) -> None:
    server.on("/x", answer(206, CONTENT))
    for _ in range(3):
        get = ask(client, server.url + "/x")
        get.head()
        assert get.read(memoryview(bytearray(len(CONTENT)))) == len(CONTENT)
        get.close()
    assert len({request.client_port for request in server.requests}) == 1
    for _ in range(2):
        get = ask(client, server.url + "/x")
        get.head()
        get.close()
    assert len({request.client_port for request in server.requests}) == 2, "the first of these had the old one"


def test_no_more_are_kept_than_were_allowed(server: LoopbackServer) -> None:
    for client in made(idle_max=1):
        server.on("/x", answer(200, b"x"))
        for _ in range(2):
            gets = [ask(client, server.url + "/x") for _ in range(3)]
            for get in gets:
                assert get.head() and whole(get) == b"x"
            for get in gets:
                get.close()
        assert len({request.client_port for request in server.requests}) == 5


def test_headers_and_the_body_of_a_post(server: LoopbackServer, client: HttpClient) -> None:
    server.on("/x", answer(200, b"thanks"))
    body = CONTENT * 3
    get = client.ask(server.url + "/x", {"A-Name": "its value", "Expect": ""}, body=body, trusted=NO_CERTIFICATES)
    assert get.head() and whole(get) == b"thanks"
    (request,) = server.requests
    assert request.body == body
    assert request.headers["a-name"] == "its value"
    assert request.headers["user-agent"] == "a/1"
    assert "expect" not in request.headers


@pytest.mark.parametrize("bad", ["/x\r\nHost: other", "/\0", "/\x7f"])
def test_nobody_writes_lines_of_his_own(server: LoopbackServer, client: HttpClient, bad: str) -> None:
    for url, headers in ((server.url + bad, {}), (server.url, {"A": bad})):
        with pytest.raises(HttpFailed) as caught:
            ask(client, url, **headers)
        assert caught.value.kind is Kind.BAD_REQUEST
    assert server.requests == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "no url", "http://[::1"])
def test_only_http(client: HttpClient, url: str) -> None:
    with pytest.raises(HttpFailed) as caught:
        ask(client, url).head()
    assert caught.value.kind is Kind.BAD_REQUEST


def test_a_chunked_body_and_an_interim_answer(client: HttpClient) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")

    with raw_server(talk) as url:
        get = ask(client, url)
        assert get.head() == "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert whole(get) == b"hello world"
        get.close()


def test_a_head_without_end_is_refused(client: HttpClient) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"A: " + b"a" * 1000 + b"\r\n")

    with raw_server(talk) as url:
        get = ask(client, url)
        with pytest.raises(HttpFailed, match="too long") as caught:
            get.head()
        get.close()
    assert caught.value.kind is Kind.BAD_REQUEST


@given(head=st.one_of(st.binary(max_size=200), st.binary(max_size=40).map(lambda tail: b"HTTP/1.1 2" + tail)))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_is_answered_is_an_answer_or_a_typed_error(head: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(head + b"\r\n\r\n")

    transport = Transport(user_agent="a/1", connect_timeout_s=5.0, read_timeout_s=5.0, pool_size=1)
    with raw_server(talk) as url, contextlib.suppress(CasError), transport.get(url, {}) as got:
        assert 200 <= got.status_code < 300
        got.readinto(memoryview(bytearray(1000)))


def test_who_says_nothing_is_given_up(server: LoopbackServer) -> None:
    for client in made(read_timeout_s=0.1):
        server.on("/x", stall(200, b"abc", 10))
        get = ask(client, server.url + "/x")
        get.head()
        buffer = memoryview(bytearray(10))
        assert get.read(buffer) == 3
        with pytest.raises(HttpFailed) as caught:
            get.read(buffer)
        assert caught.value.kind is Kind.STALLED
        get.close()


def test_who_takes_no_bytes_for_a_while_has_not_been_left_alone(server: LoopbackServer) -> None:
    """The time counts that is spent with waiting."""
    for client in made(read_timeout_s=0.2):
        server.on("/x", answer(200, CONTENT))
        get = ask(client, server.url + "/x")
        get.head()
        buffer = memoryview(bytearray(65536))
        got = bytes(buffer[: get.read(buffer)])
        until = time.monotonic() + 0.3
        while time.monotonic() < until:  # as long as it takes to write to a slow disk
            pass
        assert got + whole(get) == CONTENT
        get.close()


def test_what_has_come_is_handed_out_soon(client: HttpClient) -> None:
    more = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        more.wait(10)
        connection.sendall(b"def")

    with raw_server(talk) as url:
        get = ask(client, url)
        get.head()
        buffer = memoryview(bytearray(1000))
        assert get.read(buffer) == 3
        more.set()
        assert get.read(buffer) == 3
        assert get.read(buffer) == 0
        get.close()


def test_an_abort_from_another_thread_at_any_time(server: LoopbackServer, client: HttpClient) -> None:
    server.on("/x", stall(200, CONTENT[:1000], 10_000))
    get = ask(client, server.url + "/x")
    get.head()
    buffer = memoryview(bytearray(10_000))
    assert get.read(buffer) == 1000
    failed: list[HttpFailed] = []

    def wait() -> None:
        try:
            get.read(buffer)
        except HttpFailed as error:
            failed.append(error)

    reader = threading.Thread(target=wait)
    reader.start()
    get.abort()
    reader.join(5)
    assert [error.kind for error in failed] == [Kind.BROKEN]
    with pytest.raises(HttpFailed):
        get.read(buffer)
    get.close()
    get.abort()
    with pytest.raises(HttpFailed):
        get.read(buffer)


def test_an_answer_that_is_for_another_is_not_kept(server: LoopbackServer, client: HttpClient) -> None:
    """More has come than was announced: who asks next on this connection would read it."""

    def twice(handler: Handler) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
        handler.wfile.write(head + b"abc" + head + b"bad")

    server.on("/x", twice)
    server.on("/y", answer(200, b"right"))
    for path, expected in (("/x", b"abc"), ("/y", b"right")):
        get = ask(client, server.url + path)
        get.head()
        assert whole(get) == expected
        get.close()


@pytest.mark.parametrize("form", ["file", "folder"])
def test_certificates(tmp_path: Path, client: HttpClient, form: str) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    places = []
    for name, ca in (("ours", authority), ("other", stranger)):
        place = tmp_path / name
        place.mkdir()
        ca.cert_pem.write_to_path(str(place / "ca.pem"))
        places.append(place / "ca.pem")
    if form == "folder":
        for place in places:
            # The name by which OpenSSL looks for a certificate is its subject's hash.
            name = subprocess.run(
                ["openssl", "x509", "-hash", "-noout", "-in", place], capture_output=True, text=True, check=True
            ).stdout.strip()
            place.rename(place.parent / f"{name}.0")
        places = [place.parent for place in places]
    ours, other = places
    with running(tls) as server:
        server.on("/x", ranges_of(CONTENT))
        for _ in range(2):
            get = client.ask(server.url + "/x", {"Range": "bytes=0-999999"}, trusted=str(ours))
            assert get.head() and whole(get) == CONTENT[:1_000_000]
            get.close()
        get = client.ask(server.url + "/x", {"Range": "bytes=0-9"}, trusted=str(other))
        with pytest.raises(HttpFailed) as caught:
            get.head()
        assert caught.value.kind is Kind.UNTRUSTED
        get.close()
        with pytest.raises(HttpFailed) as caught:
            client.ask(server.url + "/x", {}, trusted=str(tmp_path / "none"))
        assert caught.value.kind is Kind.UNTRUSTED


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_ends_nothing_of_its_parents(tmp_path: Path) -> None:
    """Over TLS whoever closes a connection says so to the server."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    client = HttpClient(user_agent="a/1", connect_timeout_s=5.0, read_timeout_s=5.0, idle_max=4)
    with running(tls) as server:
        server.on("/x", answer(200, CONTENT))
        idle, busy = (client.ask(server.url + "/x", {}, trusted=str(trusted)) for _ in range(2))
        assert idle.head() and busy.head() and whole(idle) == CONTENT
        idle.close()
        child = os.fork()
        if child == 0:
            busy.close()
            del busy, idle, client
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert whole(busy) == CONTENT
        busy.close()
        again = client.ask(server.url + "/x", {}, trusted=str(trusted))
        assert again.head() and whole(again) == CONTENT
        again.close()
        assert len({request.client_port for request in server.requests}) == 2
        client.close()


def test_a_proxy_and_who_is_asked_without_it(server: LoopbackServer, client: HttpClient) -> None:
    seen: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        seen.append(connection.recv(65536).split(b"\r\n")[0])
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy")

    server.on("/x", answer(200, b"direct"))
    with raw_server(talk) as proxy:
        for no_proxy, expected in (("", b"proxy"), ("example.com,127.0.0.1", b"direct")):
            get = client.ask(server.url + "/x", {}, proxy=proxy, no_proxy=no_proxy, trusted=NO_CERTIFICATES)
            assert get.head() and whole(get) == expected
            get.close()
    assert seen == [f"GET {server.url}/x HTTP/1.1".encode()]


def test_a_password_of_a_proxy_is_in_no_message(server: LoopbackServer, client: HttpClient) -> None:
    with pytest.raises(HttpFailed) as caught:
        client.ask(server.url, {}, proxy="nonsense://user:s3cret@127.0.0.1:1", trusted=NO_CERTIFICATES).head()
    assert "s3cret" not in str(caught.value)
