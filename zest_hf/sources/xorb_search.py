"""Who among the peers holds xorbs of a file that nobody holds as a file: who has its base, or is downloading it too.

Questions are few: some xorbs are asked for as a probe, and more only of who has one of those, a few at a time. Who has
none is asked again later, in case it is downloading. Xorbs that nobody connected has are looked up by discovery.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from zest_hf._native.events import HaveAnswer, HaveMore, Kind, ManifestAnswer, Outcome
from zest_hf.core.ids import XetHash
from zest_hf.core.policy import PolicySettings
from zest_hf.core.transfer import Transfer
from zest_hf.sources.base import PeerHoldsMore, PeerLacks, Reporter, XorbProved
from zest_hf.sources.manifest_quest import ManifestQuest, NoManifest
from zest_hf.swarm import Listener, Swarm

log = logging.getLogger("zest_hf.sources.xorbs")

PROBE = 4
"""Xorbs that a peer is asked for before it has shown to have any."""
WINDOW = 8
"""Questions that a peer has at a time,"""
MAX_QUESTIONS = 64
"""... and all together."""
MAX_QUESTS = 8
"""Manifests that are asked for at a time."""
MAX_FAILED_QUESTS = 3
"""Manifests that a peer may fail to give before it is asked for none any more."""
LOOKUPS_S = 0.25
"""Discovery is asked for one xorb in this time."""
LOOK_S = 0.25
"""How often it is found out anew what is still wanted."""
AGAIN_S = 1.0
LONGEST_AGAIN_S = 16.0
"""A peer that has none is asked again after 1, 2, 4... 16 s."""
MAX_XORB_CHUNKS = 8192
SPREADS_S = (0.3, 1.0, 3.0)
"""When who did not have a xorb is asked again, after somebody in the crowd has got it."""


@dataclass(slots=True)
class _Peer:
    tried: set[XetHash] = field(default_factory=set)
    open: dict[int, XetHash] = field(default_factory=dict)
    """Token -> what was asked."""
    holds: set[XetHash] = field(default_factory=set)
    """What it has answered to have, at least in part."""
    has_any: bool = False
    rounds: int = 0
    again_s: float = 0.0
    failed_quests: int = 0


class XorbSearch:
    """Of one file. ``seed`` chooses what is probed."""

    def __init__(
        self, swarm: Swarm, listener: Listener, report: Reporter, settings: PolicySettings, seed: int
    ) -> None:
        self._swarm = swarm
        self._listener = listener
        self._report = report
        self._settings = settings
        self._random = random.Random(seed)
        self._peers: dict[int, _Peer] = {}
        self._told: dict[int, XetHash] = {}
        """Token of a question whose answers go on -> its xorb."""
        self._quests: dict[XetHash, ManifestQuest] = {}
        self._sources: dict[XetHash, dict[int, int]] = {}
        """Xorbs without a manifest -> who holds all of them, and how many chunks those have."""
        self._spreading: list[tuple[float, XetHash]] = []
        """Xorbs that others get about now, and when to ask for them."""
        self._wanted: list[XetHash] = []
        self._looked_s = float("-inf")
        self._looked_up: set[XetHash] = set()
        self._next_lookup_s = 0.0
        self._wait_until_s: float | None = None
        """None as long as nobody was asked."""

    def add(self, peer: int) -> None:
        """A peer that does not hold all of the file."""
        self._peers.setdefault(peer, _Peer())

    def remove(self, peer: int) -> None:
        """It is gone, or holds all of the file."""
        gone = self._peers.pop(peer, None)
        for sources in self._sources.values():
            sources.pop(peer, None)
        for xorb in [xorb for xorb, quest in self._quests.items() if quest.peer == peer]:
            del self._quests[xorb]
        if gone is not None:
            for token in gone.open:
                self._swarm.forget_have(token, peer)

    def got(self, number: int, xorb: XetHash, now_s: float) -> None:
        """A peer says that it has got a xorb just now: it is asked at once, and soon the others, who get it too."""
        peer = self._peers.get(number)
        if peer is not None and self._may_ask(peer, xorb):
            self._ask(number, peer, xorb, now_s)
        if not any(one == xorb for _, one in self._spreading):
            self._spreading += [(now_s + after_s, xorb) for after_s in SPREADS_S]

    def waiting(self, now_s: float) -> bool:
        """Whether an answer may soon make a peer useful."""
        if self._wait_until_s is None or now_s >= self._wait_until_s:
            return False
        late = self._swarm.unanswering
        return any((quest.peer, "manifest") not in late for quest in self._quests.values()) or any(
            peer.open and (number, "have") not in late for number, peer in self._peers.items()
        )

    def step(self, transfer: Transfer, now_s: float) -> None:
        """Asks what is worth asking now."""
        if not self._peers or transfer.complete:
            return
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            self._wanted = transfer.xorbs_to_look_for()
            self._look_up(now_s)
        if self._wanted:
            for number, peer in list(self._peers.items()):
                for xorb in self._questions_for(peer, now_s):
                    self._ask(number, peer, xorb, now_s)
        self._ask_spreading(transfer, now_s)
        self._ask_manifests(transfer, now_s)

    # --- what is asked --------------------------------------------------------------------------------------

    def _questions_for(self, peer: _Peer, now_s: float) -> Iterator[XetHash]:
        room = min(WINDOW - len(peer.open), MAX_QUESTIONS - sum(len(one.open) for one in self._peers.values()))
        if peer.has_any:
            new = [xorb for xorb in self._wanted if xorb not in peer.tried]
            yield from new[: max(room, 0)]
            if new or peer.open or now_s < peer.again_s:
                return
        elif peer.open or now_s < peer.again_s or room < PROBE:
            return
        # A new round: from the beginning, as it may have got more.
        peer.rounds += 1
        peer.again_s = now_s + min(LONGEST_AGAIN_S, AGAIN_S * 2.0 ** min(peer.rounds - 1, 10))
        peer.tried.clear()
        probe = min(PROBE, len(self._wanted))
        yield from self._random.sample(self._wanted, probe)

    def _may_ask(self, peer: _Peer, xorb: XetHash) -> bool:
        return (
            xorb not in peer.holds
            and xorb not in peer.open.values()
            and len(peer.open) < 2 * WINDOW
            and sum(len(one.open) for one in self._peers.values()) < 2 * MAX_QUESTIONS
        )

    def _ask_spreading(self, transfer: Transfer, now_s: float) -> None:
        due = {xorb for when_s, xorb in self._spreading if when_s <= now_s}
        if not due:
            return
        self._spreading = [one for one in self._spreading if one[0] > now_s]
        for xorb in due & set(transfer.wanted_xorbs()):
            for number, peer in self._peers.items():
                if self._may_ask(peer, xorb):
                    self._ask(number, peer, xorb, now_s)

    def _ask(self, number: int, peer: _Peer, xorb: XetHash, now_s: float) -> None:
        patience_s = self._settings.answer_patience_s
        token = self._swarm.ask_have(self._listener, number, Kind.XORB, xorb, patience_s, updates=True)
        peer.open[token] = xorb
        peer.tried.add(xorb)
        if self._wait_until_s is None:
            self._wait_until_s = now_s + self._settings.xorb_patience_s

    def _ask_manifests(self, transfer: Transfer, now_s: float) -> None:
        for xorb in list(self._sources):
            if transfer.knowledge.knows_xorb(xorb):
                del self._sources[xorb]
        for xorb, quest in list(self._quests.items()):
            if now_s >= quest.until_s:
                del self._quests[xorb]
                self._quest_failed(xorb, quest.peer)
        for xorb, sources in self._sources.items():
            if len(self._quests) >= MAX_QUESTS:
                return
            able = [
                peer
                for peer in sources
                if peer in self._peers and self._peers[peer].failed_quests < MAX_FAILED_QUESTS
            ]
            if xorb in self._quests or not able:
                continue
            peer = self._random.choice(able)
            until_s = now_s + self._settings.manifest_patience_s
            self._quests[xorb] = ManifestQuest(
                self._swarm, self._listener, Kind.XORB, xorb, peer, sources[peer], now_s, until_s
            )

    def _look_up(self, now_s: float) -> None:
        if now_s < self._next_lookup_s:
            return
        if len(self._looked_up) >= PROBE and not any(peer.has_any for peer in self._peers.values()):
            return
        new = [xorb for xorb in self._wanted if xorb not in self._looked_up]
        if new:
            xorb = self._random.choice(new)
            self._looked_up.add(xorb)
            self._next_lookup_s = now_s + LOOKUPS_S
            self._swarm.look_for_xorb(xorb)

    # --- what is answered -----------------------------------------------------------------------------------

    def has(self, answer: HaveAnswer) -> bool:
        """Whether it was an answer to a question of this search."""
        peer = self._peers.get(answer.peer)
        xorb = None if peer is None else peer.open.pop(answer.token, None)
        if peer is None or xorb is None:
            return False
        if max([answer.chunks, *(end for _, end in answer.ranges)]) > MAX_XORB_CHUNKS:
            self._swarm.ban(answer.peer, f"says that a xorb has more than {MAX_XORB_CHUNKS} chunks")
            return True
        holds_all = answer.ranges == ((0, answer.chunks),)
        if answer.outcome is Outcome.OK and not holds_all:
            self._told[answer.token] = xorb
        else:
            self._swarm.forget_have(answer.token, answer.peer)
        if answer.outcome is Outcome.OK and answer.ranges:
            peer.has_any = True
            peer.holds.add(xorb)
            self._report(PeerHoldsMore(answer.peer, answer.ranges, xorb))
            if holds_all:
                self._sources.setdefault(xorb, {})[answer.peer] = answer.chunks
        return True

    def has_more(self, more: HaveMore) -> bool:
        """... whether it was what followed such an answer."""
        xorb = self._told.get(more.token)
        if xorb is None:
            return False
        if more.gone:
            del self._told[more.token]
            self._sources.get(xorb, {}).pop(more.peer, None)
            if more.peer in self._peers:
                self._peers[more.peer].holds.discard(xorb)
            self._report(PeerLacks(more.peer, ((0, MAX_XORB_CHUNKS),), xorb))
        else:
            self._report(PeerHoldsMore(more.peer, more.ranges, xorb))
        return True

    def takes(self, answer: ManifestAnswer, now_s: float) -> bool:
        """... to one for a manifest."""
        found = next(((x, quest) for x, quest in self._quests.items() if quest.waits_for(answer.token)), None)
        if found is None:
            return False
        xorb, quest = found
        try:
            manifest = quest.take(answer, now_s)
        except NoManifest as error:
            del self._quests[xorb]
            if error.lie is not None:
                self._swarm.ban(quest.peer, error.lie)
            self._quest_failed(xorb, quest.peer)
            return True
        if manifest is not None:
            del self._quests[xorb]
            self._sources.pop(xorb, None)
            self._report(XorbProved(xorb, manifest))
        return True

    def _quest_failed(self, xorb: XetHash, number: int) -> None:
        self._sources.get(xorb, {}).pop(number, None)
        peer = self._peers.get(number)
        if peer is not None:
            self._swarm.unanswering.add((number, "manifest"))
            peer.failed_quests += 1
