"""Several downloads of one file at the same time, virtual seeders and a CDN, on a virtual clock.

Every node has one line up and one line down. A link sends what it was asked for in order; links share the lines of
both their ends, each the lesser of an equal part of either. What a node has proved it offers: the others are told
after a moment. Nodes that are not downloads are described by what they hold, and by how they fail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from layouts import Layout

from zest_hf.core.actions import AskPeer, CancelPeer, FetchRun, FetchWhole, PeerTrouble, ReplaceGet, StopGet
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.policy import PolicySettings
from zest_hf.core.ranges import Ranges, contains, normalized
from zest_hf.core.transfer import Counts, Transfer

TICK_S = 0.02
TELL_S = 0.1
"""Haves are told so often."""


@dataclass
class Node:
    """``file``: what it downloads. Else it holds ``holds`` (chunks of the crowd's file), or whole ``xorbs``."""

    up_bytes_s: float
    down_bytes_s: float = 125e6
    file: Layout | None = None
    holds: Ranges = ()
    xorbs: tuple[XetHash, ...] = ()
    knows_manifest: bool = False
    answer: PeerTrouble | None = None
    """Instead of giving anything it says this (SILENT: nothing)."""
    transfer: Transfer | None = None
    done_s: float | None = None
    sent_bytes: float = 0.0
    proved: Ranges = ()
    told: Ranges = ()
    links: dict[int, list[_Request]] = field(default_factory=dict)
    """What this node was asked for, by who asks."""


@dataclass
class _Request:
    action: AskPeer
    size: float
    asked_s: float
    sent: float = 0.0


@dataclass
class _Get:
    action: FetchWhole | FetchRun
    chunks: Manifest
    """What is wanted of it."""
    size: float
    sent: float = 0.0


class Crowd:
    """See the module. ``cdn_bytes_s``: of each node's own way to the CDN."""

    def __init__(
        self, nodes: list[Node], cdn_bytes_s: float, policy: PolicySettings | None = None, latency_s: float = 0.02
    ) -> None:
        self.nodes = nodes
        self.now_s = 0.0
        self._policy = policy or PolicySettings()
        self._latency_s = latency_s
        self._cdn_bytes_s = cdn_bytes_s
        self._gets: dict[int, dict[int, _Get]] = {number: {} for number in range(len(nodes))}
        self._next_tell_s = 0.0
        for number, node in enumerate(nodes):
            if node.file is not None:
                node.transfer = Transfer(node.file.plan, node.file.file_hash, self._policy, seed=number)

    @property
    def loaders(self) -> list[Node]:
        return [node for node in self.nodes if node.transfer is not None]

    def counts(self) -> list[Counts]:
        return [node.transfer.counts for node in self.loaders if node.transfer is not None]

    def run(self, limit_s: float = 1e4) -> float:
        """Until all are done; when the last was."""
        self._introduce()
        while any(node.done_s is None for node in self.loaders):
            assert self.now_s < limit_s, "the downloads do not end"
            for number, node in enumerate(self.nodes):
                self._act(number, node)
            if self.now_s >= self._next_tell_s:
                self._next_tell_s = self.now_s + TELL_S
                self._tell()
            self._flow(TICK_S)
            self.now_s += TICK_S
        return max(node.done_s or 0.0 for node in self.loaders)

    # --- who holds what --------------------------------------------------------------------------------------

    def _introduce(self) -> None:
        for me in self.loaders:
            assert me.transfer is not None and me.file is not None
            for number, other in enumerate(self.nodes):
                if other is me:
                    continue
                if other.holds:
                    me.transfer.peer_holds(number, other.holds)
                for xorb in other.xorbs:
                    manifest = me.file.xorbs.get(xorb)
                    if manifest is not None:
                        me.transfer.peer_holds_more(number, [(0, len(manifest))], xorb)
                        me.transfer.xorb_proved(xorb, manifest)
                if other.knows_manifest:
                    me.transfer.manifest_proved(me.file.manifest)

    def _tell(self) -> None:
        for number, node in enumerate(self.nodes):
            if node.transfer is None or node.file is None:
                continue
            node.proved = normalized([*node.proved, *node.transfer.take_proved()], len(node.file.manifest))
            if node.proved == node.told:
                continue
            node.told = node.proved
            for other in self.loaders:
                if other is not node and other.transfer is not None and other.done_s is None:
                    other.transfer.peer_holds_more(number, node.told)

    # --- what is asked ---------------------------------------------------------------------------------------

    def _act(self, number: int, node: Node) -> None:
        transfer = node.transfer
        if transfer is None or node.done_s is not None or node.file is None:
            return
        if transfer.complete and transfer.finish() is not None:
            node.done_s = self.now_s
            assert transfer.counts.total == node.file.manifest.size_bytes
            for other in self.nodes:
                other.links.pop(number, None)
            return
        transfer.cdn_brought({n: int(get.sent) for n, get in self._gets[number].items()}, self.now_s)
        for action in transfer.actions(self.now_s, False):
            if isinstance(action, CancelPeer):
                queue = self.nodes[action.peer].links[number]
                (one,) = [one for one in queue if one.action.assignment == action.assignment]
                queue.remove(one)
                self._ended(node, one, PeerTrouble.CANCELLED)
            elif isinstance(action, ReplaceGet):
                pass  # every connection to this CDN is as good as the others
            elif isinstance(action, StopGet):
                get = self._gets[number][action.assignment]
                # What is unpacked as it comes is as far as a share of the bytes.
                done = math.ceil(len(get.chunks) * get.sent / get.size) if get.size else 0
                stops = min(len(get.chunks), max(done, action.chunks))
                get.size *= stops / max(len(get.chunks), 1)
                get.chunks = get.chunks.slice(0, stops)
                transfer.cdn_stops(action.assignment, stops)
            elif isinstance(action, AskPeer):
                first, end = action.first, action.first + action.count
                size = node.file.manifest.offset(end) - node.file.manifest.offset(first)
                owner = self.nodes[action.peer]
                held = owner.holds or owner.told
                assert owner.xorbs or contains(held, first, end)
                owner.links.setdefault(number, []).append(_Request(action, size, self.now_s))
            else:
                whole = isinstance(action, FetchWhole)
                size = action.fetch.size_bytes if whole else action.byte_end - action.byte_start
                chunks = node.file.truth(action.fetch.source) if whole else action.chunks
                self._gets[number][action.assignment] = _Get(action, chunks, size)

    def _ended(self, node: Node, one: _Request, trouble: PeerTrouble | None) -> None:
        assert node.transfer is not None and node.file is not None
        offset = node.file.manifest.offset
        written = 0
        while (
            written < one.action.count
            and offset(one.action.first + written + 1) - offset(one.action.first) <= one.sent + 1e-3
        ):
            written += 1
        if trouble is None:
            assert written == one.action.count
        node.transfer.peer_ended(one.action.assignment, written, trouble, self.now_s)

    # --- bytes -----------------------------------------------------------------------------------------------

    def _flow(self, passed_s: float) -> None:
        for number, node in enumerate(self.nodes):
            gets = self._gets[number]
            for get in list(gets.values()):
                get.sent += passed_s * self._cdn_bytes_s / len(gets)
                if get.sent >= get.size:
                    self._get_ended(number, node, get)
        coming = dict.fromkeys(range(len(self.nodes)), 0)
        for node in self.nodes:
            for asker, queue in node.links.items():
                coming[asker] += bool(queue) and node.answer is None
        for node in self.nodes:
            for asker, queue in list(node.links.items()):
                if node.answer is not None:
                    self._refuse(node, asker, queue)
                    continue
                active = sum(bool(one) for one in node.links.values())
                if not queue or queue[0].asked_s + self._latency_s > self.now_s:
                    continue
                rate = min(
                    node.up_bytes_s / active, self.nodes[asker].down_bytes_s / max(coming[asker], 1)
                )
                self._send(node, asker, queue, rate * passed_s)

    def _send(self, node: Node, asker: int, queue: list[_Request], room: float) -> None:
        while queue and room > 0:
            one = queue[0]
            taken = min(room, one.size - one.sent)
            one.sent += taken
            room -= taken
            node.sent_bytes += taken
            if one.sent >= one.size - 1e-3:
                queue.pop(0)
                self._ended(self.nodes[asker], one, None)

    def _refuse(self, node: Node, asker: int, queue: list[_Request]) -> None:
        after_s = self._policy.piece_silence_s if node.answer is PeerTrouble.SILENT else self._latency_s
        for one in [one for one in queue if self.now_s - one.asked_s >= after_s]:
            queue.remove(one)
            self._ended(self.nodes[asker], one, node.answer)

    def _get_ended(self, number: int, node: Node, get: _Get) -> None:
        assert node.transfer is not None and node.file is not None
        del self._gets[number][get.action.assignment]
        node.transfer.cdn_ended(get.action.assignment, get.chunks, self.now_s)


def seeder(file: Layout, up_bytes_s: float) -> Node:
    """It holds all of the file."""
    return Node(up_bytes_s, holds=((0, len(file.manifest)),), knows_manifest=True)


