"""The command line as its users meet it: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import sys
import venv
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from loopback_http import answer, running
from machines import Machine, Run, eventually

import zest_hf
from zest_hf.hub.process import HubProcess

from .conftest import CONTENT, XET_BYTES, MakeMachine, assert_right, content_of

Commands = Mapping[str, tuple[str, ...]]
WIDTH = 100


def run_all(machine: Machine, commands: Commands, **environ: str | None) -> dict[str, Run]:
    """Several commands at the same time, by what they are called in the test."""
    with ThreadPoolExecutor(4) as pool:
        runs = {name: pool.submit(machine.command, *command, **environ) for name, command in commands.items()}
        return {name: run.result() for name, run in runs.items()}


def the_line(run: Run, code: int = 1) -> str:
    """The one line on stderr of a command that failed as it should."""
    assert run.code == code, run.stderr
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert len(line) < 300 and "Error" not in line and "Traceback" not in line, line
    return line


@pytest.fixture(scope="module")
def taken() -> Iterator[str]:
    """An address at which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


# --- usage -----------------------------------------------------------------------------------------------------------

HELP = {
    "zest": "commands:",
    "zest-hf": "commands:",
    "zest pull": "--include PATTERN",
    "zest seed": "SIGTERM or Ctrl-C",
    "zest serve": "SIGTERM or Ctrl-C",
    "zest start": "--systemd",
    "zest stop": "usage: ",
    "zest doctor": "--repo REPO",
    "zest completion": "{bash,zsh,fish}",
    "zest status": "--json",
    "zest run": "zest run -- COMMAND",
    "zest hub": "--state DIR",
    "zest version": "version",
    "zest-seed": "SIGTERM or Ctrl-C",
}


def test_every_command_has_help(machine: Machine) -> None:
    overview = machine.command("zest", "--help").stdout
    commands = {f"zest {command}" for command in re.findall(r"^    (\w+)  ", overview, re.MULTILINE)}
    runs = run_all(machine, {name: (*name.split(), "--help") for name in commands | set(HELP)}, COLUMNS=str(WIDTH))
    for name, run in runs.items():
        assert (run.code, run.stderr) == (0, ""), name
        assert HELP.get(name, "usage: ") in run.stdout, name
        assert max(map(len, run.stdout.splitlines())) <= WIDTH, name


def test_wrong_usage(machine: Machine) -> None:
    wrong = {
        "no command": ("zest",),
        "unknown command": ("zest", "fetch"),
        "unknown option": ("zest", "pull", "org/model", "--colour"),
        "no repository": ("zest", "pull"),
        "unknown kind": ("zest", "pull", "org/model", "--repo-type", "app"),
        "seed with an argument": ("zest-seed", "org/model"),
        "nothing to run": ("zest", "run"),
        "nothing after the dashes": ("zest", "run", "--"),
        "no state": ("zest", "hub"),
        "no number": ("zest", "hub", "--state", "hub", "--url-lifetime", "long"),
    }
    for name, run in run_all(machine, wrong).items():
        assert (run.code, run.stdout) == (2, ""), name
        assert "usage: zest" in run.stderr or "zest run -- python train.py" in run.stderr, name
        assert "Traceback" not in run.stderr


def test_the_version(machine: Machine) -> None:
    commands = {"a": ("zest", "version"), "b": ("zest", "--version"), "c": ("zest-seed", "--version")}
    for run in run_all(machine, commands | {"d": ("zest-hf", "version")}).values():
        assert (run.code, run.stdout, run.stderr) == (0, f"zest_hf {zest_hf.__version__}\n", "")


# --- zest pull -------------------------------------------------------------------------------------------------------


def test_pull(hub: HubProcess, owner: Machine, make: MakeMachine) -> None:
    a = make("A")
    with owner.seeder() as seeder:
        seeder.wait_for_files(2)
        found = a.command("zest", "pull", "org/model", "--peer", seeder.address)
    assert found.code == 0, found.stderr
    assert_right(Path(found.stdout.rstrip("\n")))
    assert found.stderr == "6.3 MB downloaded: 6.3 MB from peers, 0 B from the CDN, 0 B from this machine\n"
    assert hub.stats()["cdn_bytes"] == 0
    again = a.command("zest", "pull", "org/model", "--revision", "main")
    assert (again.stdout, again.stderr) == (found.stdout, "")


