"""Who may ask the seeder's page, and what those can do who mean no good."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import stat
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from machines import PRELUDE, Machine, Seeder

from zest_hf.seed import guard

STOP_S = 2.0


def ask(seeder: Seeder, path: str = "/v1/status", method: str = "GET", **headers: str) -> int:
    """The status of one request. ``headers``: by their names, with _ for -."""
    connection = http.client.HTTPConnection("127.0.0.1", port_of(seeder), timeout=10)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return connection.getresponse().status
    finally:
        connection.close()


def port_of(seeder: Seeder) -> int:
    port = urlsplit(seeder.url).port
    assert port is not None
    return port


def test_pages_elsewhere_can_do_nothing(machine: Machine) -> None:
    with machine.seeder() as seeder:
        here = f"127.0.0.1:{port_of(seeder)}"
        foreign: list[dict[str, str]] = [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1"},  # another port of the same machine is another place
            {"Origin": f"http://localhost:{port_of(seeder)}"},
            {"Origin": f"http://{here}.evil.example"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site"},
            {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
        ]
        for headers in foreign:
            for method, path in (("GET", "/v1/status"), ("GET", "/v1/health"), ("POST", "/v1/stop"), ("GET", "/x")):
                assert ask(seeder, path, method, **headers) == 403, headers
        followed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
        assert ask(seeder, "/v1/stop", "POST", **followed) == 403
        for name in ("evil.example", f"evil.example:{port_of(seeder)}", "localhost.evil.example", "10.0.0.1", "", "["):
            assert ask(seeder, "/v1/stop", "POST", Host=name) == 400, name
        for name in ("localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:80", "127.9.9.9"):
            assert ask(seeder, Host=name) == 200, name
        assert ask(seeder, **followed) == 200
        assert ask(seeder, Origin=f"http://{here}", Sec_Fetch_Site="same-origin") == 200
        assert ask(seeder, "/v1/stop") == 405
        assert seeder.process.poll() is None


def test_its_own_page_may_stop_it(machine: Machine) -> None:
    with machine.seeder() as seeder:
        began_s = time.monotonic()
        assert ask(seeder, "/v1/stop", "POST", Origin=f"http://127.0.0.1:{port_of(seeder)}") == 200
        assert seeder.end().code == 0
        assert time.monotonic() - began_s < STOP_S


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_other_users_may_look_and_not_touch(machine: Machine, host: str) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can ask as somebody else")
    code = """
import encodings.idna, http.client, os, sys
def ask(method, path):
    line = http.client.HTTPConnection(sys.argv[1], timeout=10)
    line.request(method, path, b'{"repo": "org/model"}', {"Content-Type": "application/json"})
    return line.getresponse().status
root = ask("POST", "/none")
os.setuid(65534)
show(root=root, looked=ask("GET", "/v1/status"), stopped=ask("POST", "/v1/stop"), pulled=ask("POST", "/v1/pull"))
"""
    with machine.seeder(ZEST_STATUS=f"{host}:0") as seeder:
        address = urlsplit(seeder.url).netloc
        done = machine.command(sys.executable, "-c", PRELUDE + code, address)
        assert done.code == 0, done.stderr
        assert done.shown == {"root": 404, "looked": 200, "stopped": 403, "pulled": 403}
        # Nor by leaving before it can be seen who it was.
        leaving = f"""
