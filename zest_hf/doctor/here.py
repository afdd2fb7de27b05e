"""Checks of this machine. None sends anything."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import site
import socket
import struct
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path

from zest_hf import __version__
from zest_hf.config import Settings
from zest_hf.doctor.finding import Finding, note, ok, skipped, wrong
from zest_hf.errors import StorageError, ZestError
from zest_hf.hook.cache import cache_directory, cached_files
from zest_hf.hook.reasons import why_not_writable
from zest_hf.seed.instance import Instance, Running
from zest_hf.setting_values import HostPort
from zest_hf.terminal import size_text

OLDEST_HUB = (0, 34)
"""Of huggingface_hub, as in pyproject.toml."""
LITTLE_DISK_BYTES = 5 * 10**9
NO_DISK_BYTES = 100 * 10**6
SIZING_S = 3.0
"""How long the files of the cache are counted."""
LSD_GROUP, LSD_PORT = "239.192.152.143", 6771
"""BEP 14."""


def native_module() -> Finding:
    try:
        import_module("zest_hf._native.session")
    except ZestError as error:
        return wrong(str(error), "install zest_hf again on this machine, see Install in the README")
    library = _libtorrent()
    return ok(f"loads on {platform.system()} {platform.machine()}{f', libtorrent {library}' if library else ''}")


def _libtorrent() -> str:
    """Its version by the file that is loaded, where the system says which that is."""
    try:
        found = re.search(r"libtorrent-rasterbar\.so\.([0-9.]+)", Path("/proc/self/maps").read_text())
    except OSError:
        return ""
    return found[1] if found is not None else ""


def versions() -> Finding:
    hub = metadata.version("huggingface_hub")
    text = f"zest_hf {__version__}, huggingface_hub {hub}, Python {platform.python_version()}"
    if tuple(map(int, re.findall(r"\d+", hub)[:2])) < OLDEST_HUB:
        return wrong(text, "zest_hf works with huggingface_hub from 0.34 on: pip install -U huggingface_hub")
    return ok(text)


def hf_xet() -> Finding:
    """The path that is left when ours fails."""
    try:
        return ok(metadata.version("hf_xet"))
    except metadata.PackageNotFoundError:
        return note("not installed", "when zest_hf fails, downloads are slower without it: pip install hf_xet")


def hook() -> Finding:
    """Whether huggingface_hub's downloads can be routed through us, by doing it in this process."""
    from huggingface_hub import constants

    if constants.HF_HUB_DISABLE_XET:
        return wrong("HF_HUB_DISABLE_XET is set, and wins over zest_hf", "unset HF_HUB_DISABLE_XET")
    from zest_hf.hook import enabled_for_now

    with enabled_for_now():
        from huggingface_hub import file_download

        if not hasattr(getattr(file_download, "xet_get", None), "__zest_original__"):
            return wrong(
                f"huggingface_hub {metadata.version('huggingface_hub')} works in an unknown way",
                "downloads run without zest_hf: upgrade it, or install an earlier huggingface_hub",
            )
    return ok("fits this huggingface_hub")


def switch(settings: Settings) -> Finding:
    if not any((folder / "zest_hf.pth").exists() for folder in _site_folders()):
        return note(
            f"zest_hf.pth is in no site-packages of {sys.executable}: HF_HUB_ENABLE_ZEST has no effect there",
            "use `zest run -- COMMAND` or zest_hf.enable(), or install zest_hf with pip in that environment",
        )
    if not settings.enabled:
        return note("HF_HUB_ENABLE_ZEST is not set: programs download without zest_hf", "set HF_HUB_ENABLE_ZEST=1")
    return ok("HF_HUB_ENABLE_ZEST is set, zest_hf.pth is installed")


def _site_folders() -> Iterator[Path]:
    yield Path(sysconfig.get_path("purelib"))
    yield Path(sysconfig.get_path("platlib"))
    for folder in (*site.getsitepackages(), site.getusersitepackages()):
        yield Path(folder)


def home(settings: Settings) -> Finding:
    advice = "set ZEST_HOME to a writable directory"
    if (reason := why_not_writable(settings.home)) is not None:
        return wrong(reason, advice)
    if not settings.home.is_dir():
        return ok(f"{settings.home} will be made")
    try:
        with tempfile.TemporaryFile(dir=settings.home) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return wrong(f"{settings.home}: {error.strerror}", advice)
    return ok(f"{settings.home} is writable")


