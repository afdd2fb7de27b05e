"""A hub that speaks TLS."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from zest_hf.bench.downloads.tls import Tls
from zest_hf.errors import ZestError
from zest_hf.hub.process import HubProcess

from .wire import Client, Packed


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls.issue(tmp_path_factory.mktemp("issued") / "tls", "127.0.0.1")


@pytest.fixture
def tls_hub(tls: Tls, tmp_path: Path) -> Iterator[HubProcess]:
    options = {"tls_certificate": str(tls.certificate), "tls_key": str(tls.key)}
    with HubProcess(tmp_path / "state", authority=tls.authority, **options) as hub:
        yield hub


def test_api_and_cdn_answer_over_tls(tls_hub: HubProcess, tls: Tls, packed: Packed) -> None:
    client = Client(tls_hub.endpoint)
    client.session.verify = str(tls.authority)
    client.create()
    client.upload(packed)
    assert client.fetch(f"{tls_hub.endpoint}/org/wire/resolve/main/data.bin").content == packed.content
    url, size_bytes = client.first_url(packed)
    assert url.startswith("https://127.0.0.1:")
    tls_hub.reset_stats()
    assert client.fetch(url).content == packed.body[:size_bytes]
    assert client.fetch(url, "100-299").content == packed.body[100:300]
    counts = tls_hub.stats()
    assert (counts["cdn_requests"], counts["cdn_bytes"]) == (2, size_bytes + 200)


def test_who_does_not_know_the_authority_gets_nothing(tls_hub: HubProcess) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{tls_hub.endpoint}/api/models", timeout=10)
    with pytest.raises(ZestError, match="does not answer"):
        stranger = HubProcess(tls_hub.state_dir)
        stranger.endpoint = tls_hub.endpoint
        stranger.stats()


def test_certificates_that_cannot_be_used_are_one_line(tls: Tls, tmp_path: Path) -> None:
    def line(*options: object) -> str:
        command = [sys.executable, "-m", "zest_hf.hub", "--state", str(tmp_path), "--listen", "127.0.0.1:0"]
        done = subprocess.run([*command, *map(str, options)], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        return done.stderr

    certificate, key = tls.certificate, tls.key
    assert "--tls-key are given together" in line("--tls-certificate", certificate)
    assert "--tls-key are given together" in line("--tls-key", key)
    assert "No such file" in line("--tls-certificate", tmp_path / "none", "--tls-key", key)
    assert "not a certificate and its key" in line("--tls-certificate", key, "--tls-key", key)
