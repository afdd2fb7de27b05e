"""What the Hub shows to everyone, as far as a seeder has to know: repositories, and single files of them."""

from __future__ import annotations

import inspect
import logging
import os
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from zest_hf.core.ids import XetHash, hash_to_text
from zest_hf.finished import VISIBILITY_AGE_S
from zest_hf.hook.cache import CachedFile, is_public
from zest_hf.hook.connection import ANONYMOUS_TIMEOUT_S, _was_anonymous
from zest_hf.index import Index

log = logging.getLogger("zest_hf.seed")

MAX_REDIRECTS = 5
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Visibility:
    """Asks the Hub without credentials, and nobody when ``offline``; answers for repositories are kept in the index."""

    def __init__(self, index: Index, *, offline: bool) -> None:
        self._index = index
        self._offline = offline

    def ask_again(self, repo: tuple[str, str, str]) -> None:
        """Asks about a repository unless something recent is known; without an answer nothing changes."""
        if not self._offline and self._remembered(repo) is None:
            self._repository(repo)

    def file(self, hub: str, file: CachedFile, file_hash: XetHash) -> bool | None:
        """Whether ``hub`` shows this very file to everyone; None when it cannot be found out now.

        That there is a public repository of the name says little: it may be another one than the file came from.
        """
        repo = (hub, file.repo_type, file.repo_id)
        if self._offline:
            return None
        # Asked first, as its answer is remembered: a private repository costs one request, not one a file.
        if not self._repository(repo):
            return None if self._remembered(repo) is None else False
        return _shows(hub, file, file_hash)

    def _remembered(self, repo: tuple[str, str, str]) -> bool | None:
        return self._index.is_public(*repo, max_age_s=VISIBILITY_AGE_S)

    def _repository(self, repo: tuple[str, str, str]) -> bool:
        return is_public(
            *repo,
            remembered=lambda: self._remembered(repo),
            remember=lambda shown: self._index.set_public(*repo, shown),
        )


def _shows(hub: str, file: CachedFile, file_hash: XetHash) -> bool | None:
    """By the metadata of the file's url, which the Hub gives on its own answer: the CDN is never asked."""
    if file.revision_path is None:
        return None
    commit, path = file.revision_path
    try:
        name = quote(os.fsencode(path))
    except UnicodeEncodeError:
        return False  # nothing that a Hub could have
    kind = "" if file.repo_type == "model" else f"{file.repo_type}s/"
    url = f"{hub}/{kind}{quote(file.repo_id)}/resolve/{quote(commit, safe='')}/{name}"
    try:
        for _ in range(MAX_REDIRECTS):
            response = _head(url)
            if not _was_anonymous(response):
                return None
            status, headers = int(response.status_code), response.headers
            etag = headers.get("X-Linked-Etag")
            location = headers.get("Location") if 300 <= status < 400 else None
            target = urljoin(url, location) if location is not None else url
            if etag is None and location is not None and _origin(target) == _origin(hub):
                url = target  # it was renamed
                continue
            if status in (401, 403, 404, 410):
                return False
            if status >= 400:
                return None
            xet_hash = headers.get("X-Xet-Hash")
            if not file.sha256:
                return bool(xet_hash == hash_to_text(file_hash))
            etag = etag if etag is not None else headers.get("ETag")
            if etag is None or etag.removeprefix("W/").strip('"') != file.sha256:
                return False
            return xet_hash is None or bool(xet_hash == hash_to_text(file_hash))
    except Exception as error:  # of whatever HTTP library the Hub's client is built on
        log.info("whether %s of %s is public is not known: %s", path, file.repo_id, error)
        return None
    return False


def _head(url: str) -> Any:
    from huggingface_hub.utils._http import get_session

    session: Any = get_session()
    # requests has one name for it, the two kinds of httpx have another.
    httpx = "follow_redirects" in inspect.signature(session.head).parameters
    return session.head(
        url,
        headers={"user-agent": "zest_hf", "accept-encoding": "identity"},
        timeout=ANONYMOUS_TIMEOUT_S,
        # Without it a .netrc entry for the host would make the request somebody's.
        auth=lambda request: request,
        **{"follow_redirects" if httpx else "allow_redirects": False},
    )


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
