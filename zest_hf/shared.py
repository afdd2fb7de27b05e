"""What this process offers of each repository, and when the Hub is to be asked about it again."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from zest_hf.core.ids import XetHash

Repo = TypeVar("Repo", bound=Hashable)
Item = tuple[Path, XetHash]


@dataclass
class _Offer:
    ask: Callable[[], bool] | None = None
    """Whether everyone may see the repository; False also when that cannot be found out."""
    due_s: float = math.inf
    """When it is to be asked; infinite: that is not known yet."""
    items: set[Item] = field(default_factory=set)


class Shared(Generic[Repo]):
    """Bookkeeping only. Times are monotonic. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offers: dict[Repo, _Offer] = {}

    def add(self, repo: Repo, item: Item, ask: Callable[[], bool] | None) -> bool:
        """A file is offered. True: there is a question about its repository, but no time for it (`postpone`)."""
        with self._lock:
            offer = self._offers.setdefault(repo, _Offer())
            offer.items.add(item)
            # The newest one: its token is good for longest.
            offer.ask = ask or offer.ask
            return offer.ask is not None and offer.due_s == math.inf

    def holds(self, repo: Repo, item: Item) -> bool:
        """Whether it is offered for a repository, which was not withdrawn meanwhile."""
        with self._lock:
            offer = self._offers.get(repo)
            return offer is not None and item in offer.items

    def withdraw(self, repo: Repo) -> list[Item]:
        """Forgets a repository; what is offered for no other one and has to go."""
        with self._lock:
            offer = self._offers.pop(repo, None)
            if offer is None:
                return []
            return [item for item in offer.items if not any(item in other.items for other in self._offers.values())]

    def due(self) -> list[tuple[Repo, Callable[[], bool]]]:
        """The questions whose time has come."""
        now_s = time.monotonic()
        with self._lock:
            return [(repo, one.ask) for repo, one in self._offers.items() if one.ask and one.due_s <= now_s]

    def postpone(self, repo: Repo, due_s: float) -> None:
        """The next time to ask, unless the repository was withdrawn."""
        with self._lock:
            if repo in self._offers:
                self._offers[repo].due_s = due_s

    def pause_s(self) -> float | None:
        """Seconds until the next question; None if there is none."""
        with self._lock:
            times = [one.due_s for one in self._offers.values() if one.ask is not None]
        first_s = min(times, default=math.inf)
        return max(0.0, first_s - time.monotonic()) if first_s < math.inf else None
