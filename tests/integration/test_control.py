"""What users forbid: hours in which nothing is uploaded, repositories that are not shared, and who has no key."""

from __future__ import annotations

import time
from contextlib import closing

import pytest
from machines import Machine, eventually
from swarm import wire_peer as wire

from zest_hf.hub.process import HubProcess
from zest_hf.index import Index

from .conftest import OWNER, SNAPSHOT, XET_BYTES, MakeMachine, snapshot
from .test_seed import FILES, SETTLED, from_peers_alone, from_the_cdn_alone

NOON_S = 12 * 3600
EVER = "00:00-24:00"


def noon_in(seconds: float) -> str:
    """A time zone in which that is so (POSIX: what is added to the local time to get UTC)."""
    offset_s = round((time.time() + seconds - NOON_S + NOON_S) % 86400 - NOON_S)
    hours, rest = divmod(abs(offset_s), 3600)
    return f"ZST{'-' if offset_s < 0 else ''}{hours}:{rest // 60:02}:{rest % 60:02}"


def test_quiet_hours_that_begin_while_it_serves(hub: HubProcess, owner: Machine, make: MakeMachine) -> None:
    """Who is being served is told that there is no more, and who comes later is given nothing."""
    with closing(Index(owner.home / "zest" / "index.sqlite")) as index:
        file = max(index.entries(), key=lambda entry: entry.size_bytes)
    until_s = 6.0
    quiet_s = time.monotonic() + until_s
    environ = {"ZEST_QUIET_HOURS": "12:00-13:00", "TZ": noon_in(until_s), "ZEST_MAX_UP": "500KB"}
    with owner.seeder(**environ) as seeder:
        assert seeder.ask()["uploads"] == {"paused": False, "max_bytes_s": 500_000}
        with wire.WirePeer.dial(int(seeder.address.rpartition(":")[2])) as peer:
            count = 20  # times that it would take 12 s to send
            for number in range(1, count + 1):
                peer.send_zest(wire.range_request(number, wire.FILE, file.file_hash, 0, len(file.manifest)))
            received = 0
            while (body := peer.receive_zest())[0] == wire.RANGE_DATA:
                received += len(body)
            ended_s = time.monotonic()
            # A clock of whole seconds, and a look at it twice a second.
            assert quiet_s - 1 < ended_s < quiet_s + 3
            assert 500_000 < received < file.size_bytes
            refused = int.from_bytes(body[1:5], "big")
            for number in range(refused, count + 1):
                assert body == wire.range_end(number, wire.NOT_FOUND)
                body = peer.receive_zest() if number < count else b""
        assert seeder.ask()["uploads"]["paused"]
        uploaded = seeder.ask()["bytes"]["uploaded"]
        from_the_cdn_alone(hub, make("B"), "org/model", seeder.address)
        status = seeder.ask()
        assert (status["bytes"]["uploaded"], status["files"]) == (uploaded, FILES)


def test_quiet_hours_that_end(hub: HubProcess, owner: Machine, make: MakeMachine) -> None:
    with owner.seeder(ZEST_QUIET_HOURS="11:00-12:00,12:00-13:00=20MB", TZ=noon_in(12)) as seeder:
        from_the_cdn_alone(hub, make("B"), "org/model", seeder.address)
        eventually(lambda: seeder.ask()["uploads"] == {"paused": False, "max_bytes_s": 20_000_000}, "they end", 20)
        from_peers_alone(hub, make("C"), seeder.address)


def test_a_process_keeps_quiet_hours_too(hub: HubProcess, make: MakeMachine) -> None:
    with make("A").console(ZEST_QUIET_HOURS=EVER) as console:
        console.run(f"REPO = 'org/model'\n{SNAPSHOT}")
        address = console.run(f"{SETTLED}show(at=zest_hf.status()['listen'])").shown["at"]
        from_the_cdn_alone(hub, make("B"), "org/model", address)


