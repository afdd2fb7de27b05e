"""Hosts of a network, on this machine: each a network namespace with one link to a common switch.

The switch is the namespace of the thread that makes it: that of `tests/private-network`, or of `a_switch_of_its_own`.
What is made here ends with it, and names cannot collide.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

SWITCH = "10.77.0.1"
_PREFIX = 16
REACH_S = 0.3
_BRIDGE = "switch"
_BRIDGE_ADDRESS = "02:00:00:00:77:ff"
"""Ends as no host's does."""
_SHARES = 64
"""That are promised of the Hub's line; what is left over hosts share evenly."""
_CLONE_NEWNET = 0x40000000
_FIREWALL = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def shaped(megabits_s: float) -> tuple[str, ...]:
    """What `tc` calls a link of this rate."""
    # What the kernel handles as one packet has up to 64 KiB and headers; it would be cut up if that were no burst.
    return ("tbf", "rate", f"{megabits_s}mbit", "burst", "128kb", "latency", "50ms")


class _Namespace:
    """Of a network; it ends with this process at the latest."""

    def __init__(self) -> None:
        # It waits for the end of its input: a namespace lives as long as a process in it.
        self._holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        self.pid = str(self._holder.pid)
        self.path = Path(f"/proc/{self.pid}/ns/net")
        own = Path("/proc/thread-self/ns/net").readlink()
        while self.path.readlink() == own:
            assert self._holder.poll() is None, "no network namespace"

    def close(self) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait()


@contextlib.contextmanager
def a_switch_of_its_own() -> Iterator[None]:
    """This thread, and what it starts inside, is in a network namespace where nothing else is."""
    namespace = _Namespace()
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(namespace.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(there)
        run("ip", "link", "set", "lo", "up")
        yield
    finally:
        _enter(before)
        os.close(there)
        os.close(before)
        namespace.close()


def _enter(fd: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Host:
    """A network namespace with an address. ``prefix`` before a command runs it there."""

    def __init__(self, number: int) -> None:
        self.address = f"10.77.1.{number}"
        self._link = f"host{number}"
        self._namespace = _Namespace()
        pid = self._namespace.pid
        self.prefix = ("nsenter", f"--net={self._namespace.path}", "--")
        self.number = number
        near = ("ip", "link", "add", self._link, "type", "veth")
        run(*near, "peer", "name", "eth0", "address", f"02:00:00:00:77:{number:02x}", "netns", pid)
        run("ip", "link", "set", self._link, "master", _BRIDGE, "up")
        run(*self.prefix, "ip", "link", "set", "lo", "up")
        run(*self.prefix, "ip", "address", "add", f"{self.address}/{_PREFIX}", "dev", "eth0")
        run(*self.prefix, "ip", "link", "set", "eth0", "up")
        run(*self.prefix, "ip", "route", "add", "default", "via", SWITCH)

    def limit(self, megabits_s: float) -> None:
        """From now on its link carries so much each way, in bits of Ethernet frames."""
        rate = ("root", *shaped(megabits_s))
        run(*self.prefix, "tc", "qdisc", "replace", "dev", "eth0", *rate)
        run("tc", "qdisc", "replace", "dev", self._link, *rate)

    def ignore(self, *others: Host) -> None:
        """From now on nothing that these send arrives here."""
        # Classic BPF: load the last byte of the sender's Ethernet address, compare, and drop (2) or let pass (-1).
        last = len(others)
        program = ["48 0 0 11", *(f"21 {last - at} 0 {other.number}" for at, other in enumerate(others))]
        program += ["6 0 0 4294967295", "6 0 0 2"]
        run(*self.prefix, "tc", "qdisc", "replace", "dev", "eth0", "clsact")
        run(*self.prefix, "tc", "filter", "delete", "dev", "eth0", "ingress")
        bytecode = f"{len(program)},{','.join(program)}"
        run(*self.prefix, "tc", "filter", "add", "dev", "eth0", "ingress", "bpf", "da", "bytecode", bytecode)

    def reaches(self, other: Host) -> bool:
        """Whether the other answers that nobody listens at a port, or nothing comes back."""
        command = (*self.prefix, "bash", "-c", f": < /dev/tcp/{other.address}/9")
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=REACH_S)
        except subprocess.TimeoutExpired:
            return False
        assert "refused" in done.stderr, done.stderr
        return True

    def received_bytes(self) -> int:
        """That have come to it, frames as they are."""
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        fields = next(line for line in lines if line.strip().startswith(f"{self._link}:")).partition(":")[2].split()
        return int(fields[8])  # that the switch has sent

    def plug(self, plugged: bool) -> None:
        """Whether there is a cable."""
        run("ip", "link", "set", self._link, "up" if plugged else "down")

    def close(self) -> None:
        self._namespace.close()


def split(*groups: Sequence[Host]) -> None:
    """From now on hosts of different groups hear nothing of each other. One group alone: all do again."""
    for group in groups:
        strangers = [host for other in groups if other is not group for host in other]
        for host in group:
            host.ignore(*strangers)


class Network:
    """The switch, at which this process is, and the hosts that were added."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._hosts: list[Host] = []
        self._mbit: float | None = None

    def __enter__(self) -> Network:
        # Without an address of its own it takes another each time a host is added, and who knew the old one is lost.
        run("ip", "link", "add", _BRIDGE, "address", _BRIDGE_ADDRESS, "type", "bridge", "mcast_snooping", "0")
        run("ip", "address", "add", f"{SWITCH}/{_PREFIX}", "dev", _BRIDGE)
        run("ip", "link", "set", _BRIDGE, "up")
        # A switch has no firewall; this one's would cost more than all else.
        if _FIREWALL.exists():
            _FIREWALL.write_text("0")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for host in self._hosts:
            host.close()
        run("ip", "link", "delete", _BRIDGE)

    def host(self) -> Host:
        host = Host(next(self._numbers))
        self._hosts.append(host)
        self._share(host)
        return host

    def limit(self, megabits_s: float) -> None:
        """From now on the switch itself sends so much, of which each host has a fair share.

        One queue for all would starve some of them for seconds.
        """
        assert self._mbit is None
        self._mbit = megabits_s
        run("tc", "qdisc", "replace", "dev", _BRIDGE, "root", "handle", "1:", "htb", "default", "1")
        self._line("parent", "1:", "classid", "1:1", rate=megabits_s)
        for host in self._hosts:
            self._share(host)

    def _share(self, host: Host) -> None:
        if self._mbit is not None:
            name = f"1:{host.number + 0x10:x}"
            self._line("parent", "1:1", "classid", name, rate=self._mbit / _SHARES)
            # Else a thousand packets of 64 KiB, behind which whatever else a host begins waits for seconds.
            run("tc", "qdisc", "add", "dev", _BRIDGE, "parent", name, "bfifo", "limit", "512kb")
            to_host = ("u32", "match", "ip", "dst", f"{host.address}/32", "flowid", name)
            run("tc", "filter", "add", "dev", _BRIDGE, "parent", "1:", "protocol", "ip", "prio", "1", *to_host)

    def _line(self, *where: str, rate: float) -> None:
        limits = ("rate", f"{rate}mbit", "ceil", f"{self._mbit}mbit", "quantum", "65536")
        run("tc", "class", "add", "dev", _BRIDGE, *where, "htb", *limits)
