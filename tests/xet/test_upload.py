"""Uploads: ours, read by the real clients, and theirs, read by us."""

from __future__ import annotations

import random
from array import array
from pathlib import Path

import hf_xet
import pytest
from hub.wire import Client

from zest_hf import upload as uploads
from zest_hf import xet
from zest_hf.cas import CasToken
from zest_hf.cas_upload import CasUploader
from zest_hf.core import dedup
from zest_hf.core.dedup import Deduplicator, Source
from zest_hf.core.ids import XetHash
from zest_hf.errors import CasError, CasForbidden, CasUnavailable, StorageError
from zest_hf.hub.process import HubProcess
from zest_hf.upload import Upload

from .conftest import RunPython, digests
from .recorder import Recorder

OURS = """
from zest_hf.cli import main
assert main(["xet", "upload", sys.argv[2], "--repo", sys.argv[1]]) == 0
"""
THEIRS = """
from huggingface_hub import HfApi
api = HfApi()
api.create_repo(sys.argv[1], exist_ok=True)
api.upload_folder(repo_id=sys.argv[1], folder_path=sys.argv[2])
"""
DOWNLOAD = """
import hashlib, pathlib
from huggingface_hub import snapshot_download
root = pathlib.Path(snapshot_download(sys.argv[1]))
files = [p for p in root.rglob("*") if p.is_file()]
report({str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files})
"""


def uploader(client: Client, **options: float) -> CasUploader:
    bearer = client.token("write")["Authorization"].removeprefix("Bearer ")
    token = CasToken(client.endpoint, bearer, 1e12)
    return CasUploader(lambda force: token, user_agent="test", **options)  # type: ignore[arg-type]


def store(client: Client, *paths: Path) -> tuple[list[uploads.UploadedFile], uploads.UploadTotals]:
    cas = uploader(client)
    with Upload(cas) as upload:
        files = [upload.add(path) for path in paths]
        totals = upload.finish()
    cas.close()
    return files, totals


def test_the_real_client_downloads_what_we_upload(hub: HubProcess, folder: Path, run_python: RunPython) -> None:
    run_python(OURS, hub.endpoint, "org/ours", str(folder))
    assert run_python(DOWNLOAD, hub.endpoint, "org/ours") == digests(folder)
    assert hub.stats()["by_route"]["GET cdn"]["bytes"] > 2_000_000
    hub.reset_stats()
    run_python(OURS, hub.endpoint, "org/again", str(folder))
    routes = hub.stats()["by_route"]
    assert "POST /v1/xorbs" not in routes and routes["GET /v1/chunks"]["statuses"]["200"] >= 1
    assert run_python(DOWNLOAD, hub.endpoint, "org/again") == digests(folder)
    hub.reset_stats()
    run_python(THEIRS, hub.endpoint, "org/theirs-after-ours", str(folder))
    assert "POST /v1/xorbs" not in hub.stats()["by_route"]


def test_what_the_real_client_sends(folder: Path, tmp_path: Path, run_python: RunPython) -> None:
    with HubProcess(tmp_path / "state") as hub, Recorder(hub.endpoint) as recorder:
        run_python(THEIRS, recorder.endpoint, "org/theirs", str(folder))
        packed = {path.rsplit("/", 1)[1]: body for method, path, body, status in recorder.bodies
                  if path.startswith("/v1/xorbs/") and status == 200}  # fmt: skip
        (sent,) = recorder.sent("/v2/shards")
        shard = xet.parse_shard(sent)
        assert shard.to_bytes() == sent
        assert list(shard.xorbs) == sorted(shard.xorbs, key=lambda one: xet.upload_order(one.xorb))
        manifests: dict[XetHash, xet.Manifest] = {}
        for name, body in packed.items():
            xorb = xet.read_xorb(body)
            assert xet.hash_to_text(xorb.hash) == name and xorb.footer is None
            manifests[xorb.hash] = xorb.manifest
        assert {one.xorb: (one.hashes, one.lengths) for one in shard.xorbs} == {
            name: (one.hashes, one.lengths) for name, one in manifests.items()
        }
        wanted = {one: name for name, one in digests(folder).items()}
        assert {wanted[file.sha256 or ""] for file in shard.files} >= {"weights.safetensors", "noise.bin"}
        for file in shard.files:
            parts = [manifests[term.xorb].slice(term.start, term.end) for term in file.terms]
            assert [xet.verification_hash(part.hashes) for part in parts] == [t.verification for t in file.terms]
            assert xet.Manifest.join(parts).file_hash() == file.file_hash
            # hf_xet's own hash of the same file, and ours.
            path = folder / wanted[file.sha256 or ""]
            assert hf_xet.hash_files([str(path)])[0].hash == xet.hash_to_text(file.file_hash)
            assert xet.hash_file(path).file_hash() == file.file_hash
        # A second upload asks, and is answered with a shard with keyed hashes, which the real client understands.
        recorder.bodies.clear()
        run_python(THEIRS, recorder.endpoint, "org/theirs-again", str(folder))
        assert not recorder.sent("/v1/xorbs") and len(recorder.sent("/v2/shards")) == 1


