"""Xet tokens and visibility, against a real Hub."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback_http import answer, running

from zest_hf.errors import CasForbidden, CasNotFound, CasUnauthorized, CasUnavailable, ProtocolError
from zest_hf.hook import connection
from zest_hf.hook.connection import Connection, Route, connect, parse_route
from zest_hf.hub.process import HubProcess

from .conftest import OWNER

AUTHORIZED = {"authorization": f"Bearer {OWNER}", "user-agent": "test"}


@pytest.fixture(autouse=True)
def nothing_cached(hub: HubProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(connection, "_shared", connection._Tokens())
    hub.reset_stats()
    yield
    hub.clear_faults()


def link_to(hub: HubProcess, repo: str, headers: dict[str, str], **memory: Any) -> Connection:
    url = f"{hub.endpoint}/api/models/{repo}/xet-read-token/main"
    return Connection(url, Route(hub.endpoint, "model", repo), headers, **memory)


def requests(hub: HubProcess) -> int:
    return int(hub.stats()["by_route"].get("GET xet-read-token", {"requests": 0})["requests"])


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        (
            "https://hf.co/api/models/org/name/xet-read-token/main",
            ("https://hf.co", "model", "org/name"),
        ),
        (
            "https://hf.co/api/models/gpt2/xet-read-token/refs%2Fpr%2F1",
            ("https://hf.co", "model", "gpt2"),
        ),
        ("http://h:1/hub/api/datasets/o/n/xet-read-token/0f", ("http://h:1/hub", "dataset", "o/n")),
        ("https://hf.co/api/spaces/o/n/xet-read-token", ("https://hf.co", "space", "o/n")),
        ("https://hf.co/api/buckets/o/n/xet-read-token", None),
        ("https://hf.co/api/models/o/n/xet-write-token/main", None),
        ("https://hf.co/api/models/a/b/c/xet-read-token/main", None),
        ("file:///api/models/o/n/xet-read-token/main", None),
        ("", None),
        ("https://hf.co/api/models/o/" + "n" * 5000 + "/xet-read-token/main", None),
    ],
)
def test_routes(url: str, parts: tuple[str, str, str] | None) -> None:
    assert parse_route(url) == (Route(*parts) if parts else None)


def test_files_of_a_revision_share_a_connection() -> None:
    url = "https://hf.co/api/models/org/name/xet-read-token/main"
    link = connect(url, {"Authorization": "a", "user-agent": "u"})
    assert link.token == connect(url, {"user-agent": "u", "authorization": "a"}).token
    assert link is not connect(url, {"authorization": "b", "user-agent": "u"})
    assert link is not connect(url, {"user-agent": "u"})
    with pytest.raises(ProtocolError):
        connect("https://hf.co/api/buckets/o/n/xet-read-token", {})


def test_one_request_for_many_threads(hub: HubProcess) -> None:
    begin = threading.Barrier(8)
    tokens = []

    def ask() -> None:
        begin.wait()
        tokens.append(link_to(hub, "org/model", {}).token(False))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 8 and len(set(tokens)) == 1
    assert tokens[0].url.startswith("http") and tokens[0].expires_at_s > time.time() + 60
    assert requests(hub) == 1


def test_a_process_that_goes_on_for_years(hub: HubProcess) -> None:
    """What is kept of repositories and revisions stays within limits, and what was just learned is known."""
    for number in range(2 * connection.MAX_CACHED + 100):
        link = link_to(hub, f"org/{number}", AUTHORIZED, remembered=lambda: True)
        assert link.is_public()
    assert link.known_to_be_public() and requests(hub) == 0
    for kept in (connection._shared.key_locks, connection._shared.public):
        assert len(kept) <= 2 * connection.MAX_CACHED


def test_a_forced_token_is_a_new_one(hub: HubProcess) -> None:
    link = link_to(hub, "org/model", {})
    link.token(False)
    link.token(True)
    link.token(False)
    assert requests(hub) == 2


def test_tokens_are_kept_apart_by_user(hub: HubProcess) -> None:
    link_to(hub, "org/secret", AUTHORIZED).token(False)
    with pytest.raises(CasUnauthorized):
        link_to(hub, "org/secret", {}).token(False)


def test_a_token_about_to_expire_is_not_used(tmp_path: Path) -> None:
    with HubProcess(tmp_path, token=OWNER, token_lifetime=30) as short:
        import huggingface_hub

        huggingface_hub.HfApi(short.endpoint, token=OWNER).create_repo("org/model")
        link = link_to(short, "org/model", {})
        link.token(False)
        link.token(False)
        assert requests(short) == 2


@pytest.mark.parametrize(
    ("status", "kind"), [(403, CasForbidden), (404, CasNotFound), (401, CasUnauthorized)]
)
def test_refusals(hub: HubProcess, status: int, kind: type[Exception]) -> None:
    hub.fault("hub", "status", status=status, match="xet-read-token")
    with pytest.raises(kind) as caught:
        link_to(hub, "org/model", {}).token(False)
    assert str(status) in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.status == status  # type: ignore[attr-defined]


def test_no_hub_at_all() -> None:
    url = "http://127.0.0.1:9/api/models/org/model/xet-read-token/main"
    link = Connection(url, Route("http://127.0.0.1:9", "model", "org/model"), {})
    assert not link.is_public()


def test_visibility(hub: HubProcess) -> None:
    for repo, public in (("org/model", True), ("org/secret", False)):
        saved: list[bool] = []
        link = link_to(hub, repo, AUTHORIZED, remember=saved.append)
        link.token(False)
        assert [link.is_public(), link.is_public()] == [public, public]
        assert saved == [public]
    assert requests(hub) == 4


def test_visibility_without_a_token_needs_no_further_request(hub: HubProcess) -> None:
    link = link_to(hub, "org/model", {})
    link.token(False)
    assert link.is_public()
    assert requests(hub) == 1


def test_visibility_that_is_remembered_needs_no_request(hub: HubProcess) -> None:
    assert not link_to(hub, "org/model", AUTHORIZED, remembered=lambda: False).is_public()
    assert link_to(hub, "org/data", AUTHORIZED, remembered=lambda: True).is_public()
    assert requests(hub) == 0


def test_an_unclear_answer_is_a_no_and_not_remembered(
    hub: HubProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fault("hub", "status", status=500, match="xet-read-token")
    saved: list[bool] = []
    link = link_to(hub, "org/model", AUTHORIZED, remember=saved.append)
    assert not link.is_public() and not link.is_public()
    assert saved == [] and requests(hub) == 1
    hub.clear_faults()
    monkeypatch.setattr(connection, "_shared", connection._Tokens())
    assert link_to(hub, "org/model", AUTHORIZED).is_public()


def test_a_login_page_is_no_yes() -> None:
    """It answers 200 to everyone, after a redirect."""
    route = "/api/models/org/secret/xet-read-token/main"
    saved: list[bool] = []
    with running() as server:
        server.on(route, answer(302, Location="/login"))
        server.on("/login", answer(200, b"<html>who are you?</html>"))
        repo = Route(server.url, "model", "org/secret")
        link = Connection(server.url + route, repo, AUTHORIZED, remember=saved.append)
        assert not link.is_public()
        assert [request.path for request in server.requests] == [route, "/login"]
    assert saved == []


def test_credentials_that_the_client_adds_do_not_count_as_anonymous(hub: HubProcess) -> None:
    import httpx2
    import huggingface_hub

    huggingface_hub.set_client_factory(lambda: httpx2.Client(headers=AUTHORIZED))
    try:
        link = link_to(hub, "org/secret", {})
        link.token(False)
        assert not link.is_public()
    finally:
        huggingface_hub.set_client_factory(httpx2.Client)


def test_a_hub_that_is_down_is_unavailable(hub: HubProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "TOKEN_RETRIES", 0)
    hub.fault("hub", "status", status=503, match="xet-read-token")
    with pytest.raises(CasUnavailable) as caught:
        link_to(hub, "org/model", {}).token(False)
    assert caught.value.retryable
    monkeypatch.setattr(connection, "_RETRIED_STATUS", ())
    hub.clear_faults()
    hub.fault("hub", "stall", match="xet-read-token")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.2)
    with pytest.raises(CasUnavailable):
        link_to(hub, "org/model", {}).token(False)
