"""What a seeder of many xorbs costs while nobody asks it for anything."""

from __future__ import annotations

import os
import random
import socket
import time
from array import array
from contextlib import ExitStack
from pathlib import Path

from machines import Machine, Program, eventually
from swarm.wire_peer import NODE_SWARM, WirePeer
from table import Figure

from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.reconstruction import Term
from zest_hf.hub.process import HubProcess
from zest_hf.index import Index, IndexedFile

XORBS = 2500
XORBS_A_FILE = 72  # files of 4.8 GB, as models have them
CHUNKS_A_XORB = 1024
CHUNK_BYTES = 64 << 10
PEERS = 200
PEERS_A_HOST = 50
WATCH_S = 20.0
READY_S = 60.0
SETTLE_S = 5.0
"""What it does once after its start is no idling."""


def measure(root: Path) -> list[Figure]:
    with HubProcess(root / "hub") as hub:
        machine = Machine(hub, root / "seeder")
        write_index(machine.home / "zest" / "index.sqlite", root)
        with machine.seeder("--no-scan", ZEST_LSD="on", ZEST_DHT="on") as seeder, ExitStack() as peers:
            eventually(lambda: seeder.ask()["ready"], "everything is offered", READY_S)
            assert seeder.ask()["xorbs"] == XORBS
            time.sleep(SETTLE_S)
            idle, peak = cpu_percent(seeder), memory_mb(seeder, "VmHWM")
            memory = memory_mb(seeder, "VmRSS")
            host, _, port = seeder.address.rpartition(":")
            for number in range(PEERS):
                peers.enter_context(idle_peer(f"127.0.1.{1 + number // PEERS_A_HOST}", (host, int(port))))
            eventually(lambda: seeder.ask()["peers_connected"] == PEERS, f"{PEERS} peers are ready")
            busy, memory_then = cpu_percent(seeder), memory_mb(seeder, "VmRSS")
    return [
        Figure("resident memory", memory, 100, "MB", note=f"at most {peak:.0f} while it started"),
        Figure("CPU, no peers", idle, 0.5, "%"),
        Figure(f"CPU, {PEERS} peers", busy, 1.0, "%", note=f"{memory_then:.0f} MB resident"),
    ]


def write_index(path: Path, root: Path, xorbs: int = XORBS) -> None:
    """Files of nothing, which take no room, in xorbs that nobody will ask for."""
    source = random.Random(0)
    path.parent.mkdir(parents=True)
    index = Index(path)
    for first in range(0, xorbs, XORBS_A_FILE):
        count = min(XORBS_A_FILE, xorbs - first)
        chunks = count * CHUNKS_A_XORB
        file = root / f"model-{first}.safetensors"
        with file.open("wb") as empty:
            empty.truncate(chunks * CHUNK_BYTES)
        index.add(
            IndexedFile(
                file_hash=XetHash(source.randbytes(32)),
                path=file,
                size_bytes=chunks * CHUNK_BYTES,
                mtime_ns=file.stat().st_mtime_ns,
                repo_id="bench/model",
                repo_type="model",
                endpoint="http://127.0.0.1:1",
                public=True,
                manifest=Manifest(source.randbytes(32 * chunks), array("I", [CHUNK_BYTES]) * chunks),
                terms=tuple(
                    Term(XetHash(source.randbytes(32)), 0, CHUNKS_A_XORB, CHUNKS_A_XORB * CHUNK_BYTES)
                    for _ in range(count)
                ),
            )
        )
    index.close()


def idle_peer(source: str, address: tuple[str, int]) -> WirePeer:
    peer = WirePeer(socket.create_connection(address, 10.0, source_address=(source, 0)))
    peer.send_handshake(NODE_SWARM)
    peer.receive_handshake(NODE_SWARM)
    peer.extended_handshake()
    return peer


def cpu_percent(program: Program, watch_s: float = WATCH_S) -> float:
    """Of one core, over a time in which nothing is asked of it."""
    before, began_s = _cpu_s(program), time.monotonic()
    time.sleep(watch_s)
    return 100 * (_cpu_s(program) - before) / (time.monotonic() - began_s)


def _cpu_s(program: Program) -> float:
    fields = Path(f"/proc/{program.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(program: Program, field: str) -> float:
    text = Path(f"/proc/{program.process.pid}/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024
