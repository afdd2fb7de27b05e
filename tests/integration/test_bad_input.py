"""Broken answers, broken peers and a full disk, as users of the hook meet them.

Whatever happens: the right file or a clear error, never a wrong or partial file under a final name.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from machines import Console, Machine, Run

from zest_hf.hub.process import HubProcess

from .conftest import PARTS, SNAPSHOT, XET_BYTES, MakeMachine, snapshot

LIMIT_S = 20.0
SIZE = len(PARTS["part0.bin"])


def code_for(name: str) -> str:
    return f"""
import huggingface_hub as hub, zest_hf
before = zest_hf.status()["bytes"]
path = hub.hf_hub_download("org/parts", {name!r})
show(path=path, **{{key: value - before[key] for key, value in zest_hf.status()["bytes"].items() if key in before}})
"""


class Downloads:
    """One interpreter with the hook on that gets one file after the other."""

    def __init__(self, console: Console, machine: Machine) -> None:
        self._console, self._machine = console, machine
        self._names = iter(PARTS)

    def next(self) -> tuple[Run, str]:
        """The next file and its name: it is right, came soon, and at most one line says what went wrong."""
        name = next(self._names)
        began_s = time.monotonic()
        run = self._console.run(code_for(name))
        assert time.monotonic() - began_s < LIMIT_S
        check(self._machine, run, name)
        return run, name

    def next_by_the_hub(self, reason: str) -> None:
        """The next file: one line says why, and the Hub's own download brings it."""
        run, name = self.next()
        assert run.shown["total"] == 0
        (line,) = run.stderr.splitlines()
        assert line.startswith("zest_hf: ") and reason in line and len(line) < 300, line
        assert line.endswith(f"; using the normal download for {name}")


def check(machine: Machine, run: Run, name: str) -> None:
    assert run.code == 0, run.stderr
    assert Path(run.shown["path"]).read_bytes() == PARTS[name]
    assert run.stderr.count("\n") <= 1 and "Traceback" not in run.stderr, run.stderr
    assert machine.left_behind() == []


def download(machine: Machine, **environ: str | None) -> Run:
    """One file on a machine of its own, with the same promises."""
    began_s = time.monotonic()
    run = machine.python(code_for("part0.bin"), **environ)
    assert time.monotonic() - began_s < LIMIT_S
    check(machine, run, "part0.bin")
    return run


@pytest.fixture
def downloads(machine: Machine) -> Iterator[Downloads]:
    with machine.console() as console:
        yield Downloads(console, machine)


# --- the CAS ---------------------------------------------------------------------------------------------------------


def test_refusals_of_the_cas(hub: HubProcess, downloads: Downloads) -> None:
    # As often as zest_hf asks: the second time for a new token, or for the older form of the plan.
    for status, times in ((401, 2), (403, 1), (404, 2), (416, 1), (501, 2), (418, 1)):
        hub.fault("cas", "status", status=status, times=times, match="reconstructions")
        downloads.next_by_the_hub(f"{status}")
    hub.fault("cas", "garbage", times=1, match="reconstructions")
    downloads.next_by_the_hub("not JSON")


def test_troubles_of_the_cas_that_pass(hub: HubProcess, downloads: Downloads) -> None:
    faults: tuple[tuple[str, dict[str, float]], ...] = (
        ("status", {"status": 401}),
        ("status", {"status": 503}),
        ("status", {"status": 429, "retry_after": 1}),
        ("expire", {}),
        ("truncate", {"after_bytes": 20}),
    )
    for kind, parameters in faults:
        hub.fault("cas", kind, times=1, match="reconstructions", **parameters)
        run, _ = downloads.next()
        assert (run.shown["cdn"], run.stderr) == (SIZE, ""), kind


Change = Callable[[dict[str, Any]], None]


def longer_term(plan: dict[str, Any]) -> None:
    plan["terms"][0]["unpacked_length"] += 1


def shifted_terms(plan: dict[str, Any]) -> None:
    plan["terms"][0]["range"]["start"] += 1


