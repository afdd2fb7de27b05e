"""One file from wherever it is to be had: the loop that lets the transfer decide and the sources act.

The way of a byte: the CAS says how the file is rebuilt (`cas`), `core.plan` makes GETs and pieces of it,
`core.transfer` and `core.policy` say who is asked for what, `sources.local`, `sources.cdn` and `sources.peer` bring
it, native code checks and writes it, and the file hash closes the account.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from zest_hf._native import codec
from zest_hf._native.events import Event
from zest_hf.cas import CasClient, TokenProvider
from zest_hf.core.begun import HERE, Begun
from zest_hf.core.ids import ZERO_HASH, XetHash
from zest_hf.core.local import LocalFile, LocalFiles, begun_fetches
from zest_hf.core.manifest import Manifest
from zest_hf.core.plan import FilePlan, plan_file
from zest_hf.core.policy import NOTHING_ELSEWHERE, PolicySettings, discovery_patience_s
from zest_hf.core.reconstruction import Reconstruction, Term
from zest_hf.core.retry import RetryPolicy
from zest_hf.core.transfer import (
    AskPeer,
    CancelPeer,
    CopyLocal,
    FetchWhole,
    Follow,
    ReplaceGet,
    StopFollow,
    StopGet,
    Transfer,
)
from zest_hf.errors import ReconstructionError
from zest_hf.get_limit import GetLimit
from zest_hf.index import IndexedFile
from zest_hf.peer_rates import PeerRates
from zest_hf.rate_cap import RateCap
from zest_hf.sources import left_over
from zest_hf.sources.base import (
    CdnEnded,
    CdnFailed,
    CdnStops,
    CopyEnded,
    FollowEnded,
    ManifestProved,
    PeerEnded,
    PeerHolds,
    PeerHoldsMore,
    PeerLacks,
    PeerLeft,
    Report,
    XorbProved,
)
from zest_hf.sources.cdn import RETRY, CdnSource, Workers
from zest_hf.sources.drafts import Drafts
from zest_hf.sources.local import LocalSource
from zest_hf.sources.peer import PeerSource
from zest_hf.sources.target import Target
from zest_hf.swarm import Swarm
from zest_hf.traffic import Traffic
from zest_hf.unfinished import MIN_BYTES, TakenUp, Unfinished

log = logging.getLogger("zest_hf.download")

TICK_S = 0.1
LEFT_OVERS_S = 10.0
"""How long it is looked at what killed downloads have left: faster than any line, but disks differ."""
LOOK_PATIENCE_S = 3.0
"""How long the download waits for that before it asks others: a file may lie on a server that does not answer."""
CROWD_PATIENCE_S = 1.0
"""How long it is taken for possible, while that is not known, that peers may be asked."""


@dataclass(frozen=True, slots=True)
class RepoRef:
    """A repository: ``repo_type`` is "model", "dataset" or "space"."""

    endpoint: str
    repo_type: str
    repo_id: str


@dataclass(frozen=True, slots=True)
class FileRequest:
    """What the hub asks for. ``path`` exists already and is written in place; its content before does not matter."""

    file_hash: XetHash
    size_bytes: int | None
    path: Path
    repo: RepoRef
    token_provider: TokenProvider
    user_agent: str
    is_public: Callable[[], bool]
    """Whether the Hub shows the repository to an anonymous request; may ask it. Unknown is False."""
    display_name: str
    known_to_be_public: Callable[[], bool | None] = lambda: None
    """... as far as that is known without asking."""
    read_timeout_s: float | None = None
    """The longest silence of the CAS or the CDN that the user allows; None: the engine's own."""
    high_performance: bool = False
    """As many GETs at the same time as may help."""
    left_overs: tuple[Path, ...] = ()
    """What downloads of it that were killed have left behind: it is gone on from there."""


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """A file that is complete and proved by its hash. The bytes by source add up to its size."""

    file_hash: XetHash
    size_bytes: int
    manifest: Manifest
    terms: tuple[Term, ...]
    bytes_local: int
    bytes_peer: int
    bytes_cdn: int
    offer: Target | None = None
    """What others are given of it until it is offered where it stays: then its `end` is to be called."""


