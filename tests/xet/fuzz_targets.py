"""What arbitrary bytes are given to: by tests/xet/fuzz.py (guided by coverage) and test_fuzz.py (replay, mutation).

A target returns, or fails with an AssertionError or any exception that is not ours: both are bugs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace

from zest_hf import xet
from zest_hf.errors import ProtocolError, ReconstructionError, ShardError, XorbError
from zest_hf.hook.connection import parse_token
from zest_hf.hub.auth import Signer
from zest_hf.hub.http import Refusal, parse_ranges


def one_line(error: Exception) -> None:
    assert "\n" not in str(error) and len(str(error)) < 2000


def shard(data: bytes) -> None:
    try:
        parsed = xet.parse_shard(data)
    except ShardError as error:
        one_line(error)
        return
    written = parsed.to_bytes()
    # Padding and unused flags are not kept; what is kept reads back the same.
    assert len(written) == len(data)
    again = xet.parse_shard(written)
    assert again.to_bytes() == written and again.xorbs == parsed.xorbs


def xorb(data: bytes) -> None:
    try:
        table = xet.chunk_table(data)
        manifest, content = xet.unpack_xorb(data)
    except XorbError as error:
        one_line(error)
        try:
            xet.read_xorb(data)
        except XorbError:
            return
        raise AssertionError("read, but not unpacked") from None
    assert (table.size_bytes, table.lengths) == (len(content), manifest.lengths)
    try:
        whole = xet.read_xorb(data)
    except XorbError as error:
        one_line(error)
        assert table.packed_bytes < len(data), "only a footer can be wrong now"
        return
    assert whole.manifest == manifest
    if whole.footer is not None:
        assert whole.footer.to_bytes() == data[table.packed_bytes :]


def footer(data: bytes) -> None:
    try:
        parsed = xet.parse_footer(data)
    except XorbError as error:
        one_line(error)
        return
    assert parsed.to_bytes() == data


def reconstruction(data: bytes) -> None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    for parse in (xet.parse_v1, xet.parse_v2):
        try:
            plan = parse(value)
        except ReconstructionError as error:
            one_line(error)
            continue
        for term in plan.terms:
            assert plan.covering(term).start <= term.start < term.end
        try:
            list(xet.reconstruct(plan, lambda fetch: b"\0" * min(fetch.size_bytes, 4096)))
        except XorbError as error:
            one_line(error)


def token(data: bytes) -> None:
    """The Hub's answer to the request for a token, and our own hub's tokens and urls."""
    text = data.decode("latin-1")
    head, _, body = text.partition("\n\n")
    lines = (line.partition(":") for line in head.split("\n"))
    headers = {name.strip(): value.strip() for name, _, value in lines}
    answer = SimpleNamespace(headers=headers, content=body.encode(), json=lambda: json.loads(body))
    try:
        found = parse_token(answer)
        assert found.url.startswith("http") and found.token.isascii()
    except RecursionError:
        pass
    except ProtocolError as error:
        one_line(error)
    signer = Signer(b"key")
    for call in (
        lambda: signer.read_token(text),
        lambda: signer.read_url("00" * 32, *[*text.split("&"), "", ""][:3]),
        lambda: parse_ranges(text, 1000, limit=16),
    ):
        try:
            call()
        except Refusal as error:
            one_line(error)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "shard": shard,
    "xorb": xorb,
    "footer": footer,
    "reconstruction": reconstruction,
    "token": token,
}
