"""Network namespaces: machines of their own on one cable, and everything that they send.

A session belongs to the namespace in which it was opened, for its threads inherit that of who starts them. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


def why_not() -> str | None:
    """Why there are none here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need the program ip (Debian's iproute2)"
    probe = f"zp{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode != 0:
        return f"this system allows no network namespaces: {made.stderr.strip()}"
    used = subprocess.run(["ip", "-n", probe, "link", "set", "lo", "up"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", probe], check=True)
    if used.returncode != 0:
        return f"network namespaces cannot be entered here: {used.stderr.strip()}"
    return None


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)


@dataclass(frozen=True)
class Namespace:
    """One machine. ``address`` is that of its end of the cable."""

    name: str
    interface: str
    address: str

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and those that are started inside, are in the namespace."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(f"/var/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
            yield
        finally:
            _enter(before)
            os.close(there)
            os.close(before)

    @contextlib.contextmanager
    def capture(self) -> Iterator[list[bytes]]:
        """Every Ethernet frame that leaves or comes on any interface, those of ARP and IPv6's upkeep left out."""
        with self.entered():
            sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(3))
        frames: list[bytes] = []
        with sniffer:
            sniffer.setblocking(False)
            sniffer.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE: nothing may be missed
            try:
                yield frames
            finally:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        frame = sniffer.recv(65536)
                        if not _is_upkeep(frame):
                            frames.append(frame)


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _is_upkeep(frame: bytes) -> bool:
    """What the kernel sends by itself: neighbours (ARP, ICMPv6), multicast groups (IGMP, MLD)."""
    (ethertype,) = struct.unpack_from(">H", frame, 12)
    if ethertype == 0x0806:
        return True
    if ethertype == 0x0800:
        return frame[23] == 2
    if ethertype == 0x86DD:
        # MLD hides behind a hop-by-hop header.
        return frame[20] in (0, 58)
    return False


@contextlib.contextmanager
def cable(network: str = "10.77.0") -> Iterator[tuple[Namespace, Namespace]]:
    """Two machines with a cable between them: .1 and .2 of the network."""
    tag = f"z{os.getpid()}x{next(_numbers)}"
    ends = [
        Namespace(f"{tag}{side}", f"{tag}{side}"[:15], f"{network}.{number}") for number, side in ((1, "a"), (2, "b"))
    ]
    try:
        for end in ends:
            _ip("netns", "add", end.name)
        _ip("link", "add", ends[0].interface, "netns", ends[0].name, "type", "veth",
            "peer", "name", ends[1].interface, "netns", ends[1].name)  # fmt: skip
        for end in ends:
            _ip("-n", end.name, "link", "set", "lo", "up")
            _ip("-n", end.name, "addr", "add", f"{end.address}/24", "dev", end.interface)
            _ip("-n", end.name, "link", "set", end.interface, "up")
            _ip("-n", end.name, "route", "add", "default", "dev", end.interface)
        yield ends[0], ends[1]
    finally:
        for end in ends:
            subprocess.run(["ip", "netns", "del", end.name], capture_output=True, timeout=10)
