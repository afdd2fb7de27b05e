"""The file as the swarm sees it while it is being written: where peers' chunks go, and what of it others may have.

With the file's manifest that is one native file. Before there is one, each run of chunks that xorbs make known is
one: the runs of what is asked for, and those of what was proved. To offer every xorb by itself would take as many
descriptors as there are xorbs, so that neighbours are joined now and then.
"""

from __future__ import annotations

import contextlib
import logging
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from zest_hf._native.writable_file import WritableFile
from zest_hf.core.ids import XetHash
from zest_hf.core.knowledge import Knowledge
from zest_hf.core.plan import FilePlan
from zest_hf.core.ranges import Ranges, normalized, within
from zest_hf.core.reconstruction import Term
from zest_hf.errors import SwarmError

log = logging.getLogger("zest_hf.sources.target")

MAX_RUNS = 32
"""... of which there are left when there were twice as many; what lies scattered beyond that is not offered."""


class Sharer(Protocol):
    """Offers files in the making: the swarm."""

    def share_transfer(self, file: WritableFile, file_hash: XetHash | None, terms: tuple[Term, ...]) -> None: ...

    def unshare_transfer(self, file: WritableFile) -> None: ...


@dataclass(slots=True, eq=False)
class Run:
    """File chunks first..end behind one native file. ``users``: pieces that are on their way to it."""

    first: int
    end: int
    file: WritableFile
    users: int = 0
    retired: bool = False


class Target:
    """See the module. ``fd`` is borrowed until the last call but for `end`. ``sharer`` None: nothing is offered."""

    def __init__(
        self, fd: int, file_hash: XetHash, plan: FilePlan, knowledge: Knowledge, sharer: Sharer | None
    ) -> None:
        self._fd = fd
        self._file_hash = file_hash
        self._plan = plan
        self._knowledge = knowledge
        self._sharer = sharer
        self._term_firsts = list(accumulate((term.end - term.start for term in plan.terms), initial=0))
        self._whole: Run | None = None
        self._runs: list[Run] = []
        """Apart from each other."""
        self._retired: list[Run] = []
        """Others have taken their place, but pieces are still on their way to them."""
        self._proved: Ranges = ()

    def begin(self, first: int) -> Run:
        """Where a piece that begins with a chunk is written. `done` follows. Raises StorageError."""
        run = self._run_at(first)
        run.users += 1
        return run

    def done(self, run: Run) -> None:
        """One of its pieces has ended."""
        run.users -= 1
        if run.retired and not run.users:
            self._retired.remove(run)
            run.file.close()

    def proved(self, ranges: Ranges) -> None:
        """These chunks are written and proved, by whomever: others may have them."""
        if self._sharer is None:
            return
        if self._knowledge.file is not None:
            fresh = self._whole is None
            whole = self._run_at(0)
            self._proved = normalized([*self._proved, *ranges], self._plan.chunk_count)
            _wrote(whole, self._proved if fresh else ranges)
            return
        if not ranges:
            return
        self._proved = normalized([*self._proved, *ranges], self._plan.chunk_count)
        for first, end in ranges:
            while first < end:
                run = self._run_at(first)
                part_end = min(end, run.end)
                _wrote(run, ((first, part_end),))
                first = part_end
        if len(self._runs) > 2 * MAX_RUNS:
            self._join()

    def seal(self) -> None:
        """With the file complete: nothing is written any more, but it is offered until `end`."""
        for run in (*self._runs, *self._retired):
            run.file.close()
        self._runs.clear()
        self._retired.clear()
        if self._whole is not None:
            self._whole.file.seal()

    def withdraw(self) -> None:
        """Nothing is offered any more; it is written on."""
        sharer, self._sharer = self._sharer, None
        if sharer is not None:
            for run in (*self._runs, *self._retired, *([self._whole] if self._whole is not None else [])):
                with contextlib.suppress(SwarmError):
                    sharer.unshare_transfer(run.file)

    def end(self) -> None:
        """Nothing is written any more, nor offered. Any number of times, from any thread."""
        for run in (*self._runs, *self._retired, *([self._whole] if self._whole is not None else [])):
            if self._sharer is not None:
                with contextlib.suppress(SwarmError):  # the session may be closed
                    self._sharer.unshare_transfer(run.file)
            run.file.close()

    def _run_at(self, chunk: int) -> Run:
        if self._knowledge.file is not None:
            if self._whole is None:
                self._whole = self._open(0, self._plan.chunk_count)
                for run in self._runs:
                    self._retire(run)
                self._runs.clear()
            return self._whole
        for run in self._runs:
            if run.first <= chunk < run.end:
                return run
        number = bisect_right(self._term_firsts, chunk) - 1
        run = self._open(self._term_firsts[number], self._term_firsts[number + 1])
        self._runs.append(run)
        return run

    def _open(self, first: int, end: int) -> Run:
        """Chunks that begin and end with terms."""
        file = WritableFile(self._fd, self._knowledge.part(first, end), self._knowledge.offset(first))
        run = Run(first, end, file)
        if self._sharer is not None:
            at, stop = (bisect_right(self._term_firsts, chunk) - 1 for chunk in (first, end))
            file_hash = None if self._knowledge.file is None else self._file_hash
            try:
                self._sharer.share_transfer(file, file_hash, self._plan.terms[at:stop])
            except SwarmError as error:
                log.info("a file is not offered while it is downloaded: %s", error)
        return run

    def _join(self) -> None:
        """One run for each of the longest stretches of chunks that are known."""
        old, self._runs = self._runs, []
        longest = sorted(self._knowledge.known, key=lambda part: part[0] - part[1])
        for first, end in longest[:MAX_RUNS]:
            run = self._open(first, end)
            _wrote(run, tuple(within(self._proved, first, end)))
            self._runs.append(run)
        for run in old:
            self._retire(run)

    def _retire(self, run: Run) -> None:
        if self._sharer is not None:
            with contextlib.suppress(SwarmError):
                self._sharer.unshare_transfer(run.file)
        run.retired = True
        if run.users:
            self._retired.append(run)
        else:
            run.file.close()


def _wrote(run: Run, ranges: Ranges) -> None:
    for first, end in ranges:
        run.file.wrote(first - run.first, end - first)
