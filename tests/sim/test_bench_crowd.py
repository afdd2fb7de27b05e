"""`zest bench crowd`: what it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zest_hf.bench.plan_memory import plan_bytes
from zest_hf.cli import main

SMALL = ["bench", "crowd", "--gigabytes", "1", "--scale", "64", "--tick", "0.05"]

FIGURES = re.compile(
    r"([\d.]+) copies, last ([\d.]+) s = ([\d.]+) of the bound, .* control ([\d.]+) %,.* plan of ([\d.]+) MB"
)


def test_each_count_has_a_line_with_all_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--nodes", "1,6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["1", "nodes:"], ["6", "nodes:"]]
    for line in lines:
        found = FIGURES.search(line)
        assert found is not None, line
        copies, last_s, slowdown, control, plan = map(float, found.groups())
        assert 1.0 <= copies <= 1.1
        # A GB over 1 Gbit/s.
        assert 8.0 <= last_s == pytest.approx(8.0 * slowdown, rel=0.02)
        assert slowdown <= 1.35
        assert control <= 1.0
        assert 0.1 <= plan <= 1.0


@pytest.mark.parametrize("counts", ["0", "x", "1,,2", "-3"])
def test_what_is_no_number_of_nodes(counts: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, f"--nodes={counts}"]) == 1
    assert "--nodes takes numbers" in capsys.readouterr().err


def test_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "crowd.png"
    assert main([*SMALL, "--nodes", "1,2", "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_plan_is_small_and_grows_little_with_the_crowd() -> None:
    size_bytes = 4_000_000_000
    alone, few, many = (plan_bytes(size_bytes, nodes, 12) for nodes in (1, 100, 1000))
    assert alone < few < many
    assert many <= size_bytes / 1000
    # A member, and what it claims.
    assert (many - few) / 900 <= 2000
