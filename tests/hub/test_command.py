from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from zest_hf.errors import ConfigError, ZestError
from zest_hf.hub.command import parse_address
from zest_hf.hub.process import HubProcess

from .wire import Client, Packed


def run_hub(*arguments: str, code: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(["-c", code] if code else ["-m", "zest_hf.hub"]), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, env=os.environ | environment)


def test_state_outlives_the_process(tmp_path: Path, packed: Packed) -> None:
    hub = HubProcess(tmp_path / "state")
    with hub:
        client = Client(hub.endpoint)
        client.create()
        client.upload(packed)
        token = client.token()
    begun_s = time.monotonic()
    with hub:
        started_s = time.monotonic() - begun_s
        client = Client(hub.endpoint)
        assert client.fetch(f"{hub.endpoint}/org/wire/resolve/main/data.bin").content == packed.content
        url = client.first_url(packed)[0]
        assert client.fetch(url).content == packed.body
        assert requests.get(f"{hub.endpoint}/v1/chunks/default/{'00' * 32}", headers=token).status_code == 404
    assert started_s < 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_hub_cleanly_even_while_it_sends(
    tmp_path: Path, packed: Packed, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "zest_hf.hub", "--state", str(tmp_path), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--cdn-listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(rf"zest hub listening on (http://127\.0\.0\.1:\d+), state in {tmp_path}\n", line)
    assert found
    client = Client(found[1])
    client.create()
    client.upload(packed)
    requests.post(f"{found[1]}/_faults", json={"route": "cdn", "kind": "stall"})
    stalled = client.fetch(client.first_url(packed)[0], stream=True)
    begun_s = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=5)
    assert time.monotonic() - begun_s < 2
    assert (process.returncode, out, err) == (0, "", "")
    stalled.close()


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for option in ("--listen", "--cdn-listen"):
            first = [] if option == "--listen" else ["--listen", "127.0.0.1:0"]
            done = run_hub("--state", str(tmp_path), *first, option, address)
            assert (done.returncode, done.stdout) == (1, "")
            hint = f"choose another address with {option}"
            assert done.stderr == f"zest hub: cannot listen on {address}: Address already in use; {hint}\n"


def test_one_hub_per_state_directory(tmp_path: Path) -> None:
    with HubProcess(tmp_path):
        done = run_hub("--state", str(tmp_path), "--listen", "127.0.0.1:0")
        assert done.returncode == 1
        assert done.stderr == f"zest hub: another hub is using the state directory {tmp_path}\n"


def test_an_unusable_state_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run_hub("--state", str(tmp_path / "file"), "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert done.stderr.startswith("zest hub: the state directory")
    assert done.stderr.count("\n") == 1


def test_a_missing_library_names_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'httptools' else find(name, *a)\n"
        "from zest_hf.hub.__main__ import main; sys.exit(main())"
    )
    done = run_hub("--state", str(tmp_path), code=code)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "zest hub needs httptools: pip install 'zest_hf[hub]'\n"


@pytest.mark.parametrize("text", ["", "host", "host:", "host:99999", "host:x", ":-1"])
def test_bad_addresses_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--listen"):
        parse_address(text, "--listen")


def test_addresses() -> None:
    assert parse_address("0.0.0.0:80", "--listen") == ("0.0.0.0", 80)
    assert parse_address("[::1]:80", "--listen") == ("::1", 80)
    assert parse_address("8930", "--listen") == ("127.0.0.1", 8930)


def test_a_hub_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZestError, match="exit code 1"):
        HubProcess(tmp_path, listen="127.0.0.1:x").start()


def test_urls_follow_the_name_the_client_used(tmp_path: Path, packed: Packed) -> None:
    with HubProcess(tmp_path) as hub:
        client = Client(hub.endpoint.replace("127.0.0.1", "localhost"))
        client.create()
        client.upload(packed)
        url, _ = client.first_url(packed)
        assert url.startswith("http://localhost:")
        assert client.fetch(url).content == packed.body
