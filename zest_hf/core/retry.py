"""When to try again: a value without a clock, so that a test can walk through hours of it in no time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# 408, 429 and the 5xx that speak of the moment. 501 and 505 speak of the server: they stay.
RETRYABLE_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with jitter, bounded by a deadline; all times in seconds.

    The jitter spreads the n-th delay over the upper half of ``first_delay_s * 2**n``: many nodes that were
    refused together come back apart. A server's Retry-After is honoured up to `max_retry_after_s`; more
    than that is for the caller's fallback to deal with, not for us to sleep through.
    """

    first_delay_s: float = 0.5
    max_delay_s: float = 15.0
    max_retry_after_s: float = 30.0
    deadline_s: float = 60.0
    retryable_statuses: frozenset[int] = RETRYABLE_STATUSES

    def is_retryable(self, status: int) -> bool:
        """Whether an answer with this HTTP status may be better next time."""
        return status in self.retryable_statuses

    def delay_s(
        self, attempt: int, elapsed_s: float, jitter: float, retry_after_s: float | None = None
    ) -> float | None:
        """How long to wait after failed attempt number `attempt` (from 0), or None to give up.

        `elapsed_s` is the time since the first attempt began, `jitter` a random number in [0, 1).
        """
        # The exponent is bounded because 2.0 ** 1024 is an error, not infinity.
        backoff_s = min(self.first_delay_s * 2.0 ** min(attempt, 64), self.max_delay_s)
        delay = backoff_s * (0.5 + jitter / 2)
        if retry_after_s is not None:
            if retry_after_s > self.max_retry_after_s:
                return None
            # Not earlier than asked, and not all at the asked moment.
            delay = max(delay, retry_after_s + self.first_delay_s * jitter)
        return delay if elapsed_s + delay <= self.deadline_s else None
