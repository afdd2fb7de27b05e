"""A proxy in front of a hub that keeps what clients send."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit


class Recorder:
    """Context manager; `bodies` holds (method, path, body, status) of every request, in order of their ends."""

    def __init__(self, endpoint: str) -> None:
        target = urlsplit(endpoint).netloc
        self.bodies: list[tuple[str, str, bytes, int]] = []
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                body = self._read()
                upstream = http.client.HTTPConnection(target, timeout=30)
                # The Host header stays: the hub names itself by it, so that clients come back here.
                hop = ("connection", "transfer-encoding", "content-length")
                headers = {name: value for name, value in self.headers.items() if name.lower() not in hop}
                headers["Content-Length"] = str(len(body))
                upstream.request(self.command, self.path, body, headers)
                answer = upstream.getresponse()
                data = answer.read()
                upstream.close()
                bodies.append((self.command, self.path, body, answer.status))
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in (*hop, "date", "server"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = forward

            def _read(self) -> bytes:
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def sent(self, prefix: str) -> list[bytes]:
        """Bodies of successful POSTs to paths that begin so."""
        return [body for method, path, body, status in self.bodies
                if method == "POST" and path.startswith(prefix) and status == 200]  # fmt: skip

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
