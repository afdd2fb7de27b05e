"""What every source has in common: it takes actions, reports their ends, and can be made to stop writing.

The contract, which tests/sources checks for each of them:

- `start` returns at once. The end of each action is reported exactly once, unless `close` came first.
- Only bytes that were checked as far as the action allows (chunk by chunk when hashes are known) are written, at
  their place in the file, and nowhere else.
- After `close` has returned, the source writes nothing to the file any more: somebody else may take it over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from zest_hf.core.actions import PeerTrouble
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest

A_contra = TypeVar("A_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class ManifestProved:
    """A manifest that the file hash proves."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class XorbProved:
    """A manifest that the hash of a xorb proves."""

    xorb: XetHash
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class PeerHolds:
    """A peer holds these chunks of the file: all that it holds as the file's."""

    peer: int
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class PeerHoldsMore:
    """A peer holds these chunks of the file, or of a xorb, as well."""

    peer: int
    ranges: tuple[tuple[int, int], ...]
    xorb: XetHash | None = None


@dataclass(frozen=True, slots=True)
class PeerLacks:
    """A peer does not hold these chunks of the file, or of a xorb, any more."""

    peer: int
    ranges: tuple[tuple[int, int], ...]
    xorb: XetHash | None = None


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """A peer is gone; its assignments have ended or will."""

    peer: int


@dataclass(frozen=True, slots=True)
class PeerEnded:
    """A peer's assignment ended with its first ``chunks_written`` chunks proved and written."""

    assignment: int
    chunks_written: int
    trouble: PeerTrouble | None


@dataclass(frozen=True, slots=True)
class FollowEnded:
    """A member's GET is followed no more; ``chunks``: what there is of it, written and unproved. Trouble None: all."""

    assignment: int
    chunks: Manifest
    trouble: PeerTrouble | None


@dataclass(frozen=True, slots=True)
class CdnStops:
    """A GET that was to stop brings no more than its first ``chunks``: nothing behind them is written by it."""

    assignment: int
    chunks: int


@dataclass(frozen=True, slots=True)
class CdnEnded:
    """A GET is decoded and written; ``chunks``: what it brought, of one that was stopped the first of them."""

    assignment: int
    chunks: Manifest


@dataclass(frozen=True, slots=True)
class CdnFailed:
    """A GET failed for good."""

    assignment: int
    error: Exception


@dataclass(frozen=True, slots=True)
class CopyEnded:
    """A copy from a file of this disk ended with its first ``chunks_written`` chunks proved and written.

    ``opened``: the file could be opened; if not, nothing else of it will come either.
    """

    assignment: int
    chunks_written: int
    opened: bool = True


@dataclass(frozen=True, slots=True)
class WriteFailed:
    """The file cannot be written, or was written to at a wrong place: no source can help."""

    error: Exception


Report = (
    ManifestProved
    | XorbProved
    | PeerHolds
    | PeerHoldsMore
    | PeerLacks
    | PeerLeft
    | PeerEnded
    | FollowEnded
    | CdnStops
    | CdnEnded
    | CdnFailed
    | CopyEnded
    | WriteFailed
)
Reporter = Callable[[Report], None]


class Source(Protocol[A_contra]):
    """See the module."""

    def start(self, action: A_contra) -> None: ...

    def close(self) -> None: ...
