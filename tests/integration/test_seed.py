"""zest-seed, and whom it serves: everything by processes and a Hub that counts what its CDN sends."""

from __future__ import annotations

import json
import random
import shutil
import signal
import socket
import sqlite3
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from machines import PRELUDE, Machine, Seeder, eventually

from zest_hf.config import load_settings
from zest_hf.core.policy import PolicySettings
from zest_hf.hub.process import HubProcess
from zest_hf.index import Index
from zest_hf.seed.ledger import Ledger
from zest_hf.seed.seeder import Seeder as SeederCore
from zest_hf.seed.status import Status
from zest_hf.seed.web import StatusServer, listen
from zest_hf.swarm import Swarm
from zest_hf.traffic import TrafficLog

from .conftest import CONTENT, OWNER, SNAPSHOT, XET_BYTES, XET_NAMES, MakeMachine, snapshot

FILES = len(XET_NAMES)
STOP_S = 2.0
SETTLED = """
from zest_hf.engine import current_engine
# What it got is offered in the background, by a swarm that is opened for it, unless a peer was asked before.
assert current_engine().settle(10) and current_engine().swarm() is not None
"""
PLAIN = "from huggingface_hub import snapshot_download; snapshot_download('org/model')"


def plain(machine: Machine, **environ: str | None) -> None:
    """Downloads the model with hf_xet, as if zest_hf were not installed."""
    done = machine.python(PLAIN, HF_HUB_ENABLE_ZEST=None, **environ)
    assert done.code == 0, done.stderr


def from_peers_alone(hub: HubProcess, machine: Machine, *addresses: str) -> None:
    """The machine gets the model without a byte of the CDN."""
    hub.reset_stats()
    run = snapshot(machine, ZEST_PEERS=",".join(addresses))
    assert hub.stats()["cdn_bytes"] == 0
    assert run.shown["peer"] == run.shown["total"] == XET_BYTES
    assert run.stderr == ""


def from_the_cdn_alone(hub: HubProcess, machine: Machine, repo: str, *addresses: str, **environ: str) -> None:
    hub.reset_stats()
    run = snapshot(machine, repo, ZEST_PEERS=",".join(addresses), **environ)
    assert hub.stats()["cdn_bytes"] >= XET_BYTES
    assert (run.shown["peer"], run.shown["cdn"]) == (0, XET_BYTES)
    assert run.stderr == ""


def blobs(machine: Machine) -> dict[str, Path]:
    """The real files behind the names of the Xet files in the cache."""
    found = {path.name: path.resolve() for path in (machine.home / "hub").glob("models--*/snapshots/*/*")}
    return {name: found[name] for name in XET_NAMES}


def test_what_was_there_before_is_found_once(hub: HubProcess, make: MakeMachine) -> None:
    a = make("A")
    plain(a)
    assert not (a.home / "zest").exists()
    with a.seeder(ZEST_LOG="info") as seeder:
        seeder.wait_for_files(FILES)
        from_peers_alone(hub, make("B"), seeder.address)
        first = seeder.end(signal.SIGTERM).stderr
    assert first.count(" hashing ") == FILES
    with a.seeder(ZEST_LOG="info") as seeder:
        assert f"{FILES} files of 1 repository" in seeder.line
        # The scan has been through when it has found what is new.
        shutil.copytree(a.home / "hub" / "models--org--model", a.home / "hub" / "models--org--copy", symlinks=True)
        seeder.wait_for_line("files of the cache are new in the index")
        second = seeder.end(signal.SIGTERM).stderr
    assert " hashing " not in second


def test_the_index_costs_next_to_nothing(owner: Machine) -> None:
    with owner.seeder() as seeder:
        seeder.wait_for_files(FILES)
    used = sum(path.stat().st_blocks * 512 for path in (owner.home / "zest").rglob("*"))
    assert used <= XET_BYTES / 100
    whole = sum(path.lstat().st_blocks * 512 for path in owner.home.rglob("*") if not path.is_symlink())
    assert whole < 1.1 * XET_BYTES


