"""What a seeder offers follows the index, and costs what has changed of it."""

from __future__ import annotations

import os
import random
import threading
from array import array
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from zest_hf.config import load_settings
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.policy import PolicySettings
from zest_hf.index import Copy, Index, IndexedFile
from zest_hf.seed.seeder import Seeder
from zest_hf.swarm import Swarm

HUB = "https://huggingface.co"
REPOS = ("org/one", "org/two", "org/three")


class CountingIndex(Index):
    """`listed`: entries that were looked at."""

    listed = 0

    def copies(self, of: Collection[XetHash] | None = None) -> list[Copy]:
        found = super().copies(of)
        self.listed += len(found)
        return found


class TellingSwarm(Swarm):
    """`offered`: what it was given and not told to let go of."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.offered: set[tuple[Path, XetHash]] = set()
        super().__init__(*args, **options)

    def share(self, file: IndexedFile) -> None:
        super().share(file)
        self.offered.add((file.path, file.file_hash))

    def unshare(self, path: str, file_hash: XetHash) -> None:
        super().unshare(path, file_hash)
        self.offered.discard((Path(path), file_hash))


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[TellingSwarm]:
    quiet = {"ZEST_LISTEN": "127.0.0.1:0", "ZEST_LSD": "off", "ZEST_DHT": "off", "ZEST_HOME": str(tmp_path / "zest")}
    with closing(TellingSwarm(load_settings(quiet), PolicySettings())) as one:
        yield one


@pytest.fixture
def index(tmp_path: Path) -> Iterator[CountingIndex]:
    with closing(CountingIndex(tmp_path / "index.sqlite")) as one:
        yield one


def a_file(folder: Path, number: int, repo: str, public: bool = True) -> IndexedFile:
    dice = random.Random(number)
    path = folder / str(number)
    manifest = Manifest(dice.randbytes(32), array("I", [dice.randrange(1, 5000)]))
    path.write_bytes(bytes(manifest.size_bytes))
    at = path.stat().st_mtime_ns
    return IndexedFile(
        XetHash(dice.randbytes(32)), path, manifest.size_bytes, at, repo, "model", HUB, public, manifest, ()
    )


def test_one_file_more_does_not_cost_a_look_at_all(tmp_path: Path, index: CountingIndex, swarm: TellingSwarm) -> None:
    index.add_all([a_file(tmp_path, number, REPOS[0]) for number in range(500)])
    seeder = Seeder(index, swarm, threading.Event())
    seeder.refresh()
    assert (swarm.stats().files_shared, index.listed) == (500, 500)
    for number in range(500, 520):
        index.add(a_file(tmp_path, number, REPOS[0]))
        seeder.refresh()
    assert (swarm.stats().files_shared, index.listed) == (520, 520)


def test_whatever_happens_to_the_index_the_offer_is_what_it_would_be_anew(
    tmp_path: Path, index: CountingIndex, swarm: TellingSwarm
) -> None:
    dice = random.Random(5)
    seeder = Seeder(index, swarm, threading.Event())
    files: list[IndexedFile] = []
    for step in range(150):
        for _ in range(dice.randrange(1, 4)):
            what = dice.randrange(5)
            if what <= 1 or not files:
                files.append(a_file(tmp_path, 1000 * step + len(files), dice.choice(REPOS), dice.random() < 0.7))
                index.add(files[-1])
            elif what == 2:
                gone = files.pop(dice.randrange(len(files)))
                index.remove(gone.file_hash, gone.path)
            elif what == 3:
                index.set_public(HUB, "model", dice.choice(REPOS), dice.random() < 0.5)
            else:
                os.truncate(dice.choice(files).path, 0)
        seeder.refresh()
        listed = {(copy.path, copy.file_hash) for copy in index.copies() if copy.public}
        # What has changed on the disk is looked at in turn, or when its entry changes.
        there = {(path, hash_) for path, hash_ in listed if path.stat().st_size}
        assert there <= swarm.offered <= listed and len(swarm.offered) == swarm.stats().files_shared
