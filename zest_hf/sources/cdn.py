"""The CDN as a source: ranged GETs, decoded, hashed and written by native code as they come.

Each GET runs on a worker thread. A body that breaks is asked for again from where it broke, an expired url is replaced,
bytes that turn out wrong are asked for once more from the start. One that was stopped closes its connection as soon as
it has brought what is still needed of it.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from zest_hf._native.codec import Unpacker
from zest_hf._native.draft import Draft
from zest_hf.cas import CasClient
from zest_hf.core.actions import FetchRun, FetchWhole, ReplaceGet, StopGet
from zest_hf.core.ids import ZERO_HASH, XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.plan import Fetch, fetches_of
from zest_hf.core.reconstruction import FetchRange, Reconstruction, Term
from zest_hf.core.retry import RetryPolicy
from zest_hf.errors import CasUnavailable, ProofError, ReconstructionError, UrlExpired, XorbError
from zest_hf.http_body import RangeBody
from zest_hf.rate_cap import RateCap
from zest_hf.sources.base import CdnEnded, CdnFailed, CdnStops, Reporter, WriteFailed
from zest_hf.sources.drafts import Drafts

log = logging.getLogger("zest_hf.sources.cdn")

BUFFER_BYTES = 256 * 1024
MAX_WRONG = 2
"""How often bytes that do not decode or prove are asked for again."""
MAX_EXPIRED = 3
RETRY = RetryPolicy(first_delay_s=0.25, max_delay_s=8.0, deadline_s=60.0)


_Renew = Callable[[FetchRange], FetchRange]
"""The same chunks behind a newer url."""


class Workers(Protocol):
    """Runs functions on threads."""

    def submit(self, job: Callable[[], None]) -> None: ...


class Noted(Protocol):
    """Keeps what has been written, proved or not, for a process that goes on should this one be killed."""

    def wrote(self, xorb: XetHash, first: int, offset: int, chunks: Manifest) -> None: ...


class _Stopped(Exception):
    """The source was closed."""


class _NotWritten(Exception):
    """Its cause: the file cannot be written, or its content is spoilt."""


class CdnSource:
    """The CDN for one file; ``fd`` is its descriptor, valid until `close` has returned."""

    def __init__(
        self,
        cas: CasClient,
        file_hash: XetHash,
        fd: int,
        workers: Workers,
        report: Reporter,
        retry: RetryPolicy = RETRY,
        cap: RateCap | None = None,
        drafts: Drafts | None = None,
        journal: Noted | None = None,
    ) -> None:
        """``drafts``: others may follow what GETs bring that nothing proves yet. ``journal``: hears what is written."""
        self._journal = journal
        self._cap = cap
        self._drafts = drafts
        self._fd = fd
        self._workers = workers
        self._report = report
        self._retry = retry
        self._urls = _Urls(cas, file_hash)
        self._cas = cas
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._jobs: dict[int, _Job] = {}
        self._finished_network_bytes = 0

    def start(self, action: FetchWhole | FetchRun) -> None:
        """Begins a GET as soon as a worker is free. Raises ZestError when there are none any more."""
        job = _Job(self._cas, self._urls, self._fd, self._stop, self._retry, self._cap, self._drafts, self._journal)
        with self._lock:
            self._jobs[action.assignment] = job
        try:
            self._workers.submit(lambda: self._run(action, job))
        except BaseException:
            with self._lock:
                del self._jobs[action.assignment]
            raise

    def stop(self, action: StopGet) -> None:
        """Lets a GET end where a chunk does; `CdnStops` says where, unless its end is reported already."""
        with self._lock:
            job = self._jobs.get(action.assignment)
        if job is not None:
            self._report(CdnStops(action.assignment, job.limit(action.chunks)))

    def replace(self, action: ReplaceGet) -> None:
        """Has a GET go on on another connection, unless it has ended."""
        with self._lock:
            job = self._jobs.get(action.assignment)
        if job is not None:
            job.reconnect()

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

    def progress(self) -> dict[int, int]:
        """File bytes that each GET which still runs has brought, by assignment."""
        with self._lock:
            return {number: job.written_bytes for number, job in self._jobs.items()}

    def received(self) -> dict[int, int]:
        """What each GET that still runs and was answered has received, also what was of no use, by assignment."""
        with self._lock:
            return {number: job.network_bytes for number, job in self._jobs.items() if job.is_answered}

    @property
    def network_bytes(self) -> int:
        """Bytes that came from the CDN, also those that were of no use."""
        with self._lock:
            return self._finished_network_bytes + sum(job.network_bytes for job in self._jobs.values())

    def _run(self, action: FetchWhole | FetchRun, job: _Job) -> None:
        report: CdnEnded | CdnFailed | WriteFailed
        try:
            chunks = job.whole(action) if isinstance(action, FetchWhole) else job.run(action)
            report = CdnEnded(action.assignment, chunks)
        except _Stopped:
            return
        except _NotWritten as error:
            assert isinstance(error.__cause__, Exception)
            report = WriteFailed(error.__cause__)
        except Exception as error:
            if self._stop.is_set():
                return
            report = CdnFailed(action.assignment, error)
        finally:
            with self._lock:
                del self._jobs[action.assignment]
                self._finished_network_bytes += job.network_bytes
        self._report(report)


class _Urls:
    """The urls of a file, renewed when they have expired: once for all GETs that find it out together."""

    def __init__(self, cas: CasClient, file_hash: XetHash) -> None:
        self._cas = cas
        self._file_hash = file_hash
        self._lock = threading.Lock()
        self._plan: Reconstruction | None = None
        self._renewals = 0

    def latest(self, source: FetchRange) -> tuple[FetchRange, int]:
        """The same chunks behind the newest url that is known, and how often urls were renewed for that."""
        with self._lock:
            return self._known(source)

    def renewed(self, source: FetchRange, renewals: int) -> tuple[FetchRange, int]:
        """... behind one that is newer than this, which has expired."""
        with self._lock:
            if self._renewals == renewals:
                self._plan = self._cas.reconstruction(self._file_hash)
                self._renewals += 1
            return self._known(source)

    def _known(self, source: FetchRange) -> tuple[FetchRange, int]:
        return (source if self._plan is None else _same_chunks(self._plan, source)), self._renewals

    def part(self, byte_range: tuple[int, int]) -> Reconstruction:
        """Urls for just a part of the file."""
        return self._cas.reconstruction(self._file_hash, byte_range)


def _same_chunks(plan: Reconstruction, source: FetchRange) -> FetchRange:
    found = plan.covering(Term(source.xorb, source.start, source.end, source.end - source.start))
    if (found.start, found.end) != (source.start, source.end):
        raise ReconstructionError("reconstruction: the file is laid out differently than before")
    return found


@dataclass(frozen=True, slots=True)
class _Run:
    """Chunks of a GET's source from `start` on are those of the action from `first` on."""

    start: int
    first: int
    count: int


