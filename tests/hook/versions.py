"""The same downloads with several versions of huggingface_hub, each in a virtual environment of its own.

    python tests/hook/versions.py [--directory DIR] [VERSION ...]

Needs a package index. An environment holds one huggingface_hub and what that requires; everything else,
zest_hf included, is borrowed from the environment that runs this. A version that ends in `-xet` goes without
hf_xet. Environments in DIR are kept and used again.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from hashlib import sha256
from pathlib import Path

from zest_hf.hub.process import HubProcess

VERSIONS = ("0.34.6", "0.36.2", "1.0.1", "1.33.0", "2.4.0", "2.4.0-xet")
SIZE = 3_000_000
DEADLINE_S = 60.0

SMOKE = """
import hashlib, sys
import huggingface_hub as hub, huggingface_hub.file_download, huggingface_hub.hf_file_system as file_system
import zest_hf
done = 0
def check(path, files=1):
    global done
    with open(path, "rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == sys.argv[1], path
    done += files * int(sys.argv[2])
    assert zest_hf.status()["bytes"]["total"] == done, (zest_hf.status(), done)
check(hub.hf_hub_download("org/model", "a.bin"))
check(hub.hf_hub_download("org/model", "a.bin", force_download=True))
check(hub.hf_hub_download("org/model", "a.bin", force_download=True, local_dir="one"))
check(hub.snapshot_download("org/model", force_download=True, local_dir="two") + "/a.bin", files=2)
if hasattr(file_system, "xet_get"):
    hub.HfFileSystem().get_file("org/model/a.bin", "three")
    check("three")
zest_hf.disable()
assert not hasattr(hub.file_download.xet_get, "__wrapped__")
print("huggingface_hub", hub.__version__, "with hf_xet", hub.utils._runtime.get_xet_version())
"""
ONE = """
import hashlib, sys, huggingface_hub as hub
with open(hub.hf_hub_download("org/model", "a.bin"), "rb") as file:
    assert hashlib.sha256(file.read()).hexdigest() == sys.argv[1], "wrong content"
"""
UPLOAD = """
import sys, huggingface_hub as hub
api = hub.HfApi()
api.create_repo("org/model")
for name in ("a.bin", "b.bin"):
    api.upload_file(path_or_fileobj=sys.argv[1] + "/" + name, path_in_repo=name, repo_id="org/model")
"""


def environment(directory: Path, version: str) -> Path:
    """The interpreter of an environment with this huggingface_hub."""
    python = directory / "bin" / "python"
    if (directory / "complete").exists():
        return python
    venv.create(directory, with_pip=False, symlinks=True, clear=True)
    borrowed = directory / "borrowed"
    borrowed.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("huggingface_hub", "hf_xet")):
            (borrowed / entry.name).symlink_to(entry)
    site_packages = next(directory.glob("lib/python*/site-packages"))
    # In this way the .pth files of what is borrowed count as well, and what is installed here comes first.
    (site_packages / "borrowed.pth").write_text(f"import site; site.addsitedir({str(borrowed)!r})\n")
    wanted = [f"huggingface_hub=={version.removesuffix('-xet')}"]
    if version.endswith("-xet"):
        wanted.append("--no-deps")
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", *wanted]
    # Not shown: pip regrets at length that what is borrowed wants another version of this.
    installed = subprocess.run(command, capture_output=True, text=True)
    if installed.returncode != 0:
        raise AssertionError(f"{wanted[0]} cannot be installed: {installed.stderr}")
    (directory / "complete").touch()
    return python


class Runner:
    """Runs code in one environment, every time on a new machine."""

    def __init__(self, python: Path, hub: HubProcess, scratch: Path, digest: str) -> None:
        self._python, self._hub, self._scratch, self._digest = python, hub, scratch, digest

    def machine(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._scratch))

    def start(self, code: str, machine: Path, **environ: str) -> subprocess.Popen[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "ZEST_", "TQDM_"))}
        env |= {"HF_ENDPOINT": self._hub.endpoint, "HF_HOME": str(machine), "HF_HUB_ENABLE_ZEST": "1"}
        env |= {"ZEST_DAEMON": "off", "ZEST_DHT": "off", "ZEST_LSD": "off", "ZEST_LISTEN": "127.0.0.1:0"}
        command = [str(self._python), "-c", code, self._digest, str(SIZE)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=env | environ, cwd=machine, stdout=pipe, stderr=pipe, text=True)

    def run(self, code: str, machine: Path | None = None, **environ: str) -> tuple[str, str]:
        process = self.start(code, machine or self.machine(), **environ)
        stdout, stderr = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, f"{stdout}\n{stderr}"
        return stdout, stderr

    def kill_during_a_download(self, machine: Path) -> None:
        """SIGKILL once the file has begun to arrive and cannot go on."""
        self._hub.reset_stats()
        self._hub.fault("cdn", "stall", after_bytes=SIZE // 2)
        process = self.start(ONE, machine)
        began_s = time.monotonic()
        while self._hub.stats()["cdn_bytes"] < SIZE // 4:
            assert process.poll() is None and time.monotonic() - began_s < DEADLINE_S
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        self._hub.clear_faults()


def warnings(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if "zest_hf:" in line]


def check(runner: Runner, hub: HubProcess) -> str:
    """All that one version has to do; returns what it calls itself."""
    machine = runner.machine()
    stdout, stderr = runner.run(SMOKE, machine, ZEST_STRICT="on")
    assert not warnings(stderr), stderr
    assert not list(machine.rglob("*.incomplete"))

    _, stderr = runner.run(ONE, ZEST_LISTEN="nonsense")
    assert len(warnings(stderr)) == 1, stderr

    _, stderr = runner.run(ONE, TQDM_POSITION="-1")
    assert "a.bin" in stderr and "100%" in stderr, stderr

    hub.fault("hub", "status", status=404, match="xet-read-token", times=1)
    machine = runner.machine()
    _, stderr = runner.run(ONE, machine, TQDM_POSITION="-1")
    assert len(warnings(stderr)) == 1 and "6.00M" not in stderr, stderr
    assert not list(machine.rglob("*.incomplete"))

    machine = runner.machine()
    runner.kill_during_a_download(machine)
    runner.run(ONE, machine)
    return stdout.strip()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--directory", type=Path, default=Path("build/hub-versions"))
    arguments.add_argument("versions", nargs="*", default=VERSIONS, metavar="VERSION")
    options = arguments.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        contents = {n: random.Random(n).randbytes(SIZE) for n in ("a.bin", "b.bin")}
        for file, data in contents.items():
            (scratch / file).write_bytes(data)
        with HubProcess(scratch / "hub") as hub:
            env = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(scratch / "up"), "HF_TOKEN": "t"}
            subprocess.run([sys.executable, "-c", UPLOAD, name], env=env, check=True, capture_output=True)
            for version in options.versions:
                try:
                    python = environment((options.directory / version).absolute(), version)
                    said = check(Runner(python, hub, scratch, sha256(contents["a.bin"]).hexdigest()), hub)
                    print(f"{version:12} passed: {said}", flush=True)
                except AssertionError as error:
                    failed += 1
                    print(f"{version:12} FAILED: {error}", flush=True)
                finally:
                    hub.clear_faults()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
