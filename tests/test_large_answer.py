"""Answers of megabytes: kept small, and made once for all who ask at the same moment."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zest_hf.errors import ZestError
from zest_hf.seed.large_answer import PART_BYTES, SMALL_BYTES, Packed, SharedAnswer, json_bytes

PATIENCE_S = 30.0


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 3000), st.integers(0, 3))
@example(b"\0", SMALL_BYTES, 0)
@example(b"\0", SMALL_BYTES + 1, 0)
@example(b"\0", 10 << 20, 0)
def test_everything_comes_in_small_parts(piece: bytes, times: int, more: int) -> None:
    data = piece * times + b"x" * more
    packed = Packed(data)
    parts = list(packed.parts())
    assert b"".join(parts) == data and packed.size_bytes == len(data)
    assert all(len(part) <= PART_BYTES for part in parts)
    assert packed == Packed(data) and packed != Packed(data + b"y")


def test_what_repeats_takes_little() -> None:
    data = json_bytes([{"repo": f"org/model-{number}", "uploaded": number, "files": 1} for number in range(10_000)])
    kept = Packed(data)._kept
    assert len(kept) < len(data) / 5


def test_names_that_are_no_unicode() -> None:
    """As Python has bytes of a file's name that are none."""
    assert json.loads(json_bytes({"repo": "org/\udcff"})) == {"repo": "org/\udcff"}


class Kitchen:
    """Makes numbers, one after the other, each when it is let."""

    def __init__(self) -> None:
        self.begun = 0
        self.fails = False
        self._may = threading.Semaphore(0)

    def make(self) -> bytes:
        self.begun += 1
        number = self.begun
        assert self._may.acquire(timeout=PATIENCE_S)
        if self.fails:
            raise ZestError("it is closed")
        return b"%d" % number

    def let(self, count: int = 1) -> None:
        self._may.release(count)

    async def has_begun(self, count: int) -> None:
        while self.begun < count:
            await asyncio.sleep(0.001)


@contextmanager
def kitchen() -> Iterator[tuple[Kitchen, SharedAnswer]]:
    one = Kitchen()
    try:
        yield one, SharedAnswer(one.make)
    finally:
        one.let(100)


def text(packed: Packed) -> bytes:
    return b"".join(packed.parts())


def test_all_who_ask_meanwhile_share_one() -> None:
    async def run() -> None:
        with kitchen() as (cook, answer):
            first = asyncio.create_task(answer.get())
            await cook.has_begun(1)
            # What is being made began before these asked.
            others = [asyncio.create_task(answer.get()) for _ in range(20)]
            await asyncio.sleep(0)
            assert cook.begun == 1
            cook.let()
            assert text(await first) == b"1"
            await cook.has_begun(2)
            cook.let()
            got = await asyncio.gather(*others)
            assert {text(packed) for packed in got} == {b"2"} and len(set(map(id, got))) == 1
            assert cook.begun == 2
            cook.let()
            assert text(await answer.get()) == b"3"

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


def test_who_gives_up_does_not_end_it_for_others() -> None:
    async def run() -> None:
        with kitchen() as (cook, answer):
            first, second = (asyncio.create_task(answer.get()) for _ in range(2))
            await cook.has_begun(1)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            cook.let()
            assert text(await second) == b"1"

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


def test_all_hear_what_went_wrong() -> None:
    async def run() -> None:
        with kitchen() as (cook, answer):
            cook.fails = True
            tasks = [asyncio.create_task(answer.get()) for _ in range(3)]
            cook.let(10)
            failed = await asyncio.gather(*tasks, return_exceptions=True)
            assert [str(error) for error in failed] == ["it is closed"] * 3
            cook.fails = False
            assert text(await answer.get()) == b"2"

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))
