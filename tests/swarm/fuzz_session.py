"""Rounds of nonsense against a live session: strangers on sockets who say valid, broken and random things in any order,
while the session shares, asks, writes, and changes its mind. `make fuzz-session` runs it with sanitizers.

After each round a good peer must still get right bytes and give them, and soon; nothing but right bytes may have been
written; only who sent wrong ones may be banned; and the memory must stay where it was.

    python tests/swarm/fuzz_session.py --seconds 60     rounds with seeds from the clock, each printed
    python tests/swarm/fuzz_session.py 1234             the round of one seed once more
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import faulthandler
import logging
import os
import random
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent.parent))

from cryptography.exceptions import InvalidTag  # noqa: E402
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: E402

from swarm import wire_peer as wire  # noqa: E402
from swarm.keyed_peer import SEALED, KeyedPeer, secret_of  # noqa: E402
from swarm.node import Content, Node, Target, serve  # noqa: E402
from swarm.wire_peer import Question, WirePeer, bdecode, bencode, parse_question  # noqa: E402
from zest_hf._native.codec import chunk_hash  # noqa: E402
from zest_hf._native.draft import Draft  # noqa: E402
from zest_hf._native.events import HaveAnswer, Kind, Outcome, PeerGone, PeerReady, PieceEnd  # noqa: E402
from zest_hf._native.writable_file import WritableFile  # noqa: E402
from zest_hf.core.ids import XetHash  # noqa: E402
from zest_hf.errors import SwarmError  # noqa: E402

ROUND_S = 2.0
GOOD_PEER_S = 20.0
"""The good peer's deadline: sanitizers and an idle priority make everything slow."""
HANGS_S = 120
MAX_GROWTH_BYTES = 250 << 20
WARM_UP_ROUNDS = 5
KEY = b"a swarm key of the fuzzer, long enough"
HOSTS = [f"127.0.0.{number}" for number in range(2, 12)]
"""Of strangers; one of each is banned for as long as the session lives. The good peer is at 127.0.0.1."""
NEWS = (wire.PEERS, wire.CLAIMS)
"""What is said without a question."""
HONEST_HOSTS = HOSTS[:3]
"""Who talks nonsense from here sends no wrong chunk and no wrong manifest."""


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class World:
    """What there is to be shared, asked for, and lied about."""

    def __init__(self, random_: random.Random, folder: Path) -> None:
        self.random = random_
        self.folder = folder
        self.contents = [
            Content.random(random_.randint(1, 60), random_.choice([40, 3000, 20000]), random_.randrange(1 << 30))
            for _ in range(3)
        ]
        self.paths = [folder / f"file{number}" for number in range(len(self.contents))]
        self.target_content = Content.random(50, 2000, random_.randrange(1 << 30))
        self.node_ids = [random_.randbytes(20) for _ in range(4)]
        self.ports: list[int] = []
        """Where strangers listen."""

    def objects(self) -> Iterator[tuple[int, bytes]]:
        for content in (*self.contents, self.target_content):
            yield wire.FILE, content.hash
            for xorb, _, _ in content.xorbs:
                yield wire.XORB, xorb

    def object(self) -> tuple[int, bytes]:
        if self.random.random() < 0.1:
            return self.random.choice([wire.FILE, wire.XORB]), self.random.randbytes(32)
        return self.random.choice(list(self.objects()))

    def number(self) -> int:
        return self.random.choice([0, 1, 2, 7, 49, 50, 8192, 16384, 1 << 28, (1 << 28) + 1, 1 << 31, (1 << 32) - 1])

    def small(self) -> int:
        return self.random.randrange(60)