def test_pull_a_part_into_a_directory(machine: Machine) -> None:
    one = ("--include", "model*", "--include", "*.json", "--exclude", "config*")
    run = machine.command("zest", "pull", "org/model", *one, "--local-dir", "here")
    assert run.code == 0, run.stderr
    assert Path(run.stdout.rstrip("\n")) == machine.root / "here"
    files = {path.name for path in (machine.root / "here").iterdir() if path.is_file()}
    assert files == {"model.safetensors"}
    assert (machine.root / "here" / "model.safetensors").read_bytes() == CONTENT["model.safetensors"]


def test_pull_what_cannot_be(machine: Machine) -> None:
    pull = ("zest", "pull")
    (machine.root / "file").touch()
    commands = {
        "unknown": (*pull, "org/nothing"),
        "other kind": (*pull, "org/model", "--repo-type", "dataset"),
        "private": (*pull, "org/secret"),
        "revision": (*pull, "org/model", "--revision", "v9"),
        "no name": (*pull, "org/mo del"),
        "empty": (*pull, ""),
        "place": (*pull, "org/model", "--local-dir", "file/here"),
        "peer": (*pull, "org/model", "--peer", "nonsense"),
    }
    lines = {name: the_line(run) for name, run in run_all(machine, commands).items()}
    for name in ("unknown", "private"):
        assert "check the name" in lines[name] and "hf auth login" in lines[name]
    assert "no dataset org/model" in lines["other kind"]
    assert "no revision 'v9'" in lines["revision"]
    for name in ("no name", "empty"):
        assert "org/name" in lines[name]
    assert "file is not a directory" in lines["place"] and "--local-dir" in lines["place"]
    assert "ZEST_PEERS='nonsense'" in lines["peer"] and "host:port" in lines["peer"]
    assert not content_of(machine) and not machine.left_behind()


def test_pull_in_surroundings_that_are_wrong(machine: Machine, nobody: str) -> None:
    (machine.root / "file").touch()
    cases: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
        "hub": ({"HF_ENDPOINT": f"http://{nobody}"}, ("cannot be reached", nobody, "HF_ENDPOINT")),
        "endpoint": ({"HF_ENDPOINT": "nonsense"}, ("nonsense", "HF_ENDPOINT")),
        "token": ({"HF_TOKEN": "hf_wrong"}, ("does not accept your token", "HF_TOKEN")),
        "offline": ({"HF_HUB_OFFLINE": "1"}, ("HF_HUB_OFFLINE is set", "not in the cache")),
        "cache": ({"HF_HUB_CACHE": str(machine.root / "file" / "hub")}, ("is not a directory", "HF_HOME")),
        "listen": ({"ZEST_LISTEN": "nonsense"}, ("ZEST_LISTEN='nonsense'", "host:port")),
        "peers": ({"ZEST_PEERS": "x"}, ("ZEST_PEERS='x'", "host:port")),
        "rate": ({"ZEST_MAX_DOWN": "fast"}, ("ZEST_MAX_DOWN='fast'", "500KB")),
    }
    with ThreadPoolExecutor(4) as pool:
        runs = {
            name: pool.submit(machine.command, "zest", "pull", "org/model", **environ)
            for name, (environ, _) in cases.items()
        }
    for name, (_, texts) in cases.items():
        line = the_line(runs[name].result())
        assert all(text in line for text in texts), line
    assert not content_of(machine) and not machine.left_behind()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_pull_into_a_directory_of_others(machine: Machine) -> None:
    machine.home.mkdir(mode=0o500)
    assert f"{machine.home} is not writable" in the_line(machine.command("zest", "pull", "org/model"))


