"""The program zest 0.4.2 and ours, each as the other's peer. Run by `make interop`."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from machines import Machine
from swarm.node import Content, Node, Target

from interop.huggingface_co import HuggingFaceCo, is_private
from interop.zest_program import ADDRESS, PORT, PROGRAM, ZestProgram
from zest_hf._native.events import Kind, Outcome
from zest_hf.hub.process import HubProcess

pytestmark = pytest.mark.skipif(not is_private(), reason="needs a private network: make interop")

MODEL_BYTES = 40_000_000
# What a download may take here with a peer that never answers: peers are waited for a few seconds at most.
PATIENCE_S = 15.0
CHANGED = slice(30_000_000, 30_010_000)
CREATE = """
import sys
from huggingface_hub import HfApi
api = HfApi()
for repo in ("org/model", "org/tuned"):
    api.create_repo(repo)
    api.upload_folder(repo_id=repo, folder_path=sys.argv[1] + "/" + repo)
"""
SNAPSHOT = """
import huggingface_hub as hub, time, zest_hf
began = time.monotonic()
path = hub.snapshot_download("org/model")
show(path=path, seconds=time.monotonic() - began, **zest_hf.status()["bytes"])
"""


@dataclass(frozen=True)
class World:
    """A Hub that is also huggingface.co. org/tuned differs from org/model in a few chunks: it uses parts of xorbs."""

    hub: HubProcess
    source: Path

    def assert_right(self, repo: str, folder: Path) -> None:
        for path in (self.source / repo).iterdir():
            assert sha256((folder / path.name).read_bytes()).digest() == sha256(path.read_bytes()).digest(), path.name


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    content = {name: random.Random(name).randbytes(MODEL_BYTES) for name in ("model-1.bin", "model-2.bin")}
    for repo in ("org/model", "org/tuned"):
        (root / repo).mkdir(parents=True)
        for name, data in content.items():
            (root / repo / name).write_bytes(data)
        (root / repo / "config.json").write_text("{}")
    with (root / "org/tuned/model-2.bin").open("r+b") as file:
        file.seek(CHANGED.start)
        file.write(random.Random("changed").randbytes(CHANGED.stop - CHANGED.start))
    with HubProcess(root / "hub", cdn_listen=None) as hub:
        uploader = Machine(hub, root / "uploader")
        done = uploader.command(sys.executable, "-c", CREATE, str(root), HF_TOKEN="hf_any", HF_HUB_ENABLE_ZEST=None)
        assert done.code == 0, done.stderr
        with HuggingFaceCo(hub.endpoint, root):
            yield World(hub, root)


@pytest.fixture
def hub(world: World) -> HubProcess:
    world.hub.reset_stats()
    return world.hub


@pytest.fixture(scope="module")
def owner(world: World, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Has everything."""
    machine = Machine(world.hub, tmp_path_factory.mktemp("owner"))
    for repo in ("org/model", "org/tuned"):
        run = machine.python(f"import huggingface_hub as hub; hub.snapshot_download({repo!r})", ZEST_SEED="off")
        assert run.code == 0, run.stderr
    return machine


@pytest.fixture
def zest(tmp_path: Path) -> Iterator[ZestProgram]:
    assert PROGRAM.exists(), "make interop installs it"
    program = ZestProgram(tmp_path / "zest")
    with program.stopped_after():
        yield program


@pytest.mark.parametrize("repo", ["org/model", "org/tuned"])
def test_it_pulls_from_our_seeder(world: World, hub: HubProcess, owner: Machine, zest: ZestProgram, repo: str) -> None:
    with owner.seeder() as seeder:
        pull = zest.pull(repo, seeder.address)
        uploaded = seeder.ask()["bytes"]["uploaded"]
    world.assert_right(repo, pull.folder)
    assert pull.from_peers >= 2 and pull.from_cdn == 0, pull.output
    assert hub.stats()["cdn_bytes"] == 0
    print(f"\n{repo}: {uploaded:,} bytes from our seeder, none from the CDN, {pull.from_peers} xorbs")
    assert uploaded >= 2 * MODEL_BYTES


def test_it_gives_us_nothing_and_does_no_harm(world: World, hub: HubProcess, zest: ZestProgram, tmp_path: Path) -> None:
    zest.pull("org/model")
    hub.reset_stats()
    run = Machine(hub, tmp_path / "ours").python(SNAPSHOT, ZEST_PEERS=ADDRESS)
    assert run.code == 0 and not run.warnings, run.stderr
    world.assert_right("org/model", Path(run.shown["path"]))
    count = run.shown
    print(f"\n{count['cdn']:,} bytes from the CDN, {count['peer']:,} from zest, {run.shown['seconds']:.1f} s")
    assert count["peer"] + count["cdn"] == 2 * MODEL_BYTES
    assert run.shown["seconds"] < PATIENCE_S


def test_it_is_in_nobodys_way(world: World, hub: HubProcess, owner: Machine, zest: ZestProgram, tmp_path: Path) -> None:
    zest.pull("org/model")
    hub.reset_stats()
    with owner.seeder() as seeder:
        run = Machine(hub, tmp_path / "ours").python(SNAPSHOT, ZEST_PEERS=f"{ADDRESS},{seeder.address}")
    assert run.code == 0 and not run.warnings, run.stderr
    world.assert_right("org/model", Path(run.shown["path"]))
    print(f"\n{run.shown['peer']:,} bytes from our seeder beside zest, {run.shown['seconds']:.1f} s")
    assert hub.stats()["cdn_bytes"] == 0
    assert run.shown["seconds"] < PATIENCE_S


def test_what_it_does_not_understand_it_leaves_open(zest: ZestProgram, tmp_path: Path) -> None:
    """It takes our connection, keeps it, and never answers a request of the specification."""
    content = Content.random(30)
    zest.serve()
    with Node() as node, Target(tmp_path / "taken", content) as target:
        peer = node.meet(PORT)
        assert node.piece(peer, target, timeout_s=0.5).outcome is Outcome.TIMEOUT
        assert node.have(peer, Kind.FILE, content.hash).outcome is Outcome.UNSUPPORTED
        (known,) = node.session.peers()
        assert known.ready and known.client == "zest/0.3"
        assert node.session.bans() == []