class Stranger:
    """One connection whose other end means no good. Never waits: what has come is looked at now and then."""

    def __init__(self, world: World, connection: socket.socket, host: str, keyed: bool, dialled: bool) -> None:
        self.world, self.random = world, world.random
        self.honest = host in HONEST_HOSTS
        self.keyed = keyed
        self.buffer = bytearray()
        self.out = bytearray()
        self.held_back: list[bytes] = []
        self.questions: list[Question] = []
        self.ids = [1]
        self.gone = False
        self.ready = False
        self.info_hash = b""
        connection.setblocking(False)
        options: dict[str, Any] = {
            "node_id": self.random.choice([*world.node_ids, self.random.randbytes(20), bytes(20), None]),
            "listen_port": self.random.choice([None, *world.ports, 1, 65535, 70000, -1]),
        }
        if self.random.random() < 0.3:
            options["reserved"] = b"\0\0\0\0\0\x10\0\x15"  # fast, DHT and version 2 as well
        if keyed:
            self.peer: WirePeer = KeyedPeer(
                connection, secret=secret_of(KEY), private=X25519PrivateKey.generate(), dialled=dialled, **options
            )
        else:
            self.peer = WirePeer(connection, **options)
        if not keyed and self.random.random() < 0.2:
            self.peer.extensions = self.random.choice([{"ut_xet": 1}, {"zest_hf1": 9}, {"ut_xet": 7, "zest_hf1": 7}])
        if self.random.random() < 0.2:
            self.peer.extensions = {**self.peer.extensions, "ut_holepunch": 4, "upload_only": 3, "lt_donthave": 7}
        self.dialled = dialled

    # --- the socket -------------------------------------------------------------------------------

    def close(self, hard: bool = False) -> None:
        self.gone = True
        if hard:
            with contextlib.suppress(OSError):
                self.peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.socket.close()

    def send(self, data: bytes) -> None:
        """As much as the socket takes; the rest waits, and the oldest of too much is forgotten."""
        self.out += data
        if len(self.out) > 4 << 20:
            self.out.clear()
        self.flush()

    def flush(self) -> None:
        if self.gone:
            return
        try:
            while self.out:
                del self.out[: self.peer.socket.send(self.out[: 1 << 16])]
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def look(self) -> None:
        """Takes what has come, as far as it makes sense."""
        if self.gone:
            return
        try:
            while len(self.buffer) < 4 << 20:
                part = self.peer.socket.recv(1 << 16)
                if not part:
                    return self.close()
                self.buffer += part
        except BlockingIOError:
            pass
        except OSError:
            return self.close()
        if self.info_hash == b"" or len(self.buffer) < 4:
            self.meet()
        while len(self.buffer) >= 4 and self.info_hash:
            (size,) = struct.unpack_from(">I", self.buffer)
            if len(self.buffer) < 4 + size:
                return
            message = bytes(self.buffer[4 : 4 + size])
            del self.buffer[: 4 + size]
            self.take(message)

    # --- handshakes -------------------------------------------------------------------------------

    def greet(self, info_hash: bytes) -> None:
        """Handshakes of BitTorrent, mostly right ones."""
        self.wanted = info_hash
        first = wire.PROTOCOL + self.peer.reserved + info_hash + self.peer.peer_id
        if isinstance(self.peer, KeyedPeer):
            self.peer.info_hash = info_hash
        if self.random.random() < 0.05:
            first = self.mutated(first)
        self.send(first)
        if self.random.random() < 0.9:
            self.send_extended_handshake()

    def send_extended_handshake(self) -> None:
        content: dict[str, Any] = {"m": self.peer.extensions, "v": self.random.choice(["x", "\x1b[2J" * 30])}
        for key, value in (("zh", self.peer.node_id), ("zn", self.peer.nonce), ("p", self.peer.listen_port)):
            if value is not None:
                content[key] = value
        if self.random.random() < 0.2:
            content |= {"yourip": self.random.randbytes(4), "reqq": self.world.number(), "upload_only": 1}
        body = bencode(content)
        if self.random.random() < 0.05:
            body = self.mutated(body)
        message = bytes([wire.EXTENDED, 0]) + body
        self.send(struct.pack(">I", len(message)) + message)

    def meet(self) -> None:
        if not self.info_hash and len(self.buffer) >= 68:
            self.info_hash = bytes(self.buffer[28:48])
            del self.buffer[:68]
            if not self.dialled:
                self.greet(self.info_hash)

    def take(self, message: bytes) -> None:
        if message[:2] == bytes([wire.EXTENDED, 0]):
            self.peer.their_handshake = bdecode(message[2:])
            self.peer.theirs = self.peer.their_handshake[b"m"]
            if isinstance(self.peer, KeyedPeer):
                if self.random.random() < 0.9 and self.peer.node_id and self.peer.nonce:
                    self.peer.agree()
                    if self.dialled:
                        self.send(self.frame(SEALED, self.peer.proof))
            else:
                self.ready = True
            return
        if message[:1] != bytes([wire.EXTENDED]) or len(message) < 3:
            return
        body = message[2:]
        if isinstance(self.peer, KeyedPeer):
            if not self.peer.keys:
                return
            if self.peer.opening is None:
                if not self.dialled:
                    self.send(self.frame(SEALED, self.peer.proof))
                self.peer.start()
                self.ready = True
                return
            try:
                body = self.peer.opening.open(body)
            except InvalidTag:
                return self.close()
        xet = message[1] == self.peer.extensions.get("ut_xet")
        with contextlib.suppress(AssertionError, struct.error, ValueError):
            question = parse_question(wire.XET_ID if xet else wire.ZEST_ID, body)
            self.ids.append(question.request)
            if question.type != wire.CANCEL:
                self.questions.append(question)

    # --- what it says -----------------------------------------------------------------------------

    def frame(self, name: str, body: bytes) -> bytes:
        message = bytes([wire.EXTENDED, self.peer.theirs.get(name.encode(), wire.ZEST_ID)]) + body
        return struct.pack(">I", len(message)) + message

    def framed(self, body: bytes, xet: bool = False) -> bytes:
        if isinstance(self.peer, KeyedPeer) and self.peer.sealing is not None:
            return self.frame(SEALED, self.peer.seal(body))
        return self.frame("ut_xet" if xet else "zest_hf1", body)

    def mutated(self, data: bytes) -> bytes:
        out = bytearray(data)
        for _ in range(self.random.randint(1, 3)):
            at = self.random.randrange(len(out) + 1)
            kind = self.random.randrange(4)
            if kind == 0 and at < len(out):
                out[at] ^= 1 << self.random.randrange(8)
            elif kind == 1:
                del out[at:]
            elif kind == 2:
                out[at:at] = self.random.randbytes(self.random.randint(1, 40))
            elif at < len(out):
                out[at] = self.random.choice([0, 1, 0x7F, 0x80, 0xFF])
        return bytes(out)

    def speak(self) -> None:
        """One message, or several, or a part of one."""
        choice = self.random.random()
        if choice < 0.15:
            frames = [self.of_bittorrent()]
        elif choice < 0.45 and self.questions:
            frames = self.answer(self.questions.pop(self.random.randrange(len(self.questions))))
        else:
            body, xet = self.message()
            if self.random.random() < 0.15 and not (self.honest and body[0] in (wire.RANGE_DATA, wire.MANIFEST)):
                body = self.mutated(body) if not self.honest else body[: self.random.randint(1, len(body))]
            frames = [self.framed(body, xet)]
        for one in filter(None, frames):
            how = self.random.random()
            # A record that is sent late or twice does not open: that is what it is for.
            if how < 0.05:
                self.held_back.append(one)
            elif how < 0.10:
                self.send(one + one)
            elif how < 0.12 and not self.honest:
                self.send(one[: self.random.randrange(len(one))])
            elif how < 0.14 and not self.honest:
                self.send(self.mutated(one))
            else:
                self.send(one)
        if self.held_back and self.random.random() < 0.1:
            self.random.shuffle(self.held_back)
            self.send(b"".join(self.held_back))
            self.held_back.clear()

    def of_bittorrent(self) -> bytes:
        """What libtorrent itself understands."""
        kind = self.random.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 20, 21, 22, 23, 99, -1, -2])
        if kind == -1:
            return struct.pack(">I", 0)
        if kind == -2:
            self.send_extended_handshake()
            return b""
        if kind == wire.EXTENDED:
            address = self.random.randbytes(6)
            body = bytes([self.random.choice([0, 2, 3, 4, 5, 7, 8, 9, 200])]) + self.random.choice(
                [b"\1", b"\0\0" + address, b"\1\0" + address, bytes(6), b"d1:md1:ai1eee"]
            )
        else:
            words = {4: 1, 6: 3, 8: 3, 13: 1, 16: 3, 17: 1, 21: 12, 23: 12}.get(kind)
            numbers = [self.world.number() for _ in range(words or 0)]
            body = struct.pack(f">{len(numbers)}I", *numbers)
            if not words:
                body = self.random.randbytes(self.random.choice([0, 2]))
            if kind in (5, 7, 22) and self.random.random() < 0.5:
                body = self.random.randbytes(self.random.choice([8, 100, 5000]))
        message = bytes([kind]) + body
        return struct.pack(">I", len(message)) + message

    def message(self) -> tuple[bytes, bool]:
        """A well-formed message of either extension about anything."""
        world, choose = self.world, self.random.choice
        id_ = choose([*self.ids[-8:], world.number(), self.random.randrange(200)])
        kind, object_ = world.object()
        first, count = choose([world.small(), world.number()]), choose([world.small(), world.number()])
        first, end = first & 0xFFFFFFFF, (first + count) & 0xFFFFFFFF
        swarm = self.peer.swarm_of(kind, object_)
        answer = choose([0, 1, 2])
        ranges = sorted({world.small() for _ in range(2 * self.random.randrange(4))})
        pairs = list(zip(ranges[::2], ranges[1::2], strict=False))
        chunk = choose(choose(world.contents).entries)[0]
        # Honest ones give no chunk and no manifest that was not asked for: it could be taken for a wrong answer.
        data = b"" if self.honest else self.random.randbytes(choose([1, 100, 3000]))
        zest: list[Callable[[], bytes]] = [
            lambda: self.peer.have_request(id_, kind, object_, choose([0, 1])),
            lambda: wire.have_request(id_, kind, swarm, self.random.randbytes(32), choose([0, 1, 2])),
            lambda: wire.have(id_, answer, first, pairs),
            lambda: self.peer.their_have(id_, kind, object_, count, pairs),
            lambda: wire.have_update(id_, answer, count, pairs),
            lambda: wire.manifest_request(id_, kind, object_, first, count),
            lambda: wire.range_request(id_, kind, object_, first, end),
            lambda: wire.range_end(id_, answer),
            lambda: wire.cancel(id_),
            lambda: wire.follow_request(id_, object_, first, end),
            lambda: wire.follow_request(id_, choose(world.target_content.xorbs)[0], choose([0, 1]), choose([5, 10])),
            lambda: wire.claims(swarm, choose([0, 1]), [(a, b, choose([0, 1, 2]), 7) for a, b in pairs]),
            lambda: wire.peers(swarm, [(bytes(10) + b"\xff\xff\x7f\0\0\1", choose([*world.ports, 9, 40000]))] * 3),
        ]
        xet: list[Callable[[], bytes]] = [
            lambda: wire.chunk_request(id_, chunk),
            lambda: wire.xorb_request(id_, object_, first, end),
            lambda: wire.chunk_not_found(id_),
            lambda: wire.chunk_error(id_, count, "x" * (count % 100)),
        ]
        if not self.honest:
            zest += [
                lambda: wire.range_data(id_, first, data),
                lambda: wire.manifest(id_, answer, count, first, choose(world.contents).entries),
            ]
            xet.append(lambda: wire.chunk_response(id_, data))
        if not self.keyed and self.random.random() < 0.3:
            return choose(xet)(), True
        return choose(zest)(), False

    def answer(self, question: Question) -> list[bytes]:
        """Frames that answer it rightly, or nearly so."""
        content = self.world.target_content
        sent: list[bytes] = []
        kind = question.kind
        question = dataclasses.replace(question, hold=lambda object_: self.peer.prove(b"hold", kind, object_))

        class Caught:
            swarm_of = self.peer.swarm_of

            def send_zest(_, body: bytes) -> None:
                sent.append(body)

            def send_xet(_, body: bytes) -> None:
                sent.append(body)

        if question.type == wire.RANGE_REQUEST and question.kind == wire.XORB:
            shift = next((a for xorb, a, _ in content.xorbs if xorb == question.hash), 0)
            for number in range(question.first, min(question.end_or_count, question.first + 60)):
                if number + shift < len(content.chunks):
                    sent.append(wire.range_data(question.request, number, content.chunks[number + shift]))
        elif question.type == wire.RANGE_REQUEST and question.end_or_count > len(content.chunks):
            sent.append(wire.range_end(question.request, 1))
        else:
            serve(Caught(), content, question)  # type: ignore[arg-type]
        how = self.random.random()
        if how < 0.1:
            sent.reverse()
        elif how < 0.2:
            sent = sent[: self.random.randrange(len(sent) + 1)]
        elif how < 0.3:
            sent += sent[-1:]
        elif how < 0.4 and not self.honest:
            sent = [self.mutated(body) for body in sent]
        return [self.framed(body, question.extension == wire.XET_ID) for body in sent]


