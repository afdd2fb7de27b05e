from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import requests

from zest_hf.core.ids import hash_to_text
from zest_hf.hub.api_trees import TREE_PAGE_ENTRIES
from zest_hf.hub.api_uploads import _upload_mode
from zest_hf.hub.process import HubProcess

from .wire import USER, Client, Packed


def commit(client: Client, *rows: tuple[str, dict[str, Any]], **header: str) -> requests.Response:
    lines = [("header", {"summary": "change", "description": ""} | header), *rows]
    body = "\n".join(json.dumps({"key": key, "value": value}) for key, value in lines)
    url = f"{client.endpoint}/api/models/{client.repo}/commit/main"
    return client.session.post(url, data=body, headers=USER)


def text_file(path: str, content: str = "text") -> tuple[str, dict[str, Any]]:
    data = base64.b64encode(content.encode()).decode()
    return "file", {"path": path, "content": data, "encoding": "base64"}


def tree(client: Client, query: str = "", revision: str = "main") -> requests.Response:
    return client.session.get(f"{client.endpoint}/api/models/{client.repo}/tree/{revision}{query}")


@pytest.fixture
def fresh(hub: HubProcess, request: pytest.FixtureRequest) -> Client:
    client = Client(hub.endpoint, f"fresh/{request.node.originalname[:60]}")
    client.create()
    return client


def test_creating_twice_is_409_with_the_url(client: Client) -> None:
    value = {"organization": "org", "name": "wire"}
    answer = client.session.post(f"{client.endpoint}/api/repos/create", json=value, headers=USER)
    assert answer.status_code == 409
    assert answer.json()["url"] == f"{client.endpoint}/org/wire"


def test_urls_lead_through_what_is_in_front(client: Client) -> None:
    url = f"{client.endpoint}/api/models/{client.repo}/xet-read-token/main"
    for protocol, expected in (("https", "https://hub.example"), ("gopher", "http://hub.example")):
        headers = USER | {"Host": "hub.example", "X-Forwarded-Proto": protocol}
        assert client.session.get(url, headers=headers).json()["casUrl"] == expected


def test_json_is_compact(client: Client, stored: Packed) -> None:
    answers = [client.reconstruction(stored), tree(client), client.session.get(f"{client.endpoint}/_stats")]
    for answer in answers:
        assert answer.text == json.dumps(answer.json(), separators=(",", ":"), ensure_ascii=False)


@pytest.mark.parametrize("name", ["", "a/b/c", "../x", "sp ace", "-dash"])
def test_bad_repository_names_are_refused(hub: HubProcess, name: str) -> None:
    answer = requests.post(f"{hub.endpoint}/api/repos/create", json={"name": name}, headers=USER)
    assert answer.status_code == 400


def test_error_codes(client: Client, stored: Packed) -> None:
    cases = [
        ("/api/models/org/none", 404, "RepoNotFound"),
        ("/api/models/none", 404, "RepoNotFound"),
        ("/api/models/none/tree/main", 404, "RepoNotFound"),
        ("/api/datasets/org/wire", 404, "RepoNotFound"),
        ("/org/none/resolve/main/data.bin", 404, "RepoNotFound"),
        ("/api/models/org/wire/revision/none", 404, "RevisionNotFound"),
        ("/api/models/org/wire/xet-read-token/none", 404, "RevisionNotFound"),
        ("/org/wire/resolve/none/data.bin", 404, "RevisionNotFound"),
        ("/org/wire/resolve/main/none", 404, "EntryNotFound"),
        ("/org/wire/resolve/main/..%2f..%2fhub.sqlite", 404, "EntryNotFound"),
        ("/api/models/org/wire/tree/main/none", 404, "EntryNotFound"),
        ("/api/nothing", 404, None),
        ("/nothing", 404, None),
    ]
    for path, status, code in cases:
        answer = client.session.get(client.endpoint + path, headers=USER)
        assert (answer.status_code, answer.headers.get("X-Error-Code")) == (status, code), path
        assert "\n" not in answer.json()["error"]


def test_a_private_repository_looks_missing_to_strangers(hub: HubProcess) -> None:
    client = Client(hub.endpoint, "org/hidden")
    client.create(private=True)
    paths = ["/api/models/R", "/api/models/R/revision/main", "/api/models/R/tree/main"]
    paths += ["/api/models/R/xet-read-token/main", "/R/resolve/main/a.txt"]
    for path in paths:
        seen = [requests.get(hub.endpoint + path.replace("R", name)) for name in ("org/hidden", "org/none")]
        assert [(a.status_code, a.headers["X-Error-Code"]) for a in seen] == [(401, "RepoNotFound")] * 2
        assert seen[0].json() == seen[1].json()
    assert client.token()
    assert "org/hidden" not in requests.get(f"{hub.endpoint}/api/models").text
    url = f"{hub.endpoint}/api/models/org/hidden/settings"
    assert requests.put(url, json={"visibility": "public"}, headers=USER).status_code == 200
    assert requests.get(f"{hub.endpoint}/api/models/org/hidden").status_code == 200


