"""Two places on this machine with a line between them: network namespaces, each with a TUN device and nothing else.

Neither has a name. A namespace, a device and what carries packets live as long as this process or shorter, however it
ends. Needs root (capabilities(7): CAP_SYS_ADMIN and CAP_NET_ADMIN), /dev/net/tun, and the program ip.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zest_hf.bench.downloads.line import MTU_BYTES, Line
from zest_hf.errors import ZestError

HERE, THERE = "10.66.0.1", "10.66.0.2"
"""The addresses of who gives and of who downloads."""
TUN = Path("/dev/net/tun")
DEVICE = "line"
DEVICE_PACKETS = 10_000
"""That a device holds for what carries them, should that have to wait for a processor: the line's own queue drops."""
CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")
FORGET = Path("/proc/sys/net/ipv4/tcp_no_metrics_save")
"""What TCP has learned of a line it would tell the next connection: each download is to meet it as a stranger."""
NAMESPACE = "/proc/thread-self/ns/net"
STOP_S = 10.0

# linux/if_tun.h, linux/sched.h
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Places:
    """``enter`` before a command runs it at the other place. ``carrier``: the process that carries the packets."""

    here: str
    there: str
    enter: Sequence[str]
    carrier: int


def congestion() -> str:
    """How TCP finds out on this machine what a line carries, unless it is told otherwise."""
    return CONGESTION.read_text().strip()


def check(congestion: str) -> None:
    """Makes one end of a line like this, and takes it away. Raises ZestError, which says what is missing."""
    missing = [name for name in ("ip", "nsenter") if shutil.which(name) is None]
    if missing:
        raise ZestError(f"a line needs the programs ip and nsenter (Debian's iproute2, util-linux): no {missing[0]}")
    if not TUN.exists():
        raise ZestError(f"a line needs {TUN}: modprobe tun, or give it to the container with --device {TUN}")
    with _back_again():
        _new_namespace()
        known = CONGESTION.with_name("tcp_available_congestion_control").read_text().split()
        if congestion not in known:
            raise ZestError(f"--congestion is {congestion!r}, this system has {', '.join(known)}")
        os.close(_device(HERE, congestion))


@contextlib.contextmanager
def two_places(line: Line) -> Iterator[Places]:
    """This thread, and what it starts inside, is at one of them. Raises ZestError where that cannot be."""
    with contextlib.ExitStack() as stack:
        # What is started inside ends before its network does: the last to be closed is the way back.
        stack.enter_context(_back_again())
        there = _opened(stack, _new_namespace())
        there_tun = _opened(stack, _device(THERE, line.congestion))
        _opened(stack, _new_namespace())
        here_tun = _opened(stack, _device(HERE, line.congestion))
        carrier = stack.enter_context(_carrier(here_tun, there_tun, line))
        enter = ("nsenter", f"--net=/proc/{os.getpid()}/fd/{there}", "--")
        yield Places(HERE, THERE, enter, carrier.pid)
        if carrier.poll() is not None:
            raise ZestError(f"what carries the packets has ended with exit code {carrier.returncode}")


@contextlib.contextmanager
def _back_again() -> Iterator[None]:
    """This thread is where it was, at the end."""
    before, name = os.open(NAMESPACE, os.O_RDONLY | os.O_CLOEXEC), os.readlink(NAMESPACE)
    try:
        yield
    finally:
        # Who was not allowed to leave is not allowed this either.
        if os.readlink(NAMESPACE) != name:
            _libc("setns", before, _CLONE_NEWNET)
        os.close(before)


def _new_namespace() -> int:
    """A descriptor of it; this thread is there from now on."""
    try:
        _libc("unshare", _CLONE_NEWNET)
    except OSError as error:
        raise ZestError(f"a line needs root, for network namespaces of its own: {error.strerror}") from None
    return os.open(NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)


def _device(address: str, congestion: str) -> int:
    """A descriptor of the one end of the line, which is made in this namespace, and is its way to everywhere."""
    try:
        # Which namespace it belongs to is settled here.
        tun = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise ZestError(f"{TUN} cannot be used: {error.strerror}") from None
    try:
        # Without IFF_VNET_HDR the kernel cuts what TCP sends into packets before they come here.
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
        _ip("link", "set", "lo", "up")
        _ip("link", "set", DEVICE, "mtu", str(MTU_BYTES), "txqueuelen", str(DEVICE_PACKETS), "up")
        _ip("address", "add", f"{address}/32", "dev", DEVICE)
        # Not by sysctl: a namespace's takes fewer of them.
        _ip("route", "add", "default", "dev", DEVICE, "congctl", congestion)
        FORGET.write_text("1")
    except OSError as error:
        os.close(tun)
        raise ZestError(f"there can be no line: {error.filename or TUN}: {error.strerror}") from None
    except BaseException:
        os.close(tun)
        raise
    return tun


@contextlib.contextmanager
def _carrier(here: int, there: int, line: Line) -> Iterator[subprocess.Popen[str]]:
    what = [str(each) for each in (here, there, line.delay_s, line.loss, line.mbit_s)]
    process = subprocess.Popen(
        [sys.executable, "-m", f"{__package__}.carrier", *what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(here, there),
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        if process.stdout.readline() != "carrying\n":
            raise ZestError("what carries the packets did not start")
        yield process
    finally:
        process.stdin.close()  # with which it ends
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _opened(stack: contextlib.ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise ZestError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _libc(name: str, *arguments: int) -> None:
    """A system call's wrapper by its name. Raises OSError. (os.setns and os.unshare: from Python 3.12.)"""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
