"""Names are looked up when there is something to look for, and nobody waits for those that take long."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machines import eventually

from zest_hf.config import load_settings
from zest_hf.core.ids import XetHash
from zest_hf.core.policy import PolicySettings
from zest_hf.names import is_address
from zest_hf.swarm import Swarm

URL = "http://tracker.invalid:6969/announce"
FILE = XetHash(b"f" * 32)


class Resolver:
    """Answers for names that end in "invalid" when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.answer = threading.Event()
        self.fails = False
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._get)

    def _get(self, host: str, *arguments: Any, **options: Any) -> Any:
        if not host.endswith("invalid"):
            return self._real(host, *arguments, **options)
        self.asked.append(host)
        if self.fails:
            raise socket.gaierror(-2, "Name or service not known")
        self.answer.wait(30)
        return self._real("127.0.0.1", *arguments, **options)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver(monkeypatch)
    yield made
    made.answer.set()


def swarm(tmp_path: Path, **environ: str) -> Swarm:
    base = {"ZEST_HOME": str(tmp_path), "ZEST_LISTEN": "127.0.0.1:0", "ZEST_LSD": "off", "ZEST_DHT": "off"}
    return Swarm(load_settings(base | environ), PolicySettings())


def test_a_name_server_that_does_not_answer_holds_up_nobody(resolver: Resolver, tmp_path: Path) -> None:
    one = swarm(tmp_path, ZEST_TRACKERS=URL, ZEST_DHT="on", ZEST_DHT_BOOTSTRAP="node.invalid:6881")
    assert resolver.asked == [], "there is nothing to look for yet"
    one.join_file(FILE)
    eventually(lambda: sorted(resolver.asked) == ["node.invalid", "tracker.invalid"], "both are looked up")
    (tracker,) = one.report()["discovery"]["trackers"]
    assert tracker == {"url": URL, "working": False, "message": "is being looked up", "peers": 0}
    began_s = time.monotonic()
    one.close()
    assert time.monotonic() - began_s < 3.0


def test_a_tracker_is_told_as_soon_as_its_name_is_known(resolver: Resolver, tmp_path: Path) -> None:
    one = swarm(tmp_path, ZEST_TRACKERS=f"{URL},http://127.0.0.1:9/announce")
    one.join_file(FILE)
    eventually(lambda: resolver.asked, "it is looked up")
    resolver.answer.set()
    eventually(lambda: [info.url for info in one._session.trackers()][1:] == [URL], "it is a tracker of the session")
    assert {info["url"] for info in one.report()["discovery"]["trackers"]} == {URL, "http://127.0.0.1:9/announce"}
    one.close()


def test_a_name_that_nobody_knows(resolver: Resolver, tmp_path: Path) -> None:
    resolver.fails = True
    one = swarm(tmp_path, ZEST_TRACKERS=URL)
    one.join_file(FILE)

    def message() -> str:
        return str(one.report()["discovery"]["trackers"][0]["message"])

    eventually(lambda: message() == "its name is not found: Name or service not known", "the status says so")
    one.close()


@pytest.mark.parametrize(
    ("host", "wanted"),
    [("127.0.0.1", True), ("::1", True), ("fe80::1%eth0", True), ("localhost", True), ("a.example", False)],
)
def test_what_need_not_be_looked_up(host: str, wanted: bool) -> None:
    assert is_address(host) is wanted
