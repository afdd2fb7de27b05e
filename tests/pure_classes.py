"""The swarm's classes without sockets and clocks (native/tests/*.cpp), compiled with sanitizers on first use."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[1] / "native"
PURE = ("tests/pure.cpp", "src/swarm/chunk_set.cpp", "src/swarm/bandwidth_scheduler.cpp")
DIALER = ("tests/dialer.cpp", "src/swarm/dialer.cpp")
FLAGS = ("-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined")


@functools.cache
def _program(files: tuple[str, ...]) -> tuple[tempfile.TemporaryDirectory[str], Path]:
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    folder = tempfile.TemporaryDirectory(prefix="zest-pure-")
    program = Path(folder.name, "pure")
    sources = [str(NATIVE / source) for source in files]
    command = [*compiler.split(), *FLAGS, f"-I{NATIVE / 'src/swarm'}", *sources, "-o", str(program)]
    subprocess.run(command, check=True)
    return folder, program


class Pure:
    """One such process: a command with its arguments gives one line."""

    def __init__(self, files: tuple[str, ...] = PURE) -> None:
        self._process = subprocess.Popen([_program(files)[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, command: str, *arguments: object) -> str:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(" ".join([command, *map(str, arguments)]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer.endswith("\n") and not answer.startswith("?"), (command, answer)
        return answer[:-1]

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(10) == 0
