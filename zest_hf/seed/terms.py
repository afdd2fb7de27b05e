"""Of which xorbs the files of the index are made that a scan has found: the CAS is asked, once a file.

Then their xorbs are offered as well, for which those ask who download another file that shares them; and downloads
here take from them what they share. Nobody waits for it: a file is offered by its manifest until then, or for good
where there is no answer.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path

from zest_hf.cas import CasClient, TokenProvider
from zest_hf.config import Settings
from zest_hf.core.fitting import check_fits
from zest_hf.core.ids import XetHash
from zest_hf.core.reconstruction import Reconstruction
from zest_hf.core.retry import RetryPolicy
from zest_hf.errors import CasError, CasUnavailable, ProtocolError
from zest_hf.hook import reading
from zest_hf.hook.cache import CachedFile, cached_files, endpoint, folder_of
from zest_hf.index import Index, Unknown
from zest_hf.seed.scan import NOBODY

log = logging.getLogger("zest_hf.seed.terms")

PAUSE_S = 0.1
"""Between two files: ten requests a second at most, one after the other."""
NO_S = 7 * 24 * 3600.0
"""How long a "no" is good. It is not when another token is there to ask with."""
FIRST_REST_S = 60.0
LAST_REST_S = 3600.0
"""When the Hub or the CAS cannot be reached nothing is asked for 1, 2, 4... 60 minutes, or for as long as they say."""
LOOK_AGAIN_S = 3600.0
"""How often it is looked for a "no" that is too old, while nothing else is new."""
_RETRY = RetryPolicy(first_delay_s=FIRST_REST_S, max_delay_s=FIRST_REST_S, deadline_s=10.0)
"""Not within the 10 s that an answer may take: then it rests."""

Repo = tuple[str, str, str]
"""Endpoint, type and name."""


class TermsQuest:
    """Used by one thread. Ends early once ``stop`` is set."""

    def __init__(
        self,
        index: Index,
        settings: Settings,
        cache: Path,
        stop: threading.Event,
        *,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        pause_s: float = PAUSE_S,
    ) -> None:
        """``cache``: where the Hub's client keeps files, by which it is known what a private repository calls one."""
        self._index = index
        self._settings = settings
        self._cache = cache
        self._stop = stop
        self._wall_clock = wall_clock
        self._clock = clock
        self._pause_s = pause_s
        self._looked: tuple[int, bytes] | None = None
        """What the index was like, and whose token was there, when all that could be asked had been asked,"""
        self._looked_s = 0.0
        """... and when."""
        self._due_s = self._rest_s = 0.0

    def is_due(self) -> bool:
        """Whether there may be something to ask. Costs a look at the index. Raises StorageError."""
        if self._settings.hub_offline or self._clock() < self._due_s:
            return False
        is_old = self._clock() - self._looked_s >= LOOK_AGAIN_S
        return is_old or self._looked != (self._index.generation(), reading.who())

    def run(self) -> int:
        """Asks about every file that nobody has asked about; how many were answered. Raises StorageError."""
        user = reading.who()
        generation = self._index.generation()
        found = 0
        try:
            for repo, files in self._to_ask(user):
                found += self._ask_about(repo, files, user)
        except CasUnavailable as error:
            self._rest_s = min(LAST_REST_S, max(FIRST_REST_S, 2 * self._rest_s))
            self._due_s = self._clock() + max(self._rest_s, error.retry_after_s or 0.0)
            log.info("which xorbs files are made of is asked again in %.0f s: %s", self._due_s - self._clock(), error)
        else:
            if not self._stop.is_set():
                self._rest_s, self._looked, self._looked_s = 0.0, (generation, user), self._clock()
        if found:
            log.info("of %d files of the index the xorbs are known now", found)
        return found

    def _to_ask(self, user: bytes) -> Iterator[tuple[Repo, list[Unknown]]]:
        """File by file once, for a repository that everyone sees if there is one."""
        best: dict[XetHash, Unknown] = {}
        for one in self._index.without_terms():
            if one.file_hash not in best or (one.public and not best[one.file_hash].public):
                best[one.file_hash] = one
        now_s = self._wall_clock()
        due = [one for one in best.values() if self._may_ask(one, user, now_s)]
        for repo, files in groupby(sorted(due, key=lambda one: one.repo), key=lambda one: one.repo):
            yield repo, list(files)

    def _may_ask(self, one: Unknown, user: bytes, now_s: float) -> bool:
        asker = reading.ANYBODY if one.public else user
        if not one.public and (asker == reading.ANYBODY or one.repo[0] not in (NOBODY, endpoint())):
            return False  # nobody is there who might be told
        # A time that is too far away is of a clock that was wrong.
        return one.asker != asker or not now_s < one.until_s <= now_s + NO_S

    def _ask_about(self, repo: Repo, files: list[Unknown], user: bytes) -> int:
        """Those of one repository. Raises CasUnavailable: then nothing else need be asked now."""
        found = 0
        if shown := [one for one in files if one.public]:
            with closing(self._client(reading.as_anybody(*repo))) as cas:
                found += sum(self._ask(one, reading.ANYBODY, cas.reconstruction) for one in shown)
        if hidden := [one for one in files if not one.public]:
            cached = {file.path: file for file in cached_files(self._cache, {folder_of(*repo[1:])})}
            for one in hidden:
                found += self._ask(one, user, functools.partial(self._as_user, cached.get(one.path)))
        return found

    def _ask(self, one: Unknown, asker: bytes, ask: Callable[[XetHash], Reconstruction]) -> bool:
        file = next(iter(self._index.get(one.file_hash)), None)
        if file is None or file.terms or self._stop.wait(self._pause_s):
            return False
        try:
            answer = ask(one.file_hash)
            check_fits(answer, file.manifest)
        except CasUnavailable:
            raise
        except (CasError, ProtocolError) as error:
            log.info("of which xorbs %s is made is not known: %s", one.path, error)
            self._index.set_unanswered(one.file_hash, asker, self._wall_clock() + NO_S)
            return False
        self._index.set_terms(one.file_hash, answer.terms)
        return True

    def _as_user(self, file: CachedFile | None, file_hash: XetHash) -> Reconstruction:
        """Raises CasError, and ProtocolError when the Hub does not say that this user has such a file there."""
        place = None
        if file is not None and file.revision_path is not None:
            place = reading.Place(endpoint(), file.repo_type, file.repo_id, file.revision_path)
        tokens = None if place is None else reading.as_user(place, file_hash)
        if tokens is None:
            raise ProtocolError("the Hub names no such file")
        with closing(self._client(tokens)) as cas:
            return cas.reconstruction(file_hash)

    def _client(self, tokens: TokenProvider) -> CasClient:
        return CasClient(
            tokens,
            user_agent=reading.USER_AGENT,
            deadline_s=_RETRY.deadline_s,
            retry=_RETRY,
            ca_bundle=self._settings.ca_bundle,
            pool_size=1,
        )