def test_pull_with_a_pattern_that_matches_nothing(machine: Machine) -> None:
    run = machine.command("zest", "pull", "org/model", "--include", "*.gguf")
    assert (run.code, run.stdout) == (1, "")
    assert "check --include and --exclude" in run.stderr.splitlines()[-1]


def test_ctrl_c(hub: HubProcess, machine: Machine) -> None:
    hub.fault("cdn", "rate", bytes_per_second=200_000)
    with machine.running("zest", "pull", "org/model") as program:
        eventually(lambda: hub.stats()["cdn_bytes"], "something has come")
        run = program.end(signal.SIGINT, timeout_s=6)
    assert the_line(run) == "zest: interrupted"
    assert not content_of(machine) and not machine.left_behind()
    hub.clear_faults()
    again = machine.command("zest", "pull", "org/model")
    assert_right(Path(again.stdout.rstrip("\n")))


def test_output_that_nobody_reads(owner: Machine) -> None:
    run = owner.command("bash", "-c", f"{Path(sys.executable).parent}/zest pull org/model | true")
    assert "Traceback" not in run.stderr and "Error" not in run.stderr


# --- zest status, run, hub -------------------------------------------------------------------------------------------


def test_status(owner: Machine, nobody: str) -> None:
    with owner.seeder() as seeder:
        seeder.wait_for_files(2)
        where = {"ZEST_STATUS": seeder.url.removeprefix("http://")}
        # A proxy has nothing to do with it.
        text = owner.command("zest", "status", http_proxy=f"http://{nobody}", **where)
        assert text.code == 0, text.stderr
        assert f"on {seeder.address}, up 0 min" in text.stdout
        assert re.search(r"^all time +0 B +6\.3 MB +0 B +\S+ .?B +\d\.\d\d$", text.stdout, re.MULTILINE), text.stdout
        assert re.search(r"^org/model +2 +6\.3 MB +0 B +0$", text.stdout, re.MULTILINE), text.stdout
        whole = owner.command("zest", "status", "--json", **where)
        assert json.loads(whole.stdout)["models"][0]["size"] == XET_BYTES
    assert "start one with zest start" in the_line(owner.command("zest", "status", ZEST_STATUS=nobody))
    assert "ZEST_STATUS is off" in the_line(owner.command("zest", "status", ZEST_STATUS="off"))


