"""How fast the local Hub sends xorbs: plain sockets read a xorb of 64 MB over and over, on one connection and on four.

    python tests/bench/hub.py [--runs 7]

Nothing is decoded or kept: what is measured is the server (and the loopback). The first run is thrown away.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from zest_hf.hub.process import HubProcess

REPO = "bench/xorb"
SIZE = 60 << 20
READS = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="counted runs (%(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zest-bench-") as folder, HubProcess(Path(folder) / "hub") as hub:
        url, size = published(hub, Path(folder))
        for connections in (1, 4):
            rates = [rate(url, size, connections) for _ in range(args.runs + 1)][1:]
            low, high = min(rates) / 1e9, max(rates) / 1e9
            name = f"{connections} connection" + "s" * (connections > 1)
            print(f"{name:<14} {statistics.median(rates) / 1e9:5.2f} GB/s  ({low:.2f}..{high:.2f})")
    return 0


def published(hub: HubProcess, work: Path) -> tuple[str, int]:
    """The url of a xorb that the real client has uploaded, and its size in bytes."""
    source = work / "random.bin"
    source.write_bytes(random.Random(0).randbytes(SIZE))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "ZEST_"))}
    env |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(work / "home"), "HF_TOKEN": "hf_bench", "NO_PROXY": "127.0.0.1"}
    command = [str(Path(sys.executable).parent / "hf"), "upload", REPO, str(source)]
    subprocess.run(command, env=env, check=True, capture_output=True)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    token = json.load(direct.open(f"{hub.endpoint}/api/models/{REPO}/xet-read-token/main"))
    tree = json.load(direct.open(f"{hub.endpoint}/api/models/{REPO}/tree/main"))
    file_hash = next(entry["xetHash"] for entry in tree if entry["path"] == source.name)
    request = urllib.request.Request(
        f"{token['casUrl']}/v1/reconstructions/{file_hash}", headers={"Authorization": f"Bearer {token['accessToken']}"}
    )
    fetches = [one for some in json.load(direct.open(request))["fetch_info"].values() for one in some]
    largest = max(fetches, key=lambda one: one["url_range"]["end"])
    return largest["url"], largest["url_range"]["end"] + 1


def rate(url: str, size: int, connections: int) -> float:
    """Bytes a second over all connections together, each reading the xorb READS times."""
    threads = [threading.Thread(target=read, args=(url, size)) for _ in range(connections)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return connections * READS * size / (time.monotonic() - began)


def read(url: str, size: int) -> None:
    parts = urlsplit(url)
    request = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-{size - 1}\r\n\r\n".encode()
    buffer = memoryview(bytearray(1 << 20))
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30) as connection:
        for _ in range(READS):
            connection.sendall(request)
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096)
            left = size - len(head.partition(b"\r\n\r\n")[2])
            while left > 0:
                count = connection.recv_into(buffer[: min(left, len(buffer))])
                if count == 0:
                    raise SystemExit("the hub closed the connection")
                left -= count


if __name__ == "__main__":
    sys.exit(main())
