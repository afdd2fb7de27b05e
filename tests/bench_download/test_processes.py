"""What processes use, read from outside; and the yardsticks' servers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zest_hf.bench.downloads import noise, processes, tcp_files
from zest_hf.bench.downloads.content import Content, digest
from zest_hf.bench.weights import write_weights
from zest_hf.errors import ZestError

PARENT = """
import subprocess, sys
child = [sys.executable, "-c", sys.argv[1]]
with subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
    print(process.stdout.readline().strip(), flush=True)
    sys.stdin.read()
"""
CHILD = """
import os, sys, time
memory = bytearray(b"x") * (80 << 20)
while time.process_time() < 0.5:
    pass
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@contextmanager
def family() -> Iterator[tuple[int, int]]:
    """A process and its child, which has used 80 MiB and 0.5 s; both wait."""
    command = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())


def test_a_tree_is_all_that_a_process_has_started() -> None:
    with family() as (parent, child):
        assert list(processes.tree(parent)) == [parent, child]
        assert processes.tree_cpu_s(parent) >= 0.5 > processes.cpu_s(parent)
        assert processes.cpu_s(child) >= 0.5
        with processes.Peak(parent) as peak:
            assert peak.bytes >= 80 << 20
        assert peak.bytes >= processes.peak_bytes(child) + processes.peak_bytes(parent)
    # Nothing is known of who has ended, and that is no error.
    assert list(processes.tree(parent)) == [parent]
    assert processes.tree_cpu_s(parent) == processes.peak_bytes(parent) == 0


def test_processor_time_of_another_process_is_what_it_says_itself() -> None:
    code = "import time\nwhile time.process_time() < 0.2: pass\nprint(time.process_time(), flush=True)\ninput()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        said = float(process.stdout.readline())
        assert said <= processes.cpu_s(process.pid) < said + 0.1
        process.stdin.close()


def test_a_peak_can_be_forgotten() -> None:
    size = 64 << 20
    before = processes.peak_bytes(os.getpid())
    memory = bytearray(b"x") * size
    assert processes.peak_bytes(os.getpid()) >= size
    del memory
    high = processes.peak_bytes(os.getpid())
    processes.forget_peak(os.getpid())
    assert 0 < processes.peak_bytes(os.getpid()) <= max(before, high - size // 2)


def test_the_machine_is_at_least_as_busy_as_this_process() -> None:
    began_s, own_s = noise.busy_s(), sum(os.times()[:2])
    while sum(os.times()[:2]) < own_s + 0.3:
        pass
    assert noise.busy_s() - began_s >= 0.25  # it counts in ticks


@given(st.lists(st.integers(min_value=1, max_value=5000), min_size=1, max_size=5), st.integers(1, 700))
def test_requests_cover_every_byte_once(sizes: list[int], ask_bytes: int) -> None:
    places = [0] * len(sizes)
    for number, offset, size in tcp_files.asks(sizes, ask_bytes):
        assert places[number] == offset and 0 < size <= ask_bytes
        places[number] += size
    assert places == sizes


def test_files_over_tcp(tmp_path: Path) -> None:
    content = Content.write(tmp_path / "model", 9_000_000, 2)
    files = [os.open(content.folder / name, os.O_RDONLY) for name in content.names]
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                tcp_files.answer(connection, files)

        thread = threading.Thread(target=serve)
        thread.start()
        sizes = [content.size_bytes] * 2
        (tmp_path / "into").mkdir()
        tcp_files.fetch(server.getsockname(), sizes, [tmp_path / "into" / name for name in content.names])
        thread.join()
    content.check(tmp_path / "into")
    damaged = tmp_path / "into" / content.names[1]
    with damaged.open("r+b") as file:
        file.seek(4_000_000)
        file.write(bytes(2))
    with pytest.raises(ZestError, match=r"model-00001\.safetensors is not what it ought to be"):
        content.check(tmp_path / "into")
    damaged.unlink()
    with pytest.raises(ZestError, match=r"model-00001\.safetensors is missing"):
        content.check(tmp_path / "into")


def test_weights_are_of_the_size_that_was_asked_for_and_differ(tmp_path: Path) -> None:
    for size_bytes in (1, 1001, (4 << 20) + 3):
        paths = [tmp_path / f"{size_bytes}-{seed}" for seed in (1, 2)]
        for seed, path in enumerate(paths, 1):
            write_weights(path, size_bytes, seed)
            assert path.stat().st_size == size_bytes
        assert size_bytes == 1 or digest(paths[0]) != digest(paths[1])
    write_weights(paths[1], size_bytes, 1)
    assert digest(paths[0]) == digest(paths[1])