def cache() -> Finding:
    folder = cache_directory()
    if (reason := why_not_writable(folder)) is not None:
        return wrong(reason, "set HF_HOME or HF_HUB_CACHE to a directory that you may write to")
    if not folder.is_dir():
        return ok(f"{folder} will be made")
    if not os.access(folder, os.R_OK | os.X_OK):
        return wrong(f"{folder} is not readable", "set HF_HOME or HF_HUB_CACHE to a directory that you may read")
    count = size = 0
    end_s = time.monotonic() + SIZING_S
    for file in cached_files(folder):
        count, size = count + 1, size + file.size_bytes
        if time.monotonic() >= end_s:
            return ok(f"{folder}: more than {count} large files, {size_text(size)}")
    return ok(f"{folder}: {count} large file{'s' * (count != 1)}, {size_text(size)}")


def disk(settings: Settings) -> Finding:
    free = {folder: shutil.disk_usage(_existing(folder)).free for folder in (cache_directory(), settings.home)}
    folder, least = min(free.items(), key=lambda item: item[1])
    text = f"{size_text(least)} free for {folder}"
    if least < NO_DISK_BYTES:
        return wrong(text, "free some space: `hf cache prune` removes old revisions")
    if least < LITTLE_DISK_BYTES:
        return note(text, "that is less than many models take: `hf cache prune` removes old revisions")
    return ok(text)


def _existing(folder: Path) -> Path:
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())


def seeder(settings: Settings) -> Finding:
    try:
        taken = Instance(settings.home).is_taken()
        running = Instance(settings.home).running() if taken else None
    except StorageError as error:
        return wrong(str(error), "set ZEST_HOME to a writable directory on a local disk")
    if not taken:
        return note("none runs", "zest start leaves one running")
    if running is None:
        return note("one is just starting or ending")
    where = f"process {running.pid}" if running.is_here else f"process {running.pid} on {running.host}"
    if running.version != __version__:
        return note(f"{where} has version {running.version}, this is {__version__}", "zest stop, then zest start")
    return ok(f"{where}, peers at {running.listen}")


def listen_port(settings: Settings) -> Finding:
    """Whether zest-seed could listen for peers."""
    host, port, explicit = settings.listen
    address = HostPort(host, port)
    error = _why_not_bound(address)
    if error is None:
        return ok(f"{address} is free" if port else f"{address}: any free port")
    taken = error.errno == errno.EADDRINUSE
    running = _running(settings)
    if taken and running is not None and running.listen.endswith(f":{port}"):
        return ok(f"{address} is our zest-seed's (process {running.pid})")
    if taken and not explicit:
        return ok(f"{address} is taken; the next free port is used")
    return wrong(f"{address}: {error.strerror}", "set ZEST_LISTEN to another host:port (port 0 takes a free one)")


def status_port(settings: Settings) -> Finding:
    """Whether zest-seed could serve its page."""
    if settings.status is None:
        return skipped("ZEST_STATUS is off")
    error = _why_not_bound(settings.status)
    if error is None:
        return ok(f"{settings.status} is free" if settings.status.port else f"{settings.status}: any free port")
    running = _running(settings)
    if running is not None and running.status == f"http://{settings.status}":
        return ok(f"{settings.status} is our zest-seed's (process {running.pid})")
    if error.errno == errno.EADDRINUSE and settings.sources["status"] == "default":
        return ok(f"{settings.status} is taken; the next free port is used")
    return wrong(f"{settings.status}: {error.strerror}", "set ZEST_STATUS to another host:port, or to off")


def _why_not_bound(address: HostPort) -> OSError | None:
    try:
        infos = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, place in infos[:1]:
            with socket.socket(family, kind, protocol) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(place)
                listener.listen(1)
    except OSError as error:
        return error
    return None


def _running(settings: Settings) -> Running | None:
    try:
        running = Instance(settings.home).running()
    except StorageError:
        return None
    return running if running is not None and running.is_here else None


def local_network(settings: Settings) -> Finding:
    """Whether peers can be heard there: a multicast group can be joined."""
    if not settings.lsd or settings.hub_offline:
        return skipped("HF_HUB_OFFLINE is set" if settings.hub_offline else "ZEST_LSD is off")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("", LSD_PORT))
            group = struct.pack("4s4s", socket.inet_aton(LSD_GROUP), socket.inet_aton("0.0.0.0"))
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    except OSError as error:
        return note(
            f"no multicast here ({error.strerror}): machines on the same network do not find each other by themselves",
            "name a tracker (ZEST_TRACKERS) or addresses (ZEST_PEERS)",
        )
    return ok(f"{LSD_GROUP}:{LSD_PORT} can be joined")