def test_a_gated_repository_shows_its_listing_only(client: Client, hub: HubProcess) -> None:
    gated = Client(hub.endpoint, "org/gated")
    gated.create()
    commit(gated, text_file("a.txt"))
    requests.put(f"{hub.endpoint}/api/models/org/gated/settings", json={"gated": "auto"}, headers=USER)
    assert tree(gated).status_code == 200
    for path in ("/api/models/org/gated/xet-read-token/main", "/org/gated/resolve/main/a.txt"):
        answer = requests.get(hub.endpoint + path)
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (401, "GatedRepo")
        assert requests.get(hub.endpoint + path, headers=USER).status_code == 200


def test_writing_needs_a_user(client: Client) -> None:
    url = client.endpoint
    for method, path in (
        ("POST", "/api/repos/create"),
        ("POST", "/api/models/org/wire/preupload/main"),
        ("POST", "/api/models/org/wire/commit/main"),
        ("GET", "/api/models/org/wire/xet-write-token/main"),
        ("GET", "/api/whoami-v2"),
    ):
        assert requests.request(method, url + path, json={}).status_code == 401


def test_listed_tokens_are_the_only_ones(tmp_path: Path) -> None:
    with HubProcess(tmp_path, token=["good", "better"]) as hub:
        for token, status in (("good", 200), ("better", 200), ("bad", 401)):
            headers = {"Authorization": f"Bearer {token}"}
            assert requests.get(f"{hub.endpoint}/api/whoami-v2", headers=headers).status_code == status
        assert requests.get(f"{hub.endpoint}/api/models").json() == []


def test_trees(fresh: Client) -> None:
    answer = commit(fresh, *map(text_file, ["b.txt", "dir/a.txt", "dir/sub/c.txt", "a b.txt"]))
    sha = answer.json()["commitOid"]
    flat = tree(fresh).json()
    assert [(row["type"], row["path"]) for row in flat] == [
        ("file", "a b.txt"),
        ("file", "b.txt"),
        ("directory", "dir"),
    ]
    deep = tree(fresh, "?recursive=true", sha).json()
    files = [row["path"] for row in deep if row["type"] == "file"]
    assert files == ["a b.txt", "b.txt", "dir/a.txt", "dir/sub/c.txt"]
    below = tree(fresh, "/dir?recursive=True").json()
    assert [row["path"] for row in below] == ["dir/a.txt", "dir/sub", "dir/sub/c.txt"]
    (row,) = tree(fresh, "/dir%2Fsub?expand=true").json()
    assert row["lastCommit"]["id"] == sha


def test_a_large_tree_comes_in_pages(fresh: Client) -> None:
    paths = [f"{n:05}.txt" for n in range(TREE_PAGE_ENTRIES + 1)]
    commit(fresh, *map(text_file, paths))
    first = tree(fresh, "?recursive=true&expand=false")
    assert len(first.json()) == TREE_PAGE_ENTRIES
    second = fresh.session.get(first.links["next"]["url"])
    assert [row["path"] for row in second.json()] == paths[-1:]
    assert "next" not in second.links


def test_commits(fresh: Client) -> None:
    assert commit(fresh, text_file("a.txt"), text_file("dir/b.txt")).status_code == 200
    head = commit(fresh, ("deletedFolder", {"path": "dir/"})).json()["commitOid"]
    assert [row["path"] for row in tree(fresh).json()] == ["a.txt"]
    assert commit(fresh, text_file("c.txt"), parentCommit="0" * 40).status_code == 412
    assert commit(fresh, text_file("c.txt"), parentCommit=head).status_code == 200
    for row, status in (
        (("deletedFile", {"path": "none"}), 404),
        (("deletedFolder", {"path": "none"}), 404),
        (("magic", {"path": "x"}), 400),
        (text_file("../up.txt"), 400),
        (text_file("a.txt/below.txt"), 400),
        (("file", {"path": "x", "content": "%%%"}), 400),
        (("lfsFile", {"path": "x", "algo": "sha256", "oid": "ab" * 32}), 400),
        (("lfsFile", {"path": "x", "algo": "md5", "oid": "ab" * 32}), 400),
    ):
        answer = commit(fresh, row)
        assert answer.status_code == status, row
        assert "\n" not in answer.json()["error"]
    assert [row["path"] for row in tree(fresh).json()] == ["a.txt", "c.txt"]


