"""A repository of 1 GB from the local Hub: hf_xet, zest_hf without a peer, and zest_hf from a peer, in turn.

    python tests/bench/downloads.py [--runs 7] [--megabytes 1024] [--files 4] [--json FILE]

Each download runs in a process of its own into an empty HF_HOME. Wall time is that of snapshot_download (without the
start of the interpreter) and of the whole process, CPU and peak memory are the process's. The first round is thrown
away; figures are medians, ratios are of medians, and the pairwise ratios show the noise.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from weights import write_weights

from zest_hf.hub.process import HubProcess

REPO = "bench/model"

DOWNLOAD = """
import json, sys, time
import huggingface_hub
from huggingface_hub import snapshot_download
began = time.monotonic()
snapshot_download(sys.argv[1])
took = time.monotonic() - began
# Not ru_maxrss: that also counts the parent's memory before the exec.
with open("/proc/self/status") as status:
    peak_kb = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps([took, peak_kb / 1024]))
"""


@dataclass(frozen=True)
class Run:
    download_s: float
    process_s: float
    cpu_s: float
    rss_mb: float
    cdn_bytes: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="counted rounds (%(default)s)")
    parser.add_argument("--megabytes", type=int, default=1024, help="size of the repository (%(default)s)")
    parser.add_argument("--files", type=int, default=4, help="files in it (%(default)s)")
    parser.add_argument("--dir", type=Path, help="work here (default: a temporary directory)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zest-bench-", dir=args.dir) as folder:
        results = measure(Path(folder), args.runs, args.megabytes << 20, args.files)
    if args.json is not None:
        args.json.write_text(json.dumps({k: [asdict(run) for run in v] for k, v in results.items()}, indent=1))
    report(results, args.megabytes << 20)
    return 0


def measure(work: Path, runs: int, size: int, files: int) -> dict[str, list[Run]]:
    source = work / "source"
    source.mkdir()
    for number in range(files):
        write_weights(source / f"model-{number}.safetensors", size // files, number)
    with HubProcess(work / "hub") as hub:
        base = environment(hub.endpoint)
        upload(source, base, work)
        seeder_home = work / "seeder"
        port = free_port()
        once(hub, base, seeder_home, HF_HUB_ENABLE_ZEST="1", ZEST_STRICT="on", ZEST_LISTEN="127.0.0.1:0")
        seeder = subprocess.Popen(
            [str(Path(sys.executable).parent / "zest-seed")],
            # Who looks for peers as usual is not to find this one.
            env={
                **base,
                "HF_HOME": str(seeder_home),
                "ZEST_LISTEN": f"127.0.0.1:{port}",
                "ZEST_LSD": "off",
                "ZEST_STATUS": "off",
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        assert seeder.stderr is not None
        print(seeder.stderr.readline().strip())
        ours = {"HF_HUB_ENABLE_ZEST": "1", "ZEST_STRICT": "on", "ZEST_LISTEN": "127.0.0.1:0"}
        cases = {
            "hf_xet": {},
            "zest_hf, no peer": ours,
            "zest_hf, one peer": {**ours, "ZEST_PEERS": f"127.0.0.1:{port}"},
        }
        results: dict[str, list[Run]] = {name: [] for name in cases}
        try:
            for round_ in range(runs + 1):
                for name, settings in cases.items():
                    run = once(hub, base, work / "home", **settings)
                    shutil.rmtree(work / "home")
                    if round_:
                        results[name].append(run)
        finally:
            seeder.send_signal(signal.SIGTERM)
            seeder.wait(10)
    return results


def once(hub: HubProcess, base: dict[str, str], home: Path, **settings: str) -> Run:
    hub.reset_stats()
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", DOWNLOAD, REPO],
        env={**base, "HF_HOME": str(home), **settings},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    took = time.monotonic() - began
    if process.returncode != 0:
        raise SystemExit("a download failed, see above")
    download_s, peak_mb = json.loads(output)
    return Run(download_s, took, usage.ru_utime + usage.ru_stime, peak_mb, hub.stats()["cdn_bytes"])


def environment(endpoint: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ZEST_", "HF_"))}
    return {
        **kept,
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "ZEST_DAEMON": "off",
        "ZEST_DHT": "off",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def upload(source: Path, base: dict[str, str], work: Path) -> None:
    command = [str(Path(sys.executable).parent / "hf"), "upload", REPO, str(source), "."]
    env = {**base, "HF_HOME": str(work / "uploader"), "HF_TOKEN": "hf_bench"}
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def report(results: dict[str, list[Run]], size: int) -> None:
    def median(name: str, field: str) -> float:
        return statistics.median(getattr(run, field) for run in results[name])

    base = "hf_xet"
    gigabytes = size / 1e9
    print(f"{size / 1e6:.0f} MB, medians of {len(results[base])} rounds")
    head = ("wall s", "MB/s", "x", "(pairs)", "process s", "CPU s/GB", "RSS MB", "CDN MB")
    widths = (8, 7, 7, 14, 11, 10, 8, 8)
    print(" " * 20 + "".join(f"{text:>{width}}" for text, width in zip(head, widths, strict=True)))
    for name, runs in results.items():
        wall = median(name, "download_s")
        pairs = sorted(a.download_s / b.download_s for a, b in zip(runs, results[base], strict=True))
        cells = (
            f"{wall:.2f}",
            f"{size / 1e6 / wall:.0f}",
            f"{wall / median(base, 'download_s'):.2f}",
            f"{pairs[0]:.2f}..{pairs[-1]:.2f}",
            f"{median(name, 'process_s'):.2f}",
            f"{median(name, 'cpu_s') / gigabytes:.2f}",
            f"{median(name, 'rss_mb'):.0f}",
            f"{median(name, 'cdn_bytes') / 1e6:.0f}",
        )
        print(f"{name:<20}" + "".join(f"{text:>{width}}" for text, width in zip(cells, widths, strict=True)))


if __name__ == "__main__":
    sys.exit(main())
