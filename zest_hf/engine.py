"""What the downloads of a process share: the swarm, the index, the workers, the CAS clients, the counts.

Made on first use, once per process; a forked child makes its own.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import queue
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zest_hf import access
from zest_hf._native.codec import RULE_CURRENT, RULE_EARLY
from zest_hf.background import Background
from zest_hf.cas import CasClient, TokenProvider
from zest_hf.config import Settings, load_settings
from zest_hf.core.concurrency import ConcurrencySettings
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.policy import PolicySettings
from zest_hf.core.reconstruction import Term
from zest_hf.core.retry import RetryPolicy
from zest_hf.core.transfer import Counts
from zest_hf.download import DownloadResult, FileDownload, FileRequest, Progress, Related, RepoRef
from zest_hf.errors import StorageError, SwarmError, ZestError
from zest_hf.finished import MAX_BACKGROUND_JOBS, RECORD_PATIENCE_S, FinishedFiles
from zest_hf.get_limit import GetLimit
from zest_hf.index import Index, IndexedFile
from zest_hf.peer_rates import PeerRates
from zest_hf.rate_cap import RateCap
from zest_hf.resting_index import INDEX_PATIENCE_S, RestingIndex
from zest_hf.scan import scan_file
from zest_hf.sources.cdn import RETRY
from zest_hf.sources.local import COPY_THREADS
from zest_hf.swarm import Swarm
from zest_hf.traffic import Meter, Traffic, TrafficLog
from zest_hf.unfinished import Unfinished
from zest_hf.workers import WorkerPool

log = logging.getLogger("zest_hf.engine")

MAX_CAS_CLIENTS = 16
RECENT_DOWNLOADS = 1000
READ_TIMEOUT_S = 10.0
CLOSE_PATIENCE_S = 5.0
"""How long `close` waits for downloads that it has told to stop."""
CLOSED = "zest_hf is closing in this process"
TRAFFIC_END_S = 0.1
"""How long `close` waits for who notes what was moved."""


class Engine:
    """See the module. All methods may be called from any thread."""

    def __init__(
        self,
        settings: Settings,
        policy: PolicySettings | None = None,
        *,
        read_timeout_s: float = READ_TIMEOUT_S,
        retry: RetryPolicy = RETRY,
        concurrency: ConcurrencySettings | None = None,
    ) -> None:
        """``read_timeout_s``: the longest silence of CAS and CDN that is borne; ``retry``: when to ask again."""
        self.settings = settings
        self._read_timeout_s = read_timeout_s
        self._retry = retry
        self._keyed = settings.swarm_key is not None
        self._peers_may_be_found = bool(settings.peers or settings.lsd or settings.dht or settings.trackers)
        self._cap = RateCap(settings.max_down_bytes_s) if settings.max_down_bytes_s else None
        self.policy = policy or PolicySettings()
        self._peer_rates = PeerRates()
        self._tidied = False
        self._unfinished = Unfinished(settings.home / "unfinished")
        concurrency = concurrency or ConcurrencySettings()
        self._most_gets = concurrency.high_most
        self._workers = WorkerPool(concurrency.first, "zest-get")
        self._get_limit = GetLimit(self._workers, concurrency)
        # Not behind GETs that wait for a server.
        self._copiers = WorkerPool(COPY_THREADS, "zest-copy")
        # To start a thread for each question of each of many small files would cost more than the answers. Some of them
        # wait for others.
        self._askers = WorkerPool(None, "zest-ask")
        self._lock = threading.Lock()
        self._counts = Counts()
        self._given_up = Traffic()
        """What downloads had brought that did not end well."""
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT_DOWNLOADS)
        self._clients: OrderedDict[tuple[TokenProvider, str], CasClient] = OrderedDict()
        self._index = RestingIndex(settings.home / "index.sqlite")
        self._swarm: Swarm | None = None
        self._swarm_failed = False
        self._swarm_lock = threading.Lock()
        self._closed = False
        self._running: dict[FileDownload, int] = {}
        """Downloads under way, with the thread of each."""
        self._one_ended = threading.Condition(self._lock)
        self._interrupted = threading.Event()
        self._finished = FinishedFiles(
            settings,
            self._index,
            swarm=self.swarm,
            swarm_if_any=lambda: self._swarm,
            withdraw_running=self._withdraw_running,
            is_closing=lambda: self._closed,
        )
        self._when_closed: list[Callable[[], None]] = []
        self._traffic_log = TrafficLog(settings.home, patience_s=INDEX_PATIENCE_S)
        self._meter = Meter(self._traffic_log, self.moved)
        self._metering = Background("zest-traffic", MAX_BACKGROUND_JOBS, idle=self._note_traffic)

    @property
    def cdn_gets(self) -> int:
        """How many run at the moment."""
        return self._workers.busy

    # --- downloads ---------------------------------------------------------------------------------

    def download(self, request: FileRequest, progress: Progress) -> DownloadResult:
        """Brings a file. Raises ZestError or OSError, after which nothing writes to the path any more.

        After `close`, or when it comes meanwhile, that is a ZestError.
        """
        began_s = time.monotonic()
        permitted = self._permits(request.repo)
        if request.high_performance:
            self._get_limit.go_high()
        download = FileDownload(
            request,
            cas=self._client(request),
            workers=self._workers,
            copiers=self._copiers,
            askers=self._askers,
            swarm=(lambda: self._permitted_swarm(request)) if self._peers_may_be_found and permitted else None,
            swarm_now=lambda: self._swarm_now(request),
            here=self._here,
            settings=self.policy,
            retry=self._retry,
            interrupted=self._interrupted.is_set,
            cap=self._cap,
            # Who is quiet claims nothing that others would wait for.
            share=self.settings.seed and not self._is_quiet(),
            has_given_peers=bool(self.settings.peers),
            unfinished=self._unfinished,
            peer_rates=self._peer_rates,
            get_limit=self._get_limit,
        )
        with self._lock:
            if self._closed:
                raise ZestError(CLOSED)
            is_alone = not self._running
            self._running[download] = threading.get_ident()
            is_first, self._tidied = not self._tidied, True
        if is_first:
            self._unfinished.tidy_later()
        if is_alone:
            self._metering.submit(lambda: None)  # it sleeps when there is nothing to note
        result: DownloadResult | None = None
        try:
            result = download.run(progress)
        finally:
            with self._one_ended:
                del self._running[download]
                if result is None:
                    self._given_up += download.so_far
                else:
                    self._count(result)
                self._one_ended.notify_all()
        self._finished.came(result, request.repo)
        with self._lock:
            self._recent.append(
                {
                    "file": request.display_name,
                    "repo": request.repo.repo_id,
                    "size": result.size_bytes,
                    "local": result.bytes_local,
                    "peer": result.bytes_peer,
                    "cdn": result.bytes_cdn,
                    "seconds": round(time.monotonic() - began_s, 3),
                }
            )
        return result

    def _permits(self, repo: RepoRef) -> bool:
        return access.permits(self.settings.allow, self.settings.deny, repo.repo_type, repo.repo_id)

    def _is_quiet(self) -> bool:
        hours = self.settings.quiet_hours
        return bool(hours) and access.upload_cap(hours, access.minute_of_day(time.time()), None) == 0

    def is_downloading(self) -> bool:
        """Whether a download is under way."""
        with self._lock:
            return bool(self._running)

    def when_closed(self, call: Callable[[], None]) -> None:
        """Has something called at the end of `close`, when all is noted and no port is taken any more."""
        with self._lock:
            self._when_closed.append(call)

    def _count(self, result: DownloadResult) -> None:
        self._counts.local += result.bytes_local
        self._counts.peer += result.bytes_peer
        self._counts.cdn += result.bytes_cdn

    def moved(self) -> Traffic:
        """What this process has moved until now, also of files that are not complete."""
        with self._lock:
            counts = self._counts
            moved = Traffic(counts.local, counts.peer, counts.cdn) + self._given_up
            for download in self._running:
                moved += download.so_far
        swarm = self._swarm
        if swarm is not None:
            with contextlib.suppress(SwarmError):  # closed meanwhile
                moved += Traffic(uploaded=swarm.stats().bytes_up)
        return moved

    def under_way(self) -> list[dict[str, Any]]:
        """The files that are on their way: their sizes (None when not known) and what has come from where."""
        with self._lock:
            running = list(self._running)
        return [
            {
                "file": one.name,
                "repo": one.repo.repo_id,
                "size": one.size_bytes,
                "local": one.so_far.local,
                "peer": one.so_far.peer,
                "cdn": one.so_far.cdn,
            }
            for one in running
        ]

    def _note_traffic(self) -> float | None:
        due_s = self._meter.note_if_due()
        # Peers may take something as long as the process lives.
        return due_s if self._running or self._swarm is not None else None

    def interrupt(self) -> None:
        """Ends all downloads of the process soon, also those that have not begun: they raise KeyboardInterrupt.

        For programs that handle Ctrl-C while other threads download: only the main thread gets it by itself.
        """
        self._interrupted.set()

    def record(
        self,
        result: DownloadResult,
        final_path: Path,
        repo: RepoRef,
        public: bool | None,
        ask: Callable[[], bool] | None = None,
    ) -> None:
        """Notes a finished file under its final path, and offers it when its repository is public.

        That happens in the background; unless other files are on their way it is waited for, for `RECORD_PATIENCE_S`
        at most. ``public`` is what is known without asking. ``ask`` finds it out, now or when a repository may have
        become private, and is False for "unknown" too; a "no" of the Hub comes by `remember_visibility`. Raises OSError
        when the file is gone.
        """
        # Who waits here for nothing keeps the next of many files from beginning.
        patience_s = 0.0 if self.is_downloading() else RECORD_PATIENCE_S
        self._finished.record(result, final_path, repo, public, ask, patience_s)

    def abandon(self, result: DownloadResult) -> None:
        """Instead of `record`: the file does not get to its final path. Nothing of it is offered any more."""
        self._finished.abandon(result)

    def can_be_gone_on_with(self, file_hash: XetHash, path: Path) -> bool:
        """Whether the next download of the file would go on from what lies there."""
        return self._unfinished.has(file_hash, path)

    def forget(self, file_hash: XetHash, path: Path) -> None:
        """What lies there will not be gone on with."""
        self._unfinished.forget(file_hash, path)

    def settle(self, timeout_s: float) -> bool:
        """Waits until all that was recorded is noted and offered; False if that takes longer than ``timeout_s``."""
        return self._finished.settle(timeout_s)

    def _withdraw_running(self, repo: RepoRef) -> None:
        with self._lock:
            running = [download for download in self._running if download.repo == repo]
        for download in running:
            download.withdraw()

    def verify(self, path: Path, file_hash: XetHash) -> Manifest:
        """Chunks and hashes a file by the rules that uploaders have used so far; its manifest.

        Raises ProofError when none of them gives this hash.
        """
        manifest = scan_file(path, RULE_CURRENT)
        if manifest.file_hash() != file_hash:
            manifest = scan_file(path, RULE_EARLY)
            manifest.prove_file(file_hash)
        return manifest

    # --- what is shared ------------------------------------------------------------------------------

    def index(self) -> Index | None:
        """The index, or None when it cannot be used here, or could not a moment ago (said once)."""
        return self._index.get()

    def swarm(self) -> Swarm | None:
        """The swarm, started on first use, or None when it may not or cannot be (said once)."""
        if self.settings.hub_offline:
            return None
        with self._swarm_lock:
            if self._swarm is None and not self._swarm_failed and not self._closed:
                try:
                    self._swarm = swarm = Swarm(self.settings, self.policy)
                    if self._cap is not None:
                        self._cap.watch(lambda: swarm.stats().bytes_down)
                except SwarmError as error:
                    self._swarm_failed = True
                    log.warning("zest_hf: no peers: %s", error)
            return self._swarm

    def remembered_visibility(self, repo: RepoRef) -> bool | None:
        """Whether the Hub showed this repository to an anonymous request, if that was asked not long ago."""
        return self._finished.remembered_visibility(repo)

    def remember_visibility(self, repo: RepoRef, public: bool) -> None:
        """Keeps the answer for other processes. What is offered of a repository that is not public is withdrawn."""
        self._finished.remember_visibility(repo, public)

    def status(self) -> dict[str, Any]:
        """What this process has done. ``bytes``: file bytes by source; ``downloads``: the last files."""
        with self._lock:
            counts = self._counts
            out: dict[str, Any] = {
                "bytes": {
                    "local": counts.local,
                    "peer": counts.peer,
                    "cdn": counts.cdn,
                    "total": counts.total,
                    "uploaded": 0,
                },
                "downloads": list(self._recent),
            }
        swarm = self._swarm
        if swarm is not None:
            try:
                out.update(swarm.report())
                out["bytes"]["uploaded"] = swarm.stats().bytes_up
            except SwarmError:  # closed meanwhile
                return out
        return out

    def close(self) -> None:
        """Ends everything, also downloads under way on other threads; at exit, or for tests."""
        with self._one_ended:
            self._closed = True
            for download in self._running:
                download.abort(ZestError(CLOSED))
            here = threading.get_ident()
            others = [download for download, thread in self._running.items() if thread != here]
            self._one_ended.wait_for(lambda: not any(one in self._running for one in others), CLOSE_PATIENCE_S)
        self._finished.close()
        self._metering.close(TRAFFIC_END_S)
        self._meter.note(last=True)
        self._traffic_log.close()
        with self._swarm_lock:
            swarm, self._swarm = self._swarm, None
        if swarm is not None:
            swarm.close()
        with self._lock:
            clients = list(self._clients.values())
            self._clients.clear()
        for client in clients:
            client.close()
        self._workers.close()
        self._copiers.close()
        self._askers.close()
        self._index.close()
        with self._lock:
            calls, self._when_closed = self._when_closed, []
        for call in calls:
            call()

    def _client(self, request: FileRequest) -> CasClient:
        """One client for all files that share their token: connections and tokens are reused."""
        key = (request.token_provider, request.user_agent)
        with self._lock:
            client = self._clients.get(key)
            if client is None:
                client = self._clients[key] = CasClient(
                    request.token_provider,
                    user_agent=request.user_agent,
                    read_timeout_s=request.read_timeout_s or self._read_timeout_s,
                    deadline_s=self._retry.deadline_s,
                    retry=self._retry,
                    ca_bundle=self.settings.ca_bundle,
                    pool_size=self._most_gets,
                )
            self._clients.move_to_end(key)
            # The oldest may still be in use by a download: it is dropped, not closed.
            while len(self._clients) > MAX_CAS_CLIENTS:
                self._clients.popitem(last=False)
            return client

    def _here(self, file_hash: XetHash, terms: Sequence[Term]) -> Related:
        index = self.index()
        if index is None:
            return Related()
        try:
            known = index.get(file_hash)
            shared = [] if known else index.sharing(terms)
        except StorageError as error:
            self._index.failed(error)
            return Related()
        manifest = next((one.manifest for one in known if one.manifest.file_hash() == file_hash), None)

        def files() -> list[IndexedFile]:
            here = [one for one in known if one.path.is_file()]
            return here or index.related(shared or index.sharing(terms))

        return Related(manifest, bool(known or shared), files)

    def _swarm_now(self, request: FileRequest) -> Swarm | None:
        """As `_permitted_swarm`, where nobody need be waited for; else None."""
        return self._swarm if self._keyed or request.known_to_be_public() else None

    def _permitted_swarm(self, request: FileRequest) -> Swarm | None:
        """The swarm, if a file of this repository may be asked for there.

        Even to ask for it by its hash says that somebody has it: not outside what everybody may see.
        """
        if self._keyed:
            return self.swarm()
        if self._swarm is not None:
            return self._swarm if request.is_public() else None
        # Asking the Hub and starting the session take about as long: both at the same time.
        public: queue.SimpleQueue[bool] = queue.SimpleQueue()

        def ask() -> None:
            is_public = False
            try:
                is_public = request.is_public()
            except Exception as error:
                log.warning("no peers for %s: %s", request.display_name, error)
            public.put(is_public)

        self._askers.submit(ask)
        swarm = self.swarm()
        return swarm if swarm is not None and public.get() else None


_engine: Engine | None = None
_engine_lock = threading.Lock()


def get_engine() -> Engine:
    """The process's engine. Raises ConfigError when a setting cannot be used."""
    global _engine
    with _engine_lock:
        if _engine is None:
            settings = load_settings()
            logging.getLogger("zest_hf").setLevel(settings.log_level)
            _engine = Engine(settings)
            atexit.register(_engine.close)
            _at_end_of_worker(_engine.close)
        return _engine


def _at_end_of_worker(call: Callable[[], None]) -> None:
    """The processes of multiprocessing end without what `atexit` knows."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, call, exitpriority=100)


def current_engine() -> Engine | None:
    """The process's engine, if anything has needed one yet."""
    return _engine


def _forget_after_fork() -> None:
    # The threads of the parent do not exist here: its engine cannot even be closed.
    global _engine, _engine_lock
    if _engine is not None:
        atexit.unregister(_engine.close)
    _engine = None
    _engine_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_after_fork)
