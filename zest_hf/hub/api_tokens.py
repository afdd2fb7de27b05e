"""Xet tokens: what lets a client of a repository talk to the CAS."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from zest_hf.hub.access import require_content
from zest_hf.hub.api_common import repo_of, revision_of
from zest_hf.hub.auth import Scope
from zest_hf.hub.repos import Repo
from zest_hf.hub.state import Hub


def _token(request: Request, hub: Hub, repo: Repo, scope: Scope) -> Response:
    token, expires_at_s = hub.signer.issue_token(scope, repo.id, hub.options.token_lifetime_s)
    url = hub.base_url(request)
    headers = {
        "X-Xet-Cas-Url": url,
        "X-Xet-Access-Token": token,
        "X-Xet-Token-Expiration": str(expires_at_s),
        "Cache-Control": "no-store",
    }
    return JSONResponse({"casUrl": url, "exp": expires_at_s, "accessToken": token}, headers=headers)


def read_token(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    repo = repo_of(request, hub, rest)
    require_content(request, hub, repo)
    hub.repos.commit_of(repo, revision_of(rest))
    return _token(request, hub, repo, "read")


def write_token(request: Request, hub: Hub, rest: list[str], body: bytearray) -> Response:
    # The revision may not exist yet, so it is not looked at.
    return _token(request, hub, repo_of(request, hub, rest, write=True), "write")


def xet_auth_url(hub: Hub, request: Request, repo: Repo, revision: str) -> str:
    return f"{hub.base_url(request)}/api/{repo.kind}s/{repo.name}/xet-read-token/{quote(revision, safe='')}"