@pytest.mark.parametrize(
    ("environ", "files"),
    [
        ({"ZEST_DENY": "ORG/mod*"}, 0),
        ({"ZEST_DENY": "datasets/*,other/*"}, FILES),
        ({"ZEST_ALLOW": "other/*"}, 0),
        ({"ZEST_ALLOW": "org/model", "ZEST_DENY": "org/secret"}, FILES),
        ({"ZEST_ALLOW": "org/model", "ZEST_DENY": "org/*"}, 0),
    ],
)
def test_lists_of_what_is_offered(
    hub: HubProcess, owner: Machine, make: MakeMachine, environ: dict[str, str], files: int
) -> None:
    with owner.seeder(**environ) as seeder:
        seeder.wait_for_files(files)
        if files:
            from_peers_alone(hub, make("B"), seeder.address)
        else:
            from_the_cdn_alone(hub, make("B"), "org/model", seeder.address)


def test_nobody_is_asked_for_what_is_denied(hub: HubProcess, owner: Machine, make: MakeMachine) -> None:
    """Nor is it offered by who has downloaded it; and it is noted, as lists may change."""
    a = make("A")
    with owner.seeder() as seeder:
        with a.console(ZEST_DENY="org/*", ZEST_PEERS=seeder.address) as console:
            run = console.run(f"REPO = 'org/model'\n{SNAPSHOT}")
            assert (run.shown["peer"], run.shown["cdn"]) == (0, XET_BYTES)
            settled = "from zest_hf.engine import current_engine\nshow(settled=current_engine().settle(10))"
            assert console.run(settled).shown == {"settled": True}
            assert console.run("show(listens='listen' in zest_hf.status())").shown == {"listens": False}
        status = seeder.ask()
        assert (status["peers_connected"], status["bytes"]["uploaded"]) == (0, 0)
    with a.seeder("--no-scan") as seeder:
        from_peers_alone(hub, make("B"), seeder.address)


def test_what_is_private_stays_among_those_with_the_key(hub: HubProcess, make: MakeMachine) -> None:
    key = {"ZEST_SWARM_KEY": "a secret of more than sixteen bytes"}
    a = make("A")
    run = a.python(f"REPO = 'org/secret'\n{SNAPSHOT}", HF_TOKEN=OWNER, **key)
    assert run.code == 0, run.stderr
    with a.seeder(**key) as seeder:
        seeder.wait_for_files(FILES)
        hub.reset_stats()
        run = snapshot(make("B"), "org/secret", HF_TOKEN=OWNER, ZEST_PEERS=seeder.address, **key)
        assert (run.shown["peer"], hub.stats()["cdn_bytes"]) == (XET_BYTES, 0)
        for name, others in (("C", {}), ("D", {"ZEST_SWARM_KEY": "another secret of sixteen bytes"})):
            from_the_cdn_alone(hub, make(name), "org/secret", seeder.address, HF_TOKEN=OWNER, **others)
    # Without the key it does not leave the machine at all.
    with a.seeder(HF_TOKEN=OWNER) as seeder:
        from_the_cdn_alone(hub, make("E"), "org/secret", seeder.address, HF_TOKEN=OWNER)
        assert seeder.ask()["files"] == 0


def test_the_doctor_shows_them(machine: Machine) -> None:
    (machine.home / "zest").mkdir(parents=True)
    (machine.home / "zest" / "config.toml").write_text('quiet_hours = ["22:00-07:00", "12:00-13:00=1MB"]\n')
    text = machine.command("zest", "doctor", ZEST_DENY="org/*", ZEST_IDLE_EXIT="90min").stdout
    shown = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.startswith("  ZEST_")}
    assert shown["ZEST_QUIET_HOURS"] == ["22:00-07:00,12:00-13:00=1000000", "config.toml"]
    assert shown["ZEST_DENY"] == ["org/*", "environment"]
    assert shown["ZEST_ALLOW"] == ["none", "default"]
    assert shown["ZEST_IDLE_EXIT"] == ["1.5h", "environment"]
