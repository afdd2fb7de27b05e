"""How much waits for one peer: what its line takes in a tenth of a second, between bounds, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pure_classes import Pure

KB, MB = 1024, 1024 * 1024
LEAST, FIRST, MOST = 256 * KB, MB, 2 * MB


@pytest.fixture(scope="module")
def process() -> Iterator[Pure]:
    process = Pure()
    yield process
    process.close()


class Line:
    """Something waits all the time; ``limits``: after each batch that has left."""

    def __init__(self, pure: Pure) -> None:
        pure("reset")
        self._pure = pure
        self.now_ms = 1000
        self.limit = FIRST
        pure("begin", self.now_ms)

    def takes(self, bytes_s: int, for_ms: int, batch: int = 64 * KB) -> list[int]:
        limits = []
        begin_ms, left = self.now_ms, 0
        while self.now_ms < begin_ms + for_ms:
            left += batch
            self.now_ms = begin_ms + left * 1000 // bytes_s
            self.limit = int(self._pure("left", batch, self.now_ms))
            limits.append(self.limit)
        return limits

    def rests(self, for_ms: int) -> None:
        self.now_ms += for_ms
        self._pure("begin", self.now_ms)


@pytest.mark.parametrize("bytes_s", [5 * MB, 8 * MB, 15 * MB])
def test_a_tenth_of_a_second(process: Pure, bytes_s: int) -> None:
    line = Line(process)
    line.takes(bytes_s, 1000)
    assert line.limit == pytest.approx(bytes_s / 10, rel=0.1)


@pytest.mark.parametrize(("bytes_s", "limit"), [(200 * KB, LEAST), (2 * MB, LEAST), (30 * MB, MOST), (2000 * MB, MOST)])
def test_the_bounds(process: Pure, bytes_s: int, limit: int) -> None:
    line = Line(process)
    line.takes(bytes_s, 1000)
    assert line.limit == limit


def test_more_at_once_and_less_by_and_by(process: Pure) -> None:
    line = Line(process)
    line.takes(100 * MB, 200)
    assert line.limit == MOST
    assert list(dict.fromkeys(line.takes(2 * MB, 500)))[1:] == [MOST // 2, MOST // 4, LEAST]
    line.takes(100 * MB, 101)
    assert line.limit == MOST


def test_when_nothing_waits_the_line_is_not_slow(process: Pure) -> None:
    line = Line(process)
    line.takes(100 * MB, 200)
    line.rests(60_000)
    assert set(line.takes(100 * MB, 200)) == {MOST}
