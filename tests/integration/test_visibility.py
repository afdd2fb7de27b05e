"""When a seeder takes a file for public: by the answers of a server that says anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_http import Action, Handler, LoopbackServer, answer, drop, running

from zest_hf.core.ids import XetHash, hash_to_text
from zest_hf.hook.cache import CachedFile
from zest_hf.index import Index
from zest_hf.seed.visibility import Visibility

SHA256 = "ab" * 32
FILE_HASH = XetHash(bytes(range(32)))
URL = "/datasets/org/name/resolve/c0ffee/a%20folder/a.bin"
TOKEN = "/api/datasets/org/name/xet-read-token/main"
LINKED = {"X_Linked_Etag": f'"{SHA256}"'}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackServer]:
    monkeypatch.setattr(Handler, "do_HEAD", Handler.do_GET, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with running() as server:
        server.on(
            TOKEN, answer(200, b'{"casUrl": "http://cas.invalid", "accessToken": "for-everyone", "exp": 4000000000}')
        )
        yield server


def shown(
    server: LoopbackServer, tmp_path: Path, place: tuple[str, str] | None = ("c0ffee", "a folder/a.bin")
) -> bool | None:
    index = Index(tmp_path / "index.sqlite")
    file = CachedFile(tmp_path / "blob", 1, 1, "dataset", "org/name", None, SHA256, place)
    try:
        return Visibility(index, offline=False).file(server.url, file, FILE_HASH)
    finally:
        index.close()


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (answer(200, b"", **LINKED), True),
        (answer(200, ETag=f'"{SHA256}"'), True),
        (answer(302, b"", Location="http://cdn.invalid/a", ETag='"of the CDN"', **LINKED), True),
        (answer(302, b"", **LINKED, X_Xet_Hash=hash_to_text(FILE_HASH)), True),
        (answer(200, b"", **LINKED, X_Xet_Hash="0" * 64), False),
        (answer(200, X_Linked_Etag=f'"{"cd" * 32}"', ETag=f'"{SHA256}"'), False),
        (answer(200), False),
        (answer(302, Location="http://elsewhere.invalid/a"), False),
        (answer(302, Location=URL), False),
        (answer(401, b"", **LINKED), False),
        (answer(404), False),
        (answer(503, b"", **LINKED), None),
        (drop, None),
    ],
)
def test_the_answer_must_be_about_this_content(
    server: LoopbackServer, tmp_path: Path, action: Action, expected: bool | None
) -> None:
    server.on(URL, action)
    assert shown(server, tmp_path) is expected
    assert not any({"authorization", "cookie"} & set(request.headers) for request in server.requests)


def test_a_renamed_repository(server: LoopbackServer, tmp_path: Path) -> None:
    server.on(URL, answer(307, Location="/datasets/new/name"))
    server.on("/datasets/new/name", answer(200, b"", **LINKED))
    assert shown(server, tmp_path)


@pytest.mark.parametrize(("status", "expected"), [(401, False), (503, None)])
def test_files_of_repositories_that_are_not_shown_are_not_asked_about(
    server: LoopbackServer, tmp_path: Path, status: int, expected: bool | None
) -> None:
    server.on(TOKEN, answer(status))
    assert shown(server, tmp_path) is expected
    assert [request.path for request in server.requests] == [TOKEN]


def test_a_file_that_no_snapshot_names(server: LoopbackServer, tmp_path: Path) -> None:
    assert shown(server, tmp_path, None) is None
