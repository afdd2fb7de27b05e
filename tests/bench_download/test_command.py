"""`zest bench download` as a program: real downloads, and what is wrong with its arguments."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from zest_hf.bench.downloads import processes
from zest_hf.cli import main

ZEST = Path(sys.executable).parent / "zest"
FILES = 2
ALL = ["hf_xet", "zest", "zest-peer", "aria2", "libtorrent", "tcp"]


def bench(*arguments: object, timeout_s: float = 110, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [str(ZEST), "bench", "download", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env={**os.environ, **settings})


def present(names: Sequence[str]) -> list[str]:
    def is_here(name: str) -> bool:
        if name == "aria2":
            return shutil.which("aria2c") is not None
        return name not in ("hf_xet", "libtorrent") or importlib.util.find_spec(name) is not None

    return [name for name in names if is_here(name)]


def test_a_tiny_run_of_everything(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = bench("--megabytes", 2, "--runs", 1, "--files", FILES, "--dir", tmp_path, "--json", figures)
    assert done.returncode == 0, done.stderr
    value = json.loads(figures.read_text())
    cases = value["cases"]
    assert list(cases) == present(ALL)
    assert (value["bytes"], value["files"], value["base"]) == (2_000_000, FILES, "hf_xet")
    assert not value["trusted"] and any("1 round" in reason for reason in value["reasons"])
    for name, case in cases.items():
        (only,) = case["runs"]
        assert 0 < only["call_s"] <= only["process_s"], name
        assert only["cpu_s"] > 0, name
        if name != "aria2":  # which may be gone before its memory was looked at for the first time
            assert 5e6 < only["peak_bytes"] < 1e9, name
        assert 5e6 < only["server_peak_bytes"] < 1e9, name
        assert case["title"] in done.stdout
    for name in ("hf_xet", "zest"):
        assert 1_000_000 < cases[name]["medians"]["cdn_bytes"] < 2_500_000
        assert cases[name]["medians"]["cas_requests"] >= FILES
    # Who has a peer takes everything from there, and those who know nothing of a Hub ask none.
    assert cases["zest-peer"]["medians"]["cdn_bytes"] == 0
    assert cases["zest-peer"]["medians"]["hub_requests"] > 0
    assert cases["tcp"]["medians"]["hub_requests"] == 0
    assert "zest_hf, one peer" in done.stdout and "NOT to be trusted" in done.stdout
    # Nothing is left behind but the figures.
    assert list(tmp_path.iterdir()) == [figures]


def test_a_run_over_tls_with_json_on_stdout(tmp_path: Path) -> None:
    names = present(["hf_xet", "zest", "zest-peer"])
    size = ("--megabytes", 2, "--runs", 1, "--files", 1)
    done = bench(*size, "--tls", "--only", ",".join(names), "--json", "--dir", tmp_path)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["options"]["tls"] is True
    assert list(value["cases"]) == names
    assert value["cases"]["zest"]["medians"]["cdn_bytes"] > 1_000_000
    assert value["cases"]["zest-peer"]["medians"]["cdn_bytes"] == 0


def test_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "bench.png"
    done = bench("--megabytes", 1, "--runs", 1, "--only", "tcp", "--plot", picture)
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_kernels(tmp_path: Path) -> None:
    done = bench("--synthetic", "--megabytes", 4, "--runs", 2, "--json", "--dir", tmp_path)
    assert done.returncode == 0, done.stderr
    rates: dict[str, Any] = json.loads(done.stdout)["mb_s"]
    assert {"cut into chunks", "decode bg4-LZ4", "decode bg4-LZ4, every chunk proved"} <= set(rates)
    for name, rate in rates.items():
        assert 1 < rate["low"] <= rate["median"] <= rate["high"] < 1e6, name
    table = bench("--synthetic", "--megabytes", 1, "--runs", 1)
    assert table.returncode == 0 and "cut a file into chunks and hash it" in table.stdout


def test_who_is_not_installed_is_left_out(tmp_path: Path) -> None:
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'hf_xet' else find(name, *a)\n"
        "from zest_hf.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    size = ["--megabytes", "1", "--runs", "1", "--files", "1", "--dir", str(tmp_path)]
    command = [sys.executable, "-c", code, "bench", "download", *size, "--only", "hf_xet,tcp", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert "hf_xet is left out: no hf_xet in this environment: pip install hf_xet\n" in done.stderr
    assert list(json.loads(done.stdout)["cases"]) == ["tcp"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--runs", "0"], "--runs is 0, accepted is 1 to 1,000"),
        (["--runs=-1"], "--runs is -1, accepted is 1 to 1,000"),
        (["--megabytes", "0"], "--megabytes is 0, accepted is 1 to 1,000,000"),
        (["--files", "0"], "--files is 0, accepted is 1 to 100,000"),
        (["--files", "5000", "--megabytes", "1"], "--files is 5000, too many for 1.0 MB"),
        (["--only", "hf_xet,curl"], "--only has 'curl', accepted are hf_xet, zest, zest-peer"),
        (["--only", ""], "--only has '', accepted are"),
        (["--dir", "/none/such"], "/none/such cannot be used: No such file or directory"),
        (["--dir", "/proc/version"], "/proc/version cannot be used: Not a directory"),
        (["--megabytes", "1000000"], "left, and it takes 5.0 TB: name another directory with --dir"),
        (["--json", "/none/such.json"], "/none/such.json cannot be written: No such file or directory"),
        (["--synthetic", "--tls"], "--tls is for downloads, and --synthetic makes none"),
        (["--synthetic", "--only", "zest"], "--only is for downloads, and --synthetic makes none"),
        (["--delay-ms=-1"], "--delay-ms is -1, accepted is 0 to 2000"),
        (["--loss", "nan"], "--loss is nan, accepted is 0 to 0.5"),
        (["--mbit", "0"], "--mbit is 0, accepted is 1 to 500"),
        (["--synthetic", "--delay-ms", "0"], "--delay-ms is for downloads, and --synthetic makes none"),
        (["--synthetic", "--megabytes", "5000"], "--megabytes is 5000, accepted is 1 to 4,000"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "download", *arguments]) == 1
    out, err = capsys.readouterr()
    said = [each for each in err.splitlines() if "is left out" not in each]
    assert out == "" and len(said) == 1, err
    assert said[0].startswith("zest: ") and line in said[0]


@pytest.mark.parametrize("name", ["bench.txt", "none/bench.png"])
def test_a_picture_that_cannot_be_written_is_said_at_once(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    assert main(["bench", "download", "--only", "tcp", "--plot", str(tmp_path / name)]) == 1
    assert str(tmp_path / name) in capsys.readouterr().err


def test_what_is_no_number_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "download", "--runs", "many"])
    assert ended.value.code == 2
    assert "--runs: invalid int value: 'many'" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["matplotlib", "trustme", "httptools"])
def test_a_missing_library_names_the_extra(module: str) -> None:
    needs = "--plot x.png" if module == "matplotlib" else "--tls"
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        f"sys.modules[{module!r}] = None\n"
        f"u.find_spec = lambda name, *a: None if name == {module!r} else find(name, *a)\n"
        "from zest_hf.cli import main\n"
        f"sys.exit(main('bench download --megabytes 1 --only tcp {needs}'.split()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    extra = "hub" if module == "httptools" else "bench"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].endswith(f'pip install "zest_hf[{extra}]"')
    assert module in done.stderr


def test_told_to_end_it_leaves_nothing(tmp_path: Path) -> None:
    endless = ["--megabytes", "2", "--runs", "1000", "--only", "tcp", "--dir", str(tmp_path)]
    with subprocess.Popen([str(ZEST), "bench", "download", *endless], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "does not count" not in (line := process.stderr.readline()):
            assert line, "it ended before"
        below = list(processes.tree(process.pid))[1:]
        assert below  # the Hub and who gives, at least
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 1
        assert process.stderr.read().splitlines()[-1] == "zest: interrupted"
    assert list(tmp_path.iterdir()) == []
    assert [pid for pid in below if processes.peak_bytes(pid)] == []
