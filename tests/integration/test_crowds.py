"""Crowds on hosts of their own: untouched huggingface_hub calls, and a Hub whose bytes are counted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import crowds
import hosts
import pytest
from crowds import OWNER, SNAPSHOT, Site, begin, consoles, shown, together
from swarm import namespaces
from swarm.trackers import opentracker, opentracker_program

pytestmark = pytest.mark.skipif(namespaces.why_not() is not None, reason=str(namespaces.why_not()))

MB = 1_000_000
SIZES = {"small.bin": 5 * MB, "middle.bin": 20 * MB, "large.bin": 60 * MB}
MODEL = "model.bin"
MODEL_BYTES = 30 * MB
BASE_BYTES, NEW_BYTES = 40 * MB, 15 * MB

FILE = """
path = hub.hf_hub_download(REPO, FILE)
show(path=path, **zest_hf.status()["bytes"])
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("crowds")

    def write(name: str, content: bytes) -> Path:
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    with crowds.site(root) as it:
        base = random.Random("base").randbytes(BASE_BYTES)
        tuned = base + random.Random("tuned").randbytes(NEW_BYTES)
        model = write(MODEL, random.Random("model").randbytes(MODEL_BYTES))
        it.upload({"org/base": [write("base/weights.bin", base)]})
        it.upload(
            {
                "org/snapshot": [write(name, random.Random(name).randbytes(size)) for name, size in SIZES.items()],
                "org/model": [model],
                "org/secret": [model],
                "org/tuned": [write("tuned/weights.bin", tuned)],
            }
        )
        yield it


@pytest.fixture(autouse=True)
def fresh(site: Site) -> None:
    site.fresh()


def copies(site: Site, size_bytes: int) -> float:
    out = site.origin_bytes() / size_bytes
    print(f"{out:.3f} copies")
    return out


def test_several_files_of_a_snapshot_at_once(site: Site) -> None:
    machines = site.machines(3)
    with consoles(machines, "org/snapshot") as three:
        assert all(one["total"] == sum(SIZES.values()) for one in shown(together(three, SNAPSHOT)))
        for machine in machines:
            site.assert_right(machine, "org/snapshot")
        assert copies(site, sum(SIZES.values())) <= 1.5


@pytest.mark.parametrize("cache", ["one cache", "caches of their own"])
def test_several_ranks_on_a_host(site: Site, cache: str) -> None:
    """Two hosts with four processes each."""
    ranks = []
    for machine in site.machines(2):
        if cache == "one cache":
            ranks += [machine] * 4
        else:
            ranks += [crowds.HostMachine(site.hub, machine.root / f"rank{rank}", machine.host) for rank in range(4)]
    with consoles(ranks, "org/model") as eight:
        done = shown(together(eight, f"FILE = {MODEL!r}\n{FILE}"))
        for machine in ranks:
            site.assert_right(machine, "org/model")
        fetched = [one["total"] for one in done]
        if cache == "one cache":
            # The hub's lock lets one of each host download; the others find the file.
            assert sorted(fetched) == [0] * 6 + [MODEL_BYTES] * 2
        else:
            assert fetched == [MODEL_BYTES] * 8
        assert copies(site, MODEL_BYTES) <= 2.0


def test_what_some_have_of_a_fine_tune(site: Site) -> None:
    """Two of three have its base."""
    machines = site.machines(3)
    with consoles(machines, "org/base") as three:
        shown(together(three[:2], SNAPSHOT))
        site.hub.reset_stats()
        done = shown(together(three, f"REPO = 'org/tuned'\n{SNAPSHOT}"))
        for machine in machines:
            site.assert_right(machine, "org/tuned")
        print(done)
        assert copies(site, NEW_BYTES) <= 1.5


def test_a_slow_one_holds_up_nobody(site: Site) -> None:
    *fast, slow = site.machines(4)
    slow.host.limit(20)
    with consoles([*fast, slow], "org/model") as four:
        late = begin(four[3:], SNAPSHOT)
        shown(together(four[:3], SNAPSHOT))
        received = slow.host.received_bytes()
        for machine in fast:
            site.assert_right(machine, "org/model")
        print(received, copies(site, MODEL_BYTES))
        assert received < MODEL_BYTES / 2
        shown(late.finish())
        site.assert_right(slow, "org/model")


