"""Account, repositories and their references."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from zest_hf.hub.access import find_repo, require_user, user_token
from zest_hf.hub.api_common import repo_of, repo_url, revision_of
from zest_hf.hub.http import Refusal, parse_json_object
from zest_hf.hub.repos import KINDS, Commit, Entry, Kind, Repo, timestamp
from zest_hf.hub.state import Hub


def whoami(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    require_user(request, hub)
    user = hub.options.user
    return JSONResponse(
        {
            "type": "user",
            "id": user,
            "name": user,
            "fullname": user,
            "email": None,
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": {"displayName": "local", "role": "write"}},
        }
    )


def validate_yaml(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    return JSONResponse({"errors": [], "warnings": []})


def _named(hub: Hub, value: dict[str, Any]) -> tuple[Kind, str]:
    kind = value.get("type") or "model"
    name = value.get("name")
    owner = value.get("organization") or hub.options.user
    if f"{kind}s" not in KINDS:
        raise Refusal(400, f"type is {kind!r}, accepted are model, dataset and space")
    if not isinstance(name, str) or not isinstance(owner, str):
        raise Refusal(400, "a repository needs a name")
    return KINDS[f"{kind}s"], name if "/" in name else f"{owner}/{name}"


def create_repo(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    require_user(request, hub)
    value = parse_json_object(body, "the request")
    kind, name = _named(hub, value)
    private = value.get("private") is True or value.get("visibility") == "private"
    repo, new = hub.repos.create(kind, name, private=private)
    answer = {"url": repo_url(hub, request, kind, name), "name": name, "id": str(repo.id)}
    if not new:
        raise Refusal(409, "You already created this repo", extra=answer)
    return JSONResponse(answer)


def delete_repo(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    require_user(request, hub)
    kind, name = _named(hub, parse_json_object(body, "the request"))
    hub.repos.delete(find_repo(request, hub, kind, name, write=True))
    return Response("OK")


def settings(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    repo = repo_of(request, hub, rest, write=True)
    value = parse_json_object(body, "the request")
    private = value.get("private")
    if "visibility" in value:
        private = value["visibility"] == "private"
    gated = bool(value["gated"]) if "gated" in value else None
    hub.repos.set_access(repo, private=private, gated=gated)
    return JSONResponse({"private": private, "gated": gated})


def listing(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    search = request.query_params.get("search", "").lower()
    author = request.query_params.get("author", "")
    anonymous = user_token(request, hub) is None
    rows = []
    for repo in hub.repos.listing(KINDS[rest[0]]):
        shown = search in repo.name.lower() and repo.name.startswith(f"{author}/" if author else "")
        if shown and not (anonymous and repo.private):
            rows.append(_info(repo, hub.repos.commit_of(repo, "main"), files=False))
    limit = request.query_params.get("limit", "")
    return JSONResponse(rows[: int(limit)] if limit.isdigit() else rows)


def info(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    repo = repo_of(request, hub, rest)
    blobs = request.query_params.get("blobs", "").lower() in ("1", "true")
    return JSONResponse(_info(repo, hub.repos.commit_of(repo, revision_of(rest)), blobs=blobs))


def _info(repo: Repo, commit: Commit, *, files: bool = True, blobs: bool = False) -> dict[str, Any]:
    row: dict[str, Any] = {
        "_id": f"{repo.id:024x}",
        "id": repo.name,
        f"{repo.kind}Id": repo.name,
        "author": repo.name.partition("/")[0],
        "sha": commit.sha,
        "lastModified": timestamp(commit.created_s),
        "createdAt": timestamp(repo.created_s),
        "private": repo.private,
        "gated": "auto" if repo.gated else False,
        "disabled": False,
        # huggingface_hub before 1.0 uploads over Xet only when it reads this.
        "xetEnabled": True,
        "downloads": 0,
        "likes": 0,
        "tags": [],
    }
    if files:
        entries = commit.entries().values()
        row["usedStorage"] = sum(entry.size_bytes for entry in entries)
        row["siblings"] = [_sibling(entry, blobs) for entry in entries]
    return row


def _sibling(entry: Entry, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": entry.path}
    row: dict[str, Any] = {"rfilename": entry.path, "size": entry.size_bytes, "blobId": entry.oid}
    if entry.sha256 is not None:
        row["lfs"] = {"sha256": entry.sha256, "size": entry.size_bytes, "pointerSize": entry.pointer_bytes}
    return row