import encodings.idna, os, socket, struct
os.setuid(65534)
for reset in (0, 1) * 50:
    with socket.create_connection(({urlsplit(seeder.url).hostname!r}, {port_of(seeder)})) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", reset, 0))
        line.sendall(b"POST /v1/stop HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
"""
        done = machine.command(sys.executable, "-c", leaving)
        assert done.code == 0, done.stderr
        assert seeder.ask() and seeder.process.poll() is None


def test_on_a_network_a_token_is_needed(machine: Machine) -> None:
    with machine.seeder(ZEST_STATUS="0.0.0.0:0") as seeder:
        path = machine.home / "zest" / "status.token"
        token = path.read_text().strip()
        assert len(token) >= 40 and stat.S_IMODE(path.stat().st_mode) == 0o600
        assert token not in seeder.line
        basic = base64.b64encode(f"anybody:{token}".encode()).decode()
        right = [f"Bearer {token}", f"bearer  {token} ", f"Basic {basic}"]
        wrong = ["", "Bearer", "Bearer x", f"Bearer {token}x", f"Bearer {token[:-1]}", token, "Basic x", "Basic !"]
        wrong += ["\xff", "Bearer \xff"]
        wrong += [f"Basic {base64.b64encode(token.encode()).decode()}", f"Digest {token}"]
        for value in right:
            assert ask(seeder, Authorization=value) == 200, value
            assert ask(seeder, Authorization=value, Origin="https://evil.example") == 403
            assert ask(seeder, Authorization=value, Host="evil.example") == 400
        for value in wrong:
            for method, route in (("GET", "/v1/status"), ("GET", "/v1/models"), ("POST", "/v1/stop"), ("GET", "/x")):
                assert ask(seeder, route, method, Authorization=value) == 401, value
        assert ask(seeder) == 401
        assert ask(seeder, "/v1/health") == 200
        assert ask(seeder, "/v1/health", Host="evil.example") == 400
        for name in (socket.gethostname(), f"{socket.gethostname()}.cluster.local:80", "192.0.2.1:1"):
            assert ask(seeder, Host=name, Authorization=right[0]) == 200, name
        # Who may read the file is not asked for it.
        shown = machine.command("zest", "status", "--json")
        assert shown.code == 0 and json.loads(shown.stdout)["files"] == 0, shown.stderr
    with machine.seeder(ZEST_STATUS="0.0.0.0:0") as seeder:
        assert ask(seeder, Authorization=right[0]) == 200  # it stays the same
    path.write_text("short\n")
    run = machine.command("zest-seed", ZEST_STATUS="0.0.0.0:0")
    assert run.code == 1 and "holds no token" in run.stderr and len(run.stderr.splitlines()) == 1
    with machine.seeder():  # on loopback none is needed
        pass


def test_two_who_make_the_token_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have the same: what the first goes by stays."""
    first: list[str] = []

    def after_another(size: int) -> str:
        monkeypatch.undo()
        first.append(guard.page_token(tmp_path))
        return "x" * size

    monkeypatch.setattr(guard.secrets, "token_urlsafe", after_another)
    assert [guard.page_token(tmp_path)] == first == [guard.read_token(tmp_path)]
    assert [path.name for path in tmp_path.iterdir()] == [guard.TOKEN_NAME]


def test_hostile_http(machine: Machine) -> None:
    with machine.seeder() as seeder:
        for text in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
            b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /x HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
            b"POST /v1/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
            b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        ):
            first = answer_to(seeder, text)
            assert first == b"" or first.split(b" ")[1].startswith(b"4"), first
            assert ask(seeder) == 200
        assert seeder.process.poll() is None
        said = seeder.end(signal.SIGTERM).stderr
        assert "Traceback" not in said and "Invalid HTTP" not in said  # nobody could do anything about it


def answer_to(seeder: Seeder, text: bytes) -> bytes:
    """The first line of what comes back until the other side hangs up."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port_of(seeder)), timeout=10) as line:
        try:
            line.sendall(text)
            while part := line.recv(65536):
                answer += part
                if b"\r\n\r\n" in answer:
                    break
        except ConnectionError:  # it has hung up before it had read everything
            pass
    return answer.partition(b"\r\n")[0]


@pytest.mark.parametrize("begun", [b"", b"GET /v1/status HTTP/1.1\r\nHost: loc"])
def test_silent_connections(machine: Machine, begun: bytes) -> None:
    """However many: they are hung up on, and take no more than a limit of file descriptors."""
    with machine.seeder() as seeder, ExitStack() as open_lines:
        lines = [
            open_lines.enter_context(socket.create_connection(("127.0.0.1", port_of(seeder)), timeout=10))
            for _ in range(200)
        ]
        for line in lines:
            try:
                line.sendall(begun)
                assert line.recv(100) == b""  # a deadline of its own ends the wait
            except ConnectionError:
                pass
        assert ask(seeder) == 200
