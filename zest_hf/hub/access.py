"""Which user token opens which repository, with the refusals the real Hub gives."""

from __future__ import annotations

import hmac
from urllib.parse import unquote

from starlette.requests import Request

from zest_hf.hub.auth import bearer
from zest_hf.hub.http import Refusal
from zest_hf.hub.repos import Kind, Repo
from zest_hf.hub.state import Hub


def segments(request: Request) -> list[str]:
    """The decoded segments of the path. Split first: a quoted slash belongs to a revision or a file name."""
    raw: bytes = request.scope["raw_path"]
    return [unquote(part) for part in raw.decode("latin-1").split("/")[1:]]


def user_token(request: Request, hub: Hub) -> str | None:
    """The user's token, None for an anonymous request; Refusal 401 when it is not one of ours."""
    token = bearer(request.headers.get("authorization"))
    tokens = hub.options.tokens
    if (
        token is not None
        and tokens
        and not any(hmac.compare_digest(token.encode(), t.encode()) for t in tokens)
    ):
        raise Refusal(401, "Invalid credentials in Authorization header")
    return token


def require_user(request: Request, hub: Hub) -> None:
    if user_token(request, hub) is None:
        raise Refusal(401, "Invalid username or password.")


def find_repo(request: Request, hub: Hub, kind: Kind, name: str, *, write: bool = False) -> Repo:
    """The repository if this request may see it.

    A private repository looks to strangers like one that does not exist, which is why both are refused alike.
    """
    anonymous = user_token(request, hub) is None
    repo = hub.repos.find(kind, name)
    if anonymous and (repo is None or repo.private):
        raise Refusal(401, "Invalid username or password.", code="RepoNotFound")
    if repo is None:
        raise Refusal(404, "Repository not found", code="RepoNotFound")
    if anonymous and write:
        raise Refusal(401, "Invalid username or password.")
    return repo


def require_content(request: Request, hub: Hub, repo: Repo) -> None:
    """Gated repositories show their listing to everyone, their content to users."""
    if repo.gated and user_token(request, hub) is None:
        message = f"Access to {repo.kind} {repo.name} is restricted. You must be authenticated to access it."
        raise Refusal(401, message, code="GatedRepo")
