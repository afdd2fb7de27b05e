"""A file that peers' chunks are written to while others may already have them."""

from __future__ import annotations

import contextlib
import os
import threading
from array import array
from collections.abc import Iterator
from typing import Any

from zest_hf._native.lib import ffi, lib
from zest_hf.core.manifest import Manifest
from zest_hf.errors import StorageError, SwarmError


class WritableFile:
    """A file, or a run of its chunks, that peers' chunks are written to, with its proved manifest.

    What is written can be offered meanwhile (`Session.share_transfer`). Close it before anyone else uses the file.
    """

    def __init__(self, fd: int, manifest: Manifest, offset_bytes: int = 0) -> None:
        """``fd`` is duplicated; the manifest's first chunk lies at ``offset_bytes``.

        Raises StorageError when that fails.
        """
        self._lock = threading.Lock()
        hashes = ffi.from_buffer("uint8_t[]", manifest.hashes)
        self._handle: Any = lib.zest_transfer_open(
            fd, offset_bytes, len(manifest), hashes, u32_list(manifest.lengths)
        )
        if self._handle == ffi.NULL:
            raise StorageError(f"cannot prepare the file for writing: {os.strerror(ffi.errno)}")

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """The native handle, which stays valid inside. Raises SwarmError when the file is closed."""
        with self._lock:
            if self._handle is None:
                raise SwarmError("the file is closed already")
            yield self._handle

    def wrote(self, first: int, count: int) -> None:
        """Somebody else has proved these chunks and written them in place; peers may have them.

        Raises SwarmError when the file has no such chunks or is closed.
        """
        with self.opened() as transfer:
            if lib.zest_transfer_wrote(transfer, first, count) != 0:
                raise SwarmError(f"the file has no chunks {first} to {first + count}")

    def seal(self) -> None:
        """When this returns nothing is written any more; what is held is offered as before."""
        with self._lock:
            if self._handle is not None:
                lib.zest_transfer_seal(self._handle)

    def close(self) -> None:
        """When this returns nothing is written, nor read for peers, any more. Pieces asked for end as cancelled."""
        with self._lock:
            handle, self._handle = self._handle, None
            if handle is not None:
                lib.zest_transfer_close(handle)


def u32_list(values: array[int]) -> Any:
    """The numbers as uint32_t[], valid as long as ``values``; one at least, so that there is something to point to."""
    return ffi.from_buffer("uint32_t[]", values) if len(values) else ffi.new("uint32_t[]", 1)
