"""What peers say that they hold, and how much of it is listened to."""

from __future__ import annotations

from typing import Any, cast

import pytest

from zest_hf._native.events import Claims, HaveAnswer, HaveMore, Outcome, PeerGone
from zest_hf.core.ids import XetHash
from zest_hf.seed.holdings import MAX_FILES, MAX_QUESTIONS, Holdings
from zest_hf.swarm import Swarm

PEER = 7


class Asked:
    """The part of a swarm that is used: it notes what is asked, by the tokens."""

    def __init__(self) -> None:
        self.questions: list[tuple[int, XetHash]] = []
        self.listener: Any = None

    def subscribe(self, listener: Any) -> None:
        self.listener = listener

    def ask_have(self, listener: Any, peer: int, kind: Any, file_hash: XetHash, timeout_s: float, **how: Any) -> int:
        assert how == {"updates": True}
        self.questions.append((peer, file_hash))
        return len(self.questions)


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def holdings(asked: Asked) -> Holdings:
    return Holdings(cast("Swarm", asked))


def begins(asked: Asked, number: int = 0, peer: int = PEER) -> int:
    """A peer says that it downloads a file; the token of what it was asked last."""
    asked.listener(Claims(peer, XetHash(number.to_bytes(32, "big")), True, ()))
    return len(asked.questions)


def test_what_comes_adds_up(asked: Asked, holdings: Holdings) -> None:
    token = begins(asked)
    assert holdings.of(PEER) is None
    asked.listener(HaveAnswer(PEER, token, Outcome.OK, 0, ()))
    assert holdings.of(PEER) is None  # it does not know yet how large it is
    asked.listener(HaveMore(PEER, token, False, ((0, 10),), 100))
    assert holdings.of(PEER) == 0.1
    begins(asked)
    assert len(asked.questions) == 1
    other = begins(asked, 1)
    asked.listener(HaveAnswer(PEER, other, Outcome.OK, 100, ((0, 20), (50, 60))))
    assert holdings.of(PEER) == 0.2
    asked.listener(HaveMore(PEER, token, False, ((10, 100),), 100))
    assert holdings.of(PEER) == 0.65
    asked.listener(Claims(PEER, XetHash(bytes(32)), False, ()))  # it has all
    assert holdings.of(PEER) == 0.65 and holdings.of(PEER + 1) is None
    asked.listener(PeerGone(PEER, 0, "it is off"))
    assert holdings.of(PEER) is None


def test_who_has_only_left_or_finished_is_not_asked(asked: Asked, holdings: Holdings) -> None:
    asked.listener(Claims(PEER, XetHash(bytes(32)), False, ()))
    assert not asked.questions and holdings.of(PEER) is None


def test_who_says_more_than_there_is(asked: Asked, holdings: Holdings) -> None:
    token = begins(asked)
    asked.listener(HaveAnswer(PEER, token, Outcome.OK, 10, ((0, 10),)))
    for _ in range(100):
        asked.listener(HaveMore(PEER, token, False, ((0, 1 << 28),), 10))
    assert holdings.of(PEER) == 1.0
    # Nor does anybody speak for others.
    asked.listener(HaveMore(PEER + 1, token, False, ((0, 10),), 10))
    assert holdings.of(PEER + 1) is None


@pytest.mark.parametrize("outcome", [Outcome.TIMEOUT, Outcome.NOT_FOUND, None])
def test_who_ends_its_answers_is_asked_again_a_few_times(
    asked: Asked, holdings: Holdings, outcome: Outcome | None
) -> None:
    for _ in range(3 * MAX_QUESTIONS):
        token = begins(asked)
        if outcome is not None:
            asked.listener(HaveAnswer(PEER, token, outcome, 0, ()))
        else:
            asked.listener(HaveAnswer(PEER, token, Outcome.OK, 10, ((0, 5),)))
            asked.listener(HaveMore(PEER, token, True, (), 0))
    assert len(asked.questions) == MAX_QUESTIONS
    assert holdings.of(PEER) == (None if outcome is not None else 0.5)


def test_who_downloads_very_much(asked: Asked, holdings: Holdings) -> None:
    for number in range(3 * MAX_FILES):
        begins(asked, number)
    assert len(asked.questions) == MAX_FILES
    begins(asked, 0, PEER + 1)
    assert len(asked.questions) == MAX_FILES + 1
