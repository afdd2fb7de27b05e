"""What the swarm tests share: files in chunks, a session with a patient event reader, and a fake peer that serves."""

from __future__ import annotations

import os
import random
import time
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from swarm import wire_peer as wire
from swarm.wire_peer import Question, WirePeer
from zest_hf._native import codec
from zest_hf._native.events import Event, HaveAnswer, Kind, ManifestAnswer, PeerGone, PeerReady, PieceEnd
from zest_hf._native.session import Session
from zest_hf._native.writable_file import WritableFile
from zest_hf.config import Settings, load_settings
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.plan import FilePlan, plan_file
from zest_hf.core.reconstruction import FetchRange, Reconstruction, Term

DEADLINE_S = 10.0
T = TypeVar("T", bound=Event)


def settings_of(home: Path, *peers: int | str) -> Settings:
    """Of a swarm on this machine that finds nobody but ``peers``: addresses, or ports here."""
    return load_settings(
        {
            "HOME": str(home),
            "ZEST_HOME": str(home / "zest"),
            "ZEST_LISTEN": "127.0.0.1:0",
            "ZEST_LSD": "off",
            "ZEST_DHT": "off",
            "ZEST_PEERS": ",".join(peer if isinstance(peer, str) else f"127.0.0.1:{peer}" for peer in peers),
        }
    )


def manifest_of(chunks: Iterable[bytes]) -> Manifest:
    chunks = list(chunks)
    return Manifest(b"".join(codec.chunk_hash(chunk) for chunk in chunks), array("I", map(len, chunks)))


