"""What is under way in a simulated crowd, and how many bytes of it each moment brings."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Callable
from functools import partial

from zest_hf.bench.crowd_nodes import Following, Get, Node, Request
from zest_hf.bench.crowd_talk import MESSAGE_BYTES
from zest_hf.bench.crowd_world import World
from zest_hf.bench.lines import Link, shares
from zest_hf.bench.virtual import CHUNK_BYTES
from zest_hf.core.actions import (
    Action,
    AskPeer,
    CancelPeer,
    FetchRun,
    FetchWhole,
    Follow,
    PeerTrouble,
    ReplaceGet,
    StopFollow,
    StopGet,
)
from zest_hf.core.manifest import Manifest

MAX_FOLLOWERS = 8
"""Of one unit, at one member."""
SILENT_S = 3.0
"""Who sends nothing to who follows it for so long is given up."""
TRICKLE_BYTES_S = 1000.0
ROUNDING = 1e-3
"""So many bytes are as good as none."""
_ORIGIN = -1


class Traffic:
    """Of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._nodes = world.nodes
        self._scale = world.file.scale
        self._latency_s = world.scenario.latency_s
        self._links: list[Link] = []
        self._carry: list[Callable[[float], None]] = []
        """What to do with what each link has brought."""

    # --- what begins and ends -------------------------------------------------------------------------------------

    def begin(self, node: Node, action: Action) -> None:
        """A node does what its transfer wants."""
        now_s, counts = self._world.now_s, self._world.counts
        if isinstance(action, AskPeer):
            offset = self._world.file.manifest.offset
            one = Request(action, offset(action.first + action.count) - offset(action.first), now_s)
            counts.control_bytes += MESSAGE_BYTES
            node.open[action.assignment] = action.peer, one
            self._nodes[action.peer].queues.setdefault(node.number, deque()).append(one)
        elif isinstance(action, CancelPeer):
            number, one = node.open[action.assignment]
            self._nodes[number].queues[node.number].remove(one)
            self.request_ended(node, one, PeerTrouble.CANCELLED)
        elif isinstance(action, ReplaceGet):
            pass  # every connection to this CDN is as good as the others
        elif isinstance(action, StopGet):
            self._stop_get(node, action)
        elif isinstance(action, Follow):
            giver = self._world.by_name[action.member]
            unit = self._world.unit_of[action.fetch.source]
            giver.followers[unit] = giver.followers.get(unit, 0) + 1
            begins_s = now_s + 2 * self._latency_s
            begun = _begun_bytes(action)
            node.follows[action.assignment] = Following(action, giver.number, unit, begins_s, begins_s, begun, begun)
            counts.control_bytes += MESSAGE_BYTES
            counts.follows += 1
        elif isinstance(action, StopFollow):
            follow = node.follows.get(action.assignment)
            if follow is not None:
                self.follow_ended(node, follow, PeerTrouble.CANCELLED)
        elif isinstance(action, FetchWhole):
            begun = _begun_bytes(action)
            begins_s = now_s + 2 * self._latency_s
            node.gets[action.assignment] = Get(action, action.fetch.size_bytes, begins_s, begun, begun)
            node.getting[self._world.unit_of[action.fetch.source]] = action.assignment
            counts.gets += 1
        elif isinstance(action, FetchRun):
            size = action.byte_end - action.byte_start
            node.gets[action.assignment] = Get(action, size, now_s + 4 * self._latency_s)
            counts.gets += 1

    def request_ended(self, node: Node, one: Request, trouble: PeerTrouble | None) -> None:
        """What a node has asked a peer for is over."""
        node.open.pop(one.action.assignment, None)
        if node.transfer is None or node.done_s is not None:
            return
        offset, first = self._world.file.manifest.offset, one.action.first
        written = one.action.count
        if trouble is not None:
            written = 0
            while offset(first + written + 1) - offset(first) <= one.sent:
                written += 1
        node.transfer.peer_ended(one.action.assignment, written, trouble, self._world.clock(node))
        node.dirty = True

    def follow_ended(self, node: Node, one: Following, trouble: PeerTrouble | None) -> None:
        """A node does not follow another any more."""
        del node.follows[one.action.assignment]
        giver = self._nodes[one.giver]
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
        node.transfer.follow_ended(one.action.assignment, chunks, trouble, self._world.clock(node))
        node.dirty = True

    def died(self, node: Node) -> None:
        """Nobody has to give anything to a node any more. What it was to give others wait for, for a while."""
        node.gets.clear()
        node.getting.clear()
        for follow in node.follows.values():
            self._nodes[follow.giver].followers[follow.unit] -= 1
        node.follows.clear()
        for number, one in list(node.open.values()):
            queue = self._nodes[number].queues.get(node.number)
            if queue is not None and one in queue:
                queue.remove(one)
        node.open.clear()

    def lost(self, node: Node, gone: Node) -> None:
        """A node gets no more from another."""
        for one in gone.queues.pop(node.number, deque()):
            self.request_ended(node, one, PeerTrouble.GONE)
        for follow in [one for one in node.follows.values() if one.giver == gone.number]:
            self.follow_ended(node, follow, PeerTrouble.GONE)

    def _stop_get(self, node: Node, action: StopGet) -> None:
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

    def _get_ended(self, node: Node, get: Get) -> None:
        action = get.action
        del node.gets[action.assignment]
        if isinstance(action, FetchWhole):
            unit = self._world.unit_of[action.fetch.source]
            del node.getting[unit]
            if get.size == action.fetch.size_bytes:
                node.fetched.add(unit)
        if node.transfer is None or node.done_s is not None:
            return
        chunks = self._content(action) if isinstance(action, FetchWhole) else action.chunks
        chunks = chunks.slice(0, min(len(chunks), round(get.size / CHUNK_BYTES)))
        node.transfer.cdn_ended(action.assignment, chunks, self._world.clock(node))
        node.dirty = True

    def _content(self, action: FetchWhole | Follow) -> Manifest:
        """What was there, whatever it is, and the truth behind it."""
        truth = self._world.file.truth(action.fetch.source)
        if action.begun is None:
            return truth
        return Manifest.join([action.begun.chunks, truth.slice(len(action.begun.chunks), len(truth))])

    # --- bytes ----------------------------------------------------------------------------------------------------

    def flow(self, passed_s: float) -> None:
        """Everything that is under way goes on for a moment."""
        scenario = self._world.scenario
        self._links, self._carry = [], []
        for node in self._nodes:
            if not node.up:
                continue
            if node.queues:
                self._add_queues(node)
            for follow in list(node.follows.values()):
                self._add_follow(node, follow, passed_s)
            for get in node.gets.values():
                if get.begins_s <= self._world.now_s:
                    most = min(get.size - get.sent, scenario.per_connection_bytes_s * passed_s / self._scale)
                    self._add(_ORIGIN, node.number, most, partial(self._bring, node, get))
        up = {_ORIGIN: scenario.origin_bytes_s * passed_s / self._scale}
        down = {}
        for giver, taker, _ in self._links:
            if giver not in up:
                up[giver] = self._nodes[giver].spec.up_bytes_s * passed_s / self._scale
            if taker not in down:
                down[taker] = self._nodes[taker].spec.down_bytes_s * passed_s / self._scale
        for carry, size in zip(self._carry, shares(self._links, up, down), strict=True):
            carry(size)

    def _add(self, giver: int, taker: int, most: float, carry: Callable[[float], None]) -> None:
        self._links.append((giver, taker, most))
        self._carry.append(carry)

    def _add_queues(self, node: Node) -> None:
        now_s = self._world.now_s
        for asker, queue in list(node.queues.items()):
            if not queue:
                del node.queues[asker]
            elif node.spec.liar is not None:
                while queue and now_s - queue[0].asked_s >= 2 * self._latency_s:
                    self.request_ended(self._nodes[asker], queue.popleft(), PeerTrouble.LACKS)
            elif queue[0].asked_s <= now_s - self._latency_s:
                size = sum(one.size - one.sent for one in queue)
                self._add(node.number, asker, size, partial(self._send, asker, queue))

    def _add_follow(self, node: Node, one: Following, passed_s: float) -> None:
        giver, now_s = self._nodes[one.giver], self._world.now_s
        # Who is gone is noticed later.
        if one.begins_s > now_s or not giver.up:
            return
        come = _come(giver, one)
        if come is None:
            self.follow_ended(node, one, PeerTrouble.LACKS)
        elif one.sent == one.begun and giver.followers[one.unit] > MAX_FOLLOWERS:
            self.follow_ended(node, one, PeerTrouble.BUSY)
        elif now_s - one.heard_s >= SILENT_S:
            self.follow_ended(node, one, PeerTrouble.SILENT)
        elif come > one.sent:
            most = come - one.sent
            if giver.spec.liar == "trickles":
                most = min(most, TRICKLE_BYTES_S * passed_s / self._scale)
            self._add(giver.number, node.number, most, partial(self._pass_on, node, one))

    def _bring(self, node: Node, get: Get, size: float) -> None:
        get.sent += size
        self._world.counts.origin_bytes += size
        if get.sent >= get.size - ROUNDING:
            self._get_ended(node, get)

    def _pass_on(self, node: Node, one: Following, size: float) -> None:
        if size > 0:
            one.heard_s = self._world.now_s
        one.sent += size
        self._world.counts.payload_bytes += size
        if one.sent >= one.action.fetch.size_bytes - ROUNDING:
            self.follow_ended(node, one, None)

    def _send(self, asker: int, queue: deque[Request], room: float) -> None:
        while queue and room > 0:
            one = queue[0]
            size = min(room, one.size - one.sent)
            one.sent += size
            room -= size
            self._world.counts.payload_bytes += size
            if one.sent >= one.size - ROUNDING:
                queue.popleft()
                self.request_ended(self._nodes[asker], one, None)


def _come(giver: Node, one: Following) -> float | None:
    """How many bytes of a unit a member can pass on; None: it does not fetch it, or not what is wanted first."""
    size = one.action.fetch.size_bytes
    if giver.spec.liar is not None:
        return size if giver.spec.liar in ("trickles", "spoils") else 0
    if one.unit in giver.fetched:
        return size
    number = giver.getting.get(one.unit)
    get = None if number is None else giver.gets[number]
    return None if get is None or one.begun < get.begun else get.sent


def _begun_bytes(action: FetchWhole | Follow) -> int:
    return 0 if action.begun is None else action.begun.size_bytes