def test_our_shards_and_xorbs_are_like_theirs(folder: Path, tmp_path: Path, run_python: RunPython) -> None:
    """The same single file: the same xorb, the same shard, the same schemes of its chunks."""
    source = tmp_path / "single"
    source.mkdir()
    (source / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    seen = []
    for number, script in enumerate((OURS, THEIRS)):
        with HubProcess(tmp_path / f"state-{number}") as hub, Recorder(hub.endpoint) as recorder:
            run_python(script, recorder.endpoint, "org/single", str(source))
            (xorb,) = recorder.sent("/v1/xorbs")
            (shard,) = recorder.sent("/v2/shards")
            seen.append((xorb, shard))
    (xorb, shard), (their_xorb, their_shard) = seen
    assert xet.parse_shard(shard).files == xet.parse_shard(their_shard).files
    assert xet.read_xorb(xorb).hash == xet.read_xorb(their_xorb).hash
    ours, theirs = xet.chunk_table(xorb), xet.chunk_table(their_xorb)
    assert ours.schemes == theirs.schemes
    # Two LZ4 compressors do not find exactly the same matches.
    assert abs(ours.packed_bytes / theirs.packed_bytes - 1) < 0.01


def test_several_xorbs_and_shards(
    hub: HubProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_python: RunPython
) -> None:
    monkeypatch.setattr(dedup, "MAX_XORB_BYTES", 400_000)
    monkeypatch.setattr(uploads, "MAX_SHARD_RECORDS", 12)
    monkeypatch.setattr(uploads, "READ_BYTES", 200_000)
    client = Client(hub.endpoint, "org/many")
    client.create()
    source = random.Random(31)
    paths = []
    for number in range(4):
        paths.append(tmp_path / f"{number}.bin")
        paths[-1].write_bytes(source.randbytes(900_000))
    paths.append(tmp_path / "joined.bin")
    paths[-1].write_bytes(b"".join(path.read_bytes()[100_000:] for path in paths[:4]))
    files, totals = store(client, *paths)
    assert totals.xorbs > 8 and totals.shards > 2
    assert totals.total_bytes == 900_000 * 4 + 800_000 * 4 and totals.new_bytes < 900_000 * 4 + 1_200_000
    for path, file in zip(paths, files, strict=True):
        assert xet.hash_file(path).file_hash() == file.file_hash
        assert client.commit(path.name, file.sha256, file.size_bytes).status_code == 200
    wanted = {path.name: file.sha256 for path, file in zip(paths, files, strict=True)}
    assert run_python(DOWNLOAD, hub.endpoint, "org/many") == wanted


def test_faults_of_the_cas_are_survived(hub: HubProcess, tmp_path: Path) -> None:
    client = Client(hub.endpoint, "org/faulty")
    client.create()
    path = tmp_path / "file.bin"
    path.write_bytes(random.Random(41).randbytes(300_000))
    hub.fault("cas", "status", status=503, times=2)
    _, totals = store(client, path)
    assert totals.sent_bytes > 300_000
    assert store(client, path)[1].sent_bytes == 0


def test_a_read_token_cannot_upload(hub: HubProcess, tmp_path: Path) -> None:
    client = Client(hub.endpoint, "org/faulty")
    client.create()
    token = CasToken(hub.endpoint, client.token()["Authorization"].removeprefix("Bearer "), 1e12)
    cas = CasUploader(lambda force: token, user_agent="test")
    path = tmp_path / "file.bin"
    path.write_bytes(random.Random(42).randbytes(100_000))
    with pytest.raises(CasForbidden, match="a read token cannot be used"), Upload(cas) as upload:
        upload.add(path)
        upload.finish()
    cas.close()


def test_version_1_of_shards(tmp_path: Path) -> None:
    with HubProcess(tmp_path / "state", no_v2=True) as hub:
        client = Client(hub.endpoint)
        client.create()
        path = tmp_path / "file.bin"
        path.write_bytes(b"version 1")
        (file,), _ = store(client, path)
        assert client.commit("file.bin", file.sha256, 9).status_code == 200


class Memory:
    """An upload target without a network. `refuse` names calls that fail."""

    def __init__(self, refuse: str = "") -> None:
        self.refuse = refuse
        self.xorbs: dict[XetHash, bytes] = {}
        self.shards: list[xet.Shard] = []

    def query_chunk(self, chunk: XetHash) -> xet.Shard | None:
        if self.refuse == "query":
            raise CasUnavailable("no")
        for shard in self.shards:
            if any(chunk in (one.hashes[i : i + 32] for i in range(0, len(one.hashes), 32)) for one in shard.xorbs):
                return xet.Shard((), shard.xorbs).keyed(b"k" * 32, 0, 1)
        return None

    def upload_xorb(self, xorb: XetHash, data: bytes) -> bool:
        if self.refuse == "xorb":
            raise CasError("full")
        self.xorbs[xorb] = data
        return True

    def upload_shard(self, data: bytes) -> None:
        shard = xet.parse_shard(data)
        for file in shard.files:
            assert all(term.xorb in self.xorbs for term in file.terms)
        self.shards.append(shard)

    def content(self, file_hash: XetHash) -> bytes:
        file = next(file for shard in self.shards for file in shard.files if file.file_hash == file_hash)
        return b"".join(xet.unpack_xorb(self.xorbs[t.xorb], t.start, t.end)[1] for t in file.terms)


def test_deduplication_is_only_a_favour(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = Memory("query")
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 4000)
    for _ in range(2):
        with Upload(target) as upload:
            file = upload.add(path)
            assert upload.finish().sent_bytes > 0
    assert target.content(file.file_hash) == path.read_bytes()
    assert "no deduplication" in caplog.text


def test_keyed_answers_are_used_and_extended(tmp_path: Path) -> None:
    target = Memory()
    first, second = tmp_path / "first", tmp_path / "second"
    source = random.Random(51)
    content = source.randbytes(1_500_000)
    first.write_bytes(content)
    second.write_bytes(content[:1_000_000] + source.randbytes(500_000))
    for path in (first, second):
        with Upload(target) as upload:
            file = upload.add(path)
            totals = upload.finish()
        assert target.content(file.file_hash) == path.read_bytes()
    assert totals.new_bytes < 700_000 and totals.queries >= 1


def test_a_failed_xorb_ends_the_upload(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with pytest.raises(CasError, match="full"), Upload(Memory("xorb")) as upload:
        upload.add(path)
        upload.finish()


def test_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    with pytest.raises(StorageError, match="changed while"), Upload(Memory()) as upload:
        upload.add(path, lambda count: path.write_bytes(bytes(2000)) if path.stat().st_size == 1000 else None)


def test_crumbs_are_stored_again_rather_than_referred_to() -> None:
    def pieces(numbers: list[int]) -> list[xet.Chunk]:
        return [xet.Chunk(0, data, XetHash(xet.chunk_hash(data))) for data in (b"%d" % n for n in numbers)]

    sealed: list[Source] = []
    plan = Deduplicator(sealed.append)
    plan.add(pieces(list(range(5000))))
    plan.end_file("00" * 32)
    # Every other chunk is known.
    plan.add(pieces([n if n % 2 else 10**6 + n for n in range(3000)]))
    plan.end_file("11" * 32)
    plan.flush()
    shard = plan.take_shard()
    assert shard is not None and plan.take_shard() is None
    first, second = sorted(shard.files, key=lambda file: len(file.terms))
    assert len(first.terms) == 1
    assert 100 < len(second.terms) < 1000, "not the 3000 that every match would make"
    known = {one.xorb: xet.Manifest(one.hashes, one.lengths) for one in shard.xorbs}
    for file in shard.files:
        parts = [known[term.xorb].slice(term.start, term.end) for term in file.terms]
        assert xet.Manifest.join(parts).file_hash() == file.file_hash
    assert [len(one.lengths) for one in sealed] == [len(sealed[0].lengths)]
    assert isinstance(sealed[0].lengths, array)
