"""What the handlers of the Hub's JSON API share.

A handler gets the request, the hub, the decoded rest of the path (plural kind, repository name, revision,
path...) and the body, and runs in a worker thread.
"""

from __future__ import annotations

from starlette.requests import Request

from zest_hf.hub.access import find_repo
from zest_hf.hub.repos import KINDS, Kind, Repo
from zest_hf.hub.state import Hub


def repo_of(request: Request, hub: Hub, rest: list[str], *, write: bool = False) -> Repo:
    """The repository that ``rest`` (plural kind, name, ...) names, if the request may see or write it."""
    return find_repo(request, hub, KINDS[rest[0]], rest[1], write=write)


def revision_of(rest: list[str]) -> str:
    """The revision behind the verb, main when there is none."""
    return rest[2] if len(rest) > 2 and rest[2] else "main"


def repo_url(hub: Hub, request: Request, kind: Kind, name: str) -> str:
    """Where a person would look at the repository."""
    return f"{hub.base_url(request)}/{'' if kind == 'model' else kind + 's/'}{name}"
