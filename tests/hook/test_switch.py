"""On, off, and what is loaded in either state."""

from __future__ import annotations

import sys

from .conftest import SIZE, Machine

OURS = "[m for m in sys.modules if m.split('.')[0] in ('zest_hf', 'zest_hf_bootstrap')]"
ONE = "from huggingface_hub import hf_hub_download; path = hf_hub_download('org/model', 'part0.safetensors');"


def test_off_loads_nothing_of_ours(machine: Machine) -> None:
    for value in (None, "off"):
        run = machine.python(ONE + f"show(ours={OURS}, size=size(path))", HF_HUB_ENABLE_ZEST=value)
        assert run.shown == {"ours": [], "size": SIZE}
        machine.root.joinpath("home").rename(machine.root / f"home {value}")


def test_on_through_the_environment(machine: Machine) -> None:
    for value in ("true", "YES", "On"):
        run = machine.python("show(ours='zest_hf.hook' in sys.modules)", HF_HUB_ENABLE_ZEST=value)
        assert run.shown == {"ours": True}
    run = machine.python(ONE + "show(total=total(), size=size(path))")
    assert run.shown == {"total": SIZE, "size": SIZE}
    assert run.warnings == []


def test_starting_an_interpreter_loads_next_to_nothing(machine: Machine) -> None:
    heavy = "[m for m in ('huggingface_hub', 'requests', 'logging', 'typing') if m in sys.modules]"
    run = machine.command(sys.executable, "-c", f"import sys; print({OURS}, {heavy})")
    assert (
        run.stdout.strip()
        == str(["zest_hf_bootstrap", "zest_hf", "zest_hf.hook.switch", "zest_hf.hook"]) + " []"
    )


def test_import_is_light_and_status_is_all_zeros(machine: Machine) -> None:
    code = "import zest_hf; bytes = zest_hf.status()['bytes']\n"
    code += f"show(ours={OURS}, hub='huggingface_hub' in sys.modules, bytes=bytes)"
    run = machine.python(code, HF_HUB_ENABLE_ZEST=None)
    assert set(run.shown["ours"]) <= {"zest_hf", "zest_hf.hook", "zest_hf.hook.switch"}
    assert not run.shown["hub"]
    assert run.shown["bytes"] == {"local": 0, "peer": 0, "cdn": 0, "total": 0}


def test_loading_leaves_the_garbage_collection_as_it_was(machine: Machine) -> None:
    for before in ("enable", "disable"):
        code = f"""
import gc
import huggingface_hub as hub
gc.{before}()
was = gc.isenabled()
hub.snapshot_download('org/model', local_dir={f"files of {before}"!r})
show(same=gc.isenabled() == was)
"""
        assert machine.python(code).shown == {"same": True}


def test_enable_before_and_after_the_import_and_disable(machine: Machine) -> None:
    code = """
import zest_hf
early = sys.argv[-1] == "early"
if early: zest_hf.enable(); zest_hf.enable()
import huggingface_hub.file_download as fd, huggingface_hub.hf_file_system as fs
if not early:
    names = {m: (m.xet_get, m.is_xet_available) for m in (fd, fs)}
    mover = fd._download_to_tmp_and_move
    zest_hf.enable(); zest_hf.enable()
replaced = fd.xet_get
on = [fs.xet_get is replaced, replaced.__module__ == fd.__name__, hasattr(replaced, "__wrapped__")]
zest_hf.disable(); zest_hf.disable()
off = [hasattr(f, "__wrapped__") for f in (fd.xet_get, fs.xet_get, fd._download_to_tmp_and_move)]
same = early or fd._download_to_tmp_and_move is mover
same = same and (early or all((m.xet_get, m.is_xet_available) == n for m, n in names.items()))
zest_hf.enable()
again = fd.xet_get is replaced
loader = type(fd.__spec__.loader).__module__
zest_hf.disable()
show(on=on, off=off, same=same, again=again, loader=loader, found=[type(f).__module__ for f in sys.meta_path])
"""
    for when in ("early", "late"):
        run = machine.python(f"sys.argv.append({when!r})\n{code}", HF_HUB_ENABLE_ZEST=None)
        shown = run.shown
        assert shown["on"] == [True, True, True], when
        assert shown["off"] == [False, False, False]
        assert shown["same"] and shown["again"]
        assert "zest_hf" not in shown["loader"]
        assert not any("zest_hf.hook" in module for module in shown["found"])


def test_pull_is_enabled_for_the_call_only(machine: Machine) -> None:
    code = """
import zest_hf
path = zest_hf.pull("org/model", allow_patterns=("part0*", "part1*"))
import huggingface_hub.file_download as fd
show(files=sorted(os.listdir(path)), total=total(), patched=hasattr(fd.xet_get, "__wrapped__"),
     enabled=zest_hf.status()["enabled"])
"""
    run = machine.python(code, HF_HUB_ENABLE_ZEST=None)
    assert run.shown == {
        "files": ["part0.safetensors", "part1.safetensors"],
        "total": 2 * SIZE,
        "patched": False,
        "enabled": False,
    }


def test_pull_of_a_data_set_at_a_revision(machine: Machine) -> None:
    run = machine.python(
        "import zest_hf; p = zest_hf.pull('org/data', revision='main', repo_type='dataset', "
        "allow_patterns='part3*', local_dir='here'); show(size=size(p + '/part3.safetensors'), total=total())"
    )
    assert run.shown == {"size": SIZE, "total": SIZE}


def test_the_hubs_own_switch_wins(machine: Machine) -> None:
    run = machine.python(ONE + "show(total=total(), size=size(path))", HF_HUB_DISABLE_XET="1")
    assert run.shown == {"total": 0, "size": SIZE}
    assert len(run.warnings) == 1 and "HF_HUB_DISABLE_XET" in run.warnings[0]


def test_offline_means_no_request_at_all(machine: Machine) -> None:
    assert machine.python(ONE).code == 0
    machine.hub.reset_stats()
    run = machine.python(ONE + "show(size=size(path))", HF_HUB_OFFLINE="1")
    assert run.shown == {"size": SIZE}
    assert run.warnings == []
    assert machine.hub.stats()["hub_requests"] == 0


def test_an_unknown_signature_is_left_alone(machine: Machine) -> None:
    code = """
import huggingface_hub.file_download as fd
def xet_get(*, incomplete_path, xet_file_data, headers, something_new): ...
fd.xet_get = xet_get
import zest_hf
zest_hf.enable(); zest_hf.enable()
show(kept=fd.xet_get is xet_get)
"""
    run = machine.python(code, HF_HUB_ENABLE_ZEST=None)
    assert run.shown == {"kept": True}
    assert len(run.warnings) == 1 and "unknown" in run.warnings[0]
