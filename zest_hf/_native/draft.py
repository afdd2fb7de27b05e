"""Chunks of a xorb that nothing proves yet, while they come. Typed over ``zest_draft`` of zest_swarm.h."""

from __future__ import annotations

import contextlib
import os
import threading
from array import array
from collections.abc import Iterator
from typing import Any

from zest_hf._native.lib import ffi, lib
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.errors import StorageError, SwarmError


class Draft:
    """Chunks start..end of a xorb in a file, in order: what has come of them.

    The one who gets them from the CDN writes them and says so (`add`), and peers may follow (`Session.share_draft`).
    Or a peer is followed (`Session.follow`): then they are written as they come. Any method from any thread.
    """

    def __init__(self, fd: int, offset_bytes: int, size_bytes: int, xorb: XetHash, start: int, end: int) -> None:
        """``fd`` is duplicated; the first chunk lies at ``offset_bytes`` of the file, all have ``size_bytes``.

        Raises StorageError when that fails.
        """
        self._lock = threading.Lock()
        self._chunks = end - start
        self.added = 0
        """Chunks that `add` was given. A count of its own: who adds them asks before each."""
        view = ffi.from_buffer("uint8_t[]", xorb)
        self._handle: Any = lib.zest_draft_open(fd, offset_bytes, size_bytes, view, start, end)
        if self._handle == ffi.NULL:
            raise StorageError(f"cannot prepare the file for writing: {os.strerror(ffi.errno)}")

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """The native handle, which stays valid inside. Raises SwarmError when it is closed."""
        with self._lock:
            if self._handle is None:
                raise SwarmError("the draft is closed already")
            yield self._handle

    def add(self, hashes: bytes, lengths: array[int]) -> None:
        """The next chunks, 32 bytes and an unsigned int each, are written. Raises SwarmError: they do not fit."""
        with self.opened() as draft:
            known = ffi.from_buffer("uint8_t[]", hashes)
            sizes = ffi.from_buffer("uint32_t[]", lengths) if len(lengths) else ffi.NULL
            if lib.zest_draft_add(draft, len(lengths), known, sizes) != 0:
                raise SwarmError("the draft has no room for these chunks, or has ended")
            self.added += len(lengths)

    def end(self) -> None:
        """Nothing more comes."""
        with self._lock:
            if self._handle is not None:
                lib.zest_draft_end(self._handle)

    @property
    def count(self) -> int:
        """Chunks that have come; 0 when it is closed."""
        with self._lock:
            return 0 if self._handle is None else int(lib.zest_draft_count(self._handle))

    @property
    def size_bytes(self) -> int:
        """That have come; 0 when it is closed."""
        with self._lock:
            return 0 if self._handle is None else int(lib.zest_draft_bytes(self._handle))

    def manifest(self) -> Manifest:
        """Of the chunks that have come. Raises SwarmError when it is closed."""
        with self.opened() as draft:
            hashes = bytearray(32 * self._chunks)
            lengths = array("I", bytes(4 * self._chunks))
            count = lib.zest_draft_copy(
                draft, self._chunks, ffi.from_buffer(hashes), ffi.from_buffer("uint32_t[]", lengths)
            )
        return Manifest(bytes(hashes[: 32 * count]), lengths[:count])

    def release(self) -> None:
        """Nothing more comes, but peers that follow get the rest. What is in the file must stay as it is."""
        with self._lock:
            handle, self._handle = self._handle, None
            if handle is not None:
                lib.zest_draft_release(handle)

    def close(self) -> None:
        """When this returns nothing is written, nor read for peers, any more."""
        with self._lock:
            handle, self._handle = self._handle, None
            if handle is not None:
                lib.zest_draft_close(handle)