class Round:
    """A session and its strangers, for a while."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.keyed = self.random.random() < 0.3
        self.world = World(self.random, folder)
        self.listeners = [socket.create_server((host, 0)) for host in HOSTS[2:6]]
        for listener in self.listeners:
            listener.setblocking(False)
        self.world.ports = [listener.getsockname()[1] for listener in self.listeners]
        self.strangers: list[Stranger] = []
        self.ready: list[int] = []
        self.open_pieces: list[tuple[int, int]] = []
        self.watched: list[tuple[int, int]] = []
        self.node = Node(
            swarm_key=KEY if self.keyed else None,
            connect_timeout_s=self.random.choice([0.2, 5.0]),
            max_up_bytes_s=self.random.choice([None, None, 100_000, 10_000_000]),
            max_down_bytes_s=self.random.choice([None, None, 100_000, 10_000_000]),
        )
        self.targets = [Target(folder / f"target{number}", self.world.target_content) for number in range(2)]
        self.partial = Target(folder / "partial", self.world.contents[2])
        self.drafts: list[Draft] = []

    def rendezvous(self) -> bytes:
        return secret_of(KEY).rendezvous if self.keyed else wire.NODE_SWARM

    def run(self) -> None:
        try:
            for content, path in list(zip(self.world.contents, self.world.paths, strict=True))[:2]:
                self.node.share(content, path)
            self.node.session.share_transfer(self.partial.file, self.partial.content.hash, self.partial.content.terms)
            end_s = time.monotonic() + ROUND_S
            for _ in range(2000):
                if time.monotonic() >= end_s:
                    break
                self.step()
            self.check()
        finally:
            began_s = time.monotonic()
            for stranger in self.strangers:
                stranger.close()
            for listener in self.listeners:
                listener.close()
            # In the middle of everything.
            self.node.session.close()
            for draft in self.drafts:
                draft.close()
            for target in (*self.targets, self.partial):
                target.file.close()
                os.close(target.fd)
            assert time.monotonic() - began_s < GOOD_PEER_S, "the session does not end"

    # --- nonsense ---------------------------------------------------------------------------------

    def step(self) -> None:
        for event in self.node.pump():
            if isinstance(event, PeerReady):
                self.ready.append(event.peer)
            elif isinstance(event, PeerGone) and event.peer in self.ready:
                self.ready.remove(event.peer)
        self.node.events.clear()
        self.accept()
        self.strangers = [one for one in self.strangers if not one.gone]
        choice = self.random.random()
        if choice < 0.08 and len(self.strangers) < 30:
            self.dial_in()
        elif choice < 0.10 and self.strangers:
            self.random.choice(self.strangers).close(hard=self.random.random() < 0.5)
        elif choice < 0.30:
            with contextlib.suppress(SwarmError, FileNotFoundError):
                self.random.choice(self.deeds())()
        elif self.strangers:
            stranger = self.random.choice(self.strangers)
            stranger.flush()
            stranger.look()
            if not stranger.gone and (stranger.ready or self.random.random() < 0.1):
                stranger.speak()

    def dial_in(self) -> None:
        host = self.random.choice(HOSTS)
        try:
            connection = socket.create_connection(("127.0.0.1", self.node.port), 5, source_address=(host, 0))
        except OSError:
            return
        stranger = Stranger(self.world, connection, host, self.keyed, True)
        self.strangers.append(stranger)
        if self.random.random() < 0.05:
            return stranger.send(self.random.randbytes(self.random.choice([1, 68, 500])))
        swarm = self.rendezvous()
        if self.random.random() < 0.4:
            swarm = stranger.peer.swarm_of(*self.world.object())
        stranger.greet(swarm)

    def accept(self) -> None:
        for listener in self.listeners:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                host = listener.getsockname()[0]
                self.strangers.append(Stranger(self.world, connection, host, self.keyed, False))

    def deeds(self) -> list[Callable[[], object]]:
        """What the session itself may do next."""
        node, session, world, choose = self.node, self.node.session, self.world, self.random.choice
        kind, hash_ = world.object()
        peer = choose([*self.ready, 999])
        content = choose(world.contents)
        target = choose(self.targets)
        first = world.small()
        wanted = world.target_content
        listener = choose(self.listeners)

        def ask_have() -> None:
            token = node.token()
            updates = choose([True, False])
            session.ask_have(token, peer, Kind(kind), XetHash(hash_), choose([0.05, 1.0]), updates=updates)
            self.watched.append((token, peer))

        def ask_piece() -> None:
            count = min(self.random.randint(1, 30), 50 - first)
            xorb, a, b = choose(world.target_content.xorbs)
            if choose([True, False]) and first < 50:
                token = node.ask(peer, target, first, first + max(1, count), timeout_s=choose([0.05, 1.0]))
            else:
                token = node.ask(
                    peer, target, a, b, kind=Kind.XORB, hash_=xorb, object_first=0, timeout_s=choose([0.05, 1.0])
                )
            self.open_pieces.append((token, peer))

        def reopen() -> None:
            # Also with pieces on their way to it.
            self.node.session.unshare_transfer(target.file)
            target.file.close()
            target.file = WritableFile(target.fd, world.target_content.manifest)
            session.share_transfer(target.file, world.target_content.hash, choose([(), world.target_content.terms]))

        def draft() -> Draft:
            # In a file of its own: nothing checks what is written there.
            xorb, a, b = choose(wanted.xorbs)
            size = wanted.manifest.offset(b) - wanted.manifest.offset(a)
            fd = os.open(world.folder / f"draft{len(self.drafts)}", os.O_RDWR | os.O_CREAT)
            one = Draft(fd, 0, size, xorb, 0, b - a)
            os.close(fd)
            self.drafts.append(one)
            return one

        def follow() -> None:
            token = node.token()
            session.follow(token, peer, draft(), choose([0.05, 1.0]))
            self.open_pieces.append((token, peer))

        def come() -> None:
            one = choose([*self.drafts[-5:], draft()])
            session.share_draft(one)
            for chunk in choose(world.contents).chunks[: self.random.randrange(4)]:
                one.add(chunk_hash(chunk), array("I", [len(chunk)]))

        def place() -> None:
            at = self.random.randrange(len(self.partial.content.chunks))
            self.partial.place(at, at + 1)

        def touch() -> None:
            path = choose(world.paths[:2])
            how = self.random.randrange(3)
            if how == 0:
                os.utime(path)
            elif how == 1:
                os.truncate(path, self.random.randrange(1 + path.stat().st_size))
            else:
                path.unlink()

        return [
            lambda: session.dial(listener.getsockname()[0], listener.getsockname()[1], node.token(), None),
            lambda: session.dial(*listener.getsockname(), node.token(), session.info_hash(Kind(kind), XetHash(hash_))),
            ask_have,
            ask_have,
            lambda: session.forget_have(*choose([*self.watched[-20:], (1, peer)])),
            lambda: session.ask_manifest(
                node.token(), peer, Kind(kind), XetHash(hash_), first, choose([1, 60, 16384, 20000]), 0.05
            ),
            ask_piece,
            ask_piece,
            ask_piece,
            lambda: session.cancel_piece(*reversed(choose([*self.open_pieces[-20:], (1, peer)]))),
            lambda: node.share(content, world.paths[world.contents.index(content)], choose([True, False])),
            lambda: session.unshare(str(world.paths[world.contents.index(content)]), content.hash),
            touch,
            place,
            place,
            follow,
            follow,
            come,
            come,
            lambda: choose(self.drafts).end() if self.drafts else None,
            lambda: choose(self.drafts).close() if self.drafts else None,
            lambda: session.unshare_draft(choose(self.drafts)) if self.drafts else None,
            reopen,
            lambda: session.share_transfer(target.file, choose([None, wanted.hash]), wanted.terms),
            lambda: session.tell_claims(
                XetHash(wanted.hash), choose([True, False]), choose([[], [(first, first + 2, 1, first)]])
            ),
            lambda: session.unshare_transfer(self.partial.file),
            lambda: session.share_transfer(self.partial.file, self.partial.content.hash, self.partial.content.terms),
            lambda: target.file.seal() if self.random.random() < 0.1 else None,
            lambda: session.set_caps(choose([None, 20_000, 1 << 30]), choose([None, 20_000, 1 << 30])),
            lambda: session.join(Kind(kind), XetHash(hash_), announce=choose([True, False])),
            lambda: session.leave(Kind(kind), XetHash(hash_)),
            session.peers,
            session.shares,
            session.bans,
            session.stats,
        ]

    # --- what must hold ---------------------------------------------------------------------------

    def check(self) -> None:
        self.node.session.set_caps(None, None)
        self.takes_from_us()
        self.gives_to_us()
        for target in (*self.targets, self.partial):
            written = target.path.read_bytes()
            manifest = target.content.manifest
            for number, chunk in enumerate(target.content.chunks):
                there = written[manifest.offset(number) : manifest.offset(number + 1)]
                assert there == chunk or not any(there), f"chunk {number} of {target.path.name} is wrong"
        for ban in self.node.session.bans():
            host = ban.address.rpartition(":")[0]
            assert host not in (*HONEST_HOSTS, "127.0.0.1"), f"banned without a reason: {ban}"
        stats = self.node.session.stats()
        assert stats.peers_ready <= 200 and stats.dials_open <= 64, stats

    def takes_from_us(self) -> None:
        """A good peer gets a file, after whatever has happened."""
        content = self.world.contents[0]
        self.node.share(content, self.world.folder / "good")
        if self.keyed:
            peer: WirePeer = KeyedPeer.dial_keyed(self.node.port, KEY)
        else:
            peer = WirePeer.dial(self.node.port)
        with peer:
            peer.socket.settimeout(GOOD_PEER_S)
            count = len(content.chunks)
            peer.send_zest(peer.have_request(7, wire.FILE, content.hash))
            peer.send_zest(wire.range_request(8, wire.FILE, content.hash, 0, count))
            got: dict[int, bytes] = {}
            while len(got) < count:
                body = peer.receive_zest()
                if body[0] == wire.RANGE_DATA:
                    request, number = struct.unpack_from(">II", body, 1)
                    assert request == 8 and number == len(got)
                    got[number] = body[9:]
                elif body[0] not in NEWS:
                    assert body[:6] == struct.pack(">BIB", wire.HAVE, 7, wire.OK), body[:50]
            assert b"".join(got.values()) == content.data

    def gives_to_us(self) -> None:
        """We get a file from a good peer."""
        content = self.world.target_content
        node = self.node
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(GOOD_PEER_S)
        token = node.token()
        node.session.dial("127.0.0.1", listener.getsockname()[1], token)
        if self.keyed:
            peer: WirePeer = KeyedPeer.accept(listener, KEY)
            assert isinstance(peer, KeyedPeer)
            peer.prove_key()
        else:
            connection, _ = listener.accept()
            peer = WirePeer(connection)
            peer.send_handshake(peer.receive_handshake())
            peer.extended_handshake()
        with listener, peer, Target(self.world.folder / "good target", content) as target:
            peer.socket.settimeout(0.02)
            number = node.wait(PeerReady, lambda event: event.token == token, GOOD_PEER_S).peer
            asked = node.token()
            node.session.ask_have(asked, number, Kind.FILE, content.hash, GOOD_PEER_S)
            piece = node.ask(number, target, timeout_s=GOOD_PEER_S)
            end_s = time.monotonic() + GOOD_PEER_S
            while True:
                assert time.monotonic() < end_s, "a good peer's bytes do not arrive"
                if select.select([peer.socket], [], [], 0.01)[0]:
                    peer.socket.settimeout(GOOD_PEER_S)
                    extension, body = peer.receive()
                    if extension == wire.ZEST_ID and body[0] in NEWS:
                        continue
                    question = parse_question(extension, body)
                    proof = peer.prove(b"hold", question.kind, content.hash)
                    serve(peer, content, dataclasses.replace(question, hold=lambda _, proof=proof: proof))
                node.pump()
                if any(isinstance(event, PieceEnd) and event.token == piece for event in node.events):
                    break
            assert node.ended(piece).outcome is Outcome.OK
            assert node.wait(HaveAnswer, lambda event: event.token == asked).outcome is Outcome.OK
            assert target.data == content.data


def rounds(seeds: Iterator[int], end_s: float) -> None:
    """Prints each seed before its round."""
    faulthandler.enable()
    baseline: int | None = None
    for count, seed in enumerate(seeds):
        if time.monotonic() >= end_s:
            break
        print(seed, flush=True)
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
        with tempfile.TemporaryDirectory() as folder:
            Round(seed, Path(folder)).run()
        faulthandler.cancel_dump_traceback_later()
        if count == WARM_UP_ROUNDS:
            baseline = resident_bytes()
        if baseline is not None:
            now = resident_bytes()
            assert now - baseline < MAX_GROWTH_BYTES, f"{now >> 20} MB in use, {baseline >> 20} MB at first"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", nargs="?", type=int, help="of one round")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first", type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if arguments.seed is not None:
        rounds(iter([arguments.seed]), float("inf"))
        print("nothing found")
        return 0
    if arguments.first is not None:
        rounds(iter(range(arguments.first, arguments.first + (1 << 40))), time.monotonic() + arguments.seconds)
        return 0
    # In a process of its own: a sanitizer ends it where it finds something.
    first = int(time.time())
    command = [sys.executable, *(["-S"] if sys.flags.no_site else []), str(HERE)]
    child = subprocess.Popen(
        [*command, "--first", str(first), "--seconds", str(arguments.seconds)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    seed, count = first, 0
    for line in child.stdout:
        seed, count = int(line), count + 1
    if child.wait() == 0:
        print(f"{count} rounds, seeds {first} to {seed}: nothing found")
        return 0
    print(f"found in round {count}; once more: make fuzz-session FUZZ_SEED={seed}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
