"""A peer of a keyed swarm, written from native/PROTOCOL.md with hashlib and the `cryptography` package."""

from __future__ import annotations

import functools
import hashlib
import hmac
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from swarm import wire_peer as wire
from swarm.wire_peer import TIMEOUT_S, WirePeer

SEALED = "zest_hf1s"
RECORDS_OF_A_KEY = 1 << 16
TAG_BYTES = 16


def hkdf(secret: bytes, purpose: str, salt: bytes | None = None) -> bytes:
    return HKDF(SHA256(), 32, salt, purpose.encode()).derive(secret)


class Secret:
    """What is made of a swarm key."""

    def __init__(self, swarm_key: bytes) -> None:
        master = hashlib.scrypt(swarm_key, salt=b"zest_hf swarm key v1", n=1 << 14, r=8, p=1, dklen=32)
        self._names = hkdf(master, "zest_hf swarm names")
        self.handshake = hkdf(master, "zest_hf handshake")

    def _name(self, text: bytes) -> bytes:
        return hmac.digest(self._names, text, "sha256")[:20]

    def swarm(self, kind: int, object_: bytes) -> bytes:
        return self._name((b"zest-xet-v1:" if kind == wire.XORB else b"zest-hf-file-v1:") + object_)

    @property
    def rendezvous(self) -> bytes:
        return self._name(b"zest-hf-node-v1")


@functools.cache
def secret_of(swarm_key: bytes) -> Secret:
    return Secret(swarm_key)


class Records:
    """One direction of a connection."""

    def __init__(self, key: bytes) -> None:
        self._key, self._count = key, 0
        self._cipher = AESGCM(key)

    def _next_nonce(self) -> bytes:
        """Also puts the key of the next record in place."""
        if self._count and self._count % RECORDS_OF_A_KEY == 0:
            self._key = hkdf(self._key, "zest_hf1s next")
            self._cipher = AESGCM(self._key)
        self._count += 1
        return struct.pack(">IQ", 0, self._count - 1)

    def seal(self, message: bytes) -> bytes:
        nonce = self._next_nonce()
        return self._cipher.encrypt(nonce, message, None)

    def open(self, record: bytes) -> bytes:
        nonce = self._next_nonce()
        return self._cipher.decrypt(nonce, record, None)


@dataclass
class KeyedPeer(WirePeer):
    """One connection. `agree` follows the extension handshake, then the proofs; from `start` on messages are sealed."""

    extensions: dict[str, int] = field(default_factory=lambda: {SEALED: wire.ZEST_ID})
    secret: Secret = field(default_factory=lambda: secret_of(b""))
    private: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    info_hash: bytes = b""
    dialled: bool = True
    seen: bytearray = field(default_factory=bytearray)
    """All that was received on this connection, as it came."""
    keys: dict[str, bytes] = field(default_factory=dict)
    sealing: Records | None = None
    opening: Records | None = None

    def __post_init__(self) -> None:
        self.nonce = self.nonce and self.private.public_key().public_bytes_raw()
        self.info_hash = self.info_hash or self.secret.rendezvous

    @classmethod
    def connect(cls, port: int, swarm_key: bytes, **options: Any) -> KeyedPeer:
        """Dials and makes the two handshakes of BitTorrent; nothing is proved yet."""
        connection = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        peer = cls(connection, secret=secret_of(swarm_key), **options)
        peer.send_handshake(peer.info_hash)
        peer.receive_handshake(peer.info_hash)
        peer.extended_handshake()
        return peer

    @classmethod
    def dial_keyed(cls, port: int, swarm_key: bytes, **options: Any) -> KeyedPeer:
        """Connected, proved, ready."""
        peer = cls.connect(port, swarm_key, **options)
        peer.prove_key()
        return peer

    @classmethod
    def accept(cls, listener: socket.socket, swarm_key: bytes, **options: Any) -> KeyedPeer:
        """The other side of `connect`."""
        connection, _ = listener.accept()
        connection.settimeout(TIMEOUT_S)
        peer = cls(connection, secret=secret_of(swarm_key), dialled=False, **options)
        peer.info_hash = peer.receive_handshake()
        peer.send_handshake(peer.info_hash)
        peer.extended_handshake()
        return peer

    def receive_raw(self, count: int) -> bytes:
        data = super().receive_raw(count)
        self.seen += data
        return data

    def agree(self) -> None:
        """Computes the keys of this connection."""
        theirs_id, theirs_key = self.their_handshake[b"zh"], self.their_handshake[b"zn"]
        mine, other = (self.node_id or b"", self.nonce or b""), (theirs_id, theirs_key)
        dialler, acceptor = (mine, other) if self.dialled else (other, mine)
        transcript = b"zest_hf1s" + dialler[0] + acceptor[0] + dialler[1] + acceptor[1] + self.info_hash
        assert len(transcript) == 133
        shared = self.private.exchange(X25519PublicKey.from_public_bytes(theirs_key))
        salt = hashlib.sha256(transcript).digest()
        for name in ("dialler proves", "acceptor proves", "dialler seals", "acceptor seals"):
            self.keys[name] = hkdf(shared + self.secret.handshake, f"zest_hf1s {name}", salt)

    @property
    def role(self) -> str:
        return "dialler" if self.dialled else "acceptor"

    @property
    def other_role(self) -> str:
        return "acceptor" if self.dialled else "dialler"

    @property
    def proof(self) -> bytes:
        return self.keys[f"{self.role} proves"]

    def send_plain(self, body: bytes) -> None:
        self.send_raw(self.frame(SEALED, body))

    def receive_plain(self) -> bytes:
        extension, body = super().receive()
        assert extension == self.extensions[SEALED]
        return body

    def prove_key(self) -> None:
        """Both proofs, in the order that the roles have."""
        self.agree()
        if self.dialled:
            self.send_plain(self.proof)
        assert self.receive_plain() == self.keys[f"{self.other_role} proves"]
        if not self.dialled:
            self.send_plain(self.proof)
        self.start()

    def start(self) -> None:
        self.sealing = Records(self.keys[f"{self.role} seals"])
        self.opening = Records(self.keys[f"{self.other_role} seals"])

    def seal(self, body: bytes) -> bytes:
        """The next record."""
        assert self.sealing is not None
        return self.sealing.seal(body)

    def send_zest(self, body: bytes) -> None:
        self.send_plain(self.seal(body))

    def receive(self) -> tuple[int, bytes]:
        extension, body = super().receive()
        assert self.opening is not None
        return extension, self.opening.open(body)

    def receive_zest(self) -> bytes:
        return self.receive()[1]

    def swarm_of(self, kind: int, object_: bytes) -> bytes:
        return self.secret.swarm(kind, object_)
