"""Machines that find each other: whole programs, each on a host of its own, and a Hub that is far away."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from machines import Machine, Run, eventually
from swarm import namespaces
from swarm import wire_peer as wire
from swarm.namespaces import Namespace
from swarm.trackers import opentracker, opentracker_program

from zest_hf.hub.process import HubProcess

from .conftest import CONTENT, OWNER, PARTS, XET_BYTES, XET_NAMES, create, snapshot

pytestmark = pytest.mark.skipif(namespaces.why_not() is not None, reason=str(namespaces.why_not()))

FAR_S = 0.4
"""How far away the content-addressed store is: as long as it thinks, peers can be found."""


@dataclass
class Lan:
    """Host A has the Hub and a machine that has downloaded the model; host B has a machine that has nothing."""

    hub: HubProcess
    a: Namespace
    b: Namespace
    owner: Machine
    other: Machine

    def seeds(self, **environ: str) -> contextlib.AbstractContextManager[object]:
        with self.a.entered():
            return _seeding(self.owner, self.a, environ)

    def download(self, repo: str = "org/model", **environ: str) -> Run:
        """On host B, with the counters of the CDN at zero before."""
        with self.a.entered():
            self.hub.reset_stats()
        with self.b.entered():
            return snapshot(self.other, repo, ZEST_LISTEN="0.0.0.0:0", **environ)

    def cdn_bytes(self) -> int:
        with self.a.entered():
            return int(self.hub.stats()["cdn_bytes"])


@contextlib.contextmanager
def _seeding(owner: Machine, where: Namespace, environ: dict[str, str]) -> Iterator[None]:
    with where.entered(), owner.seeder(ZEST_LISTEN="0.0.0.0:0", **environ) as seeder:
        eventually(lambda: seeder.ask()["files"] >= len(XET_NAMES), "the model is offered")
        yield


@pytest.fixture(scope="module")
def lan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lan]:
    root = tmp_path_factory.mktemp("lan")
    with namespaces.cable("10.78.0") as (a, b), a.entered(), HubProcess(
        root / "state",
            token=OWNER,
            listen=f"{a.address}:0",
            cdn_listen=f"{a.address}:0",
            remote_control=True,
    ) as hub:
        create(hub, root, {"org/model": CONTENT, "org/secret": CONTENT, "org/parts": PARTS})
        owner = Machine(hub, root / "owner")
        assert snapshot(owner, ZEST_SEED="off").shown["cdn"] == XET_BYTES
        hub.fault("cas", "latency", seconds=FAR_S)
        yield Lan(hub, a, b, owner, Machine(hub, root / "other"))


@pytest.fixture(autouse=True)
def fresh(lan: Lan, tmp_path: Path) -> None:
    lan.other = Machine(lan.hub, tmp_path / "other")


def assert_all_from_peers(lan: Lan, run: Run) -> None:
    assert run.shown["peer"] == XET_BYTES, run.stderr
    assert lan.cdn_bytes() == 0


def test_on_the_local_network(lan: Lan) -> None:
    with lan.seeds(ZEST_LSD="on"):
        assert_all_from_peers(lan, lan.download(ZEST_LSD="on"))


@pytest.mark.skipif(opentracker_program() is None, reason="opentracker is not installed")
@pytest.mark.parametrize("scheme", ["http", "udp"])
def test_at_a_tracker(lan: Lan, scheme: str) -> None:
    hashes = [wire.file_swarm(file_hash) for file_hash in hashes_of(lan)]
    with lan.a.entered(), opentracker(hashes, lan.a.address) as port:
        url = f"{scheme}://{lan.a.address}:{port}/announce"
        with lan.seeds(ZEST_TRACKERS=url):
            assert_all_from_peers(lan, lan.download(ZEST_TRACKERS=url))


def hashes_of(lan: Lan) -> list[bytes]:
    from zest_hf.index import Index

    index = Index(lan.owner.home / "zest" / "index.sqlite")
    try:
        return [bytes(copy.file_hash) for copy in index.copies()]
    finally:
        index.close()


def test_a_private_repository_in_a_swarm_with_a_key(lan: Lan) -> None:
    """And nobody without that key gets any of it."""
    with lan.seeds(ZEST_LSD="on", ZEST_SWARM_KEY="correct horse battery staple"):
        for key in ("", "incorrect horse battery staple"):
            lan.other = Machine(lan.hub, lan.other.root.parent / f"without{len(key)}")
            run = lan.download("org/secret", ZEST_LSD="on", ZEST_SWARM_KEY=key, HF_TOKEN=OWNER)
            assert (run.shown["peer"], run.shown["cdn"]) == (0, XET_BYTES)
        lan.other = Machine(lan.hub, lan.other.root.parent / "with")
        run = lan.download(
            "org/secret", ZEST_LSD="on", ZEST_SWARM_KEY="correct horse battery staple", HF_TOKEN=OWNER
        )
        assert_all_from_peers(lan, run)


@pytest.mark.parametrize("what", ["all off", "private", "offline"])
def test_silence(lan: Lan, what: str) -> None:
    """Every frame that leaves the host is for the Hub; offline there is none."""
    discovery = {"ZEST_LSD": "off", "ZEST_DHT": "off"}
    if what != "all off":
        # The bootstrap node would be the other host, and so would a tracker.
        address = f"{lan.a.address}:9"
        discovery = {
            "ZEST_LSD": "on",
            "ZEST_DHT": "on",
            "ZEST_DHT_BOOTSTRAP": address,
            "ZEST_TRACKERS": f"udp://{address}/announce",
            "ZEST_PEERS": address,
        }
    if what == "offline":
        lan.download(ZEST_LSD="off")  # it has something to seed
    with lan.b.capture() as frames:
        if what == "offline":
            with lan.b.entered(), lan.other.seeder(HF_HUB_OFFLINE="1", ZEST_LISTEN="0.0.0.0:0", **discovery) as seeder:
                seeder.wait_for_files(len(XET_NAMES))
        else:
            repo = "org/secret" if what == "private" else "org/model"
            assert lan.download(repo, HF_TOKEN=OWNER, **discovery).shown["cdn"] == XET_BYTES
    sent = [frame for frame in frames if not is_for_itself(frame)]
    beside = [frame for frame in sent if not is_for_the_hub(frame, lan)]
    assert not beside, [frame[:80].hex() for frame in beside[:5]]
    assert bool(sent) == (what != "offline")


def is_for_itself(frame: bytes) -> bool:
    """TCP on the loopback interface: the test asks for the status."""
    return frame[12:14] == b"\x08\x00" and frame[23] == 6 and frame[26:27] == frame[30:31] == b"\x7f"


def is_for_the_hub(frame: bytes, lan: Lan) -> bool:
    """TCP between the host and the Hub's address, on none of the ports above."""
    if frame[12:14] != b"\x08\x00" or frame[23] != 6:
        return False
    ends = {".".join(map(str, frame[at : at + 4])) for at in (26, 30)}
    ports = {int.from_bytes(frame[at : at + 2], "big") for at in (34, 36)}
    return ends == {lan.a.address, lan.b.address} and 9 not in ports
