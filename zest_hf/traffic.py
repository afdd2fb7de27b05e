"""What the programs of a ZEST_HOME have moved, day by day: file bytes by where they came from, and what peers got.

In a file of its own, `traffic.sqlite`: the index can be made anew from the disk when it is damaged, these figures not.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final

from zest_hf.database import Database, on_network_filesystem
from zest_hf.errors import StorageError

log = logging.getLogger("zest_hf.traffic")

FILE_NAME: Final = "traffic.sqlite"
SCHEMA_VERSION: Final = 1
_SCHEMA: Final = (
    """CREATE TABLE days (
        day TEXT PRIMARY KEY, local INTEGER NOT NULL, peer INTEGER NOT NULL, cdn INTEGER NOT NULL,
        uploaded INTEGER NOT NULL) WITHOUT ROWID""",
)
_SUM: Final = "SELECT TOTAL(local), TOTAL(peer), TOTAL(cdn), TOTAL(uploaded) FROM days"

NOTE_S: Final = 2.0
"""How often what is moving is noted."""
NOTE_ON_NETWORK_S: Final = 60.0
"""... where many hosts may write to the same file."""
REST_S: Final = 60.0
"""How long the file is left alone after it has failed."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes: from this machine, from peers, from the CDN, and what peers got."""

    local: int = 0
    peer: int = 0
    cdn: int = 0
    uploaded: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def since(self, before: Traffic) -> Traffic:
        """What has come since; never less than nothing, as a range that is fetched again is taken back first."""
        return Traffic(*(max(0, a - b) for a, b in zip(astuple(self), astuple(before), strict=True)))

    @property
    def ratio(self) -> float | None:
        """Uploaded bytes per byte that came over the network; None when none did."""
        taken = self.peer + self.cdn
        return self.uploaded / taken if taken else None

    def report(self) -> dict[str, Any]:
        """As the status shows it."""
        ratio = self.ratio
        return {
            "local": self.local,
            "peer": self.peer,
            "cdn": self.cdn,
            "uploaded": self.uploaded,
            "ratio": None if ratio is None else round(ratio, 3),
        }


class TrafficLog:
    """The file in ``home``, made when it is first needed. For any threads and processes.

    Every method raises StorageError when the disk or the file fails, or others keep it locked for ``patience_s``.
    """

    def __init__(self, home: Path, *, wall_clock: Callable[[], float] = time.time, patience_s: float = 10.0) -> None:
        self.path = home / FILE_NAME
        self._database = Database(self.path, _SCHEMA, SCHEMA_VERSION, patience_s=patience_s)
        self._wall_clock = wall_clock

    def add(self, traffic: Traffic) -> None:
        """To today's."""
        row = (self._today(), *astuple(traffic))

        def work(db: sqlite3.Connection) -> None:
            db.execute(
                """INSERT INTO days VALUES (?, ?, ?, ?, ?) ON CONFLICT (day) DO UPDATE SET
                local = local + excluded.local, peer = peer + excluded.peer, cdn = cdn + excluded.cdn,
                uploaded = uploaded + excluded.uploaded""",
                row,
            )

        self._database.write(work)

    def totals(self) -> tuple[Traffic, Traffic]:
        """Of today by the local calendar, and of all time."""
        today = self._today()

        def work(db: sqlite3.Connection) -> tuple[Traffic, Traffic]:
            of_today = db.execute(f"{_SUM} WHERE day = ?", (today,)).fetchone()
            of_all = db.execute(_SUM).fetchone()
            return Traffic(*map(int, of_today)), Traffic(*map(int, of_all))

        return self._database.read(work)

    def close(self) -> None:
        self._database.close()

    def _today(self) -> str:
        return time.strftime("%Y-%m-%d", time.localtime(self._wall_clock()))


class Meter:
    """Notes what this process moves. It is never waited for: what cannot be noted now is noted later."""

    def __init__(self, log_: TrafficLog, moved: Callable[[], Traffic]) -> None:
        """``moved``: what this process has moved since its start."""
        self._log = log_
        self._moved = moved
        self._noted = Traffic()
        self._lock = threading.Lock()
        self._rests_until_s = self._noted_at_s = 0.0
        self._pause_s = NOTE_ON_NETWORK_S if on_network_filesystem(log_.path.parent) else NOTE_S

    def note_if_due(self) -> float:
        """In how many seconds it is due again."""
        wait_s = self._noted_at_s + self._pause_s - time.monotonic()
        if wait_s > 0:
            return wait_s
        self._noted_at_s = time.monotonic()
        self.note()
        return self._pause_s

    def note(self, *, last: bool = False) -> bool:
        """Whether all is noted. ``last``: there will be no later."""
        with self._lock:
            moved = self._moved()
            new = moved.since(self._noted)
            if new == Traffic():
                return True
            if time.monotonic() < self._rests_until_s and not last:
                return False
            try:
                self._log.add(new)
            except StorageError as error:
                self._rests_until_s = time.monotonic() + REST_S
                log.info("how much was moved is noted later: %s", error)
                return False
            self._noted = self._noted + new
            return True

    def pending(self) -> Traffic:
        """What is not noted yet."""
        with self._lock:
            return self._moved().since(self._noted)
