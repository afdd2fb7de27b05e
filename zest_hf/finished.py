"""What becomes of finished files: they are noted in the index, and offered to others as long as everybody may see them.

All of it happens behind the downloads, in the order in which they end: a file costs its user nothing more when it has
come. What many small files leave to be noted is noted together.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zest_hf import access
from zest_hf.background import Background
from zest_hf.config import Settings
from zest_hf.download import DownloadResult, RepoRef
from zest_hf.errors import StorageError, SwarmError
from zest_hf.index import IndexedFile
from zest_hf.resting_index import RestingIndex
from zest_hf.shared import Shared
from zest_hf.sources.target import Target
from zest_hf.swarm import Swarm

log = logging.getLogger("zest_hf.engine")

VISIBILITY_AGE_S = 24 * 3600.0
"""A repository may be made private: what the Hub said is asked again after a day."""
VISIBILITY_LOOK_S = 60.0
"""When the Hub gives no clear answer then, it is asked again after this time."""
RECORD_PATIENCE_S = 0.1
"""How long a download waits for being noted; usually that takes a few milliseconds."""
RECORDS_END_S = 3.0
"""How long `close` waits for files to be noted; one that is not noted is found by the scan of zest-seed."""
QUESTIONS_END_S = 0.1
"""How long `close` waits for what the Hub says of repositories; zest-seed asks by itself."""
MAX_BACKGROUND_JOBS = 256
MAX_WAITING = 10_000
"""Files that wait for being noted; more are left to the scan."""
TOGETHER = 16
"""So many are noted at once: whoever looks something up waits for that."""


@dataclass(frozen=True, slots=True)
class _Finished:
    """``public``: what is known of the repository; ``ask`` finds it out."""

    result: DownloadResult
    file: IndexedFile
    repo: RepoRef
    public: bool | None
    ask: Callable[[], bool] | None


class FinishedFiles:
    """Methods may be called from any thread."""

    def __init__(
        self,
        settings: Settings,
        index: RestingIndex,
        *,
        swarm: Callable[[], Swarm | None],
        swarm_if_any: Callable[[], Swarm | None],
        withdraw_running: Callable[[RepoRef], None],
        is_closing: Callable[[], bool],
    ) -> None:
        """``swarm`` starts it if need be, ``swarm_if_any`` does not. ``withdraw_running``: for downloads of a
        repository that turned out not to be public.
        """
        self._settings = settings
        self._keyed = settings.swarm_key is not None
        self._index = index
        self._swarm, self._swarm_if_any = swarm, swarm_if_any
        self._withdraw_running = withdraw_running
        self._is_closing = is_closing
        self._lock = threading.Lock()
        self._waiting: deque[_Finished] = deque()
        self._is_next = False
        """Whether a job that has not begun is going to take what waits."""
        self._offered: dict[Target, RepoRef] = {}
        """Finished downloads that nobody has recorded yet: what of them is offered to others."""
        self._shared: Shared[RepoRef] = Shared()
        self._records = Background("zest-record", MAX_BACKGROUND_JOBS)
        # A thread of its own: a Hub that does not answer must not keep files out of the index.
        self._questions = Background("zest-visibility", MAX_BACKGROUND_JOBS, idle=self._ask_again)

    def came(self, result: DownloadResult, repo: RepoRef) -> None:
        """A file has come, and is not where it stays: until `record` or `abandon` others may have it from there."""
        if result.offer is not None:
            with self._lock:
                self._offered[result.offer] = repo

    def record(
        self,
        result: DownloadResult,
        final_path: Path,
        repo: RepoRef,
        public: bool | None,
        ask: Callable[[], bool] | None,
        patience_s: float,
    ) -> None:
        """Notes a file where it stays and offers it, within ``patience_s`` or later. Raises OSError if it is gone."""
        path = final_path.resolve()
        try:
            stat = path.stat()
        except OSError:
            self.abandon(result)
            raise
        if stat.st_size != result.size_bytes or result.size_bytes == 0:
            self.abandon(result)
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
        with self._lock:
            is_full = len(self._waiting) >= MAX_WAITING
            if not is_full:
                self._waiting.append(_Finished(result, file, repo, public, ask))
                is_next, self._is_next = self._is_next, True
        if is_full:
            log.info("%s is not noted: too many files are waiting for it", path)
            self.abandon(result)
            return
        # A job takes whatever waits: one that has not begun will take this too.
        if patience_s or not is_next:
            self._records.submit(self._note_waiting, patience_s)

    def abandon(self, result: DownloadResult) -> None:
        """Nothing of the file is offered any more from where it was written."""
        if result.offer is not None:
            result.offer.end()
            with self._lock:
                self._offered.pop(result.offer, None)

    def settle(self, timeout_s: float) -> bool:
        """Waits until all that was recorded is noted and offered; False if that takes longer than ``timeout_s``."""
        deadline_s = time.monotonic() + timeout_s
        # The questions come from the records.
        return self._records.drain(timeout_s) and self._questions.drain(max(0.0, deadline_s - time.monotonic()))

    def close(self) -> None:
        """Gives what is left a short time, and ends all offers from where files were written."""
        self._records.close(RECORDS_END_S)
        self._questions.close(QUESTIONS_END_S)
        with self._lock:
            offered, self._offered = self._offered, {}
            self._waiting.clear()
        for offer in offered:
            offer.end()

    # --- noting -----------------------------------------------------------------------------------------

    def _note_waiting(self) -> None:
        while True:
            with self._lock:
                self._is_next = False
                some = [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
            if not some:
                return
            try:
                self._note(some)
            finally:
                # From their final places they are offered by now, if they may be.
                for one in some:
                    self.abandon(one.result)

    def _note(self, some: Sequence[_Finished]) -> None:
        asked = {one.repo for one in some if one.public is None}
        remembered = {repo: self.remembered_visibility(repo) for repo in asked}
        public = [remembered[one.repo] if one.public is None else one.public for one in some]
        for is_known in (True, False):
            files = [
                one.file if one.file.public is bool(is_public) else replace(one.file, public=bool(is_public))
                for one, is_public in zip(some, public, strict=True)
                if (is_public is not None) is is_known
            ]
            self._add(files, visibility_known=is_known)
        for one, is_public in zip(some, public, strict=True):
            self._offer_if_it_may_be(one, is_public)

    def _offer_if_it_may_be(self, one: _Finished, public: bool | None) -> None:
        repo, ask, settings = one.repo, one.ask, self._settings
        if not access.permits(settings.allow, settings.deny, repo.repo_type, repo.repo_id):
            return  # noted all the same: the lists may change
        if self._keyed:
            # Whoever has the key may have what is behind it: the Hub need not be asked.
            self._offer(one.file, repo, None)
        elif public:
            self._offer(one.file, repo, ask)
        elif public is None and ask is not None and (settings.seed or settings.peers):
            question = ask
            self._questions.submit(lambda: self._find_out(one.file, repo, question))

    def _find_out(self, file: IndexedFile, repo: RepoRef, ask: Callable[[], bool]) -> None:
        if not self._is_closing() and ask():
            self._add([replace(file, public=True)], visibility_known=True)
            self._offer(file, repo, ask)

    def _add(self, files: Sequence[IndexedFile], *, visibility_known: bool) -> None:
        index = self._index.get()
        if index is not None and files:
            try:
                index.add_all(files, visibility_known=visibility_known)
            except StorageError as error:
                self._index.failed(error)

    # --- offering ---------------------------------------------------------------------------------------

    def _offer(self, file: IndexedFile, repo: RepoRef, ask: Callable[[], bool] | None) -> None:
        swarm = self._swarm() if self._settings.seed else None
        if swarm is None:
            return
        item = file.path, file.file_hash
        is_untimed = False
        if not self._keyed:
            # Noted before it is offered: whoever withdraws the repository meanwhile must find it.
            is_untimed = self._shared.add(repo, item, ask)
        try:
            swarm.share(file)
        except SwarmError as error:
            log.info("%s is not offered: %s", file.path, error)
            return
        if self._keyed:
            return
        if not self._shared.holds(repo, item):
            swarm.unshare(os.fspath(file.path), file.file_hash)
        elif is_untimed:
            self._shared.postpone(repo, self._next_question_s(repo))
            self._questions.submit(lambda: None)  # it may be sleeping for longer

    def _next_question_s(self, repo: RepoRef) -> float:
        """When the answer that was heard just now is too old."""
        age_s = 0.0
        index = self._index.get()
        if index is not None:
            try:
                known = index.visibility(repo.endpoint, repo.repo_type, repo.repo_id)
            except StorageError as error:
                self._index.failed(error)
            else:
                # It may have been another process that heard it.
                age_s = known.age_s if known is not None and known.age_s <= VISIBILITY_AGE_S else 0.0
        return time.monotonic() + max(VISIBILITY_LOOK_S, VISIBILITY_AGE_S - age_s)

    def _ask_again(self) -> float | None:
        for repo, ask in self._shared.due():
            self._shared.postpone(repo, time.monotonic() + VISIBILITY_LOOK_S)
            if self._is_closing():
                return None
            if ask():
                self._shared.postpone(repo, self._next_question_s(repo))
        return self._shared.pause_s()

    def _withdraw(self, repo: RepoRef) -> None:
        if not self._keyed:
            self._withdraw_running(repo)
            with self._lock:
                offered = [offer for offer, its in self._offered.items() if its == repo]
            for offer in offered:
                offer.end()
        swarm = self._swarm_if_any()
        for path, file_hash in self._shared.withdraw(repo):
            if swarm is not None:
                with contextlib.suppress(SwarmError):  # closed meanwhile
                    swarm.unshare(os.fspath(path), file_hash)

    # --- who may see it ---------------------------------------------------------------------------------

    def remembered_visibility(self, repo: RepoRef) -> bool | None:
        """Whether the Hub showed this repository to an anonymous request, if that was asked not long ago."""
        index = self._index.get()
        if index is None:
            return None
        try:
            public = index.is_public(repo.endpoint, repo.repo_type, repo.repo_id, max_age_s=VISIBILITY_AGE_S)
        except StorageError as error:
            self._index.failed(error)
            return None
        if public is False:
            self._withdraw(repo)  # another process has heard it
        return public

    def remember_visibility(self, repo: RepoRef, public: bool) -> None:
        """Keeps the answer for other processes. What is offered of a repository that is not public is withdrawn."""
        if not public:
            self._withdraw(repo)
        index = self._index.get()
        if index is None:
            return
        try:
            index.set_public(repo.endpoint, repo.repo_type, repo.repo_id, public)
        except StorageError as error:
            self._index.failed(error)
