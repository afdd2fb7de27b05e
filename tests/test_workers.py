from __future__ import annotations

import threading

import pytest

from zest_hf.errors import ZestError
from zest_hf.workers import WorkerPool

PATIENCE_S = 10.0


def names() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "zest-work"]


@pytest.fixture
def before() -> set[threading.Thread]:
    """Threads of other tests' pools."""
    return set(names())


def test_jobs_run_beside_each_other_up_to_the_limit(before: set[threading.Thread]) -> None:
    pool = WorkerPool(3)
    meeting = threading.Barrier(4)
    for _ in range(3):
        pool.submit(lambda: meeting.wait(PATIENCE_S) and None)
    later = threading.Event()
    pool.submit(later.set)
    assert not later.is_set()
    assert len(set(names()) - before) == 3
    meeting.wait(PATIENCE_S)
    assert later.wait(PATIENCE_S)
    assert len(set(names()) - before) == 3
    pool.close()


def test_jobs_that_wait_for_others() -> None:
    pool = WorkerPool(None)
    done = threading.Semaphore(0)

    def outer() -> None:
        inner = threading.Event()
        pool.submit(inner.set)
        if inner.wait(PATIENCE_S):
            done.release()

    for _ in range(200):
        pool.submit(outer)
    for _ in range(200):
        assert done.acquire(timeout=PATIENCE_S)
    pool.close()


def test_a_free_thread_is_used_again(before: set[threading.Thread]) -> None:
    pool = WorkerPool(8)
    done = threading.Semaphore(0)
    for _ in range(20):
        pool.submit(done.release)
        assert done.acquire(timeout=PATIENCE_S)
    assert 1 <= len(set(names()) - before) <= 2
    pool.close()


def test_a_job_that_raises_does_not_cost_its_thread(
    before: set[threading.Thread], caplog: pytest.LogCaptureFixture
) -> None:
    pool = WorkerPool(1)

    def fails() -> None:
        raise OSError("of the job")

    done = threading.Event()
    pool.submit(fails)
    pool.submit(done.set)
    assert done.wait(PATIENCE_S)
    assert "of the job" in caplog.text
    pool.close()


def test_close_ends_the_threads_after_what_was_submitted(before: set[threading.Thread]) -> None:
    pool = WorkerPool(2)
    go, ran = threading.Event(), []
    for number in range(6):
        pool.submit(lambda number=number: go.wait(PATIENCE_S) and ran.append(number))  # type: ignore[misc]
    pool.close()
    go.set()
    for thread in set(names()) - before:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert sorted(ran) == list(range(6))


def test_nothing_is_accepted_that_nobody_would_run() -> None:
    pool = WorkerPool(2)
    pool.close()
    with pytest.raises(ZestError, match="closing"):
        pool.submit(lambda: None)
    pool.close()


def test_submitting_and_closing_at_once_loses_nothing() -> None:
    for _ in range(50):
        pool = WorkerPool(2)
        accepted, ran = [], []

        def submit(pool: WorkerPool = pool, accepted: list[int] = accepted, ran: list[int] = ran) -> None:
            for number in range(50):
                try:
                    pool.submit(lambda number=number: ran.append(number))  # type: ignore[misc]
                except ZestError:
                    return
                accepted.append(number)

        thread = threading.Thread(target=submit)
        mine = set(names())
        thread.start()
        pool.close()
        thread.join(PATIENCE_S)
        for worker in set(names()) - mine:
            worker.join(PATIENCE_S)
        assert sorted(ran) == accepted


def test_more_are_allowed(before: set[threading.Thread]) -> None:
    """Jobs that wait already are run by the new ones."""
    pool = WorkerPool(1)
    meeting = threading.Barrier(4)
    for _ in range(3):
        pool.submit(lambda: meeting.wait(PATIENCE_S) and None)
    assert len(set(names()) - before) == 1
    pool.limit(5)
    assert len(set(names()) - before) == 3
    assert pool.busy == 3
    meeting.wait(PATIENCE_S)
    pool.close()


def test_fewer_are_allowed(before: set[threading.Thread]) -> None:
    """Those that run end as ever; nothing that waits is lost."""
    pool = WorkerPool(4)
    meeting = threading.Barrier(5)
    for _ in range(4):
        pool.submit(lambda: meeting.wait(PATIENCE_S) and None)
    pool.limit(1)
    at_once: list[int] = []
    done = threading.Semaphore(0)

    def look() -> None:
        at_once.append(pool.busy)
        done.release()

    meeting.wait(PATIENCE_S)
    for thread in sorted(set(names()) - before, key=lambda one: one.ident or 0):
        thread.join(0.5)
        if len(set(names()) - before) == 1:
            break
    assert len(set(names()) - before) == 1
    for _ in range(20):
        pool.submit(look)
    for _ in range(20):
        assert done.acquire(timeout=PATIENCE_S)
    assert set(at_once) == {1}
    pool.close()
