"""The contract of `zest_hf.sources.base`, the same for every source."""

from __future__ import annotations

import os
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from downloads import READ_TIMEOUT_S, RETRY, Publisher, StoredFile, engine, fetch, tiny_chunks, within
from swarm.wire_peer import WirePeer, WireServer

from zest_hf._native.events import Event
from zest_hf.cas import CasClient
from zest_hf.core.actions import AskPeer, FetchRun, FetchWhole, StopGet
from zest_hf.core.plan import Fetch, Placement, plan_file
from zest_hf.core.policy import PolicySettings
from zest_hf.core.reconstruction import FetchRange, Reconstruction
from zest_hf.core.transfer import Transfer
from zest_hf.download import RepoRef
from zest_hf.http_body import RangeBody
from zest_hf.hub.process import HubProcess
from zest_hf.sources.base import CdnEnded, CdnStops, PeerEnded, PeerHolds, Report
from zest_hf.sources.cdn import CdnSource
from zest_hf.sources.peer import PeerSource
from zest_hf.workers import WorkerPool

DEADLINE_S = 10.0
CHUNKS, XORBS = 100, 4
UNTOUCHED = 0xA5


@pytest.fixture(scope="module")
def stored(running_hub: HubProcess) -> StoredFile:
    """Four xorbs of 100 chunks, 2 MB."""
    publisher = Publisher(running_hub.endpoint, "org/sources")
    return publisher.put(*(tiny_chunks(f"source {number}", CHUNKS, 5000) for number in range(XORBS)))


class Rig(ABC):
    """A source with a file of its own to write to. Parts are numbered: each is one xorb's chunks."""

    def __init__(self, stored: StoredFile, path: Path, stack: ExitStack) -> None:
        self.stored, self.path = stored, path
        path.write_bytes(bytes([UNTOUCHED]) * len(stored.content))
        self.fd = os.open(path, os.O_RDWR)
        stack.callback(os.close, self.fd)
        self.reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self.source: Any = None

    @abstractmethod
    def action(self, part: int) -> Any:
        """An action that brings this part; its assignment is the part's number."""

    def ends(self, count: int) -> list[Report]:
        """The next reports of ends."""
        out: list[Report] = []
        deadline_s = time.monotonic() + DEADLINE_S
        while len(out) < count:
            assert time.monotonic() < deadline_s, f"only {out}"
            self.pump(0.05)
            while not self.reports.empty():
                report = self.reports.get()
                if isinstance(report, PeerEnded | CdnEnded):
                    out.append(report)
        return out

    def pump(self, timeout_s: float) -> None:
        """Lets the source's events through."""
        time.sleep(0 if not self.reports.empty() else min(timeout_s, 0.01))

    @abstractmethod
    def slow_down(self) -> None:
        """From now on bytes come so slowly that an action does not end by itself in a test."""

    @abstractmethod
    def speed_up(self) -> None: ...

    def part(self, part: int) -> tuple[int, int]:
        """Its bytes in the file."""
        manifest = self.stored.manifest
        return manifest.offset(part * CHUNKS), manifest.offset((part + 1) * CHUNKS)


class CdnRig(Rig):
    """``kind``: whole GETs, with or without hashes, or runs."""

    def __init__(
        self, kind: str, hub: HubProcess, stored: StoredFile, path: Path, stack: ExitStack
    ) -> None:
        super().__init__(stored, path, stack)
        self.kind, self.hub = kind, hub
        self.cas = cas = CasClient(stored.token, user_agent="tests", read_timeout_s=READ_TIMEOUT_S, retry=RETRY)
        stack.callback(cas.close)
        self.plan = plan_file(cas.reconstruction(stored.file_hash))
        workers = WorkerPool(XORBS)
        stack.callback(workers.close)
        self.source = CdnSource(cas, stored.file_hash, self.fd, workers, self.reports.put, RETRY)
        stack.callback(self.source.close)

    def action(self, part: int) -> FetchWhole | FetchRun:
        chunks = self.stored.manifest.slice(part * CHUNKS, (part + 1) * CHUNKS)
        if self.kind == "run":
            return FetchRun(part, part * CHUNKS, *self.part(part), chunks)
        return FetchWhole(part, self.plan.fetches[part], chunks.hashes if self.kind == "checked" else None)

    def slow_down(self) -> None:
        self.hub.fault("cdn", "rate", bytes_per_second=100_000)

    def speed_up(self) -> None:
        self.hub.clear_faults()


