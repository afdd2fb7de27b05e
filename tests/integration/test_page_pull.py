"""`POST /v1/pull`: downloads that the seeder does for who asks."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pages
import pytest
from machines import Machine, Seeder, eventually

from zest_hf.hub.process import HubProcess
from zest_hf.seed.pull_request import MAX_BODY_BYTES
from zest_hf.seed.pulls import MAX_RUNNING

from .conftest import OWNER, PARTS, XET_BYTES, XET_NAMES, MakeMachine, assert_right, content_of

STOP_S = 2.0
SLOW = {"ZEST_MAX_DOWN": "500kB"}
"""The model takes 12 s."""


def under_way(seeder: Seeder) -> dict[str, Any] | None:
    """The pull that has brought something."""
    running = (pull for pull in seeder.ask()["pulls"] if pull["state"] == "running")
    return next((pull for pull in running if pull["bytes"]["cdn"]), None)


def test_it_brings_a_repository(machine: Machine) -> None:
    with machine.seeder() as seeder:
        news = pages.pulled(seeder, repo="org/model")
        assert [name for name, _ in news] == ["progress"] * (len(news) - 1) + ["done"]
        done = news[-1][1]
        assert_right(Path(done["path"]))
        assert done["bytes"] == {"local": 0, "peer": 0, "cdn": XET_BYTES}
        assert (done["files"], done["files_done"], done["before"]) == (3, 3, 0)
        assert done["done"] == done["size"] > XET_BYTES
        # It is offered like everything else.
        seeder.wait_for_files(len(XET_NAMES))
        (shown,) = seeder.ask()["pulls"]
        assert shown == done | {"state": "done"}
        # Once more there is nothing to do.
        again = pages.pulled(seeder, repo="org/model", revision="main")[-1][1]
        assert again["before"] == again["size"] == done["size"] and sum(again["bytes"].values()) == 0
        eventually(lambda: seeder.ask()["traffic"]["today"]["cdn"] == XET_BYTES, "it is counted once")


def test_it_comes_from_peers(owner: Machine, hub: HubProcess, machine: Machine) -> None:
    with owner.seeder() as other, machine.seeder(ZEST_PEERS=other.address) as seeder:
        done = pages.pulled(seeder, repo="org/model")[-1][1]
        assert done["bytes"] == {"local": 0, "peer": XET_BYTES, "cdn": 0}
        assert hub.stats()["cdn_bytes"] == 0


def test_only_what_matches(machine: Machine) -> None:
    with machine.seeder() as seeder:
        done = pages.pulled(seeder, repo="org/parts", allow_patterns=["part1.bin", "part7*"])[-1][1]
        assert sorted(path.name for path in Path(done["path"]).iterdir()) == ["part1.bin", "part7.bin"]
        assert done["size"] == done["bytes"]["cdn"] == 2 * len(PARTS["part1.bin"]) and done["files"] == 2
        (name, failed) = pages.pulled(seeder, repo="org/parts", allow_patterns="none")[-1]
        assert name == "failed" and "no file of org/parts matches" in failed["error"]


def test_what_fails(machine: Machine) -> None:
    with machine.seeder() as seeder:
        for request, reason in (
            ({"repo": "org/none"}, "shows no model org/none"),
            ({"repo": "org/model", "repo_type": "dataset"}, "shows no dataset org/model"),
            ({"repo": "org/model", "revision": "none"}, "has no revision 'none'"),
            ({"repo": "org/.."}, "is not the name of a repository"),
        ):
            name, failed = pages.pulled(seeder, **request)[-1]
            assert name == "failed" and reason in failed["error"], failed
            assert "\n" not in failed["error"] and failed["state"] == "failed"
        assert "Traceback" not in seeder.end(signal.SIGTERM).stderr
        assert content_of(machine) == []


def test_bad_requests(machine: Machine) -> None:
    with machine.seeder() as seeder:
        bad: list[Any] = [
            b"",
            b"{",
            b"\xff\xfe",
            b"[" * 10_000,
            *([], "x", 1, None, {}, {"repo": ""}, {"repo": 1}, {"repo": "a/b/c"}, {"repo": "a b"}, {"repo": "/etc"}),
            *({"repo": name} for name in ("org/" + "x" * 300, "http://evil.example/x", "org/\u202ex", "<script>")),
            {"repo": "org/model", "revision": ""},
            {"repo": "org/model", "revision": ["main"]},
            {"repo": "org/model", "revision": "a\nb"},
            {"repo": "org/model", "repo_type": "bucket"},
            {"repo": "org/model", "repo_type": ["model"]},
            {"repo": "org/model", "allow_patterns": []},
            {"repo": "org/model", "allow_patterns": [1]},
            {"repo": "org/model", "allow_patterns": ["*"] * 101},
            {"repo": "org/model", "token": "hf_x"},
            {"repo": "org/model", "local_dir": "/tmp/x"},
        ]
        for body in bad:
            answer = pages.ask(seeder, "/v1/pull", "POST", body, Content_Type="application/json")
            assert answer.status == 400, body
            assert answer.value["error"] and "\n" not in answer.value["error"], body
        long = b" " * (MAX_BODY_BYTES + 1)
        assert pages.ask(seeder, "/v1/pull", "POST", long, Content_Type="application/json").status == 413
        # What a form of a page elsewhere could send.
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
            answer = pages.ask(seeder, "/v1/pull", "POST", b'{"repo": "org/model"}', Content_Type=kind)
            assert answer.status == 415, kind
        foreign = pages.ask(seeder, "/v1/pull", "POST", {"repo": "org/model"}, Origin="https://evil.example")
        assert foreign.status == 403
        assert pages.ask(seeder, "/v1/pull").status == 405
        assert seeder.ask()["pulls"] == [] and not pages.children(seeder.process.pid)


def test_once_at_a_time(machine: Machine) -> None:
    """Who leaves does not end it, who asks for the same follows it, and what is different is refused."""
    with machine.seeder(**SLOW) as seeder:
        with pages.events(seeder, "/v1/pull", "POST", {"repo": "org/model"}) as news:
            assert pages.first(news, "progress")["state"] == "running"
        seen = eventually(lambda: under_way(seeder), "it goes on")
        with pages.events(seeder, "/v1/pull", "POST", {"repo": "org/model"}) as news:
            assert pages.first(news, "progress")["bytes"]["cdn"] >= seen["bytes"]["cdn"]
            assert len(seeder.ask()["pulls"]) == len(pages.children(seeder.process.pid)) == 1
            other = pages.ask(seeder, "/v1/pull", "POST", {"repo": "org/model", "revision": "main"})
            assert other.status == 409 and "other arguments" in other.value["error"]
            # ... until it is stopped.
            stop = {"repo": "org/model"}
            assert pages.ask(seeder, "/v1/pull/stop", "POST", stop).status == 200
            assert pages.first(news, "failed")["state"] == "stopped"
        eventually(lambda: not pages.children(seeder.process.pid), "its process has ended")
        assert pages.ask(seeder, "/v1/pull/stop", "POST", stop).status == 404


def test_so_many_at_a_time(machine: Machine) -> None:
    with machine.seeder(**SLOW) as seeder:
        repos = ["org/model", "org/later", "org/parts", "org/none-1", "org/none-2"]
        machine.hub.fault("hub", "latency", seconds=2)
        answers: list[int] = []

        def start(repo: str) -> None:
            with pages._asked(seeder, "/v1/pull", "POST", {"repo": repo}, {}) as answer:
                answers.append(answer.status)

        threads = [threading.Thread(target=start, args=(repo,)) for repo in repos]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [200] * MAX_RUNNING + [429]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_seeder(machine: Machine, number: signal.Signals) -> None:
    with machine.seeder(**SLOW) as seeder:
        with pages.events(seeder, "/v1/pull", "POST", {"repo": "org/model"}) as news:
            next(value for name, value in news if value["bytes"]["cdn"])
            (child,) = pages.children(seeder.process.pid)
            began_s = time.monotonic()
            ended = seeder.end(number)
            assert time.monotonic() - began_s < STOP_S
            assert ended.code == (0 if number == signal.SIGTERM else -number) and "Traceback" not in ended.stderr
        eventually(lambda: not os.path.exists(f"/proc/{child}") or is_zombie(child), "its process has ended")
    assert content_of(machine) == []
    # What has come is gone on from.
    with machine.seeder() as seeder:
        done = pages.pulled(seeder, repo="org/model")[-1][1]
        assert_right(Path(done["path"]))


def is_zombie(pid: int) -> bool:
    """Its parent is gone, and nobody here waits for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_with_the_seeders_token(make: MakeMachine) -> None:
    with make("A").seeder(HF_TOKEN=OWNER) as seeder:
        done = pages.pulled(seeder, repo="org/secret")[-1][1]
        assert_right(Path(done["path"]))
        assert seeder.ask()["files"] == 0, "what is private is not offered"