def offset(plan: dict[str, Any]) -> None:
    plan["offset_into_first_range"] = 5


def no_urls(plan: dict[str, Any]) -> None:
    for name in ("xorbs", "fetch_info"):
        plan.pop(name, None)


def other_xorb(plan: dict[str, Any]) -> None:
    plan["terms"][0]["hash"] = "f" * 64


def not_a_plan(plan: dict[str, Any]) -> None:
    plan.clear()
    plan.update(terms=[[]], xorbs={"": [None]})


def endless_ranges(plan: dict[str, Any]) -> None:
    for parts in plan["xorbs"].values():
        for part in parts:
            for one in part["ranges"]:
                one["bytes"]["end"] = 1 << 62


def short_ranges(plan: dict[str, Any]) -> None:
    for parts in plan["xorbs"].values():
        for part in parts:
            for one in part["ranges"]:
                one["bytes"]["end"] -= 100


def test_a_plan_that_contradicts_itself(hub: HubProcess, machine: Machine) -> None:
    changes = [longer_term, shifted_terms, offset, no_urls, other_xorb, not_a_plan, endless_ranges, short_ranges]
    with rewriting(hub, changes) as endpoint, machine.console(HF_ENDPOINT=endpoint) as console:
        downloads = Downloads(console, machine)
        while changes:
            downloads.next_by_the_hub("")
            changes.pop(0)


@contextmanager
def rewriting(hub: HubProcess, changes: Sequence[Change]) -> Iterator[str]:
    """A Hub whose CAS is wrong when zest_hf asks, in the first way of ``changes``; all else is ``hub``'s."""
    to_host = urlsplit(hub.endpoint).netloc

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {k: v for k, v in self.headers.items() if k.lower() != "accept-encoding"}
            connection = http.client.HTTPConnection(to_host, timeout=LIMIT_S)
            with contextlib.closing(connection):
                connection.request(self.command, self.path, headers=headers)
                answer = connection.getresponse()
                body = answer.read()
                if "/reconstructions/" in self.path and "zest_hf" in self.headers["user-agent"]:
                    plan = json.loads(body)
                    changes[0](plan)
                    body = json.dumps(plan).encode()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                length = answer.getheader("content-length") if self.command == "HEAD" else str(len(body))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# --- the CDN ---------------------------------------------------------------------------------------------------------


def test_troubles_of_the_cdn_that_pass(hub: HubProcess, downloads: Downloads) -> None:
    faults: tuple[tuple[str, dict[str, float], int], ...] = (
        ("status", {"status": 503}, 1),
        ("status", {"status": 403}, 1),
        ("expire", {}, 1),
        ("truncate", {"after_bytes": 100_003}, 2),
        ("truncate", {"after_bytes": 0}, 1),
    )
    for kind, parameters, times in faults:
        hub.fault("cdn", kind, times=times, **parameters)
        run, _ = downloads.next()
        assert (run.shown["cdn"], run.stderr) == (SIZE, ""), kind


def test_wrong_bytes_of_the_cdn(hub: HubProcess, downloads: Downloads) -> None:
    for place in (0, 3, 7, 12, 123_456):
        # The files lie in one xorb in an order that is not ours to know.
        for number in range(len(PARTS)):
            hub.fault("cdn", "corrupt", offset=number * SIZE + place, times=1)
        run, _ = downloads.next()
        assert (run.shown["cdn"], run.stderr) == (SIZE, ""), place
        hub.clear_faults()
    hub.fault("cdn", "garbage", times=1)
    downloads.next_by_the_hub("the server ignores Range")


# --- peers -----------------------------------------------------------------------------------------------------------


def sends_garbage(connection: socket.socket) -> None:
    connection.sendall(os.urandom(100_000))
    connection.recv(1)


def stays_silent(connection: socket.socket) -> None:
    while connection.recv(1000):
        pass


def hangs_up(connection: socket.socket) -> None:
    connection.close()