def test_status_of_something_else(owner: Machine, hub: HubProcess) -> None:
    """Somebody else answers at that address."""
    run = owner.command("zest", "status", ZEST_STATUS=hub.endpoint.removeprefix("http://"))
    assert "no seeder answers" in the_line(run)
    with running() as server:
        server.on("/v1/status", answer(200, b"{}"), answer(200, b"[]"))
        for _ in range(2):
            run = owner.command("zest", "status", ZEST_STATUS=server.url.removeprefix("http://"))
            assert "is no seeder" in the_line(run)


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 999 \x1b[2J\r\n\r\n",
    ],
    ids=["ssh", "half", "no length", "long", "escapes"],
)
def test_status_of_what_speaks_otherwise(machine: Machine, said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def speak() -> None:
            line, _ = listener.accept()
            with line:
                line.recv(65536)
                line.sendall(said)

        spoken = pool.submit(speak)
        run = machine.command("zest", "status", ZEST_STATUS=f"127.0.0.1:{listener.getsockname()[1]}")
        spoken.result()
    assert "no seeder answers" in the_line(run) and "\x1b" not in run.stderr


def test_run(machine: Machine) -> None:
    code = "import os, sys; print(os.environ['HF_HUB_ENABLE_ZEST'], 'zest_hf' in sys.modules, sys.argv[1:]); exit(7)"
    plain, lost = machine.root / "plain", machine.root / "lost"
    plain.write_text("#!/bin/sh")
    lost.write_text("#!/no/such/shell")
    lost.chmod(0o755)
    commands = {
        "plain": ("zest", "run", "--", "python", "-c", code, "--flag", "a b", "--", "-h"),
        "without dashes": ("zest", "run", "python", "-c", code, "x"),
        "nothing": ("zest", "run", "--", "no-such-program"),
        "directory": ("zest", "run", "--", str(machine.root)),
        "no such path": ("zest", "run", "--", "./no-such-program"),
        "not executable": ("zest", "run", "--", str(plain)),
        "no interpreter": ("zest", "run", "--", str(lost)),
        "killed": ("zest", "run", "--", "python", "-c", "import os; os.kill(os.getpid(), 9)"),
    }
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    runs = run_all(machine, commands, HF_HUB_ENABLE_ZEST=None, PATH=path)
    assert (runs["plain"].code, runs["plain"].stdout) == (7, "1 True ['--flag', 'a b', '--', '-h']\n")
    assert (runs["without dashes"].code, runs["without dashes"].stdout) == (7, "1 True ['x']\n")
    assert "no-such-program: no such program" in the_line(runs["nothing"], 127)
    assert "no-such-program: no such program" in the_line(runs["no such path"], 127)
    assert f"{lost}: No such file" in the_line(runs["no interpreter"], 127)
    assert f"{machine.root}: a directory" in the_line(runs["directory"], 126)
    assert f"{plain}: not executable" in the_line(runs["not executable"], 126)
    assert runs["killed"].code == -signal.SIGKILL  # it has taken our place


def completed(machine: Machine, script: Path, *words: str) -> set[str]:
    """What bash offers for the last of the words."""
    quoted = " ".join(f"'{word}'" for word in words)
    code = (
        f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; "
        'function=$(complete -p "$1" | sed "s/.*-F \\([^ ]*\\).*/\\1/"); "$function" "$1" "$2" "$3"; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    before = words[-2] if len(words) > 1 else ""
    run = machine.command("bash", "-c", code, "bash", words[0], words[-1], before)
    assert run.code == 0, run.stderr
    return set(run.stdout.split())


def test_completion(machine: Machine) -> None:
    scripts = {}
    for program in ("zest", "zest-seed"):
        run = machine.command("zest", "completion", "bash", "--program", program)
        assert (run.code, run.stderr) == (0, "")
        scripts[program] = machine.root / f"{program}.bash"
        scripts[program].write_text(run.stdout)
    zest = scripts["zest"]
    assert completed(machine, zest, "zest", "sta") == {"start", "status"}
    assert completed(machine, zest, "zest", "pull", "--re") == {"--repo-type", "--revision"}
    assert completed(machine, zest, "zest", "pull", "--repo-type", "") == {"model", "dataset", "space"}
    assert completed(machine, zest, "zest", "xet", "un") == {"unpack"}
    (machine.root / "folder").mkdir()
    assert completed(machine, zest, "zest", "pull", "x", "--local-dir", "fol") == {"folder"}
    assert completed(machine, scripts["zest-seed"], "zest-seed", "--no") == {"--no-scan"}
    for shell in ("zsh", "fish"):
        run = machine.command("zest", "completion", shell)
        assert (run.code, run.stderr) == (0, "") and "status" in run.stdout and "--local-dir" in run.stdout


def test_completion_without_what_makes_it(machine: Machine) -> None:
    (machine.root / "shtab.py").write_text("raise ImportError('not here')")
    line = the_line(machine.command("zest", "completion", "bash", PYTHONPATH=str(machine.root)))
    assert "pip install 'zest_hf[completion]'" in line


def test_run_where_no_hook_is_installed(machine: Machine) -> None:
    """Another sitecustomize is not lost, and a Python without zest_hf is named."""
    hidden = machine.root / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import os; print('the hidden one') if 'HF_HUB_ENABLE_ZEST' in os.environ else None"
    )
    bare = machine.root / "bare"
    venv.create(bare, with_pip=False, symlinks=True)
    code = "import os, sys; print('zest_hf' in sys.modules)"
    commands = {
        "hidden": ("zest", "run", "--", sys.executable, "-c", code),
        "bare": ("zest", "run", "--", str(bare / "bin" / "python"), "-c", code),
    }
    runs = run_all(machine, commands, HF_HUB_ENABLE_ZEST=None, PYTHONPATH=str(hidden))
    assert runs["hidden"].stdout == "the hidden one\nTrue\n"
    assert runs["bare"].stdout == "the hidden one\nFalse\n"
    assert f"not installed for {bare / 'bin' / 'python'}" in runs["bare"].stderr


def test_hub_that_cannot_start(machine: Machine, taken: str) -> None:
    (machine.root / "file").touch()
    hub = ("zest", "hub", "--state")
    commands = {
        "taken": (*hub, "hub", "--listen", taken),
        "no address": (*hub, "hub", "--listen", "nonsense"),
        "not ours": (*hub, "hub", "--listen", "203.0.113.7:80"),
        "cdn": (*hub, "hub", "--listen", "127.0.0.1:0", "--cdn-listen", "x:y"),
        "file": (*hub, "file", "--listen", "127.0.0.1:0"),
        "in a file": (*hub, "file/hub", "--listen", "127.0.0.1:0"),
    }
    lines = {name: the_line(run) for name, run in run_all(machine, commands).items()}
    assert all(line.startswith("zest hub: ") for line in lines.values())
    assert taken in lines["taken"] and "in use" in lines["taken"] and "--listen" in lines["taken"]
    assert "--listen is 'nonsense'" in lines["no address"] and "HOST:PORT" in lines["no address"]
    assert "203.0.113.7:80" in lines["not ours"] and "--listen" in lines["not ours"]
    assert "--cdn-listen is 'x:y'" in lines["cdn"]
    assert "not a directory" in lines["file"].lower() and "not a directory" in lines["in a file"].lower()


# --- zest-seed -------------------------------------------------------------------------------------------------------


def test_seed_that_cannot_start(machine: Machine, taken: str) -> None:
    (machine.root / "file").touch()
    newer = machine.root / "newer"
    newer.mkdir()
    with closing(sqlite3.connect(newer / "index.sqlite")) as index:
        index.executescript("CREATE TABLE anything (x); PRAGMA user_version = 99")
    cases: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
        "peers' port": ({"ZEST_LISTEN": taken}, ("listen for peers", taken, "in use", "set ZEST_LISTEN")),
        "not ours": ({"ZEST_LISTEN": "203.0.113.7:7"}, ("203.0.113.7:7", "set ZEST_LISTEN")),
        "status port": ({"ZEST_STATUS": taken}, ("status page", taken, "in use", "ZEST_STATUS")),
        "listen": ({"ZEST_LISTEN": "nonsense"}, ("ZEST_LISTEN='nonsense'",)),
        "home": ({"ZEST_HOME": str(machine.root / "file" / "zest")}, ("set ZEST_HOME to a writable directory",)),
        "home is a file": ({"ZEST_HOME": str(machine.root / "file")}, ("set ZEST_HOME to a writable directory",)),
        "newer index": ({"ZEST_HOME": str(newer)}, ("version 99", "upgrade zest_hf", "ZEST_HOME")),
    }
    with ThreadPoolExecutor(4) as pool:
        runs = {name: pool.submit(machine.command, "zest-seed", **environ) for name, (environ, _) in cases.items()}
    for name, (_, texts) in cases.items():
        line = the_line(runs[name].result())
        assert line.startswith("zest-seed: ") and all(text in line for text in texts), line


def test_seed_with_a_damaged_index(machine: Machine) -> None:
    home = machine.home / "zest"
    home.mkdir(parents=True)
    (home / "index.sqlite").write_bytes(b"no database at all " * 1000)
    with machine.seeder() as seeder:
        run = seeder.end(signal.SIGTERM)
    assert run.code == 0
    warning, _ = run.stderr.splitlines()
    assert "is damaged" in warning and "moved to index.sqlite.corrupt-1" in warning
    assert (home / "index.sqlite.corrupt-1").exists()


def test_seed_by_its_other_names(owner: Machine) -> None:
    for name in ("seed", "serve"):
        with owner.running("zest", name, "--no-scan") as program:
            assert "2 files of 1 repository" in program.wait_for_line("offered on")
            assert program.end(signal.SIGTERM).code == 0
