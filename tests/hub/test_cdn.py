from __future__ import annotations

import random
import re
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from machines import eventually

from zest_hf.core.ids import hash_to_text
from zest_hf.hub.process import HubProcess

from .wire import Client, Packed, pack


def test_ranges(client: Client, stored: Packed) -> None:
    url, size = client.first_url(stored)
    body = stored.body
    for text, wanted in (
        ("0-0", body[:1]),
        ("5-9", body[5:10]),
        (f"{size - 3}-", body[-3:]),
        ("-4", body[-4:]),
    ):
        answer = client.fetch(url, text)
        assert (answer.status_code, answer.content) == (206, wanted)
        assert re.fullmatch(rf"bytes \d+-\d+/{size}", answer.headers["Content-Range"])
    whole = client.fetch(url)
    assert (whole.status_code, whole.content) == (200, body)
    assert client.fetch(url, f"{size}-").status_code == 416


def test_several_ranges_come_as_parts(client: Client, stored: Packed) -> None:
    url, _ = client.first_url(stored)
    answer = client.fetch(url, "0-9,100-104")
    assert answer.status_code == 206
    boundary = answer.headers["Content-Type"].partition("boundary=")[2]
    parts = answer.content.split(f"--{boundary}".encode())[1:-1]
    assert [part.partition(b"\r\n\r\n")[2][:-2] for part in parts] == [stored.body[:10], stored.body[100:105]]


def test_urls_cannot_be_changed(client: Client, stored: Packed) -> None:
    url, size = client.first_url(stored)
    for changed in (
        url.replace("expires=", "expires=9"),
        url.replace("range=0-", "range=1-"),
        url.replace("signature=", "signature=A"),
        url.partition("?")[0],
    ):
        assert client.fetch(changed).status_code == 403
    part = client.reconstruction(stored, "0-10").json()
    (entry,) = next(iter(part["xorbs"].values()))
    assert client.fetch(entry["url"], f"{size - 1}-").status_code == 403


def test_a_connection_serves_many_requests(hub: HubProcess, client: Client, stored: Packed) -> None:
    url, size = client.first_url(stored)
    hub.reset_stats()
    parts = urlsplit(url)
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=10) as connection:
        file = connection.makefile("rb")
        for start in (0, 1000, size - 5):
            head = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\nRange: bytes={start}-\r\n\r\n"
            connection.sendall(head.encode())
            assert file.readline().startswith(b"HTTP/1.1 206")
            while file.readline() != b"\r\n":
                pass
            assert file.read(size - start) == stored.body[start:]
        file.close()
    wanted = (3, sum(size - start for start in (0, 1000, size - 5)))
    # An answer is counted when its send has returned, which may be after we have read it.
    eventually(lambda: (now := hub.stats()) and (now["cdn_requests"], now["cdn_bytes"]) == wanted, "counted")
    stats = hub.stats()
    assert stats["by_xorb"] == {hash_to_text(stored.xorb): {"requests": 3, "bytes": stats["cdn_bytes"]}}
    assert stats["by_route"] == {
        "GET cdn": {"requests": 3, "bytes": stats["cdn_bytes"], "statuses": {"206": 3}}
    }


def test_pipelined_requests_are_answered_in_order(client: Client, stored: Packed) -> None:
    url, size = client.first_url(stored)
    parts = urlsplit(url)
    assert parts.hostname is not None
    heads = "".join(
        f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\nRange: bytes={start}-\r\n{last}\r\n"
        for start, last in ((0, ""), (10, ""), (size - 1, "Connection: close\r\n"))
    )
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=10) as connection:
        connection.sendall(heads.encode())
        received = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    assert received.count(b"HTTP/1.1 206") == 3
    assert len(received) > size + size - 10
    assert received.endswith(stored.body[-1:])


def test_an_aborted_transfer_counts_what_was_sent(tmp_path: Path) -> None:
    packed = pack(random.Random(6).randbytes(20_000_000))
    with HubProcess(tmp_path) as hub:
        client = Client(hub.endpoint)
        client.create()
        client.upload(packed)
        url, size = client.first_url(packed)
        hub.reset_stats()
        with client.fetch(url, stream=True) as answer:
            assert answer.raw.read(10) == packed.body[:10]
        # The hub learns of the end when it next writes, so its count may come a little later.
        deadline_s = time.monotonic() + 10
        while not (sent := hub.stats()["cdn_bytes"]):
            assert time.monotonic() < deadline_s
        assert 10 <= sent < size


def test_redirects_lead_to_the_bytes(tmp_path: Path, packed: Packed) -> None:
    with HubProcess(tmp_path, redirect_cdn=True) as hub:
        client = Client(hub.endpoint)
        client.create()
        client.upload(packed)
        url, _ = client.first_url(packed)
        assert client.fetch(url, allow_redirects=False).status_code == 302
        assert client.fetch(url, "1-2").content == packed.body[1:3]


def test_exact_and_folded_ranges(tmp_path: Path, packed: Packed) -> None:
    with HubProcess(tmp_path, exact_ranges=True, multi_range=True) as hub:
        client = Client(hub.endpoint)
        client.create()
        client.upload(packed)
        url, size = client.first_url(packed)
        assert client.fetch(url, f"0-{size - 1}").status_code == 206
        assert client.fetch(url, f"1-{size - 1}").status_code == 403


@pytest.mark.parametrize("path", ["/_cdn/", "/_cdn/nothash", "/api/models", "/_stats"])
def test_the_cdn_listener_has_nothing_else(client: Client, stored: Packed, path: str) -> None:
    url, _ = client.first_url(stored)
    assert client.fetch(f"http://{urlsplit(url).netloc}{path}").status_code == 404
