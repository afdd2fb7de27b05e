"""Who is compared, and how each of them is run."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zest_hf.bench.downloads.world import REPO, SNAPSHOT, World, ours


@dataclass(frozen=True)
class Case:
    """A way to download the repository.

    ``command``: the program that does, given an empty directory, somewhere below which all files are to be in the end.
    It prints a line of JSON with ``call_s`` and ``peak_bytes``, unless it `is_foreign`: then the call is the whole
    process. ``giver``: the process that the bytes come from.
    """

    command: Callable[[Path], Sequence[str]]
    giver: int
    settings: Callable[[Path], Mapping[str, str]] = field(default=lambda into: {})
    is_foreign: bool = False


@dataclass(frozen=True)
class Kind:
    """What is known of a case before anything is started. ``missing``: why it cannot be run here, None if it can."""

    title: str
    missing: Callable[[], str | None]
    prepare: Callable[[World], Case]


def _snapshot(into: Path) -> list[str]:
    return [sys.executable, "-c", SNAPSHOT, REPO]


def _hf_xet(world: World) -> Case:
    return Case(_snapshot, world.hub.pid, lambda into: {"HF_HOME": str(into)})


def _zest(world: World) -> Case:
    return Case(_snapshot, world.hub.pid, lambda into: {**ours(world.there), "HF_HOME": str(into)})


def _zest_peer(world: World) -> Case:
    giver = world.seeder()
    peers = {"ZEST_PEERS": "{}:{}".format(*giver.address)}
    return Case(_snapshot, giver.pid, lambda into: {**ours(world.there), **peers, "HF_HOME": str(into)})


def _aria2(world: World) -> Case:
    giver = world.yardstick("http_files", world.host, str(world.content.folder))
    urls = world.work / "urls"
    urls.write_text("".join("http://{}:{}/{}\n".format(*giver.address, name) for name in world.content.names))
    options = ["--no-conf", "--quiet", "--file-allocation=none", "--max-concurrent-downloads=8"]
    many = ["--split=4", "--max-connection-per-server=4"]
    return Case(
        lambda into: ["aria2c", *options, *many, f"--input-file={urls}", f"--dir={into}"], giver.pid, is_foreign=True
    )


def _libtorrent(world: World) -> Case:
    torrent = world.work / "model.torrent"
    giver = world.yardstick("torrent_files", "seed", world.host, str(world.content.folder), str(torrent))
    what = [*map(str, giver.address), str(torrent)]
    return Case(lambda into: [*_yardstick("torrent_files"), "fetch", world.there, *what, str(into)], giver.pid)


def _tcp(world: World) -> Case:
    content = world.content
    giver = world.yardstick("tcp_files", "serve", world.host, str(content.folder))
    what = [str(content.size_bytes), *content.names]
    address = list(map(str, giver.address))
    return Case(lambda into: [*_yardstick("tcp_files"), "fetch", *address, str(into), *what], giver.pid)


def _yardstick(module: str) -> list[str]:
    return [sys.executable, "-m", f"{__package__}.{module}"]


def _without_module(name: str) -> Callable[[], str | None]:
    return lambda: None if importlib.util.find_spec(name) else f"no {name} in this environment: pip install {name}"


def _without_aria2() -> str | None:
    return None if shutil.which("aria2c") else "no program aria2c: install aria2"


HF_XET, ZEST, ZEST_PEER = "hf_xet", "zest", "zest-peer"

KINDS: Mapping[str, Kind] = {
    HF_XET: Kind("hf_xet", _without_module("hf_xet"), _hf_xet),
    ZEST: Kind("zest_hf, no peer", lambda: None, _zest),
    ZEST_PEER: Kind("zest_hf, one peer", lambda: None, _zest_peer),
    "aria2": Kind("aria2", _without_aria2, _aria2),
    "libtorrent": Kind("libtorrent", _without_module("libtorrent"), _libtorrent),
    "tcp": Kind("TCP alone", lambda: None, _tcp),
}
"""By the names that --only takes, in the order in which they take turns."""
