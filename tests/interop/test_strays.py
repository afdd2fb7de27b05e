"""aria2 and transmission in one of our swarms get nothing, cost nothing and are in nobody's way."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from downloads import Publisher, Watch, engine, fetch, xorb
from machines import eventually
from swarm import wire_peer as wire
from swarm.node import Content, Node, Target

from interop.huggingface_co import is_private
from interop.strays import STRAYS, Tracker, installed, stray
from interop.tap import Talk, Tap
from zest_hf._native.events import Outcome
from zest_hf.hub.process import HubProcess

LOOPBACK = "127.0.0.1"
# transmission takes no peer with an address of loopback. This one is documentation's (RFC 5737).
ELSEWHERE = "198.51.100.1"
# transmission takes its time between the tracker and the peers.
FOUND_S = 15.0
# With the padding of the encrypted handshake.
HANDSHAKES_BYTES = 2000


@pytest.fixture(params=STRAYS)
def program(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if not installed(name):
        pytest.skip(f"{name} is not installed: make interop")
    if name == "transmission-cli" and not is_private():
        pytest.skip("needs a private network: make interop")
    return name


@pytest.fixture
def host(program: str) -> Iterator[str]:
    """The address at which we are."""
    if program == "aria2c":
        yield LOOPBACK
        return
    subprocess.run(["ip", "address", "add", f"{ELSEWHERE}/32", "dev", "lo"], check=True)
    yield ELSEWHERE
    subprocess.run(["ip", "address", "del", f"{ELSEWHERE}/32", "dev", "lo"], check=True)


@pytest.fixture
def port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        number: int = server.getsockname()[1]
        return number


def assert_told_nothing(said: bytes, *hashes: bytes) -> None:
    """All that a stray hears of us are handshakes, in clear or encrypted as it likes."""
    assert len(said) < HANDSHAKES_BYTES
    for each in hashes:
        assert each not in said


@pytest.mark.parametrize("swarm", ["file", "xorb", "node"])
def test_a_seeder_hangs_up(program: str, host: str, port: int, swarm: str, tmp_path: Path) -> None:
    content = Content.random(30)
    info_hash = {
        "file": wire.file_swarm(content.hash),
        "xorb": wire.xorb_swarm(content.xorbs[0][0]),
        "node": wire.NODE_SWARM,
    }[swarm]
    with Node(listen_host=host) as node, Tap(host, node.port) as tap, Tracker(host, tap.port) as tracker:
        node.share(content, tmp_path / "offered")
        with stray(program, info_hash, tracker, tmp_path / "stray", port) as taken:
            talk = tap.talks.get(timeout=FOUND_S)
            # Others are served while it is there.
            with Node() as other, Target(tmp_path / "wanted", content) as target:
                assert other.piece(other.meet(node.port, host=host), target).outcome is Outcome.OK
        assert_told_nothing(talk.by_called, content.hash, *(xorb for xorb, _, _ in content.xorbs))
        assert {announce["info_hash"] for announce in tracker.announces} == {info_hash.decode("latin-1")}
        assert list(taken.iterdir()) == []
        stats = node.session.stats()
        assert (stats.bytes_up, stats.bytes_down) == (len(content.data), 0)
        assert node.session.bans() == []


@pytest.mark.parametrize("dialled", [False, True])
def test_a_download_goes_on(
    program: str, host: str, port: int, dialled: bool, local_hub: HubProcess, tmp_path: Path
) -> None:
    """While it runs a stray comes in, or one that was given as a peer is dialled."""
    file = Publisher(local_hub.endpoint, f"strays/{program}{dialled}").put(xorb(program, 2_000_000))
    talks: list[Talk] = []
    with ExitStack() as stack:
        # In front of the stray, or in front of us.
        tap = Tap(host, port) if dialled else None
        given = "" if tap is None else f"{host}:{stack.enter_context(tap).port}"
        one = stack.enter_context(engine(tmp_path / "home", ZEST_LISTEN=f"{host}:0", ZEST_PEERS=given))
        swarm = one.swarm()
        assert swarm is not None
        if tap is None:
            tap = stack.enter_context(Tap(host, swarm.port))
        tracker = stack.enter_context(Tracker(host, None if dialled else tap.port))
        taken = stack.enter_context(stray(program, wire.NODE_SWARM, tracker, tmp_path / "stray", port))
        eventually(lambda: tracker.announces, f"{program} is there")
        watch = Watch(lambda: talks.append(tap.talks.get(timeout=FOUND_S)))
        result = fetch(one, file, tmp_path / "got", watch)
        (talk,) = talks
        assert_told_nothing(talk.by_caller if dialled else talk.by_called, file.file_hash)
        assert result.bytes_cdn == len(file.content)
        assert list(taken.iterdir()) == []
        assert swarm.stats().bytes_up == 0 and swarm.bans() == []
