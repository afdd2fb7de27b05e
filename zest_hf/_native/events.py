"""What a session tells: what happened, in order, and what its peers, trackers, bans and shares are now.

Shapes of ``native/include/zest_swarm.h`` in Python.
"""

from __future__ import annotations

import enum
import struct
from array import array
from dataclasses import dataclass
from typing import Any

from zest_hf._native.lib import lib
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest

CLAIM = struct.Struct("=IIHH")
"""A zest_claim."""


class Kind(enum.IntEnum):
    """What a hash names."""

    FILE = 1
    XORB = 2


class Source(enum.IntEnum):
    """How a peer was found."""

    GIVEN = 1
    INCOMING = 2
    LSD = 3
    TRACKER = 4
    DHT = 5
    PEX = 6


class Outcome(enum.IntEnum):
    """How a question or a piece ended."""

    OK = 0
    NOT_FOUND = 1
    TIMEOUT = 2
    GONE = 3
    WRONG = 4
    BUSY = 5
    IO = 6
    CANCELLED = 7
    UNSUPPORTED = 8


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """The TCP connection of a dial stands; the handshakes follow."""

    peer: int
    token: int


@dataclass(frozen=True, slots=True)
class PeerReady:
    """A peer can be asked. ``ranges``: it speaks zest_hf1 (manifests, haves, ranges); else only BEP XET v1 chunks.

    ``node_id``: 20 bytes by which it calls itself on every connection; zeros when it has no name.
    """

    peer: int
    token: int
    address: str
    ranges: bool
    node_id: bytes


@dataclass(frozen=True, slots=True)
class PeerGone:
    """A connection that was ready ended, or a dial failed."""

    peer: int
    token: int
    reason: str


@dataclass(frozen=True, slots=True)
class PeerBanned:
    """A peer sent provably wrong bytes; PeerGone follows."""

    peer: int
    token: int
    reason: str


@dataclass(frozen=True, slots=True)
class HaveAnswer:
    """Which chunks of the object the peer holds: half-open ranges in order; ``chunks``: of the object, 0 if unknown."""

    peer: int
    token: int
    outcome: Outcome
    chunks: int
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class HaveMore:
    """The peer of a HaveAnswer holds these ranges as well, or (``gone``) not even what it said: nothing more comes.

    ``chunks``: of the object, 0 if unknown. Who answered that it holds nothing yet may know it by now.
    """

    peer: int
    token: int
    gone: bool
    ranges: tuple[tuple[int, int], ...]
    chunks: int


class ClaimState(enum.IntEnum):
    """What a downloader does about a part of a file."""

    FETCHING = 1
    """It fetches it from elsewhere (the CDN)."""
    HELD = 2
    """It has fetched and proved it."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a peer does about a file that was joined. What it said before counts no more.

    ``downloading``: False when it has left or finished. ``claims``: (first chunk of the file, end, ClaimState,
    progress in 1/65535 of the bytes), in order and disjoint.
    """

    peer: int
    file_hash: XetHash
    downloading: bool
    claims: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class ManifestAnswer:
    """Chunks [first, first + len(part)) of an object of ``chunks`` chunks, as the peer says: not proved yet."""

    peer: int
    token: int
    outcome: Outcome
    chunks: int
    first: int
    part: Manifest


@dataclass(frozen=True, slots=True)
class PieceEnd:
    """A piece ended with its first ``chunks_written`` chunks proved and written. ``error_number``: of Outcome.IO."""

    peer: int
    token: int
    outcome: Outcome
    chunks_written: int
    error_number: int


@dataclass(frozen=True, slots=True)
class ShareLost:
    """An offered file changed or vanished; it is not offered any more."""

    path: str


Event = (
    PeerConnected
    | PeerReady
    | PeerGone
    | PeerBanned
    | HaveAnswer
    | HaveMore
    | ManifestAnswer
    | PieceEnd
    | ShareLost
    | Claims
)


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A connection as it is now."""

    peer: int
    address: str
    client: str
    node_id: str
    outgoing: bool
    ready: bool
    ranges: bool
    bytes_down: int
    bytes_up: int
    requests_out: int
    requests_in: int
    source: Source


@dataclass(frozen=True, slots=True)
class TrackerInfo:
    """A tracker by its last answer. ``working``: None before the first; ``message``: what failed; ``peers``: named."""

    url: str
    working: bool | None
    message: str
    peers: int


@dataclass(frozen=True, slots=True)
class BanInfo:
    """A peer that is not talked to any more in this session."""

    address: str
    node_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ShareInfo:
    """A file that peers were served from: payload bytes in this session, and how many of the peers now connected."""

    file_hash: XetHash
    bytes_up: int
    peers: int


@dataclass(frozen=True, slots=True)
class SessionStats:
    """Totals of the session; bytes are payload (chunk bytes)."""

    bytes_up: int
    bytes_down: int
    chunks_wrong: int
    peers_ready: int
    files_shared: int
    xorbs_shared: int
    bans: int
    dht_nodes: int
    """In our routing tables."""
    swarms_joined: int
    swarms_loaded: int
    """Torrents, also for those who came by themselves."""
    dials_open: int
    """Of peers that were found, not ready yet."""


def decode(event: Any, payload: memoryview) -> Event:
    """What a zest_event and its payload say."""
    peer, token, kind = event.peer, event.token, event.type
    if kind == lib.ZEST_EVENT_PIECE:
        outcome = Outcome(event.status)
        number = event.bytes if outcome is Outcome.IO else 0
        return PieceEnd(peer, token, outcome, event.count, number)
    if kind == lib.ZEST_EVENT_MANIFEST:
        count = len(payload) // 36
        lengths = array("I")
        lengths.frombytes(payload[32 * count :])
        part = Manifest(bytes(payload[: 32 * count]), lengths)
        return ManifestAnswer(peer, token, Outcome(event.status), event.count, event.first, part)
    if kind in (lib.ZEST_EVENT_HAVE, lib.ZEST_EVENT_HAVE_MORE):
        numbers = array("I")
        numbers.frombytes(payload)
        ranges = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        if kind == lib.ZEST_EVENT_HAVE_MORE:
            return HaveMore(peer, token, event.status != lib.ZEST_OUTCOME_OK, ranges, event.count)
        return HaveAnswer(peer, token, Outcome(event.status), event.count, ranges)
    if kind == lib.ZEST_EVENT_CLAIMS:
        claims = tuple(CLAIM.iter_unpack(payload[32:]))
        return Claims(peer, XetHash(bytes(payload[:32])), bool(event.status), claims)
    if kind == lib.ZEST_EVENT_PEER_READY:
        address = bytes(payload[20:]).decode()
        return PeerReady(
            peer, token, address, bool(event.status & lib.ZEST_SPEAKS_ZEST), bytes(payload[:20])
        )
    text = bytes(payload).decode("utf-8", "surrogateescape")
    if kind == lib.ZEST_EVENT_PEER_CONNECTED:
        return PeerConnected(peer, token)
    if kind == lib.ZEST_EVENT_PEER_GONE:
        return PeerGone(peer, token, text)
    if kind == lib.ZEST_EVENT_PEER_BANNED:
        return PeerBanned(peer, token, text)
    return ShareLost(text)
