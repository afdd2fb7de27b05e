"""What all nodes of a simulated crowd share: the time, what is to happen, the file, and what is counted."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from zest_hf.bench.crowd_nodes import Node
from zest_hf.bench.scenario import Scenario
from zest_hf.core.crowd_claims import units_of


@dataclass(slots=True)
class Counts:
    """``origin_bytes`` and ``payload_bytes``, from peers, in virtual bytes; ``control_bytes`` in true ones."""

    origin_bytes: float = 0.0
    payload_bytes: float = 0.0
    control_bytes: float = 0.0
    gets: int = 0
    follows: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


class World:
    """See the module."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.file = scenario.file
        self.now_s = 0.0
        self.random = random.Random(scenario.seed)
        self.counts = Counts()
        self.units = units_of(self.file.plan)
        self.unit_of = {fetch.source: number for number, fetch in enumerate(self.file.plan.fetches)}
        self._unit_at = {chunk: n for n, unit in enumerate(self.units) for chunk in range(unit.first, unit.end)}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._is_split = False
        self.nodes = [
            Node(number, spec, hashlib.sha1(b"%d/%d" % (scenario.seed, number)).digest())
            for number, spec in enumerate(scenario.nodes)
        ]
        self.by_name = {node.name: node for node in self.nodes}
        for node in self.nodes:
            others = [other.number for other in self.nodes if other is not node]
            count = min(scenario.neighbours, len(others))
            node.neighbours = set(self.random.sample(others, count))
        for node in self.nodes:
            for other in node.neighbours:
                self.nodes[other].neighbours.add(node.number)

    def at(self, when_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), what))

    def happen(self) -> None:
        """What is due."""
        while self._events and self._events[0][0] <= self.now_s:
            heapq.heappop(self._events)[2]()

    def clock(self, node: Node) -> float:
        """What time it is there."""
        return node.spec.clock_s + self.now_s * node.spec.clock_rate

    def split(self, is_split: bool) -> None:
        self._is_split = is_split

    def are_connected(self, one: Node, other: Node) -> bool:
        return not self._is_split or one.spec.group == other.spec.group

    def units_in(self, first: int, end: int) -> range:
        """The units that chunks of the file are of."""
        return range(self._unit_at[first], self._unit_at[end - 1] + 1)
