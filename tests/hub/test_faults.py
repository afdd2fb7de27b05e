from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from zest_hf.errors import ProtocolError, ZestError
from zest_hf.hub.faults import Bucket, parse_rule
from zest_hf.hub.process import HubProcess

from .wire import Client, Packed


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ([], "JSON object"),
        ({}, "route"),
        ({"route": "moon", "kind": "latency"}, "moon"),
        ({"route": "cdn", "kind": "explode"}, "explode"),
        ({"route": "cdn", "kind": ["rate"]}, "kind"),
        ({"route": "cdn", "kind": "rate"}, "bytes_per_second"),
        ({"route": "cdn", "kind": "rate", "bytes_per_second": 0}, "bytes_per_second"),
        ({"route": "cdn", "kind": "rate", "bytes_per_second": "fast"}, "bytes_per_second"),
        ({"route": "cdn", "kind": "status", "status": 200.5}, "status"),
        ({"route": "cdn", "kind": "status", "status": True}, "status"),
        ({"route": "cdn", "kind": "status", "status": 99}, "status"),
        ({"route": "cdn", "kind": "stall", "times": 0}, "times"),
        ({"route": "cdn", "kind": "stall", "match": 5}, "match"),
        ({"route": "cdn", "kind": "stall", "colour": 5}, "colour"),
    ],
)
def test_a_bad_rule_is_refused_with_one_line(rule: Any, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        parse_rule(rule)


def test_rules_are_checked_by_the_hub_too(hub: HubProcess) -> None:
    with pytest.raises(ZestError, match="moon"):
        hub.fault("moon", "latency", seconds=1)
    answer = requests.post(f"{hub.endpoint}/_faults", data=b"{")
    assert answer.status_code == 400
    assert requests.get(f"{hub.endpoint}/_faults").json() == {"rules": []}


def test_a_rule_counts_down_and_can_be_listed(hub: HubProcess, client: Client, stored: Packed) -> None:
    url, _ = client.first_url(stored)
    hub.fault("cdn", "status", status=503, times=2, retry_after=7)
    statuses = [client.fetch(url) for _ in range(3)]
    assert [answer.status_code for answer in statuses] == [503, 503, 200]
    assert statuses[0].headers["Retry-After"] == "7"
    (rule,) = requests.get(f"{hub.endpoint}/_faults").json()["rules"]
    assert rule == {"route": "cdn", "kind": "status", "status": 503, "retry_after": 7, "times": 0}


def test_a_rule_only_concerns_paths_that_match(hub: HubProcess, client: Client, stored: Packed) -> None:
    hub.fault("cas", "status", status=500, match="/v1/reconstructions")
    assert client.reconstruction(stored, version=1).status_code == 500
    assert client.reconstruction(stored, version=2).status_code == 200


def test_expired(hub: HubProcess, client: Client, stored: Packed) -> None:
    url, _ = client.first_url(stored)
    hub.fault("cdn", "expire", times=1)
    hub.fault("cas", "expire", times=1)
    assert client.fetch(url).status_code == 403
    assert client.reconstruction(stored).status_code == 401
    assert client.fetch(url).content == stored.body


def test_corrupt_flips_one_byte_of_the_xorb(hub: HubProcess, client: Client, stored: Packed) -> None:
    url, _ = client.first_url(stored)
    hub.fault("cdn", "corrupt", offset=500_000, times=1)
    assert client.fetch(url, "0-1000").content == stored.body[:1001]
    got = client.fetch(url, "400000-600000").content
    wanted = stored.body[400_000:600_001]
    assert [n for n, pair in enumerate(zip(got, wanted, strict=True)) if pair[0] != pair[1]] == [100_000]
    assert client.fetch(url, "400000-600000").content == wanted


def test_truncated_bodies_end_in_a_broken_connection(hub: HubProcess, client: Client, stored: Packed) -> None:
    url, size = client.first_url(stored)
    hub.fault("cdn", "truncate", after_bytes=70_000, times=1)
    hub.reset_stats()
    answer = client.fetch(url, stream=True)
    assert int(answer.headers["Content-Length"]) == size
    received = b""
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        for part in answer.iter_content(10_000):
            received += part
    assert received == stored.body[: len(received)]
    assert hub.stats()["cdn_bytes"] == 70_000
    assert client.fetch(url).content == stored.body


def test_a_stalled_body_stays_open_and_silent(hub: HubProcess, client: Client, stored: Packed) -> None:
    url, _ = client.first_url(stored)
    hub.fault("cdn", "stall", after_bytes=1000, times=1)
    answer = client.fetch(url, stream=True, timeout=0.5)
    assert answer.raw.read(1000) == stored.body[:1000]
    with pytest.raises(Exception, match="timed out"):
        answer.raw.read(1)
    answer.close()
    assert client.fetch(url).content == stored.body


def test_garbage_is_not_json(hub: HubProcess, client: Client, stored: Packed) -> None:
    hub.fault("cas", "garbage", times=1)
    answer = client.reconstruction(stored)
    assert answer.status_code == 200
    with pytest.raises(ValueError):
        answer.json()


def test_latency(hub: HubProcess, client: Client) -> None:
    hub.fault("hub", "latency", seconds=0.3, times=1)
    begun_s = time.monotonic()
    client.token()
    assert time.monotonic() - begun_s >= 0.3


def test_a_rate_holds_for_a_transfer(hub: HubProcess, client: Client, stored: Packed) -> None:
    url, _ = client.first_url(stored)
    hub.fault("cdn", "rate", bytes_per_second=2_000_000)
    begun_s = time.monotonic()
    assert client.fetch(url).content == stored.body
    assert 0.4 <= time.monotonic() - begun_s <= 1.5


def test_a_pace_is_each_answers_own(hub: HubProcess, client: Client, stored: Packed) -> None:
    """Four at once take as long as one does, and not four times as long."""
    url, _ = client.first_url(stored)
    hub.fault("cdn", "pace", bytes_per_second=2_000_000)
    begun_s = time.monotonic()
    with ThreadPoolExecutor(4) as others:
        answers = [others.submit(lambda: requests.get(url, timeout=10).content) for _ in range(4)]
        assert all(answer.result(10) == stored.body for answer in answers)
    one_s = len(stored.body) / 2_000_000
    assert 0.8 * one_s <= time.monotonic() - begun_s <= 3 * one_s


def test_connections_share_a_bucket() -> None:
    bucket = Bucket(1_000_000)
    waits_s = [bucket.reserve(100_000) for _ in range(11)]
    assert waits_s[0] == 0
    assert 0.85 <= waits_s[-1] <= 1.0
