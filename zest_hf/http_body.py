"""Bodies of HTTP answers: a range as it comes, or a small document read at once, both bounded."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import TracebackType
from typing import Final

from zest_hf.errors import CasError, CasUnavailable
from zest_hf.transport import Answer, place

_STEP_BYTES: Final = 64 * 1024

_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/(?:[0-9]{1,19}|\*)", re.IGNORECASE)
_DIGITS: Final = re.compile(r"[0-9]{1,19}")


class RangeBody:
    """The bytes of one range, as they come. A context manager; used by one thread, except for `abort`."""

    def __init__(self, answer: Answer, size_bytes: int, where: str) -> None:
        self.size_bytes = size_bytes
        """How many bytes the whole range has."""
        self.received_bytes = 0
        """How many of them `readinto` has handed out."""
        self._answer = answer
        self._where = where

    def readinto(self, buffer: memoryview) -> int:
        """Put the next bytes into `buffer` and return their number; 0 at the end.

        Waits until it is full, but not for long once something has come. Raises CasUnavailable (retryable) when the
        body ends early, stalls, or the connection breaks.
        """
        wanted = min(len(buffer), self.size_bytes - self.received_bytes)
        if wanted == 0:
            return 0
        why = "end of body"
        try:
            count = self._answer.readinto(buffer[:wanted])
        except CasUnavailable as error:
            count, why = 0, str(error)
        if count == 0:
            got = f"{self.received_bytes} of {self.size_bytes} bytes"
            raise CasUnavailable(f"{self._where}: {got} received, then {why}", retryable=True)
        self.received_bytes += count
        return count

    def abort(self) -> None:
        """Make a readinto that waits in another thread fail now. Any thread; harmless afterwards."""
        self._answer.abort()

    def close(self) -> None:
        """End the request. The connection is used again if the body was read to its end."""
        self._answer.close()

    def __enter__(self) -> RangeBody:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def ranged_body(answer: Answer, byte_start: int, byte_end: int) -> RangeBody:
    """Check that a 200 or 206 carries the bytes byte_start..byte_end (half-open) and wrap its body.

    Raises CasUnavailable when it carries something else; asking again would not help, so it is not retryable.
    """
    size = byte_end - byte_start
    where = place(answer.url)
    headers = answer.headers
    length_text = headers.get("content-length", "")
    length = int(length_text) if _DIGITS.fullmatch(length_text) else None
    problem = None
    if headers.get("content-encoding", "identity").lower() != "identity":
        problem = "it is encoded, although identity was asked for"
    elif headers.get("content-type", "").lower().startswith("multipart/"):
        problem = "it has several parts, although one range was asked for"
    elif answer.status_code == 206:
        content_range = headers.get("content-range")
        match = _CONTENT_RANGE.fullmatch(content_range.strip()) if content_range is not None else None
        if content_range is not None and (
            match is None or (int(match[1]), int(match[2]) + 1) != (byte_start, byte_end)
        ):
            problem = f"Content-Range is {content_range[:80]!r}"
        elif length is not None and length != size:
            problem = f"Content-Length is {length}"
    elif byte_start != 0:
        problem = "the server ignores Range"
    elif length is not None and length < size:
        problem = f"Content-Length is {length}"
    if problem is not None:
        answer.close()
        raise CasUnavailable(
            f"{where}: wrong answer to a request for bytes {byte_start}..{byte_end}: {problem}",
            status=answer.status_code,
        )
    return RangeBody(answer, size, where)


def read_limited(answer: Answer, limit_bytes: int, *, until_s: float, clock: Callable[[], float]) -> bytes:
    """The unpacked body, at most `limit_bytes` of it, read until `clock()` says `until_s` at the latest.

    Raises CasError when there is more, CasUnavailable (retryable) when it ends early or takes too long.
    """
    where = place(answer.url)
    announced = answer.headers.get("content-length", "")
    size = int(announced) if _DIGITS.fullmatch(announced) else None
    data = bytearray()
    buffer = memoryview(bytearray(_STEP_BYTES))
    with answer:
        if size is not None and size > limit_bytes:
            raise CasError(f"{where}: answer of {size} bytes, at most {limit_bytes} are accepted")
        while count := answer.readinto(buffer):
            data += buffer[:count]
            if len(data) > limit_bytes:
                raise CasError(f"{where}: answer of more than {limit_bytes} bytes")
            if clock() > until_s:
                raise CasUnavailable(f"{where}: the answer takes too long", retryable=True)
    return bytes(data)
