from __future__ import annotations

import random
import time
from array import array
from pathlib import Path
from typing import Any

import pytest
import requests

from zest_hf._native import codec
from zest_hf.core.ids import XetHash, hash_from_text, hash_to_text
from zest_hf.core.shard import Shard, ShardFile, ShardTerm, parse_shard
from zest_hf.core.xorb import XorbFooter
from zest_hf.hub.process import HubProcess

from .wire import Client, Packed, build_shard, pack, shard_of


def unpack(client: Client, answer: dict[str, Any]) -> bytes:
    """Follow a version 2 reconstruction as a client would."""
    chunks: dict[tuple[str, int], bytes] = {}
    for xorb, entries in answer["xorbs"].items():
        for entry in entries:
            (part,) = entry["ranges"]
            body = client.fetch(entry["url"], f"{part['bytes']['start']}-{part['bytes']['end']}")
            assert body.status_code == 206
            layout = codec.inspect_xorb(body.content)
            assert len(layout.lengths) == part["chunks"]["end"] - part["chunks"]["start"]
            for index in range(len(layout.lengths)):
                packed = body.content[layout.packed_offsets[index] : layout.packed_offsets[index + 1]]
                chunks[xorb, part["chunks"]["start"] + index] = packed[8:]  # random bytes are stored
    whole = b""
    for term in answer["terms"]:
        data = b"".join(chunks[term["hash"], n] for n in range(term["range"]["start"], term["range"]["end"]))
        assert len(data) == term["unpacked_length"]
        whole += data
    return whole[answer["offset_into_first_range"] :]


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 0), (0, 1), (5, 6), (0, 999_999), (400_000, 700_000), (999_999, 999_999), (123, 5_000_000)],
)
def test_a_range_is_rebuilt_from_no_more_chunks_than_it_touches(
    client: Client, stored: Packed, start: int, end: int
) -> None:
    answer = client.reconstruction(stored, f"{start}-{end}").json()
    data = unpack(client, answer)
    wanted = stored.content[start : end + 1]
    assert data[: len(wanted)] == wanted
    named_bytes = sum(term["unpacked_length"] for term in answer["terms"])
    ends = [sum(stored.lengths[: n + 1]) for n in range(len(stored.lengths))]
    touched = [n for n, stop in enumerate(ends) if stop > start and stop - stored.lengths[n] <= end]
    assert named_bytes == sum(stored.lengths[n] for n in touched)


def test_every_chunk_boundary_is_a_clean_cut(client: Client, stored: Packed) -> None:
    edge = 0
    for length in stored.lengths[:4]:
        answer = client.reconstruction(stored, f"{edge}-{edge + length - 1}").json()
        (term,) = answer["terms"]
        assert (answer["offset_into_first_range"], term["unpacked_length"]) == (0, length)
        edge += length


def test_both_versions_say_the_same(client: Client, stored: Packed) -> None:
    first = client.reconstruction(stored, "100000-800000", version=1).json()
    second = client.reconstruction(stored, "100000-800000", version=2).json()
    assert first["terms"] == second["terms"]
    for xorb, rows in first["fetch_info"].items():
        parts = [part for entry in second["xorbs"][xorb] for part in entry["ranges"]]
        assert [(row["range"], row["url_range"]) for row in rows] == [
            (p["chunks"], p["bytes"]) for p in parts
        ]


def test_parts_of_a_xorb_are_fetched_once_each(client: Client, stored: Packed) -> None:
    whole = client.upload_parts(stored, [(5, 7), (0, 2), (6, 8), (1, 2), (8, 9)], "parts.bin")
    answer = client.reconstruction(whole).json()
    assert [term["range"]["start"] for term in answer["terms"]] == [5, 0, 6, 1, 8]
    (entries,) = answer["xorbs"].values()
    chunks = [entry["ranges"][0]["chunks"] for entry in entries]
    assert chunks == [{"start": 0, "end": 2}, {"start": 5, "end": 9}]
    assert unpack(client, answer) == whole.content


def test_a_range_past_the_end_is_416(client: Client, stored: Packed) -> None:
    for version in (1, 2):
        assert client.reconstruction(stored, "1000000-", version).status_code == 416


def test_an_unknown_file_is_404(client: Client) -> None:
    assert client.reconstruction(pack(b"nobody has this")).status_code == 404


