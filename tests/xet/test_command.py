"""`zest xet`."""

from __future__ import annotations

import json
import random
from pathlib import Path

import hf_xet
import pytest

from zest_hf import xet
from zest_hf.cli import main
from zest_hf.hub.process import HubProcess

from .conftest import RunPython

DATA = random.Random(61).randbytes(700_000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(DATA)
    return path


def test_hash(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = hf_xet.hash_files([str(file)])[0].hash
    assert main(["xet", "hash", str(file), str(file)]) == 0
    assert capsys.readouterr().out == f"{wanted}  {file}\n" * 2
    assert main(["xet", "hash", "--json", "--threads", "1", str(file)]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(file), "hash": wanted, "size": len(DATA)}
    assert main(["xet", "hash", "--early", str(file)]) == 0
    assert capsys.readouterr().out.split()[0] == xet.hash_to_text(xet.hash_file(file, xet.RULE_EARLY).file_hash())


def test_chunks(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["xet", "chunks", str(file), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = [{"offset": c.offset, "length": len(c), "hash": xet.hash_to_text(c.hash)} for c in xet.chunk(DATA)]
    assert rows == found
    assert main(["xet", "chunks", str(file)]) == 0
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == [row["hash"] for row in rows]


@pytest.mark.parametrize("footer", [False, True])
def test_unpack(tmp_path: Path, capsys: pytest.CaptureFixture[str], footer: bool) -> None:
    path, out = tmp_path / "xorb", tmp_path / "out"
    pieces = [piece.data for piece in xet.chunk(DATA)]
    path.write_bytes(xet.pack_xorb(pieces, footer=footer))
    assert main(["xet", "unpack", str(path), "-o", str(out)]) == 0
    assert out.read_bytes() == DATA
    assert f"{len(pieces)} chunks" in capsys.readouterr().out
    assert main(["xet", "unpack", str(path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(pieces)
    assert main(["xet", "unpack", str(path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["footer"], answer["size"], len(answer["chunks"])) == (footer, len(DATA), len(pieces))


def test_unpack_to_stdout(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    path = tmp_path / "xorb"
    path.write_bytes(xet.pack_xorb([DATA[:1000]]))
    assert main(["xet", "unpack", str(path), "-o", "-"]) == 0
    assert capfdbinary.readouterr().out == DATA[:1000]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hash", "{dir}/none"], "none: No such file or directory"),
        (["hash", "{dir}"], "Is a directory"),
        (["hash", "--threads", "0", "{file}"], "1 to 64 threads"),
        (["chunks", "{dir}/none"], "No such file"),
        (["unpack", "{file}"], "malformed xorb"),
        (["unpack", "{empty}"], "holds no chunk"),
        (["unpack", "{sparse}"], "larger than a xorb can be"),
        (["upload", "{dir}/none", "--repo", "org/x"], "no such file or folder"),
        (["upload", "{file}", "--repo", "org/x", "--parallel", "0"], "--parallel is 0"),
    ],
)
def test_bad_input_is_one_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").touch()
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(10 << 30)
    names = {"dir": tmp_path, "file": file, "empty": tmp_path / "empty", "sparse": tmp_path / "sparse"}
    assert main(["xet", *(argument.format(**names) for argument in arguments)]) == 1
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_without_a_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["xet"]) == 2
    assert "upload" in capsys.readouterr().err


UPLOAD = """
import contextlib, io
from zest_hf.cli import main
out, err = io.StringIO(), io.StringIO()
with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    code = main(["xet", "upload", *sys.argv[1:]])
report([code, out.getvalue(), err.getvalue()])
"""


def test_upload_says_what_it_did(hub: HubProcess, file: Path, run_python: RunPython) -> None:
    code, out, _ = run_python(UPLOAD, hub.endpoint, str(file), "--repo", "org/cmd", "--json")
    answer = json.loads(out)
    assert code == 0 and answer["bytes"]["new"] == answer["bytes"]["total"] == len(DATA)
    assert answer["files"][0]["hash"] == hf_xet.hash_files([str(file)])[0].hash
    code, out, _ = run_python(UPLOAD, hub.endpoint, str(file), "--repo", "org/cmd2")
    assert code == 0 and "0 of them new, 0 sent" in out


@pytest.mark.parametrize(
    ("repo", "endpoint", "message"),
    [
        ("not a name", None, "the Hub did not make the repository"),
        ("org/x", "http://127.0.0.1:9", "the Hub did not make the repository"),
    ],
)
def test_upload_that_cannot_be(
    hub: HubProcess, file: Path, run_python: RunPython, repo: str, endpoint: str | None, message: str
) -> None:
    code, _, err = run_python(UPLOAD, endpoint or hub.endpoint, str(file), "--repo", repo)
    assert code == 1 and message in err and err.count("\n") == 1
