"""Every way into huggingface_hub's Xet downloads leads through the engine."""

from __future__ import annotations

import sys
from pathlib import Path

from .conftest import NAMES, OWNER, SIZE, Machine, content

HUB = "import huggingface_hub as hub\n"


CALLS = (
    "hub.hf_hub_download('org/model', 'part0.safetensors')",
    "hub.hf_hub_download('org/model', 'part1.safetensors', local_dir='a')",
    "hub.hf_hub_download('org/data', 'part2.safetensors', repo_type='dataset')",
    "hub.HfApi().hf_hub_download('org/model', 'part3.safetensors')",
    "hub.snapshot_download('org/model', allow_patterns='part4*') + '/part4.safetensors'",
    "hub.snapshot_download('org/model', allow_patterns='part5*', local_dir='b') + '/part5.safetensors'",
    "'six' if hub.HfFileSystem().get_file('org/model/part6.safetensors', 'six') is None else ''",
    "'seven' if not hub.HfFileSystem().get('datasets/org/data/part7.safetensors', 'seven') else ''",
)


def test_every_call_goes_through_the_engine(machine: Machine) -> None:
    code = HUB + "done = []\n"
    for call in CALLS:
        code += f"path = {call}; done.append((os.path.abspath(path), total()))\n"
    run = machine.python(code + "show(done=done)", ZEST_STRICT="on")
    for number, (path, total) in enumerate(run.shown["done"]):
        assert total == (number + 1) * SIZE, CALLS[number]
        assert Path(path).read_bytes() == content(NAMES[number]), CALLS[number]
    assert run.warnings == []
    assert machine.left_behind() == []


def test_the_command_line(machine: Machine) -> None:
    hf = str(Path(sys.executable).with_name("hf"))
    command = (hf, "download", "org/model", "part1.safetensors", "--local-dir", "here")
    run = machine.command(*command, ZEST_STRICT="on", ZEST_LISTEN="nonsense")
    assert run.code != 0 and "ZEST_LISTEN" in run.stdout + run.stderr
    run = machine.command(*command, ZEST_STRICT="on")
    assert run.code == 0, run.stderr
    assert (machine.root / "here" / "part1.safetensors").read_bytes() == content("part1.safetensors")


def test_force_download_downloads_again(machine: Machine) -> None:
    code = """
path = hub.hf_hub_download('org/model', 'part0.safetensors')
real = os.path.realpath(path)
os.chmod(real, 0o644)
with open(real, 'r+b') as file: file.write(b'damaged')
path = hub.hf_hub_download('org/model', 'part0.safetensors', force_download=True)
show(path=path, total=total())
"""
    run = machine.python(HUB + code, ZEST_STRICT="on")
    assert run.shown["total"] == 2 * SIZE
    assert Path(run.shown["path"]).read_bytes() == content("part0.safetensors")


def test_get_file_replaces_what_is_there(machine: Machine) -> None:
    (machine.root / "real").write_bytes(b"x" * 2 * SIZE)
    (machine.root / "link").symlink_to("real")
    run = machine.python(
        HUB + "hub.HfFileSystem().get_file('org/model/part0.safetensors', 'link'); show(total=total())"
    )
    assert run.shown["total"] == SIZE
    assert (machine.root / "link").is_symlink()
    assert (machine.root / "real").read_bytes() == content("part0.safetensors")


def test_a_snapshot_asks_for_one_token_and_once_for_visibility(machine: Machine) -> None:
    code = HUB + "path = hub.snapshot_download('org/model', max_workers=8); show(path=path, total=total())"
    run = machine.python(code)
    assert run.shown["total"] == len(NAMES) * SIZE
    for name in NAMES:
        assert (Path(run.shown["path"]) / name).read_bytes() == content(name)
    assert machine.hub.stats()["by_route"]["GET xet-read-token"]["requests"] == 1
    machine.hub.reset_stats()
    machine.home.rename(machine.root / "first")
    machine.python(code, HF_TOKEN=OWNER)
    # With a token in the first request, a second one without it may be needed to see who else may read.
    assert machine.hub.stats()["by_route"]["GET xet-read-token"]["requests"] <= 2


def test_the_hubs_progress_bars(machine: Machine) -> None:
    code = HUB + "hub.hf_hub_download('org/model', 'part0.safetensors')"
    visible = {"HF_HUB_DISABLE_PROGRESS_BARS": None, "TQDM_POSITION": "-1"}
    ours = machine.python(code, **visible).stderr
    machine.home.rename(machine.root / "first")
    theirs = machine.python(code, HF_HUB_ENABLE_ZEST=None, **visible).stderr
    for text in ("part0.safetensors: reconstructing file: 100%", "part0.safetensors: downloading bytes"):
        assert text in ours and text in theirs
    machine.home.rename(machine.root / "second")
    assert machine.python(code).stderr == ""


def test_a_progress_bar_that_breaks_does_no_harm(machine: Machine) -> None:
    code = """
from huggingface_hub.utils import tqdm
class Broken(tqdm):
    def update(self, n=1): raise RuntimeError("broken bar")
path = hub.hf_hub_download('org/model', 'part0.safetensors', tqdm_class=Broken)
show(size=size(path), total=total())
"""
    run = machine.python(HUB + code)
    assert run.shown == {"size": SIZE, "total": SIZE}
    assert run.warnings == []


def test_a_forked_child_downloads_too(machine: Machine) -> None:
    code = """
import signal
hub.hf_hub_download('org/model', 'part0.safetensors')
pid = os.fork()
if pid == 0:
    signal.alarm(30)
    hub.hf_hub_download('org/model', 'part1.safetensors')
    os._exit(0)
show(status=os.waitpid(pid, 0)[1])
"""
    run = machine.python(HUB + code)
    assert run.shown == {"status": 0}
    assert run.warnings == []