def test_tokens_open_their_repository_only(hub: HubProcess, client: Client, stored: Packed) -> None:
    url = f"{hub.endpoint}/v2/reconstructions/{hash_to_text(stored.file_hash)}"
    other = Client(hub.endpoint, "org/other")
    other.create()
    cases: list[tuple[dict[str, str], int]] = [
        ({}, 401),
        ({"Authorization": "Bearer xet_forged.AAAA"}, 401),
        ({"Authorization": "Bearer somebody"}, 401),
        (other.token(), 403),
        (client.token(), 200),
        (client.token("write"), 200),
    ]
    for headers, status in cases:
        assert requests.get(url, headers=headers).status_code == status


def test_a_read_token_cannot_upload(client: Client, packed: Packed) -> None:
    path = f"/v1/xorbs/default/{hash_to_text(packed.xorb)}"
    assert client.post(path, packed.body, client.token("read")).status_code == 403
    assert client.post("/v1/shards", shard_of(packed), client.token("read")).status_code == 403


def test_tokens_and_urls_expire(tmp_path: Path, packed: Packed) -> None:
    with HubProcess(tmp_path, token_lifetime=2, url_lifetime=1) as hub:
        client = Client(hub.endpoint)
        client.create()
        client.upload(packed)
        token = client.token()
        path = f"{hub.endpoint}/v2/reconstructions/{hash_to_text(packed.file_hash)}"
        deadline_s = time.time() + 5
        url, _ = client.first_url(packed)
        statuses = {requests.get(path, headers=token).status_code}
        urls = {client.fetch(url).status_code}
        while 401 not in statuses and time.time() < deadline_s:
            statuses.add(requests.get(path, headers=token).status_code)
            urls.add(client.fetch(url).status_code)
        assert (statuses, urls) == ({200, 401}, {200, 403})


def test_a_second_upload_inserts_nothing(client: Client, stored: Packed) -> None:
    answer = client.post(f"/v1/xorbs/default/{hash_to_text(stored.xorb)}", stored.body)
    assert answer.json() == {"was_inserted": False}
    assert client.post("/v1/shards", shard_of(stored)).json() == {"result": 0}
    assert client.post("/v2/shards", shard_of(stored)).text == '{"type":"result"}\n'


def test_upload_grants_are_not_offered(client: Client, packed: Packed) -> None:
    answer = client.post(f"/v1/xorb-grants/default/{hash_to_text(packed.xorb)}", b'{"length":1}')
    assert answer.status_code == 404


def damaged_xorbs() -> list[tuple[str, bytes, str]]:
    good = pack(random.Random(3).randbytes(300_000))
    name = hash_to_text(good.xorb)
    flipped = bytearray(good.body)
    flipped[1000] ^= 1
    return [
        (name, bytes(flipped), "is xorb|are xorb"),
        (name, good.body[:-1], ""),
        (name, b"", ""),
        (name, b"\x07" + good.body[1:], ""),
        ("00" * 32, good.body, "are xorb"),
        ("zz" * 32, good.body, "not a Xet hash"),
    ]


@pytest.mark.parametrize(("name", "body", "message"), damaged_xorbs())
def test_bad_xorbs_are_refused_with_one_line(client: Client, name: str, body: bytes, message: str) -> None:
    answer = client.post(f"/v1/xorbs/default/{name}", body)
    assert answer.status_code == 400
    assert "\n" not in answer.json()["error"]
    if message:
        assert any(part in answer.json()["error"] for part in message.split("|"))


def test_a_xorb_over_the_limit_is_refused_before_it_is_read(client: Client, packed: Packed) -> None:
    headers = client.token("write") | {"Content-Length": str(1 << 30)}
    url = f"{client.endpoint}/v1/xorbs/default/{hash_to_text(packed.xorb)}"
    request = requests.Request("POST", url, headers=headers).prepare()
    request.headers["Content-Length"] = str(1 << 30)
    assert client.session.send(request, timeout=10).status_code == 413


def test_a_footer_is_accepted_and_not_kept(client: Client) -> None:
    packed = pack(random.Random(4).randbytes(200_000))
    offsets = codec.inspect_xorb(packed.body).packed_offsets
    footer = XorbFooter(packed.xorb, packed.hashes, offsets, packed.lengths).to_bytes()
    wrong = footer[:70] + bytes([footer[70] ^ 1]) + footer[71:]
    answer = client.post(f"/v1/xorbs/default/{hash_to_text(packed.xorb)}", packed.body + wrong)
    assert answer.status_code == 400 and "footer" in answer.text
    packed.body += footer
    client.upload(packed, "footer.bin")
    assert unpack(client, client.reconstruction(packed).json()) == packed.content


