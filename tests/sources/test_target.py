"""What a download offers of itself while it runs: which files, which terms, which chunks."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from layouts import Layout, plain

from zest_hf._native.writable_file import WritableFile
from zest_hf.core.ids import XetHash
from zest_hf.core.knowledge import Knowledge
from zest_hf.core.reconstruction import Term
from zest_hf.sources.target import MAX_RUNS, Target


class Offers:
    """What is offered now."""

    def __init__(self) -> None:
        self.now: dict[WritableFile, tuple[XetHash | None, tuple[Term, ...]]] = {}

    def share_transfer(self, file: WritableFile, file_hash: XetHash | None, terms: tuple[Term, ...]) -> None:
        self.now[file] = file_hash, terms

    def unshare_transfer(self, file: WritableFile) -> None:
        self.now.pop(file, None)

    @property
    def xorbs(self) -> set[XetHash]:
        return {term.xorb for _, terms in self.now.values() for term in terms}


class Rig:
    def __init__(self, file: Layout, path: Path) -> None:
        self.file = file
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT)
        self.knowledge = Knowledge(file.plan)
        self.offers = Offers()
        self.target = Target(self.fd, file.file_hash, file.plan, self.knowledge, self.offers)

    def prove_xorb(self, number: int, per_xorb: int) -> None:
        term = self.file.reconstruction.terms[number]
        self.knowledge.xorb_proved(term.xorb, self.file.xorbs[term.xorb])
        self.target.proved(((number * per_xorb, (number + 1) * per_xorb),))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(plain(200, 4, chunk_bytes=100), tmp_path / "file")
    yield made
    made.target.end()
    os.close(made.fd)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("order", ["in order", "any order"])
def test_all_proved_xorbs_are_offered_with_few_descriptors(rig: Rig, order: str) -> None:
    numbers = list(range(200))
    if order == "any order":
        random.Random(1).shuffle(numbers)
    before = open_descriptors()
    for count, number in enumerate(numbers, 1):
        rig.prove_xorb(number, 4)
        assert open_descriptors() - before <= 2 * MAX_RUNS
        assert len(rig.offers.now) == open_descriptors() - before
        if order == "in order":
            assert len(rig.offers.xorbs) == count
    assert len(rig.offers.xorbs) == 200 or order == "any order"
    assert all(file_hash is None for file_hash, _ in rig.offers.now.values())


def test_the_files_manifest_makes_one_of_all(rig: Rig) -> None:
    rig.prove_xorb(3, 4)
    rig.prove_xorb(7, 4)
    running = rig.target.begin(12)  # a piece of the fourth xorb is on its way
    rig.knowledge.file_proved(rig.file.manifest)
    rig.target.proved(())
    ((file_hash, terms),) = rig.offers.now.values()
    assert (file_hash, terms) == (rig.file.file_hash, rig.file.plan.terms)
    running.file.wrote(0, 4)  # still open
    rig.target.done(running)
    whole = rig.target.begin(12)
    assert (whole.first, whole.end) == (0, 800)
    rig.target.seal()
    assert len(rig.offers.now) == 1
    whole.file.wrote(0, 800)
    rig.target.end()
    rig.target.end()
    assert not rig.offers.now


def test_without_a_sharer_nothing_is_opened_before_it_is_needed(tmp_path: Path) -> None:
    file = plain(3, 4, chunk_bytes=100)
    knowledge = Knowledge(file.plan)
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    target = Target(fd, file.file_hash, file.plan, knowledge, None)
    before = open_descriptors()
    knowledge.file_proved(file.manifest)
    target.proved(((0, 12),))
    assert open_descriptors() == before
    run = target.begin(5)
    assert (run.first, open_descriptors()) == (0, before + 1)
    target.end()
    assert open_descriptors() == before
    os.close(fd)
