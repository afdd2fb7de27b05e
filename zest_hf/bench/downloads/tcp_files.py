"""The wire and the disk, and nothing else: files over one TCP connection, asked for as we ask a peer.

    python -m zest_hf.bench.downloads.tcp_files serve HOST FOLDER
    python -m zest_hf.bench.downloads.tcp_files fetch HOST PORT FOLDER SIZE NAME ...

A request is the number of a file, an offset and a length; the answer is the bytes, by sendfile. Who asks keeps as many
requests open as a download of ours does to a fast peer, each as large, of as many files in turn, and writes what comes
to where it belongs, while more comes. Nothing is hashed. Files have the same size.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

from zest_hf.bench.downloads.children import done, files_in, listening
from zest_hf.bench.downloads.http_files import send_file
from zest_hf.core.policy import PolicySettings

REQUEST = struct.Struct(">IQI")
BUFFER_BYTES, BUFFERS = 1 << 20, 16
WRITERS = 2
WRITE_TIMEOUT_S = 60.0
TOGETHER = 8
"""Files that huggingface_hub downloads at once."""

Asked = tuple[int, int, int]
"""File number, offset, bytes."""


def serve(host: str, folder: Path) -> None:
    files = [os.open(path, os.O_RDONLY) for path in files_in(folder)]
    with socket.create_server((host, 0)) as server:
        listening(server.getsockname()[1])
        while True:
            connection, _ = server.accept()
            with connection, contextlib.suppress(ConnectionError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                answer(connection, files)


def answer(connection: socket.socket, files: Sequence[int]) -> None:
    """All requests of a connection, until it ends."""
    with connection.makefile("rb") as requests:
        while len(request := requests.read(REQUEST.size)) == REQUEST.size:
            number, offset, size = REQUEST.unpack(request)
            send_file(connection.fileno(), files[number], offset, offset + size)


def asks(sizes: Sequence[int], ask_bytes: int) -> Iterator[Asked]:
    """Every file from its first byte to its last, in requests of at most so many bytes, `TOGETHER` files in turn."""
    files = iter(enumerate(sizes))
    begun = deque((number, 0, size) for number, size in islice(files, TOGETHER))
    while begun:
        number, offset, size = begun.popleft()
        count = min(ask_bytes, size - offset)
        yield number, offset, count
        if offset + count < size:
            begun.append((number, offset + count, size))
        elif (another := next(files, None)) is not None:
            begun.append((another[0], 0, another[1]))


def fetch(address: tuple[str, int], sizes: Sequence[int], paths: Sequence[Path]) -> None:
    policy = PolicySettings()
    files = [os.open(path, os.O_WRONLY | os.O_CREAT, 0o644) for path in paths]
    waiting = asks(sizes, policy.most_ask_bytes)
    asked: deque[Asked] = deque()
    free: SimpleQueue[memoryview] = SimpleQueue()
    for _ in range(BUFFERS):
        free.put(memoryview(bytearray(BUFFER_BYTES)))
    writes: list[Future[None]] = []

    def write(file: int, buffer: memoryview, count: int, offset: int) -> None:
        os.pwrite(file, buffer[:count], offset)
        free.put(buffer)

    with ThreadPoolExecutor(WRITERS) as writers, socket.create_connection(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            while len(asked) < policy.max_depth and (ask := next(waiting, None)) is not None:
                connection.sendall(REQUEST.pack(*ask))
                asked.append(ask)
            if not asked:
                break
            number, offset, size = asked.popleft()
            while size:
                buffer = free.get(timeout=WRITE_TIMEOUT_S)
                # Whole buffers, so that what is measured is not Python.
                count = connection.recv_into(buffer, min(size, len(buffer)), socket.MSG_WAITALL)
                if count == 0:
                    raise ConnectionError("the server left")
                writes.append(writers.submit(write, files[number], buffer, count, offset))
                offset, size = offset + count, size - count
    for done_write in writes:
        done_write.result()
    for file in files:
        os.close(file)


def main() -> None:
    mode, host, *rest = sys.argv[1:]
    if mode == "serve":
        serve(host, Path(rest[0]))
        return
    port, folder, size, *names = rest
    began_s = time.monotonic()
    fetch((host, int(port)), [int(size)] * len(names), [Path(folder, name) for name in names])
    done(time.monotonic() - began_s)


if __name__ == "__main__":
    main()