def test_a_file_without_verification_hashes_is_refused(client: Client, stored: Packed) -> None:
    term = ShardTerm(stored.xorb, 0, len(stored.lengths), len(stored.content), None)
    shard = Shard((ShardFile(stored.file_hash, (term,), stored.sha256),), ())
    answer = client.post("/v1/shards", shard.to_bytes())
    assert answer.status_code == 400 and "without verification hashes" in answer.text


def bad_shards(stored: Packed) -> list[tuple[bytes, str]]:
    count = len(stored.lengths)
    size = len(stored.content)
    proof = codec.verification_hash(stored.hashes)
    absent = XetHash(b"\x05" * 32)
    good = (stored.xorb, 0, count, size, proof)
    longer = array("I", stored.lengths)
    longer[0] -= 1
    longer[1] += 1

    def one(term: tuple[XetHash, int, int, int, bytes], file_hash: bytes = stored.file_hash) -> bytes:
        return build_shard([(XetHash(file_hash), [term], stored.sha256)], [])

    return [
        (b"", "bytes"),
        (b"nonsense" * 20, "tag"),
        (one((absent, 0, 1, 10, proof)), "has not been uploaded"),
        (one((stored.xorb, 0, count + 1, size, proof)), "chunks"),
        (one((stored.xorb, 0, count, size - 1, proof)), "states"),
        (one((stored.xorb, 0, count, size, b"\x01" * 32)), "verification"),
        (one(good, b"\x02" * 32), "do not rebuild"),
        (build_shard([], [(absent, stored.hashes, stored.lengths)]), "has not been uploaded"),
        (build_shard([], [(stored.xorb, stored.hashes, longer)]), "are not those"),
    ]


def test_bad_shards_are_refused_with_one_line(client: Client, stored: Packed) -> None:
    for body, message in bad_shards(stored):
        for version in (1, 2):
            answer = client.post(f"/v{version}/shards", body)
            assert answer.status_code == 400, message
            assert message in answer.json()["error"]
            assert "\n" not in answer.json()["error"]


def test_a_dedup_query_names_the_chunks_of_the_upload(client: Client, stored: Packed) -> None:
    first = hash_to_text(XetHash(stored.hashes[:32]))
    for prefix in ("default", "default-merkledb"):
        url = f"{client.endpoint}/v1/chunks/{prefix}/{first}"
        answer = client.session.get(url, headers=client.token())
        assert answer.status_code == 200
        shard = parse_shard(answer.content)
        assert shard.footer is not None and stored.hashes[-32:] not in answer.content
        (xorb,) = shard.xorbs
        assert xorb.hashes == codec.keyed_hashes(stored.hashes, shard.footer.chunk_key)
        assert (xorb.xorb, xorb.lengths, xorb.packed_bytes) == (stored.xorb, stored.lengths, len(stored.body))
    unknown = f"{client.endpoint}/v1/chunks/default/{'00' * 32}"
    assert client.session.get(unknown, headers=client.token()).status_code == 404


def test_what_a_private_repository_holds_is_not_told_to_others(hub: HubProcess) -> None:
    private = Client(hub.endpoint, "org/secret")
    private.create(private=True)
    packed = pack(random.Random(5).randbytes(100_000))
    private.upload(packed)
    public = Client(hub.endpoint, "org/curious")
    public.create()
    url = f"{hub.endpoint}/v1/chunks/default/{hash_to_text(XetHash(packed.hashes[:32]))}"
    assert requests.get(url, headers=private.token()).status_code == 200
    assert requests.get(url, headers=public.token()).status_code == 404


def test_version_1_only(tmp_path: Path, packed: Packed) -> None:
    with HubProcess(tmp_path, no_v2=True) as hub:
        client = Client(hub.endpoint)
        client.create()
        path = f"/v1/xorbs/default/{hash_to_text(packed.xorb)}"
        assert client.post(path, packed.body).json() == {"was_inserted": True}
        assert client.post("/v2/shards", shard_of(packed)).status_code == 404
        assert client.post("/v1/shards", shard_of(packed)).json() == {"result": 1}
        client.commit("a.bin", packed.sha256, len(packed.content))
        assert client.reconstruction(packed, version=2).status_code == 404
        assert client.reconstruction(packed, version=1).status_code == 200
        assert hash_from_text(next(iter(client.reconstruction(packed, version=1).json()["fetch_info"])))
