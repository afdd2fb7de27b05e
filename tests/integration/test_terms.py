"""What a scan has found becomes known by its xorbs: the CAS is asked once, and only by whom it may be asked."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from machines import Machine, eventually

from zest_hf.config import Settings, load_settings
from zest_hf.hub.process import HubProcess
from zest_hf.index import Index
from zest_hf.seed import terms
from zest_hf.seed.terms import TermsQuest

from .conftest import CONTENT, OWNER, XET_NAMES, MakeMachine
from .test_seed import plain

SHARED = CONTENT["model.safetensors"]
NEW = random.Random("tuned").randbytes(1_000_000)
MODEL_AND_TUNE = """
import hashlib, huggingface_hub as hub, zest_hf
path = hub.hf_hub_download("org/tune", "model.safetensors")
show(sha256=hashlib.sha256(open(path, "rb").read()).hexdigest(), **zest_hf.status()["bytes"])
"""


@pytest.fixture
def tune(hub: HubProcess, make: MakeMachine) -> bytes:
    """org/tune: the model with something else behind it, of which the Hub stores only that."""
    content = SHARED + NEW
    api = HfApi(hub.endpoint, token=OWNER)
    api.create_repo("org/tune", exist_ok=True)
    api.create_commit("org/tune", [CommitOperationAdd("model.safetensors", content)], commit_message="tuned")
    hub.reset_stats()
    return content


def asked(hub: HubProcess) -> int:
    """Questions for reconstructions since the last reset."""
    routes = hub.stats()["by_route"]
    return sum(route["requests"] for name, route in routes.items() if "/reconstructions" in name)


def scanned(machine: Machine, **environ: str | None) -> dict[str, Any]:
    done = machine.command("zest", "scan", "--json", **environ)
    assert done.code == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


def test_who_downloads_a_fine_tune_gets_what_it_shares_from_who_has_the_base(
    hub: HubProcess, make: MakeMachine, tune: bytes
) -> None:
    """The base came by hf_xet alone, so that only a scan can have found it."""
    a, b = make("A"), make("B")
    plain(a)
    hub.reset_stats()
    with a.seeder() as seeder:
        seeder.wait_for_files(len(XET_NAMES))
        eventually(lambda: seeder.ask()["xorbs"] > 0, "xorbs are offered")
        # The files share a xorb, which who has it all can prove: it may be offered when only one of them is known.
        with closing(Index(a.home / "zest" / "index.sqlite")) as index:
            eventually(lambda: not index.without_terms(), "the xorbs of each file are known")
        assert asked(hub) == len(XET_NAMES)
    hub.reset_stats()
    # This one offers all that is known from the beginning.
    with a.seeder() as seeder:
        seeder.wait_for_files(len(XET_NAMES))
        run = b.python(MODEL_AND_TUNE, ZEST_PEERS=seeder.address)
    assert run.code == 0, run.stderr
    assert run.shown["sha256"] == hashlib.sha256(tune).hexdigest()
    # The last chunk of the base ends where the file does, and is another one in the fine-tune.
    assert run.shown["peer"] > len(SHARED) - 200_000
    assert run.shown["cdn"] == len(tune) - run.shown["peer"]
    assert hub.stats()["cdn_bytes"] < len(NEW) + 300_000


def test_the_cas_is_asked_once_a_file(hub: HubProcess, make: MakeMachine) -> None:
    a = make("A")
    plain(a)
    hub.reset_stats()
    assert scanned(a)["by_xorbs"] == len(XET_NAMES) == asked(hub)
    hub.reset_stats()
    assert scanned(a)["by_xorbs"] == len(XET_NAMES)
    with a.seeder() as seeder:
        eventually(lambda: seeder.ask()["xorbs"] > 0, "xorbs are offered")
    assert asked(hub) == 0


def test_private_files_are_asked_about_by_who_may_read_them(hub: HubProcess, make: MakeMachine) -> None:
    a = make("A")
    fetch = "from huggingface_hub import snapshot_download; snapshot_download('org/secret')"
    done = a.python(fetch, HF_HUB_ENABLE_ZEST=None, HF_TOKEN=OWNER)
    assert done.code == 0, done.stderr
    environ: dict[str, str]
    for environ in ({}, {"HF_TOKEN": OWNER, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, {"HF_TOKEN": "hf_nobody"}):
        hub.reset_stats()
        result = scanned(a, **environ)
        assert (result["by_xorbs"], result["offered"]["files"], asked(hub)) == (0, 0, 0), environ
    hub.reset_stats()
    result = scanned(a, HF_TOKEN=OWNER)
    assert (result["by_xorbs"], result["offered"]["files"], asked(hub)) == (len(XET_NAMES), 0, len(XET_NAMES))


def test_nobody_is_asked_offline(hub: HubProcess, make: MakeMachine) -> None:
    a = make("A")
    plain(a)
    hub.reset_stats()
    result = scanned(a, HF_HUB_OFFLINE="1")
    assert (result["files"], result["by_xorbs"]) == (len(XET_NAMES), 0)
    stats = hub.stats()
    assert stats["cas_requests"] == stats["cdn_requests"] == 0 and stats["hub_requests"] == 0


@dataclass
class Later:
    """A quest whose clocks, both of them, are `now_s`. ``asked``: what the CAS is asked by each run."""

    hub: HubProcess
    index: Index
    cache: Path
    now_s: float = 1_700_000_000.0

    def __post_init__(self) -> None:
        self.quest = self.anew()

    def anew(self) -> TermsQuest:
        """As in another process."""
        clock = lambda: self.now_s  # noqa: E731
        return TermsQuest(self.index, self.settings, self.cache, Event(), wall_clock=clock, clock=clock, pause_s=0.0)

    @property
    def settings(self) -> Settings:
        return load_settings({"ZEST_HOME": str(self.cache.parent)})

    def asked(self) -> int:
        self.hub.reset_stats()
        if self.quest.is_due():
            self.quest.run()
        return asked(self.hub)

    @property
    def known(self) -> int:
        return sum(copy.terms > 0 for copy in self.index.copies())


@pytest.fixture(scope="module")
def found(shared_hub: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Its files were found by a scan while the CAS could not be reached."""
    one = Machine(shared_hub, tmp_path_factory.mktemp("found"))
    plain(one)
    shared_hub.fault("cas", "status", status=503)
    assert scanned(one)["by_xorbs"] == 0
    shared_hub.clear_faults()
    yield one


