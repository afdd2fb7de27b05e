"""N cold hosts download one model at once: what the origin sends, and when the last is done. Needs root.

PYTHONPATH=tests:tests/bench:tests/bench/swarm tests/private-network python tests/bench/crowd

Each host is a network namespace with a shaped link; the Hub stands behind a shaped link of its own. Nothing else is
shared but this machine's processors: with two of them, hosts with fast links measure the processors.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from crowds import known, liar
from hosts import SWITCH, Network, split
from machines import Console
from table import Figure, show
from world import FILE, REPO, UPLOAD, HostMachine, good

from zest_hf.bench.weights import write_weights
from zest_hf.hub.process import HubProcess

COPIES = 1.05
SLOWER = 1.25
ALONE = 1.03
"""Of what hf_xet takes on one host: looking for others costs next to nothing."""
LIMIT_S = 600.0
"""Eight copies over one line take their time."""
DOWNLOAD = f"""
called = time.monotonic()
path = huggingface_hub.hf_hub_download({REPO!r}, {FILE!r})
show(seconds=time.monotonic() - called, path=path, **(zest_hf.status()["bytes"] if ZEST else {{}}))
"""
TO_THE_LOG = """
import logging
logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.WARNING)
"""


@dataclass
class Case:
    """``delay_s``: from the first start to the last. ``liar``: of this kind (`liars`) there is one more member.

    ``slow_mbit``: the link of one, whose end is not waited for. ``halves``: how many copies have been sent when half of
    the hosts are cut off from the others, and when no more; the Hub they all reach. ``split_s``: they are so long at
    least. ``copies`` and ``slower``: what is to be kept.
    """

    name: str
    zest: bool = True
    delay_s: float = 0.0
    killed: int = 0
    liar: str | None = None
    slow_mbit: float | None = None
    halves: tuple[float, float] | None = None
    split_s: float = 0.0
    copies: float = COPIES
    slower: float = SLOWER


@dataclass
class Outcome:
    wall_s: float
    """From the first start to the last end, less the time in which hosts had not started."""
    origin_bytes: int
    cpu_s: float
    done: int
    wrong: int
    peers: list[int] = field(default_factory=list)


CASES = (
    Case("hf_xet", zest=False),
    Case("together"),
    Case("over 10 s", delay_s=10.0),
    Case("2 killed half-way", killed=2),
    Case("1 that claims and fetches nothing", liar="claims"),
    Case("1 that creeps", liar="creeps"),
    Case("1 that announces what it lacks", liar="haves"),
    Case("1 that floods", liar="floods"),
    Case("1 at 20 Mbit per s", slow_mbit=20.0),
    # Each half needs what the other has, and the line of the Hub is shared.
    Case("split for 30 s", halves=(0.25, 0.3), split_s=30.0, copies=2.0, slower=2 * SLOWER),
    Case("two groups that meet", halves=(0.0, 0.5), copies=1.5, slower=1.5 * SLOWER),
)


class Crowd:
    """``hosts`` behind links of ``host_mbit``, the Hub behind one of ``origin_mbit``; the model is in the Hub."""

    def __init__(
        self, root: Path, hosts: int, megabytes: int, host_mbit: float, origin_mbit: float, logs: Path | None = None
    ) -> None:
        self._root, self._hosts, self._megabytes, self._logs = root, hosts, megabytes, logs
        self._host_mbit, self._origin_mbit = host_mbit, origin_mbit
        self.copy_bytes = 0
        self.bound_s = 0.0

    @contextmanager
    def opened(self) -> Iterator[Crowd]:
        source = self._root / FILE
        write_weights(source, self._megabytes << 20, 0)
        self._sha256 = hashlib.sha256(source.read_bytes()).digest()
        listen = f"{SWITCH}:0"
        options = {"listen": listen, "cdn_listen": listen, "remote_control": True}
        with Network() as self._network, HubProcess(self._root / "hub", **options) as self._hub:
            given = f"REPO, FILE, SOURCE = {(REPO, FILE, str(source))!r}\n"
            uploader = HostMachine(self._hub, self._root / "uploader", self._network.host())
            good(uploader.python(given + UPLOAD, HF_TOKEN="hf_any", HF_HUB_ENABLE_ZEST=None))
            source.unlink()
            self._machines = []
            for number in range(self._hosts):
                machine = HostMachine(self._hub, self._root / f"host{number}", self._network.host())
                machine.host.limit(self._host_mbit)
                self._machines.append(machine)
            # What the switch itself sends is the Hub's; what hosts send each other does not pass here.
            self._network.limit(self._origin_mbit)
            yield self

    def alone(self) -> Outcome:
        """One host: what a copy is, and how long it takes."""
        outcome = self.measure(Case("alone"), hosts=1)
        self.copy_bytes = outcome.origin_bytes
        # Ethernet, IP and TCP take 5 % of a link.
        slowest = min(self._host_mbit, self._origin_mbit) * 1e6 / 8 * 0.95
        self.bound_s = self.copy_bytes / slowest
        return outcome

    def measure(self, case: Case, hosts: int | None = None) -> Outcome:
        machines = self._machines[: hosts or self._hosts]
        for machine in machines:
            shutil.rmtree(machine.home, ignore_errors=True)
            machine.host.limit(self._host_mbit)
        if case.slow_mbit is not None:
            machines[-1].host.limit(case.slow_mbit)
        self._hub.reset_stats()
        environ = {
            "HF_HUB_ENABLE_ZEST": "1" if case.zest else None,
            "ZEST_LSD": "on",
            "ZEST_LISTEN": "0.0.0.0:0",
            "ZEST_STRICT": "on",
            "ZEST_LOG": "debug" if self._logs else None,
        }
        if case.halves is not None:
            # Local discovery speaks once a minute; given peers are tried again after some seconds.
            environ["ZEST_LISTEN"] = "0.0.0.0:6881"
            environ["ZEST_PEERS"] = ",".join(f"{machine.host.address}:6881" for machine in machines)
        with ExitStack() as stack:
            if case.liar is not None:
                self._lie(stack, case.liar)
            consoles = [stack.enter_context(machine.console(**environ)) for machine in machines]
            for console in consoles:
                good(console.run(f"import time, huggingface_hub, zest_hf\nZEST = {case.zest}"))
                if self._logs is not None:
                    good(console.run(TO_THE_LOG))
            return self._race(case, consoles, machines)

    def _race(self, case: Case, consoles: list[Console], machines: list[HostMachine]) -> Outcome:
        ends: dict[int, float] = {}
        wrong = 0
        peers: list[int] = []
        began_s = time.monotonic()
        killed = set(range(len(consoles) - case.killed - (case.slow_mbit is not None), len(consoles)))

        def one(number: int) -> None:
            nonlocal wrong
            time.sleep(case.delay_s * number / max(1, len(consoles) - 1))
            try:
                outcome = consoles[number].run(DOWNLOAD, LIMIT_S)
            except (AssertionError, OSError) as error:
                if number not in killed:
                    wrong += 1
                    print(f"host {number}: {error}, exit code {consoles[number].process.poll()}", file=sys.stderr)
                return
            if number in killed:
                return
            ends[number] = time.monotonic()
            if self._logs is not None:
                self._logs.mkdir(parents=True, exist_ok=True)
                (self._logs / f"{case.name} {number}").write_text(outcome.stderr)
            if outcome.code != 0:
                print(outcome.stderr[-2000:], file=sys.stderr)
                wrong += 1
                return
            peers.append(int(outcome.shown.get("peer", 0)))

        threads = [threading.Thread(target=one, args=(number,)) for number in range(len(consoles))]
        if case.halves is not None and not case.halves[0]:
            self._split(machines)
        for thread in threads:
            thread.start()
        if case.halves is not None:
            self._wait_for_copies(case.halves[0], threads)
            self._split(machines)
            until_s = time.monotonic() + case.split_s
            self._wait_for_copies(case.halves[1], threads)
            while time.monotonic() < until_s and any(thread.is_alive() for thread in threads):
                time.sleep(0.1)
            split([machine.host for machine in machines])
        if case.killed:
            self._wait_for_copies(0.5, threads)
            for number in killed:
                consoles[number].process.kill()
        for number, thread in enumerate(threads):
            if number not in killed:
                thread.join()
        cpu_s = [_cpu_s(console.process.pid) for number, console in enumerate(consoles) if number not in killed]
        wall_s = max(ends.values()) - began_s if ends else float("inf")
        for number, machine in enumerate(machines):
            if number not in killed:
                path = next(machine.home.glob(f"hub/models--*/snapshots/*/{FILE}"), None)
                wrong += path is None or hashlib.sha256(path.read_bytes()).digest() != self._sha256
        origin = int(self._hub.stats()["cdn_bytes"])
        return Outcome(wall_s, origin, statistics.mean(cpu_s), len(ends), wrong, peers)

    def _wait_for_copies(self, copies: float, threads: list[threading.Thread]) -> None:
        while self._hub.stats()["cdn_bytes"] < copies * self.copy_bytes and any(one.is_alive() for one in threads):
            time.sleep(0.1)

    def _split(self, machines: list[HostMachine]) -> None:
        ends = [machine.host for machine in machines]
        split(ends[: len(ends) // 2], ends[len(ends) // 2 :])

    def _lie(self, stack: ExitStack, how: str) -> None:
        machine = HostMachine(self._hub, self._root / f"liar{time.monotonic_ns()}", self._network.host())
        stack.enter_context(liar(machine, machine.host.address, how, known(self._hub, REPO, FILE)))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--megabytes", type=int, default=300, help="size of the model (%(default)s)")
    parser.add_argument("--host-mbit", type=float, default=1000, help="link of each host, Mbit/s (%(default)s)")
    parser.add_argument("--origin-mbit", type=float, default=200, help="link of the Hub, Mbit/s (%(default)s)")
    parser.add_argument("--dir", type=Path, help="work here (default: a temporary directory)")
    parser.add_argument("--logs", type=Path, help="write what each host decided, and why, into this directory")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(case.name for case in CASES)} (all)")
    args = parser.parse_args()
    cases = [case for case in CASES if not args.cases or case.name in args.cases]
    with tempfile.TemporaryDirectory(prefix="zest-crowd-", dir=args.dir) as folder:
        crowd = Crowd(Path(folder), args.hosts, args.megabytes, args.host_mbit, args.origin_mbit, args.logs)
        with crowd.opened():
            alone = crowd.alone()
            print(
                f"a copy is {crowd.copy_bytes / 1e6:.0f} MB of xorbs; one host alone takes {alone.wall_s:.1f} s, "
                f"the links allow {crowd.bound_s:.1f} s"
            )
            if any(not case.zest for case in cases):
                baseline = crowd.measure(Case("hf_xet alone", zest=False), hosts=1)
                note = f"hf_xet {baseline.wall_s:.2f} s"
                figure = Figure("takes", alone.wall_s, ALONE * baseline.wall_s, "s", note=note)
                show(f"1 host, {args.megabytes} MiB, nobody else there", [figure])
            for case in cases:
                outcome = crowd.measure(case)
                bound_s = crowd.bound_s + case.delay_s
                note = f"{outcome.cpu_s:.1f} s of CPU a host"
                show(
                    f"{args.hosts} hosts, {args.megabytes} MiB, {case.name}",
                    [
                        Figure("copies from the origin", outcome.origin_bytes / crowd.copy_bytes, case.copies, "x"),
                        Figure("last one done", outcome.wall_s, case.slower * bound_s, "s", note=note),
                        Figure("hosts without the right file", outcome.wrong, 0.5, "hosts"),
                    ],
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
