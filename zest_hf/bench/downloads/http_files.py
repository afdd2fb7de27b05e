"""A plain HTTP server of a folder's files, with ranges and sendfile: what aria2 downloads from.

    python -m zest_hf.bench.downloads.http_files HOST FOLDER

A thread for each connection; nothing of a body passes through Python.
"""

from __future__ import annotations

import os
import re
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer

from zest_hf.bench.downloads.children import files_in, listening

_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    files: dict[str, Path]

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.files.get(self.path)
        if path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            found = _RANGE.fullmatch(self.headers.get("Range", ""))
            first, end = 0, size
            if found is not None:
                first, end = int(found[1]), min(int(found[2] or size) + 1, size)
            if not 0 <= first < end:
                self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                return
            self.send_response(HTTPStatus.OK if found is None else HTTPStatus.PARTIAL_CONTENT)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(end - first))
            if found is not None:
                self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
            self.end_headers()
            if with_body:
                send_file(self.connection.fileno(), file.fileno(), first, end)

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True  # who has all that it wants may leave as it likes

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def send_file(connection: int, file: int, first: int, end: int) -> None:
    """Bytes first..end of a file to a blocking socket."""
    while first < end:
        sent = os.sendfile(connection, file, first, end - first)
        if sent == 0:
            raise ConnectionError("the file ended early")
        first += sent


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        # Without the look-up of the host's own name that the library's makes, which takes seconds on some machines.
        TCPServer.server_bind(self)


def main() -> None:
    Handler.files = {f"/{path.name}": path for path in files_in(Path(sys.argv[2]))}
    server = ThreadingHTTPServer((sys.argv[1], 0), Handler)
    listening(server.server_address[1])
    server.serve_forever()


if __name__ == "__main__":
    main()
