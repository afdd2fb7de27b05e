"""What a transfer asks of its sources, and the words in which they fail."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from zest_hf.core.begun import Begun
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.plan import Fetch


@dataclass(frozen=True, slots=True)
class AskPeer:
    """Ask a peer for file chunks first..first+count, which are chunks xorb_first.. of `xorb`.

    ``by_xorb``: the peer holds them as the xorb's, and is asked for them by its hash; else by the file's.
    """

    assignment: int
    peer: int
    first: int
    count: int
    xorb: XetHash
    xorb_first: int
    by_xorb: bool = False


@dataclass(frozen=True, slots=True)
class CancelPeer:
    """What a peer was asked for is not needed any more. The assignment still ends, by a report of its own."""

    assignment: int
    peer: int


@dataclass(frozen=True, slots=True)
class FetchWhole:
    """Make one of the plan's GETs. ``expected``: 32 bytes a chunk of its source, when they are known.

    ``begun``: what is there of it already, when they are not; it is a part of what the GET brings, as its report says.
    """

    assignment: int
    fetch: Fetch
    expected: bytes | None
    begun: Begun | None = None


@dataclass(frozen=True, slots=True)
class FetchRun:
    """Get file chunks from `first` on, which are bytes byte_start..byte_end of the file; ``chunks``: proved."""

    assignment: int
    first: int
    byte_start: int
    byte_end: int
    chunks: Manifest


@dataclass(frozen=True, slots=True)
class StopGet:
    """Of what a GET is to bring, only the first `chunks` are wanted any more: what lies behind is somebody else's.

    The source says where it really stops (it may have brought more), unless the GET has ended; that it ends is still
    reported.
    """

    assignment: int
    chunks: int


@dataclass(frozen=True, slots=True)
class ReplaceGet:
    """A GET is to go on on another connection: the one that it has is much slower than others."""

    assignment: int


@dataclass(frozen=True, slots=True)
class Follow:
    """Take one of the plan's GETs from a member of the crowd that is fetching it, while it comes.

    Nothing of it is proved before all of it is there. ``fetch`` has one placement, which covers its whole source;
    ``member`` is a node id of 20 bytes. ``begun`` as that of FetchWhole.
    """

    assignment: int
    member: bytes
    fetch: Fetch
    begun: Begun | None = None


@dataclass(frozen=True, slots=True)
class StopFollow:
    """What a member would still bring is not needed from there. It still ends, by a report of its own."""

    assignment: int


@dataclass(frozen=True, slots=True)
class CopyLocal:
    """Copy file chunks from `first` on, which go to byte `offset`, from a file that is here already.

    There they lie together from byte `source_offset` on; ``source``: which file. ``chunks``: proved.
    """

    assignment: int
    first: int
    offset: int
    source: int
    source_offset: int
    chunks: Manifest


Action = AskPeer | CancelPeer | FetchWhole | FetchRun | StopGet | ReplaceGet | Follow | StopFollow | CopyLocal


class PeerTrouble(enum.Enum):
    """Why a peer did not finish an assignment."""

    LACKS = "does not hold it"
    SILENT = "sent nothing for too long"
    BUSY = "has too much to do"
    GONE = "is gone"
    CANCELLED = "was told to stop"