def test_a_private_repository_among_those_with_the_key(site: Site) -> None:
    *members, stranger = site.machines(4)
    environ = {"HF_TOKEN": OWNER}
    key = {"ZEST_SWARM_KEY": "a key of more than sixteen bytes"}
    with consoles(members, "org/secret", **environ, **key) as three, consoles([stranger], "org/secret", **environ) as one:
        alone = begin(one, SNAPSHOT)
        done = shown(together(three, SNAPSHOT))
        (strangers,) = shown(alone.finish())
        (uploaded,) = shown(together(one, "show(**zest_hf.status()['bytes'])"))
        for machine in (*members, stranger):
            site.assert_right(machine, "org/secret")
        assert (strangers["cdn"], strangers["peer"], uploaded["uploaded"]) == (MODEL_BYTES, 0, 0)
        print(done)
        assert copies(site, MODEL_BYTES) <= 1 + 1.5


@pytest.mark.skipif(opentracker_program() is None, reason="opentracker is not installed")
def test_at_a_tracker(site: Site) -> None:
    machines = site.machines(3)
    swarm = crowds.wire.file_swarm(crowds.known(site, "org/model", MODEL).file_hash)
    with opentracker([swarm], hosts.SWITCH) as port:
        url = f"http://{hosts.SWITCH}:{port}/announce"
        with consoles(machines, "org/model", ZEST_LSD="off", ZEST_TRACKERS=url) as three:
            shown(together(three, SNAPSHOT))
            for machine in machines:
                site.assert_right(machine, "org/model")
            assert copies(site, MODEL_BYTES) <= 1.7


def test_with_given_peers(site: Site) -> None:
    machines = site.machines(3)
    peers = ",".join(f"{machine.host.address}:6881" for machine in machines)
    environ = {"ZEST_LSD": "off", "ZEST_PEERS": peers, "ZEST_LISTEN": "0.0.0.0:6881"}
    with consoles(machines, "org/model", **environ) as three:
        shown(together(three, SNAPSHOT))
        for machine in machines:
            site.assert_right(machine, "org/model")
        assert copies(site, MODEL_BYTES) <= 1.7


def test_clocks_that_differ(site: Site) -> None:
    machines = site.machines(3)
    with consoles(machines, "org/model") as three:
        for number, console in enumerate(three):
            shown([console.run(f"true = time.time\ntime.time = lambda: true() + {600 * (number - 1)}\nshow()")])
        shown(together(three, SNAPSHOT))
        for machine in machines:
            site.assert_right(machine, "org/model")
        assert copies(site, MODEL_BYTES) <= 1.7


@pytest.mark.parametrize("how", ["claims", "creeps", "haves", "floods"])
def test_a_liar(site: Site, how: str) -> None:
    *machines, other = site.machines(4)
    of = crowds.known(site, "org/model", MODEL)
    with crowds.liar(other, how, of), consoles(machines, "org/model") as three:
        shown(together(three, SNAPSHOT))
        for machine in machines:
            site.assert_right(machine, "org/model")
        assert copies(site, MODEL_BYTES) <= 3.0


def test_groups_that_merge(site: Site) -> None:
    machines = site.machines(4)
    site.hub.fault("cdn", "rate", bytes_per_second=8 * MB)
    ends = [machine.host for machine in machines]
    hosts.split(ends[:2], ends[2:])
    with consoles(machines, "org/snapshot") as four:
        race = begin(four, SNAPSHOT)
        size_bytes = sum(SIZES.values())
        crowds.eventually(lambda: site.origin_bytes() > 0.4 * size_bytes, "a part has come", 30.0)
        hosts.split(ends)
        print(shown(race.finish()))
        for machine in machines:
            site.assert_right(machine, "org/snapshot")
        assert copies(site, size_bytes) <= 1.9


def test_a_network_that_splits_and_heals(site: Site) -> None:
    machines = site.machines(4)
    ends = [machine.host for machine in machines]
    with consoles(machines, "org/snapshot") as four:
        race = begin(four, SNAPSHOT)
        size_bytes = sum(SIZES.values())
        crowds.eventually(lambda: site.origin_bytes() > 0.2 * size_bytes, "a part has come", 30.0)
        hosts.split(ends[:2], ends[2:])
        ends[0].plug(False)
        crowds.eventually(lambda: site.origin_bytes() > 0.7 * size_bytes, "more has come", 30.0)
        ends[0].plug(True)
        hosts.split(ends)
        print(shown(race.finish()))
        for machine in machines:
            site.assert_right(machine, "org/snapshot")
        assert copies(site, size_bytes) <= 2.5
