"""A node of a simulated crowd, and what it has under way."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from zest_hf.bench.scenario import NodeSpec
from zest_hf.core.actions import AskPeer, FetchRun, FetchWhole, Follow
from zest_hf.core.crowd import Crowd
from zest_hf.core.crowd_claims import Told
from zest_hf.core.ranges import Ranges
from zest_hf.core.transfer import Transfer


@dataclass(slots=True)
class Request:
    action: AskPeer
    size: float
    asked_s: float
    sent: float = 0.0


@dataclass(slots=True)
class Get:
    action: FetchWhole | FetchRun
    size: float
    begins_s: float
    begun: float = 0.0
    """Bytes that were there; `sent` counts them as well."""
    sent: float = 0.0


@dataclass(slots=True)
class Following:
    action: Follow
    giver: int
    unit: int
    begins_s: float
    heard_s: float
    begun: float
    sent: float


@dataclass(eq=False)
class Node:
    number: int
    spec: NodeSpec
    name: bytes
    transfer: Transfer | None = None
    crowd: Crowd | None = None
    neighbours: set[int] = field(default_factory=set)
    up: bool = False
    done_s: float | None = None
    gets: dict[int, Get] = field(default_factory=dict)
    follows: dict[int, Following] = field(default_factory=dict)
    followers: dict[int, int] = field(default_factory=dict)
    """Unit -> how many follow it here."""
    getting: dict[int, int] = field(default_factory=dict)
    """Unit -> the GET that brings it."""
    fetched: set[int] = field(default_factory=set)
    """Units that it has got of the origin as a whole."""
    met: set[int] = field(default_factory=set)
    """Whom it knows."""
    banned: set[int] = field(default_factory=set)
    queues: dict[int, deque[Request]] = field(default_factory=dict)
    """What it was asked for, by who asks."""
    open: dict[int, tuple[int, Request]] = field(default_factory=dict)
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
