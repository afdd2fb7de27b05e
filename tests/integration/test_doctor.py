"""`zest doctor`: what is well, what is wrong, and whom it asks about it."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from machines import Machine
from swarm.trackers import opentracker, opentracker_program

from zest_hf.doctor.finding import Finding, ok, run_all
from zest_hf.hub.process import HubProcess

from .conftest import OWNER

Checks = dict[str, dict[str, str]]


def diagnosis(machine: Machine, *arguments: str, code: int, **environ: str | None) -> Checks:
    run = machine.command("zest", "doctor", "--json", *arguments, **environ)
    assert run.code == code and run.stderr == "", run
    answer: dict[str, Any] = json.loads(run.stdout)
    assert answer["ok"] == (code == 0)
    checks: Checks = answer["checks"]
    for name, check in checks.items():
        assert check["advice"] or check["verdict"] != "wrong", name
    return checks


def of(checks: Checks, verdict: str) -> set[str]:
    return {name for name, check in checks.items() if check["verdict"] == verdict}


def test_all_is_well(hub: HubProcess, owner: Machine) -> None:
    with owner.seeder() as seeder:
        checks = diagnosis(owner, "--repo", "org/model", code=0, HF_TOKEN=OWNER, ZEST_LISTEN=seeder.address)
        assert of(checks, "note") <= {"disk"} and of(checks, "skipped") == {"local network", "DHT"}
        assert checks["Hub"]["text"] == f"{hub.endpoint} answers"
        assert "the Hub accepts it" in checks["token"]["text"]
        assert "answers" in checks["CAS"]["text"]
        assert "2 large files, 6.3 MB" in checks["cache"]["text"]
        for name in ("seeder", "port for peers"):
            assert f"process {seeder.process.pid}" in checks[name]["text"]
        text = owner.command("zest", "doctor", HF_TOKEN=OWNER, ZEST_MAX_UP="1MB").stdout
    assert "ZEST_MAX_UP" in text and "1000000" in text and "environment" in text
    assert OWNER not in text and "\x1b" not in text
    assert text.splitlines()[-1] == "Nothing is wrong that stops downloads or seeding."


def test_settings_and_their_sources(machine: Machine) -> None:
    home = machine.home / "zest"
    home.mkdir(parents=True)
    (home / "config.toml").write_text('max_up = "2MB"\nswarm_key = "very secret"\n')
    run = machine.command("zest", "doctor", "--json")
    settings = json.loads(run.stdout)["settings"]
    assert settings["ZEST_MAX_UP"] == {"value": "2000000", "source": "config.toml"}
    assert settings["ZEST_SWARM_KEY"] == {"value": "set", "source": "config.toml"}
    assert settings["ZEST_LSD"] == {"value": "off", "source": "environment"}
    assert settings["ZEST_MAX_DOWN"] == {"value": "none", "source": "default"}
    assert "very secret" not in run.stdout
    (home / "config.toml").write_text("nonsense = 1\n")
    wrong = machine.command("zest", "doctor")
    assert (wrong.code, len(wrong.stderr.splitlines())) == (1, 1) and "nonsense" in wrong.stderr


def test_what_is_wrong(hub: HubProcess, machine: Machine, nobody: str) -> None:
    (machine.root / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = f"127.0.0.1:{server.getsockname()[1]}"
        checks = diagnosis(
            machine,
            *("--repo", "org/secret"),
            code=1,
            HF_TOKEN="hf_wrong",
            ZEST_HOME=str(machine.root / "file" / "zest"),
            HF_HUB_CACHE=str(machine.root / "file" / "hub"),
            ZEST_LISTEN=taken,
            ZEST_STATUS=taken,
            HF_HUB_ENABLE_ZEST=None,
        )
    expected = {"ZEST_HOME", "cache", "port for peers", "port of the page", "token", "CAS"}
    assert of(checks, "wrong") == expected
    assert "HF_HUB_ENABLE_ZEST=1" in checks["switch"]["advice"]
    # A stranger who has the port that may give way is no harm; a Hub that is not there is.
    checks = diagnosis(machine, "--repo", "org/model", code=1, HF_ENDPOINT=f"http://{nobody}")
    assert of(checks, "wrong") == {"Hub", "CAS"} and nobody in checks["Hub"]["text"]
    assert of(diagnosis(machine, code=1, HF_HUB_DISABLE_XET="1"), "wrong") == {"hook"}


def test_a_store_that_does_not_answer(hub: HubProcess, machine: Machine) -> None:
    hub.fault("cas", "status", status=503, match="reconstructions")
    began_s = time.monotonic()
    checks = diagnosis(machine, "--repo", "org/model", code=1)
    assert of(checks, "wrong") == {"CAS"}
    assert time.monotonic() - began_s < 12


@pytest.mark.skipif(opentracker_program() is None, reason="opentracker is not installed")
def test_trackers(machine: Machine, nobody: str) -> None:
    with (
        opentracker([]) as port,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as liar,
    ):
        silent.bind(("127.0.0.1", 0))
        liar.bind(("127.0.0.1", 0))
        good = [f"http://127.0.0.1:{port}/announce", f"udp://127.0.0.1:{port}/announce"]
        bad = [f"http://{nobody}/announce", f"udp://127.0.0.1:{silent.getsockname()[1]}"]
        checks = diagnosis(machine, code=0, ZEST_TRACKERS=",".join(good + bad))
        for url in good:
            assert checks[f"tracker {url}"]["verdict"] == "ok", checks
        for url in bad:
            assert checks[f"tracker {url}"]["verdict"] == "note", checks
        # One datagram that names no swarm: the magic number, "connect", and a number of its own.
        silent.setblocking(False)
        assert silent.recv(100)[:12] == bytes.fromhex("0000041727101980") + bytes(4)
        with pytest.raises(BlockingIOError):
            silent.recv(100)


def test_offline_nobody_is_asked(hub: HubProcess, machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tracker:
        tracker.setblocking(False)
        url = f"http://127.0.0.1:{tracker.getsockname()[1]}/announce"
        environ = {"HF_HUB_OFFLINE": "1", "ZEST_TRACKERS": url, "ZEST_DHT": "on", "ZEST_LSD": "on", "HF_TOKEN": OWNER}
        checks = diagnosis(machine, "--repo", "org/model", code=0, **environ)
        assert of(checks, "skipped") == {"Hub", "token", "CAS", "local network", "DHT", f"tracker {url}"}
        with pytest.raises(BlockingIOError):
            tracker.accept()
    assert hub.stats()["hub_requests"] == 0


def test_where_the_native_module_does_not_load(machine: Machine) -> None:
    site = machine.root / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import sys; sys.modules['zest_hf._native._zest'] = None\n")
    checks = diagnosis(machine, "--repo", "org/model", code=1, PYTHONPATH=str(site), ZEST_DHT="on")
    assert "does not load" in checks["native module"]["text"]
    assert checks["port for peers"]["verdict"] == checks["Hub"]["verdict"] == "ok"


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours(machine: Machine, no_color: str, coloured: bool) -> None:
    """On a terminal, unless it is told otherwise."""
    ours, its = pty.openpty()
    environ = machine.environ | {"NO_COLOR": no_color, "TERM": "xterm", "HF_HUB_OFFLINE": "1"}
    program = Path(sys.executable).parent / "zest"
    with subprocess.Popen([str(program), "doctor"], stdin=its, stdout=its, stderr=its, env=environ) as process:
        os.close(its)
        text = b""
        try:
            while part := os.read(ours, 65536):
                text += part
        except OSError:  # that is how a terminal whose last user has gone says so
            pass
        os.close(ours)
        assert process.wait() == 0
    assert (b"\x1b[" in text) == coloured and b"native module" in text


def test_checks_that_hang_or_fail() -> None:
    never = threading.Event()

    def hangs() -> Finding:
        never.wait()
        return ok("at last")

    def fails() -> Finding:
        raise RuntimeError("two\nlines")

    found = run_all({"hangs": hangs, "fails": fails, "well": lambda: ok("fine")}, 0.2)
    assert {name: finding.verdict for name, finding in found.items()} == {
        "hangs": "wrong",
        "fails": "wrong",
        "well": "ok",
    }
    assert found["fails"].text == "two lines"
    never.set()
