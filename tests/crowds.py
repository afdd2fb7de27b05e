"""Hosts that download at the same time, a Hub behind a link of its own, and what that Hub has sent.

Everything that is downloaded is compared with what was uploaded. What is counted is bytes, not seconds.
"""

from __future__ import annotations

import contextlib
import filecmp
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hosts
import requests
from downloads import Publisher, xorb
from hosts import SWITCH, Host, Network
from machines import Console, Machine, Program, Run

from zest_hf.core.ids import hash_from_text
from zest_hf.core.plan import plan_file
from zest_hf.core.reconstruction import parse_v2
from zest_hf.hub.process import HubProcess

OWNER = "hf_owner"
HOST_MBIT = 500
ORIGIN_MBIT = 80

IMPORTS = """
import threading, time
import huggingface_hub as hub, zest_hf
"""
# A `REPO` as it is used everywhere: nothing of zest_hf is named but what counts the bytes.
SNAPSHOT = """
path = hub.snapshot_download(REPO)
show(path=path, **zest_hf.status()["bytes"])
"""


class HostMachine(Machine):
    """A user's machine on a host of its own, where peers find each other by local discovery."""

    def __init__(self, hub: HubProcess, root: Path, host: Host) -> None:
        super().__init__(hub, root, address=host.address, prefix=host.prefix)
        self.host = host
        self.environ |= {"ZEST_LSD": "on", "ZEST_LISTEN": "0.0.0.0:0", "ZEST_STRICT": "on"}


@dataclass
class Site:
    """The switch with the Hub; ``sources``: what is in each repository."""

    hub: HubProcess
    network: Network
    root: Path
    sources: dict[str, dict[str, Path]] = field(default_factory=dict)
    _hosts: list[Host] = field(default_factory=list)
    _count: int = 0

    def machines(self, count: int, *, mbit: float = HOST_MBIT) -> list[HostMachine]:
        """New ones with nothing on their disks, each on a host that nobody else is on."""
        while len(self._hosts) < count:
            self._hosts.append(self.network.host())
        out = []
        for host in self._hosts[:count]:
            host.limit(mbit)
            self._count += 1
            out.append(HostMachine(self.hub, self.root / f"machine{self._count}", host))
        hosts.split(self._hosts)
        return out

    def upload(self, content: Mapping[str, Sequence[Path]]) -> None:
        """Repositories and the files of each. Those whose name ends in "secret" are private."""
        code = f"""
from huggingface_hub import CommitOperationAdd, HfApi
api = HfApi()
for repo, paths in { {repo: [str(path) for path in paths] for repo, paths in content.items()} !r}.items():
    api.create_repo(repo, private=repo.endswith("secret"))
    files = [CommitOperationAdd(os.path.basename(path), path) for path in paths]
    api.create_commit(repo, files, commit_message="files")
"""
        done = Machine(self.hub, self.root / "uploader").python(code, HF_TOKEN=OWNER, HF_HUB_ENABLE_ZEST=None)
        assert done.code == 0, done.stderr
        for repo, paths in content.items():
            self.sources[repo] = {path.name: path for path in paths}

    def publish(self, repo: str, *xorb_bytes: int) -> None:
        """A repository with one file of so many xorbs of these sizes, smaller than those that clients make."""
        parts = [xorb(f"{repo} {number}", size) for number, size in enumerate(xorb_bytes)]
        stored = Publisher(self.hub.endpoint, repo).put(*parts)
        path = self.root / repo.replace("/", "-")
        path.write_bytes(stored.content)
        self.sources[repo] = {"file1.bin": path}

    def origin_bytes(self) -> int:
        """That the CDN has sent since `fresh`."""
        return int(self.hub.stats()["cdn_bytes"])

    def fresh(self) -> None:
        """Counters at zero, no faults."""
        self.hub.clear_faults()
        self.hub.reset_stats()

    def assert_right(self, machine: Machine, repo: str, *, finished: bool = True) -> None:
        """Every file of the repository is in the cache, and is what was uploaded.

        ``finished``: nothing that is unfinished is left.
        """
        for name, source in self.sources[repo].items():
            paths = list(machine.home.glob(f"hub/models--{repo.replace('/', '--')}/snapshots/*/{name}"))
            assert len(paths) == 1 and filecmp.cmp(paths[0], source, shallow=False), f"{machine.root.name}: {name}"
        assert not finished or machine.left_behind() == []


