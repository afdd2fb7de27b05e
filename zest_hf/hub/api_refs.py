"""Branches, tags and history."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from zest_hf.hub.api_common import repo_of, revision_of
from zest_hf.hub.http import Refusal, parse_json_object
from zest_hf.hub.repos import timestamp
from zest_hf.hub.state import Hub


def refs(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    repo = repo_of(request, hub, rest)
    rows: dict[str, Any] = {"converts": [], "pullRequests": []}
    for field, kind, prefix in (("branches", "branch", "heads"), ("tags", "tag", "tags")):
        found = hub.repos.refs(repo, kind).items()
        rows[field] = [{"name": n, "ref": f"refs/{prefix}/{n}", "targetCommit": sha} for n, sha in found]
    return JSONResponse(rows)


def create_branch(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    repo = repo_of(request, hub, rest, write=True)
    value = parse_json_object(body, "the request") if body else {}
    commit = hub.repos.commit_of(repo, str(value.get("startingPoint") or "main"))
    if not hub.repos.set_ref(repo, "branch", "/".join(rest[2:]), commit.sha):
        raise Refusal(409, "Reference already exists")
    return JSONResponse({})


def create_tag(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    repo = repo_of(request, hub, rest, write=True)
    value = parse_json_object(body, "the request")
    commit = hub.repos.commit_of(repo, revision_of(rest))
    if not hub.repos.set_ref(repo, "tag", str(value.get("tag")), commit.sha):
        raise Refusal(409, "Tag reference exists already")
    return JSONResponse({})


def delete_branch(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    return _delete_ref(request, hub, rest, "branch")


def delete_tag(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    return _delete_ref(request, hub, rest, "tag")


def _delete_ref(request: Request, hub: Hub, rest: list[str], kind: str) -> Response:
    repo = repo_of(request, hub, rest, write=True)
    name = "/".join(rest[2:])
    if kind == "branch" and name == "main":
        raise Refusal(403, "the branch main cannot be deleted")
    if not hub.repos.delete_ref(repo, kind, name):
        raise Refusal(404, f"Reference does not exist: {name[:100]}", code="RevisionNotFound")
    return JSONResponse({})


def commits(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    repo = repo_of(request, hub, rest)
    author = {"user": hub.options.user}
    return JSONResponse(
        [
            {
                "id": commit.sha,
                "title": commit.title,
                "message": commit.message,
                "authors": [author],
                "date": timestamp(commit.created_s),
            }
            for commit in hub.repos.history(repo, revision_of(rest))
        ]
    )