def shakes_hands_and_stays_silent(connection: socket.socket) -> None:
    hello = connection.recv(68, socket.MSG_WAITALL)
    connection.sendall(hello[:48] + b"-XX0000-" + os.urandom(12))
    stays_silent(connection)


def shakes_hands_and_sends_garbage(connection: socket.socket) -> None:
    hello = connection.recv(68, socket.MSG_WAITALL)
    connection.sendall(hello[:48] + b"-XX0000-" + os.urandom(12))
    sends_garbage(connection)


BEHAVIOURS = (
    sends_garbage,
    stays_silent,
    hangs_up,
    shakes_hands_and_stays_silent,
    shakes_hands_and_sends_garbage,
)


@contextmanager
def peer(behaviour: Callable[[socket.socket], None]) -> Iterator[str]:
    """Somebody who accepts every connection and is no peer."""
    server = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def handle(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            behaviour(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connections.append(server.accept()[0])
                threading.Thread(target=handle, args=(connections[-1],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        for one in (server, *connections):
            one.close()


def test_peers_that_are_none(hub: HubProcess, make: MakeMachine, nobody: str) -> None:
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        addresses = {behaviour.__name__: stack.enter_context(peer(behaviour)) for behaviour in BEHAVIOURS}
        addresses["nobody"] = nobody
        addresses["unknown name"] = "no-such-host.invalid:6881"
        runs = {
            name: pool.submit(download, make(name), ZEST_PEERS=address) for name, address in addresses.items()
        }
    for name, run in runs.items():
        assert run.result().shown["cdn"] == SIZE, name
        assert all(line.startswith("zest_hf: ") for line in run.result().stderr.splitlines())


def test_a_good_peer_among_bad_ones(hub: HubProcess, owner: Machine, machine: Machine, nobody: str) -> None:
    with contextlib.ExitStack() as stack:
        addresses = [stack.enter_context(peer(behaviour)) for behaviour in BEHAVIOURS]
        seeder = stack.enter_context(owner.seeder())
        seeder.wait_for_files(2)
        run = snapshot(machine, ZEST_PEERS=",".join([nobody, *addresses, seeder.address]))
        assert run.shown["peer"] == XET_BYTES and hub.stats()["cdn_bytes"] == 0
        assert run.stderr.count("\n") <= 1, run.stderr


# --- the disk --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for half of the model."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={XET_BYTES // 2}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk(hub: HubProcess, make: MakeMachine, small_disk: Path) -> None:
    a = make("A")
    a.home = small_disk / "home"
    a.environ["HF_HOME"] = str(a.home)
    run = a.python(f"REPO = 'org/model'\ntry: exec({SNAPSHOT!r})\nexcept OSError as error: show(errno=error.errno)")
    assert run.shown["errno"] == 28, run.stderr
    # The index lies on the same disk: whether it found room before the files filled it is a matter of time.
    assert all(": the disk is full; " in line and "no index" in line for line in run.warnings)
    assert len(run.warnings) <= 1
    pull = a.command("zest", "pull", "org/model")
    assert pull.code == 1 and "the disk is full" in pull.stderr.splitlines()[-1], pull.stderr
    assert "Traceback" not in pull.stderr
    names = {path.name for path in a.home.rglob("*") if path.is_file()}
    assert "model.safetensors" not in names and not [name for name in names if name.endswith(".incomplete")]


def test_an_index_that_cannot_be_used_is_said_once(machine: Machine) -> None:
    (machine.root / "file").touch()
    run = snapshot(machine, ZEST_HOME=str(machine.root / "file" / "zest"))
    (line,) = run.stderr.splitlines()
    assert line.startswith("zest_hf: ") and "set ZEST_HOME to a writable directory" in line


def test_no_room_for_the_index(hub: HubProcess, machine: Machine, small_disk: Path) -> None:
    with (small_disk / "full").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    run = download(machine, ZEST_HOME=str(small_disk / "zest"))
    assert run.shown["cdn"] == SIZE
