"""Why a snapshot could not be downloaded, in one line that says what to do. For the command line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from zest_hf.terminal import printable

MAX_REASON_CHARS = 300


def why_not_writable(directory: Path) -> str | None:
    """Why no file can be put under ``directory``, which need not exist yet; None if nothing speaks against it."""
    for place in (directory, *directory.parents):
        if place.is_dir():
            return None if os.access(place, os.W_OK | os.X_OK) else f"{place} is not writable"
        if os.path.lexists(place):
            return f"{place} is not a directory"
    return None


def download_directory(local_dir: str | None) -> Path:
    """Where `snapshot_download` puts its files."""
    from huggingface_hub import constants

    return Path(local_dir if local_dir is not None else constants.HF_HUB_CACHE).absolute()


def explain(error: Exception, repo: str, repo_type: str, revision: str | None) -> str:
    """One line about what `snapshot_download` raised for this repository."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    endpoint = constants.ENDPOINT
    if isinstance(error, hub.GatedRepoError):
        page = f"{endpoint}/{'' if repo_type == 'model' else f'{repo_type}s/'}{repo}"
        return f"access to {repo_type} {repo} is restricted: ask for it on {page}, then `hf auth login`"
    if isinstance(error, hub.RepositoryNotFoundError):
        return (
            f"{endpoint} shows no {repo_type} {repo}: check the name; if it is private, `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return f"{repo_type} {repo} has no revision {revision or 'main'!r}: name a branch, a tag or a commit"
    if isinstance(error, hub.HfHubHTTPError):
        return _refused(error, endpoint)
    if isinstance(error, hub.LocalEntryNotFoundError):
        if constants.HF_HUB_OFFLINE:
            return f"{repo} is not in the cache and HF_HUB_OFFLINE is set: unset it to download"
        return f"{repo} is not in the cache and {_unreachable(error.__cause__ or error, endpoint)}"
    if isinstance(error, hub.HFValidationError):
        return f"{repo!r} is not the name of a repository: it is written as org/name"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full: free some space, or name another place with --local-dir or HF_HOME"
    if isinstance(error, OSError) and error.strerror:
        where = f" {error.filename}" if error.filename else ""
        return f"cannot write{where}: {error.strerror}; name another place with --local-dir or HF_HOME"
    if (type(error).__module__ or "").startswith(("httpx", "httpcore", "requests")):
        return _unreachable(error, endpoint)
    return one_line(error)


def one_line(error: BaseException | str) -> str:
    """The text of any error, on one line, not endless, and without what a terminal would take for commands."""
    text = printable(" ".join(str(error).split()))
    return text[:MAX_REASON_CHARS] if text else type(error).__name__


def _refused(error: Exception, endpoint: str) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = one_line(Exception(getattr(error, "server_message", None) or ""))
    said = f" ({said})" if said != "Exception" else ""
    if status == 401:
        return f"{endpoint} does not accept your token{said}: `hf auth login`, or check HF_TOKEN"
    if status == 403:
        return f"{endpoint} refuses access{said}: check what your token may read"
    return f"{endpoint} answered {status}{said}: try again later"


def _unreachable(error: BaseException, endpoint: str) -> str:
    return f"the Hub at {endpoint} cannot be reached ({one_line(error)}): check the network and HF_ENDPOINT"
