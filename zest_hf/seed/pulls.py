"""Downloads that were asked for on the page: each in a process of its own, one at a time for a repository.

A pull goes on when who asked for it leaves; who asks for the same again follows the one that is under way. It ends
when it is stopped, or the seeder ends; what has come by then is gone on from next time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from zest_hf.seed.event_stream import HEARTBEAT, event
from zest_hf.seed.pull_request import PullRequest, Refused

log = logging.getLogger("zest_hf.seed")

MAX_RUNNING: Final = 4
KEPT: Final = 20
"""How many that have ended are still shown."""
END_S: Final = 0.8
"""How long one may take to end by itself."""
HEARTBEAT_S: Final = 10.0
MAX_LINE_BYTES: Final = 64 * 1024


class Pull:
    """One of them. ``state``: running, done, failed or stopped."""

    def __init__(self, request: PullRequest) -> None:
        self.request = request
        self.state = "running"
        self._progress: dict[str, Any] = {"bytes": {"local": 0, "peer": 0, "cdn": 0}, "running": []}
        self._began_s = time.monotonic()
        self._ended_s: float | None = None
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()

    @property
    def is_over(self) -> bool:
        return self.state != "running"

    def report(self) -> dict[str, Any]:
        """As the status shows it. From any thread."""
        ended_s = self._ended_s or time.monotonic()
        return {
            "repo": self.request.repo,
            "repo_type": self.request.repo_type,
            "revision": self.request.revision,
            "state": self.state,
            "seconds": round(ended_s - self._began_s, 1),
            **self._progress,
        }

    async def follow(self) -> AsyncIterator[bytes]:
        """``progress`` as it goes, and at the end ``done`` (with ``path``) or ``failed`` (with ``error``)."""
        while not self.is_over:
            changed = self._changed  # before it is sent, as more may come meanwhile
            yield event("progress", self.report())
            while not changed.is_set() and not self.is_over:
                try:
                    await asyncio.wait_for(changed.wait(), HEARTBEAT_S)
                except asyncio.TimeoutError:
                    yield HEARTBEAT
        yield event("done" if self.state == "done" else "failed", self.report())

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """From its beginning to its end; raises nothing but CancelledError."""
        try:
            await self._run()
        except (OSError, ValueError) as error:
            log.warning("the pull of %s has failed: %s", self.request.repo, error)
            self._end("failed", f"the pull has failed: {error}")
        if not self.is_over:
            stopped = self._stopping.is_set()
            self._end("stopped" if stopped else "failed", "stopped" if stopped else "the pull has ended too soon")

    async def _run(self) -> None:
        # The seeder is the one that stays; progress is shown by the page.
        environ = {**os.environ, "ZEST_DAEMON": "off", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "zest_hf.seed.pull_child"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environ,
            limit=MAX_LINE_BYTES,
            start_new_session=True,  # Ctrl-C is for the seeder, which ends it
        )
        assert process.stdin is not None and process.stdout is not None
        reading = asyncio.create_task(self._read(process.stdout))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            with contextlib.suppress(ConnectionError):
                process.stdin.write(self.request.to_json() + b"\n")
                await process.stdin.drain()
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        finally:
            stopping.cancel()
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), END_S)
            except asyncio.TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            reading.cancel()

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            said = json.loads(line)
            error, path = said.pop("error", None), said.pop("path", None)
            self._progress = said
            if path is not None:
                self._end("done", path=path)
            elif error is not None:
                self._end("failed", error)
            else:
                self._tell()

    def _end(self, state: str, error: str | None = None, *, path: str | None = None) -> None:
        self.state, self._ended_s = state, time.monotonic()
        self._progress = {**self._progress, "running": []}
        if error is not None:
            self._progress["error"] = error
        if path is not None:
            self._progress["path"] = path
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Pulls:
    """To be used on one event loop, except for `report`."""

    def __init__(self) -> None:
        self._pulls: list[Pull] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def report(self) -> list[dict[str, Any]]:
        """Those under way and the last ones that have ended, the latest first. From any thread."""
        return [pull.report() for pull in reversed(list(self._pulls))]

    def start(self, request: PullRequest) -> Pull:
        """The one that is under way, if it is for the same. Raises Refused."""
        if self._closed:
            raise Refused(503, "the seeder is ending")
        running = [pull for pull in self._pulls if not pull.is_over]
        for pull in running:
            if pull.request == request:
                return pull
            if pull.request.key == request.key:
                raise Refused(409, f"{request.repo} is being pulled with other arguments: wait, or stop it first")
        if len(running) >= MAX_RUNNING:
            raise Refused(429, f"{MAX_RUNNING} repositories are being pulled: wait for one of them")
        pull = Pull(request)
        ended = [one for one in self._pulls if one.is_over]
        self._pulls = [*ended[-(KEPT - 1) :], *running, pull]
        task = asyncio.create_task(pull.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return pull

    def stop(self, key: tuple[str, str]) -> bool:
        """False when it is not under way."""
        found = [pull for pull in self._pulls if not pull.is_over and pull.request.key == key]
        for pull in found:
            pull.stop()
        return bool(found)

    async def close(self) -> None:
        """Ends all that are under way."""
        self._closed = True
        for pull in self._pulls:
            pull.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)
