"""The inputs that README.md defines."""

from __future__ import annotations

import hashlib
import struct


def block(label: str, counter: int) -> bytes:
    return hashlib.sha256(label.encode() + struct.pack("<I", counter)).digest()


def stream(label: str, size: int) -> bytes:
    return b"".join(block(label, i) for i in range((size + 31) // 32))[:size]


def data(kind: str, label: str, size: int) -> bytes:
    if kind == "zeros":
        return bytes(size)
    if kind == "repeat":
        unit = stream(label, 1000)
        return (unit * (size // len(unit) + 1))[:size]
    out = bytearray(stream(label, size))
    if kind == "weights":
        out[1::2] = bytes(60 + b % 4 for b in out[1::2])
    return bytes(out)


def member(label: str, i: int) -> tuple[bytes, int]:
    digest = block(label, i)
    return digest, 1 + struct.unpack_from("<I", digest)[0] % 131072


def text(raw: bytes) -> str:
    """Text form of a hash: four little-endian words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))