class PeerRig(Rig):
    """A peer of this process that holds the file."""

    def __init__(
        self, seed: Path, max_up: str, stored: StoredFile, path: Path, stack: ExitStack
    ) -> None:
        super().__init__(stored, path, stack)
        holder = stack.enter_context(engine(seed / "A", ZEST_MAX_UP=max_up))
        result = fetch(holder, stored, seed / "a")
        holder.record(result, seed / "a", RepoRef(stored.endpoint, "model", stored.repo), True)
        known = holder.swarm()
        assert known is not None
        taker = stack.enter_context(engine(seed / "B", [known.port]))
        swarm = taker.swarm()
        assert swarm is not None
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.source = PeerSource(
            swarm, stored.file_hash, self.fd, PolicySettings(), self.events.put, self.reports.put
        )
        stack.callback(self._close)
        self.source.begin(transfer_of(stored))
        self.peer = self._holder()

    def _holder(self) -> int:
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            assert time.monotonic() < deadline_s, "no peer"
            self.pump(0.1)
            while not self.reports.empty():
                report = self.reports.get()
                if isinstance(report, PeerHolds):
                    return report.peer

    def pump(self, timeout_s: float) -> None:
        try:
            self.source.handle(self.events.get(timeout=timeout_s))
        except queue.Empty:
            return

    def action(self, part: int) -> AskPeer:
        xorb, first, _ = self.stored.parts[part]
        return AskPeer(part, self.peer, part * CHUNKS, CHUNKS, xorb.xorb, first)

    def slow_down(self) -> None:
        pass  # it is from the beginning

    def speed_up(self) -> None:
        pass

    def _close(self) -> None:
        source, self.source = self.source, None
        if source is not None:
            source.close()


def transfer_of(stored: StoredFile) -> Transfer:
    """Its state before anything came, but for its manifest."""
    with closing(CasClient(stored.token, user_agent="tests", read_timeout_s=READ_TIMEOUT_S, retry=RETRY)) as cas:
        plan = plan_file(cas.reconstruction(stored.file_hash))
    transfer = Transfer(plan, stored.file_hash, PolicySettings())
    transfer.manifest_proved(stored.manifest)
    return transfer


