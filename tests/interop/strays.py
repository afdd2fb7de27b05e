"""Plain BitTorrent clients that know one of our info-hashes, and a tracker that sends them to us."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from swarm import wire_peer as wire

STRAYS = ("aria2c", "transmission-cli")


class Tracker:
    """Tells everybody who asks of one peer at most (BEP 3, BEP 23), and remembers what they said."""

    def __init__(self, host: str, peer_port: int | None) -> None:
        self.announces: list[dict[str, str]] = []
        compact = b"" if peer_port is None else socket.inet_aton(host) + peer_port.to_bytes(2, "big")
        body = wire.bencode({"interval": 1, "min interval": 1, "peers": compact})
        announces = self.announces

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query, encoding="latin-1")
                announces.append({name: values[0] for name, values in query.items()})
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(BrokenPipeError):  # they do not wait for the answer to their farewell
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self.url = f"http://{host}:{self._server.server_port}/announce"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Tracker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def stray(program: str, info_hash: bytes, tracker: Tracker, folder: Path, port: int) -> Iterator[Path]:
    """Runs it until the end of the block. Yields the folder that it downloads to."""
    magnet = f"magnet:?xt=urn:btih:{info_hash.hex()}&tr={tracker.url}"
    home, taken = folder / "home", folder / "taken"
    for each in (home, taken):
        each.mkdir(parents=True)
    command = {"aria2c": _aria2, "transmission-cli": _transmission}[program](magnet, home, taken, port)
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            command,
            env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield taken
            assert process.poll() is None, (folder / "output").read_text()
        finally:
            process.kill()
            process.wait()


def _aria2(magnet: str, home: Path, taken: Path, port: int) -> list[str]:
    options = {
        "dir": taken,
        "listen-port": port,
        "enable-dht": "false",
        "enable-dht6": "false",
        "bt-enable-lpd": "false",
        "no-conf": "true",
        "seed-time": 0,
    }
    return ["aria2c", *(f"--{name}={value}" for name, value in options.items()), magnet]


def _transmission(magnet: str, home: Path, taken: Path, port: int) -> list[str]:
    # With the encrypted handshake, which it prefers, only swarms that are loaded can be found.
    settings: dict[str, Any] = {"encryption": 0}
    settings |= {f"{name}-enabled": False for name in ("dht", "lpd", "utp", "port-forwarding")}
    (home / "settings.json").write_text(json.dumps(settings))
    return ["transmission-cli", "--config-dir", str(home), "--download-dir", str(taken), "--port", str(port), magnet]


def installed(program: str) -> bool:
    return shutil.which(program) is not None
