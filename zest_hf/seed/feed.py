"""What changes, to all who look at the page: one picture a second for all of them, taken only while somebody looks.

Nothing is kept for who is slow: each gets the latest of what differs from what was sent before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.concurrency import run_in_threadpool

from zest_hf.errors import ZestError
from zest_hf.seed.event_stream import HEARTBEAT, event
from zest_hf.seed.large_answer import Packed
from zest_hf.seed.status import Status

log = logging.getLogger("zest_hf.seed")

PICTURE_S: Final = 1.0
MAX_FOLLOWERS: Final = 16
MAX_MODELS: Final = 2000
MAX_PEERS: Final = 200
MAX_BANNED: Final = 200
"""The page shows these; the API has all."""


class Feed:
    """To be used on one event loop."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._parts: dict[str, tuple[int, Packed]] = {}
        """By name: the number of the picture in which it changed last, and its event."""
        self._number = 0
        self._changed = asyncio.Event()
        """Set with the next picture, and replaced."""
        self._followers = 0
        self._camera: asyncio.Task[None] | None = None
        self._closed = self._failed = False

    @property
    def is_full(self) -> bool:
        return self._closed or self._followers >= MAX_FOLLOWERS

    async def follow(self) -> AsyncIterator[bytes]:
        """Events: ``status``, ``models``, ``peers`` and ``history``, each at the start and when it has changed."""
        self._followers += 1
        if self._camera is None:
            self._camera = asyncio.create_task(self._take_pictures())
        seen = 0
        try:
            yield b"retry: 1000\n\n"
            while not self._closed:
                changed = self._changed
                news = [packed for number, packed in self._parts.values() if number > seen]
                seen = self._number
                for packed in news:
                    for part in packed.parts():
                        yield part
                if not self._parts:
                    yield HEARTBEAT
                if self._changed is changed:  # there may have been a picture while that was sent
                    await changed.wait()
        finally:
            self._followers -= 1
            if not self._followers and self._camera is not None:
                self._camera.cancel()
                self._camera = None
                # Whoever comes next is not shown an old one.
                self._parts.clear()

    def close(self) -> None:
        """Ends what everybody follows."""
        self._closed = True
        self._tell()

    async def _take_pictures(self) -> None:
        while True:
            try:
                parts = await run_in_threadpool(self._picture)
            except ZestError as error:
                log.debug("nothing to show: %s", error)
            except Exception:  # a page that stands still is better than none
                if not self._failed:
                    log.exception("the page cannot be shown")
                self._failed = True
            else:
                self._failed = False
                self._number += 1
                for name, packed in parts.items():
                    if name not in self._parts or self._parts[name][1] != packed:
                        self._parts[name] = self._number, packed
            self._tell()
            await asyncio.sleep(PICTURE_S)

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _picture(self) -> dict[str, Packed]:
        report = self._status.report()
        models, peers, banned = report.pop("models"), report.pop("peers"), report.pop("banned")
        # The most active ones are shown if there are too many.
        models.sort(key=lambda model: (-model["uploaded"], str(model["repo"])))
        peers.sort(key=lambda peer: (-peer["up_bytes_s"] - peer["down_bytes_s"], -peer["bytes_up"]))
        parts: dict[str, Any] = {
            "status": report,
            "models": {"total": len(models), "models": models[:MAX_MODELS]},
            "peers": {
                "total": len(peers),
                "peers": peers[:MAX_PEERS],
                "banned_total": len(banned),
                "banned": banned[-MAX_BANNED:],
            },
            "history": self._status.history(),
        }
        return {name: Packed(event(name, part)) for name, part in parts.items()}
