"""A Hub at the switch, a host that has the model, and what others measure while they download it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import requests
from hosts import SWITCH, Host, Network
from machines import Machine, Run

from zest_hf.bench.weights import write_weights
from zest_hf.core.ids import file_info_hash, hash_from_text
from zest_hf.hub.process import HubProcess

REPO = "bench/model"
FILE = "model.safetensors"
UPLOAD = """
from huggingface_hub import HfApi
api = HfApi()
api.create_repo(REPO)
api.upload_file(repo_id=REPO, path_or_fileobj=SOURCE, path_in_repo=FILE)
"""
# The first bytes of a peer are seen by a look at the session's count of them each half millisecond. What the session
# counts is proved; the count begins with the call of the engine, when the Hub's own questions are through.
DOWNLOAD = f"""
import threading, time
import huggingface_hub, zest_hf, zest_hf.engine as engines
began, first, ended = [], [], threading.Event()
original = engines.Engine.download

def download(self, *arguments):
    def look():
        while not ended.wait(0.0005):
            swarm = self._swarm
            if swarm is not None and swarm.stats().bytes_down:
                first.append(time.monotonic())
                return
    began.append(time.monotonic())
    watch = threading.Thread(target=look)
    watch.start()
    try:
        return original(self, *arguments)
    finally:
        ended.set()
        watch.join()

engines.Engine.download = download
called = time.monotonic()
path = huggingface_hub.hf_hub_download({REPO!r}, {FILE!r})
done = time.monotonic()
show(
    seconds=done - called,
    engine_seconds=done - began[0],
    first_seconds=first[0] - began[0] if first else None,
    first_since_call_seconds=first[0] - called if first else None,
    **zest_hf.status()["bytes"],
)
"""


class HostMachine(Machine):
    """A user's machine on a host of its own."""

    def __init__(self, hub: HubProcess, root: Path, host: Host) -> None:
        super().__init__(hub, root, address=host.address, prefix=host.prefix)
        self.host = host

    def download(self, **environ: str | None) -> dict[str, float]:
        """Into an empty home, with what DOWNLOAD shows."""
        shutil.rmtree(self.home, ignore_errors=True)
        return good(self.python(DOWNLOAD, ZEST_STRICT="on", **environ)).shown


@dataclass
class World:
    hub: HubProcess
    network: Network
    root: Path
    size_bytes: int

    @cached_property
    def info_hash(self) -> bytes:
        """Of the file's swarm."""
        url = f"{self.hub.endpoint}/{REPO}/resolve/main/{FILE}"
        text = requests.head(url, timeout=10).headers["X-Xet-Hash"]
        return file_info_hash(hash_from_text(text))

    def machine(self, name: str) -> HostMachine:
        """Of the same name: another host with the same files."""
        return HostMachine(self.hub, self.root / name, self.network.host())


@contextmanager
def world(root: Path, megabytes: int) -> Iterator[World]:
    """With the model in the Hub, and in the home of a machine "owner"."""
    source = root / FILE
    write_weights(source, megabytes << 20, 0)
    listen = f"{SWITCH}:0"
    with (
        Network() as network,
        HubProcess(root / "hub", listen=listen, cdn_listen=listen, remote_control=True) as hub,
    ):
        it = World(hub, network, root, megabytes << 20)
        given = f"REPO, FILE, SOURCE = {(REPO, FILE, str(source))!r}\n"
        good(it.machine("uploader").python(given + UPLOAD, HF_TOKEN="hf_any", HF_HUB_ENABLE_ZEST=None))
        assert it.machine("owner").download(ZEST_SEED="off")["cdn"] == it.size_bytes
        yield it


def good(run: Run) -> Run:
    if run.code != 0:
        sys.exit(f"a download failed:\n{run.stderr}")
    return run
