"""The wire and the disk, and nothing else: files over one TCP connection, asked for as we ask a peer.

    python -m zest_hf.bench.downloads.tcp_files serve HOST FOLDER
    python -m zest_hf.bench.downloads.tcp_files fetch HOST PORT FOLDER SIZE NAME ...

A request is the number of a file, an offset and a length; the answer is the bytes, by sendfile. Who asks keeps as many
requests open as a download of ours does to a fast peer, each as large, and writes what comes to where it belongs.
Nothing is hashed. Files have the same size.
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
from pathlib import Path

from zest_hf.bench.downloads.children import done, files_in, listening
from zest_hf.bench.downloads.http_files import send_file
from zest_hf.core.policy import PolicySettings

REQUEST = struct.Struct(">IQI")
BUFFER_BYTES = 1 << 20

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
    """Every file from its first byte to its last, in requests of at most so many bytes."""
    for number, size in enumerate(sizes):
        for offset in range(0, size, ask_bytes):
            yield number, offset, min(ask_bytes, size - offset)


def fetch(address: tuple[str, int], sizes: Sequence[int], paths: Sequence[Path]) -> None:
    policy = PolicySettings()
    buffer = memoryview(bytearray(BUFFER_BYTES))
    files = [os.open(path, os.O_WRONLY | os.O_CREAT, 0o644) for path in paths]
    waiting = asks(sizes, policy.most_ask_bytes)
    asked: deque[Asked] = deque()
    with socket.create_connection(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            while len(asked) < policy.max_depth and (ask := next(waiting, None)) is not None:
                connection.sendall(REQUEST.pack(*ask))
                asked.append(ask)
            if not asked:
                break
            number, offset, size = asked.popleft()
            while size:
                # Whole buffers, so that what is measured is not Python.
                count = connection.recv_into(buffer, min(size, len(buffer)), socket.MSG_WAITALL)
                if count == 0:
                    raise ConnectionError("the server left")
                os.pwrite(files[number], buffer[:count], offset)
                offset, size = offset + count, size - count
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
