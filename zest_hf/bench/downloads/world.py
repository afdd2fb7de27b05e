"""All that downloads need on this machine: a local Hub that has the files, and others who give them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zest_hf.bench.downloads.content import Content
from zest_hf.bench.downloads.places import Places
from zest_hf.bench.downloads.tls import Tls
from zest_hf.errors import ZestError
from zest_hf.hub.process import HubProcess

REPO = "bench/model"
STOP_S = 10.0
SHOWN = 300
"""Characters of what a program has written that are shown when it fails."""
PROGRAMS = Path(sys.executable).parent

SNAPSHOT = """
import json, sys, time
import huggingface_hub
from huggingface_hub import snapshot_download
began = time.monotonic()
snapshot_download(sys.argv[1])
took = time.monotonic() - began
# Not ru_maxrss: that also counts the parent's memory before the exec.
with open("/proc/self/status") as status:
    peak_kb = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"call_s": took, "peak_bytes": peak_kb * 1024}))
"""
"""A download through huggingface_hub. Whether by zest_hf or by hf_xet, its environment says."""


@dataclass(frozen=True)
class Giver:
    """A process that gives files to others, and where."""

    pid: int
    address: tuple[str, int]


class World:
    """A Hub with one repository, from the start to the end of the block.

    ``host``: the address at which all servers listen. With ``places`` who downloads is at the other one.
    """

    def __init__(
        self,
        work: Path,
        content: Content,
        *,
        tls: Tls | None = None,
        host: str = "127.0.0.1",
        places: Places | None = None,
    ) -> None:
        self.work, self.content, self.host = work, content, host
        self.there = host if places is None else places.there
        """The address of who downloads."""
        self.enter = () if places is None else places.enter
        """What is put before its command."""
        self.carrier = None if places is None else places.carrier
        options: dict[str, str | bool] = {"listen": f"{host}:0", "cdn_listen": f"{host}:0"}
        if places is not None:
            options["remote_control"] = True  # nobody else is there
        if tls is not None:
            options |= {"tls_certificate": str(tls.certificate), "tls_key": str(tls.key)}
        self.hub = HubProcess(work / "hub", authority=None if tls is None else tls.authority, **options)
        self._tls = tls
        self._stack = contextlib.ExitStack()
        self.environment: Mapping[str, str] = {}

    def __enter__(self) -> World:
        with self._stack:
            self._stack.enter_context(self.hub)
            self.environment = environment(self.hub.endpoint, self.host, self._tls)
            upload(self.content.folder, self.environment, self.work)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def seeder(self) -> Giver:
        """A zest-seed that offers the repository."""
        home = {"HF_HOME": str(self.work / "seeder")}
        finished([sys.executable, "-c", SNAPSHOT, REPO], {**self.environment, **ours(self.host), **home})
        # Who looks for peers as usual is not to find this one.
        settings = {"ZEST_LISTEN": f"{self.host}:0", "ZEST_LSD": "off", "ZEST_STATUS": "off"}
        process = subprocess.Popen(
            [str(PROGRAMS / "zest-seed"), "--no-scan"],
            env={**self.environment, **home, **settings},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(stop, process)
        assert process.stderr is not None
        line = process.stderr.readline().strip()  # "... offered on HOST:PORT"
        port = line.rpartition(":")[2]
        if not port.isdecimal():
            raise ZestError(f"zest-seed did not start: {line[:SHOWN]}")
        # What it says later is of no interest, but has to go somewhere.
        threading.Thread(target=process.stderr.read, name="zest-bench-log", daemon=True).start()
        return Giver(process.pid, (self.host, int(port)))

    def yardstick(self, module: str, *arguments: str) -> Giver:
        """One of this package's servers, which says its port and ends with its stdin."""
        process = subprocess.Popen(
            # What its library may say of its own future is nobody's concern here.
            [sys.executable, "-W", "ignore", "-m", f"{__package__}.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.environment,
            text=True,
        )
        self._stack.callback(stop, process)
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port.isdecimal():
            raise ZestError(f"the server of {module} did not start")
        return Giver(process.pid, (self.host, int(port)))


def ours(host: str) -> dict[str, str]:
    """Settings of a process that downloads by zest_hf, or fails."""
    return {"HF_HUB_ENABLE_ZEST": "1", "ZEST_STRICT": "on", "ZEST_LISTEN": f"{host}:0"}


def environment(endpoint: str, host: str = "127.0.0.1", tls: Tls | None = None) -> dict[str, str]:
    """What every process of the benchmark gets: of the user's own settings none that make a difference."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ZEST_", "HF_"))}
    # Modules that came by pip are compiled already: those of a checkout are too after the round that does not count.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return {
        **kept,
        **({} if tls is None else tls.environment),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "ZEST_DAEMON": "off",
        "ZEST_DHT": "off",
        "NO_PROXY": host,
        "no_proxy": host,
    }


def upload(folder: Path, base: Mapping[str, str], work: Path) -> None:
    """A folder into the repository: by the official client, as others do it, or else by `zest xet upload`."""
    command = [str(PROGRAMS / "hf"), "upload", REPO, str(folder), "."]
    if importlib.util.find_spec("hf_xet") is None:
        command = [str(PROGRAMS / "zest"), "xet", "upload", str(folder), "--repo", REPO]
    finished(command, {**base, "HF_HOME": str(work / "uploader"), "HF_TOKEN": "hf_bench"})


def finished(command: Sequence[str], env: Mapping[str, str]) -> None:
    """Run a program of the preparation. Raises ZestError with its last line."""
    done = subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise ZestError(f"{Path(command[0]).name} failed: {last_line(done.stderr)}")


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:SHOWN] if lines else "it said nothing"


def stop(process: subprocess.Popen[str]) -> None:
    """As a user would."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
