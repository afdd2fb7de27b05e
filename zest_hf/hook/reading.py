"""The Hub's word for a file that is here already: by which token the CAS may be asked about it.

As nobody in particular where the Hub shows the repository to everyone; else as the user of this machine, by the token
that the Hub's client itself would use (`hf auth login`, HF_TOKEN, HF_HUB_DISABLE_IMPLICIT_TOKEN), and only about a file
of which that Hub names the hash: the hash of a file from elsewhere is told to nobody.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from zest_hf import __version__
from zest_hf.cas import TokenProvider
from zest_hf.core.ids import XetHash, hash_to_text

from .connection import Connection, Route, as_cas_error, parse_route

USER_AGENT = f"zest_hf/{__version__}"
ANYBODY = b""
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """A file of a repository: ``revision_path``, a commit and its path there."""

    hub: str
    repo_type: str
    repo_id: str
    revision_path: tuple[str, str]


def as_anybody(hub: str, repo_type: str, repo_id: str) -> TokenProvider:
    """Tokens for a public repository. The provider raises CasError and ProtocolError."""
    url = f"{hub}/api/{repo_type}s/{repo_id}/xet-read-token/main"
    return Connection(url, Route(hub, repo_type, repo_id), {"user-agent": USER_AGENT}).token


def who() -> bytes:
    """Whose token the Hub's client would send now: some bytes that tell one from another; `ANYBODY` without one."""
    authorization = _headers().get("authorization", "")
    return hashlib.sha256(authorization.encode()).digest()[:8] if authorization else ANYBODY


def as_user(place: Place, file_hash: XetHash) -> TokenProvider | None:
    """Tokens for the repository of a file of which the Hub says, to this user, that it has this hash; else None.

    Raises CasError: CasUnavailable when the Hub cannot be asked now.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    commit, path = place.revision_path
    headers = _headers()
    url = hf_hub_url(place.repo_id, path, repo_type=place.repo_type, revision=commit, endpoint=place.hub)
    try:
        found = get_hf_file_metadata(url, timeout=TIMEOUT_S, headers=headers).xet_file_data
    except Exception as error:  # of whatever HTTP library the Hub's client is built on
        raise as_cas_error(error) from error
    if found is None or found.file_hash != hash_to_text(file_hash):
        return None
    route = parse_route(found.refresh_route)
    return None if route is None else Connection(found.refresh_route, route, headers).token


def _headers() -> dict[str, str]:
    from huggingface_hub.utils._headers import build_hf_headers

    return dict(build_hf_headers(library_name="zest_hf", library_version=__version__))
