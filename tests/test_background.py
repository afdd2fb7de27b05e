"""Work in the background: order, bounds, the end, and a fork."""

from __future__ import annotations

import os
import threading

import pytest
from downloads import within

from zest_hf.background import Background

BOUND_S = 10.0


def test_jobs_run_in_order_and_a_bad_one_ends_nothing() -> None:
    done: list[int] = []
    one = Background("test", 10)
    one.submit(lambda: done.append(1))
    one.submit(lambda: 1 // 0)
    one.submit(lambda: done.append(2), BOUND_S)
    assert done == [1, 2]
    one.close(BOUND_S)
    one.submit(lambda: done.append(3), BOUND_S)
    assert done == [1, 2]


def test_only_the_first_waits_for_one_that_is_late() -> None:
    go = threading.Event()
    done: list[int] = []
    one = Background("test", 3)
    one.submit(lambda: done.append(int(go.wait(BOUND_S))), 0.05)
    with within(1.0):
        for number in range(10, 20):
            one.submit(lambda number=number: done.append(number), BOUND_S)  # type: ignore[misc]
        assert not one.drain(0.01)
    go.set()
    assert one.drain(BOUND_S)
    assert done == [1, 10, 11, 12], "as many as the queue holds"
    # It is on time again.
    one.submit(lambda: done.append(99), BOUND_S)
    assert done[-1] == 99
    one.close(BOUND_S)


def test_the_end_is_bounded_and_forgets_the_rest() -> None:
    began, go = threading.Event(), threading.Event()
    done: list[int] = []

    def wait() -> None:
        began.set()
        go.wait(BOUND_S)

    one = Background("test", 10)
    one.submit(wait)
    one.submit(lambda: done.append(1))
    thread = one._thread
    assert thread is not None and began.wait(BOUND_S)
    with within(1.0):
        one.close(0.05)
    go.set()
    thread.join(BOUND_S)
    assert not thread.is_alive() and done == []


def test_idle() -> None:
    calls = threading.Semaphore(0)
    one = Background("test", 10, idle=lambda: calls.release() or 0.001)  # type: ignore[func-returns-value]
    one.submit(lambda: None)
    for _ in range(5):
        assert calls.acquire(timeout=BOUND_S)
    one.close(BOUND_S)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_afresh() -> None:
    began, go = threading.Event(), threading.Event()

    def wait() -> None:
        began.set()
        go.wait(BOUND_S)

    one = Background("test", 10)
    one.submit(wait)
    assert began.wait(BOUND_S)
    one._lock.acquire()  # by a thread that the child does not have
    child = os.fork()
    if child == 0:
        done: list[int] = []
        one.submit(lambda: done.append(os.getpid()), BOUND_S)
        os._exit(0 if one.drain(0.0) and done == [os.getpid()] else 1)
    one._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go.set()
    one.close(BOUND_S)
