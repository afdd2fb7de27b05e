"""The process that pulls for the seeder, and says on stdout how far it is: one JSON object a line.

A process of its own, so that it can be ended at any moment, and what the Hub's client needs of memory comes back.

It reads the request, a line of JSON, from stdin, and ends when that is closed: it does not outlive the seeder.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import IO, Any

from zest_hf.seed.pull_request import MAX_BODY_BYTES, MAX_NAME_CHARS, PullRequest

PROGRESS_S = 0.5
MAX_FILES_SHOWN = 8
MAX_LOOKS = 2000
"""Files that are looked for at a time, of a repository with very many."""
LEAVE_S = 0.3
"""How long downloads may take to end."""


def main() -> int:
    """The exit code is of no interest: the last line says how it ended (``path`` or ``error``)."""
    # What others print must not be taken for ours.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    fields = json.loads(sys.stdin.buffer.readline(2 * MAX_BODY_BYTES))
    if fields["allow_patterns"] is not None:
        fields["allow_patterns"] = tuple(fields["allow_patterns"])
    request = PullRequest(**fields)
    threading.Thread(target=_end_with_the_seeder, daemon=True).start()
    from zest_hf.config import load_settings
    from zest_hf.seed.log_format import FORMAT

    logging.basicConfig(format=FORMAT, level=logging.WARNING)
    logging.getLogger("zest_hf").setLevel(load_settings().log_level)
    done = threading.Event()
    progress = _Progress(request, out)
    reporter = threading.Thread(target=progress.run, args=(done,), daemon=True)
    reporter.start()
    last = _pull(request)
    done.set()
    reporter.join()
    if "path" in last and (progress.matches_nothing or not os.path.isdir(last["path"])):
        last = {"error": f"no file of {request.repo} matches: check allow_patterns"}
    progress.say(**progress.state(), **last)
    return 0


def _pull(request: PullRequest) -> dict[str, Any]:
    import zest_hf
    from zest_hf.hook.reasons import explain

    patterns = None if request.allow_patterns is None else list(request.allow_patterns)
    try:
        path = zest_hf.pull(request.repo, request.revision, patterns, request.repo_type)
    except KeyboardInterrupt:
        os._exit(1)  # the seeder ends, or has been told to stop this
    except Exception as error:
        logging.getLogger("zest_hf.pull").debug("the reason in full", exc_info=error)
        return {"error": explain(error, request.repo, request.repo_type, request.revision)}
    return {"path": path}


class _Progress:
    """Which files the repository has is asked of the Hub; without an answer only bytes are counted."""

    def __init__(self, request: PullRequest, out: IO[str]) -> None:
        self._request, self._out = request, out
        self._remaining: dict[Path, int] | None = None
        """Sizes of the files that are not there yet; None as long as that is not known."""
        self._size = self._here = self._before = self._files = 0
        """Bytes of all files, of those that are there, and of those that were before; how many files."""

    @property
    def matches_nothing(self) -> bool:
        """Of the files that the repository has; False as long as that is not known."""
        return self._remaining is not None and not self._files

    def run(self, done: threading.Event) -> None:
        with contextlib.suppress(Exception):  # what is wrong is said by the pull itself
            self._find_out()
        before: dict[str, Any] = {}
        while not done.wait(PROGRESS_S):
            state = self.state()
            if state != before:
                before = state
                self.say(**state)

    def say(self, **values: Any) -> None:
        self._out.write(json.dumps(values) + "\n")
        self._out.flush()

    def state(self) -> dict[str, Any]:
        from zest_hf.engine import current_engine

        engine = current_engine()
        running = engine.under_way() if engine is not None else []
        count = {"local": 0, "peer": 0, "cdn": 0}
        if engine is not None:
            moved = engine.moved()
            count = {"local": moved.local, "peer": moved.peer, "cdn": moved.cdn}
        state: dict[str, Any] = {
            "bytes": count,
            "running": [
                {
                    "file": one["file"][:MAX_NAME_CHARS],
                    "size": one["size"],
                    "done": one["local"] + one["peer"] + one["cdn"],
                }
                for one in running[:MAX_FILES_SHOWN]
            ],
        }
        if self._remaining is not None:
            self._look()
            under_way = sum(one["local"] + one["peer"] + one["cdn"] for one in running)
            state |= {
                "size": self._size,
                "done": min(self._size, max(self._here + under_way, self._before + sum(count.values()))),
                "before": self._before,
                "files": self._files,
                "files_done": self._files - len(self._remaining),
            }
        return state

    def _find_out(self) -> None:
        from huggingface_hub import HfApi, constants
        from huggingface_hub.utils._paths import filter_repo_objects

        request = self._request
        info: Any = HfApi().repo_info(
            request.repo, revision=request.revision, repo_type=request.repo_type, files_metadata=True
        )
        patterns = None if request.allow_patterns is None else list(request.allow_patterns)
        names = {one.rfilename: one.size or 0 for one in info.siblings or ()}
        wanted = filter_repo_objects(names, allow_patterns=patterns)
        folder = f"{request.repo_type}s--{request.repo.replace('/', '--')}"
        snapshot = Path(constants.HF_HUB_CACHE, folder, "snapshots", str(info.sha))
        remaining = {snapshot / name: names[name] for name in wanted}
        self._size, self._files = sum(remaining.values()), len(remaining)
        self._remaining = {path: size for path, size in remaining.items() if not path.exists()}
        self._before = self._here = self._size - sum(self._remaining.values())

    def _look(self) -> None:
        """For files that have come."""
        assert self._remaining is not None
        for path in [path for path, _ in zip(self._remaining, range(MAX_LOOKS), strict=False)]:
            if path.exists():
                self._here += self._remaining.pop(path)


def _end_with_the_seeder() -> None:
    while sys.stdin.buffer.read(65536):
        pass
    from zest_hf.engine import current_engine

    if (engine := current_engine()) is not None:
        engine.interrupt()
    threading.Event().wait(LEAVE_S)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
