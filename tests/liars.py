"""A member of a crowd that lies: `python liars.py HOW PORT FILE_HASH CHUNKS XORB:CHUNKS,... FIRST-END,...`.

It is found by local discovery, proves to know the file, and then says what its name in `LIES` promises:

- claims: that it fetches everything, of which nothing comes
- creeps: the same, with a little progress all the time
- haves: that it holds the file, its xorbs and all claims, and answers no question for them
- floods: new claims as fast as the other side reads them, each another
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import sys
import threading
import time

from swarm import wire_peer as wire
from swarm.wire_peer import HungUp, Question, WirePeer, WireServer

LSD = ("239.192.152.143", 6771)
FULL = 65535
CREEPS_S = 60.0


class Liar:
    """Knows the file of so many ``chunks``, its ``xorbs`` with theirs, and the ``units`` that it is fetched in."""

    def __init__(
        self, how: str, file_hash: bytes, chunks: int, xorbs: dict[bytes, int], units: list[tuple[int, int]]
    ) -> None:
        self._how = how
        self._objects = {wire.file_swarm(file_hash): (file_hash, chunks)}
        self._objects |= {wire.xorb_swarm(xorb): (xorb, count) for xorb, count in xorbs.items()}
        self._swarm = wire.file_swarm(file_hash)
        self._units = units

    def meet(self, peer: WirePeer) -> None:
        """All that it says in one connection."""
        peer.socket.settimeout(None)
        talks = threading.Event()
        while True:
            question = peer.question()
            if question.type == wire.HAVE_REQUEST and question.swarm in self._objects:
                self._answer(peer, question)
                if question.kind == wire.FILE and not talks.is_set():
                    talks.set()
                    os.write(1, b"met\n")  # at once: there are other threads
                    threading.Thread(target=self._talk, args=(peer,), daemon=True).start()

    def _answer(self, peer: WirePeer, question: Question) -> None:
        object_, chunks = self._objects[question.swarm]
        proof = question.hold(object_)
        if self._how == "haves":
            peer.send_zest(wire.have(question.request, wire.OK, chunks, [(0, chunks)], proof))
        elif question.kind == wire.FILE:
            peer.send_zest(wire.have(question.request, wire.OK, 0, [], proof))
        else:
            peer.send_zest(wire.have(question.request, wire.NOT_FOUND, 0, []))

    def _talk(self, peer: WirePeer) -> None:
        began_s = time.monotonic()
        with contextlib.suppress(HungUp, OSError):
            while True:
                progress = {
                    "claims": 0,
                    "creeps": min(FULL - 1, int((time.monotonic() - began_s) / CREEPS_S * FULL)),
                    "haves": FULL,
                    "floods": random.randrange(FULL),
                }[self._how]
                state = wire.HELD if self._how == "haves" else wire.FETCHING
                claims = [(first, end, state, progress) for first, end in self._units]
                peer.send_zest(wire.claims(self._swarm, 1, claims))
                time.sleep(0.0 if self._how == "floods" else 0.5)


def announce(port: int, swarm: bytes) -> None:
    """On the local network (BEP 14), so often that nobody misses it."""
    text = f"BT-SEARCH * HTTP/1.1\r\nHost: {LSD[0]}:{LSD[1]}\r\nPort: {port}\r\nInfohash: {swarm.hex()}\r\n\r\n\r\n"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while True:
            sender.sendto(text.encode(), LSD)
            time.sleep(0.1)


def main() -> None:
    how, address, file_hash, chunks, xorbs, units = sys.argv[1:]
    of_xorb = {bytes.fromhex(one.partition(":")[0]): int(one.partition(":")[2]) for one in xorbs.split(",")}
    ranges = [(int(one.partition("-")[0]), int(one.partition("-")[2])) for one in units.split(",")]
    liar = Liar(how, bytes.fromhex(file_hash), int(chunks), of_xorb, ranges)
    with WireServer(liar.meet, host=address) as server:
        print("lying", flush=True)
        announce(server.port, wire.file_swarm(bytes.fromhex(file_hash)))


if __name__ == "__main__":
    main()
