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
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from zest_hf.bench.liars import Lies
from zest_hf.bench.lines import Link, shares
from zest_hf.bench.scenario import NodeSpec, Outcome, Scenario, bound_s
from zest_hf.bench.virtual import CHUNK_BYTES
from zest_hf.core.actions import (
    Action,
    AskPeer,
    CancelPeer,
    FetchRun,
    FetchWhole,
    Follow,
    PeerTrouble,
    StopFollow,
    StopGet,
)
from zest_hf.core.crowd import Crowd
from zest_hf.core.crowd_claims import Told, units_of
from zest_hf.core.manifest import Manifest
from zest_hf.core.policy import PolicySettings
from zest_hf.core.ranges import Ranges, added, normalized
from zest_hf.core.transfer import Transfer

__all__ = ["NodeSpec", "Outcome", "Scenario", "Simulation"]

PROGRESS_S = 0.5
"""Mere progress is told so often."""
MAX_FOLLOWERS = 8
"""Of one unit, at one member."""
SILENT_S = 3.0
"""Who sends nothing to who follows it for so long is given up."""
TRICKLE_BYTES_S = 1000.0
_ORIGIN = -1
MESSAGE_BYTES = 100
"""Of one message with everything around it;"""
CLAIM_BYTES = 11
RANGE_BYTES = 8
MANIFEST_BYTES = 36 * 1024
"""... of a xorb's manifest."""


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
    begun: float = 0.0
    """Bytes that were there; `sent` counts them as well."""
    sent: float = 0.0


@dataclass(slots=True)
class _Follow:
    action: Follow
    giver: int
    unit: int
    begins_s: float
    heard_s: float
    begun: float
    sent: float