class _Part:
    """One GET of an action, and where it ends now: at the end of its source, until less of it is wanted."""

    def __init__(self, fetch: Fetch, runs: tuple[_Run, ...]) -> None:
        self.fetch = fetch
        self.runs = runs
        self.end = fetch.source.end
        self.whole = fetch
        """That it is, or is the rest of,"""
        self.begun = Manifest.join(())
        """... and what is there of that."""
        self.draft: Draft | None = None
        self.noted = 0
        """Chunks that the journal knows of,"""
        self.noted_ends: list[int] = []
        """... and where they end in the file, by placement."""
        self._unpacker: Unpacker | None = None

    def begin(self, unpacker: Unpacker) -> None:
        """It begins, perhaps once more."""
        self._unpacker = unpacker
        self.noted, self.noted_ends = 0, [place.file_offset for place in self.fetch.placements]
        unpacker.limit(self.end)

    def note(self, unpacker: Unpacker, journal: Noted) -> None:
        """More has been decoded and written."""
        done = unpacker.chunks_done
        if done == self.noted or not self.fetch.placements:
            return
        found = unpacker.chunks(self.noted)
        new, first = Manifest(found.hashes, found.lengths), self.fetch.source.start + self.noted
        self.noted += len(new)
        for at, place in enumerate(self.fetch.placements):
            start, end = max(first, place.start), min(first + len(new), place.end)
            if start < end:
                chunks = new if end - start == len(new) else new.slice(start - first, end - first)
                journal.wrote(self.fetch.source.xorb, start, self.noted_ends[at], chunks)
                self.noted_ends[at] += chunks.size_bytes

    def limit(self, chunks: int) -> None:
        """No more is wanted than the first ``chunks`` of the action."""
        ends = (run.start + min(run.count, chunks - run.first) for run in self.runs if run.first < chunks)
        end = min(self.end, max(ends, default=self.fetch.source.start))
        self.end = end if self._unpacker is None else self._unpacker.limit(end)

    @property
    def is_over(self) -> bool:
        """It was stopped, and has brought what is still wanted."""
        source = self.fetch.source
        if self.end >= source.end:
            return False
        done = 0 if self._unpacker is None else self._unpacker.chunks_done
        return source.start + done >= self.end