@pytest.mark.parametrize("switch", ["1", None])
def test_what_is_downloaded_meanwhile_is_offered(hub: HubProcess, make: MakeMachine, switch: str | None) -> None:
    a = make("A")
    with a.seeder() as seeder:
        assert "0 files" in seeder.line
        done = a.python(PLAIN, HF_HUB_ENABLE_ZEST=switch)
        assert done.code == 0, done.stderr
        began_s = time.monotonic()
        seeder.wait_for_files(FILES)
        assert time.monotonic() - began_s < 10
        if switch is None:
            from_peers_alone(hub, make("B"), seeder.address)


def test_what_is_deleted_or_changed_is_withdrawn(hub: HubProcess, make: MakeMachine) -> None:
    a, b = make("A"), make("B")
    snapshot(a)
    # Two for one user: both listen, and both notice.
    with a.seeder() as seeder, a.seeder() as second:
        assert f"{FILES} files" in seeder.line and f"{FILES} files" in second.line
        changed = blobs(a)["model.safetensors"]
        changed.chmod(0o644)
        changed.write_bytes(b"X" + CONTENT["model.safetensors"][1:])
        # No waiting: a seeder that has not looked yet must not serve it either.
        run = snapshot(b, ZEST_PEERS=seeder.address)
        assert run.shown["cdn"] >= len(CONTENT["model.safetensors"])
        assert run.shown["total"] == XET_BYTES
        seeder.wait_for_files(FILES - 1)
        removed = a.command("hf", "cache", "rm", "model/org/model", "--yes")
        assert removed.code == 0, removed.stderr
        for one in (seeder, second):
            one.wait_for_files(0)
        from_the_cdn_alone(hub, make("C"), "org/model", seeder.address, second.address)


@pytest.mark.parametrize("switch", ["1", None])
def test_nothing_of_a_private_repository_leaves(hub: HubProcess, make: MakeMachine, switch: str | None) -> None:
    a = make("A")
    run = a.python(f"REPO = 'org/secret'\n{SNAPSHOT}", HF_TOKEN=OWNER, HF_HUB_ENABLE_ZEST=switch)
    assert run.code == 0, run.stderr
    # It has the owner's token, and still goes by what strangers see.
    with a.seeder(ZEST_LOG="info", HF_TOKEN=OWNER) as seeder:
        if switch is None:
            seeder.wait_for_line(f"{FILES} files of the cache are new in the index")
        else:
            from_the_cdn_alone(hub, make("B"), "org/secret", seeder.address, HF_TOKEN=OWNER)
            assert seeder.ask()["peers_connected"] == 0
            # Not even to someone who knows its hashes, from the same content in a public place.
            from_the_cdn_alone(hub, make("C"), "org/model", seeder.address)
        status = seeder.ask()
        assert (status["files"], status["bytes"]["uploaded"]) == (0, 0)


def test_a_public_repository_of_the_same_name_elsewhere(tmp_path: Path) -> None:
    """What was downloaded from one Hub is not public because another shows a repository of that name."""
    there = {"model.safetensors": random.Random("elsewhere").randbytes(500_000)}
    with (
        HubProcess(tmp_path / "here", token=OWNER) as here,
        HubProcess(tmp_path / "there", token=OWNER) as elsewhere,
    ):
        upload(here, CONTENT, private=True)
        upload(elsewhere, there, private=False)
        a = Machine(here, tmp_path / "A")
        plain(a, HF_TOKEN=OWNER)
        with a.seeder(ZEST_LOG="info", HF_ENDPOINT=elsewhere.endpoint, HF_TOKEN=OWNER) as seeder:
            seeder.wait_for_line(f"{FILES} files of the cache are new in the index")
            # Once as nobody, and perhaps already as the owner, who is told as little.
            assert FILES <= elsewhere.stats()["by_route"]["HEAD resolve"]["requests"] <= 2 * FILES
            # What is learned of that repository later does not make them public either.
            with closing(Index(a.home / "zest" / "index.sqlite")) as index:
                index.set_public(elsewhere.endpoint, "model", "org/model", False)
                index.set_public(elsewhere.endpoint, "model", "org/model", True)
                assert not any(copy.public for copy in index.copies())
            assert "0 files" in seeder.line
        with a.seeder(HF_ENDPOINT=elsewhere.endpoint) as seeder:
            assert "0 files" in seeder.line
        # The one Hub makes it public: now it is, and the cache has not changed.
        HfApi(here.endpoint, token=OWNER).update_repo_settings("org/model", private=False)
        with a.seeder(ZEST_LOG="info") as seeder:
            seeder.wait_for_files(FILES)
            assert " hashing " not in seeder.end(signal.SIGTERM).stderr


