"""Downloads over a line with delay, loss and a rate; and where there can be none."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.bench_download.test_command import ZEST, bench, present
from zest_hf.bench.downloads import places, processes
from zest_hf.bench.downloads.line import MTU_BYTES, Line
from zest_hf.cli import main
from zest_hf.errors import ZestError


def why_not() -> str | None:
    try:
        places.check(places.congestion())
    except ZestError as error:
        return str(error)
    return None


WHY_NOT = why_not()
needs_places = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

RECEIVE = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    print(sum(map(len, iter(lambda: connection.recv(1 << 16), b""))), connection.getsockname()[0])
"""


def network() -> str:
    return os.readlink(places.NAMESPACE)


def links() -> list[dict[str, Any]]:
    """What this network has, with counts."""
    found: list[dict[str, Any]] = json.loads(subprocess.check_output(["ip", "-j", "-s", "link"]))
    return found


@needs_places
def test_packets_go_over_the_line_and_nowhere_else() -> None:
    before, size_bytes = network(), 3_000_000
    with places.two_places(Line(0.01, 0.0, 200.0, places.congestion())) as found:
        assert network() != before
        assert {link["ifname"] for link in links()} == {"lo", places.DEVICE}
        with socket.create_server((found.here, 0)) as server:

            def serve() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(bytes(size_bytes))

            thread = threading.Thread(target=serve)
            thread.start()
            command = [*found.enter, sys.executable, "-c", RECEIVE, found.here, str(server.getsockname()[1])]
            received = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
            thread.join()
        assert received.split() == [str(size_bytes), found.there]
        # Nothing was cut up on the way: as many packets as that takes at least.
        (sent,) = (link["stats64"]["tx"] for link in links() if link["ifname"] == places.DEVICE)
        assert size_bytes < sent["bytes"] <= sent["packets"] * MTU_BYTES
        assert processes.cpu_s(found.carrier) > 0
    assert network() == before
    assert processes.peak_bytes(found.carrier) == 0  # it has ended


@needs_places
def test_who_is_in_the_middle_ends_with_who_has_started_it() -> None:
    code = (
        "import sys; from zest_hf.bench.downloads import places; from zest_hf.bench.downloads.line import Line\n"
        "with places.two_places(Line(0.0, 0.0, 10.0, places.congestion())) as found:\n"
        "    print(found.carrier, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        carrier = os.pidfd_open(int(process.stdout.readline()))
        process.kill()
        process.wait()
        # A descriptor of a process can be read when that has ended.
        try:
            assert select.select([carrier], [], [], 60)[0] == [carrier]
        finally:
            os.close(carrier)


@needs_places
def test_a_download_takes_as_long_as_the_line_needs(tmp_path: Path) -> None:
    names = present(["hf_xet", "zest", "zest-peer", "libtorrent"])
    line = ("--delay-ms", 20, "--loss", 0.001, "--mbit", 50)
    figures = tmp_path / "figures.json"
    size = ("--megabytes", 2, "--runs", 1, "--files", 1, "--only", ",".join(names))
    done = bench(*size, *line, "--json", figures, "--dir", tmp_path)
    assert done.returncode == 0, done.stderr
    value = json.loads(figures.read_text())
    said = {"delay_ms": 20.0, "loss": 0.001, "mbit_s": 50.0, "queue_ms": 100.0, "congestion": places.congestion()}
    assert value["options"]["line"] == said
    assert f"over a line of 50 Mbit/s, 20 ms, 0.1 % lost, {places.congestion()};" in done.stdout
    for name in names:
        (only,) = value["cases"][name]["runs"]
        # A connection, a question, and then all bytes, one after the other.
        assert only["call_s"] > only["cdn_bytes"] * 8 / 50e6 + 2 * 0.02, name
        assert 0 < only["line_cores"] < 2, name
    assert value["cases"]["zest"]["medians"]["cdn_bytes"] > 1_000_000
    assert list(tmp_path.iterdir()) == [figures]


@needs_places
def test_ctrl_c_ends_all_of_it(tmp_path: Path) -> None:
    endless = ["--megabytes", "2", "--runs", "1000", "--only", "tcp", "--mbit", "100", "--dir", str(tmp_path)]
    command = [str(ZEST), "bench", "download", *endless]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        while "round 1 of" not in (line := process.stderr.readline()):
            assert line, "it ended before"
        below = list(processes.tree(process.pid))[1:]
        assert any(b"carrier" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in below)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: everybody is told
        assert process.wait(60) == 1
        assert process.stderr.read().splitlines()[-1] == "zest: interrupted"
    assert list(tmp_path.iterdir()) == []
    assert [pid for pid in below if processes.peak_bytes(pid)] == []


def test_what_was_measured_before_ctrl_c_is_shown(tmp_path: Path) -> None:
    endless = ["--megabytes", "2", "--runs", "1000", "--only", "tcp", "--dir", str(tmp_path)]
    figures = tmp_path / "figures.json"
    command = [str(ZEST), "bench", "download", *endless, "--json", str(figures)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        assert process.stdout is not None and process.stderr is not None
        while "round 3 of" not in (line := process.stderr.readline()):
            assert line, "it ended before"
        os.killpg(process.pid, signal.SIGINT)
        table, said = process.stdout.read(), process.stderr.read()
        assert process.wait(60) == 1
    assert said.splitlines()[-1] == "zest: interrupted"
    value = json.loads(figures.read_text())
    rounds = len(value["cases"]["tcp"]["runs"])
    assert value["options"]["runs"] == rounds >= 2
    assert f"medians of {rounds} rounds" in table
    assert list(tmp_path.iterdir()) == [figures]


def test_without_the_right_to_it_is_one_line() -> None:
    may_not = ["setpriv", "--bounding-set=-sys_admin,-net_admin", "--inh-caps=-sys_admin,-net_admin"]
    if shutil.which("ip") is None or shutil.which("setpriv") is None or not places.TUN.exists():
        pytest.skip("something else is missing")
    command = [*(may_not if os.geteuid() == 0 else []), str(ZEST), "bench", "download", "--only", "tcp", "--mbit", "9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "zest: a line needs root, for network namespaces of its own: Operation not permitted\n"


def test_without_its_programs_or_device_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(places, "TUN", tmp_path / "tun")
    if shutil.which("ip") is not None and shutil.which("nsenter") is not None:
        assert main(["bench", "download", "--only", "tcp", "--mbit", "9"]) == 1
        assert capsys.readouterr().err.startswith(f"zest: a line needs {tmp_path}/tun: modprobe tun, or ")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["bench", "download", "--only", "tcp", "--mbit", "9"]) == 1
    err = capsys.readouterr().err
    assert err == "zest: a line needs the programs ip and nsenter (Debian's iproute2, util-linux): no ip\n"


@needs_places
def test_a_way_of_tcp_that_the_system_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "download", "--only", "tcp", "--congestion", "pigeon"]) == 1
    assert "zest: --congestion is 'pigeon', this system has " in capsys.readouterr().err
