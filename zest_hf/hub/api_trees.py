"""Listing what a revision holds."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from zest_hf.hub.api_common import repo_of, revision_of
from zest_hf.hub.http import Refusal, parse_json_object
from zest_hf.hub.repos import Commit, Entry, git_blob_oid, timestamp
from zest_hf.hub.state import Hub

TREE_PAGE_ENTRIES = 1000


def _entry_row(entry: Entry, commit: Commit | None) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "oid": entry.oid, "size": entry.size_bytes, "path": entry.path}
    if entry.sha256 is not None:
        row["lfs"] = {"oid": entry.sha256, "size": entry.size_bytes, "pointerSize": entry.pointer_bytes}
        row["xetHash"] = entry.xet_hash
    return row | _last_commit(commit)


def _folder_row(path: str, commit: Commit | None) -> dict[str, Any]:
    return {"type": "directory", "oid": git_blob_oid(path.encode()), "size": 0, "path": path} | _last_commit(
        commit
    )


def _last_commit(commit: Commit | None) -> dict[str, Any]:
    if commit is None:
        return {}
    return {"lastCommit": {"id": commit.sha, "title": commit.title, "date": timestamp(commit.created_s)}}


def _expanded(request: Request, commit: Commit) -> Commit | None:
    return commit if request.query_params.get("expand", "").lower() in ("1", "true") else None


def _tree_rows(commit: Commit, folder: str, recursive: bool, expanded: Commit | None) -> list[dict[str, Any]]:
    """Files and folders below ``folder`` ('' is the root), in path order."""
    prefix = f"{folder}/" if folder else ""
    rows: dict[str, dict[str, Any]] = {}
    for path, entry in commit.entries().items():
        if not path.startswith(prefix):
            continue
        names = path[len(prefix) :].split("/")
        for depth in range(1, len(names) if recursive else min(len(names), 2)):
            above = prefix + "/".join(names[:depth])
            rows.setdefault(above, _folder_row(above, expanded))
        if recursive or len(names) == 1:
            rows[path] = _entry_row(entry, expanded)
    if folder and not rows:
        code = "EntryNotFound"
        raise Refusal(404, f"{folder} does not exist on this revision", code=code)
    return [rows[path] for path in sorted(rows)]


def tree(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    repo = repo_of(request, hub, rest)
    commit = hub.repos.commit_of(repo, revision_of(rest))
    query = request.query_params
    recursive = query.get("recursive", "").lower() in ("1", "true")
    rows = _tree_rows(commit, "/".join(rest[3:]).strip("/"), recursive, _expanded(request, commit))
    limit = query.get("limit", "")
    size = max(1, min(int(limit), TREE_PAGE_ENTRIES)) if limit.isdigit() else TREE_PAGE_ENTRIES
    cursor = query.get("cursor", "0")
    at = int(cursor) if cursor.isdigit() else 0
    headers = {}
    if at + size < len(rows):
        following = urlencode({**query, "cursor": at + size})
        path = request.scope["raw_path"].decode("latin-1")
        headers["Link"] = f'<{hub.base_url(request)}{path}?{following}>; rel="next"'
    return JSONResponse(rows[at : at + size], headers=headers)


def paths_info(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    repo = repo_of(request, hub, rest)
    commit = hub.repos.commit_of(repo, revision_of(rest))
    if request.headers.get("content-type", "").startswith("application/json"):
        value = parse_json_object(body, "the request")
        paths, expand = value.get("paths", []), value.get("expand") is True
    else:
        form = parse_qs(body.decode("utf-8", "replace"))
        paths, expand = form.get("paths", []), form.get("expand", [""])[0].lower() in ("1", "true")
    expanded = commit if expand else None
    entries = commit.entries()
    rows = []
    for path in paths if isinstance(paths, list) else [paths]:
        name = str(path).strip("/")
        if name in entries:
            rows.append(_entry_row(entries[name], expanded))
        elif any(other.startswith(f"{name}/") for other in entries):
            rows.append(_folder_row(name, expanded))
    return JSONResponse(rows)
