"""Uploads to a content-addressed store: files in, xorbs and shards out, nothing sent that is stored already.

Implements the upload section of the Xet specification (https://huggingface.co/docs/xet/upload-protocol). What the Hub
has to be told afterwards, so that a file appears in a repository, is its SHA-256 (`zest_hf.hook.commit`).
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

from zest_hf._native import codec
from zest_hf.core.dedup import Deduplicator, Source
from zest_hf.core.ids import XetHash
from zest_hf.core.shard import Shard, upload_order
from zest_hf.errors import CasError, ProtocolError, StorageError
from zest_hf.xet import Chunk, Cutter

log = logging.getLogger("zest_hf.upload")

READ_BYTES: Final = 8 << 20
PARALLEL: Final = 2
MAX_SHARD_RECORDS: Final = 300_000
"""About 14 MiB: a shard is sent before it grows larger, far below what the CAS accepts."""


class UploadTarget(Protocol):
    """What takes an upload: `zest_hf.cas_upload.CasUploader` is one. Called from several threads."""

    def query_chunk(self, chunk: XetHash) -> Shard | None: ...
    def upload_xorb(self, xorb: XetHash, data: bytes) -> bool: ...
    def upload_shard(self, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file as the CAS knows it; `sha256` in hexadecimal is the name by which the Hub is told of it."""

    path: Path
    size_bytes: int
    file_hash: XetHash
    sha256: str


@dataclass(slots=True)
class UploadTotals:
    """`total_bytes` of files, of which `new_bytes` had to be stored; `sent_bytes` are those of packed xorbs."""

    files: int = 0
    total_bytes: int = 0
    new_bytes: int = 0
    sent_bytes: int = 0
    xorbs: int = 0
    shards: int = 0
    queries: int = 0


class Upload:
    """Use it in a with statement: `add` files, then `finish`; leaving without gives up what is on its way.

    Files are read and hashed by the calling thread, xorbs packed and sent by `parallel` others. Memory: a xorb of
    64 MiB in the making and up to two copies of one per thread, and about 300 bytes for each chunk of the whole
    upload. Until `finish` has returned none of the files is sure to be stored.
    """

    def __init__(self, target: UploadTarget, *, parallel: int = PARALLEL, rule: int = codec.RULE_CURRENT) -> None:
        self.totals = UploadTotals()
        self._target = target
        self._rule = rule
        self._dedup = Deduplicator(self._send)
        self._pool = ThreadPoolExecutor(parallel, thread_name_prefix="zest-put")
        # Sealed xorbs hold their content until they are sent: no more of them than threads.
        self._room = threading.Semaphore(parallel)
        self._on_the_way: list[Future[None]] = []
        self._lock = threading.Lock()
        self._asks = True

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def add(self, path: str | os.PathLike[str], progress: Callable[[int], object] | None = None) -> UploadedFile:
        """Take in a file; `progress` is told of bytes as they are read.

        Raises OSError (reading), StorageError (the file changes meanwhile), and what sending raises: CasError,
        ProtocolError, StorageError.
        """
        path = Path(path)
        sha256 = hashlib.sha256()
        cutter = Cutter(self._rule)
        size_bytes = 0
        with path.open("rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            while data := file.read(READ_BYTES):
                sha256.update(data)
                size_bytes += len(data)
                self._take(cutter.feed(data))
                if progress is not None:
                    progress(len(data))
            self._take(cutter.finish())
            after = os.fstat(file.fileno())
        if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size) or size_bytes != after.st_size:
            raise StorageError(f"{path} changed while it was uploaded")
        digest = sha256.hexdigest()
        file_hash = self._dedup.end_file(digest)
        self.totals.files += 1
        self.totals.total_bytes += size_bytes
        if self._dedup.waiting_records >= MAX_SHARD_RECORDS:
            self._send_shard()
        return UploadedFile(path, size_bytes, file_hash, digest)

    def finish(self) -> UploadTotals:
        """Send what is left and wait for everything. Raises as `add` does."""
        self._dedup.flush()
        self._send_shard()
        self.totals.new_bytes = self._dedup.new_bytes
        return self.totals

    def _take(self, pieces: list[Chunk]) -> None:
        if not pieces:
            return
        for shard in self._answers(self._dedup.to_query(pieces)):
            self._dedup.learn(shard)
        self._dedup.add(pieces)
        if self._dedup.waiting_records >= MAX_SHARD_RECORDS:
            self._send_shard()

    def _answers(self, chunks: list[XetHash]) -> Iterator[Shard]:
        """Deduplication is a favour: an upload goes on without it."""
        if not self._asks or not chunks:
            return
        self.totals.queries += len(chunks)
        for future in [self._pool.submit(self._target.query_chunk, chunk) for chunk in chunks]:
            try:
                shard = future.result()
            except (CasError, ProtocolError) as error:
                log.warning("no deduplication against what is stored already: %s", error)
                self._asks = False
                return
            if shard is not None:
                yield shard

    def _send(self, source: Source) -> None:
        self._room.acquire()
        try:
            self._on_the_way.append(self._pool.submit(self._pack_and_send, source))
        except BaseException:
            self._room.release()
            raise
        # A failure is said as early as possible.
        for done in [one for one in self._on_the_way if one.done()]:
            self._on_the_way.remove(done)
            done.result()

    def _pack_and_send(self, source: Source) -> None:
        try:
            assert source.xorb is not None
            data = codec.pack_xorb(_drained(source.chunks))
            self._target.upload_xorb(source.xorb, data)
            with self._lock:
                self.totals.xorbs += 1
                self.totals.sent_bytes += len(data)
        finally:
            source.chunks.clear()
            self._room.release()

    def _send_shard(self) -> None:
        """The CAS takes a shard only when it has the xorbs."""
        on_the_way, self._on_the_way = self._on_the_way, []
        for one in on_the_way:
            one.result()
        shard = self._dedup.take_shard()
        if shard is None:
            return
        files = sorted(shard.files, key=lambda file: upload_order(file.file_hash))
        xorbs = sorted(shard.xorbs, key=lambda xorb: upload_order(xorb.xorb))
        self._target.upload_shard(Shard(tuple(files), tuple(xorbs)).to_bytes())
        self.totals.shards += 1


def _drained(chunks: list[Any]) -> Iterator[Any]:
    """The chunks in order, each let go once it has been packed."""
    chunks.reverse()
    while chunks:
        yield chunks.pop()
