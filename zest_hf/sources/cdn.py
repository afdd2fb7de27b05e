"""The CDN as a source: ranged GETs, decoded, hashed and written by native code as they come.

Each GET runs on a worker thread. A body that breaks is asked for again from where it broke, an expired url is replaced,
bytes that turn out wrong are asked for once more from the start.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from zest_hf._native.codec import Unpacker
from zest_hf.cas import CasClient
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.plan import Fetch, fetches_of
from zest_hf.core.reconstruction import FetchRange, Term
from zest_hf.core.retry import RetryPolicy
from zest_hf.core.transfer import FetchRun, FetchWhole
from zest_hf.errors import CasUnavailable, ProofError, ReconstructionError, UrlExpired, XorbError
from zest_hf.http_body import RangeBody
from zest_hf.sources.base import CdnEnded, CdnFailed, Reporter, WriteFailed

log = logging.getLogger("zest_hf.sources.cdn")

BUFFER_BYTES = 256 * 1024
MAX_WRONG = 2
"""How often bytes that do not decode or prove are asked for again."""
MAX_EXPIRED = 3
RETRY = RetryPolicy(first_delay_s=0.25, max_delay_s=8.0, deadline_s=60.0)


class Workers(Protocol):
    """Runs functions on threads."""

    def submit(self, job: Callable[[], None]) -> None: ...


class _Stopped(Exception):
    """The source was closed."""


class CdnSource:
    """The CDN for one file; ``fd`` is its descriptor, valid until `close` has returned."""

    def __init__(
        self, cas: CasClient, file_hash: XetHash, fd: int, workers: Workers, report: Reporter
    ) -> None:
        self._cas = cas
        self._file_hash = file_hash
        self._fd = fd
        self._workers = workers
        self._report = report
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._jobs: dict[int, _Job] = {}
        self._finished_network_bytes = 0

    def start(self, action: FetchWhole | FetchRun) -> None:
        """Begins a GET as soon as a worker is free."""
        self._workers.submit(lambda: self._run(action))

    def close(self) -> None:
        """Stops all GETs; nothing is written afterwards."""
        self._stop.set()
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.stop()

    @property
    def written_bytes(self) -> int:
        """File bytes of GETs that still run."""
        with self._lock:
            return sum(job.written_bytes for job in self._jobs.values())

    @property
    def network_bytes(self) -> int:
        """Bytes that came from the CDN, also those that were of no use."""
        with self._lock:
            return self._finished_network_bytes + sum(job.network_bytes for job in self._jobs.values())

    def _run(self, action: FetchWhole | FetchRun) -> None:
        job = _Job(self._cas, self._file_hash, self._fd, self._stop)
        with self._lock:
            self._jobs[action.assignment] = job
        try:
            chunks = job.whole(action) if isinstance(action, FetchWhole) else job.run(action)
            report: Any = CdnEnded(action.assignment, chunks)
        except _Stopped:
            return
        except OSError as error:
            report = WriteFailed(error)
        except Exception as error:
            report = CdnFailed(action.assignment, error)
        finally:
            with self._lock:
                del self._jobs[action.assignment]
                self._finished_network_bytes += job.network_bytes
        self._report(report)


class _Job:
    """One action on its worker."""

    def __init__(self, cas: CasClient, file_hash: XetHash, fd: int, stop: threading.Event) -> None:
        self._cas = cas
        self._file_hash = file_hash
        self._fd = fd
        self._stop = stop
        self._gate = threading.Lock()
        """Held while bytes are decoded and written: who closes the source takes it once, and then no one writes."""
        self._body: RangeBody | None = None
        self.network_bytes = 0
        self.written_bytes = 0

    def stop(self) -> None:
        """With the stop event set: returns when nothing is being written."""
        with self._gate:
            body = self._body
        if body is not None:
            body.abort()

    def whole(self, action: FetchWhole) -> Manifest:
        return self._fetch(action.fetch, action.expected)

    def run(self, action: FetchRun) -> Manifest:
        """A part of the file: the CAS gives urls for just its bytes."""
        byte_range = (action.byte_start, action.byte_end)
        plan = self._cas.reconstruction(self._file_hash, byte_range)
        fetches = fetches_of(plan, action.byte_start, 0)
        chunks = sum(term.end - term.start for term in plan.terms)
        size = sum(term.size_bytes for term in plan.terms)
        if (
            plan.offset_into_first_range
            or chunks != action.end - action.first
            or size != byte_range[1] - byte_range[0]
        ):
            raise ReconstructionError(
                "reconstruction: a part of the file does not begin and end where it should"
            )
        parts: dict[int, Manifest] = {}
        for fetch in fetches:
            known = {
                place.start + i: action.expected[
                    32 * (place.file_chunk + i) : 32 * (place.file_chunk + i + 1)
                ]
                for place in fetch.placements
                for i in range(place.end - place.start)
            }
            source = fetch.source
            complete = all(chunk in known for chunk in range(source.start, source.end))
            expected = (
                b"".join(known[chunk] for chunk in range(source.start, source.end)) if complete else None
            )
            got = self._fetch(fetch, expected)
            for place in fetch.placements:
                parts[place.file_chunk] = got.slice(place.start - source.start, place.end - source.start)
        manifest = Manifest.join(part for _, part in sorted(parts.items()))
        if manifest.hashes != action.expected:
            raise ProofError("the CDN sent chunks that are not the file's")
        return manifest

    def _fetch(self, fetch: Fetch, expected: bytes | None) -> Manifest:
        began_s = time.monotonic()
        written_before = self.written_bytes
        source = fetch.source
        fed = 0
        attempt = wrong = expired = 0
        unpacker = self._unpacker(fetch, expected)
        while True:
            try:
                before = fed
                for count in self._bytes_of(replace(source, byte_start=source.byte_start + fed), unpacker):
                    fed += count
                    self.written_bytes = written_before + unpacker.bytes_written
                chunks = unpacker.finish()
                return Manifest(chunks.hashes, chunks.lengths)
            except UrlExpired:
                expired += 1
                if expired > MAX_EXPIRED:
                    raise
                # An url may be signed for the very range that it came with: what is left of one needs all of it.
                source, moved = self._renewed(source)
                if not moved and fed == 0:
                    continue
            except CasUnavailable as error:
                if not error.retryable:
                    raise
                # A connection that brought something may be tried again as if it were the first.
                attempt, began_s = (0, time.monotonic()) if fed > before else (attempt + 1, began_s)
                delay_s = RETRY.delay_s(
                    attempt, time.monotonic() - began_s, random.random(), error.retry_after_s
                )
                if delay_s is None:
                    raise
                log.info("%s; going on in %.1f s", error, delay_s)
                if self._stop.wait(delay_s):
                    raise _Stopped from None
                continue
            except (XorbError, ProofError) as error:
                wrong += 1
                if wrong > MAX_WRONG:
                    raise
                log.warning("wrong bytes from the CDN, asking again: %s", error)
            fed = 0
            self.written_bytes = written_before
            unpacker = self._unpacker(fetch, expected)

    def _unpacker(self, fetch: Fetch, expected: bytes | None) -> Unpacker:
        source = fetch.source
        places = [(place.start, place.end, place.file_offset) for place in fetch.placements]
        return Unpacker(self._fd, source.start, source.end, places, expected)

    def _bytes_of(self, source: FetchRange, unpacker: Unpacker) -> Any:
        """Receive, decode and write; yields how many bytes each step took."""
        if source.size_bytes == 0:
            return
        buffer = memoryview(bytearray(BUFFER_BYTES))
        if self._stop.is_set():
            raise _Stopped
        with self._cas.open_range(source) as body:
            self._body = body
            try:
                while count := body.readinto(buffer):
                    self.network_bytes += count
                    with self._gate:
                        if self._stop.is_set():
                            raise _Stopped
                        unpacker.feed(buffer[:count])
                    yield count
            except CasUnavailable:
                if self._stop.is_set():
                    raise _Stopped from None
                raise
            finally:
                self._body = None

    def _renewed(self, source: FetchRange) -> tuple[FetchRange, bool]:
        """The same chunks behind a new url; True when they lie at other bytes now."""
        plan = self._cas.reconstruction(self._file_hash)
        fresh = plan.covering(Term(source.xorb, source.start, source.end, source.end - source.start))
        if (fresh.start, fresh.end) != (source.start, source.end):
            raise ReconstructionError("reconstruction: the file is laid out differently than before")
        return fresh, (fresh.byte_start, fresh.byte_end) != (source.byte_start, source.byte_end)
