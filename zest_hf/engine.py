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
from dataclasses import replace
from pathlib import Path
from typing import Any

from zest_hf import access
from zest_hf._native.codec import RULE_CURRENT, RULE_EARLY
from zest_hf.background import Background
from zest_hf.cas import CasClient, TokenProvider
from zest_hf.config import Settings, load_settings
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.policy import PolicySettings
from zest_hf.core.reconstruction import Term
from zest_hf.core.retry import RetryPolicy
from zest_hf.core.transfer import Counts
from zest_hf.download import DownloadResult, FileDownload, FileRequest, Progress, Related, RepoRef
from zest_hf.errors import StorageError, SwarmError, ZestError
from zest_hf.index import Index, IndexedFile
from zest_hf.rate_cap import RateCap
from zest_hf.scan import scan_file
from zest_hf.shared import Shared
from zest_hf.sources.cdn import RETRY
from zest_hf.sources.local import COPY_THREADS
from zest_hf.sources.target import Target
from zest_hf.swarm import Swarm
from zest_hf.traffic import Meter, Traffic, TrafficLog
from zest_hf.unfinished import Unfinished
from zest_hf.workers import WorkerPool

log = logging.getLogger("zest_hf.engine")

MAX_CAS_CLIENTS = 16
GET_THREADS = 8
ASK_THREADS = 64
"""For what a download asks at its beginning, each of which may have to wait for somebody else."""
RECENT_DOWNLOADS = 1000
READ_TIMEOUT_S = 10.0
CLOSE_PATIENCE_S = 5.0
"""How long `close` waits for downloads that it has told to stop."""
CLOSED = "zest_hf is closing in this process"
VISIBILITY_AGE_S = 24 * 3600.0
"""A repository may be made private: what the Hub said is asked again after a day."""
VISIBILITY_LOOK_S = 60.0
"""When the Hub gives no clear answer then, it is asked again after this time."""
INDEX_PATIENCE_S = 0.5
"""How long a download waits for others who use the index, and for a slow disk to make it."""
INDEX_REST_S = 60.0
"""How long the index is left alone after it has failed."""
RECORD_PATIENCE_S = 0.1
"""How long a download waits for being noted; usually that takes a few milliseconds."""
RECORDS_END_S = 3.0
"""How long `close` waits for files to be noted; one that is not noted is found by the scan of zest-seed."""
QUESTIONS_END_S = 0.1
"""How long `close` waits for what the Hub says of repositories; zest-seed asks by itself."""
TRAFFIC_END_S = 0.1
"""How long `close` waits for who notes what was moved."""
MAX_BACKGROUND_JOBS = 256