def upload(hub: HubProcess, content: dict[str, bytes], *, private: bool) -> None:
    api = HfApi(hub.endpoint, token=OWNER)
    api.create_repo("org/model", private=private)
    files = [CommitOperationAdd(name, data) for name, data in content.items()]
    api.create_commit("org/model", files, commit_message="files")


def test_a_repository_that_becomes_private_is_withdrawn(hub: HubProcess, make: MakeMachine) -> None:
    a = make("A")
    snapshot(a, "org/later")
    HfApi(hub.endpoint, token=OWNER).update_repo_settings("org/later", private=True)
    # As if what the Hub once said were a day old.
    with closing(sqlite3.connect(a.home / "zest" / "index.sqlite")) as index, index:
        index.execute("UPDATE visibility SET checked_at_s = checked_at_s - 25 * 3600")
    with a.seeder() as seeder:
        seeder.wait_for_files(0)
        from_the_cdn_alone(hub, make("B"), "org/later", seeder.address, HF_TOKEN=OWNER)
        assert seeder.ask()["bytes"]["uploaded"] == 0


def test_content_shared_with_a_private_repository(hub: HubProcess, make: MakeMachine) -> None:
    """The Hub's client keeps one copy for both; it may be offered because one of them is public."""
    a = make("A")
    for repo in ("org/secret", "org/model"):
        run = a.python(f"REPO = {repo!r}\n{SNAPSHOT}", HF_TOKEN=OWNER, HF_HUB_ENABLE_ZEST=None)
        assert run.code == 0, run.stderr
    with a.seeder() as seeder:
        seeder.wait_for_files(FILES)
        assert [model["repo"] for model in seeder.ask()["models"]] == ["org/model"]


def test_what_one_machine_downloaded_another_gets_without_the_cdn(
    hub: HubProcess, owner: Machine, make: MakeMachine
) -> None:
    with owner.seeder() as seeder:
        assert f"{FILES} files of 1 repository (6.3 MB)" in seeder.line
        check_status(seeder, uploaded=0)
        from_peers_alone(hub, make("B"), seeder.address)
        check_status(seeder, uploaded=XET_BYTES)


def check_status(seeder: Seeder, uploaded: int) -> None:
    """The status page is complete and tells the truth."""
    assert seeder.ask("/v1/health") == {"status": "ok"}
    status = seeder.ask()
    assert set(status) >= {
        *("version", "node_id", "listen", "uptime_seconds", "peers_connected", "bytes"),
        *("files", "xorbs", "banned", "models"),
    }
    assert set(status["bytes"]) == {"local", "peer", "cdn", "uploaded"}
    assert status["listen"] == seeder.address
    assert len(bytes.fromhex(status["node_id"])) == 20
    assert status["files"] == FILES and status["xorbs"] >= 1 and status["banned"] == []
    (model,) = status["models"]
    assert (model["repo"], model["size"]) == ("org/model", XET_BYTES)
    for count in (status["bytes"]["uploaded"], model["uploaded"]):
        assert uploaded <= count <= 1.01 * uploaded
    assert seeder.ask("/v1/models") == {"models": status["models"]}
    with pytest.raises(urllib.error.HTTPError, match="404"):
        seeder.ask("/etc/passwd")
    for name, code in (("evil.example", 400), ("localhost", 200), ("127.0.0.1.evil.example", 400)):
        assert status_for_host(seeder.url, name) == code, name


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_the_status_page_on_ipv6(machine: Machine) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with machine.seeder(ZEST_STATUS="[::1]:0") as seeder:
        assert seeder.url.startswith("http://[::1]:")
        assert seeder.ask("/v1/health") == {"status": "ok"}
        assert status_for_host(seeder.url, "evil.example") == 400