@dataclass(frozen=True, slots=True)
class Related:
    """What the index knows of a file: its manifest, and where it or something of it may be.

    ``files``: those that are there, the best first. To look for them may take as long as a disk does.
    """

    manifest: Manifest | None = None
    may_be_here: bool = False
    files: Callable[[], Sequence[IndexedFile]] = tuple


class Progress(Protocol):
    """Told about ten times a second, on the thread that downloads."""

    def update(self, done_bytes: int, total_bytes: int, network_bytes: int, came: Traffic) -> None:
        """``came``: bytes of the file by where they came from, as far as that is settled."""


class FileDownload:
    """One download. When `run` returns or raises, nothing that it started writes to the file any more."""

    def __init__(
        self,
        request: FileRequest,
        *,
        cas: CasClient,
        workers: Workers,
        copiers: Workers,
        askers: Workers,
        swarm: Callable[[], Swarm | None] | None,
        swarm_now: Callable[[], Swarm | None] = lambda: None,
        here: Callable[[XetHash, Sequence[Term]], Related],
        settings: PolicySettings,
        retry: RetryPolicy = RETRY,
        interrupted: Callable[[], bool] = lambda: False,
        cap: RateCap | None = None,
        share: bool = False,
        has_given_peers: bool = True,
        unfinished: Unfinished | None = None,
        peer_rates: PeerRates | None = None,
        get_limit: GetLimit | None = None,
    ) -> None:
        """``swarm`` starts it if need be, and gives None where there is nobody to ask; it may wait for the Hub.
        ``swarm_now``: the same if that need not be waited for, else None. ``here``: what is known of the file and of
        such as have chunks of these terms' xorbs. ``askers`` run what waits for others.

        ``share``: what is here already is offered to others as soon as it is proved, where peers may be asked.
        ``cap``, ``peer_rates``, ``get_limit``: of all downloads. ``unfinished``: by it a download that was killed is
        gone on with.
        """
        self._unfinished = unfinished
        self._peer_rates = peer_rates or PeerRates()
        self._get_limit = get_limit
        self._taken: TakenUp | None = None
        self._cap = cap
        self._share = share
        # Who gave us peers expects them to be used. For others that may turn up not much time is spent.
        self._permission_patience_s = (
            settings.permission_patience_s
            if has_given_peers
            else discovery_patience_s(request.size_bytes or 0, settings)
        )
        self._request = request
        self._began_s = 0.0
        self._retry = retry
        self._interrupted = interrupted
        self._cas = cas
        self._workers = workers
        self._copiers = copiers
        self._askers = askers
        self._swarm = swarm
        self._settings = settings
        self._inbox: queue.SimpleQueue[_Arrival] = queue.SimpleQueue()
        self._reports: deque[Report] = deque()
        """Of the download's thread: what the sources have said and the transfer does not know yet."""
        self._transfer: Transfer | None = None
        self._peers: PeerSource | None = None
        self._permission_until_s: float | None = None
        """Until when it is waited for whether peers may be asked; None: that is settled."""
        self._cdn: CdnSource | None = None
        self._local: LocalSource | None = None
        self._here = here
        self._swarm_now = swarm_now
        self._drafts: Drafts | None = None
        self._withdrawn = False
        self.so_far = Traffic()
        """File bytes by where they came from; about ten times a second. To be read from any thread."""

    @property
    def repo(self) -> RepoRef:
        return self._request.repo

    @property
    def name(self) -> str:
        return self._request.display_name

    @property
    def size_bytes(self) -> int | None:
        """None when the Hub has not said it."""
        return self._request.size_bytes

    def run(self, progress: Progress) -> DownloadResult:
        """Raises ZestError, OSError or KeyboardInterrupt; the content of the file is then undefined."""
        request = self._request
        self._began_s = time.monotonic()
        with contextlib.ExitStack() as stack:
            if self._unfinished is not None and (request.size_bytes or 0) >= MIN_BYTES:
                self._taken = self._unfinished.take_up(request.file_hash, request.path, request.left_overs)
                stack.callback(self._taken.close)
            fd = os.open(request.path, os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            if request.file_hash == ZERO_HASH:
                if request.size_bytes:
                    raise ReconstructionError(f"the hash of an empty file for one of {request.size_bytes} bytes")
                os.ftruncate(fd, 0)
                return DownloadResult(request.file_hash, 0, Manifest.join(()), (), 0, 0, 0)
            # The CAS, the Hub and the peers are asked at the same time.
            self._askers.submit(self._ask_plan)
            if self._swarm is not None:
                if (swarm := self._swarm_now()) is not None:
                    self._inbox.put(_Permission(swarm))
                else:
                    self._permission_until_s = time.monotonic() + self._permission_patience_s
                    self._askers.submit(self._ask_permission)
            if self._swarm is not None and self._share:
                self._drafts = Drafts(fd)
                stack.callback(self._drafts.close)
            self._cdn = CdnSource(
                self._cas,
                request.file_hash,
                fd,
                self._workers,
                self._inbox.put,
                self._retry,
                self._cap,
                self._drafts,
                None if self._taken is None else self._taken.journal,
            )
            stack.callback(self._cdn.close)
            if self._get_limit is not None:
                stack.callback(self._get_limit.leave, self)
            manifest = self._loop(progress, fd, stack)
            transfer = self._transfer
            assert transfer is not None
            offer = self._peers.finish() if self._peers is not None else None
            if self._drafts is not None:
                self._drafts.release()
            os.ftruncate(fd, manifest.size_bytes)
            if self._taken is not None:
                self._taken.done()
        counts = transfer.counts
        self.so_far = Traffic(counts.local, counts.peer, counts.cdn)
        progress.update(manifest.size_bytes, manifest.size_bytes, self._network_bytes(), self.so_far)
        return DownloadResult(
            request.file_hash,
            manifest.size_bytes,
            manifest,
            transfer.plan.terms,
            counts.local,
            counts.peer,
            counts.cdn,
            offer,
        )

    def abort(self, error: Exception) -> None:
        """Makes `run` raise ``error`` soon. From any thread."""
        self._inbox.put(error)

    def withdraw(self) -> None:
        """The repository turned out not to be public: peers are left alone from now on. From any thread."""
        self._inbox.put(_Permission(None))

    def _ask_plan(self) -> None:
        try:
            answer = self._cas.reconstruction(self._request.file_hash)
            plan = _Plan(answer, plan_file(answer))
            # First, as nothing should be asked of anybody that is on the disk; usually it takes a few milliseconds.
            related = self._what_is_known(answer)
            begun = self._request.left_overs or (self._taken is not None and self._taken.here)
            if not related.may_be_here and not begun:
                self._inbox.put(replace(plan, here=_Here([], {}, related.manifest)))
                return
            found: queue.SimpleQueue[_Here] = queue.SimpleQueue()
            self._askers.submit(lambda: self._look_here(plan, related, found))
            try:
                self._inbox.put(replace(plan, here=found.get(timeout=LOOK_PATIENCE_S)))
            except queue.Empty:
                log.info("%s: the disk is slow; the download begins", self._request.display_name)
                self._inbox.put(plan)
                self._inbox.put(found.get())
        except Exception as error:
            self._inbox.put(error)

    def _what_is_known(self, answer: Reconstruction) -> Related:
        try:
            return self._here(self._request.file_hash, answer.terms)
        except Exception as error:
            log.info("%s: what is on the disk is not used: %s", self._request.display_name, error)
            return Related()

    def _look_here(self, plan: _Plan, related: Related, found: queue.SimpleQueue[_Here]) -> None:
        """What is on this disk; a file of it may be on a server that does not answer."""
        files: list[tuple[Path, LocalFile]] = []
        begun: dict[int, Begun] = {}
        try:
            request, terms = self._request, plan.answer.terms
            if self._taken is not None:
                files += self._taken.here
                mine = [part for _, part in self._taken.here[: self._taken.in_place]]
                begun = self._begun(plan.plan, mine)
            there = related.files()
            # One path may belong to several repositories.
            files += list({file.path: LocalFile(file.manifest, file.terms) for file in there}.items())
            is_here = any(file.file_hash == request.file_hash for file in there)
            if not is_here and (self._taken is None or not self._taken.here):
                deadline_s = time.monotonic() + LEFT_OVERS_S
                for path in request.left_overs:
                    files += [(path, part) for part in left_over.scan(path, terms, deadline_s)]
        except Exception as error:
            log.info("%s: what is on the disk is not used: %s", self._request.display_name, error)
        found.put(_Here(files, begun, related.manifest))

    def _begun(self, plan: FilePlan, parts: Sequence[LocalFile]) -> dict[int, Begun]:
        """The GETs that have been begun in the file, as far as it is still as it was."""
        out: dict[int, Begun] = {}
        proved = {xorb for xorb, _ in LocalFiles(parts).proved_xorbs(plan)}
        with self._request.path.open("rb") as file:
            for number, begun in begun_fetches(plan, parts, proved):
                chunks, offset = begun.chunks, plan.fetches[number].placements[0].file_offset
                there = codec.copy_chunks(
                    file.fileno(), offset, file.fileno(), offset, chunks.hashes, chunks.lengths
                )
                # What lies behind something else may be right, but nothing can be made of it without that.
                if there > (len(out[number].chunks) if number in out else 0):
                    out[number] = Begun(chunks.slice(0, there), ((there, HERE),))
        return out

    def _ask_permission(self) -> None:
        swarm = None
        try:
            assert self._swarm is not None
            swarm = self._swarm()
        except Exception as error:
            log.warning("no peers for %s: %s", self._request.display_name, error)
        self._inbox.put(_Permission(swarm))

    def _meet_peers(self, swarm: Swarm, fd: int) -> PeerSource:
        return PeerSource(
            swarm,
            self._request.file_hash,
            fd,
            self._settings,
            listener=self._inbox.put,
            report=self._reports.append,
            size_bytes=self._request.size_bytes,
            share=self._share,
            began_s=self._began_s,
            drafts=self._drafts,
        )

    def _loop(self, progress: Progress, fd: int, stack: contextlib.ExitStack) -> Manifest:
        next_update_s = 0.0
        done = 0
        while True:
            if self._interrupted():
                raise KeyboardInterrupt
            for item in self._arrivals():
                if isinstance(item, Exception):
                    raise item
                if isinstance(item, _Plan):
                    self._begin(item)
                    if item.here is not None:
                        self._reuse(item.here, fd, stack)
                elif isinstance(item, _Here):
                    self._reuse(item, fd, stack)
                elif isinstance(item, Report):
                    self._reports.append(item)
                elif isinstance(item, _Permission):
                    self._permission_until_s = None
                    # A "no" is for good, whichever of them comes first.
                    self._withdrawn |= item.swarm is None
                    if self._withdrawn and self._peers is not None:
                        self._peers.withdraw()
                    elif item.swarm is not None and not self._withdrawn:
                        self._peers = self._meet_peers(item.swarm, fd)
                        stack.callback(self._peer_rates.leave, self)
                        stack.callback(self._peers.close)
                        if self._transfer is not None:
                            self._peers.begin(self._transfer)
                elif self._peers is not None:
                    self._peers.handle(item)
            # A peer may answer before the CAS does.
            if self._transfer is None:
                continue
            # All of them before anything is decided: what peers say must not come a step late.
            while self._reports:
                self._take(self._reports.popleft())
            if self._transfer.complete and (manifest := self._transfer.finish()) is not None:
                return manifest
            self._act()
            now_s = time.monotonic()
            if now_s >= next_update_s:
                next_update_s = now_s + TICK_S
                # A GET that has ended counts as nothing until its report is taken; what is shown never falls.
                running = self._cdn.written_bytes if self._cdn is not None else 0
                counts = self._transfer.counts
                self.so_far = Traffic(counts.local, counts.peer + self._followed_bytes(), counts.cdn + running)
                there = self.so_far.local + self.so_far.peer + self.so_far.cdn + self._transfer.begun_bytes
                done = max(done, there)
                total = self._transfer.plan.size_bytes
                progress.update(min(done, total), total, self._network_bytes(), self.so_far)

    def _arrivals(self) -> list[_Arrival]:
        """What has come, or nothing after a tick."""
        try:
            items = [self._inbox.get(timeout=TICK_S)]
        except queue.Empty:
            return []
        with contextlib.suppress(queue.Empty):
            while True:
                items.append(self._inbox.get_nowait())
        return items

    def _begin(self, plan: _Plan) -> None:
        answer, wanted = plan.answer, self._request.size_bytes
        if answer.offset_into_first_range or (wanted is not None and answer.size_bytes != wanted):
            raise ReconstructionError(f"reconstruction: {answer.size_bytes} bytes for a file of {wanted}")
        # Who downloads the same file at the same time should begin elsewhere.
        seed = int.from_bytes(os.urandom(8), "big")
        self._transfer = Transfer(plan.plan, self._request.file_hash, self._settings, seed)
        if self._peers is not None:
            self._peers.begin(self._transfer)
        if self._taken is not None and self._taken.manifest is not None:
            self._transfer.manifest_proved(self._taken.manifest)

    def _reuse(self, here: _Here, fd: int, stack: contextlib.ExitStack) -> None:
        assert self._transfer is not None
        if here.manifest is not None and self._transfer.manifest is None:
            self._transfer.manifest_proved(here.manifest)
        if not here.files:
            return
        self._transfer.local_files(LocalFiles([file for _, file in here.files]))
        self._transfer.resume(here.begun)
        self._local = LocalSource([path for path, _ in here.files], fd, self._copiers, self._inbox.put)
        stack.callback(self._local.close)

    def _note(self, report: PeerEnded | FollowEnded | CopyEnded) -> None:
        """Keeps what has been written. What the CDN brings is noted while it comes."""
        transfer, taken = self._transfer, self._taken
        assert transfer is not None
        if taken is None:
            return
        action = transfer.running(report.assignment)
        if isinstance(report, FollowEnded):
            assert isinstance(action, Follow)
            source, (place,) = action.fetch.source, action.fetch.placements
            taken.journal.wrote(source.xorb, source.start, place.file_offset, report.chunks)
            return
        assert isinstance(action, AskPeer | CopyLocal)
        if isinstance(action, CopyLocal) and action.source < taken.in_place and action.source_offset == action.offset:
            return
        first, end = action.first, action.first + report.chunks_written
        for xorb, start, count in transfer.knowledge.in_xorbs(first, end):
            chunks = transfer.knowledge.part(first, first + count)
            taken.journal.wrote(xorb, start, transfer.knowledge.offset(first), chunks)
            first += count

    def _take(self, report: Report) -> None:
        transfer, now_s = self._transfer, time.monotonic()
        assert transfer is not None
        if isinstance(report, PeerEnded | FollowEnded | CopyEnded):
            self._note(report)
        if isinstance(report, PeerEnded):
            transfer.peer_ended(report.assignment, report.chunks_written, report.trouble, now_s)
        elif isinstance(report, FollowEnded):
            why = "all" if report.trouble is None else report.trouble.value
            log.debug("%s: %d chunks of a member's GET: %s", self._request.display_name, len(report.chunks), why)
            transfer.follow_ended(report.assignment, report.chunks, report.trouble, now_s)
        elif isinstance(report, CdnEnded):
            transfer.cdn_ended(report.assignment, report.chunks, now_s)
        elif isinstance(report, CdnStops):
            transfer.cdn_stops(report.assignment, report.chunks)
        elif isinstance(report, CdnFailed):
            log.info("%s: %s", self._request.display_name, report.error)
            transfer.cdn_failed(report.assignment, report.error, now_s)
        elif isinstance(report, CopyEnded):
            transfer.copy_ended(report.assignment, report.chunks_written, report.opened, now_s)
        elif isinstance(report, ManifestProved):
            transfer.manifest_proved(report.manifest)
            if self._taken is not None:
                self._taken.journal.proved(report.manifest)
        elif isinstance(report, PeerHolds):
            transfer.peer_holds(report.peer, report.ranges)
        elif isinstance(report, PeerHoldsMore):
            transfer.peer_holds_more(report.peer, report.ranges, report.xorb)
        elif isinstance(report, PeerLacks):
            transfer.peer_lacks(report.peer, report.ranges, report.xorb)
        elif isinstance(report, XorbProved):
            transfer.xorb_proved(report.xorb, report.manifest)
        elif isinstance(report, PeerLeft):
            transfer.peer_gone(report.peer)
        else:
            raise report.error

    def _act(self) -> None:
        transfer, now_s = self._transfer, time.monotonic()
        assert transfer is not None and self._cdn is not None
        if self._peers is not None:
            self._peers.step(now_s)
            # What it found out at once counts already.
            while self._reports:
                self._take(self._reports.popleft())
            waiting = self._peers.waiting(now_s)
            transfer.followed(self._peers.followed(), now_s)
            others_may_come = self._peers.others_may_come(now_s)
            own_bytes_s = transfer.peer_rate_bytes_s(now_s)
            elsewhere = self._peer_rates.note(self, transfer.counts.peer, own_bytes_s, now_s)
        else:
            asking = self._permission_until_s is not None
            waiting = asking and now_s < (self._permission_until_s or 0.0)
            others_may_come = asking and self._share and now_s - self._began_s < CROWD_PATIENCE_S
            elsewhere = NOTHING_ELSEWHERE
        transfer.cdn_brought(self._cdn.progress(), now_s, self._cdn.received())
        max_gets = None
        if self._get_limit is not None:
            max_gets = self._get_limit.note(self, self._cdn.network_bytes, now_s)
        actions = transfer.actions(now_s, waiting, others_may_come, elsewhere, max_gets)
        for decision in transfer.take_decisions():
            log.debug("%s: GET %d: %s", self._request.display_name, decision.fetch, decision.reason.value)
        for action in actions:
            if isinstance(action, FetchWhole | Follow) and log.isEnabledFor(logging.DEBUG):
                number = transfer.plan.fetches.index(action.fetch)
                whom = action.member.hex()[:8] if isinstance(action, Follow) else "the CDN"
                log.debug("%s: GET %d from %s", self._request.display_name, number, whom)
            if isinstance(action, AskPeer | CancelPeer | Follow | StopFollow):
                assert self._peers is not None
                self._peers.start(action)
            elif isinstance(action, StopGet):
                self._cdn.stop(action)
            elif isinstance(action, ReplaceGet):
                log.info("%s: a connection to the CDN is much slower than others", self._request.display_name)
                self._cdn.replace(action)
            elif isinstance(action, CopyLocal):
                assert self._local is not None
                self._local.start(action)
            else:
                if self._swarm is not None:
                    log.debug(
                        "%s: asking the CDN; %s",
                        self._request.display_name,
                        "no peers may be asked" if self._peers is None else self._peers.summary(now_s),
                    )
                self._cdn.start(action)

    def _followed_bytes(self) -> int:
        return sum(self._peers.followed().values()) if self._peers is not None else 0

    def _network_bytes(self) -> int:
        peer = self._transfer.counts.peer if self._transfer is not None else 0
        return peer + self._followed_bytes() + (self._cdn.network_bytes if self._cdn is not None else 0)


@dataclass(frozen=True, slots=True)
class _Permission:
    """Whom peers may be asked through; None: they may not."""

    swarm: Swarm | None


@dataclass(frozen=True, slots=True)
class _Here:
    """What is on this disk that may have a part of the file. ``begun``: in its very place, checked, by GET.

    ``manifest``: the file's own, if it was here once.
    """

    files: list[tuple[Path, LocalFile]]
    begun: dict[int, Begun]
    manifest: Manifest | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the file is rebuilt, and what is here of it, if that is known by then."""

    answer: Reconstruction
    plan: FilePlan
    here: _Here | None = None


_Arrival = Report | Event | _Plan | _Here | Exception | _Permission
