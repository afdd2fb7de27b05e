"""Finds what is in the cache and not in the index yet: chunks it, hashes it, and keeps what can be proved."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Protocol

from zest_hf._native.codec import RULE_CURRENT, RULE_EARLY
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.errors import StorageError, ZestError
from zest_hf.finished import VISIBILITY_AGE_S
from zest_hf.hook.cache import CachedFile, cached_files, directories, endpoint, folder_of
from zest_hf.hook.local_dirs import local_files, noted
from zest_hf.index import Index, IndexedFile
from zest_hf.scan import Stopped, scan_file
from zest_hf.seed.half_hashed import HalfHashed

log = logging.getLogger("zest_hf.seed.scan")

Shown = Callable[[str, CachedFile, XetHash], "bool | None"]
"""Takes the endpoint and a file: whether that Hub shows this very file to everyone; None when nobody can say now."""

NOBODY = ""
"""The endpoint of a file of which our Hub knows nothing: it came from another, or is private. What is learned later
about the repository of that name must not make it public."""

NOTED_S = 2.0
"""Who downloads with zest_hf has noted a file in the index this long after it got its name: it need not be hashed."""
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 60.0
"""Without an answer a file is asked about again after 1, 2, 4... 60 s: often only its link is not there yet."""


@dataclass(frozen=True, slots=True)
class _Question:
    """Whether the Hub shows a file: when to ask, by the monotonic clock, and the pause before that."""

    due_s: float = 0.0
    pause_s: float = 0.0

    def next(self, *, answered: bool) -> _Question:
        if answered:
            return _Question(time.monotonic() + VISIBILITY_AGE_S)
        pause_s = min(LAST_PAUSE_S, max(FIRST_PAUSE_S, 2 * self.pause_s))
        return _Question(time.monotonic() + pause_s, pause_s)


class Progress(Protocol):
    """Is told how a scan gets on."""

    def begin(self, size_bytes: int) -> None:
        """So much is to be hashed."""

    def file(self, name: str) -> None: ...

    def came(self, size_bytes: int) -> None:
        """So much more is done."""

    def end(self) -> None: ...


RECENT_NS = 3600 * 10**9
"""Who has not written for an hour is done."""
BATCH_FILES = 512
BATCH_S = 1.0
"""New files are put into the index together: so many, or those of this time."""


class CacheScan:
    """The cache at ``directory``, looked at as often as it changes; used by one thread.

    Files whose content does not chunk to the hash that the Hub gave are left out: nobody could ask for them.
    """

    def __init__(
        self,
        directory: Path,
        index: Index,
        stop: threading.Event,
        shown: Shown,
        progress: Progress | None = None,
        home: Path | None = None,
    ) -> None:
        """``home``: where it is noted which directories outside of the cache have files as well, and how far a large
        one was hashed.
        """
        self._home = home
        self._half_hashed = None if home is None else HalfHashed(home)
        self._directory = directory
        self._index = index
        self._stop = stop
        self._shown = shown
        self._progress = progress
        self._batch: list[IndexedFile] = []
        self._batch_due_s = 0.0
        self._seen: dict[Path, int] | None = None
        self._useless: set[tuple[Path, int]] = set()
        self._unsettled: dict[Path, int] = {}
        """Those of them that somebody may still be writing, by when they were changed last."""
        self.is_too_early = False
        """Files were left out that came so short a time ago that whoever downloads them may just be noting them."""
        self._waiting: dict[tuple[Path, str, str], _Question] = {}
        """What is to be asked again about files that are nobody's."""

    def is_due(self) -> bool:
        """Whether names have come or gone since the last scan, or a file is to be asked about again.

        Costs one look at each repository's directory, and at files that somebody may still be writing.
        """
        if any(question.due_s <= time.monotonic() for question in self._waiting.values()):
            return True
        return directories(self._directory) != self._seen or any(
            _mtime_ns(path) != mtime_ns for path, mtime_ns in self._unsettled.items()
        )

    def run(self) -> int:
        """Puts new files into the index and returns how many there were. Raises StorageError when the index fails.

        When it is stopped, or ends otherwise, the next one goes on behind the last file that was hashed.
        """
        # Before the files: what comes meanwhile changes a directory once more, and is found by the next scan.
        seen = directories(self._directory)
        # Not by endpoint: who has downloaded it knew from where, while we only know where we would ask now.
        known: dict[tuple[Path, int], tuple[XetHash, dict[tuple[str, str], str]]] = {}
        for copy in self._index.copies():
            repos = known.setdefault((copy.path, copy.mtime_ns), (copy.file_hash, {}))[1]
            repos[copy.repo[1:]] = copy.repo[0] or repos.get(copy.repo[1:], NOBODY)
        only = self._changed(seen)
        recent_ns = time.time_ns() - RECENT_NS
        self._unsettled = {
            path: at_ns for path, at_ns in self._unsettled.items() if _mtime_ns(path) == at_ns > recent_ns
        }
        local = noted(self._home) if self._home is not None else ()
        files: Iterable[CachedFile] = chain(cached_files(self._directory, only), local_files(local, only))
        if self._progress is not None:
            files = list(files)
            new = {file.path: file.size_bytes for file in files if self._is_new(file, known)}
            self._progress.begin(sum(new.values()))
        added = 0
        self.is_too_early = False
        try:
            waiting = {
                place: question
                for place, question in self._waiting.items()
                if only is not None and folder_of(*place[1:]) not in only
            }
            for found in self._found(files, known, waiting):
                self._batch.append(found)
                added += 1
                if len(self._batch) >= BATCH_FILES or time.monotonic() >= self._batch_due_s:
                    self._flush()
            self._seen, self._waiting = None if self.is_too_early else seen, waiting
        except Stopped:
            pass
        finally:
            self._flush()
            if self._progress is not None:
                self._progress.end()
        return added

    def _changed(self, seen: Mapping[Path, int]) -> set[str] | None:
        """The directories of the repositories that are to be looked at; None: all."""
        before = self._seen
        if before is None or any(_mtime_ns(path) != at_ns for path, at_ns in self._unsettled.items()):
            return None
        changed = {path.parent.name for path, at_ns in seen.items() if before.get(path) != at_ns}
        due_s = time.monotonic()
        return changed | {folder_of(*place[1:]) for place, one in self._waiting.items() if one.due_s <= due_s}

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        self._batch_due_s = time.monotonic() + BATCH_S
        if batch:
            self._index.add_all(batch)

    def _is_new(self, file: CachedFile, known: Mapping[tuple[Path, int], object]) -> bool:
        key = file.path, file.mtime_ns
        return key not in known and key not in self._useless and not _came_just_now(file.path)

    def _found(
        self,
        files: Iterable[CachedFile],
        known: dict[tuple[Path, int], tuple[XetHash, dict[tuple[str, str], str]]],
        waiting: dict[tuple[Path, str, str], _Question],
    ) -> Iterator[IndexedFile]:
        """What is to be noted in the index. Raises Stopped."""
        hub = endpoint()
        for file in files:
            if self._stop.is_set():
                raise Stopped
            key, repo = (file.path, file.mtime_ns), (file.repo_type, file.repo_id)
            place = (file.path, *repo)
            if key in self._useless or (key in known and known[key][1].get(repo, NOBODY) != NOBODY):
                continue
            question = self._waiting.get(place, _Question())
            if question.due_s > time.monotonic():
                waiting[place] = question
                continue
            if key not in known and _came_just_now(file.path):
                self.is_too_early = True
                continue
            try:
                # One file may belong to several repositories: it is hashed for the first of them.
                found = self._new(file) if key not in known else None
            except (OSError, ZestError) as error:
                log.info("%s cannot be read: %s", file.path, error)
                self._unsettled[file.path] = file.mtime_ns
                continue
            if found is None and key not in known:
                self._useless.add(key)
                self._unsettled[file.path] = file.mtime_ns
                continue
            file_hash, repos = known.setdefault(key, (found.file_hash, {})) if found is not None else known[key]
            shown = self._shown(hub, file, file_hash)
            if not shown:
                waiting[place] = question.next(answered=shown is not None)
            if shown or repo not in repos:
                found = found or self._of_another(file_hash, file)
                if found is None:
                    continue  # it was forgotten meanwhile
                yield replace(found, endpoint=hub if shown else NOBODY, public=bool(shown))
            repos[repo] = hub if shown else NOBODY

    def _new(self, file: CachedFile) -> IndexedFile | None:
        log.info("hashing %s (%.1f MB) of %s", file.path, file.size_bytes / 1e6, file.repo_id)
        if self._progress is not None:
            self._progress.file(f"{file.repo_id}/{file.revision_path[1] if file.revision_path else file.path.name}")
        manifest = self._prove(file)
        if manifest is None:
            log.info("%s does not chunk to the hash that the Hub gave it; it is not offered", file.path)
            return None
        return IndexedFile(
            file_hash=manifest.file_hash(),
            path=file.path,
            size_bytes=file.size_bytes,
            mtime_ns=file.mtime_ns,
            repo_id=file.repo_id,
            repo_type=file.repo_type,
            endpoint=NOBODY,
            public=False,
            manifest=manifest,
            terms=(),
        )

    def _prove(self, file: CachedFile) -> Manifest | None:
        """The file's manifest; None when no rule of chunking gives what the Hub calls it."""
        for rule in (RULE_CURRENT, RULE_EARLY):
            for attempt in range(2):
                manifest, went_on = self._hashed(file, rule, is_first=rule == RULE_CURRENT and attempt == 0)
                now = file.path.stat()
                if (now.st_mtime_ns, now.st_size) != (file.mtime_ns, file.size_bytes):
                    raise StorageError("it has changed meanwhile")
                if manifest.size_bytes == file.size_bytes and file.claimed in (None, manifest.file_hash()):
                    return manifest
                if not went_on:
                    break
        return None

    def _hashed(self, file: CachedFile, rule: int, *, is_first: bool) -> tuple[Manifest, bool]:
        """The manifest, and whether what an earlier scan had found was believed: that is forgotten now.

        ``is_first``: it is shown how it gets on. Another look at the same file brings nothing new.
        """
        half = self._half_hashed
        known = None if half is None else half.begin(file.path, rule)

        def came(chunks: Manifest) -> None:
            if half is not None:
                half.add(chunks)
            tell(chunks)

        def tell(chunks: Manifest) -> None:
            if self._progress is not None and is_first:
                self._progress.came(chunks.size_bytes)

        is_stopped = False
        try:
            if known is not None:
                tell(known)
            return scan_file(file.path, rule, self._stop.is_set, came, known), known is not None
        except Stopped:
            is_stopped = True
            raise
        finally:
            if half is not None:
                half.end(is_stopped=is_stopped)

    def _of_another(self, file_hash: XetHash, file: CachedFile) -> IndexedFile | None:
        self._flush()
        for entry in self._index.get(file_hash):
            if (entry.path, entry.mtime_ns, entry.size_bytes) == (file.path, file.mtime_ns, file.size_bytes):
                return replace(entry, repo_id=file.repo_id, repo_type=file.repo_type)
        return None


def _came_just_now(path: Path) -> bool:
    """By when it got its name. A clock that was put back makes nothing young for long."""
    try:
        return 0 <= time.time() - path.stat().st_ctime < NOTED_S
    except OSError:
        return False


def _mtime_ns(path: Path) -> int:
    """0: it is gone."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