class Engine:
    """See the module. All methods may be called from any thread."""

    def __init__(
        self,
        settings: Settings,
        policy: PolicySettings | None = None,
        *,
        read_timeout_s: float = READ_TIMEOUT_S,
        retry: RetryPolicy = RETRY,
    ) -> None:
        """``read_timeout_s``: the longest silence of CAS and CDN that is borne; ``retry``: when to ask again."""
        self.settings = settings
        self._read_timeout_s = read_timeout_s
        self._retry = retry
        self._keyed = settings.swarm_key is not None
        self._peers_may_be_found = bool(settings.peers or settings.lsd or settings.dht or settings.trackers)
        self._cap = RateCap(settings.max_down_bytes_s) if settings.max_down_bytes_s else None
        self.policy = policy or PolicySettings()
        self._tidied = False
        self._unfinished = Unfinished(settings.home / "unfinished")
        self._workers = WorkerPool(GET_THREADS)
        # Not behind GETs that wait for a server.
        self._copiers = WorkerPool(COPY_THREADS)
        # To start a thread for each question of each of many small files would cost more than the answers.
        self._askers = WorkerPool(ASK_THREADS)
        self._lock = threading.Lock()
        self._counts = Counts()
        self._given_up = Traffic()
        """What downloads had brought that did not end well."""
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT_DOWNLOADS)
        self._clients: OrderedDict[tuple[TokenProvider, str], CasClient] = OrderedDict()
        self._index: Index | None = None
        self._index_closed = False
        self._index_rests_until_s = 0.0
        self._index_failure_said = threading.Lock()
        """Taken by the first who says it, for good."""
        self._swarm: Swarm | None = None
        self._swarm_failed = False
        self._swarm_lock = threading.Lock()
        self._closed = False
        self._running: dict[FileDownload, int] = {}
        """Downloads under way, with the thread of each."""
        self._offered: dict[Target, RepoRef] = {}
        """Finished downloads that nobody has recorded yet: what of them is offered to others."""
        self._one_ended = threading.Condition(self._lock)
        self._interrupted = threading.Event()
        self._records = Background("zest-record", MAX_BACKGROUND_JOBS)
        # A thread of its own: a Hub that does not answer must not keep files out of the index.
        self._questions = Background("zest-visibility", MAX_BACKGROUND_JOBS, idle=self._ask_again)
        self._shared: Shared[RepoRef] = Shared()
        self._when_closed: list[Callable[[], None]] = []
        self._traffic_log = TrafficLog(settings.home, patience_s=INDEX_PATIENCE_S)
        self._meter = Meter(self._traffic_log, self.moved)
        self._metering = Background("zest-traffic", MAX_BACKGROUND_JOBS, idle=self._note_traffic)

    # --- downloads ---------------------------------------------------------------------------------

    def download(self, request: FileRequest, progress: Progress) -> DownloadResult:
        """Brings a file. Raises ZestError or OSError, after which nothing writes to the path any more.

        After `close`, or when it comes meanwhile, that is a ZestError.
        """
        began_s = time.monotonic()
        permitted = self._permits(request.repo)
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
        )
        with self._lock:
            if self._closed:
                raise ZestError(CLOSED)
            self._running[download] = threading.get_ident()
            is_first, self._tidied = not self._tidied, True
        if is_first:
            self._unfinished.tidy_later()
        self._metering.submit(lambda: None)
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
        with self._lock:
            if result.offer is not None:
                self._offered[result.offer] = request.repo
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
        path = final_path.resolve()
        try:
            stat = path.stat()
        except OSError:
            self._end_offer(result)
            raise
        if stat.st_size != result.size_bytes or result.size_bytes == 0:
            self._end_offer(result)
            return
        file = IndexedFile(
            file_hash=result.file_hash,
            path=path,
            size_bytes=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            repo_id=repo.repo_id,
            repo_type=repo.repo_type,
            endpoint=repo.endpoint,
            public=bool(public),
            manifest=result.manifest,
            terms=result.terms,
        )

        def job() -> None:
            try:
                self._record(file, repo, public, ask)
            finally:
                # From its final place it is offered by now, if it may be.
                self._end_offer(result)

        # Who waits here for nothing keeps the next of many files from beginning.
        self._records.submit(job, 0.0 if self.is_downloading() else RECORD_PATIENCE_S)

    def abandon(self, result: DownloadResult) -> None:
        """Instead of `record`: the file does not get to its final path. Nothing of it is offered any more."""
        self._end_offer(result)

    def can_be_gone_on_with(self, file_hash: XetHash, path: Path) -> bool:
        """Whether the next download of the file would go on from what lies there."""
        return self._unfinished.has(file_hash, path)

    def forget(self, file_hash: XetHash, path: Path) -> None:
        """What lies there will not be gone on with."""
        self._unfinished.forget(file_hash, path)

    def _end_offer(self, result: DownloadResult) -> None:
        if result.offer is not None:
            result.offer.end()
            with self._lock:
                self._offered.pop(result.offer, None)

    def settle(self, timeout_s: float) -> bool:
        """Waits until all that was recorded is noted and offered; False if that takes longer than ``timeout_s``."""
        deadline_s = time.monotonic() + timeout_s
        # The questions come from the records.
        return self._records.drain(timeout_s) and self._questions.drain(max(0.0, deadline_s - time.monotonic()))

    def _record(
        self, file: IndexedFile, repo: RepoRef, public: bool | None, ask: Callable[[], bool] | None
    ) -> None:
        if public is None:
            public = self.remembered_visibility(repo)
        self._add(replace(file, public=bool(public)), visibility_known=public is not None)
        if not self._permits(repo):
            return  # noted all the same: the lists may change
        if self._keyed:
            # Whoever has the key may have what is behind it: the Hub need not be asked.
            self._offer(file, repo, None)
        elif public:
            self._offer(file, repo, ask)
        elif public is None and ask is not None and (self.settings.seed or self.settings.peers):
            question = ask
            self._questions.submit(lambda: self._find_out(file, repo, question))

    def _find_out(self, file: IndexedFile, repo: RepoRef, ask: Callable[[], bool]) -> None:
        if not self._closed and ask():
            self._add(replace(file, public=True))
            self._offer(file, repo, ask)

    def _add(self, file: IndexedFile, *, visibility_known: bool = True) -> None:
        index = self.index()
        if index is not None:
            try:
                index.add(file, visibility_known=visibility_known)
            except StorageError as error:
                self._rest_from_index(error)

    def _offer(self, file: IndexedFile, repo: RepoRef, ask: Callable[[], bool] | None) -> None:
        swarm = self.swarm() if self.settings.seed else None
        if swarm is None:
            return
        item = file.path, file.file_hash
        if not self._keyed:
            # Noted before it is offered: whoever withdraws the repository meanwhile must find it.
            self._shared.add(repo, item, ask, self._next_question_s(repo))
        try:
            swarm.share(file)
        except SwarmError as error:
            log.info("%s is not offered: %s", file.path, error)
            return
        if self._keyed:
            return
        if not self._shared.holds(repo, item):
            swarm.unshare(os.fspath(file.path), file.file_hash)
        elif ask is not None:
            self._questions.submit(lambda: None)  # it may be sleeping for longer

    def _next_question_s(self, repo: RepoRef) -> float:
        """When the answer that was heard just now is too old."""
        age_s = 0.0
        index = self.index()
        if index is not None:
            try:
                known = index.visibility(repo.endpoint, repo.repo_type, repo.repo_id)
            except StorageError as error:
                self._rest_from_index(error)
            else:
                # It may have been another process that heard it.
                age_s = known.age_s if known is not None and known.age_s <= VISIBILITY_AGE_S else 0.0
        return time.monotonic() + max(VISIBILITY_LOOK_S, VISIBILITY_AGE_S - age_s)

    def _ask_again(self) -> float | None:
        for repo, ask in self._shared.due():
            self._shared.postpone(repo, time.monotonic() + VISIBILITY_LOOK_S)
            if self._closed:
                return None
            if ask():
                self._shared.postpone(repo, self._next_question_s(repo))
        return self._shared.pause_s()

    def _withdraw(self, repo: RepoRef) -> None:
        swarm = self._swarm
        if not self._keyed:
            with self._lock:
                running = [download for download in self._running if download.repo == repo]
                offered = [offer for offer, its in self._offered.items() if its == repo]
            for download in running:
                download.withdraw()
            for offer in offered:
                offer.end()
        for path, file_hash in self._shared.withdraw(repo):
            if swarm is not None:
                with contextlib.suppress(SwarmError):  # closed meanwhile
                    swarm.unshare(os.fspath(path), file_hash)

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
        with self._lock:
            if self._index_closed or time.monotonic() < self._index_rests_until_s:
                return None
            if self._index is None:
                self._index = Index(self.settings.home / "index.sqlite", patience_s=INDEX_PATIENCE_S)
            return self._index

    def _rest_from_index(self, error: StorageError) -> None:
        # The next file would wait for the same reason.
        with self._lock:
            if self._index_closed:
                return
            self._index_rests_until_s = time.monotonic() + INDEX_REST_S
        level = logging.WARNING if self._index_failure_said.acquire(blocking=False) else logging.INFO
        log.log(level, "zest_hf: no index, downloads are not remembered for seeding: %s", error)

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
        index = self.index()
        if index is None:
            return None
        try:
            public = index.is_public(repo.endpoint, repo.repo_type, repo.repo_id, max_age_s=VISIBILITY_AGE_S)
        except StorageError as error:
            self._rest_from_index(error)
            return None
        if public is False:
            self._withdraw(repo)  # another process has heard it
        return public

    def remember_visibility(self, repo: RepoRef, public: bool) -> None:
        """Keeps the answer for other processes. What is offered of a repository that is not public is withdrawn."""
        if not public:
            self._withdraw(repo)
        index = self.index()
        if index is None:
            return
        try:
            index.set_public(repo.endpoint, repo.repo_type, repo.repo_id, public)
        except StorageError as error:
            self._rest_from_index(error)

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
        self._records.close(RECORDS_END_S)
        self._questions.close(QUESTIONS_END_S)
        with self._lock:
            offered, self._offered = self._offered, {}
        for offer in offered:
            offer.end()
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
            index, self._index, self._index_closed = self._index, None, True
        for client in clients:
            client.close()
        self._workers.close()
        self._copiers.close()
        self._askers.close()
        if index is not None:
            index.close()
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
                    pool_size=2 * GET_THREADS,
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
            self._rest_from_index(error)
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
