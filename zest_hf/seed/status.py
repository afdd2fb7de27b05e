"""What the seeder says of itself: the JSON values behind page, API and metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from zest_hf import __version__
from zest_hf.hook.cache import cache_directory, revisions
from zest_hf.seed.holdings import Holdings
from zest_hf.seed.ledger import Ledger
from zest_hf.seed.seeder import Seeder
from zest_hf.swarm import Swarm

MAX_REVISIONS = 5
"""Of a repository, the latest."""


class Status:
    """May be asked by any thread."""

    def __init__(self, seeder: Seeder, swarm: Swarm, ledger: Ledger, cache: Path | None = None) -> None:
        """``cache``: where the Hub's client keeps its files; found out if it is not given."""
        self._seeder, self._swarm, self._ledger = seeder, swarm, ledger
        self._holdings = Holdings(swarm)
        self._cache = cache_directory() if cache is None else cache
        self.pulls: Callable[[], list[dict[str, Any]]] = list
        """What is pulled, by who pulls it."""

    @property
    def is_ready(self) -> bool:
        """Whether everything that was in the index at the start is offered."""
        return self._seeder.ready.is_set()

    def end(self) -> None:
        """Has the seeder end, soon."""
        self._seeder.end()

    def report(self) -> dict[str, Any]:
        """What `GET /v1/status` answers. Sizes and ``bytes`` in bytes. Raises SwarmError once it is closed."""
        files, size, _ = self._seeder.totals()
        report = self._swarm.report()
        for peer in report["peers"]:
            share = self._holdings.of(peer["connection"])
            peer.update(self._ledger.peer(peer["connection"]), holds=None if share is None else round(share, 3))
        return {
            "version": __version__,
            "ready": self.is_ready,
            **report,
            **self._ledger.report(),
            "files": files,
            "size": size,
            "models": self.models(),
            "pulls": self.pulls(),
        }

    def models(self) -> list[dict[str, Any]]:
        """Per repository what is offered of it, who takes it, and which revisions of it are in the cache."""
        models = self._seeder.models()
        for model in models:
            found = revisions(self._cache, model["repo_type"], model["repo"])[:MAX_REVISIONS]
            model["revisions"] = [{"commit": commit, "names": names} for commit, names in found]
        return models

    def history(self) -> dict[str, Any]:
        """What `GET /v1/history` answers: the rates of the last hour."""
        return self._ledger.history()
