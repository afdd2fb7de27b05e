"""What a hub can be told when it is started."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

# Chunk headers and a footer come on top of the chunks themselves, which have 64 MiB at most.
MAX_XORB_BODY_BYTES = (64 << 20) + (1 << 20)
MAX_SHARD_BODY_BYTES = 96 << 20
MAX_COMMIT_BODY_BYTES = 256 << 20
MAX_JSON_BODY_BYTES = 32 << 20


@dataclass(frozen=True)
class HubOptions:
    """Settings of one hub.

    ``tokens``: user tokens that are accepted; empty accepts any. ``v2`` False answers 404 to the second
    version of reconstructions and shards. ``redirect_cdn`` sends every CDN request through a 302 first.
    ``exact_ranges`` refuses a CDN request whose Range is not exactly the signed one. ``multi_range`` folds
    all ranges of a xorb into one url that is answered as multipart/byteranges. ``remote_control`` opens the
    statistics and fault routes to clients that are not on this machine. ``tls``: the files of a certificate (with
    those that lead to its authority) and of its key, PEM; then both listeners speak TLS and nothing else.
    """

    state_dir: Path
    listen: tuple[str, int] = ("127.0.0.1", 0)
    cdn_listen: tuple[str, int] | None = None
    tokens: tuple[str, ...] = field(default=())
    user: str = "zest"
    token_lifetime_s: float = 3600.0
    url_lifetime_s: float = 3600.0
    v2: bool = True
    redirect_cdn: bool = False
    exact_ranges: bool = False
    multi_range: bool = False
    remote_control: bool = False
    tls: tuple[Path, Path] | None = None