def test_a_size_that_contradicts_the_upload_is_refused(client: Client, stored: Packed) -> None:
    other = Client(client.endpoint, "org/sizes")
    other.create()
    assert other.commit("a.bin", stored.sha256, 5).status_code == 400
    assert other.commit("a.bin", stored.sha256, len(stored.content)).status_code == 200
    assert other.reconstruction(stored).status_code == 200


def test_head_of_a_xet_file(client: Client, stored: Packed) -> None:
    url = f"{client.endpoint}/org/wire/resolve/main/data.bin"
    answer = client.session.head(url)
    assert answer.status_code == 200
    assert answer.headers["X-Linked-Etag"] == f'"{stored.sha256}"'
    assert answer.headers["X-Linked-Size"] == answer.headers["Content-Length"] == str(len(stored.content))
    assert answer.headers["X-Xet-Hash"] == hash_to_text(stored.file_hash)
    token = client.session.get(answer.links["xet-auth"]["url"])
    assert token.headers["X-Xet-Access-Token"] == token.json()["accessToken"]
    assert token.headers["X-Xet-Cas-Url"] == token.json()["casUrl"] == client.endpoint
    assert int(token.headers["X-Xet-Token-Expiration"]) == token.json()["exp"]
    info = client.session.get(f"{client.endpoint}/api/models/org/wire/revision/main").json()
    assert answer.headers["X-Repo-Commit"] == info["sha"]


def test_plain_downloads(client: Client, stored: Packed) -> None:
    commit(client, text_file("sub/é ü.txt", "hello"), text_file("empty.txt", ""))
    url = f"{client.endpoint}/org/wire/resolve/main/"
    assert client.session.get(f"{url}sub/%C3%A9%20%C3%BC.txt").text == "hello"
    empty = client.session.get(f"{url}empty.txt")
    assert (empty.content, empty.headers["Content-Length"]) == (b"", "0")
    assert client.session.get(f"{url}data.bin").content == stored.content
    for start, end in ((0, 1), (65_000, 66_000), (400_000, 1_000_000), (999_999, 1_000_000)):
        answer = client.session.get(f"{url}data.bin", headers={"Range": f"bytes={start}-{end - 1}"})
        assert (answer.status_code, answer.content) == (206, stored.content[start:end])
    assert client.session.get(f"{url}data.bin", headers={"Range": "bytes=1000000-"}).status_code == 416


def test_refs_and_history(fresh: Client) -> None:
    first = commit(fresh, text_file("a.txt")).json()["commitOid"]
    base = f"{fresh.endpoint}/api/models/{fresh.repo}"
    assert fresh.session.post(f"{base}/branch/refs%2Fdev", json={}, headers=USER).status_code == 200
    assert fresh.session.post(f"{base}/tag/{first}", json={"tag": "v1"}, headers=USER).status_code == 200
    commit(fresh, text_file("b.txt"))
    assert [row["path"] for row in tree(fresh, revision="v1").json()] == ["a.txt"]
    assert [row["path"] for row in tree(fresh, revision="refs%2Fdev").json()] == ["a.txt"]
    refs = fresh.session.get(f"{base}/refs").json()
    assert [row["name"] for row in refs["branches"]] == ["main", "refs/dev"]
    assert refs["tags"] == [{"name": "v1", "ref": "refs/tags/v1", "targetCommit": first}]
    assert len(fresh.session.get(f"{base}/commits/main").json()) == 3
    assert fresh.session.delete(f"{base}/branch/main", headers=USER).status_code == 403
    assert fresh.session.delete(f"{base}/tag/v1", headers=USER).status_code == 200
    assert tree(fresh, revision="v1").headers["X-Error-Code"] == "RevisionNotFound"


@pytest.mark.parametrize(
    ("path", "size_bytes", "sample", "mode"),
    [
        ("README.md", 100, b"# text", "regular"),
        ("config.json", 500, "{é".encode()[:-1], "regular"),
        ("notes.txt", 5, b"a\0b", "lfs"),
        ("latin.txt", 5, b"caf\xe9 noir", "lfs"),
        ("big.json", 2 << 20, b"{", "lfs"),
        ("model.safetensors", 10, b"text", "lfs"),
    ],
)
def test_upload_modes(path: str, size_bytes: int, sample: bytes, mode: str) -> None:
    assert _upload_mode(path, size_bytes, sample) == mode
