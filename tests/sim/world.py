"""One download among virtual sources on a virtual clock: `core.transfer` decides, and here is what comes of it.

The CDN shares its rate equally among its GETs, as one line does. A peer sends what it was asked for in order.
Time jumps from one event to the next, so that hours take milliseconds and a run depends on nothing but its
arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from layouts import Layout

from zest_hf.core.actions import Action, AskPeer, CancelPeer, FetchRun, FetchWhole, PeerTrouble, ReplaceGet, StopGet
from zest_hf.core.manifest import Manifest
from zest_hf.core.policy import PolicySettings
from zest_hf.core.transfer import Transfer
from zest_hf.errors import CasUnavailable

TICK_S = 0.1
"""As often as the real loop looks when nothing happens."""


@dataclass
class PeerModel:
    """A peer that was given by hand, or not: then nobody waits for it before it is connected.

    Times are of the simulation; infinity is never.
    """

    rate_bytes_s: float
    connects_s: float = 0.005
    answers_s: float = 0.01
    """When it says what it holds."""
    manifest_s: float = 0.02
    dies_s: float = math.inf
    falls_silent_s: float = math.inf
    holds: tuple[tuple[int, int], ...] | None = None
    """None: all of the file."""
    given: bool = True
    queue: list[list[float]] = field(default_factory=list)
    """What it was asked for: assignment, bytes sent, bytes in all."""
    heard_s: float = 0.0

    def __post_init__(self) -> None:
        self.answers_s = max(self.answers_s, self.connects_s)
        self.manifest_s = max(self.manifest_s, self.answers_s)


@dataclass
class CdnModel:
    rate_bytes_s: float
    latency_s: float = 0.05
    fails: bool = False


@dataclass
class Outcome:
    """How a download went. ``cdn_sent_bytes`` also counts what was asked for twice."""

    took_s: float
    peer_bytes: int
    cdn_bytes: int
    cdn_sent_bytes: float
    log: list[tuple[float, str]]


@dataclass
class _Get:
    action: FetchWhole | FetchRun
    starts_s: float
    chunks: Manifest
    """What is wanted of it."""
    size: float
    sent: float = 0.0


class Simulation:
    """See the module."""

    def __init__(
        self,
        file: Layout,
        cdn: CdnModel,
        peers: list[PeerModel] | None = None,
        policy: PolicySettings | None = None,
        line_bytes_s: float = math.inf,
    ) -> None:
        """``line_bytes_s``: of the line that all of it comes over."""
        self.file, self.cdn, self.peers = file, cdn, peers or []
        self.line_bytes_s = line_bytes_s
        self.policy = policy or PolicySettings()
        self.transfer = Transfer(file.plan, file.file_hash, self.policy)
        self.now_s = 0.0
        self.log: list[tuple[float, str]] = []
        self._gets: dict[int, _Get] = {}
        self._asks: dict[int, AskPeer] = {}
        self._told: set[tuple[str, int]] = set()
        self._sent = 0.0

    def run(self, limit_s: float = 1e6) -> Outcome:
        """To the end. Raises what the transfer raises."""
        answers = 0
        while True:
            self._tell()
            if self.transfer.complete and self.transfer.finish() is not None:
                break
            self.transfer.cdn_brought({n: int(get.sent) for n, get in self._gets.items()}, self.now_s)
            actions = self.transfer.actions(self.now_s, self._waiting())
            for action in actions:
                self._start(action)
            if any(isinstance(action, StopGet) for action in actions):
                # The answer comes at once.
                answers += 1
                assert answers < 1000, "GETs are stopped again and again"
                continue
            answers = 0
            assert self.now_s < limit_s, "the download does not end"
            until_s = min(self._next_s(), self.now_s + TICK_S)
            self._flow(until_s)
            self.now_s = until_s
            self._end()
        counts = self.transfer.counts
        assert counts.total == self.file.manifest.size_bytes
        sent = self._sent + sum(get.sent for get in self._gets.values())
        return Outcome(self.now_s, counts.peer, counts.cdn, sent, self.log)

    # --- what peers do on their own ----------------------------------------------------------------------

    def _tell(self) -> None:
        for number, peer in enumerate(self.peers):
            alive = self.now_s < peer.dies_s
            if alive and self.now_s >= peer.answers_s and self._once("holds", number):
                self.transfer.peer_holds(number, peer.holds or ((0, len(self.file.manifest)),))
            if alive and self.now_s >= peer.manifest_s and self._once("manifest", number):
                self.transfer.manifest_proved(self.file.manifest)
            if not alive and self._once("gone", number):
                self.log.append((self.now_s, f"peer {number} dies"))
                self.transfer.peer_gone(number)
                for assignment, sent, _ in peer.queue:
                    self._peer_ended(int(assignment), sent, PeerTrouble.GONE)
                peer.queue.clear()

    def _once(self, what: str, number: int) -> bool:
        new = (what, number) not in self._told
        self._told.add((what, number))
        return new

    def _waiting(self) -> bool:
        """What the swarm and the peer source know, within their patience."""
        policy = self.policy
        for peer in self.peers:
            if self.now_s >= peer.dies_s:
                continue
            dialled_s = min(peer.connects_s, policy.dial_patience_s)
            answered_s = min(peer.answers_s, peer.connects_s + policy.answer_patience_s)
            manifest_s = min(peer.manifest_s, peer.answers_s + policy.manifest_patience_s)
            if (peer.given and self.now_s < dialled_s) or (
                peer.connects_s <= self.now_s and (self.now_s < answered_s or peer.answers_s <= self.now_s < manifest_s)
            ):
                return True
        return False

    # --- bytes -----------------------------------------------------------------------------------------

    def _start(self, action: Action) -> None:
        self.log.append((self.now_s, f"{type(action).__name__} {action.assignment}"))
        manifest = self.file.manifest
        if isinstance(action, ReplaceGet):
            # Every connection to this CDN is as good as the others.
            return
        if isinstance(action, StopGet):
            get = self._gets[action.assignment]
            done = 0
            while done < len(get.chunks) and get.chunks.offset(done + 1) <= get.sent:
                done += 1
            stops = max(done, action.chunks)
            self._sent += max(0.0, get.sent - get.chunks.offset(stops))
            get.chunks = get.chunks.slice(0, stops)
            get.size = get.chunks.size_bytes
            get.sent = min(get.sent, get.size)
            self.transfer.cdn_stops(action.assignment, stops)
            return
        if isinstance(action, CancelPeer):
            queue = self.peers[action.peer].queue
            (entry,) = [entry for entry in queue if entry[0] == action.assignment]
            queue.remove(entry)
            self._peer_ended(action.assignment, entry[1], PeerTrouble.CANCELLED)
            return
        if isinstance(action, AskPeer):
            peer = self.peers[action.peer]
            if not peer.queue:
                peer.heard_s = self.now_s
            size = manifest.offset(action.first + action.count) - manifest.offset(action.first)
            peer.queue.append([action.assignment, 0.0, size])
            self._asks[action.assignment] = action
            return
        whole = isinstance(action, FetchWhole)
        chunks = self.file.truth(action.fetch.source) if isinstance(action, FetchWhole) else action.chunks
        # A part of a file takes one more question to the CAS.
        latency_s = self.cdn.latency_s * (1 if whole else 2)
        self._gets[action.assignment] = _Get(action, self.now_s + latency_s, chunks, chunks.size_bytes)

    def _flowing(self) -> list[_Get]:
        return [get for get in self._gets.values() if get.starts_s <= self.now_s]

    def _is_silent(self, peer: PeerModel) -> bool:
        return self.now_s >= peer.falls_silent_s

    def _rates(self, flowing: list[_Get]) -> tuple[list[float], list[float]]:
        """What GETs and peers give now: what they can, or of a line that carries less all the same."""
        most = [self.cdn.rate_bytes_s / len(flowing) for _ in flowing]
        for peer in self.peers:
            gives = bool(peer.queue) and not self._is_silent(peer) and self.now_s < peer.dies_s
            most.append(peer.rate_bytes_s if gives else 0.0)
        left, rates = self.line_bytes_s, [0.0] * len(most)
        order = sorted(range(len(most)), key=most.__getitem__)
        for at, number in enumerate(order):
            rates[number] = min(most[number], left / (len(order) - at))
            left -= rates[number]
        return rates[: len(flowing)], rates[len(flowing) :]

    def _next_s(self) -> float:
        times = [get.starts_s for get in self._gets.values() if get.starts_s > self.now_s]
        flowing = self._flowing()
        of_gets, of_peers = self._rates(flowing)
        for get, rate in zip(flowing, of_gets, strict=True):
            times.append(self.now_s + (get.size - get.sent) / rate)
        for number, peer in enumerate(self.peers):
            marks = (peer.connects_s, peer.answers_s, peer.manifest_s, peer.dies_s, peer.falls_silent_s)
            times += [mark for mark in marks if mark > self.now_s and ("gone", number) not in self._told]
            if peer.queue:
                times.append(peer.heard_s + self.policy.piece_silence_s)
                if of_peers[number] > 0:
                    _, sent, size = peer.queue[0]
                    times.append(self.now_s + (size - sent) / of_peers[number])
        return max(self.now_s, min(times, default=math.inf))

    def _flow(self, until_s: float) -> None:
        passed_s = until_s - self.now_s
        flowing = self._flowing()
        of_gets, of_peers = self._rates(flowing)
        for get, rate in zip(flowing, of_gets, strict=True):
            get.sent = min(get.size, get.sent + passed_s * rate)
        for peer, rate in zip(self.peers, of_peers, strict=True):
            if rate <= 0:
                continue
            room = passed_s * rate
            if peer.queue:
                peer.heard_s = until_s
            for entry in peer.queue:
                taken = min(room, entry[2] - entry[1])
                entry[1] += taken
                room -= taken

    def _end(self) -> None:
        for number, get in list(self._gets.items()):
            if self.cdn.fails and get.starts_s <= self.now_s:
                del self._gets[number]
                self.transfer.cdn_failed(number, CasUnavailable("virtual"), self.now_s)
            elif get.size - get.sent < 1e-3:
                del self._gets[number]
                self._sent += get.size
                self.log.append((self.now_s, f"ended {number}"))
                self.transfer.cdn_ended(number, get.chunks, self.now_s)
        for peer in self.peers:
            while peer.queue and peer.queue[0][2] - peer.queue[0][1] < 1e-3:
                assignment, _, size = peer.queue.pop(0)
                self._peer_ended(int(assignment), size + 1e-3, None)
            if peer.queue and self.now_s - peer.heard_s >= self.policy.piece_silence_s - 1e-9:
                late, peer.queue = peer.queue, []
                for assignment, sent, _ in late:
                    self._peer_ended(int(assignment), sent, PeerTrouble.SILENT)

    def _peer_ended(self, assignment: int, sent: float, trouble: PeerTrouble | None) -> None:
        ask = self._asks.pop(assignment)
        manifest = self.file.manifest
        begins = manifest.offset(ask.first)
        written = 0
        while written < ask.count and manifest.offset(ask.first + written + 1) - begins <= sent:
            written += 1
        self.log.append((self.now_s, f"peer {ask.peer} ended {assignment} with {written}"))
        self.transfer.peer_ended(assignment, written, trouble, self.now_s)


def alone_s(file: Layout, cdn: CdnModel) -> float:
    """How long the CDN needs by itself."""
    return Simulation(file, cdn).run().took_s
