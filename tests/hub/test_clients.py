"""The real clients against the hub: huggingface_hub, hf_xet and the hf command, in fresh interpreters."""

from __future__ import annotations

import hashlib
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from zest_hf.hub.process import HubProcess

from .conftest import RunPython
from .wire import Client, Packed

pytest.importorskip("hf_xet")
pytest.importorskip("huggingface_hub")

UPLOAD = """
from huggingface_hub import HfApi
repo, folder, kind = sys.argv[1:4]
api = HfApi()
url = api.create_repo(repo, exist_ok=True, repo_type=kind, space_sdk="static" if kind == "space" else None)
commit = api.upload_folder(repo_id=repo, folder_path=folder, repo_type=kind)
report({"url": str(url), "oid": commit.oid})
"""
DOWNLOAD = """
import hashlib, os, pathlib
from huggingface_hub import snapshot_download
root = pathlib.Path(snapshot_download(sys.argv[1], repo_type=sys.argv[2]))
files = [p for p in root.rglob("*") if p.is_file()]
report({str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files})
"""
FILES = """
import hashlib
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
repo = sys.argv[1]
fs = HfFileSystem()
with fs.open(f"{repo}/weights.safetensors", "rb") as file:
    file.seek(1_000_003)
    middle = file.read(1000)
names = []
for call in (
    lambda: hf_hub_download(repo, "none.bin"),
    lambda: hf_hub_download(repo, "weights.safetensors", revision="none"),
    lambda: HfApi().model_info("org/none"),
):
    try:
        call()
    except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        names.append(type(error).__name__)
path = hf_hub_download(repo, "weights.safetensors")
report({
    "ls": sorted(fs.ls(repo, detail=False)),
    "sub": fs.cat_file(f"{repo}/sub dir/text.txt").decode(),
    "middle": hashlib.sha256(middle).hexdigest(),
    "errors": names,
    "file": hashlib.sha256(open(path, "rb").read()).hexdigest(),
    "info": [s.rfilename for s in HfApi().model_info(repo).siblings],
    "listed": HfApi().list_repo_files(repo),
    "user": HfApi().whoami()["name"],
    "paths": [p.path for p in HfApi().get_paths_info(repo, ["random.bin", "sub dir", "none"])],
})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder")
    generator = random.Random(11)
    weights = (struct.pack("<f", generator.gauss(0, 0.02))[2:] for _ in range(1_000_000))
    (root / "weights.safetensors").write_bytes(b"".join(weights))
    (root / "random.bin").write_bytes(generator.randbytes(3_000_000))
    (root / "README.md").write_text("---\nlicense: mit\n---\n# text\n")
    (root / "empty.bin").write_bytes(b"")
    (root / "one.bin").write_bytes(b"\0")
    (root / "sub dir").mkdir()
    (root / "sub dir" / "text.txt").write_text("hellö")
    return root


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def served(
    shared_hub: HubProcess, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[HubProcess, str]:
    """The folder in a model repository, uploaded by the hf command."""
    home = str(tmp_path_factory.mktemp("home"))
    environment = os.environ | {"HF_ENDPOINT": shared_hub.endpoint, "HF_TOKEN": "any", "HF_HOME": home}
    hf = str(Path(sys.executable).with_name("hf"))
    subprocess.run(
        [hf, "upload", "org/folder", str(folder)], env=environment, check=True, capture_output=True
    )
    return shared_hub, "org/folder"


def test_snapshot_download_over_xet(
    hub: HubProcess, served: tuple[HubProcess, str], folder: Path, run_python: RunPython
) -> None:
    assert run_python(DOWNLOAD, hub.endpoint, served[1], "model") == digests(folder)
    routes = hub.stats()["by_route"]
    assert routes["GET cdn"]["bytes"] > 4_000_000
    assert routes["GET /v2/reconstructions"]["requests"] >= 3


def test_snapshot_download_without_xet(
    hub: HubProcess, served: tuple[HubProcess, str], folder: Path, run_python: RunPython
) -> None:
    got = run_python(DOWNLOAD, hub.endpoint, served[1], "model", HF_HUB_DISABLE_XET="1")
    assert got == digests(folder)
    assert hub.stats()["cdn_requests"] == 0


def test_files_file_system_and_errors(
    hub: HubProcess, served: tuple[HubProcess, str], folder: Path, run_python: RunPython
) -> None:
    got = run_python(FILES, hub.endpoint, served[1])
    wanted = digests(folder)
    middle = (folder / "weights.safetensors").read_bytes()[1_000_003:1_001_003]
    assert got["listed"] == got["info"] == sorted(wanted)
    assert got["ls"] == sorted({f"{served[1]}/{name.split('/')[0]}" for name in wanted})
    assert got["middle"] == hashlib.sha256(middle).hexdigest()
    assert got["file"] == wanted["weights.safetensors"]
    assert got["errors"] == ["RemoteEntryNotFoundError", "RevisionNotFoundError", "RepositoryNotFoundError"]
    assert (got["sub"], got["user"], got["paths"]) == ("hellö", "zest", ["random.bin", "sub dir"])


def test_the_hf_command_downloads(
    hub: HubProcess, served: tuple[HubProcess, str], folder: Path, tmp_path: Path
) -> None:
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    hf = str(Path(sys.executable).with_name("hf"))
    command = [hf, "download", served[1], "--local-dir", str(tmp_path / "out")]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    got = {k: v for k, v in digests(tmp_path / "out").items() if not k.startswith(".cache")}
    assert got == digests(folder)


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_other_kinds_of_repository(hub: HubProcess, folder: Path, run_python: RunPython, kind: str) -> None:
    done = run_python(UPLOAD, hub.endpoint, "org/folder", str(folder), kind)
    assert done["url"] == f"{hub.endpoint}/{kind}s/org/folder"
    if kind == "dataset":
        assert run_python(DOWNLOAD, hub.endpoint, "org/folder", kind) == digests(folder)


def test_what_is_stored_already_is_not_sent_again(
    hub: HubProcess, served: tuple[HubProcess, str], folder: Path, run_python: RunPython
) -> None:
    run_python(UPLOAD, hub.endpoint, "org/again", str(folder), "model")
    stats = hub.stats()
    assert stats["by_route"]["GET /v1/chunks"]["statuses"]["200"] >= 1
    assert "POST /v1/xorbs" not in stats["by_route"]
    first, second = (Client(hub.endpoint, repo) for repo in ("org/folder", "org/again"))
    assert tree_hashes(first) == tree_hashes(second)


def tree_hashes(client: Client) -> dict[str, str]:
    rows = client.session.get(f"{client.endpoint}/api/models/{client.repo}/tree/main?recursive=true").json()
    return {row["path"]: row.get("xetHash", row["oid"]) for row in rows}


def test_version_1_and_redirects(folder: Path, tmp_path: Path, run_python: RunPython) -> None:
    with HubProcess(tmp_path / "state", no_v2=True, redirect_cdn=True, exact_ranges=True) as hub:
        run_python(UPLOAD, hub.endpoint, "org/one", str(folder), "model")
        assert run_python(DOWNLOAD, hub.endpoint, "org/one", "model") == digests(folder)
        routes = hub.stats()["by_route"]
        assert routes["POST /v2/shards"]["statuses"] == {"404": 1}
        assert "200" in routes["GET /v1/reconstructions"]["statuses"]
        assert "302" in routes["GET cdn"]["statuses"]


def test_folded_ranges_and_one_listener(tmp_path: Path, packed: Packed, run_python: RunPython) -> None:
    with HubProcess(tmp_path / "state", multi_range=True, cdn_listen=False) as hub:
        client = Client(hub.endpoint)
        client.create()
        client.upload(packed)
        whole = client.upload_parts(packed, [(9, 11), (0, 2), (4, 5), (0, 1)], "parts.bin")
        wanted = {"data.bin": packed.sha256, "parts.bin": whole.sha256}
        assert run_python(DOWNLOAD, hub.endpoint, "org/wire", "model") == wanted
        (entries,) = client.reconstruction(whole).json()["xorbs"].values()
        assert [len(entry["ranges"]) for entry in entries] == [3]


def test_hf_xet_recovers_from_faults(
    hub: HubProcess, served: tuple[HubProcess, str], folder: Path, run_python: RunPython
) -> None:
    hub.fault("cdn", "expire", times=1)
    hub.fault("cas", "latency", seconds=0.05)
    assert run_python(DOWNLOAD, hub.endpoint, served[1], "model") == digests(folder)
    assert hub.stats()["by_route"]["GET cdn"]["statuses"]["403"] == 1
