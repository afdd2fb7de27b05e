"""The seeder's page as programs see it: requests, events, and a seeder that offers what a test makes up."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from machines import Machine, Seeder

from zest_hf._native.codec import RULE_CURRENT
from zest_hf.index import Index, IndexedFile
from zest_hf.scan import scan_file

WAIT_S = 15.0
OFFLINE = {"HF_HUB_OFFLINE": "1"}
"""The Hub is not asked whether it shows what a test has made up."""

HOSTILE_NAMES = (
    "<script>document.title='owned'</script>/x",
    "org/<img src=x onerror=\"document.title='owned'\">",
    "org/\u202egnp.exe",
    "org/'\"`${1+1}{{7*7}}",
    "org/line\nbreak\ttab\x00nul",
    "org/" + "a-very-long-name-" * 12,
)
"""Of repositories: what the Hub would not allow, but a cache's directories can be called."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str

    @property
    def value(self) -> Any:
        return json.loads(self.text)


def port_of(seeder: Seeder) -> int:
    port = urlsplit(seeder.url).port
    assert port is not None
    return port


def ask(seeder: Seeder, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
    """One request. ``body``: bytes, or a value that is sent as JSON. ``headers``: by their names, with _ for -."""
    with _asked(seeder, path, method, body, headers) as answer:
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode())


@contextmanager
def events(
    seeder: Seeder, path: str = "/v1/events", method: str = "GET", body: Any = None
) -> Iterator[Iterator[tuple[str, Any]]]:
    """Events as they come, by name and value. The connection ends with the block."""
    with _asked(seeder, path, method, body, {}) as answer:
        assert answer.status == 200, answer.read()
        assert answer.getheader("content-type", "").startswith("text/event-stream")
        yield _parsed(answer)


def pulled(seeder: Seeder, **request: Any) -> list[tuple[str, Any]]:
    """All events of a pull."""
    with events(seeder, "/v1/pull", "POST", request) as news:
        return list(news)


def first(news: Iterator[tuple[str, Any]], name: str) -> Any:
    """The value of the next event of this name."""
    return next(value for found, value in news if found == name)


def offer(machine: Machine, repos: Sequence[str], size_bytes: int = 4000) -> None:
    """Puts a file of each repository into the machine's index, public all of them: for a seeder with `OFFLINE`."""
    index = Index(machine.home / "zest" / "index.sqlite")
    folder = machine.root / "made-up"
    folder.mkdir(exist_ok=True)
    for number, repo in enumerate(repos):
        path = folder / f"{number}.bin"
        path.write_bytes(number.to_bytes(4, "big") * (size_bytes // 4))
        manifest = scan_file(path, RULE_CURRENT)
        index.add(
            IndexedFile(
                file_hash=manifest.file_hash(),
                path=path,
                size_bytes=size_bytes,
                mtime_ns=path.stat().st_mtime_ns,
                repo_id=repo,
                repo_type="model",
                endpoint=machine.hub.endpoint,
                public=True,
                manifest=manifest,
                terms=(),
            )
        )
    index.close()


def rss_bytes(pid: int) -> int:
    """What a process has in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def children(pid: int) -> list[int]:
    """The processes that it has started."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


@contextmanager
def _asked(
    seeder: Seeder, path: str, method: str, body: Any, headers: dict[str, str]
) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(seeder), timeout=WAIT_S)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    try:
        connection.request(method, path, body, sent)
        yield connection.getresponse()
    finally:
        connection.close()


def _parsed(answer: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in answer:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)
