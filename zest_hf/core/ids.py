"""Names of things: Xet hashes, their text form, and the info-hashes of swarms.

A Xet hash is 32 raw bytes everywhere in zest_hf, on the peer wire and inside info-hashes. Its text form,
used in urls and JSON, prints the four 64-bit words of those bytes each as a little-endian number, so it is
*not* the plain hex of the bytes (Xet specification, "Hashes as strings").
"""

from __future__ import annotations

import hashlib
import re
import struct
from typing import Final, NewType

from zest_hf.errors import ProtocolError

XetHash = NewType("XetHash", bytes)
"""32 raw bytes: the hash of a chunk, a xorb or a file."""

HASH_SIZE: Final = 32

ZERO_HASH: Final = XetHash(bytes(HASH_SIZE))
"""The file hash of an empty file."""

NODE_INFO_HASH: Final = hashlib.sha1(b"zest-hf-node-v1").digest()
"""20 bytes: the swarm in which nodes meet that share no file yet."""

_TEXT_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")


def hash_from_raw(raw: bytes) -> XetHash:
    """Take 32 raw bytes (any buffer of them) for a hash; raises ProtocolError for another length."""
    if len(raw) != HASH_SIZE:
        raise ProtocolError(f"a Xet hash has {HASH_SIZE} bytes, not {len(raw)}")
    return XetHash(bytes(raw))


def hash_from_text(text: str) -> XetHash:
    """Parse the 64 hexadecimal digits of the text form; raises ProtocolError for anything else."""
    if not isinstance(text, str) or _TEXT_HASH.fullmatch(text) is None:
        shown = repr(text) if len(repr(text)) <= 80 else repr(text)[:77] + "..."
        raise ProtocolError(f"not a Xet hash (64 hexadecimal digits): {shown}")
    return XetHash(_swap_words(bytes.fromhex(text)))


def hash_to_text(value: XetHash) -> str:
    """The text form: 64 lower-case hexadecimal digits."""
    return _swap_words(value).hex()


def xorb_info_hash(xorb: XetHash) -> bytes:
    """20 bytes: the info-hash of a xorb's swarm (BEP XET v1)."""
    return hashlib.sha1(b"zest-xet-v1:" + xorb).digest()


def file_info_hash(file: XetHash) -> bytes:
    """20 bytes: the info-hash under which the holders of a file meet."""
    return hashlib.sha1(b"zest-hf-file-v1:" + file).digest()


def _swap_words(value: bytes) -> bytes:
    """Reverse the bytes of each of the four words; its own inverse."""
    return struct.pack("<4Q", *struct.unpack(">4Q", value))
