"""What a user gets when something of ours fails."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .conftest import NAMES, SIZE, Machine, content

HUB = "import huggingface_hub as hub\n"
SHOW = "show(path=path, total=total())"
ONE = HUB + "path = hub.hf_hub_download('org/model', 'part0.safetensors')\n" + SHOW
GET = HUB + "hub.HfFileSystem().get_file('org/model/part0.safetensors', 'out'); path = 'out'\n" + SHOW
TWO = (
    HUB
    + """
paths = [hub.hf_hub_download('org/model', f'part{n}.safetensors') for n in range(2)]
show(sizes=[size(path) for path in paths], total=total())
"""
)
NO_NATIVE = "sys.modules['zest_hf._native._zest'] = None\n"


def no_token_for_us(machine: Machine) -> None:
    """Ours is the first request for a token; the Hub's own download makes the second."""
    machine.hub.fault("hub", "status", status=404, match="xet-read-token", times=1)


@pytest.mark.parametrize("code", [ONE, GET])
def test_one_warning_with_the_reason_and_the_whole_file(machine: Machine, code: str) -> None:
    no_token_for_us(machine)
    run = machine.python(code)
    assert run.code == 0, run.stderr
    assert (machine.root / run.shown["path"]).read_bytes() == content("part0.safetensors")
    assert run.shown["total"] == 0
    assert len(run.warnings) == 1
    assert "404" in run.warnings[0]
    assert run.warnings[0].startswith("zest_hf: ")
    assert run.warnings[0].rpartition("; ")[2].startswith("using the normal download for ")
    assert run.warnings[0].endswith("part0.safetensors")
    assert machine.left_behind() == []


def test_later_files_are_tried_again(machine: Machine) -> None:
    no_token_for_us(machine)
    run = machine.python(TWO)
    assert run.shown == {"sizes": [SIZE, SIZE], "total": SIZE}
    assert len(run.warnings) == 1


def test_the_bars_begin_again(machine: Machine) -> None:
    no_token_for_us(machine)
    code = HUB + "hub.snapshot_download('org/model', allow_patterns='part0*')"
    run = machine.python(code, HF_HUB_DISABLE_PROGRESS_BARS=None, TQDM_POSITION="-1")
    assert len(run.warnings) == 1
    assert re.search(r"complete: 100%.* 300kB / +300kB", run.stderr)
    assert "600kB" not in run.stderr


@pytest.mark.parametrize("setting", ["ZEST_LISTEN", "ZEST_PEERS", "ZEST_STRICT"])
def test_a_bad_setting_is_named_once(machine: Machine, setting: str) -> None:
    run = machine.python(TWO, **{setting: "non sense"})
    assert run.shown == {"sizes": [SIZE, SIZE], "total": 0}
    assert len(run.warnings) == 1
    assert setting in run.warnings[0] and "non sense" in run.warnings[0]


def test_no_native_module_is_said_once(machine: Machine) -> None:
    run = machine.python(NO_NATIVE + TWO)
    assert run.shown == {"sizes": [SIZE, SIZE], "total": 0}
    assert len(run.warnings) == 1
    assert "native module" in run.warnings[0]


def test_without_hf_xet_a_plain_download_remains(machine: Machine) -> None:
    hidden = "import huggingface_hub.utils._runtime as r; r._package_versions['hf_xet'] = 'N/A'\n"
    hidden += "sys.modules['hf_xet'] = None\n"
    run = machine.python(hidden + ONE, ZEST_STRICT="on")
    assert run.shown["total"] == SIZE
    machine.home.rename(machine.root / "first")
    for code in (ONE, GET):
        no_token_for_us(machine)
        run = machine.python(hidden + code)
        assert run.shown["total"] == 0
        assert (machine.root / run.shown["path"]).read_bytes() == content("part0.safetensors")
        assert len(run.warnings) == 1
    machine.home.rename(machine.root / "second")
    run = machine.python(hidden + NO_NATIVE + TWO)
    assert run.shown == {"sizes": [SIZE, SIZE], "total": 0}
    assert len(run.warnings) == 1


def test_a_zest_home_that_cannot_be_made(machine: Machine) -> None:
    (machine.root / "file").write_text("")
    run = machine.python(TWO, ZEST_HOME=str(machine.root / "file" / "zest"))
    assert run.shown["sizes"] == [SIZE, SIZE]
    assert len(run.warnings) <= 2
    assert "Traceback" not in run.stderr


def test_strict_raises(machine: Machine) -> None:
    no_token_for_us(machine)
    code = """
from zest_hf import ZestError
try:
    hub.hf_hub_download('org/model', 'part0.safetensors')
except ZestError as error:
    show(kind=type(error).__name__, value=isinstance(error, ValueError), text=str(error))
"""
    run = machine.python(HUB + code, ZEST_STRICT="on")
    assert run.shown["kind"] == "CasNotFound" and not run.shown["value"]
    assert "404" in run.shown["text"]
    assert run.warnings == []
    machine.hub.clear_faults()
    run = machine.python(HUB + code, ZEST_STRICT="on", ZEST_LISTEN="nonsense")
    assert run.shown["kind"] == "ConfigError"
    assert machine.left_behind() == []


@pytest.mark.parametrize("code", [ONE, GET])
def test_wrong_content_never_gets_a_final_name(machine: Machine, code: str) -> None:
    for place in range(len(NAMES)):  # the files lie in one xorb, in whichever order
        machine.hub.fault("cdn", "corrupt", offset=place * SIZE + SIZE // 2)
    run = machine.python(f"try: exec({code!r})\nexcept OSError as error: show(error=str(error))")
    assert "does not match the hash" in run.shown["error"]
    assert "\n" not in run.shown["error"]
    assert not [p for p in machine.root.rglob("*") if p.is_file() and p.stat().st_size == SIZE]
    assert machine.left_behind() == []


def test_errors_of_the_hubs_own_download_come_through(machine: Machine) -> None:
    machine.hub.fault("hub", "status", status=403, match="xet-read-token")
    plain = machine.python(ONE, HF_HUB_ENABLE_ZEST=None)
    ours = machine.python(ONE)
    assert plain.code == ours.code == 1
    assert plain.stderr.splitlines()[-1].split(":")[0] == ours.stderr.splitlines()[-1].split(":")[0]
    assert "During handling" not in ours.stderr.partition("zest_hf:")[2].partition("zest_hf/errors")[0]
    assert len(ours.warnings) == 1
    assert machine.left_behind() == []


def test_an_interrupt_passes(machine: Machine) -> None:
    code = """
from huggingface_hub.utils import tqdm
class Interrupting(tqdm):
    def update(self, n=1): raise KeyboardInterrupt
try:
    hub.hf_hub_download('org/model', 'part0.safetensors', tqdm_class=Interrupting)
except KeyboardInterrupt:
    show(interrupted=True)
"""
    run = machine.python(HUB + code, HF_HUB_DISABLE_PROGRESS_BARS=None)
    assert run.shown == {"interrupted": True}
    assert run.warnings == []
    assert machine.left_behind() == []
    assert not list(Path(machine.home, "hub").rglob("part0.safetensors"))


def test_many_files_at_once_while_the_cas_is_down(machine: Machine) -> None:
    machine.hub.fault("hub", "status", status=404, match="xet-read-token", times=1)
    run = machine.python(HUB + "path = hub.snapshot_download('org/model'); show(path=path)")
    for name in NAMES:
        assert (Path(run.shown["path"]) / name).read_bytes() == content(name)
    assert len(run.warnings) == len(set(run.warnings)) <= len(NAMES)
