"""The retry policy, walked through without a clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zest_hf.core.retry import RetryPolicy


def test_delays_double_up_to_the_maximum() -> None:
    policy = RetryPolicy(first_delay_s=1, max_delay_s=8, deadline_s=1000)
    assert [policy.delay_s(n, 0, 0.0) for n in range(6)] == [0.5, 1, 2, 4, 4, 4]
    assert policy.delay_s(10**9, 0, 0.0) == 4


def test_jitter_spreads_over_the_upper_half() -> None:
    policy = RetryPolicy(first_delay_s=2)
    assert (policy.delay_s(0, 0, 0.0), policy.delay_s(0, 0, 0.5)) == (1, 1.5)


def test_retry_after() -> None:
    policy = RetryPolicy(first_delay_s=1, max_retry_after_s=30, deadline_s=60)
    assert policy.delay_s(0, 0, 0.0, retry_after_s=20) == 20
    assert policy.delay_s(0, 0, 0.5, retry_after_s=20) == 20.5, "not all at the same moment"
    assert policy.delay_s(3, 0, 0.0, retry_after_s=0) == 4, "never earlier than the back-off"
    assert policy.delay_s(0, 0, 0.0, retry_after_s=31) is None
    assert policy.delay_s(0, 50, 0.0, retry_after_s=20) is None, "beyond the deadline"


@given(st.floats(0, 0.999), st.floats(0.01, 10), st.floats(1, 600))
def test_the_sum_of_the_delays_stays_within_the_deadline(
    jitter: float, first: float, deadline: float
) -> None:
    policy = RetryPolicy(first_delay_s=first, deadline_s=deadline)
    elapsed, attempt = 0.0, 0
    while (delay := policy.delay_s(attempt, elapsed, jitter)) is not None:
        assert delay > 0
        elapsed, attempt = elapsed + delay, attempt + 1
    assert elapsed <= deadline


def test_statuses() -> None:
    policy = RetryPolicy()
    assert [s for s in (200, 401, 403, 404, 408, 416, 429, 500, 501, 503, 504) if policy.is_retryable(s)] == [
        408, 429, 500, 503, 504,
    ]  # fmt: skip
