"""A whole crowd on a virtual clock: every node's real transfer and crowd, with links, messages and an origin made up.

Each host has a line up and a line down, which peers and the origin share; the origin has one line for all, and a limit
per connection if wanted. Links share lines evenly, and what one of them cannot use the others get. What nodes tell each
other comes after a latency. A run is the same whenever it is made with the same seed.
"""

from __future__ import annotations

import itertools
from functools import partial

from zest_hf.bench.crowd_nodes import Node
from zest_hf.bench.crowd_talk import Talk
from zest_hf.bench.crowd_traffic import Traffic
from zest_hf.bench.crowd_world import World
from zest_hf.bench.liars import Lies
from zest_hf.bench.scenario import NodeSpec, Outcome, Scenario, bound_s
from zest_hf.core.actions import FetchRun, FetchWhole
from zest_hf.core.crowd import Crowd
from zest_hf.core.policy import PolicySettings
from zest_hf.core.transfer import Transfer

__all__ = ["NodeSpec", "Outcome", "Scenario", "Simulation"]

ACTS_S = 0.1
"""Who hears nothing looks what to do so often."""
LOG_CHARACTERS = 200
"""Of a line: an action can be long."""


class Simulation:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._world = World(scenario)
        self._talk = Talk(self._world)
        self._traffic = Traffic(self._world)
        self._policy = scenario.file.policy(PolicySettings())
        self._crowd = scenario.file.crowd()
        self._lies = Lies(self._world.units, self._world.random)

    def run(self) -> Outcome:
        """Raises TimeoutError when it takes longer than the scenario says."""
        scenario, world = self._scenario, self._world
        for node in world.nodes:
            world.at(node.spec.start_s, partial(self._start, node))
            if node.spec.dies_s < float("inf"):
                world.at(node.spec.dies_s, partial(self._die, node))
        if scenario.split_s is not None:
            world.at(scenario.split_s[0], lambda: self._cut(True))
            world.at(scenario.split_s[1], lambda: self._cut(False))
        waited_for = [node for node in world.nodes if node.spec.liar is None and node.spec.dies_s == float("inf")]
        while any(node.done_s is None for node in waited_for):
            if world.now_s > scenario.latest_s:
                raise TimeoutError(f"{sum(node.done_s is None for node in waited_for)} nodes are not done")
            world.happen()
            for node in world.nodes:
                if node.up and (node.dirty or node.acts_s <= world.now_s):
                    self._act(node)
            self._traffic.flow(scenario.tick_s)
            world.now_s += scenario.tick_s
        return self._outcome(waited_for)

    def _outcome(self, waited_for: list[Node]) -> Outcome:
        counts, scale = self._world.counts, self._scenario.file.scale
        first_s = min(node.spec.start_s for node in waited_for)
        size = self._scenario.file.plan.size_bytes * scale
        return Outcome(
            size,
            counts.origin_bytes * scale,
            [node.done_s - first_s for node in waited_for if node.done_s is not None],
            counts.control_bytes,
            counts.payload_bytes * scale,
            bound_s(self._scenario, [node.spec for node in waited_for], size),
            counts.gets,
            counts.follows,
            counts.reasons,
        )

    # --- who is there ---------------------------------------------------------------------------------------------

    def _start(self, node: Node) -> None:
        file, world = self._scenario.file, self._world
        node.up = True
        if node.spec.liar is None:
            node.crowd = Crowd(node.name, world.units, self._crowd) if self._scenario.crowd else None
            node.transfer = Transfer(file.plan, file.file_hash, self._policy, node.number)
            if node.crowd is not None:
                node.transfer.join(node.crowd, world.clock(node))
        else:
            node.acts_s = world.now_s
        for other in world.nodes:
            if other is not node and other.up and world.are_connected(node, other):
                meets_s = world.now_s + world.random.uniform(*self._scenario.meets_s)
                world.at(meets_s, partial(self._meet, node, other))

    def _meet(self, one: Node, other: Node) -> None:
        if not (one.up and other.up and self._world.are_connected(one, other)):
            return
        if other.number in one.banned or one.number in other.banned:
            return
        for a, b in ((one, other), (other, one)):
            a.met.add(b.number)
            if a.done_s is None:
                self._talk.send_claims(a, [b])
            if a.held and b.number in a.neighbours:
                self._talk.send_haves(a, [b], a.held)

    def _die(self, node: Node) -> None:
        if not node.up:
            return
        node.up = False
        self._traffic.died(node)
        for other in self._world.nodes:
            if other is not node:
                self._world.at(self._world.now_s + node.spec.noticed_s, partial(self._lose, other, node))

    def _lose(self, node: Node, gone: Node) -> None:
        node.met.discard(gone.number)
        if node.crowd is not None:
            node.crowd.others.left(gone.name)
        node.dirty = True
        if node.transfer is not None and node.done_s is None:
            node.transfer.peer_gone(gone.number)
            self._traffic.lost(node, gone)

    def _cut(self, split: bool) -> None:
        self._world.split(split)
        for one, other in itertools.combinations(self._world.nodes, 2):
            if one.spec.group != other.spec.group and one.up and other.up:
                if split:
                    self._lose(one, other)
                    self._lose(other, one)
                else:
                    self._meet(one, other)

    # --- what nodes do --------------------------------------------------------------------------------------------

    def _act(self, node: Node) -> None:
        world, transfer = self._world, node.transfer
        node.dirty = False
        node.acts_s = world.now_s + ACTS_S
        if node.spec.liar is not None:
            self._lie(node, node.spec.liar)
            return
        assert transfer is not None
        if node.done_s is not None:
            self._talk.tell_haves(node)
            return
        clock_s = world.clock(node)
        if node.gets:
            transfer.cdn_brought({number: int(get.sent - get.begun) for number, get in node.gets.items()}, clock_s)
        if node.follows:
            transfer.followed({number: int(one.sent - one.begun) for number, one in node.follows.items()}, clock_s)
        if transfer.complete and transfer.finish() is not None:
            self._finish(node, transfer)
            return
        since_s = world.now_s - node.spec.start_s
        waits, may_come = since_s < self._scenario.waits_s, since_s < self._scenario.may_come_s
        for action in transfer.actions(clock_s, waits, may_come):
            self._traffic.begin(node, action)
            if isinstance(action, FetchWhole | FetchRun):
                self._log(node, action)
        for name in transfer.take_liars():
            self._ban(node, world.by_name[name])
        self._note_decisions(node, transfer)
        self._talk.tell_claims(node)
        self._talk.tell_haves(node)

    def _finish(self, node: Node, transfer: Transfer) -> None:
        node.done_s = self._world.now_s
        assert transfer.counts.total == self._scenario.file.plan.size_bytes
        self._talk.tell(node, [])
        node.tells_haves_s = 0.0
        self._talk.tell_haves(node)

    def _ban(self, node: Node, liar: Node) -> None:
        assert liar.spec.liar is not None, "who does not lie is banned"
        node.banned.add(liar.number)
        self._lose(node, liar)

    def _note_decisions(self, node: Node, transfer: Transfer) -> None:
        crowd, reasons = node.crowd, self._world.counts.reasons
        if crowd is None:
            return
        for decision in transfer.take_decisions():
            reasons[decision.reason.name] = reasons.get(decision.reason.name, 0) + 1
            rate = crowd.pace.bytes_s * self._scenario.file.scale / 1e6
            pace = f"{crowd.pace.allowed} at once, {rate:.1f} MB/s"
            self._log(node, f"unit {decision.fetch}: {decision.reason.value} ({pace})")

    def _lie(self, node: Node, kind: str) -> None:
        world = self._world
        claims = self._lies.claims(kind, world.now_s)
        if claims != node.told_claims and world.now_s - node.told_s >= self._scenario.tell_s:
            self._talk.tell(node, claims)
        if kind == "haves" and not node.held:
            node.held = ((0, self._scenario.file.plan.chunk_count),)
            self._talk.send_haves(node, [world.nodes[number] for number in sorted(node.met)], node.held)

    def _log(self, node: Node, what: object) -> None:
        if self._scenario.log is not None:
            self._scenario.log(f"{self._world.now_s:9.2f} node {node.number}: {what}"[:LOG_CHARACTERS])
