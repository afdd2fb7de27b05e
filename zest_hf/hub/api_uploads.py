"""Uploads as the Hub sees them: which way a file goes, and commits."""

from __future__ import annotations

import binascii
import codecs
from base64 import b64decode
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from zest_hf.core.ids import hash_to_text
from zest_hf.hub.api_common import repo_of, repo_url, revision_of
from zest_hf.hub.http import Refusal, parse_json_object
from zest_hf.hub.repos import Entry, Repo, check_path, moved, xet_entry
from zest_hf.hub.state import Hub

# Above this a file goes into xorbs however it looks; the limit of the client for small files is 5 MB.
LARGE_FILE_BYTES = 1 << 20
_XET_SUFFIXES = [
    ".7z",
    ".arrow",
    ".bin",
    ".bz2",
    ".ckpt",
    ".ftz",
    ".gguf",
    ".gz",
    ".h5",
    ".joblib",
    ".mlmodel",
    ".model",
    ".msgpack",
    ".npy",
    ".npz",
    ".onnx",
    ".ot",
    ".parquet",
    ".pb",
    ".pickle",
    ".pkl",
    ".pt",
    ".pth",
    ".rar",
    ".safetensors",
    ".tar",
    ".tflite",
    ".tgz",
    ".wasm",
    ".xz",
    ".zip",
    ".zst",
    ".png",
    ".jpg",
    ".jpeg",
    ".gif",
    ".webp",
    ".mp3",
    ".mp4",
    ".wav",
    ".flac",
    ".pdf",
]


def _upload_mode(path: str, size_bytes: int, sample: bytes) -> str:
    """Text that people read in a browser stays a regular file, everything else goes into xorbs."""
    if size_bytes > LARGE_FILE_BYTES or path.lower().endswith(tuple(_XET_SUFFIXES)) or b"\0" in sample:
        return "lfs"
    try:
        # The sample may end inside a character.
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return "lfs"
    return "regular"


def preupload(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    repo = repo_of(request, hub, rest, write=True)
    head = hub.repos.commit_of(repo, revision_of(rest))
    existing = head.entries()
    files = parse_json_object(body, "the request").get("files")
    if not isinstance(files, list):
        raise Refusal(400, "preupload needs a list of files")
    rows = []
    for file in files:
        path = check_path(file.get("path") if isinstance(file, dict) else None)
        size_bytes = file.get("size")
        if not isinstance(size_bytes, int) or size_bytes < 0:
            raise Refusal(400, f"the size of {path} is missing")
        mode = _upload_mode(path, size_bytes, _base64(file.get("sample", ""), path))
        entry = existing.get(path)
        oid = None if entry is None else entry.sha256 or entry.oid
        rows.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return JSONResponse({"files": rows, "commitOid": head.sha})


def _base64(text: object, path: str) -> bytes:
    try:
        return b64decode(text if isinstance(text, str) else "", validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(400, f"the content of {path} is not base64") from None


def commit(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    repo = repo_of(request, hub, rest, write=True)
    if "create_pr" in request.query_params:
        raise Refusal(501, "this hub has no pull requests: commit to a branch")
    header: dict[str, Any] | None = None
    changes: dict[str, Entry | None] = {}
    known = hub.repos.commit_of(repo, revision_of(rest)).entries()
    for line in body.splitlines():
        if not line.strip():
            continue
        item = parse_json_object(line, "a line of the commit")
        key, value = item.get("key"), item.get("value")
        if not isinstance(value, dict):
            raise Refusal(400, "a line of the commit has no value")
        if key == "header":
            header = value
        else:
            changes.update(_change(hub, repo, known, str(key), value))
    if header is None:
        raise Refusal(400, "the commit has no header line")
    new = hub.repos.commit(
        repo,
        revision_of(rest),
        header.get("parentCommit"),
        str(header.get("summary") or "commit"),
        str(header.get("description") or ""),
        changes,
    )
    url = f"{repo_url(hub, request, repo.kind, repo.name)}/commit/{new.sha}"
    return JSONResponse({"success": True, "commitOid": new.sha, "commitUrl": url, "hookOutput": ""})


def _change(
    hub: Hub, repo: Repo, known: dict[str, Entry], key: str, value: dict[str, Any]
) -> dict[str, Entry | None]:
    path = check_path(str(value.get("path")).rstrip("/") if key == "deletedFolder" else value.get("path"))
    if key == "file":
        return {path: hub.repos.add_blob(path, _base64(value.get("content"), path))}
    if key == "lfsFile":
        return {path: _xet_change(hub, repo, known, path, value)}
    if key == "deletedFile":
        return {path: None}
    if key == "deletedFolder":
        inside = [other for other in known if other.startswith(f"{path}/")]
        if not inside:
            raise Refusal(404, f"A file with this name doesn't exist: {path}", code="EntryNotFound")
        return dict.fromkeys(inside)
    raise Refusal(400, f"the commit has a line of unknown kind {key[:100]!r}")


def _xet_change(hub: Hub, repo: Repo, known: dict[str, Entry], path: str, value: dict[str, Any]) -> Entry:
    sha256 = value.get("oid")
    if value.get("algo") != "sha256" or not isinstance(sha256, str):
        raise Refusal(400, f"the content of {path} must be named by its sha256")
    for entry in known.values():
        if entry.sha256 == sha256:
            return moved(entry, path)
    file = hub.store.file_of_sha256(sha256, repo.id)
    if file is None:
        raise Refusal(400, f"the content of {path} (sha256 {sha256[:64]}) has not been uploaded")
    if value.get("size") not in (None, file.size_bytes):
        raise Refusal(400, f"{path} was uploaded with {file.size_bytes} bytes, not {value['size']}")
    hub.store.link_file(repo.id, file.file_hash, sha256)
    return xet_entry(path, sha256, file.size_bytes, hash_to_text(file.file_hash))