def status_for_host(url: str, host: str) -> int:
    request = urllib.request.Request(f"{url}/v1/status", headers={"Host": host})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_health_is_503_until_the_index_is_offered(owner: Machine) -> None:
    settings = load_settings(
        {"HF_HOME": str(owner.home), "ZEST_LISTEN": "127.0.0.1:0", "ZEST_LSD": "off", "ZEST_DHT": "off"}
    )
    index = Index(settings.home / "index.sqlite")
    swarm = Swarm(settings, PolicySettings())
    seeder = SeederCore(index, swarm, threading.Event())
    ledger = Ledger(TrafficLog(settings.home), swarm)
    page = StatusServer(Status(seeder, swarm, ledger), listen("127.0.0.1", 0), settings.home)
    page.start()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with pytest.raises(urllib.error.HTTPError) as caught:
            opener.open(f"{page.address}/v1/health", timeout=5)
        assert caught.value.code == 503 and json.load(caught.value) == {"status": "starting"}
        caught.value.close()
        seeder.refresh()
        with opener.open(f"{page.address}/v1/health", timeout=5) as answer:
            assert answer.status == 200
    finally:
        page.stop()
        ledger.close()
        swarm.close()
        index.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_while_serving(owner: Machine, make: MakeMachine, number: signal.Signals) -> None:
    b = make("B")
    with owner.seeder(ZEST_MAX_UP="1MB") as seeder:
        code = PRELUDE + f"REPO = 'org/model'\n{SNAPSHOT}"
        with b.running(sys.executable, "-c", code, ZEST_PEERS=seeder.address) as download:
            eventually(lambda: seeder.ask()["bytes"]["uploaded"], "something is uploaded")
            assert ended_after_s(seeder, number) < STOP_S
            run = download.end()
        assert run.code == 0, run.stderr
        assert run.shown["total"] == XET_BYTES and run.shown["cdn"] > 0
        for name in XET_NAMES:
            assert (Path(run.shown["path"]) / name).read_bytes() == CONTENT[name]


def test_it_ends_at_once_with_open_connections(owner: Machine) -> None:
    with owner.seeder() as seeder:
        page = socket.create_connection(("127.0.0.1", int(seeder.url.rpartition(":")[2])), timeout=5)
        peer = socket.create_connection(("127.0.0.1", int(seeder.address.rpartition(":")[2])), timeout=5)
        with page, peer:
            page.sendall(b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v1/sta")
            assert page.recv(12) == b"HTTP/1.1 200"
            assert ended_after_s(seeder, signal.SIGTERM) < STOP_S


def ended_after_s(seeder: Seeder, number: signal.Signals) -> float:
    began_s = time.monotonic()
    run = seeder.end(number)
    assert run.code == 0
    assert run.stderr.splitlines() == [seeder.line.rstrip()]
    return time.monotonic() - began_s


@pytest.fixture
def keep_alive() -> str:
    """Downloads, says where it listens, and goes on with its life until its stdin ends."""
    code = f"REPO = 'org/model'\n{SNAPSHOT}\n{SETTLED}"
    return f"{PRELUDE}{code}show(listen=zest_hf.status()['listen'])\nsys.stdin.read()"


def test_a_process_serves_what_it_downloaded_while_it_lives(
    hub: HubProcess, make: MakeMachine, keep_alive: str
) -> None:
    with make("A").running(sys.executable, "-c", keep_alive) as program:
        address = json.loads(program.wait_for_line('"listen"').removeprefix("RESULT "))["listen"]
        from_peers_alone(hub, make("B"), address)
        assert program.process.stdin is not None
        program.process.stdin.close()
        assert program.end().code == 0


def test_a_process_that_may_not_seed_serves_nothing(
    hub: HubProcess, make: MakeMachine, keep_alive: str, nobody: str
) -> None:
    # A peer to ask makes it start its side of the swarm all the same.
    environ = {"ZEST_SEED": "off", "ZEST_PEERS": nobody}
    with make("A").running(sys.executable, "-c", keep_alive, **environ) as program:
        address = json.loads(program.wait_for_line('"listen"').removeprefix("RESULT "))["listen"]
        from_the_cdn_alone(hub, make("B"), "org/model", address)


def test_offline_without_a_status_page(hub: HubProcess, owner: Machine, make: MakeMachine) -> None:
    """It serves, and asks nobody."""
    with owner.seeder(HF_HUB_OFFLINE="1", ZEST_STATUS="off") as seeder:
        assert "HF_HUB_OFFLINE" in seeder.line and "status" not in seeder.line
        assert f"{FILES} files" in seeder.line
        assert hub.stats()["hub_requests"] == 0
        from_peers_alone(hub, make("B"), seeder.address)
