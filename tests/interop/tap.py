"""A port that passes connections on to another one, and writes down what is said."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from dataclasses import dataclass

TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Talk:
    """What was said in a connection that has ended."""

    by_caller: bytes
    by_called: bytes


class Tap:
    """Listens on a free port of ``host`` and passes every connection on to ``host:port``."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        self.talks: queue.SimpleQueue[Talk] = queue.SimpleQueue()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Tap:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._sockets):
            _shut(each)
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        for each in (self._listener, *self._sockets):
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                thread = threading.Thread(target=self._connect, args=(caller,), daemon=True)
                self._sockets.append(caller)
                self._threads.append(thread)
                thread.start()

    def _connect(self, caller: socket.socket) -> None:
        try:
            called = socket.create_connection(self._target, TIMEOUT_S)
        except OSError:
            return _shut(caller)
        called.settimeout(None)
        self._sockets.append(called)
        by_caller, by_called = bytearray(), bytearray()
        back = threading.Thread(target=_pass_on, args=(called, caller, by_called), daemon=True)
        back.start()
        _pass_on(caller, called, by_caller)
        back.join()
        self.talks.put(Talk(bytes(by_caller), bytes(by_called)))


def _pass_on(source: socket.socket, target: socket.socket, said: bytearray) -> None:
    """Until one of them closes; then the other is told."""
    with contextlib.suppress(OSError):
        while block := source.recv(1 << 16):
            said += block
            target.sendall(block)
    _shut(source)
    _shut(target)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
