"""huggingface.co for programs that have the name built in: DNS, TLS under a throw-away CA, and a Hub of ours behind.

Works in `tests/private-network` alone, where it may mount over /etc and listen on ports 53 and 443.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlsplit

import trustme

NAME = "huggingface.co"
MAX_HEAD_BYTES = 64 << 10


def is_private() -> bool:
    """Whether this process is in a network of its own."""
    return os.environ.get("ZEST_PRIVATE_NETWORK") == "1"


class HuggingFaceCo:
    """From the start to the end of the block, https://huggingface.co is the Hub at ``endpoint``."""

    def __init__(self, endpoint: str, scratch: Path) -> None:
        assert is_private()
        hub = urlsplit(endpoint)
        assert hub.hostname is not None and hub.port is not None
        self._hub = (hub.hostname, hub.port)
        self._scratch = scratch
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> HuggingFaceCo:
        authority = trustme.CA()
        with self._stack:
            self._mount("hosts", f"127.0.0.1 localhost {NAME}\n")
            self._mount("resolv.conf", "nameserver 127.0.0.1\n")
            self._trust_only(authority)
            self._stack.enter_context(_Names())
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            authority.issue_cert(NAME).configure_cert(context)
            self._stack.enter_context(_Gate(self._hub, context))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _mount(self, name: str, content: str) -> None:
        """Puts a file over /etc/``name``."""
        source = self._scratch / name
        source.write_text(content)
        self._over("--bind", str(source), f"/etc/{name}")

    def _trust_only(self, authority: trustme.CA) -> None:
        self._over("-t", "tmpfs", "tmpfs", "/etc/ssl")
        Path("/etc/ssl/certs").mkdir()
        authority.cert_pem.write_to_path("/etc/ssl/certs/ca-certificates.crt")

    def _over(self, *arguments: str) -> None:
        subprocess.run(["mount", *arguments], check=True)
        self._stack.callback(subprocess.run, ["umount", arguments[-1]], check=True)


class _Names:
    """A DNS server that knows one address for every name. Some resolvers ask even for what /etc/hosts has."""

    def __enter__(self) -> _Names:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 53))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, although it says "not connected"
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(4096)
            if not query:
                return
            self._socket.sendto(answer(query), sender)


def answer(query: bytes) -> bytes:
    """127.0.0.1 for a question of type A, nothing for any other (RFC 1035)."""
    end = query.index(0, 12) + 5
    (kind,) = struct.unpack_from(">H", query, end - 4)
    addresses = [socket.inet_aton("127.0.0.1")] if kind == 1 else []
    head = query[:2] + struct.pack(">HHHHH", 0x8180, 1, len(addresses), 0, 0)
    # The name is a pointer to the question's; class IN, a minute to live.
    records = (struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + address for address in addresses)
    return head + query[12:end] + b"".join(records)


class _Gate:
    """Takes TLS connections and passes each one's first request to the Hub, which then closes."""

    def __init__(self, hub: tuple[str, int], context: ssl.SSLContext) -> None:
        self._hub, self._context = hub, context
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> _Gate:
        start = asyncio.start_server(self._serve, "127.0.0.1", 443, ssl=self._context, limit=MAX_HEAD_BYTES)
        self._server = self._loop.run_until_complete(start)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        # A client that goes away in the middle is its own affair.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(back):
            head = await client.readuntil(b"\r\n\r\n")
            answers, hub = await asyncio.open_connection(*self._hub)
            with contextlib.closing(hub):
                hub.write(forwarded(head))
                while block := await answers.read(1 << 18):
                    back.write(block)
                    await back.drain()


def forwarded(head: bytes) -> bytes:
    """A request as the Hub gets it: with the route's version, which zest leaves out, and to close after it."""
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    lines[0] = lines[0].replace(b" /reconstructions/", b" /v1/reconstructions/", 1)
    kept = [line for line in lines if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*kept, b"Connection: close", b"X-Forwarded-Proto: https", b"", b""])
