"""The Hub's JSON API: which request goes to which handler."""

from __future__ import annotations

from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from zest_hf.hub import api_refs, api_repos, api_tokens, api_trees, api_uploads
from zest_hf.hub.access import segments
from zest_hf.hub.http import Refusal, read_body
from zest_hf.hub.options import MAX_COMMIT_BODY_BYTES, MAX_JSON_BODY_BYTES
from zest_hf.hub.repos import KINDS
from zest_hf.hub.state import Hub

Call = Callable[[Request, Hub, list[str], bytearray], Response]


async def dispatch(request: Request) -> Response:
    """Find the handler of an ``/api/...`` request and run it in a worker thread."""
    hub: Hub = request.app.state.hub
    parts = segments(request)[1:]
    limit = MAX_COMMIT_BODY_BYTES if "commit" in parts else MAX_JSON_BODY_BYTES
    call, rest = _find_call("GET" if request.method == "HEAD" else request.method, parts)
    body = (
        await read_body(request, limit, "the request")
        if request.method not in ("GET", "HEAD")
        else bytearray()
    )
    return await run_in_threadpool(call, request, hub, rest, body)


def _find_call(method: str, parts: list[str]) -> tuple[Call, list[str]]:
    fixed = _FIXED.get((method, "/".join(parts)))
    if fixed is not None:
        return fixed, []
    if parts and parts[0] in KINDS:
        if len(parts) == 1 and method == "GET":
            return api_repos.listing, parts
        # A name without a namespace is looked up as it is, and not found.
        names = 1 if len(parts) == 2 or parts[2] in _VERBS else 2
        verb = parts[1 + names] if len(parts) > 1 + names else ""
        call = _REPO_CALLS.get((method, verb))
        if call is not None:
            return call, [parts[0], "/".join(parts[1 : 1 + names]), *parts[2 + names :]]
    raise Refusal(404, f"this hub has no {method} /api/{'/'.join(parts)[:200]}")


_FIXED: dict[tuple[str, str], Call] = {
    ("GET", "whoami-v2"): api_repos.whoami,
    ("POST", "validate-yaml"): api_repos.validate_yaml,
    ("POST", "repos/create"): api_repos.create_repo,
    ("DELETE", "repos/delete"): api_repos.delete_repo,
}
_REPO_CALLS: dict[tuple[str, str], Call] = {
    ("GET", ""): api_repos.info,
    ("GET", "revision"): api_repos.info,
    ("GET", "refs"): api_refs.refs,
    ("GET", "commits"): api_refs.commits,
    ("GET", "tree"): api_trees.tree,
    ("POST", "paths-info"): api_trees.paths_info,
    ("POST", "preupload"): api_uploads.preupload,
    ("POST", "commit"): api_uploads.commit,
    ("PUT", "settings"): api_repos.settings,
    ("POST", "branch"): api_refs.create_branch,
    ("DELETE", "branch"): api_refs.delete_branch,
    ("POST", "tag"): api_refs.create_tag,
    ("DELETE", "tag"): api_refs.delete_tag,
    ("GET", "xet-read-token"): api_tokens.read_token,
    ("GET", "xet-write-token"): api_tokens.write_token,
}
_VERBS = {verb for _, verb in _REPO_CALLS if verb}
ROUTES = [Route("/api/{rest:path}", dispatch, methods=["GET", "POST", "PUT", "DELETE"])]
