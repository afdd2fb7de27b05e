"""What users see while files come: on a terminal, on none, and in a notebook."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import nbformat
import pytest
from machines import RUN_TIMEOUT_S, Machine
from nbclient import NotebookClient

from zest_hf.hub.process import HubProcess

from .conftest import CONTENT, OWNER, MakeMachine, sha256

BARS_ON = {"HF_HUB_DISABLE_PROGRESS_BARS": None, "TERM": "xterm"}


def on_a_terminal(machine: Machine, *command: str, columns: int = 100, **environ: str | None) -> str:
    """What a command writes to a terminal of this width; it has to succeed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    program = str(Path(sys.executable).parent / command[0])
    # Where they are set they go before what the terminal says.
    env = machine._env({**BARS_ON, "COLUMNS": None, "LINES": None, **environ})
    process = subprocess.Popen([program, *command[1:]], env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    out = bytearray()
    try:
        while some := os.read(ours, 1 << 16):
            out += some
    except OSError:  # how a terminal says that nobody is there any more
        pass
    os.close(ours)
    assert process.wait(RUN_TIMEOUT_S) == 0, out
    return out.decode()


def last_lines(text: str) -> list[str]:
    """What stays on the screen: bars go back to the start of their line, and up to that of another one."""
    lines = [""]
    row = column = 0
    for part in re.findall(r"\x1b\[A|\x1b\[[0-9;]*[a-zA-Z]|[\r\n]|[^\x1b\r\n]+", text):
        if part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part == "\x1b[A":
            row = max(0, row - 1)
        elif not part.startswith("\x1b"):
            before = lines[row].ljust(column)
            lines[row] = before[:column] + part + before[column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]


def screen_of(text: str) -> list[str]:
    """What there is to be seen at the end, down to the last line that is not empty; no line is to be wrapped."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[A|[^\x1b]", text):
        if part == "\x1b[A":
            row -= 1
        elif part == "\r":
            column = 0
        elif part == "\n":  # the terminal has a \r before each
            row += 1
            lines += [""] * (row + 1 - len(lines))
        else:
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + 1 :]
            column += 1
        assert row >= 0
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.rstrip() for line in lines]


def test_what_stays_of_many_bars(hub: HubProcess, machine: Machine) -> None:
    """Each file in a line of its own, nothing of a bar that was drawn before, and at the end what was done."""
    folder = machine.root / "files"
    folder.mkdir()
    names = [f"weights-{number}.bin" for number in range(10)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(random.Random(name).randbytes(1_000_000 + 200_000 * number))
    code = f"""
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("org/bars")
api.upload_folder(repo_id="org/bars", folder_path={str(folder)!r})
"""
    assert machine.python(code, HF_TOKEN=OWNER, HF_HUB_ENABLE_ZEST=None).code == 0
    hub.fault("cdn", "rate", bytes_per_second=6_000_000)
    lines = screen_of(on_a_terminal(machine, "zest", "pull", "org/bars", columns=200))
    assert len(lines) == len(names) + 4, lines
    assert sorted(line.partition(": 100%|")[0] for line in lines[: len(names)]) == names
    assert lines[-4].startswith("Fetching 10 files: 100%|") and lines[-3].startswith("Reconstruction complete: 100%|")
    assert lines[-2].startswith("/") and lines[-1].endswith(" from this machine")


@pytest.mark.parametrize("columns", [100, 50])
def test_pull_has_a_bar_for_each_file(owner: Machine, make: MakeMachine, columns: int) -> None:
    with owner.seeder() as seeder:
        text = on_a_terminal(make("B"), "zest", "pull", "org/model", columns=columns, ZEST_PEERS=seeder.address)
    name = "model.safetensors" if columns == 100 else "(…)fetensors"
    (bar,) = (line for line in last_lines(text) if f"{name}: 100%" in line)
    assert "6.00MB, peers 6.00MB"[: columns // 3] in bar and len(bar) <= columns
    # Small ones come and go.
    assert "vocabulary.bin: " not in text
    assert not any(len(line) > columns for line in last_lines(text) if "%|" in line)
    # What is printed at the end stands by itself.
    (path,) = (line for line in last_lines(text) if "/snapshots/" in line)
    assert path.startswith("/") and path.strip().rpartition("/snapshots/")[2].isalnum()
    assert "6.3 MB from peers, 0 B from the CDN" in text


def test_what_was_begun_is_shown_as_being_here(hub: HubProcess, machine: Machine) -> None:
    on_a_terminal(machine, "zest", "pull", "org/model")
    text = on_a_terminal(machine, "zest", "pull", "org/model", "--force-download")
    (bar,) = (line for line in last_lines(text) if "model.safetensors: 100%" in line)
    assert "here 6.00MB" in bar


def test_bars_that_are_switched_off_stay_off(machine: Machine) -> None:
    text = on_a_terminal(machine, "zest", "pull", "org/model", HF_HUB_DISABLE_PROGRESS_BARS="1")
    assert "%|" not in text and "6.3 MB from the CDN" in text


def test_no_bars_where_there_is_no_terminal(machine: Machine) -> None:
    done = machine.command("zest", "pull", "org/model", **BARS_ON)
    assert done.code == 0
    assert done.stderr == "6.3 MB downloaded: 0 B from peers, 6.3 MB from the CDN, 0 B from this machine\n"


def test_no_colours(machine: Machine) -> None:
    text = on_a_terminal(machine, "zest", "pull", "org/model", NO_COLOR="1")
    assert "\x1b[" not in text.replace("\x1b[A", "")  # one line up


def test_the_hubs_own_bars_say_it_as_well(machine: Machine) -> None:
    code = "import huggingface_hub as hub; hub.hf_hub_download('org/model', 'model.safetensors')"
    text = on_a_terminal(machine, Path(sys.executable).name, "-c", code)
    assert any("6.00MB" in line and "CDN 6.00MB" in line for line in last_lines(text))


def test_scan_has_a_bar(machine: Machine) -> None:
    done = machine.python("import huggingface_hub as hub; hub.snapshot_download('org/model')", HF_HUB_ENABLE_ZEST=None)
    assert done.code == 0
    text = on_a_terminal(machine, "zest", "scan")
    assert any("100%" in line and "6.30M" in line for line in last_lines(text))
    assert "2 of them new" in text
    assert "%|" not in on_a_terminal(machine, "zest", "scan")


NOTEBOOK = (
    "%load_ext zest_hf",
    "import huggingface_hub as hub, hashlib, zest_hf\npath = hub.hf_hub_download('org/model', 'model.safetensors')",
    "print(hashlib.sha256(open(path, 'rb').read()).hexdigest(), zest_hf.status()['bytes']['cdn'])",
    "%unload_ext zest_hf\nprint(zest_hf.status()['enabled'])",
)


def test_a_notebook(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real kernel, as Jupyter runs it."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in NOTEBOOK])
    for name in [name for name in os.environ if name.startswith(("HF_", "ZEST_"))]:
        monkeypatch.delenv(name)
    environ = machine._env({"HF_HUB_ENABLE_ZEST": None, **BARS_ON, "IPYTHONDIR": str(machine.root / "ipython")})
    NotebookClient(notebook, timeout=RUN_TIMEOUT_S, kernel_name="python3").execute(env=environ)
    texts = [
        "".join(one.get("text", "") for one in cell.outputs if one.get("name") == "stdout") for cell in notebook.cells
    ]
    size = len(CONTENT["model.safetensors"])
    assert texts[2].split() == [sha256(CONTENT["model.safetensors"]), str(size)]
    assert texts[3].strip() == "False"
    # The Hub's bars are widgets there.
    shown = [value["state"].get("value") for value in notebook.metadata.widgets.popitem()[1]["state"].values()]
    assert any("CDN 6.00MB" in str(text).replace("\u2007", " ") for text in shown)
    assert float(size) in shown


def test_ipython(machine: Machine) -> None:
    code = "get_ipython().run_line_magic('load_ext', 'zest_hf'); import zest_hf; print(zest_hf.status()['enabled'])"
    done = machine.command("ipython", "--colors=NoColor", "-c", code, HF_HUB_ENABLE_ZEST=None)
    assert done.code == 0 and done.stdout.strip().endswith("True"), done
