"""The manifest of a file or a xorb, asked of one peer in parts and proved when all of them are there."""

from __future__ import annotations

from zest_hf._native.events import Kind, ManifestAnswer, Outcome
from zest_hf._native.session import MAX_MANIFEST_ENTRIES
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.errors import ProofError
from zest_hf.swarm import Listener, Swarm

MANIFEST_WINDOW = 4
"""Parts that are asked for at a time: a peer that talks of a giant object is found out before much of it is here."""


class NoManifest(Exception):
    """The peer does not give it. ``lie``: what it sent is provably wrong."""

    def __init__(self, lie: str | None = None) -> None:
        super().__init__(lie or "no manifest")
        self.lie = lie


class ManifestQuest:
    """One peer's ``chunks``-long manifest of an object, wanted until a moment of the monotonic clock."""

    def __init__(
        self,
        swarm: Swarm,
        listener: Listener,
        kind: Kind,
        hash_: XetHash,
        peer: int,
        chunks: int,
        now_s: float,
        until_s: float,
    ) -> None:
        self.peer = peer
        self.until_s = until_s
        self.heard_s = now_s
        """When the peer sent something of use, or was asked first."""
        self.is_guess = False
        """The peer has not said that it knows the object."""
        self._swarm = swarm
        self._listener = listener
        self._kind = kind
        self._hash = hash_
        self._chunks = chunks
        self._parts: dict[int, Manifest] = {}
        self._waiting: dict[int, int] = {}
        """Token -> first chunk of the part that was asked for."""
        self._asked = 0
        """Chunks before this are asked for."""
        self._ask(now_s)

    def waits_for(self, token: int) -> bool:
        return token in self._waiting

    def take(self, answer: ManifestAnswer, now_s: float) -> Manifest | None:
        """An answer that it waits for. The proved manifest when that was the last one; raises NoManifest."""
        first = self._waiting.pop(answer.token)
        wanted = min(MAX_MANIFEST_ENTRIES, self._chunks - first)
        if answer.outcome is not Outcome.OK or answer.chunks != self._chunks or len(answer.part) != wanted:
            raise NoManifest
        self._parts[first] = answer.part
        self.heard_s = now_s
        self._ask(now_s)
        if self._waiting:
            return None
        if self._asked < self._chunks:
            raise NoManifest
        manifest = Manifest.join(part for _, part in sorted(self._parts.items()))
        try:
            if self._kind is Kind.FILE:
                manifest.prove_file(self._hash)
            else:
                manifest.prove_xorb(self._hash)
        except ProofError as error:
            raise NoManifest(f"sent a manifest that is not the {self._kind.name.lower()}'s: {error}"[:120]) from None
        return manifest

    def _ask(self, now_s: float) -> None:
        left_s = self.until_s - now_s
        while self._asked < self._chunks and len(self._waiting) < MANIFEST_WINDOW and left_s > 0:
            count = min(MAX_MANIFEST_ENTRIES, self._chunks - self._asked)
            token = self._swarm.ask_manifest(
                self._listener, self.peer, self._kind, self._hash, self._asked, count, left_s
            )
            self._waiting[token] = self._asked
            self._asked += count
