"""What a transfer asks of its sources, and the words in which they fail."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.plan import Fetch


@dataclass(frozen=True, slots=True)
class AskPeer:
    """Ask a peer for file chunks first..first+count (chunks xorb_first.. of `xorb`)."""

    assignment: int
    peer: int
    first: int
    count: int
    xorb: XetHash
    xorb_first: int


@dataclass(frozen=True, slots=True)
class FetchWhole:
    """Make one of the plan's GETs. ``expected``: 32 bytes a chunk of its source, when they are known."""

    assignment: int
    fetch: Fetch
    expected: bytes | None


@dataclass(frozen=True, slots=True)
class FetchRun:
    """Get file chunks from `first` on, which are bytes byte_start..byte_end of the file; ``chunks``: proved."""

    assignment: int
    first: int
    byte_start: int
    byte_end: int
    chunks: Manifest


Action = AskPeer | FetchWhole | FetchRun


class PeerTrouble(enum.Enum):
    """Why a peer did not finish an assignment."""

    LACKS = "does not hold it"
    SILENT = "sent nothing for too long"
    BUSY = "has too much to do"
    GONE = "is gone"
