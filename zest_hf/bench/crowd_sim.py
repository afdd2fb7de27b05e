"""A whole crowd on a virtual clock: every node's real transfer and crowd, with links, messages and an origin made up.

Each host has a line up and a line down, which peers and the origin share; the origin has one line for all, and a limit
per connection if wanted. Links share lines evenly, and what one of them cannot use the others get. What nodes tell each
other comes after a latency. A run is the same whenever it is made with the same seed.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from zest_hf.bench.virtual import CHUNK_BYTES, VirtualFile
from zest_hf.core.actions import AskPeer, CancelPeer, FetchRun, FetchWhole, PeerTrouble, StopGet
from zest_hf.core.crowd import Crowd
from zest_hf.core.crowd_claims import FETCHING, FULL, HELD, Told, units_of
from zest_hf.core.policy import PolicySettings
from zest_hf.core.ranges import Ranges, normalized
from zest_hf.core.transfer import Transfer

TELL_S = 0.1
PROGRESS_S = 0.5
"""Claims are told at most so often; mere progress less often."""
MESSAGE_BYTES = 100
"""Of one message with everything around it;"""
CLAIM_BYTES = 11
RANGE_BYTES = 8
MANIFEST_BYTES = 36 * 1024
"""... of a xorb's manifest."""


@dataclass
class NodeSpec:
    """``liar``: "claims" (all of it, without fetching), "creeps" (with invented progress), "haves" (which it lacks),
    "floods" (with claims that change all the time). Rates are true bytes per second."""

    up_bytes_s: float
    down_bytes_s: float
    start_s: float = 0.0
    dies_s: float = float("inf")
    noticed_s: float = 0.05
    """How long after its death the others hear of it."""
    liar: str | None = None
    group: int = 0
    """Groups do not reach each other while the network is split."""


@dataclass
class Scenario:
    file: VirtualFile
    nodes: list[NodeSpec]
    origin_bytes_s: float
    per_connection_bytes_s: float = float("inf")
    latency_s: float = 0.01
    meets_s: float = 0.2
    """How long it takes from a node's start until others know of it."""
    waits_s: float = 0.05
    """How long a node waits for others at its start."""
    seed: int = 1
    split_s: tuple[float, float] | None = None
    neighbours: int = 32
    """Of whom a node takes chunks, if there are more; all hear each other's claims."""
    tick_s: float = 0.02
    crowd: bool = True
    """False: nobody coordinates anything."""
    latest_s: float = 1e4
    log: Callable[[str], None] | None = None


@dataclass
class Outcome:
    """Sizes in true bytes; ``done_s`` of each honest node that lived, since the first began."""

    size_bytes: int
    origin_bytes: float
    done_s: list[float]
    control_bytes: float
    payload_bytes: float
    bound_s: float
    gets: int
    reasons: dict[str, int]

    @property
    def copies(self) -> float:
        return self.origin_bytes / self.size_bytes

    @property
    def slowdown(self) -> float:
        """The last node's time over what copy and lines alone would take."""
        return max(self.done_s) / self.bound_s

    def __str__(self) -> str:
        share = self.control_bytes / max(self.payload_bytes, 1)
        return (
            f"{self.copies:.3f} copies, last {max(self.done_s):.1f} s = {self.slowdown:.2f} of the bound, "
            f"first {min(self.done_s):.1f} s, control {100 * share:.3f} %, {self.gets} GETs, {self.reasons}"
        )


@dataclass(slots=True)
class _Request:
    action: AskPeer
    size: float
    asked_s: float
    sent: float = 0.0


@dataclass(slots=True)
class _Get:
    action: FetchWhole | FetchRun
    size: float
    begins_s: float
    sent: float = 0.0


@dataclass(eq=False)
class _Node:
    number: int
    spec: NodeSpec
    name: bytes
    transfer: Transfer | None = None
    crowd: Crowd | None = None
    neighbours: list[int] = field(default_factory=list)
    up: bool = False
    done_s: float | None = None
    gets: dict[int, _Get] = field(default_factory=dict)
    queues: dict[int, deque[_Request]] = field(default_factory=dict)
    """What it was asked for, by who asks."""
    open: dict[int, tuple[int, _Request]] = field(default_factory=dict)
    """What it has asked for -> of whom."""
    dirty: bool = True
    acts_s: float = 0.0
    told_s: float = float("-inf")
    told_generation: int = -1
    told_claims: list[Told] = field(default_factory=list)
    proved: list[tuple[int, int]] = field(default_factory=list)
    held: Ranges = ()
    knows: set[int] = field(default_factory=set)
    """Units whose manifest it has asked for."""
    tells_haves_s: float = 0.0


