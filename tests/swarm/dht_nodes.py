"""A DHT of independent nodes, PyPI's libtorrent, in a process of their own.

As a program: starts COUNT nodes on loopback, prints the ports, and does what the lines of its stdin say.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

HOST = "127.0.0.1"
LOOK_AGAIN_S = 0.5


class Dht:
    """What the process does for a test."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.ports: list[int] = self._line()

    @property
    def bootstrap(self) -> list[tuple[str, int]]:
        return [(HOST, port) for port in self.ports[:3]]

    def peers(self, info_hash: bytes, wait_s: float = 10.0) -> list[tuple[str, int]]:
        """Whom another node finds, as soon as it finds somebody."""
        return [(host, port) for host, port in self._ask("peers", info_hash.hex(), wait_s)]

    def found(self, info_hashes: list[bytes]) -> int:
        """For how many of them somebody is found, by one look each."""
        return int(self._ask("found", [info_hash.hex() for info_hash in info_hashes]))

    def announce(self, info_hash: bytes, port: int) -> None:
        self._ask("announce", info_hash.hex(), port)

    def _ask(self, *question: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the DHT has ended"
        return json.loads(line)


@contextlib.contextmanager
def running(count: int = 14) -> Iterator[Dht]:
    """A DHT whose nodes know each other."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, __file__, str(count)], stdin=pipe, stdout=pipe, text=True)
    try:
        yield Dht(process)
    finally:
        process.kill()
        process.wait()


def main(count: int) -> None:
    import libtorrent as lt  # type: ignore[import-not-found,import-untyped,unused-ignore]

    settings = {
        "listen_interfaces": f"{HOST}:0",
        "enable_dht": True,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "dht_bootstrap_nodes": "",
        "dht_restrict_routing_ips": False,
        "dht_restrict_search_ips": False,
        "dht_ignore_dark_internet": False,
        "dht_prefer_verified_node_ids": False,
        "dht_enforce_node_id": False,
        "dht_block_ratelimit": 10_000,
        "dht_max_fail_count": 1,
        "dht_max_torrents": 100_000,
        "dht_upload_rate_limit": 1_000_000,
        "alert_mask": lt.alert.category_t.dht_operation_notification,
    }
    nodes = [lt.session(settings) for _ in range(count)]
    ports = [node.listen_port() for node in nodes]
    for node in nodes:
        for port in ports:
            if port != node.listen_port():
                node.add_dht_node((HOST, port))

    def sizes() -> list[int]:
        for node in nodes:
            node.post_dht_stats()
        time.sleep(0.05)
        out = []
        for node in nodes:
            stats = [alert for alert in node.pop_alerts() if isinstance(alert, lt.dht_stats_alert)]
            out.append(sum(bucket["num_nodes"] for bucket in stats[-1].routing_table) if stats else 0)
        return out

    end_s = time.monotonic() + 20
    while min(sizes()) < min(8, count - 1) and time.monotonic() < end_s:
        pass
    print(json.dumps(ports), flush=True)

    def look(info_hash: str, wait_s: float) -> list[tuple[str, int]]:
        node = nodes[-1]
        end_s = time.monotonic() + wait_s
        next_s = 0.0
        while (now_s := time.monotonic()) < end_s:
            if now_s >= next_s:  # what is announced after a look is not found by it
                next_s = now_s + LOOK_AGAIN_S
                node.dht_get_peers(lt.sha1_hash(bytes.fromhex(info_hash)))
            node.wait_for_alert(50)
            for alert in node.pop_alerts():
                mine = isinstance(alert, lt.dht_get_peers_reply_alert) and str(alert.info_hash) == info_hash
                if mine and (peers := alert.peers()):
                    return list(peers)
        return []

    for line in sys.stdin:
        what, *arguments = json.loads(line)
        answer: Any = None
        if what == "peers":
            info_hash, wait_s = arguments
            end_s = time.monotonic() + wait_s
            answer = []
            while not answer and time.monotonic() < end_s:
                answer = look(info_hash, 0.5)
        elif what == "found":
            answer = sum(bool(look(info_hash, 2)) for info_hash in arguments[0])
        elif what == "announce":
            nodes[-2].dht_announce(lt.sha1_hash(bytes.fromhex(arguments[0])), arguments[1], 0)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
