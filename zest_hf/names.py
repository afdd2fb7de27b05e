"""Names of trackers and DHT nodes: looked up on threads that nobody waits for.

libtorrent could do that itself, on a thread that the end of the session waits for: where no name server answers,
every program would end many seconds late.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from collections.abc import Callable

log = logging.getLogger("zest_hf.names")

FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 120.0
"""A name that does not resolve is tried again after 2, 4, 8... 120 s."""


def is_address(host: str) -> bool:
    """Whether it need not be looked up."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    return True


class Names:
    """Looks names up until they resolve or `close`. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._unknown: dict[str, str] = {}

    @property
    def unknown(self) -> dict[str, str]:
        """Names that did not resolve so far, and why."""
        with self._lock:
            return dict(self._unknown)

    def look_up(self, host: str, port: int, found: Callable[[list[str]], None]) -> None:
        """Calls ``found`` with the addresses, on a thread of its own, as soon as there are any."""
        with self._lock:
            self._unknown[host] = "is being looked up"
        threading.Thread(target=self._run, args=(host, port, found), name="zest-names", daemon=True).start()

    def close(self) -> None:
        """Nothing is called any more."""
        self._closing.set()

    def _run(self, host: str, port: int, found: Callable[[list[str]], None]) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._closing.is_set():
            try:
                answers = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
                addresses = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
            except OSError as error:
                log.info("%s is not found: %s", host, error)
                with self._lock:
                    self._unknown[host] = f"its name is not found: {error.strerror or error}"
            else:
                with self._lock:
                    self._unknown.pop(host, None)
                if not self._closing.is_set():
                    found(addresses)
                return
            self._closing.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