def _brought(parts: list[_Part]) -> int:
    """How many of the first chunks of the action the GETs bring, if each ends where it does now."""
    most = 0
    missing = []
    for part in parts:
        for run in part.runs:
            most = max(most, run.first + run.count)
            count = max(0, part.end - run.start)
            if count < run.count:
                missing.append(run.first + count)
    return min(missing, default=most)


class _Job:
    """One action on its worker."""

    def __init__(
        self,
        cas: CasClient,
        urls: _Urls,
        fd: int,
        stop: threading.Event,
        retry: RetryPolicy,
        cap: RateCap | None,
        drafts: Drafts | None,
        journal: Noted | None,
    ) -> None:
        self._journal = journal
        self._cap = cap
        self._drafts = drafts
        self._cas = cas
        self._urls = urls
        self._fd = fd
        self._stop = stop
        self._retry = retry
        self._gate = threading.Lock()
        """Held while bytes are decoded and written: who closes the source takes it once, and then no one writes."""
        self._body: RangeBody | None = None
        # What follows is changed with the gate in hand.
        self._wanted: int | None = None
        """How many of the action's chunks are wanted; None: all."""
        self._parts: list[_Part] = []
        """The GETs that the action takes, once that is known."""
        self.network_bytes = 0
        self.written_bytes = 0
        self.is_answered = False

    def stop(self) -> None:
        """With the stop event set: returns when nothing is being written."""
        with self._gate:
            body = self._body
        if body is not None:
            body.abort()

    def reconnect(self) -> None:
        """Breaks its connection: it is asked for again from there."""
        with self._gate:
            body = self._body
        if body is not None:
            body.abort()

    def limit(self, chunks: int) -> int:
        """Makes it end after so many chunks, or at the next end of one; after how many that is. From any thread."""
        with self._gate:
            self._wanted = chunks if self._wanted is None else min(self._wanted, chunks)
            for part in self._parts:
                part.limit(self._wanted)
            self._wanted = max(self._wanted, _brought(self._parts))
            # One that waits for bytes which nobody needs would wait for long on a slow line.
            body = self._body if all(part.is_over for part in self._parts) else None
            stops = self._wanted
        if body is not None:
            body.abort()
        return stops

    def whole(self, action: FetchWhole) -> Manifest:
        self._check_running()
        if action.begun is not None and (part := self._rest_of(action.fetch, action.begun.chunks)) is not None:
            return Manifest.join((action.begun.chunks, self._rest(part)))
        source, renewals = self._urls.latest(action.fetch.source)

        def renewed(source: FetchRange) -> FetchRange:
            nonlocal renewals
            source, renewals = self._urls.renewed(source, renewals)
            return source

        part = _Part(replace(action.fetch, source=source), (_Run(source.start, 0, source.end - source.start),))
        self._plan([part])
        return self._fetch(part, action.expected, renewed)

    def _rest_of(self, fetch: Fetch, begun: Manifest) -> _Part | None:
        """A GET for what is not there yet: the CAS gives a url for just that. None: it does not begin where that ends.

        That nobody has proved what is there is no matter here: what is wrong of it shows with the rest.
        """
        (place,), source = fetch.placements, fetch.source
        first_byte = place.file_offset + begun.size_bytes
        if self._wanted == 0:
            return None
        plan = self._urls.part((first_byte, place.file_offset + place.size_bytes))
        fetches = fetches_of(plan, first_byte, place.file_chunk + len(begun))
        wanted = (source.xorb, source.start + len(begun), source.end)
        found = [(one.source.xorb, one.source.start, one.source.end) for one in fetches]
        if plan.offset_into_first_range or found != [wanted] or not fetches[0].is_one_piece:
            return None
        part = _Part(fetches[0], (_Run(wanted[1], len(begun), wanted[2] - wanted[1]),))
        part.whole, part.begun = fetch, begun
        return part

    def _rest(self, part: _Part) -> Manifest:
        place = part.fetch.placements[0]
        byte_range = (place.file_offset, place.file_offset + place.size_bytes)
        self._plan([part])
        return self._fetch(part, None, lambda source: _same_chunks(self._urls.part(byte_range), source))

    def run(self, action: FetchRun) -> Manifest:
        """A part of the file: the CAS gives urls for just its bytes."""
        self._check_running()
        if self._wanted == 0:
            return action.chunks.slice(0, 0)
        byte_range = (action.byte_start, action.byte_end)
        plan = self._urls.part(byte_range)
        fetches = fetches_of(plan, action.byte_start, 0)
        wanted = action.chunks
        # Chunks are written where the plan's terms begin: those have to be where the proved manifest says.
        if (
            plan.offset_into_first_range
            or sum(term.end - term.start for term in plan.terms) != len(wanted)
            or any(
                wanted.offset(place.file_chunk) != place.file_offset - action.byte_start
                for fetch in fetches
                for place in fetch.placements
            )
        ):
            raise ReconstructionError(
                "reconstruction: a part of the file does not begin and end where it should"
            )

        def renewed(source: FetchRange) -> FetchRange:
            return _same_chunks(self._urls.part(byte_range), source)

        parts = [
            _Part(fetch, tuple(_Run(at.start, at.file_chunk, at.end - at.start) for at in fetch.placements))
            for fetch in fetches
        ]
        self._plan(parts)
        for part in parts:
            self._fetch(part, self._expected(part, wanted, renewed), renewed)
        return wanted.slice(0, len(wanted) if self._wanted is None else min(self._wanted, len(wanted)))

    def _plan(self, parts: list[_Part]) -> None:
        with self._gate:
            self._parts = parts
            if self._wanted is not None:
                for part in parts:
                    part.limit(self._wanted)

    def _expected(self, part: _Part, wanted: Manifest, renewed: _Renew) -> bytes:
        """The hashes of all chunks that a GET brings, also of those that lie between the wanted ones."""
        source = part.fetch.source
        known = {
            place.start + i: wanted.hash(place.file_chunk + i)
            for place in part.fetch.placements
            for i in range(place.end - place.start)
        }
        if len(known) < source.end - source.start:
            # Nothing may be written that was not checked before: a first look, at the hashes alone.
            look = _Part(Fetch(source, ()), part.runs)
            self._plan([*self._parts, look])
            found = self._fetch(look, None, renewed)
            self._plan([one for one in self._parts if one is not look])
            for i in range(len(found)):
                known.setdefault(source.start + i, found.hash(i))
        # What the look has not seen as it was stopped is not brought either.
        return b"".join(known.get(chunk, ZERO_HASH) for chunk in range(source.start, source.end))

    def _fetch(self, part: _Part, expected: bytes | None, renew: _Renew) -> Manifest:
        try:
            return self._fetched(part, expected, renew)
        finally:
            self._end_draft(part)

    def _fetched(self, part: _Part, expected: bytes | None, renew: _Renew) -> Manifest:
        began_s = time.monotonic()
        written_before = self.written_bytes
        source = part.fetch.source
        fed = 0
        attempt = wrong = expired = 0
        unpacker = self._unpacker(part, expected)
        while not part.is_over:
            before = fed
            try:
                for count in self._bytes_of(replace(source, byte_start=source.byte_start + fed), part, unpacker):
                    fed += count
                    self.written_bytes = written_before + unpacker.bytes_written
                    if part.draft is not None:
                        Drafts.came(part.draft, unpacker)
                    if self._journal is not None:
                        part.note(unpacker, self._journal)
                if part.is_over:
                    break
                chunks = unpacker.finish()
                return Manifest(chunks.hashes, chunks.lengths)
            except UrlExpired:
                expired += 1
                if expired > MAX_EXPIRED:
                    raise
                # An url may be signed for the very range that it came with: what is left of one needs all of it.
                old = source
                source = renew(source)
                if fed == 0 and (old.byte_start, old.byte_end) == (source.byte_start, source.byte_end):
                    continue
            except CasUnavailable as error:
                if not error.retryable:
                    raise
                # A connection that brought something may be tried again as if it were the first.
                attempt, began_s = (0, time.monotonic()) if fed > before else (attempt + 1, began_s)
                delay_s = self._retry.delay_s(
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
                log.info("wrong bytes from the CDN, asking again: %s", error)
            finally:
                if expected is None:
                    _check_in_place(part.fetch, unpacker)
            fed = 0
            self.written_bytes = written_before
            unpacker = self._unpacker(part, expected)
        chunks = unpacker.chunks()
        return Manifest(chunks.hashes, chunks.lengths)

    def _unpacker(self, part: _Part, expected: bytes | None) -> Unpacker:
        source, placements = part.fetch.source, part.fetch.placements
        places = [(place.start, place.end, place.file_offset) for place in placements]
        fd = self._fd if places else -1
        unpacker = Unpacker(fd, source.start, source.end, places, expected)
        with self._gate:
            part.begin(unpacker)
        self._end_draft(part)
        if self._drafts is not None and expected is None:
            part.draft = self._drafts.begin(part.whole, part.begun)
        return unpacker

    def _end_draft(self, part: _Part) -> None:
        draft, part.draft = part.draft, None
        if draft is not None and self._drafts is not None:
            self._drafts.ended(draft)

    def _bytes_of(self, source: FetchRange, part: _Part, unpacker: Unpacker) -> Iterator[int]:
        """Receive, decode and write; yields how many bytes each step took. Ends early when the rest is not wanted."""
        if source.size_bytes == 0:
            return
        self._check_running()
        buffer = _buffer()
        with self._cas.open_range(source) as body:
            self._body = body
            self.is_answered = True
            # Who set it before the line above did not see the body.
            self._check_running()
            try:
                while not part.is_over and (count := body.readinto(buffer)):
                    self.network_bytes += count
                    with self._gate:
                        self._check_running()
                        try:
                            unpacker.feed(buffer[:count])
                        except OSError as error:
                            raise _NotWritten from error
                    if self._cap is not None:
                        self._cap.take(count, lambda: self._stop.is_set() or part.is_over)
                    yield count
            except CasUnavailable:
                self._check_running()
                if not part.is_over:
                    raise
            finally:
                self._body = None

    def _check_running(self) -> None:
        if self._stop.is_set():
            raise _Stopped


_of_thread = threading.local()


def _buffer() -> memoryview:
    """Of BUFFER_BYTES, the same one for all that a thread receives."""
    if not hasattr(_of_thread, "buffer"):
        _of_thread.buffer = memoryview(bytearray(BUFFER_BYTES))
    found: memoryview = _of_thread.buffer
    return found


def _check_in_place(fetch: Fetch, unpacker: Unpacker) -> None:
    """Chunks of unknown length are written one after the other: none may have reached the next term's place.

    Neighbours may have been proved already, so what was written over them cannot be made good by asking again.
    """
    lengths = unpacker.chunks().lengths
    for place in fetch.placements:
        start, end = place.start - fetch.source.start, place.end - fetch.source.start
        if sum(lengths[start:end]) > place.size_bytes:
            raise _NotWritten from ReconstructionError(
                f"reconstruction: a term of {place.size_bytes} bytes has more of them in the xorb"
            )