@pytest.fixture
def later(hub: HubProcess, found: Machine, tmp_path: Path) -> Iterator[Later]:
    source, copy = (sqlite3.connect(path / "index.sqlite") for path in (found.home / "zest", tmp_path))
    with closing(source), closing(copy):
        source.backup(copy)
    with closing(Index(tmp_path / "index.sqlite")) as index:
        yield Later(hub, index, found.home / "hub")


def test_a_no_is_remembered(hub: HubProcess, later: Later) -> None:
    hub.fault("cas", "status", status=403)
    assert later.asked() == len(XET_NAMES)
    hub.clear_faults()
    assert later.asked() == 0
    later.quest = later.anew()
    assert later.asked() == 0
    later.now_s += terms.NO_S + 1
    assert (later.asked(), later.known) == (len(XET_NAMES), len(XET_NAMES))
    assert later.asked() == 0


def test_an_answer_that_is_not_of_the_file_is_none(hub: HubProcess, later: Later) -> None:
    hub.fault("cas", "garbage")
    assert (later.asked(), later.known) == (len(XET_NAMES), 0)
    hub.clear_faults()
    assert later.asked() == 0


def test_who_cannot_be_reached_is_asked_again_after_a_while(hub: HubProcess, later: Later) -> None:
    hub.fault("cas", "status", status=503)
    assert later.asked() == 1  # not for the other file as well
    for rest_s in (terms.FIRST_REST_S, 2 * terms.FIRST_REST_S):
        later.now_s += rest_s - 1
        assert later.asked() == 0
        later.now_s += 2
        assert later.asked() == 1
    hub.clear_faults()
    later.now_s += 4 * terms.FIRST_REST_S
    assert (later.asked(), later.known) == (len(XET_NAMES), len(XET_NAMES))


def test_a_repository_that_everyone_sees_from_now_on_is_asked_about_once_more(hub: HubProcess, later: Later) -> None:
    """A "no" is of the one who asked."""
    for copy in later.index.copies():
        later.index.set_unanswered(copy.file_hash, b"somebody", later.now_s + terms.NO_S)
    assert (later.asked(), later.known) == (len(XET_NAMES), len(XET_NAMES))


def test_it_ends_early(later: Later) -> None:
    stop = Event()
    stop.set()
    assert TermsQuest(later.index, later.settings, later.cache, stop).run() == 0 == asked(later.hub)
    assert later.asked() == len(XET_NAMES)
