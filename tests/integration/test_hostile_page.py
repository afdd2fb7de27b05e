"""Those who mean no good to the seeder's page: none hangs it, or makes it grow."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pages
import psutil
import pytest
from machines import Machine, Seeder, eventually

from zest_hf.seed.feed import MAX_FOLLOWERS, MAX_MODELS
from zest_hf.seed.page_protocol import ACCEPTED_AT_ONCE, MAX_CONNECTIONS, QUEUED, REQUEST_S, STALLED_S
from zest_hf.seed.web import BODY_S

MAX_GROWTH_BYTES = 48 << 20
MAX_GROWTH_OF_ANSWERS_BYTES = 20 << 20
"""For 36 answers of 0.6 MB; it is some 7 MB."""
QUICK_S = 2.0
HEAD = b"%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture
def seeder(machine: Machine) -> Iterator[Seeder]:
    """With so much to show that no buffer of a socket takes it."""
    pages.offer(machine, [f"org/model-{number}" + "x" * 150 for number in range(MAX_MODELS)])
    with machine.seeder(**pages.OFFLINE) as seeder:
        yield seeder


@contextlib.contextmanager
def lines(seeder: Seeder, count: int, text: bytes) -> Iterator[list[socket.socket]]:
    """So many connections, each with a small window, on which this has been said."""
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            line = stack.enter_context(socket.socket())
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.settimeout(15)
            line.connect(("127.0.0.1", pages.port_of(seeder)))
            with contextlib.suppress(ConnectionError):
                line.sendall(text)
            opened.append(line)
        yield opened


def is_quick(seeder: Seeder, path: str = "/v1/health") -> bool:
    began_s = time.monotonic()
    try:
        return pages.ask(seeder, path).status == 200 and time.monotonic() - began_s < QUICK_S
    except ConnectionError:
        return False  # there are too many connections


def drained(line: socket.socket) -> bool:
    """Whether the other side has hung up, once everything is read that came before."""
    try:
        while line.recv(1 << 20):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def test_who_never_reads(seeder: Seeder) -> None:
    """As many as may look, and some who want a large answer."""
    assert is_quick(seeder)
    before = pages.rss_bytes(seeder.process.pid)
    events = HEAD % b"GET /v1/events" + b"\r\n"
    status = HEAD % b"GET /v1/status" + b"\r\n"
    with lines(seeder, MAX_FOLLOWERS, events) as deaf, lines(seeder, 20, status) as deaf_too:
        began_s = time.monotonic()
        eventually(lambda: pages.ask(seeder, "/v1/events", "HEAD").status == 200, "it answers")
        most = 0
        while time.monotonic() - began_s < STALLED_S:
            assert is_quick(seeder)
            most = max(most, pages.rss_bytes(seeder.process.pid) - before)
        eventually(lambda: connections_of(seeder) == 0, "they are hung up on")
        assert can_look(seeder)
        assert all(drained(line) for line in [*deaf, *deaf_too])
    assert most < MAX_GROWTH_OF_ANSWERS_BYTES


def files_of(seeder: Seeder) -> int:
    """How many files and connections it has open."""
    return len(list(Path(f"/proc/{seeder.process.pid}/fd").iterdir()))


def connections_of(seeder: Seeder) -> int:
    """How many connections with its page it has open."""
    port = pages.port_of(seeder)
    sockets = psutil.Process(seeder.process.pid).net_connections("tcp")
    return sum(one.laddr.port == port and one.status != psutil.CONN_LISTEN for one in sockets)


def can_look(seeder: Seeder) -> bool:
    try:
        with pages.events(seeder) as news:
            return bool(pages.first(news, "status"))
    except (AssertionError, ConnectionError):
        return False


def test_who_reads_slowly_gets_everything(seeder: Seeder) -> None:
    """A phone, say."""
    with lines(seeder, 1, HEAD % b"GET /v1/models" + b"Connection: close\r\n\r\n") as (line,):
        text = b""
        began_s = time.monotonic()
        while part := line.recv(2048):
            text += part
            if time.monotonic() - began_s < STALLED_S + 2:
                time.sleep(0.05)  # what it does, not what it waits for
        assert time.monotonic() - began_s > STALLED_S
        assert len(json.loads(text.partition(b"\r\n\r\n")[2])["models"]) == MAX_MODELS


def test_bodies_that_never_come(machine: Machine) -> None:
    texts = (
        HEAD % b"POST /v1/pull" + b"Content-Length: 100\r\n\r\n{",
        HEAD % b"POST /v1/pull" + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        HEAD % b"POST /v1/pull/stop" + b"Content-Length: 100\r\n\r\n{",
        HEAD % b"GET /v1/status" + b"Content-Length: 100000000\r\n\r\n",
    )
    with machine.seeder() as seeder, contextlib.ExitStack() as stack:
        silent: list[socket.socket] = []
        for text in texts:
            silent += stack.enter_context(lines(seeder, MAX_CONNECTIONS // len(texts), text))
        began_s = time.monotonic()
        assert all(drained(line) for line in silent)
        assert time.monotonic() - began_s < max(BODY_S, REQUEST_S) + 2 * REQUEST_S + 1
        assert is_quick(seeder)


def test_slowloris(machine: Machine) -> None:
    """A header now and then does not keep a connection."""
    with machine.seeder() as seeder, lines(seeder, MAX_CONNECTIONS, HEAD % b"GET /v1/status") as slow:
        began_s = time.monotonic()
        left = set(slow)
        while left:
            assert time.monotonic() - began_s < 2 * REQUEST_S + 2
            for line in list(left):
                try:
                    line.sendall(b"X-Y: z\r\n")
                except ConnectionError:
                    left.discard(line)
            time.sleep(0.1)  # what it does, not what it waits for
        assert is_quick(seeder)


@pytest.mark.parametrize("text", [b"", HEAD % b"GET /v1/status"], ids=["silent", "half a request"])
def test_a_crowd_gives_way_to_who_comes_after(machine: Machine, text: bytes) -> None:
    """All come while nobody looks; and no more of them are let in than the page has files for."""
    with machine.seeder() as seeder:
        assert is_quick(seeder)
        few = files_of(seeder) + MAX_CONNECTIONS + 3 * ACCEPTED_AT_ONCE
        resource.prlimit(seeder.process.pid, resource.RLIMIT_NOFILE, (few, few))
        seeder.process.send_signal(signal.SIGSTOP)
        with lines(seeder, QUEUED - 2, text) as crowd:
            last = http.client.HTTPConnection("127.0.0.1", pages.port_of(seeder), timeout=pages.WAIT_S)
            with contextlib.closing(last):
                last.request("GET", "/v1/health")
                seeder.process.send_signal(signal.SIGCONT)
                assert last.getresponse().status == 200
            assert all(drained(line) for line in crowd)
        assert "out of system resource" not in seeder.end(signal.SIGTERM).stderr


@pytest.mark.parametrize("kind", ["headers", "body", "garbage", "chunks", "pipeline"])
def test_floods(machine: Machine, kind: str) -> None:
    """Of each 64 MB, or as much as is taken."""
    begin, part = {
        "headers": (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X-Y: " + b"z" * 1000 + b"\r\n"),
        "body": (HEAD % b"POST /v1/pull" + b"Content-Length: 10000000000\r\n\r\n", b" " * 65536),
        "chunks": (HEAD % b"POST /none" + b"Transfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 1000 + b"\r\ny\r\n"),
        "garbage": (b"\x00\xff\r\n\r\n", b"\x16\x03\x01" * 1000),
        "pipeline": (b"", b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    }[kind]
    with machine.seeder() as seeder:
        assert is_quick(seeder)
        before = pages.rss_bytes(seeder.process.pid)
        with lines(seeder, 1, begin) as (line,):
            line.settimeout(1.0)
            block = part * max(1, 65536 // len(part))
            with contextlib.suppress(ConnectionError, TimeoutError):
                for number in range((64 << 20) // len(block)):
                    line.sendall(block)
                    if number % 100 == 0:
                        assert is_quick(seeder)
            assert is_quick(seeder)
            assert pages.rss_bytes(seeder.process.pid) - before < MAX_GROWTH_BYTES
        assert seeder.process.poll() is None
        assert "Traceback" not in seeder.end(15).stderr


def test_many_who_come_and_go(machine: Machine) -> None:
    """Nothing is left of them."""
    with machine.seeder() as seeder:
        assert is_quick(seeder)
        before = pages.rss_bytes(seeder.process.pid)
        for _ in range(30):
            with lines(seeder, 20, HEAD % b"GET /v1/events" + b"\r\n"):
                pass
        eventually(lambda: can_look(seeder), "there is room again")
        assert pages.rss_bytes(seeder.process.pid) - before < MAX_GROWTH_BYTES
        eventually(lambda: connections_of(seeder) == 0, "their connections are closed")
