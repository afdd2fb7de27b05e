"""Loads the compiled module and turns its error records into our exceptions."""

from __future__ import annotations

import os
import platform
from importlib import import_module
from typing import Any

from zest_hf.errors import NativeUnavailable, ProofError, StorageError, XorbError, ZestError

# What native/include/*.h say; a module that was built from other headers is refused.
CODEC_ABI = 4


def _load() -> tuple[Any, Any]:
    try:
        _zest: Any = import_module("zest_hf._native._zest")
    except ImportError as error:
        raise NativeUnavailable(
            "the native module of zest_hf does not load on this machine "
            f"({platform.system()} {platform.machine()}): {error}"
        ) from error
    found = _zest.lib.zest_codec_abi()
    if found != CODEC_ABI:
        raise NativeUnavailable(
            f"the native module of zest_hf has interface {found}, this version needs {CODEC_ABI}: "
            "reinstall zest_hf"
        )
    return _zest.ffi, _zest.lib


ffi, lib = _load()


def exception_for(err: Any) -> Exception:
    """The exception for a filled ``zest_error *``."""
    message = ffi.string(err.message).decode("ascii", "replace")
    status = err.status
    if status == lib.ZEST_MALFORMED:
        return XorbError(f"malformed xorb: {message}")
    if status == lib.ZEST_MISMATCH:
        return ProofError(message, wanted=bytes(ffi.buffer(err.wanted)), got=bytes(ffi.buffer(err.got)))
    if status == lib.ZEST_SYSTEM:
        number = err.sys_errno
        return OSError(number, f"{message}: {os.strerror(number)}")
    if status == lib.ZEST_SHORT_FILE:
        return StorageError(message)
    if status == lib.ZEST_NO_MEMORY:
        return MemoryError(message)
    return ZestError(message)


def check(status: int, err: Any) -> None:
    """Raises what ``err`` describes unless ``status`` is ``ZEST_OK``."""
    if status != lib.ZEST_OK:
        raise exception_for(err)