@pytest.fixture(params=["checked", "blind", "run", "peer"])
def rig(
    request: pytest.FixtureRequest, local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> Iterator[Rig]:
    with ExitStack() as stack:
        if request.param == "peer":
            slow = "slow" in request.node.name or "close" in request.node.name
            yield PeerRig(tmp_path, "300kB" if slow else "", stored, tmp_path / "file", stack)
        else:
            yield CdnRig(request.param, local_hub, stored, tmp_path / "file", stack)


def test_each_action_is_reported_once_with_all_that_it_brought(rig: Rig) -> None:
    for part in range(XORBS):
        rig.source.start(rig.action(part))
    ends = rig.ends(XORBS)
    assert sorted(report.assignment for report in ends) == list(range(XORBS))  # type: ignore[union-attr]
    for report in ends:
        if isinstance(report, CdnEnded):
            first = report.assignment * CHUNKS
            assert report.chunks == rig.stored.manifest.slice(first, first + CHUNKS)
        elif isinstance(report, PeerEnded):
            assert (report.chunks_written, report.trouble) == (CHUNKS, None)
    assert rig.path.read_bytes() == rig.stored.content
    assert rig.reports.empty()


def test_bytes_are_written_in_their_place_and_nowhere_else(rig: Rig) -> None:
    rig.source.start(rig.action(2))
    rig.ends(1)
    start, end = rig.part(2)
    written = rig.path.read_bytes()
    assert written[start:end] == rig.stored.content[start:end]
    assert set(written[:start]) | set(written[end:]) == {UNTOUCHED}
    assert len(written) == len(rig.stored.content)


def test_start_returns_at_once_from_a_slow_source(rig: Rig) -> None:
    rig.slow_down()
    with within(0.5):
        for part in range(XORBS):
            rig.source.start(rig.action(part))


def test_after_close_nothing_is_written_and_nothing_reported(
    rig: Rig, local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> None:
    rig.slow_down()
    for part in range(XORBS):
        rig.source.start(rig.action(part))
    deadline_s = time.monotonic() + DEADLINE_S
    while set(rig.path.read_bytes()) == {UNTOUCHED}:
        assert time.monotonic() < deadline_s, "nothing comes"
        rig.pump(0.01)
    with within(1.0):
        rig.source.close()
    if isinstance(rig, PeerRig):
        rig.source = None
    before = rig.path.read_bytes()
    assert before != stored.content
    rig.speed_up()
    # A whole download from the same Hub: whatever was on its way is here by then.
    with engine(tmp_path / "other home") as one:
        fetch(one, stored, tmp_path / "other")
    assert rig.path.read_bytes() == before
    assert rig.reports.empty()


# --- the CDN alone ------------------------------------------------------------------------------------


@pytest.fixture
def run_rig(local_hub: HubProcess, stored: StoredFile, tmp_path: Path) -> Iterator[CdnRig]:
    with ExitStack() as stack:
        yield CdnRig("run", local_hub, stored, tmp_path / "file", stack)


def test_a_run_whose_url_has_expired_gets_one_for_itself(run_rig: CdnRig) -> None:
    run_rig.hub.fault("cdn", "expire", times=2)
    first, end = 150, 180
    manifest = run_rig.stored.manifest
    action = FetchRun(1, first, manifest.offset(first), manifest.offset(end), manifest.slice(first, end))
    run_rig.source.start(action)
    (report,) = run_rig.ends(1)
    assert isinstance(report, CdnEnded) and report.chunks == action.chunks
    written = run_rig.path.read_bytes()
    assert written[action.byte_start : action.byte_end] == run_rig.stored.content[action.byte_start : action.byte_end]


def until_something_came(rig: CdnRig) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not rig.source.written_bytes:
        assert time.monotonic() < deadline_s, "nothing comes"
        time.sleep(0.005)


@pytest.mark.parametrize("kind", ["checked", "blind", "run"])
@pytest.mark.parametrize("where", ["at once", "further on", "at the end", "before it begins"])
def test_a_get_stops_where_a_chunk_ends(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path, kind: str, where: str
) -> None:
    with ExitStack() as stack:
        rig = CdnRig(kind, local_hub, stored, tmp_path / "file", stack)
        local_hub.fault("cdn", "rate", bytes_per_second=400_000)
        if where == "before it begins":
            for part in range(XORBS):
                rig.source.start(rig.action(part))
            local_hub.clear_faults()
        number = XORBS
        first = FetchRun(number, 100, *rig.part(1), stored.manifest.slice(100, 200)) if kind == "run" else None
        action = first or FetchWhole(number, rig.plan.fetches[1], getattr(rig.action(1), "expected", None))
        rig.source.start(action)
        if where != "before it begins":
            until_something_came(rig)
        wanted = {"further on": 60, "at the end": CHUNKS}.get(where, 0)
        rig.source.stop(StopGet(number, wanted))
        reports = [rig.reports.get(timeout=DEADLINE_S) for _ in range(XORBS + 2 if where == "before it begins" else 2)]
        # Which of the two comes first is a matter of chance.
        (stops,) = [one for one in reports if isinstance(one, CdnStops)]
        ends = [one for one in reports if one is not stops]
        assert stops.assignment == number
        if where == "at once":
            assert 0 < stops.chunks < 60
        else:
            assert stops.chunks == wanted
        (end,) = [one for one in ends if isinstance(one, CdnEnded) and one.assignment == number]
        assert end.chunks == stored.manifest.slice(CHUNKS, CHUNKS + stops.chunks)
        if where != "before it begins":
            begin = rig.part(1)[0]
            stop = stored.manifest.offset(CHUNKS + stops.chunks)
            written = rig.path.read_bytes()
            assert written[begin:stop] == stored.content[begin:stop]
            assert set(written[:begin]) | set(written[stop:]) == {UNTOUCHED}
        # It is over: nobody answers any more.
        rig.source.stop(StopGet(number, 0))
        assert rig.reports.empty()


@pytest.mark.parametrize("kind", ["checked", "blind"])
@pytest.mark.parametrize("wanted", [0, 10, 25, 35, 60, 70])
def test_a_get_with_several_places_stops_in_all_of_them(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path, kind: str, wanted: int
) -> None:
    """... which overlap, and have a gap of chunks between them that nobody wants."""
    with ExitStack() as stack:
        rig = CdnRig(kind, local_hub, stored, tmp_path / "file", stack)
        local_hub.fault("cdn", "latency", seconds=0.2)
        truth = stored.manifest.slice(0, CHUNKS)
        places = [Placement(20, 40, 0, 0, 100_000), Placement(10, 30, 500_000, 100, 100_000)]
        places.append(Placement(60, 80, 1_000_000, 200, 100_000))
        fetch = Fetch(rig.plan.fetches[0].source, tuple(places))
        rig.source.start(FetchWhole(7, fetch, truth.hashes if kind == "checked" else None))
        rig.source.stop(StopGet(7, wanted))
        assert rig.reports.get(timeout=DEADLINE_S) == CdnStops(7, wanted)
        (end,) = rig.ends(1)
        assert isinstance(end, CdnEnded) and end.chunks == truth.slice(0, wanted)
        expected = bytearray([UNTOUCHED]) * len(stored.content)
        for place in places:
            stop = max(place.start, min(place.end, wanted))
            some = stored.content[truth.offset(place.start) : truth.offset(stop)]
            expected[place.file_offset : place.file_offset + len(some)] = some
        assert rig.path.read_bytes() == expected


def test_urls_that_expire_together_are_renewed_once(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        rig = CdnRig("checked", local_hub, stored, tmp_path / "file", stack)
        local_hub.reset_stats()
        local_hub.fault("cdn", "expire", times=XORBS)
        ask, get, begun = rig.cas.reconstruction, rig.cas.open_range, threading.Barrier(XORBS)

        def with_the_same_urls(source: FetchRange) -> RangeBody:
            if not begun.broken:
                with suppress(threading.BrokenBarrierError):
                    begun.wait(DEADLINE_S)
                    begun.abort()
            return get(source)

        def when_all_have_expired(*arguments: Any) -> Reconstruction:
            deadline_s = time.monotonic() + DEADLINE_S
            while local_hub.stats()["cdn_requests"] < XORBS:
                assert time.monotonic() < deadline_s
            return ask(*arguments)

        monkeypatch.setattr(rig.cas, "open_range", with_the_same_urls)
        monkeypatch.setattr(rig.cas, "reconstruction", when_all_have_expired)
        for part in range(XORBS):
            rig.source.start(rig.action(part))
        rig.ends(XORBS)
        assert rig.path.read_bytes() == stored.content
        assert local_hub.stats()["by_route"]["GET /v2/reconstructions"]["requests"] == 1


def test_close_frees_a_worker_that_waits_for_a_silent_server(
    local_hub: HubProcess, stored: StoredFile, tmp_path: Path
) -> None:
    local_hub.fault("cdn", "stall", after_bytes=20_000)
    with ExitStack() as stack:
        rig = CdnRig("checked", local_hub, stored, tmp_path / "file", stack)
        done = threading.Event()
        cas = CasClient(stored.token, user_agent="tests", read_timeout_s=30.0)
        stack.callback(cas.close)
        workers = WorkerPool(1)
        stack.callback(workers.close)
        source = CdnSource(cas, stored.file_hash, rig.fd, workers, rig.reports.put)
        source.start(rig.action(0))
        deadline_s = time.monotonic() + DEADLINE_S
        while source.network_bytes == 0 and local_hub.stats()["cdn_requests"] == 0:
            assert time.monotonic() < deadline_s
        source.close()
        workers.submit(done.set)
        assert done.wait(5.0)


def test_a_peer_that_hangs_up_ends_what_it_was_asked_for(stored: StoredFile, tmp_path: Path) -> None:
    """... and one that was asked after it had gone is reported as well."""

    def hangs_up(peer: WirePeer) -> None:
        peer.question()
        raise OSError

    with WireServer(hangs_up) as server, engine(tmp_path / "B", [server.port]) as taker:
        swarm = taker.swarm()
        assert swarm is not None
        reports: list[Report] = []
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        source = PeerSource(
            swarm, stored.file_hash, fd, PolicySettings(), events.put, reports.append
        )
        source.begin(transfer_of(stored))
        try:
            xorb, _, _ = stored.parts[0]
            source.start(AskPeer(7, 12345, 0, 10, xorb.xorb, 0))
            deadline_s = time.monotonic() + DEADLINE_S
            while not any(isinstance(report, PeerEnded) for report in reports):
                assert time.monotonic() < deadline_s
                source.handle(events.get(timeout=DEADLINE_S))
        finally:
            source.close()
            os.close(fd)
        (end,) = [report for report in reports if isinstance(report, PeerEnded)]
        assert (end.assignment, end.chunks_written) == (7, 0)