class Simulation:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.now_s = 0.0
        file = scenario.file
        self._scale = file.scale
        self._random = random.Random(scenario.seed)
        self._policy = file.policy(PolicySettings())
        self._units = units_of(file.plan)
        self._unit_at = {chunk: n for n, unit in enumerate(self._units) for chunk in range(unit.first, unit.end)}
        self._fetch_xorb = [fetch.source.xorb for fetch in file.plan.fetches]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._origin_bytes = 0.0
        self._control_bytes = 0.0
        self._payload_bytes = 0.0
        self._gets = 0
        self._reasons: dict[str, int] = {}
        self.nodes = [
            _Node(number, spec, hashlib.sha1(b"%d/%d" % (scenario.seed, number)).digest())
            for number, spec in enumerate(scenario.nodes)
        ]
        self._by_name = {node.name: node.number for node in self.nodes}
        self._split = False
        for node in self.nodes:
            others = [other.number for other in self.nodes if other is not node]
            count = min(scenario.neighbours, len(others))
            node.neighbours = sorted(self._random.sample(others, count))
        for node in self.nodes:
            for other in node.neighbours:
                if node.number not in self.nodes[other].neighbours:
                    self.nodes[other].neighbours.append(node.number)

    def run(self) -> Outcome:
        scenario = self.scenario
        for node in self.nodes:
            self._at(node.spec.start_s, partial(self._start, node))
            if node.spec.dies_s < float("inf"):
                self._at(node.spec.dies_s, partial(self._die, node))
        if scenario.split_s is not None:
            self._at(scenario.split_s[0], lambda: self._cut(True))
            self._at(scenario.split_s[1], lambda: self._cut(False))
        waited_for = [
            node for node in self.nodes if node.spec.liar is None and node.spec.dies_s == float("inf")
        ]
        while any(node.done_s is None for node in waited_for):
            if self.now_s > scenario.latest_s:
                raise TimeoutError(f"{sum(node.done_s is None for node in waited_for)} nodes are not done")
            while self._events and self._events[0][0] <= self.now_s:
                heapq.heappop(self._events)[2]()
            for node in self.nodes:
                if node.up and (node.dirty or node.acts_s <= self.now_s):
                    self._act(node)
            self._flow(scenario.tick_s)
            self.now_s += scenario.tick_s
        first_s = min(node.spec.start_s for node in waited_for)
        size = float(scenario.file.size_bytes)
        size = scenario.file.plan.size_bytes * self._scale
        slowest = min(min(node.spec.up_bytes_s, node.spec.down_bytes_s) for node in waited_for)
        bound_s = max(size / scenario.origin_bytes_s, size / slowest)
        last_start_s = max(node.spec.start_s for node in waited_for)
        # Who comes last cannot be done before it has got a copy over its own line.
        bound_s = max(bound_s, last_start_s - first_s + size / slowest)
        return Outcome(
            int(size),
            self._origin_bytes * self._scale,
            [node.done_s - first_s for node in waited_for if node.done_s is not None],
            self._control_bytes,
            self._payload_bytes * self._scale,
            bound_s,
            self._gets,
            self._reasons,
        )

    # --- who is there ---------------------------------------------------------------------------------------------

    def _at(self, when_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), what))

    def _start(self, node: _Node) -> None:
        file = self.scenario.file
        node.up = True
        if node.spec.liar is None:
            node.crowd = Crowd(node.name, self._units) if self.scenario.crowd else None
            node.transfer = Transfer(file.plan, file.file_hash, self._policy, node.number)
            if node.crowd is not None:
                node.transfer.join(node.crowd, self.now_s)
        else:
            node.acts_s = self.now_s
        for other in self.nodes:
            if other is not node and other.up and self._connected(node, other):
                self._at(self.now_s + self.scenario.meets_s, partial(self._meet, node, other))

    def _meet(self, one: _Node, other: _Node) -> None:
        if not (one.up and other.up and self._connected(one, other)):
            return
        for a, b in ((one, other), (other, one)):
            if a.done_s is None:
                self._send_claims(a, [b])
            if a.held and b.number in a.neighbours:
                self._send_haves(a, b, a.held)

    def _connected(self, one: _Node, other: _Node) -> bool:
        return not self._split or one.spec.group == other.spec.group

    def _has_met(self, one: _Node, other: _Node) -> bool:
        began_s = max(one.spec.start_s, other.spec.start_s)
        return other.up and self._connected(one, other) and self.now_s >= began_s + self.scenario.meets_s

    def _die(self, node: _Node) -> None:
        if not node.up:
            return
        node.up = False
        node.gets.clear()
        for other in self.nodes:
            if other is not node:
                self._at(self.now_s + node.spec.noticed_s, partial(self._lose, other, node))
        for number, one in list(node.open.values()):
            queue = self.nodes[number].queues.get(node.number)
            if queue is not None and one in queue:
                queue.remove(one)
        node.open.clear()

    def _lose(self, node: _Node, gone: _Node) -> None:
        if node.crowd is not None:
            node.crowd.others.left(gone.name)
        node.dirty = True
        if node.transfer is None or node.done_s is not None:
            return
        node.transfer.peer_gone(gone.number)
        queue = gone.queues.pop(node.number, deque())
        for one in queue:
            self._ended(node, one, PeerTrouble.GONE)

    def _cut(self, split: bool) -> None:
        self._split = split
        for one, other in itertools.combinations(self.nodes, 2):
            if one.spec.group != other.spec.group and one.up and other.up:
                if split:
                    self._lose(one, other)
                    self._lose(other, one)
                else:
                    self._meet(one, other)

    # --- what is told -----------------------------------------------------------------------------------------------

    def _tell(self, node: _Node) -> None:
        crowd = node.crowd
        if crowd is None:
            return
        since_s = self.now_s - node.told_s
        if since_s < TELL_S:
            return
        if crowd.generation == node.told_generation and since_s < PROGRESS_S:
            return
        claims = crowd.claims()
        if claims == node.told_claims:
            return
        node.told_s, node.told_generation, node.told_claims = self.now_s, crowd.generation, claims
        self._send_claims(node, self.nodes)

    def _send_claims(self, node: _Node, others: list[_Node]) -> None:
        if not self.scenario.crowd:
            return
        claims = list(node.told_claims)
        hears = [one for one in others if one is not node and self._has_met(node, one)]
        self._control_bytes += len(hears) * (MESSAGE_BYTES + CLAIM_BYTES * len(claims))
        downloading = node.done_s is None
        self._at(self.now_s + self.scenario.latency_s, lambda: self._hear(node, hears, downloading, claims))

    def _hear(self, node: _Node, hears: list[_Node], downloading: bool, claims: list[Told]) -> None:
        for other in hears:
            if other.crowd is None or not other.up or other.done_s is not None:
                continue
            held = other.crowd.others.heard(node.name, downloading, claims, self.now_s)
            other.dirty = True
            for unit in held:
                self._learn(other, unit, node)

    def _learn(self, node: _Node, unit: int, holder: _Node) -> None:
        """A node asks who has a unit for its manifest."""
        if unit in node.knows or holder.spec.liar is not None:
            return
        node.knows.add(unit)
        self._control_bytes += MANIFEST_BYTES + 4 * MESSAGE_BYTES
        xorb = self._fetch_xorb[unit]

        def proved() -> None:
            if node.transfer is not None and node.up and node.done_s is None:
                node.transfer.xorb_proved(xorb, self.scenario.file.xorbs[xorb])
                node.dirty = True

        self._at(self.now_s + 4 * self.scenario.latency_s, proved)

    def _tell_haves(self, node: _Node) -> None:
        assert node.transfer is not None
        node.proved += node.transfer.take_proved()
        if not node.proved or self.now_s < node.tells_haves_s:
            return
        node.tells_haves_s = self.now_s + TELL_S
        new = normalized(node.proved, self.scenario.file.plan.chunk_count)
        node.proved = []
        node.held = normalized([*node.held, *new], self.scenario.file.plan.chunk_count)
        for number in node.neighbours:
            other = self.nodes[number]
            if other.done_s is None and self._has_met(node, other):
                self._send_haves(node, other, new)

    def _send_haves(self, node: _Node, other: _Node, ranges: Ranges) -> None:
        self._control_bytes += MESSAGE_BYTES + RANGE_BYTES * len(ranges)
        file = self.scenario.file

        def heard() -> None:
            if other.transfer is None or other.done_s is not None or not (node.up and other.up):
                return
            other.transfer.peer_holds_more(node.number, ranges)
            other.dirty = True
            for first, end in ranges:
                chunk = first
                while chunk < end:
                    unit = self._unit_at[chunk]
                    self._learn(other, unit, node)
                    chunk = self._units[unit].end
            if node.transfer is not None and node.transfer.manifest is not None and other.transfer.manifest is None:
                self._control_bytes += MANIFEST_BYTES * len(self._units)
                other.transfer.manifest_proved(file.manifest)

        self._at(self.now_s + self.scenario.latency_s, heard)

    # --- what nodes do ------------------------------------------------------------------------------------------------

    def _act(self, node: _Node) -> None:
        node.dirty = False
        node.acts_s = self.now_s + 0.1
        if node.spec.liar is not None:
            self._lie(node)
            return
        transfer, crowd = node.transfer, node.crowd
        assert transfer is not None
        if node.done_s is not None:
            if node.proved or transfer is not None:
                self._tell_haves(node)
            return
        if node.gets:
            transfer.cdn_brought({number: int(get.sent) for number, get in node.gets.items()}, self.now_s)
        if transfer.complete and transfer.finish() is not None:
            node.done_s = self.now_s
            assert transfer.counts.total == self.scenario.file.plan.size_bytes
            node.told_claims = []
            self._send_claims(node, self.nodes)
            node.tells_haves_s = 0.0
            self._tell_haves(node)
            return
        waits = self.now_s < node.spec.start_s + self.scenario.waits_s
        for action in transfer.actions(self.now_s, waits):
            if isinstance(action, AskPeer):
                self._ask(node, action)
            elif isinstance(action, CancelPeer):
                number, one = node.open[action.assignment]
                self.nodes[number].queues[node.number].remove(one)
                self._ended(node, one, PeerTrouble.CANCELLED)
            elif isinstance(action, StopGet):
                self._stop_get(node, action)
            else:
                whole = isinstance(action, FetchWhole)
                size = self._size(action)
                latency_s = self.scenario.latency_s * (2 if whole else 4)
                node.gets[action.assignment] = _Get(action, size, self.now_s + latency_s)
                self._gets += 1
        if crowd is not None:
            for decision in transfer.take_decisions():
                self._reasons[decision.reason.name] = self._reasons.get(decision.reason.name, 0) + 1
                if self.scenario.log is not None:
                    self.scenario.log(
                        f"{self.now_s:9.2f} node {node.number}: unit {decision.fetch}: {decision.reason.value}"
                        f" ({crowd.pace.allowed} at once, {crowd.pace.bytes_s * self._scale / 1e6:.1f} MB/s)"
                    )
        self._tell(node)
        self._tell_haves(node)

    @staticmethod
    def _size(action: FetchWhole | FetchRun) -> int:
        if isinstance(action, FetchWhole):
            return action.fetch.size_bytes
        return action.byte_end - action.byte_start

    def _ask(self, node: _Node, action: AskPeer) -> None:
        offset = self.scenario.file.manifest.offset
        one = _Request(action, offset(action.first + action.count) - offset(action.first), self.now_s)
        self._control_bytes += MESSAGE_BYTES
        node.open[action.assignment] = action.peer, one
        self.nodes[action.peer].queues.setdefault(node.number, deque()).append(one)

    def _ended(self, node: _Node, one: _Request, trouble: PeerTrouble | None) -> None:
        node.open.pop(one.action.assignment, None)
        if node.transfer is None or node.done_s is not None:
            return
        offset, first = self.scenario.file.manifest.offset, one.action.first
        written = one.action.count
        if trouble is not None:
            written = 0
            while offset(first + written + 1) - offset(first) <= one.sent:
                written += 1
        node.transfer.peer_ended(one.action.assignment, written, trouble, self.now_s)
        node.dirty = True

    def _stop_get(self, node: _Node, action: StopGet) -> None:
        get = node.gets.get(action.assignment)
        if get is None or node.transfer is None:
            return
        # True chunks are small: what of a virtual one has come is thrown away.
        come = int(get.sent // CHUNK_BYTES) if self._scale > 1 else math.ceil(get.sent / CHUNK_BYTES)
        chunks = max(action.chunks, come)
        get.size = min(get.size, chunks * CHUNK_BYTES)
        node.transfer.cdn_stops(action.assignment, chunks)
        if get.sent >= get.size:
            self._get_ended(node, get)

    def _get_ended(self, node: _Node, get: _Get) -> None:
        del node.gets[get.action.assignment]
        if node.transfer is None or node.done_s is not None:
            return
        action = get.action
        chunks = self.scenario.file.truth(action.fetch.source) if isinstance(action, FetchWhole) else action.chunks
        chunks = chunks.slice(0, min(len(chunks), round(get.size / CHUNK_BYTES)))
        node.transfer.cdn_ended(action.assignment, chunks, self.now_s)
        node.dirty = True

    def _lie(self, node: _Node) -> None:
        kind = node.spec.liar
        claims: list[Told] = []
        for unit in self._units[:1024]:
            if kind == "claims":
                claims.append((unit.first, unit.end, FETCHING, 0))
            elif kind == "creeps":
                claims.append((unit.first, unit.end, FETCHING, min(FULL - 1, int(self.now_s * 20))))
            elif kind == "haves":
                claims.append((unit.first, unit.end, HELD, FULL))
            elif kind == "floods":
                state = self._random.choice((FETCHING, HELD))
                claims.append((unit.first, unit.end, state, self._random.randrange(FULL)))
        if claims != node.told_claims:
            node.told_claims = claims
            self._send_claims(node, self.nodes)
        if kind == "haves" and not node.held:
            node.held = ((0, self.scenario.file.plan.chunk_count),)
            for other in self.nodes:
                if other is not node and self._has_met(node, other):
                    self._send_haves(node, other, node.held)

    # --- bytes --------------------------------------------------------------------------------------------------------

    def _flow(self, passed_s: float) -> None:
        scale, scenario = self._scale, self.scenario
        ready_s = self.now_s - scenario.latency_s
        coming: dict[int, int] = {}
        links: list[tuple[_Node, int, deque[_Request]]] = []
        outgoing: dict[int, int] = {}
        for node in self.nodes:
            if not node.queues or not node.up:
                continue
            for asker, queue in node.queues.items():
                if not queue:
                    continue
                if node.spec.liar is not None:
                    while queue and self.now_s - queue[0].asked_s >= 2 * scenario.latency_s:
                        self._ended(self.nodes[asker], queue.popleft(), PeerTrouble.LACKS)
                    continue
                if queue[0].asked_s <= ready_s:
                    links.append((node, asker, queue))
                    coming[asker] = coming.get(asker, 0) + 1
                    outgoing[node.number] = outgoing.get(node.number, 0) + 1
        all_gets = [(node, get) for node in self.nodes if node.up for get in node.gets.values()]
        gets = [(node, get) for node, get in all_gets if get.begins_s <= self.now_s]
        for node, _ in gets:
            coming[node.number] = coming.get(node.number, 0) + 1
        # Twice, so that what somebody cannot use another gets.
        down = {number: self.nodes[number].spec.down_bytes_s * passed_s / scale for number in coming}
        up = {number: self.nodes[number].spec.up_bytes_s * passed_s / scale for number in outgoing}
        most = scenario.per_connection_bytes_s * passed_s / scale
        origin = scenario.origin_bytes_s * passed_s / scale
        share = dict(down)
        taken_of_get = [0.0] * len(gets)
        for _ in range(2):
            fair = origin / max(len(gets), 1)
            for at, (node, _get) in enumerate(gets):
                size = min(fair, share[node.number] / coming[node.number], most - taken_of_get[at], down[node.number])
                taken_of_get[at] += size
                down[node.number] -= size
                origin -= size
        for at, (node, get) in enumerate(gets):
            size = min(taken_of_get[at], get.size - get.sent)
            get.sent += size
            self._origin_bytes += size
            node.dirty = node.dirty or size > 0
            if get.sent >= get.size - 1e-3:
                self._get_ended(node, get)
        taken = [0.0] * len(links)
        for _ in range(2):
            fair_up = {number: up[number] / count for number, count in outgoing.items()}
            fair_down = {number: down[number] / count for number, count in coming.items()}
            for at, (node, asker, _queue) in enumerate(links):
                size = min(fair_up[node.number], fair_down[asker])
                taken[at] += size
                up[node.number] -= size
                down[asker] -= size
        for at, (_node, asker, queue) in enumerate(links):
            self._send(asker, queue, taken[at])

    def _send(self, asker: int, queue: deque[_Request], room: float) -> None:
        while queue and room > 0:
            one = queue[0]
            size = min(room, one.size - one.sent)
            one.sent += size
            room -= size
            self._payload_bytes += size
            if one.sent >= one.size - 1e-3:
                queue.popleft()
                self._ended(self.nodes[asker], one, None)