@dataclass(eq=False)
class _Node:
    number: int
    spec: NodeSpec
    name: bytes
    transfer: Transfer | None = None
    crowd: Crowd | None = None
    neighbours: set[int] = field(default_factory=set)
    up: bool = False
    done_s: float | None = None
    gets: dict[int, _Get] = field(default_factory=dict)
    follows: dict[int, _Follow] = field(default_factory=dict)
    followers: dict[int, int] = field(default_factory=dict)
    """Unit -> how many follow it here."""
    getting: dict[int, int] = field(default_factory=dict)
    """Unit -> the GET that brings it."""
    fetched: set[int] = field(default_factory=set)
    """Units that it has got of the origin as a whole."""
    met: set[int] = field(default_factory=set)
    """Whom it knows."""
    banned: set[int] = field(default_factory=set)
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
        self._unit_of = {fetch.source: number for number, fetch in enumerate(file.plan.fetches)}
        self._fetch_xorb = [fetch.source.xorb for fetch in file.plan.fetches]
        self._lies = Lies(self._units, self._random)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._origin_bytes = 0.0
        self._control_bytes = 0.0
        self._payload_bytes = 0.0
        self._gets = self._follows = 0
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
            node.neighbours = set(self._random.sample(others, count))
        for node in self.nodes:
            for other in node.neighbours:
                self.nodes[other].neighbours.add(node.number)

    def run(self) -> Outcome:
        scenario = self.scenario
        for node in self.nodes:
            self._at(node.spec.start_s, partial(self._start, node))
            if node.spec.dies_s < float("inf"):
                self._at(node.spec.dies_s, partial(self._die, node))
        if scenario.split_s is not None:
            self._at(scenario.split_s[0], lambda: self._cut(True))
            self._at(scenario.split_s[1], lambda: self._cut(False))
        waited_for = [node for node in self.nodes if node.spec.liar is None and node.spec.dies_s == float("inf")]
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
        size = scenario.file.plan.size_bytes * self._scale
        return Outcome(
            size,
            self._origin_bytes * self._scale,
            [node.done_s - first_s for node in waited_for if node.done_s is not None],
            self._control_bytes,
            self._payload_bytes * self._scale,
            bound_s(scenario, [node.spec for node in waited_for], size),
            self._gets,
            self._follows,
            self._reasons,
        )

    # --- who is there ---------------------------------------------------------------------------------------------

    def _at(self, when_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._order), what))

    def _clock(self, node: _Node) -> float:
        """What time it is there."""
        return node.spec.clock_s + self.now_s * node.spec.clock_rate

    def _start(self, node: _Node) -> None:
        file = self.scenario.file
        node.up = True
        if node.spec.liar is None:
            node.crowd = Crowd(node.name, self._units) if self.scenario.crowd else None
            node.transfer = Transfer(file.plan, file.file_hash, self._policy, node.number)
            if node.crowd is not None:
                node.transfer.join(node.crowd, self._clock(node))
        else:
            node.acts_s = self.now_s
        for other in self.nodes:
            if other is not node and other.up and self._connected(node, other):
                self._at(self.now_s + self._random.uniform(*self.scenario.meets_s), partial(self._meet, node, other))

    def _meet(self, one: _Node, other: _Node) -> None:
        if not (one.up and other.up and self._connected(one, other)):
            return
        for a, b in ((one, other), (other, one)):
            if b.number in a.banned or a.number in b.banned:
                return
            a.met.add(b.number)
            if a.done_s is None:
                self._send_claims(a, [b])
            if a.held and b.number in a.neighbours:
                self._send_haves(a, b, a.held)

    def _connected(self, one: _Node, other: _Node) -> bool:
        return not self._split or one.spec.group == other.spec.group

    def _die(self, node: _Node) -> None:
        if not node.up:
            return
        node.up = False
        node.gets.clear()
        node.getting.clear()
        for follow in node.follows.values():
            self.nodes[follow.giver].followers[follow.unit] -= 1
        node.follows.clear()
        for other in self.nodes:
            if other is not node:
                self._at(self.now_s + node.spec.noticed_s, partial(self._lose, other, node))
        for number, one in list(node.open.values()):
            queue = self.nodes[number].queues.get(node.number)
            if queue is not None and one in queue:
                queue.remove(one)
        node.open.clear()

    def _lose(self, node: _Node, gone: _Node) -> None:
        node.met.discard(gone.number)
        if node.crowd is not None:
            node.crowd.others.left(gone.name)
        node.dirty = True
        if node.transfer is None or node.done_s is not None:
            return
        node.transfer.peer_gone(gone.number)
        queue = gone.queues.pop(node.number, deque())
        for one in queue:
            self._ended(node, one, PeerTrouble.GONE)
        for follow in [one for one in node.follows.values() if one.giver == gone.number]:
            self._follow_ended(node, follow, PeerTrouble.GONE)

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
        if since_s < self.scenario.tell_s:
            return
        if crowd.generation == node.told_generation and since_s < PROGRESS_S:
            return
        claims = crowd.claims()
        if claims == node.told_claims:
            return
        node.told_s, node.told_generation, node.told_claims = self.now_s, crowd.generation, claims
        self._send_claims(node, self._met(node))

    def _met(self, node: _Node) -> list[_Node]:
        return [self.nodes[number] for number in sorted(node.met)]

    def _send_claims(self, node: _Node, others: list[_Node]) -> None:
        if not self.scenario.crowd:
            return
        claims = list(node.told_claims)
        self._control_bytes += len(others) * (MESSAGE_BYTES + CLAIM_BYTES * len(claims))
        downloading = node.done_s is None
        self._at(self.now_s + self.scenario.latency_s, lambda: self._hear(node, others, downloading, claims))

    def _hear(self, node: _Node, hears: list[_Node], downloading: bool, claims: list[Told]) -> None:
        for other in hears:
            if other.crowd is None or not other.up or other.done_s is not None or node.number not in other.met:
                continue
            held = other.crowd.others.heard(node.name, downloading, claims, self._clock(other))
            other.dirty = True
            for unit in held:
                self._learn(other, unit, node)

    def _learn(self, node: _Node, unit: int, holder: _Node) -> None:
        """A node asks who has a unit for its manifest."""
        if unit in node.knows or holder.spec.liar is not None:
            return
        node.knows.add(unit)
        if node.transfer is None or node.transfer.knowledge.knows_xorb(self._fetch_xorb[unit]):
            return
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
        node.tells_haves_s = self.now_s + self.scenario.tell_s
        new = normalized(node.proved, self.scenario.file.plan.chunk_count)
        node.proved = []
        for first, end in new:
            node.held = added(node.held, first, end)
        for number in sorted(node.neighbours & node.met):
            if self.nodes[number].done_s is None:
                self._send_haves(node, self.nodes[number], new)

    def _send_haves(self, node: _Node, other: _Node, ranges: Ranges) -> None:
        self._control_bytes += MESSAGE_BYTES + RANGE_BYTES * len(ranges)
        file = self.scenario.file

        def heard() -> None:
            if other.transfer is None or other.done_s is not None or node.number not in other.met:
                return
            if not (node.up and other.up):
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
            self._lie(node, node.spec.liar)
            return
        transfer = node.transfer
        assert transfer is not None
        if node.done_s is not None:
            self._tell_haves(node)
            return
        clock_s = self._clock(node)
        if node.gets:
            transfer.cdn_brought({number: int(get.sent - get.begun) for number, get in node.gets.items()}, clock_s)
        if node.follows:
            transfer.followed({number: int(one.sent - one.begun) for number, one in node.follows.items()}, clock_s)
        if transfer.complete and transfer.finish() is not None:
            self._finish(node, transfer)
            return
        since_s = self.now_s - node.spec.start_s
        waits, may_come = since_s < self.scenario.waits_s, since_s < self.scenario.may_come_s
        for action in transfer.actions(clock_s, waits, may_come):
            self._begin(node, action)
        for name in transfer.take_liars():
            self._ban(node, self.nodes[self._by_name[name]])
        self._note_decisions(node, transfer)
        self._tell(node)
        self._tell_haves(node)

    def _finish(self, node: _Node, transfer: Transfer) -> None:
        node.done_s = self.now_s
        assert transfer.counts.total == self.scenario.file.plan.size_bytes
        node.told_claims = []
        self._send_claims(node, self._met(node))
        node.tells_haves_s = 0.0
        self._tell_haves(node)

    def _ban(self, node: _Node, liar: _Node) -> None:
        assert liar.spec.liar is not None, "who does not lie is banned"
        node.banned.add(liar.number)
        self._lose(node, liar)

    def _note_decisions(self, node: _Node, transfer: Transfer) -> None:
        crowd = node.crowd
        if crowd is None:
            return
        for decision in transfer.take_decisions():
            self._reasons[decision.reason.name] = self._reasons.get(decision.reason.name, 0) + 1
            if self.scenario.log is not None:
                self.scenario.log(
                    f"{self.now_s:9.2f} node {node.number}: unit {decision.fetch}: {decision.reason.value}"
                    f" ({crowd.pace.allowed} at once, {crowd.pace.bytes_s * self._scale / 1e6:.1f} MB/s)"
                )

    def _begin(self, node: _Node, action: Action) -> None:
        latency_s = self.scenario.latency_s
        if isinstance(action, AskPeer):
            self._ask(node, action)
        elif isinstance(action, CancelPeer):
            number, one = node.open[action.assignment]
            self.nodes[number].queues[node.number].remove(one)
            self._ended(node, one, PeerTrouble.CANCELLED)
        elif isinstance(action, StopGet):
            self._stop_get(node, action)
        elif isinstance(action, Follow):
            giver = self._by_name[action.member]
            unit = self._unit_of[action.fetch.source]
            followers = self.nodes[giver].followers
            followers[unit] = followers.get(unit, 0) + 1
            begins_s = self.now_s + 2 * latency_s
            begun = _begun_bytes(action)
            node.follows[action.assignment] = _Follow(action, giver, unit, begins_s, begins_s, begun, begun)
            self._control_bytes += MESSAGE_BYTES
            self._follows += 1
        elif isinstance(action, StopFollow):
            follow = node.follows.get(action.assignment)
            if follow is not None:
                self._follow_ended(node, follow, PeerTrouble.CANCELLED)
        elif isinstance(action, FetchWhole):
            size, begun = action.fetch.size_bytes, _begun_bytes(action)
            node.gets[action.assignment] = _Get(action, size, self.now_s + 2 * latency_s, begun, begun)
            node.getting[self._unit_of[action.fetch.source]] = action.assignment
            self._gets += 1
        elif isinstance(action, FetchRun):
            size = action.byte_end - action.byte_start
            node.gets[action.assignment] = _Get(action, size, self.now_s + 4 * latency_s)
            self._gets += 1
        if isinstance(action, FetchWhole | FetchRun) and self.scenario.log is not None:
            self.scenario.log(f"{self.now_s:9.2f} node {node.number}: GET {action}"[:200])

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
        node.transfer.peer_ended(one.action.assignment, written, trouble, self._clock(node))
        node.dirty = True

    def _follow_ended(self, node: _Node, one: _Follow, trouble: PeerTrouble | None) -> None:
        del node.follows[one.action.assignment]
        giver = self.nodes[one.giver]
        giver.followers[one.unit] -= 1
        if node.transfer is None or node.done_s is not None:
            return
        chunks = self._content(one.action)
        if trouble is not None:
            chunks = chunks.slice(0, int(one.sent // CHUNK_BYTES))
        at = 32 * int(one.begun // CHUNK_BYTES)
        if giver.spec.liar == "spoils" and len(chunks.hashes) > at:
            hashes = chunks.hashes[:at] + bytes(len(chunks.hashes) - at)
            chunks = Manifest(hashes, array("I", chunks.lengths))
        node.transfer.follow_ended(one.action.assignment, chunks, trouble, self._clock(node))
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
        action = get.action
        del node.gets[action.assignment]
        if isinstance(action, FetchWhole):
            unit = self._unit_of[action.fetch.source]
            del node.getting[unit]
            if get.size == action.fetch.size_bytes:
                node.fetched.add(unit)
        if node.transfer is None or node.done_s is not None:
            return
        chunks = self._content(action) if isinstance(action, FetchWhole) else action.chunks
        chunks = chunks.slice(0, min(len(chunks), round(get.size / CHUNK_BYTES)))
        node.transfer.cdn_ended(action.assignment, chunks, self._clock(node))
        node.dirty = True

    def _content(self, action: FetchWhole | Follow) -> Manifest:
        """What was there, whatever it is, and the truth behind it."""
        truth = self.scenario.file.truth(action.fetch.source)
        if action.begun is None:
            return truth
        return Manifest.join([action.begun.chunks, truth.slice(len(action.begun.chunks), len(truth))])

    def _lie(self, node: _Node, kind: str) -> None:
        claims = self._lies.claims(kind, self.now_s)
        if claims != node.told_claims and self.now_s - node.told_s >= self.scenario.tell_s:
            node.told_s, node.told_claims = self.now_s, claims
            self._send_claims(node, self._met(node))
        if kind == "haves" and not node.held:
            node.held = ((0, self.scenario.file.plan.chunk_count),)
            for other in self._met(node):
                self._send_haves(node, other, node.held)

    # --- bytes --------------------------------------------------------------------------------------------------------

    def _flow(self, passed_s: float) -> None:
        scale, scenario = self._scale, self.scenario
        links: list[Link] = []
        carry: list[Callable[[float], None]] = []
        for node in self.nodes:
            if not node.up:
                continue
            if node.queues:
                self._queue_links(node, links, carry)
            for follow in list(node.follows.values()):
                self._follow_link(node, follow, passed_s, links, carry)
            for get in node.gets.values():
                if get.begins_s <= self.now_s:
                    most = min(get.size - get.sent, scenario.per_connection_bytes_s * passed_s / scale)
                    links.append((_ORIGIN, node.number, most))
                    carry.append(partial(self._bring, node, get))
        up = {_ORIGIN: scenario.origin_bytes_s * passed_s / scale}
        down = {}
        for giver, taker, _ in links:
            if giver not in up:
                up[giver] = self.nodes[giver].spec.up_bytes_s * passed_s / scale
            if taker not in down:
                down[taker] = self.nodes[taker].spec.down_bytes_s * passed_s / scale
        for one, size in zip(carry, shares(links, up, down), strict=True):
            one(size)

    def _queue_links(self, node: _Node, links: list[Link], carry: list[Callable[[float], None]]) -> None:
        latency_s = self.scenario.latency_s
        for asker, queue in list(node.queues.items()):
            if not queue:
                del node.queues[asker]
            elif node.spec.liar is not None:
                while queue and self.now_s - queue[0].asked_s >= 2 * latency_s:
                    self._ended(self.nodes[asker], queue.popleft(), PeerTrouble.LACKS)
            elif queue[0].asked_s <= self.now_s - latency_s:
                links.append((node.number, asker, sum(one.size - one.sent for one in queue)))
                carry.append(partial(self._send, asker, queue))

    def _follow_link(
        self,
        node: _Node,
        one: _Follow,
        passed_s: float,
        links: list[Link],
        carry: list[Callable[[float], None]],
    ) -> None:
        giver = self.nodes[one.giver]
        # Who is gone is noticed later.
        if one.begins_s > self.now_s or not giver.up:
            return
        come = self._come(giver, one)
        if come is None:
            self._follow_ended(node, one, PeerTrouble.LACKS)
        elif one.sent == one.begun and giver.followers[one.unit] > MAX_FOLLOWERS:
            self._follow_ended(node, one, PeerTrouble.BUSY)
        elif self.now_s - one.heard_s >= SILENT_S:
            self._follow_ended(node, one, PeerTrouble.SILENT)
        elif come > one.sent:
            most = come - one.sent
            if giver.spec.liar == "trickles":
                most = min(most, TRICKLE_BYTES_S * passed_s / self._scale)
            links.append((giver.number, node.number, most))
            carry.append(partial(self._pass_on, node, one))

    def _come(self, giver: _Node, one: _Follow) -> float | None:
        """How many bytes of a unit a member can pass on; None: it does not fetch it, or not what is wanted first."""
        size = one.action.fetch.size_bytes
        if giver.spec.liar is not None:
            return size if giver.spec.liar in ("trickles", "spoils") else 0
        if one.unit in giver.fetched:
            return size
        number = giver.getting.get(one.unit)
        get = None if number is None else giver.gets[number]
        return None if get is None or one.begun < get.begun else get.sent

    def _bring(self, node: _Node, get: _Get, size: float) -> None:
        get.sent += size
        self._origin_bytes += size
        if get.sent >= get.size - 1e-3:
            self._get_ended(node, get)

    def _pass_on(self, node: _Node, one: _Follow, size: float) -> None:
        if size > 0:
            one.heard_s = self.now_s
        one.sent += size
        self._payload_bytes += size
        if one.sent >= one.action.fetch.size_bytes - 1e-3:
            self._follow_ended(node, one, None)

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


def _begun_bytes(action: FetchWhole | Follow) -> int:
    return 0 if action.begun is None else action.begun.size_bytes
