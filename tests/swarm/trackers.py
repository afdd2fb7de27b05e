"""Trackers: a real opentracker, and scripted ones in plain sockets (BEP 3, 23 and 15) that say what a test wants."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from swarm.wire_peer import bencode

HOST = "127.0.0.1"


def free_port() -> int:
    """Free for TCP and UDP."""
    while True:
        with socket.create_server((HOST, 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            port: int = tcp.getsockname()[1]
            with contextlib.suppress(OSError):
                udp.bind((HOST, port))
                return port


def compact(peers: Iterable[tuple[str, int]]) -> bytes:
    """BEP 23."""
    return b"".join(socket.inet_aton(host) + struct.pack(">H", port) for host, port in peers)


def opentracker_program() -> str | None:
    return shutil.which("opentracker")


@contextlib.contextmanager
def opentracker(info_hashes: Iterable[bytes], host: str = HOST, port: int | None = None) -> Iterator[int]:
    """Debian's tracker, which serves only what it was told of. The port, which is UDP's as well."""
    program = opentracker_program()
    assert program is not None
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="opentracker-") as directory:
        Path(directory, "whitelist").write_text("".join(f"{info_hash.hex()}\n" for info_hash in info_hashes))
        # It leaves root's rights for nobody's, and reads the list after that.
        Path(directory).chmod(0o755)
        arguments = ["-i", host, "-p", str(port), "-P", str(port), "-d", directory, "-w", "whitelist"]
        process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_until_it_listens(host, port, process)
            yield port
        finally:
            process.kill()
            process.wait()


def _wait_until_it_listens(host: str, port: int, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 10
    while True:
        assert process.poll() is None, "opentracker has ended"
        assert time.monotonic() < deadline_s, "opentracker does not listen"
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), 1).close()
            return
        time.sleep(0.01)


class HttpTracker:
    """Answers every announce with what `answer` makes of its parameters; None: it never answers."""

    def __init__(self, answer: Callable[[dict[str, bytes]], bytes | None]) -> None:
        self._answer = answer
        self._listener = socket.create_server((HOST, 0))
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}/announce"
        self.announces: list[dict[str, bytes]] = []
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> HttpTracker:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for connection in self._held:
            connection.close()

    def events(self) -> list[str]:
        """Of the announces so far: started, stopped, or nothing."""
        return [announce.get("event", b"").decode() for announce in self.announces]

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(5)
            request = b""
            with contextlib.suppress(OSError):
                while b"\r\n\r\n" not in request and (part := connection.recv(65536)):
                    request += part
            if not request:
                connection.close()
                continue
            query = request.split(b" ")[1].partition(b"?")[2]
            pairs = (item.partition(b"=") for item in query.split(b"&"))
            announce = {key.decode(): urllib.parse.unquote_to_bytes(value) for key, _, value in pairs}
            self.announces.append(announce)
            body = self._answer(announce)
            if body is None:
                self._held.append(connection)
                continue
            with contextlib.suppress(OSError):
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode() + body)
            connection.close()


def peers_answer(peers: Iterable[tuple[str, int]], interval_s: int = 1800) -> bytes:
    """What a tracker says over HTTP."""
    return bencode({"interval": interval_s, "peers": compact(peers)})


class UdpTracker:
    """BEP 15. `answer` gets an announce and gives the peers, or raw bytes to send instead, or None to be silent."""

    def __init__(self, answer: Callable[[bytes], list[tuple[str, int]] | bytes | None]) -> None:
        self._answer = answer
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, 0))
        self._socket.settimeout(0.1)
        self.url = f"udp://{HOST}:{self._socket.getsockname()[1]}/announce"
        self.announces: list[bytes] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> UdpTracker:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(5)
        self._socket.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                data, sender = self._socket.recvfrom(2048)
            except TimeoutError:
                continue
            if len(data) < 16:
                continue
            action, transaction = struct.unpack_from(">II", data, 8)
            if action == 0:
                self._socket.sendto(struct.pack(">IIQ", 0, transaction, 0x1234), sender)
                continue
            self.announces.append(data)
            answer = self._answer(data)
            if isinstance(answer, list):
                head = struct.pack(">IIIII", 1, transaction, 1800, 1, 1)
                self._socket.sendto((head + compact(answer))[:65000], sender)
            elif answer is not None:
                self._socket.sendto(answer, sender)
