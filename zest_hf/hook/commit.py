"""The Hub's part of an upload: the token for writing, which files go into xorbs, and the commit.

huggingface_hub's own `create_commit` uploads by itself; what is needed here is the commit alone, of files that the CAS
has already. The user's token goes to the Hub only.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from zest_hf.errors import CasError, ProtocolError, ZestError
from zest_hf.hook.connection import as_cas_error, parse_token

if TYPE_CHECKING:
    from zest_hf.cas import CasToken

SAMPLE_BYTES: Final = 512
FILES_PER_REQUEST: Final = 256
MAX_REGULAR_BYTES: Final = 10 << 20
"""A file that the Hub wants inside the commit."""


@dataclass(frozen=True, slots=True)
class Local:
    """A file on this machine and its path in the repository."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that the CAS has: its path in the repository, SHA-256 in hexadecimal, size."""

    name: str
    sha256: str
    size_bytes: int


class HubRepo:
    """A repository to write to. Endpoint, user token and HTTP client are huggingface_hub's.

    `repo_type` is "model", "dataset" or "space". Every method may raise CasError (the Hub refused, or cannot be
    reached) and ProtocolError (it answered something else).
    """

    def __init__(self, repo_id: str, *, repo_type: str = "model", revision: str = "main") -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils._headers import build_hf_headers

        self._api = HfApi(library_name="zest_hf")
        self._headers = {str(k): str(v) for k, v in build_hf_headers(library_name="zest_hf").items()}
        self.repo_id, self.repo_type, self.revision = repo_id, repo_type, revision
        self._base = f"{self._api.endpoint}/api/{repo_type}s/{quote(repo_id)}"

    @property
    def user_agent(self) -> str:
        return next((v for k, v in self._headers.items() if k.lower() == "user-agent"), "zest_hf")

    def create(self, *, private: bool | None = None) -> None:
        """Make the repository unless it exists."""
        options: dict[str, Any] = {"repo_type": self.repo_type, "private": private, "exist_ok": True}
        if self.repo_type == "space":
            options["space_sdk"] = "static"
        try:
            self._api.create_repo(self.repo_id, **options)
        except Exception as error:
            raise _hub_error(error, "make the repository") from error

    def token(self, force: bool) -> CasToken:
        """A TokenProvider for uploads; every call asks the Hub."""
        response = self._request("GET", f"{self._base}/xet-write-token/{quote(self.revision, safe='')}")
        return parse_token(response)

    def modes(self, files: Sequence[Local]) -> dict[str, str]:
        """How the Hub wants each file, by name: "xet", "regular" (inside the commit) or "ignored"."""
        found: dict[str, str] = {}
        for at in range(0, len(files), FILES_PER_REQUEST):
            some = files[at : at + FILES_PER_REQUEST]
            body = json.dumps({"files": [_preupload(file) for file in some]}).encode()
            url = f"{self._base}/preupload/{quote(self.revision, safe='')}"
            answer = _json(self._request("POST", url, body, "application/json"))
            found |= dict(_modes(answer))
        for file in files:
            if file.name not in found:
                raise ProtocolError(f"the Hub did not say how it wants {file.name}")
            if file.path.stat().st_size == 0 and found[file.name] != "ignored":
                # The Hub stores no empty objects.
                found[file.name] = "regular"
        return found

    def commit(self, stored: Iterable[Stored], regular: Iterable[Local], message: str) -> str:
        """One commit with all of these files; its id. Raises ZestError for a regular file that is too large."""
        body = b"".join(json.dumps(row).encode() + b"\n" for row in _rows(stored, regular, message))
        url = f"{self._base}/commit/{quote(self.revision, safe='')}"
        answer = _json(self._request("POST", url, body, "application/x-ndjson"))
        oid = answer.get("commitOid")
        if not isinstance(oid, str):
            raise ProtocolError("the Hub's answer to the commit names no commit")
        return oid

    def _request(self, method: str, url: str, body: bytes | None = None, kind: str | None = None) -> Any:
        from huggingface_hub.utils._http import get_session, hf_raise_for_status

        headers = {**self._headers, **({"Content-Type": kind} if kind else {})}
        try:
            session: Any = get_session()
            options: dict[str, Any] = {"headers": headers, "timeout": 60.0}
            if body is not None:
                # requests (huggingface_hub before 1.0) calls a raw body data, its successors content.
                options["data" if type(session).__module__.startswith("requests") else "content"] = body
            response = session.request(method, url, **options)
            hf_raise_for_status(response)
        except Exception as error:
            raise _hub_error(error, f"answer {method} {url.removeprefix(self._base)}") from error
        return response


def files_below(path: Path) -> Iterator[Local]:
    """The files of a folder, or the file itself, with their names in the repository; hidden git folders are left
    out. Raises ZestError when there is no such path.
    """
    if path.is_file():
        yield Local(path, path.name)
        return
    if not path.is_dir():
        raise ZestError(f"{path}: no such file or folder")
    for found in sorted(path.rglob("*")):
        name = found.relative_to(path)
        if found.is_file() and not {".git", ".cache"} & set(name.parts[:1]):
            yield Local(found, name.as_posix())


def _preupload(file: Local) -> dict[str, object]:
    with file.path.open("rb") as opened:
        sample = opened.read(SAMPLE_BYTES)
    return {"path": file.name, "sample": base64.b64encode(sample).decode(), "size": file.path.stat().st_size}


def _modes(answer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    rows = answer.get("files")
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and isinstance(row.get("path"), str):
            mode = "xet" if row.get("uploadMode") == "lfs" else "regular"
            yield row["path"], "ignored" if row.get("shouldIgnore") is True else mode


def _rows(stored: Iterable[Stored], regular: Iterable[Local], message: str) -> Iterator[dict[str, object]]:
    yield {"key": "header", "value": {"summary": message, "description": ""}}
    for file in regular:
        if file.path.stat().st_size > MAX_REGULAR_BYTES:
            raise ZestError(f"{file.name}: the Hub wants this file inside the commit, and it is too large for that")
        content = base64.b64encode(file.path.read_bytes()).decode()
        yield {"key": "file", "value": {"path": file.name, "content": content, "encoding": "base64"}}
    for one in stored:
        value = {"path": one.name, "algo": "sha256", "oid": one.sha256, "size": one.size_bytes}
        yield {"key": "lfsFile", "value": value}


def _json(response: Any) -> dict[str, Any]:
    try:
        value = response.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ProtocolError("the Hub's answer is not a JSON object")
    return value


def _hub_error(error: Exception, what: str) -> CasError:
    """With the Hub's words in place of the token route's."""
    known = as_cas_error(error)
    response = getattr(error, "response", None)
    said = " ".join(str(getattr(error, "server_message", None) or error).split())[:300]
    status = getattr(response, "status_code", None)
    message = f"the Hub did not {what}: {said}"
    kind = type(known) if isinstance(known, CasError) else CasError
    return kind(message, status=status if isinstance(status, int) else None)