@contextlib.contextmanager
def site(root: Path, *, origin_mbit: float = ORIGIN_MBIT) -> Iterator[Site]:
    """This thread is on the switch inside."""
    listen = f"{SWITCH}:0"
    with contextlib.ExitStack() as stack:
        stack.enter_context(hosts.a_switch_of_its_own())
        network = stack.enter_context(Network())
        hub = HubProcess(root / "hub", listen=listen, cdn_listen=listen, remote_control=True, token=[OWNER, "somebody"])
        stack.enter_context(hub)
        # What the switch itself sends is the Hub's; what hosts send each other does not pass here.
        network.limit(origin_mbit)
        yield Site(hub, network, root)


@contextlib.contextmanager
def consoles(machines: Sequence[Machine], repo: str, **environ: str | None) -> Iterator[list[Console]]:
    """An interpreter on each, with `REPO` and what IMPORTS defines; a machine that is named twice has two."""
    with contextlib.ExitStack() as stack:
        out = [stack.enter_context(machine.console(**environ)) for machine in machines]
        for run in together(out, f"REPO = {repo!r}\n{IMPORTS}"):
            assert run.code == 0, run.stderr
        yield out


@dataclass
class Race:
    """Consoles that run the same at the same time."""

    runs: list[Run | BaseException | None]
    threads: list[threading.Thread]

    def finish(self) -> list[Run]:
        """What each has left. Raises what one has raised."""
        for thread in self.threads:
            thread.join()
        out = []
        for run in self.runs:
            if isinstance(run, BaseException):
                raise run
            assert run is not None
            out.append(run)
        return out


def begin(consoles: Sequence[Console], code: str) -> Race:
    race = Race([None] * len(consoles), [])

    def one(number: int) -> None:
        try:
            race.runs[number] = consoles[number].run(code)
        except BaseException as error:
            race.runs[number] = error

    for number in range(len(consoles)):
        race.threads.append(threading.Thread(target=one, args=(number,)))
        race.threads[-1].start()
    return race


def together(consoles: Sequence[Console], code: str) -> list[Run]:
    return begin(consoles, code).finish()


def shown(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Of runs that went well."""
    for run in runs:
        assert run.code == 0, run.stderr
    return [run.shown for run in runs]


@dataclass(frozen=True)
class Known:
    """What whoever may read a file knows of it. ``xorbs``: with the chunks that it needs of each at least."""

    file_hash: bytes
    chunks: int
    xorbs: dict[bytes, int]
    units: list[tuple[int, int]]
    """Ranges of the file's chunks, one for each GET."""


def known(hub: HubProcess, repo: str, name: str) -> Known:
    api = f"{hub.endpoint}/api/models/{repo}/xet-read-token/main"
    headers = {"Authorization": f"Bearer {OWNER}"}
    head = requests.head(f"{hub.endpoint}/{repo}/resolve/main/{name}", headers=headers, timeout=10)
    token = requests.get(api, headers=headers, timeout=10).json()
    answer = requests.get(
        f"{token['casUrl']}/v2/reconstructions/{head.headers['X-Xet-Hash']}",
        headers={"Authorization": f"Bearer {token['accessToken']}"},
        timeout=10,
    )
    plan = plan_file(parse_v2(answer.json()))
    xorbs: dict[bytes, int] = {}
    for term in plan.terms:
        xorbs[term.xorb] = max(term.end, xorbs.get(term.xorb, 0))
    places = [fetch.placements[0] for fetch in plan.fetches]
    units = [(place.file_chunk, place.file_chunk + place.end - place.start) for place in places]
    return Known(hash_from_text(head.headers["X-Xet-Hash"]), plan.chunk_count, xorbs, units)


@contextlib.contextmanager
def liar(machine: Machine, address: str, how: str, of: Known) -> Iterator[Program]:
    """See `liars`. It says "met" for each member that it lies to."""
    xorbs = ",".join(f"{xorb.hex()}:{chunks}" for xorb, chunks in of.xorbs.items())
    units = ",".join(f"{first}-{end}" for first, end in of.units)
    arguments = (how, address, of.file_hash.hex(), str(of.chunks), xorbs, units)
    script = Path(__file__).with_name("liars.py")
    with machine.running(sys.executable, str(script), *arguments, HF_HUB_ENABLE_ZEST=None) as program:
        program.wait_for_line("lying")
        yield program
        assert program.process.poll() is None, program.end()
