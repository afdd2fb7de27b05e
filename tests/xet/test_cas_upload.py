"""The uploading half of the CAS's interface, against answers of every kind."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from loopback_http import LoopbackServer, answer, drop, running, truncated

from zest_hf import xet
from zest_hf.cas import CasToken
from zest_hf.cas_upload import CasUploader
from zest_hf.errors import CasError, CasUnauthorized, CasUnavailable, ProtocolError, ShardError

NAME = xet.XetHash(bytes(range(32)))
XORB = f"/v1/xorbs/default/{xet.hash_to_text(NAME)}"
CHUNK = f"/v1/chunks/default/{xet.hash_to_text(NAME)}"
RESULT = b'{"type":"validating","verified":1,"total":2}\n\n{"type":"result"}\n'
ERROR = b'{"type":"error","message":"disk full","retryable":%s}\n'


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with running() as one:
        yield one


@pytest.fixture
def cas(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[CasUploader]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    client = CasUploader(lambda force: CasToken(server.url, "fresh" if force else "first", 1e12), user_agent="test",
                         sleep=lambda delay_s: None)  # fmt: skip
    yield client
    client.close()


def test_a_xorb(server: LoopbackServer, cas: CasUploader) -> None:
    server.on(XORB, answer(503), drop, truncated(200, b"{", 20), answer(200, b'{"was_inserted":true}'))
    assert cas.upload_xorb(NAME, b"packed") is True
    assert [one.body for one in server.requests] == [b"packed"] * 4
    server.on(XORB, answer(200, b'{"was_inserted":false}'))
    assert cas.upload_xorb(NAME, b"packed") is False
    assert server.requests[0].headers["authorization"] == "Bearer first"


def test_a_token_is_replaced_once(server: LoopbackServer, cas: CasUploader) -> None:
    server.on(XORB, answer(401), answer(200, b'{"was_inserted":true}'))
    cas.upload_xorb(NAME, b"")
    assert [one.headers["authorization"] for one in server.requests] == ["Bearer first", "Bearer fresh"]
    server.on(XORB, answer(401))
    with pytest.raises(CasUnauthorized):
        cas.upload_xorb(NAME, b"")


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b'{"was_inserted":1}', b"[" * 100_000])
def test_answers_that_say_nothing(server: LoopbackServer, cas: CasUploader, body: bytes) -> None:
    server.on(XORB, answer(200, body))
    with pytest.raises(ProtocolError):
        cas.upload_xorb(NAME, b"")


def test_a_refusal_comes_with_the_reason(server: LoopbackServer, cas: CasUploader) -> None:
    server.on(XORB, answer(400, json.dumps({"error": "chunk 3\nis wrong" * 100}).encode()))
    with pytest.raises(CasError, match=r"HTTP 400 .*chunk 3 is wrong") as caught:
        cas.upload_xorb(NAME, b"")
    assert caught.value.status == 400 and len(str(caught.value)) < 500


def test_no_redirect_takes_an_upload_elsewhere(server: LoopbackServer, cas: CasUploader) -> None:
    server.on(XORB, answer(307, Location=server.url + "/other"))
    with pytest.raises(CasError, match="HTTP 307"):
        cas.upload_xorb(NAME, b"secret")
    assert len(server.requests) == 1


def test_a_shard(server: LoopbackServer, cas: CasUploader) -> None:
    server.on("/v2/shards", answer(200, ERROR % b"true"), answer(200, b""), answer(200, RESULT))
    cas.upload_shard(b"shard")
    assert [one.body for one in server.requests] == [b"shard"] * 3
    server.on("/v2/shards", answer(200, ERROR % b"false"))
    with pytest.raises(CasError, match="refused: disk full") as caught:
        cas.upload_shard(b"shard")
    assert not isinstance(caught.value, CasUnavailable)
    server.on("/v2/shards", answer(200, b"no json\n"))
    with pytest.raises(ProtocolError):
        cas.upload_shard(b"shard")


@pytest.mark.parametrize("status", [404, 501])
def test_a_shard_for_version_1(server: LoopbackServer, cas: CasUploader, status: int) -> None:
    server.on("/v2/shards", answer(status))
    server.on("/v1/shards", answer(200, b'{"result":1}'), answer(200, b'{"result":7}'))
    cas.upload_shard(b"shard")
    with pytest.raises(ProtocolError, match="did not say"):
        cas.upload_shard(b"shard")


def test_a_query(server: LoopbackServer, cas: CasUploader) -> None:
    assert cas.query_chunk(NAME) is None
    shard = xet.Shard((), ()).keyed(b"k" * 32, 1, 2)
    server.on(CHUNK, answer(200, shard.to_bytes()), answer(200, b"no shard"))
    assert cas.query_chunk(NAME) == shard
    with pytest.raises(ShardError):
        cas.query_chunk(NAME)
