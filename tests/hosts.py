"""Hosts of a network, on this machine: each a network namespace with one link to a common switch.

For `tests/private-network`, whose namespace is the switch: what is made here ends with it, and names cannot collide.
"""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from types import TracebackType

SWITCH = "10.77.0.1"
_PREFIX = 16
_BRIDGE = "switch"
_FIREWALL = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def shaped(megabits_s: float) -> tuple[str, ...]:
    """What `tc` calls a link of this rate."""
    # What the kernel handles as one packet has up to 64 KiB and headers; it would be cut up if that were no burst.
    return ("tbf", "rate", f"{megabits_s}mbit", "burst", "128kb", "latency", "50ms")


class Host:
    """A network namespace with an address. ``prefix`` before a command runs it there."""

    def __init__(self, number: int) -> None:
        self.address = f"10.77.1.{number}"
        self._link = f"host{number}"
        # It waits for the end of its input: a namespace lives as long as a process in it.
        self._holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        pid = str(self._holder.pid)
        own = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{pid}/ns/net").readlink() == own:
            pass
        self.prefix = ("nsenter", f"--net=/proc/{pid}/ns/net", "--")
        run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", pid)
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

    def close(self) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait()


class Network:
    """The switch, at which this process is, and the hosts that were added."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._hosts: list[Host] = []

    def __enter__(self) -> Network:
        run("ip", "link", "add", _BRIDGE, "type", "bridge", "mcast_snooping", "0")
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
        return host
