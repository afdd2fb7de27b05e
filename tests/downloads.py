"""Files in a Hub's repositories, and engines that download them."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import requests
from hub.wire import Client, Packed, build_shard, pack

from zest_hf._native import codec
from zest_hf.cas import CasToken
from zest_hf.config import load_settings
from zest_hf.core.concurrency import ConcurrencySettings
from zest_hf.core.ids import XetHash, hash_to_text
from zest_hf.core.manifest import Manifest
from zest_hf.core.retry import RetryPolicy
from zest_hf.download import DownloadResult, FileRequest, RepoRef
from zest_hf.engine import Engine
from zest_hf.traffic import Traffic

# Servers of tests answer at once or never.
READ_TIMEOUT_S = 0.4
RETRY = RetryPolicy(first_delay_s=0.01, max_delay_s=0.05, deadline_s=1.0)

Parts = Sequence[tuple[Packed, int, int]]


@dataclass(frozen=True)
class StoredFile:
    """A file in a repository: chunk ranges of xorbs, one after the other."""

    endpoint: str
    repo: str
    parts: Parts

    @cached_property
    def manifest(self) -> Manifest:
        return Manifest.join(Manifest(xorb.hashes, xorb.lengths).slice(a, b) for xorb, a, b in self.parts)

    @cached_property
    def content(self) -> bytes:
        return b"".join(xorb.content[sum(xorb.lengths[:a]) : sum(xorb.lengths[:b])] for xorb, a, b in self.parts)

    @property
    def file_hash(self) -> XetHash:
        return self.manifest.file_hash()

    def token(self, force: bool = False) -> CasToken:
        """The token provider: asks the Hub each time."""
        url = f"{self.endpoint}/api/models/{self.repo}/xet-read-token/main"
        answer = requests.get(url, headers={"Authorization": "Bearer somebody"}, timeout=10).json()
        return CasToken(answer["casUrl"], answer["accessToken"], float(answer["exp"]))

    def request(self, path: Path, **changes: Any) -> FileRequest:
        """A request for it; ``path`` is made, with something in it that does not belong there."""
        with contextlib.suppress(OSError):
            path.write_bytes(b"left over" * 1000)
        values: dict[str, Any] = {
            "file_hash": self.file_hash,
            "size_bytes": len(self.content),
            "path": path,
            "repo": RepoRef(self.endpoint, "model", self.repo),
            "token_provider": self.token,
            "user_agent": "tests",
            "is_public": lambda: True,
            "display_name": path.name,
        }
        return FileRequest(**(values | changes))


class Publisher:
    """Puts files into a repository of a hub, without a client's chunking: any shape can be made."""

    def __init__(self, endpoint: str, repo: str = "org/files", *, private: bool = False) -> None:
        self._client = Client(endpoint, repo)
        self._client.create(private=private)
        self._sent: set[XetHash] = set()
        self._count = 0

    def put(self, *parts: tuple[Packed, int, int] | Packed) -> StoredFile:
        """A file of these chunk ranges; a xorb alone means all of it."""
        full = [(part, 0, len(part.lengths)) if isinstance(part, Packed) else part for part in parts]
        file = StoredFile(self._client.endpoint, self._client.repo, full)
        new = {part.xorb: part for part, _, _ in full if part.xorb not in self._sent}
        for name, xorb in new.items():
            assert self._client.post(f"/v1/xorbs/default/{hash_to_text(name)}", xorb.body).status_code == 200
        self._sent |= new.keys()
        terms = [
            (
                xorb.xorb,
                a,
                b,
                sum(xorb.lengths[a:b]),
                codec.verification_hash(xorb.hashes[32 * a : 32 * b]),
            )
            for xorb, a, b in full
        ]
        sha256 = hashlib.sha256(file.content).hexdigest()
        shard = build_shard(
            [(file.file_hash, terms, sha256)], [(x.xorb, x.hashes, x.lengths) for x in new.values()]
        )
        answer = self._client.post("/v1/shards", shard)
        assert answer.status_code == 200, answer.text
        self._count += 1
        answer = self._client.commit(f"file{self._count}.bin", sha256, len(file.content))
        assert answer.status_code == 200, answer.text
        return file


def xorb(seed: object, size_bytes: int) -> Packed:
    """A xorb of incompressible content."""
    return pack(random.Random(str(seed)).randbytes(size_bytes))


def tiny_chunks(seed: object, count: int, chunk_bytes: int) -> Packed:
    """A xorb of many chunks that are smaller than any chunker makes them: many pieces in few bytes."""
    rng = random.Random(str(seed))
    chunks = [rng.randbytes(chunk_bytes) for _ in range(count)]
    hashes = b"".join(map(codec.chunk_hash, chunks))
    return Packed(b"".join(chunks), codec.pack_xorb(chunks), hashes, array("I", map(len, chunks)))


@dataclass
class Watch:
    """A progress that remembers, and calls back when the first bytes are there."""

    then: Callable[[], None] = lambda: None
    at_bytes: int = 1
    seen: list[tuple[int, int, int]] = field(default_factory=list)
    reached: threading.Event = field(default_factory=threading.Event)

    def update(self, done_bytes: int, total_bytes: int, network_bytes: int, came: Traffic) -> None:
        self.seen.append((done_bytes, total_bytes, network_bytes))
        if done_bytes >= self.at_bytes and not self.reached.is_set():
            self.reached.set()
            self.then()


@contextlib.contextmanager
def engine(
    home: Path, peers: Sequence[int] = (), concurrency: ConcurrencySettings | None = None, **environ: str
) -> Iterator[Engine]:
    """An engine of its own, which listens on a free port of loopback and knows the peers on these."""
    values = {
        "ZEST_HOME": str(home),
        "ZEST_LISTEN": "127.0.0.1:0",
        "ZEST_PEERS": ",".join(f"127.0.0.1:{port}" for port in peers),
        "ZEST_LSD": "off",
        "ZEST_DHT": "off",
        "ZEST_DAEMON": "off",
    }
    settings = load_settings(values | environ)
    made = Engine(settings, read_timeout_s=READ_TIMEOUT_S, retry=RETRY, concurrency=concurrency)
    try:
        yield made
    finally:
        made.close()


def fetch(one: Engine, file: StoredFile, path: Path, watch: Watch | None = None, **changes: Any) -> DownloadResult:
    """Downloads and checks everything that a result promises."""
    watch = watch or Watch()
    result = one.download(file.request(path, **changes), watch)
    assert path.read_bytes() == file.content
    assert result.manifest == file.manifest
    assert result.bytes_local + result.bytes_peer + result.bytes_cdn == result.size_bytes == len(file.content)
    done = [entry[0] for entry in watch.seen]
    assert done == sorted(done) and all(entry[1] == len(file.content) for entry in watch.seen)
    assert not done or done[-1] == len(file.content)
    return result


@contextlib.contextmanager
def within(limit_s: float) -> Iterator[None]:
    """What is done inside takes no longer."""
    began_s = time.monotonic()
    yield
    took_s = time.monotonic() - began_s
    assert took_s <= limit_s, f"{took_s:.1f} s"