@dataclass
class Content:
    """A file: its chunks, its manifest, and the xorbs that it is made of."""

    chunks: list[bytes]
    per_xorb: int = 10

    @classmethod
    def random(cls, count: int, size: int = 3000, seed: int = 0, **options: Any) -> Content:
        """Chunks of about ``size`` bytes, all different."""
        rng = random.Random(f"{count} {size} {seed}")
        return cls([rng.randbytes(rng.randint(max(1, size // 2), size)) for _ in range(count)], **options)

    @cached_property
    def data(self) -> bytes:
        return b"".join(self.chunks)

    @cached_property
    def manifest(self) -> Manifest:
        return manifest_of(self.chunks)

    @cached_property
    def hash(self) -> XetHash:
        return XetHash(codec.file_hash(self.manifest.hashes, self.manifest.lengths))

    @cached_property
    def xorbs(self) -> list[tuple[XetHash, int, int]]:
        """(hash, first chunk of the file, end)."""
        spans = [
            (start, min(start + self.per_xorb, len(self.chunks))) for start in range(0, len(self.chunks), self.per_xorb)
        ]
        parts = [(self.manifest.slice(a, b), a, b) for a, b in spans]
        return [(XetHash(codec.merkle_root(part.hashes, part.lengths)), a, b) for part, a, b in parts]

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        return tuple(
            Term(xorb, 0, b - a, self.manifest.offset(b) - self.manifest.offset(a)) for xorb, a, b in self.xorbs
        )

    @cached_property
    def plan(self) -> FilePlan:
        """As if a CAS had said so: one GET for each xorb."""
        ranges = {
            term.xorb: (FetchRange(term.xorb, 0, term.end, "http://cdn.invalid", 0, term.size_bytes),)
            for term in self.terms
        }
        return plan_file(Reconstruction(0, self.terms, ranges))

    @cached_property
    def entries(self) -> list[tuple[bytes, int]]:
        """As manifests carry them."""
        return [(bytes(self.manifest.hash(i)), self.manifest.length(i)) for i in range(len(self.chunks))]


class Node:
    """A session, and what has happened in it and was not asked about yet."""

    def __init__(self, **options: Any) -> None:
        self.node_id = options.pop("node_id", None) or os.urandom(20)
        self.session = Session(**{"node_id": self.node_id, "listen_host": "127.0.0.1", **options})
        self.port = self.session.port
        self.events: list[Event] = []
        self._tokens = iter(range(1, 1 << 30))

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def token(self) -> int:
        return next(self._tokens)

    def pump(self, timeout_s: float = 0.0) -> list[Event]:
        """Takes what has happened, after waiting for something at most this long; all that was not taken by `wait`."""
        self.events.extend(self.session.events(timeout_s))
        return self.events

    def wait(self, kind: type[T], wanted: Callable[[T], bool] = lambda _: True, deadline_s: float = DEADLINE_S) -> T:
        """Takes the first event of this kind, whether it was there already or comes in time."""
        end_s = time.monotonic() + deadline_s
        while True:
            for at, event in enumerate(self.events):
                if isinstance(event, kind) and wanted(event):
                    del self.events[at]
                    return event
            left_s = end_s - time.monotonic()
            assert left_s > 0, f"no {kind.__name__} in {deadline_s} s; there are {self.events}"
            self.pump(left_s)

    def until(self, condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
        """Lets things happen until the condition holds."""
        end_s = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < end_s, f"it does not come true; there are {self.events}"
            self.pump(0.01)

    def share(self, content: Content, path: Path, terms: bool = True) -> Path:
        path.write_bytes(content.data)
        stat = path.stat()
        self.session.share(
            str(path),
            stat.st_size,
            stat.st_mtime_ns,
            content.hash,
            content.manifest,
            content.terms if terms else (),
        )
        return path

    def meet(self, port: int, info_hash: bytes | None = None, host: str = "127.0.0.1") -> int:
        """Dials and waits until the peer is ready: its number."""
        token = self.token()
        self.session.dial(host, port, token, info_hash)
        return self.wait(PeerReady, lambda event: event.token == token).peer

    def dial_in_vain(self, port: int, info_hash: bytes | None = None, host: str = "127.0.0.1") -> str:
        """Dials and waits for the end of that: why."""
        token = self.token()
        self.session.dial(host, port, token, info_hash)
        return self.wait(PeerGone, lambda event: event.token == token).reason

    def have(self, peer: int, kind: Kind, hash_: bytes, timeout_s: float = DEADLINE_S) -> HaveAnswer:
        token = self.token()
        self.session.ask_have(token, peer, kind, XetHash(hash_), timeout_s)
        return self.wait(HaveAnswer, lambda event: event.token == token)

    def manifest(
        self, peer: int, kind: Kind, hash_: bytes, first: int, count: int, timeout_s: float = DEADLINE_S
    ) -> ManifestAnswer:
        token = self.token()
        self.session.ask_manifest(token, peer, kind, XetHash(hash_), first, count, timeout_s)
        return self.wait(ManifestAnswer, lambda event: event.token == token)

    def ask(
        self,
        peer: int,
        target: Target,
        first: int = 0,
        end: int | None = None,
        *,
        kind: Kind = Kind.FILE,
        hash_: bytes | None = None,
        object_first: int | None = None,
        timeout_s: float = DEADLINE_S,
    ) -> int:
        """Asks for chunks first..end of the target's file; the token."""
        token = self.token()
        self.session.ask_piece(
            token,
            peer,
            target.file,
            kind,
            XetHash(hash_ or target.content.hash),
            first if object_first is None else object_first,
            first,
            (len(target.content.chunks) if end is None else end) - first,
            timeout_s,
        )
        return token

    def ended(self, token: int, deadline_s: float = DEADLINE_S) -> PieceEnd:
        return self.wait(PieceEnd, lambda event: event.token == token, deadline_s)

    def piece(self, peer: int, target: Target, first: int = 0, end: int | None = None, **options: Any) -> PieceEnd:
        return self.ended(self.ask(peer, target, first, end, **options))


class Target:
    """A file that is being written."""

    def __init__(self, path: Path, content: Content) -> None:
        self.path, self.content = path, content
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.file = WritableFile(self.fd, content.manifest)

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        os.close(self.fd)

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()

    def place(self, first: int, end: int) -> None:
        """As the CDN path does: chunks proved elsewhere are written in place, and then told of."""
        start, stop = (self.content.manifest.offset(at) for at in (first, end))
        os.pwrite(self.fd, self.content.data[start:stop], start)
        self.file.wrote(first, end - first)

    def holds(self, first: int, end: int) -> bool:
        """Whether these chunks are in place."""
        start, stop = (self.content.manifest.offset(at) for at in (first, end))
        return os.pread(self.fd, stop - start, start) == self.content.data[start:stop]


def serve(peer: WirePeer, content: Content, question: Question) -> None:
    """Answers a question about the file as a good peer does."""
    ask, request = question.type, question.request
    if question.extension == wire.XET_ID:
        at = next((i for i, (hash_, _) in enumerate(content.entries) if hash_ == question.hash), None)
        peer.send_xet(
            wire.chunk_not_found(request, question.hash)
            if at is None
            else wire.chunk_response(request, content.chunks[at])
        )
    elif ask == wire.HAVE_REQUEST:
        known = question.swarm == peer.swarm_of(wire.FILE, content.hash)
        count = len(content.chunks)
        peer.send_zest(
            wire.have(request, wire.OK, count, [(0, count)], question.hold(content.hash))
            if known
            else wire.have(request, wire.NOT_FOUND, 0, [])
        )
    elif ask == wire.MANIFEST_REQUEST:
        part = content.entries[question.first : question.first + question.end_or_count]
        peer.send_zest(wire.manifest(request, wire.OK, len(content.chunks), question.first, part))
    elif ask == wire.RANGE_REQUEST:
        for number in range(question.first, question.end_or_count):
            peer.send_zest(wire.range_data(request, number, content.chunks[number]))
    elif ask == wire.FOLLOW_REQUEST:
        at = next((a for xorb, a, _ in content.xorbs if xorb == question.hash), 0)
        for number in range(question.first, question.end_or_count):
            peer.send_zest(wire.range_data(request, number, content.chunks[at + number]))


def good(content: Content) -> wire.Script:
    """The script of a peer that answers everything."""

    def script(peer: WirePeer) -> None:
        while True:
            serve(peer, content, peer.question())

    return script
