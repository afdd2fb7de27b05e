"""What a seeder costs while nobody asks it, and how fast it gives: a zest-seed of 100 GB, and eight peers at once.

    PYTHONPATH=tests:tests/bench:tests/bench/swarm python tests/bench/seeding.py [--gigabytes 100] [--watch 60]

The 100 GB are sparse files with an index for them. What is given comes from a file that is in the page cache, to
sockets on loopback that throw it away; beside it, in the same run, one thread that sends the same file to as many
sockets by `read` and `send`, and another by `sendfile`, which never touches the bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import selectors
import socket
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import idle
from machines import Machine
from swarm import wire_peer as wire
from table import Figure, show

from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.hub.process import HubProcess
from zest_hf.index import Index, IndexedFile

PEERS = 8
FILE_BYTES = 256 << 20
CHUNK_BYTES = 64 << 10
ASKED_AHEAD = 64
"""Times that each peer asks for the whole file, so that there is always something to send."""
SETTLE_S = 5.0
BLOCK_BYTES = 1 << 20
XORB_BYTES = idle.CHUNKS_A_XORB * idle.CHUNK_BYTES
RAW_ROUNDS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=int, default=100, help="of models that are seeded (%(default)s)")
    parser.add_argument("--watch", type=float, default=60.0, help="seconds that it is watched idling (%(default)s)")
    parser.add_argument("--send", type=float, default=3.0, help="seconds of each round of sending (%(default)s)")
    parser.add_argument("--only", choices=["idle", "give"], help="one part alone")
    parser.add_argument("--dir", type=Path, help="work here (default: a temporary directory)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zest-bench-", dir=args.dir) as folder:
        root = Path(folder)
        with HubProcess(root / "hub") as hub:
            if args.only != "give":
                machine = Machine(hub, root / "idle")
                show(f"A seeder of {args.gigabytes} GB", idling(machine, args.gigabytes, args.watch))
            if args.only != "idle":
                machine = Machine(hub, root / "busy")
                show(f"{PEERS} peers at once, on loopback", giving(machine, args.send))
    print(f"load: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return 0


def idling(machine: Machine, gigabytes: int, watch_s: float) -> list[Figure]:
    idle.write_index(machine.home / "zest" / "index.sqlite", machine.root, gigabytes * 10**9 // XORB_BYTES)
    # Python's compiled modules are there from the second start on.
    with machine.seeder(ZEST_HOME=str(machine.root / "empty")):
        pass
    began_s = time.monotonic()
    with machine.seeder(ZEST_LSD="on") as seeder:
        ready_s = time.monotonic() - began_s
        assert seeder.ask("/v1/health") == {"status": "ok"}
        time.sleep(SETTLE_S)
        cpu, peak = idle.cpu_percent(seeder, watch_s), idle.memory_mb(seeder, "VmHWM")
        memory = idle.memory_mb(seeder, "VmRSS")
        size = seeder.ask()["size"]
    return [
        Figure("ready after", ready_s, 2, "s", note=f"{size / 1e9:.0f} GB offered"),
        Figure("resident memory", memory, 150, "MB", note=f"at most {peak:.0f}"),
        Figure("CPU of one core, idle", cpu, 0.5, "%"),
    ]


def giving(machine: Machine, round_s: float) -> list[Figure]:
    path = machine.root / "model.safetensors"
    file_hash = write_file(machine, path)
    with machine.seeder() as seeder, raw_sender(path, by_copying) as copying, raw_sender(path, by_sendfile) as direct:
        host, _, port = seeder.address.rpartition(":")
        rates: dict[str, list[float]] = {"ours": [], "copied": [], "sendfile": []}
        # In turns: a machine that others use is not the same a minute later.
        for _ in range(RAW_ROUNDS):
            rates["ours"].append(rate([ask(host, int(port), file_hash) for _ in range(PEERS)], round_s))
            for name, at in (("copied", copying), ("sendfile", direct)):
                rates[name].append(rate([socket.create_connection(("127.0.0.1", at)) for _ in range(PEERS)], round_s))
    ours, copied, direct_rate = (sorted(values)[len(values) // 2] for values in rates.values())
    note = f"{ours:.0f} of {copied:.0f} MB/s; sendfile {direct_rate:.0f}"
    return [Figure("of a raw sender's rate", 100 * ours / copied, 80, "%", True, note)]


def write_file(machine: Machine, path: Path) -> XetHash:
    """A file that is offered. Its hashes are none of its own: who receives does not look at them here."""
    source = random.Random(1)
    with path.open("wb") as out:
        for _ in range(FILE_BYTES // BLOCK_BYTES):
            out.write(source.randbytes(BLOCK_BYTES))
    chunks = FILE_BYTES // CHUNK_BYTES
    file = IndexedFile(
        file_hash=XetHash(source.randbytes(32)),
        path=path,
        size_bytes=FILE_BYTES,
        mtime_ns=path.stat().st_mtime_ns,
        repo_id="bench/model",
        repo_type="model",
        endpoint="http://127.0.0.1:1",
        public=True,
        manifest=Manifest(source.randbytes(32 * chunks), array("I", [CHUNK_BYTES]) * chunks),
        terms=(),
    )
    with contextlib.closing(Index(machine.home / "zest" / "index.sqlite")) as index:
        index.add(file)
    return file.file_hash


def ask(host: str, port: int, file_hash: XetHash) -> socket.socket:
    """A peer that has asked for the file, again and again."""
    peer = wire.WirePeer.dial(port, host=host)
    for number in range(1, ASKED_AHEAD + 1):
        peer.send_zest(wire.range_request(number, wire.FILE, file_hash, 0, FILE_BYTES // CHUNK_BYTES))
    return peer.socket


def rate(sockets: Sequence[socket.socket], seconds: float) -> float:
    """MB/s that come from all of them together, after a second to get going. Closes them."""
    counts = [0] * len(sockets)
    ended = threading.Event()

    def receive(number: int) -> None:
        buffer = bytearray(BLOCK_BYTES)
        with contextlib.suppress(OSError):
            while not ended.is_set() and (size := sockets[number].recv_into(buffer)):
                counts[number] += size

    threads = [threading.Thread(target=receive, args=(number,)) for number in range(len(sockets))]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    before, began_s = sum(counts), time.monotonic()
    time.sleep(seconds)
    found = (sum(counts) - before) / 1e6 / (time.monotonic() - began_s)
    ended.set()
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    for one in sockets:
        one.close()
    assert min(counts), "one of them got nothing"
    return found


Send = Callable[[socket.socket, int, int], int]
"""A part of the file from an offset on to a socket that can take something: how many bytes it took."""


def by_copying(connection: socket.socket, file: int, offset: int) -> int:
    return connection.send(os.pread(file, BLOCK_BYTES, offset))


def by_sendfile(connection: socket.socket, file: int, offset: int) -> int:
    return os.sendfile(connection.fileno(), file, offset, BLOCK_BYTES)


@contextlib.contextmanager
def raw_sender(path: Path, send: Send) -> Iterator[int]:
    """A process of one thread that sends the file to whoever connects, over and over; its port."""
    server = socket.create_server(("127.0.0.1", 0))
    process = multiprocessing.get_context("fork").Process(target=_send_for_ever, args=(server, path, send))
    process.start()
    port: int = server.getsockname()[1]
    server.close()
    try:
        yield port
    finally:
        process.kill()
        process.join()


def _send_for_ever(server: socket.socket, path: Path, send: Send) -> None:
    selector = selectors.DefaultSelector()
    selector.register(server, selectors.EVENT_READ)
    file = os.open(path, os.O_RDONLY)
    offsets: dict[socket.socket, int] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is server:
                connection = server.accept()[0]
                connection.setblocking(False)
                selector.register(connection, selectors.EVENT_WRITE)
                offsets[connection] = 0
                continue
            connection = key.fileobj  # type: ignore[assignment]
            try:
                offsets[connection] = (offsets[connection] + send(connection, file, offsets[connection])) % FILE_BYTES
            except BlockingIOError:
                continue
            except OSError:
                selector.unregister(connection)
                connection.close()
                del offsets[connection]


if __name__ == "__main__":
    sys.exit(main())
