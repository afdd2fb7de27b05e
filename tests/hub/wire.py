"""A bare client of the hub: packs, describes and fetches data with the project's codec, without hf_xet."""

from __future__ import annotations

import hashlib
import json
import struct
from array import array
from dataclasses import dataclass
from typing import Any

import requests

from zest_hf._native import codec
from zest_hf.core.ids import XetHash, hash_from_text, hash_to_text
from zest_hf.core.shard import BOOKEND, FLAG_METADATA, FLAG_VERIFICATION, HEADER_TAG

USER = {"Authorization": "Bearer somebody"}


@dataclass
class Packed:
    """Some content as one xorb and one term."""

    content: bytes
    body: bytes
    hashes: bytes
    lengths: array[int]

    @property
    def xorb(self) -> XetHash:
        return XetHash(codec.merkle_root(self.hashes, self.lengths))

    @property
    def file_hash(self) -> XetHash:
        return XetHash(codec.file_hash(self.hashes, self.lengths))

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def pack(content: bytes) -> Packed:
    chunker = codec.Chunker()
    ends = [*chunker.feed(content), *chunker.finish()]
    chunks = [content[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    hashes = b"".join(codec.chunk_hash(chunk) for chunk in chunks)
    return Packed(content, codec.pack_xorb(chunks), hashes, array("I", map(len, chunks)))


def build_shard(
    files: list[tuple[XetHash, list[tuple[XetHash, int, int, int, bytes]], str]],
    xorbs: list[tuple[XetHash, bytes, array[int]]],
) -> bytes:
    """A shard as clients upload it. Terms are (xorb, start, end, bytes, verification hash)."""
    out = [struct.pack("<32sQQ", HEADER_TAG, 2, 0)]
    for file_hash, terms, sha256 in files:
        out.append(struct.pack("<32sIIQ", file_hash, FLAG_VERIFICATION | FLAG_METADATA, len(terms), 0))
        out += [struct.pack("<32sIIII", xorb, 0, size, start, end) for xorb, start, end, size, _ in terms]
        out += [verification + bytes(16) for *_, verification in terms]
        out.append(hash_from_text(sha256) + bytes(16))
    out.append(BOOKEND)
    for xorb, hashes, lengths in xorbs:
        out.append(struct.pack("<32sIIII", xorb, 0, len(lengths), sum(lengths), 0))
        offset = 0
        for index, length in enumerate(lengths):
            out.append(struct.pack("<32sIIII", hashes[32 * index : 32 * index + 32], offset, length, 0, 0))
            offset += length
    out.append(BOOKEND)
    return b"".join(out)


def shard_of(packed: Packed) -> bytes:
    verification = codec.verification_hash(packed.hashes)
    term = (packed.xorb, 0, len(packed.lengths), len(packed.content), verification)
    return build_shard(
        [(packed.file_hash, [term], packed.sha256)], [(packed.xorb, packed.hashes, packed.lengths)]
    )


class Client:
    """Requests against one hub; ``repo`` is a model."""

    def __init__(self, endpoint: str, repo: str = "org/wire") -> None:
        self.endpoint = endpoint
        self.repo = repo
        self.session = requests.Session()
        self.session.trust_env = False

    def create(self, *, private: bool = False) -> None:
        owner, name = self.repo.split("/")
        value = {"organization": owner, "name": name, "private": private}
        answer = self.session.post(f"{self.endpoint}/api/repos/create", json=value, headers=USER)
        assert answer.status_code in (200, 409), answer.text

    def token(self, scope: str = "read", **headers: str) -> dict[str, str]:
        """Headers with a Xet token."""
        url = f"{self.endpoint}/api/models/{self.repo}/xet-{scope}-token/main"
        answer = self.session.get(url, headers=USER | headers)
        assert answer.status_code == 200, answer.text
        return {"Authorization": f"Bearer {answer.json()['accessToken']}"}

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> requests.Response:
        return self.session.post(self.endpoint + path, data=body, headers=headers or self.token("write"))

    def upload(self, packed: Packed, path: str = "data.bin") -> None:
        answer = self.post(f"/v1/xorbs/default/{hash_to_text(packed.xorb)}", packed.body)
        assert answer.status_code == 200, answer.text
        answer = self.post("/v2/shards", shard_of(packed))
        assert answer.status_code == 200, answer.text
        assert self.commit(path, packed.sha256, len(packed.content)).status_code == 200

    def upload_parts(self, packed: Packed, parts: list[tuple[int, int]], path: str) -> Packed:
        """Upload a file that consists of these chunk ranges of an uploaded xorb."""
        terms = []
        content, hashes, lengths = b"", b"", array("I")
        for start, end in parts:
            part_hashes, part_lengths = packed.hashes[32 * start : 32 * end], packed.lengths[start:end]
            proof = codec.verification_hash(part_hashes)
            terms.append((packed.xorb, start, end, sum(part_lengths), proof))
            at = sum(packed.lengths[:start])
            content += packed.content[at : at + sum(part_lengths)]
            hashes += part_hashes
            lengths += part_lengths
        whole = Packed(content, b"", hashes, lengths)
        answer = self.post("/v1/shards", build_shard([(whole.file_hash, terms, whole.sha256)], []))
        assert answer.status_code == 200, answer.text
        assert self.commit(path, whole.sha256, len(content)).status_code == 200
        return whole

    def commit(self, path: str, sha256: str, size_bytes: int) -> requests.Response:
        rows = [
            {"key": "header", "value": {"summary": "add", "description": ""}},
            {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": sha256, "size": size_bytes}},
        ]
        body = "\n".join(map(json.dumps, rows))
        url = f"{self.endpoint}/api/models/{self.repo}/commit/main"
        return self.session.post(url, data=body, headers=USER)

    def reconstruction(
        self, packed: Packed, byte_range: str | None = None, version: int = 2
    ) -> requests.Response:
        headers = self.token() | ({"Range": f"bytes={byte_range}"} if byte_range else {})
        url = f"{self.endpoint}/v{version}/reconstructions/{hash_to_text(packed.file_hash)}"
        return self.session.get(url, headers=headers)

    def first_url(self, packed: Packed) -> tuple[str, int]:
        """The url of a file's first range and the packed bytes behind it."""
        (entries,) = self.reconstruction(packed).json()["xorbs"].values()
        (byte_range,) = (r["bytes"] for r in entries[0]["ranges"])
        return entries[0]["url"], byte_range["end"] + 1 - byte_range["start"]

    def fetch(self, url: str, byte_range: str | None = None, **options: Any) -> requests.Response:
        headers = {"Range": f"bytes={byte_range}"} if byte_range else {}
        return self.session.get(url, headers=headers, **options)
