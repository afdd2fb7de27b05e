"""Every error that zest_hf raises on purpose.

    ZestError
    ├── ConfigError            a setting has a value we cannot use
    ├── NativeUnavailable      the native module is missing or does not load here
    ├── ProtocolError          the other side sent something malformed
    │   ├── XorbError          ... in serialized xorb bytes
    │   ├── ShardError         ... in a shard
    │   └── ReconstructionError  ... in the plan of a file
    ├── ProofError             well-formed bytes that do not match their hash
    ├── CasError               the content-addressed store, or the CDN behind it, said no
    │   ├── CasUnauthorized    401: the Xet token has expired or is wrong
    │   ├── CasForbidden       403: the token's scope does not cover the request
    │   ├── CasNotFound        404: unknown file
    │   ├── CasRangeError      416: the range begins past the end
    │   ├── UrlExpired         403 of a CDN url: ask for the reconstruction again
    │   └── CasUnavailable     5xx, timeouts, broken connections, after the retries
    ├── SwarmError             the peer session cannot be started or used
    └── StorageError           the index or the disk failed

``str(error)`` is one line meant for a user. None derives from ``ValueError``: libraries above us
turn that one into misleading errors of their own. The network's and the system's own exceptions are
kept as ``__cause__``.
"""

from __future__ import annotations


class ZestError(Exception):
    """Root of all errors of zest_hf."""

    def __str__(self) -> str:
        # A hostile or merely chatty server must not be able to write several lines into a log.
        return " ".join(super().__str__().split())


class ConfigError(ZestError):
    """A setting cannot be used; the message names it, its value and what is accepted."""


class NativeUnavailable(ZestError):
    """The native module cannot be loaded on this machine."""


class ProtocolError(ZestError):
    """The remote side, or a file, holds something that breaks its format."""


class XorbError(ProtocolError):
    """Malformed serialized xorb."""


class ShardError(ProtocolError):
    """Malformed shard."""


class ReconstructionError(ProtocolError):
    """Malformed or contradictory reconstruction."""


class ProofError(ZestError):
    """Bytes do not have the hash they were asked for by.

    ``wanted`` and ``got`` are 32 raw bytes, or None where one of them is not known.
    """

    def __init__(self, message: str, *, wanted: bytes | None = None, got: bytes | None = None) -> None:
        super().__init__(message)
        self.wanted = wanted
        self.got = got


class CasError(ZestError):
    """A request to the CAS or the CDN failed.

    ``status`` is the HTTP status, None when there was no answer; ``retryable`` says whether the
    same request may succeed later (the raiser's judgement, so that callers need no table);
    ``retry_after_s`` is what the server asked to wait, None when it asked for nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retryable: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class CasUnauthorized(CasError):
    """401, also with a fresh token."""


class CasForbidden(CasError):
    """403 of the CAS: the token does not cover what was asked."""


class CasNotFound(CasError):
    """404: the CAS does not know the file."""


class CasRangeError(CasError):
    """416: the byte range begins past the end of the file or the xorb."""


class UrlExpired(CasError):
    """403 of a CDN url: its signature has run out, a new reconstruction brings a new one."""


class CasUnavailable(CasError):
    """No usable answer: 5xx, a timeout, a broken connection, or a body that ended early."""


class SwarmError(ZestError):
    """The peer session could not be started, or was used after its end."""


class StorageError(ZestError):
    """The index or the disk behind it failed."""
