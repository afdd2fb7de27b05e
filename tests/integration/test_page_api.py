"""The seeder's API: figures, events, metrics."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pages
import pytest
from machines import PRELUDE, Machine, eventually
from prometheus_client.parser import text_string_to_metric_families

from zest_hf.hub.process import HubProcess
from zest_hf.index import Index
from zest_hf.seed.feed import MAX_FOLLOWERS, MAX_MODELS

from .conftest import SNAPSHOT, XET_BYTES, XET_NAMES, MakeMachine, snapshot

STOP_S = 2.0


def test_what_is_offered(owner: Machine) -> None:
    with owner.seeder() as seeder:
        (model,) = seeder.ask("/v1/models")["models"]
        assert (model["repo"], model["repo_type"], model["files"]) == ("org/model", "model", len(XET_NAMES))
        assert (model["size"], model["peers"], model["uploaded"]) == (XET_BYTES, 0, 0)
        (revision,) = model["revisions"]
        (commit,) = [path.name for path in (owner.home / "hub" / "models--org--model" / "snapshots").iterdir()]
        assert revision == {"commit": commit, "names": ["main"]}
        assert seeder.ask()["models"] == [model]


def test_everything_of_a_download_is_counted(make: MakeMachine) -> None:
    a, b = make("A"), make("B")
    with a.seeder() as seeder, pages.events(seeder) as news:
        assert pages.first(news, "status")["traffic"]["all_time"]["cdn"] == 0
        # By another program of the same user.
        snapshot(a)
        status = eventually(lambda: at_least(seeder.ask(), "cdn", XET_BYTES), "the download is noted")
        seeder.wait_for_files(len(XET_NAMES))
        snapshot(b, ZEST_PEERS=seeder.address)
        status = eventually(lambda: at_least(seeder.ask(), "uploaded", XET_BYTES), "the upload is noted")
        counts = {"local": 0, "peer": 0, "cdn": XET_BYTES, "uploaded": XET_BYTES}
        assert status["bytes"] == counts
        assert status["traffic"]["today"] == status["traffic"]["all_time"] == {**counts, "ratio": 1.0}
        assert 0 < status["rates"]["up_bytes_s"] <= XET_BYTES
        # What the page draws holds the same bytes.
        history = eventually(lambda: drawn(seeder.ask("/v1/history"), "uploaded"), "there is a sample with it")
        assert history == pytest.approx(XET_BYTES, rel=0.02)
        assert drawn(seeder.ask("/v1/history"), "cdn") == pytest.approx(XET_BYTES, rel=0.02)
        assert pages.first(news, "status")["uptime_seconds"] > 0
    # It is still known after the next start, and what a run has moved begins at nothing.
    with a.seeder() as seeder:
        status = seeder.ask()
        assert status["traffic"]["all_time"] == {**counts, "ratio": 1.0}
        assert set(status["bytes"].values()) == {0}
    with b.seeder() as seeder:
        counts = {"local": 0, "peer": XET_BYTES, "cdn": 0, "uploaded": 0, "ratio": 0}
        assert seeder.ask()["traffic"]["all_time"] == counts


def at_least(status: dict, kind: str, count: int) -> dict | None:
    return status if status["traffic"]["all_time"][kind] >= count else None


def drawn(history: dict, kind: str) -> float:
    """Bytes, from the rates and the times of the samples."""
    column = history["fields"].index(kind)
    total = before_s = 0.0
    for point in history["points"]:
        total += point[column] * (point[0] - before_s)
        before_s = point[0]
    return total


def test_a_damaged_file_of_figures(owner: Machine, make: MakeMachine) -> None:
    """It is moved aside; nothing else suffers."""
    a = make("A")
    snapshot(a)
    path = a.home / "zest" / "traffic.sqlite"
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 8000)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with a.seeder() as seeder:
        status = seeder.ask()
        assert status["files"] == len(XET_NAMES)
        assert status["traffic"]["all_time"]["cdn"] == 0
        assert path.with_name(path.name + ".corrupt-1").exists()
    path.write_bytes(b"")
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    with a.seeder() as seeder:
        assert seeder.ask()["traffic"]["all_time"]["cdn"] == 0
        assert "schema version 99" in seeder.end(signal.SIGTERM).stderr


def test_a_peer_that_takes(owner: Machine, make: MakeMachine) -> None:
    code = PRELUDE + f"REPO = 'org/model'\n{SNAPSHOT}"
    # Nobody else gives it any sooner.
    owner.hub.fault("cdn", "rate", bytes_per_second=20_000)
    with (
        owner.seeder(ZEST_MAX_UP="500kB") as seeder,
        pages.events(seeder) as news,
        make("B").running(sys.executable, "-c", code, ZEST_PEERS=seeder.address) as download,
    ):
        shown = (value for name, value in news if name == "peers")
        (peer,) = next(value["peers"] for value in shown if any(one["up_bytes_s"] for one in value["peers"]))
        assert peer["protocol"] == "zest_hf" and peer["found_by"] == "incoming"
        assert peer["bytes_up"] > 0 and peer["down_bytes_s"] == 0 and peer["connected_seconds"] >= 0
        # It says how much of it has come.
        some = next(one["holds"] for value in shown for one in value["peers"] if one["holds"])
        assert 0 < some < 1
        assert next(one["holds"] for value in shown for one in value["peers"] if one["holds"] > some) <= 1
        download.process.kill()
        gone = next(value for value in shown if not value["peers"])
        assert gone["total"] == 0


def test_names_that_are_no_unicode(machine: Machine) -> None:
    """As a file system may have them; the page shows what it can."""
    refs = machine.home / "hub" / "models--org--model" / "refs"
    commit = "c" * 40
    (refs.parent / "snapshots" / commit).mkdir(parents=True)
    refs.mkdir()
    Path(os.fsdecode(os.fsencode(refs) + b"/\xff")).write_text(commit)
    pages.offer(machine, ["org/model"])
    with machine.seeder(**pages.OFFLINE) as seeder:
        for models in (seeder.ask()["models"], seeder.ask("/v1/models")["models"]):
            assert models[0]["revisions"] == [{"commit": commit, "names": ["\udcff"]}]


def test_a_file_of_two_repositories_when_one_becomes_private(machine: Machine) -> None:
    """It is offered on, but not by the name of the private one."""
    pages.offer(machine, ["org/first"])
    with closing(Index(machine.home / "zest" / "index.sqlite")) as index:
        (copy,) = index.copies()
        (file,) = index.get(copy.file_hash)
        index.add(replace(file, repo_id="org/second"))
        with machine.seeder(**pages.OFFLINE) as seeder:

            def names() -> list[str]:
                return [model["repo"] for model in seeder.ask("/v1/models")["models"]]

            assert names() == ["org/first"]
            index.set_public(file.endpoint, "model", "org/first", False)
            eventually(lambda: names() == ["org/second"], "it has the other's name")
            index.set_public(file.endpoint, "model", "org/second", False)
            eventually(lambda: names() == [], "it is not offered any more")


def test_events_of_many_models(machine: Machine) -> None:
    pages.offer(machine, [f"org/model-{number:04}" for number in range(MAX_MODELS + 5)] + list(pages.HOSTILE_NAMES))
    with machine.seeder(**pages.OFFLINE) as seeder, pages.events(seeder) as news:
        models = pages.first(news, "models")
        assert models["total"] == MAX_MODELS + 5 + len(pages.HOSTILE_NAMES)
        assert len(models["models"]) == MAX_MODELS
        names = {model["repo"] for model in seeder.ask("/v1/models")["models"]}
        assert set(pages.HOSTILE_NAMES) <= names
        # What has not changed does not come again.
        later = [pages.first(news, "status") for _ in range(2)]
        assert later[1]["uptime_seconds"] > later[0]["uptime_seconds"]


def test_as_many_as_may_look(owner: Machine) -> None:
    with owner.seeder() as seeder:
        with ExitStack() as stack:
            for _ in range(MAX_FOLLOWERS):
                pages.first(stack.enter_context(pages.events(seeder)), "status")
            refused = pages.ask(seeder, "/v1/events")
            assert refused.status == 503 and refused.headers["retry-after"] and "too many" in refused.value["error"]
            assert pages.ask(seeder, "/v1/status").status == 200
        assert pages.ask(seeder, "/v1/events", "HEAD").status == 200
        # Who has left is noticed.
        eventually(lambda: can_look(seeder), "there is room again")


def can_look(seeder: pages.Seeder) -> bool:
    try:
        with pages.events(seeder) as news:
            return bool(pages.first(news, "status"))
    except AssertionError:
        return False


def test_it_ends_while_somebody_looks(owner: Machine) -> None:
    with owner.seeder() as seeder, pages.events(seeder) as news:
        pages.first(news, "status")
        began_s = time.monotonic()
        ended = seeder.end(signal.SIGTERM)
        assert ended.code == 0 and time.monotonic() - began_s < STOP_S
        assert "Traceback" not in ended.stderr and "Cancel" not in ended.stderr


def test_metrics(hub: HubProcess, owner: Machine, make: MakeMachine) -> None:
    with owner.seeder() as seeder:
        snapshot(make("B"), ZEST_PEERS=seeder.address)
        answer = pages.ask(seeder, "/metrics")
        assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain; version=")
        samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }
        plain: frozenset[tuple[str, str]] = frozenset()
        assert samples["zest_ready", plain] == 1
        assert samples["zest_uploaded_bytes_total", plain] == XET_BYTES
        assert samples["zest_offered_bytes", plain] == XET_BYTES
        assert samples["zest_downloaded_bytes_total", frozenset({("source", "cdn")})] >= XET_BYTES
        of_model = frozenset({("endpoint", hub.endpoint), ("repo", "org/model"), ("repo_type", "model")})
        assert samples["zest_model_uploaded_bytes_total", of_model] == XET_BYTES
        assert samples["process_resident_memory_bytes", plain] > 0


def test_metrics_of_hostile_names(machine: Machine) -> None:
    names = [name for name in pages.HOSTILE_NAMES if name.isascii()]
    pages.offer(machine, pages.HOSTILE_NAMES)
    with machine.seeder(**pages.OFFLINE) as seeder:
        answer = pages.ask(seeder, "/metrics")
        assert answer.status == 200
        families = text_string_to_metric_families(answer.text)
        found = {s.labels["repo"] for f in families for s in f.samples if s.name == "zest_model_bytes"}
        assert set(names) <= found and len(found) == len(pages.HOSTILE_NAMES)


def test_what_browsers_are_told(owner: Machine) -> None:
    """Also of answers that are refusals."""
    with owner.seeder() as seeder:
        for path in ("/", "/page.js", "/v1/status", "/none"):
            for origin in ({}, {"Origin": "https://evil.example"}):
                headers = pages.ask(seeder, path, **origin).headers
                assert "default-src 'none'" in headers["content-security-policy"]
                assert "unsafe" not in headers["content-security-policy"]
                assert headers["x-content-type-options"] == "nosniff"
                assert headers["x-frame-options"] == "DENY"
                assert "access-control-allow-origin" not in headers
