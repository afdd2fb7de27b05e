"""What the nodes of a simulated crowd tell each other, when it is heard, and how many bytes that takes."""

from __future__ import annotations

from zest_hf.bench.crowd_nodes import Node
from zest_hf.bench.crowd_world import World
from zest_hf.core.crowd_claims import Told
from zest_hf.core.ranges import Ranges, added, normalized

PROGRESS_S = 0.5
"""Mere progress is told so often."""
MESSAGE_BYTES = 100
"""Of one message with everything around it;"""
CLAIM_BYTES = 11
RANGE_BYTES = 8
MANIFEST_BYTES = 36 * 1024
"""... of a xorb's manifest."""


class Talk:
    """Of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._latency_s = world.scenario.latency_s
        self._chunks = world.file.plan.chunk_count
        self._xorbs = [fetch.source.xorb for fetch in world.file.plan.fetches]

    # --- claims ---------------------------------------------------------------------------------------------------

    def tell_claims(self, node: Node) -> None:
        """If there is something new to tell, and it is time."""
        crowd = node.crowd
        if crowd is None:
            return
        since_s = self._world.now_s - node.told_s
        if since_s < self._world.scenario.tell_s:
            return
        if crowd.generation == node.told_generation and since_s < PROGRESS_S:
            return
        claims = crowd.claims()
        if claims == node.told_claims:
            return
        node.told_generation = crowd.generation
        self.tell(node, claims)

    def tell(self, node: Node, claims: list[Told]) -> None:
        """Everybody whom it knows."""
        node.told_s, node.told_claims = self._world.now_s, claims
        self.send_claims(node, [self._world.nodes[number] for number in sorted(node.met)])

    def send_claims(self, node: Node, others: list[Node]) -> None:
        """What it has told last."""
        if not self._world.scenario.crowd:
            return
        claims = list(node.told_claims)
        self._world.counts.control_bytes += len(others) * (MESSAGE_BYTES + CLAIM_BYTES * len(claims))
        downloading = node.done_s is None
        self._world.at(
            self._world.now_s + self._latency_s, lambda: self._hear_claims(node, others, downloading, claims)
        )

    def _hear_claims(self, node: Node, hears: list[Node], downloading: bool, claims: list[Told]) -> None:
        for other in hears:
            if other.crowd is None or not other.up or other.done_s is not None or node.number not in other.met:
                continue
            held = other.crowd.others.heard(node.name, downloading, claims, self._world.clock(other))
            other.dirty = True
            for unit in held:
                self._learn(other, unit, node)

    # --- haves ----------------------------------------------------------------------------------------------------

    def tell_haves(self, node: Node) -> None:
        """If there is something new to offer, and it is time."""
        assert node.transfer is not None
        node.proved += node.transfer.take_proved()
        if not node.proved or self._world.now_s < node.tells_haves_s:
            return
        node.tells_haves_s = self._world.now_s + self._world.scenario.tell_s
        new = normalized(node.proved, self._chunks)
        node.proved = []
        for first, end in new:
            node.held = added(node.held, first, end)
        others = [self._world.nodes[number] for number in sorted(node.neighbours & node.met)]
        self.send_haves(node, [other for other in others if other.done_s is None], new)

    def send_haves(self, node: Node, others: list[Node], ranges: Ranges) -> None:
        self._world.counts.control_bytes += len(others) * (MESSAGE_BYTES + RANGE_BYTES * len(ranges))
        self._world.at(self._world.now_s + self._latency_s, lambda: self._hear_haves(node, others, ranges))

    def _hear_haves(self, node: Node, hears: list[Node], ranges: Ranges) -> None:
        if not node.up:
            return
        units = [unit for first, end in ranges for unit in self._world.units_in(first, end)]
        for other in hears:
            transfer = other.transfer
            if transfer is None or other.done_s is not None or not other.up or node.number not in other.met:
                continue
            transfer.peer_holds_more(node.number, ranges)
            other.dirty = True
            for unit in units:
                if unit not in other.knows:
                    self._learn(other, unit, node)
            if node.transfer is not None and node.transfer.manifest is not None and transfer.manifest is None:
                self._world.counts.control_bytes += MANIFEST_BYTES * len(self._world.units)
                transfer.manifest_proved(self._world.file.manifest)

    # --- manifests ------------------------------------------------------------------------------------------------

    def _learn(self, node: Node, unit: int, holder: Node) -> None:
        """A node asks who has a unit for its manifest."""
        if unit in node.knows or holder.spec.liar is not None:
            return
        node.knows.add(unit)
        if node.transfer is None or node.transfer.knowledge.knows_xorb(self._xorbs[unit]):
            return
        self._world.counts.control_bytes += MANIFEST_BYTES + 4 * MESSAGE_BYTES
        self._world.at(self._world.now_s + 4 * self._latency_s, lambda: self._learned(node, unit))

    def _learned(self, node: Node, unit: int) -> None:
        if node.transfer is not None and node.up and node.done_s is None:
            xorb = self._xorbs[unit]
            node.transfer.xorb_proved(xorb, self._world.file.xorbs[xorb])
            node.dirty = True
