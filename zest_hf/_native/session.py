"""The swarm session: peers, questions to them, pieces of files, and what this node offers.

Typed over ``native/include/zest_swarm.h``. Nothing here waits for the network but ``Session()`` (until its port is
bound) and ``close()``; what happens comes out of ``events()`` in order. Any method may be called from any thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from zest_hf._native.draft import Draft
from zest_hf._native.events import (
    CLAIM,
    BanInfo,
    Event,
    Kind,
    PeerInfo,
    SessionStats,
    ShareInfo,
    Source,
    TrackerInfo,
    decode,
)
from zest_hf._native.lib import ffi, lib
from zest_hf._native.writable_file import WritableFile, u32_list
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.reconstruction import Term
from zest_hf.errors import SwarmError

# Shorter swarm keys are warned of: 16 random bytes are out of reach, a word is not.
GOOD_KEY_BYTES = 16
MAX_MANIFEST_ENTRIES = 16384
MAX_PIECE_CHUNKS = 8192
MAX_CLAIMS = 1024
# The largest payload of an event is a manifest part.
_PAYLOAD_BYTES = 36 * MAX_MANIFEST_ENTRIES

_logger = logging.getLogger("zest_hf.swarm")


class Session:
    """A libtorrent session of our own that carries BEP XET."""

    def __init__(
        self,
        *,
        node_id: bytes,
        listen_host: str = "",
        listen_port: int = 0,
        port_retries: int = 0,
        connect_timeout_s: float = 5.0,
        max_up_bytes_s: int | None = None,
        max_down_bytes_s: int | None = None,
        lsd: bool = False,
        trackers: Sequence[str] = (),
        dht: bool = False,
        dht_bootstrap: Sequence[tuple[str, int]] = (),
        swarm_key: bytes | None = None,
        scratch_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        """``node_id``: 20 bytes. ``listen_host``: a numeric address; "" is every one, of IPv4 and of IPv6.

        ``lsd``, ``trackers`` (URLs) and ``dht`` are used from the first `join` on. ``dht_bootstrap``: where the DHT is
        entered; if all of them are numeric addresses of this machine or of private
        networks, the rules that keep such addresses out of the DHT are off.

        With ``swarm_key`` the session is in a swarm of its own: only peers that prove to know the key are talked to,
        everything said to them is encrypted, and its info-hashes mean nothing to others. It takes no part in the DHT.

        ``scratch_dir``: a directory for a file without a name, which holds what is known of the offered files. Without
        one (also while it is not there, or full) that is kept in memory: 32 bytes a chunk.

        Raises SwarmError when the port cannot be bound, or for ``dht`` and ``swarm_key`` together.
        """
        if len(node_id) != 20:
            raise SwarmError("a node id has 20 bytes")
        if any(not url or "\n" in url or "\0" in url for url in (*trackers, *(host for host, _ in dht_bootstrap))):
            raise SwarmError("a tracker or a node of the DHT that is no address")
        if swarm_key is not None and len(swarm_key) < GOOD_KEY_BYTES:
            # An empty one is no key: nobody may take the session for a private one.
            if not swarm_key:
                raise SwarmError("a swarm key has at least one byte")
            _logger.warning(
                "the swarm key has %d bytes: whoever listens can try out all keys that are that short. "
                "Use a random one, for example of `openssl rand -hex 32`",
                len(swarm_key),
            )
        host = ffi.new("char[]", listen_host.encode())
        config = ffi.new("zest_session_config *")
        config.listen_host = host
        config.listen_port = listen_port
        config.port_retries = port_retries
        config.connect_timeout_ms = int(connect_timeout_s * 1000)
        config.max_up_bytes_s = max_up_bytes_s or 0
        config.max_down_bytes_s = max_down_bytes_s or 0
        config.node_id = node_id
        key = ffi.from_buffer("uint8_t[]", swarm_key or b"")
        config.swarm_key = key
        config.swarm_key_size = len(key)
        config.lsd = lsd
        config.dht = dht
        urls = ffi.new("char[]", "\n".join(trackers).encode())
        config.trackers = urls
        nodes = ffi.new("char[]", "\n".join(f"{_bracketed(host)}:{port}" for host, port in dht_bootstrap).encode())
        config.dht_bootstrap = nodes
        scratch = ffi.NULL if scratch_dir is None else ffi.new("char[]", os.fsencode(scratch_dir))
        config.scratch_dir = scratch
        error = ffi.new("char[]", 256)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        try:
            self._wake_read, self._wake_write = os.pipe()
        except OSError as problem:
            raise SwarmError(f"the swarm session does not start: {problem}") from problem
        os.set_blocking(self._wake_write, False)
        self._handle: Any = lib.zest_session_open(config, error, 256)
        if self._handle == ffi.NULL:
            os.close(self._wake_read)
            os.close(self._wake_write)
            raise SwarmError(ffi.string(error).decode("utf-8", "replace") or "the swarm session does not start")
        self.port: int = lib.zest_session_port(self._handle)
        self._event_fd: int = lib.zest_session_event_fd(self._handle)
        self._poll = select.poll()  # select() is confined to descriptors below 1024
        self._poll.register(self._event_fd, select.POLLIN)
        self._poll.register(self._wake_read, select.POLLIN)
        self._event = ffi.new("zest_event *")
        self._payload = bytearray(_PAYLOAD_BYTES)

    def close(self) -> None:
        """Stops the threads and ends all connections. Does nothing in a forked child, which has no such threads."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            handle, self._handle = self._handle, None
            if handle is not None:
                lib.zest_session_close(handle)
                os.close(self._wake_read)
                os.close(self._wake_write)

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        # Held during each call, none of which is long: close() must not free what another thread is using.
        # In a forked child nobody may be left who gives the lock back.
        if os.getpid() != self._pid:
            raise SwarmError("the swarm session is closed")
        with self._lock:
            if self._handle is None:
                raise SwarmError("the swarm session is closed")
            yield self._handle

    def wake(self) -> None:
        """Makes `events` return, now and from now on: the session is about to be closed. After that, nothing."""
        with self._lock:
            if self._handle is not None:
                with contextlib.suppress(BlockingIOError):
                    os.write(self._wake_write, b"x")

    def events(self, timeout_s: float) -> Iterator[Event]:
        """Waits at most ``timeout_s`` for something to happen and yields all that has.

        For one thread only, which has to be done with it before close().
        """
        ready = self._poll.poll(max(0.0, timeout_s) * 1000)
        if not any(fd == self._event_fd for fd, _ in ready):
            return
        payload = ffi.from_buffer("uint8_t[]", self._payload)
        while True:
            with self._open() as session:
                if lib.zest_session_next(session, self._event, payload, _PAYLOAD_BYTES) != 1:
                    return
            yield decode(self._event, memoryview(self._payload)[: self._event.payload_size])

    def info_hash(self, kind: Kind, hash_: XetHash) -> bytes:
        """20 bytes: what the swarm of an object is called in this session."""
        out = ffi.new("uint8_t[20]")
        with self._open() as session:
            lib.zest_session_info_hash(session, int(kind), _hash(hash_), out)
        return bytes(out)

    def dial(self, host: str, port: int, token: int, info_hash: bytes | None = None) -> None:
        """Connects to a numeric address; without ``info_hash`` at the rendezvous of peers given by hand.

        One attempt, begun at once. It ends in PeerGone with this token, after PeerReady if it succeeds.

        Raises SwarmError for an address that is not one.
        """
        if not 0 < port < 65536 or (info_hash is not None and len(info_hash) != 20):
            raise SwarmError(f"not an address that can be connected to: {host}:{port}")
        swarm = ffi.NULL if info_hash is None else ffi.from_buffer("uint8_t[]", info_hash)
        with self._open() as session:
            result = lib.zest_session_dial(session, host.encode(), port, swarm, token)
        if result != 0:
            raise SwarmError(f"not an address that can be connected to: {host}:{port}")

    def join(self, kind: Kind, hash_: XetHash, *, announce: bool) -> None:
        """Looks for peers that know an object, and with ``announce`` is found by others.

        Who asks for a file that is joined and not held is answered that nothing of it is held yet.

        Files: by LSD, trackers and the DHT; xorbs: in the DHT alone. On the LAN and at trackers to look is to be seen.
        Peers are dialled as they are found: PeerReady with token 0. Joining again changes ``announce``.
        """
        with self._open() as session:
            lib.zest_session_join(session, int(kind), _hash(hash_), announce)

    def add_tracker(self, url: str) -> None:
        """One more, whose name is known to resolve: the end of the session waits for a look-up on its way."""
        if not url or "\n" in url or "\0" in url:
            raise SwarmError(f"not the address of a tracker: {url!r}")
        with self._open() as session:
            lib.zest_session_add_tracker(session, url.encode())

    def add_dht_node(self, host: str, port: int) -> None:
        """A numeric address from which the DHT may start, if it is on."""
        with self._open() as session:
            lib.zest_session_add_dht_node(session, host.encode(), port)

    def leave(self, kind: Kind, hash_: XetHash) -> None:
        """Ends what `join` began, and the claims. Connections stay."""
        with self._open() as session:
            lib.zest_session_leave(session, int(kind), _hash(hash_))

    def tell_claims(
        self, file_hash: XetHash, downloading: bool, claims: Sequence[tuple[int, int, int, int]]
    ) -> None:
        """What this node does about a file, in place of what it said before: Claims for the peers that know the file.

        ``claims``: (first chunk of the file, end, ClaimState, progress in 1/65535), in any order, disjoint, none unless
        ``downloading``. Beyond MAX_CLAIMS what is fetched is told before what is held, which HaveAnswer tells as well.
        Peers are told of changes at most every 100 ms, of mere progress every 500 ms.

        Raises SwarmError for claims that overlap or are out of range.
        """
        if len(claims) > MAX_CLAIMS:
            claims = sorted(claims, key=lambda claim: claim[2])[:MAX_CLAIMS]
        native = ffi.new("zest_claim[]", max(1, len(claims)))
        try:
            ffi.buffer(native)[: CLAIM.size * len(claims)] = b"".join(CLAIM.pack(*one) for one in sorted(claims))
        except struct.error as error:
            raise SwarmError(f"claims that are out of range: {error}") from error
        with self._open() as session:
            result = lib.zest_session_tell_claims(session, _hash(file_hash), downloading, len(claims), native)
        if result != 0:
            raise SwarmError("claims that overlap, are out of range, or belong to no download")

    def ban(self, peer: int, reason: str) -> None:
        """Disconnects a peer for the rest of the session."""
        with self._open() as session:
            lib.zest_session_ban(session, peer, reason.encode())

    def ask_have(
        self, token: int, peer: int, kind: Kind, hash_: XetHash, timeout_s: float, *, updates: bool = False
    ) -> None:
        """Answered by HaveAnswer, always.

        With ``updates``, and if the answer is OK, HaveMore with this token follows whenever the peer holds more.
        """
        timeout_ms = int(timeout_s * 1000)
        with self._open() as session:
            lib.zest_session_ask_have(session, token, peer, int(kind), _hash(hash_), updates, timeout_ms)

    def forget_have(self, token: int, peer: int) -> None:
        """No more HaveMore for this question, but for what has happened already."""
        with self._open() as session:
            lib.zest_session_forget_have(session, peer, token)

    def ask_manifest(
        self, token: int, peer: int, kind: Kind, hash_: XetHash, first: int, count: int, timeout_s: float
    ) -> None:
        """At most MAX_MANIFEST_ENTRIES chunks. Answered by ManifestAnswer, always."""
        timeout_ms = int(timeout_s * 1000)
        with self._open() as session:
            lib.zest_session_ask_manifest(session, token, peer, int(kind), _hash(hash_), first, count, timeout_ms)

    def ask_piece(
        self,
        token: int,
        peer: int,
        file: WritableFile,
        kind: Kind,
        hash_: XetHash,
        object_first: int,
        file_first: int,
        count: int,
        timeout_s: float,
    ) -> None:
        """At most MAX_PIECE_CHUNKS chunks of an object, from ``object_first``; they are the file's from ``file_first``.

        ``timeout_s`` is the longest silence that is borne. Answered by PieceEnd, always.
        """
        timeout_ms = int(timeout_s * 1000)
        with self._open() as session, file.opened() as transfer:
            lib.zest_session_ask_piece(
                session,
                token,
                peer,
                transfer,
                int(kind),
                _hash(hash_),
                object_first,
                file_first,
                count,
                timeout_ms,
            )

    def cancel_piece(self, peer: int, token: int) -> None:
        """PieceEnd follows (as cancelled, unless it crossed its own end)."""
        with self._open() as session:
            lib.zest_session_cancel_piece(session, peer, token)

    def share(
        self,
        path: str,
        size_bytes: int,
        mtime_ns: int,
        file_hash: XetHash,
        manifest: Manifest,
        terms: Sequence[Term],
    ) -> None:
        """Offers a file as long as its size and time stay as given.

        Raises SwarmError when manifest, terms and size disagree.
        """
        native_terms = _term_list(terms)
        hashes = ffi.from_buffer("uint8_t[]", manifest.hashes)
        lengths = u32_list(manifest.lengths)
        with self._open() as session:
            result = lib.zest_session_share(
                session,
                os.fsencode(path),
                size_bytes,
                mtime_ns,
                _hash(file_hash),
                len(manifest),
                hashes,
                lengths,
                len(terms),
                native_terms,
            )
        if result != 0:
            raise SwarmError(f"the record of {path} does not add up; it is not offered")

    def unshare(self, path: str, file_hash: XetHash) -> None:
        """Stops offering a file. Requests that run end as not found."""
        with self._open() as session:
            lib.zest_session_unshare(session, os.fsencode(path), _hash(file_hash))

    def share_transfer(self, file: WritableFile, file_hash: XetHash | None, terms: Sequence[Term]) -> None:
        """Offers what is held of a file that is being written, and what comes, until it is closed.

        ``file_hash`` None: it is a run of a file, of which only the xorbs that ``terms`` name are offered. What is
        offered by `share` under the same hash afterwards takes over.

        Raises SwarmError when the terms do not add up to its chunks, or it cannot be read or is closed.
        """
        native_hash = ffi.NULL if file_hash is None else ffi.from_buffer("uint8_t[]", _hash(file_hash))
        with self._open() as session, file.opened() as transfer:
            result = lib.zest_session_share_transfer(
                session, transfer, native_hash, len(terms), _term_list(terms)
            )
        if result != 0:
            raise SwarmError("the file that is being written cannot be offered: no reading, or terms that do not fit")

    def unshare_transfer(self, file: WritableFile) -> None:
        """Stops offering a file that is being written. One that is closed is not offered anyway."""
        with self._open() as session, contextlib.suppress(SwarmError), file.opened() as transfer:
            lib.zest_session_unshare_transfer(session, transfer)

    def share_draft(self, draft: Draft) -> None:
        """Lets peers follow what comes of a draft, until `unshare_draft`; who follows it then may go on."""
        with self._open() as session, draft.opened() as handle:
            lib.zest_session_share_draft(session, handle)

    def unshare_draft(self, draft: Draft) -> None:
        """Nobody may begin to follow it any more."""
        with self._open() as session, contextlib.suppress(SwarmError), draft.opened() as handle:
            lib.zest_session_unshare_draft(session, handle)

    def follow(self, token: int, peer: int, draft: Draft, timeout_s: float) -> None:
        """What a peer shares of the draft's chunks is written as it comes. `cancel_piece` ends it.

        ``timeout_s`` is the longest silence that is borne. Answered by PieceEnd, always: OK with all of it, BUSY when
        the peer gets no more or has enough followers. Nothing of it is proved.
        """
        with self._open() as session, draft.opened() as handle:
            lib.zest_session_follow(session, token, peer, handle, int(timeout_s * 1000))

    def set_caps(self, max_up_bytes_s: int | None, max_down_bytes_s: int | None) -> None:
        """Caps on what peers are sent and on what comes from them; None: none."""
        with self._open() as session:
            lib.zest_session_set_caps(session, max_up_bytes_s or 0, max_down_bytes_s or 0)

    def set_uploads(self, on: bool) -> None:
        """While they are off every peer is told that nothing is here; what was being sent ends with the batch."""
        with self._open() as session:
            lib.zest_session_set_uploads(session, int(on))

    def peers(self) -> list[PeerInfo]:
        """All connections, also those that are not ready."""
        infos = self._listing("zest_peer_info[]", lib.zest_session_peers)
        return [
            PeerInfo(
                peer=info.peer,
                address=_text(info.address),
                client=_text(info.client),
                node_id=_node_text(info.node_id),
                outgoing=bool(info.outgoing),
                ready=bool(info.ready),
                ranges=bool(info.speaks & lib.ZEST_SPEAKS_ZEST),
                bytes_down=info.bytes_down,
                bytes_up=info.bytes_up,
                requests_out=info.requests_out,
                requests_in=info.requests_in,
                source=Source(info.source),
            )
            for info in infos
        ]

    def bans(self) -> list[BanInfo]:
        """Who was banned in this session, and why."""
        infos = self._listing("zest_ban_info[]", lib.zest_session_bans)
        return [BanInfo(_text(info.address), _node_text(info.node_id), _text(info.reason)) for info in infos]

    def trackers(self) -> list[TrackerInfo]:
        """The trackers as they were given."""
        states = {lib.ZEST_TRACKER_UNTRIED: None, lib.ZEST_TRACKER_WORKING: True, lib.ZEST_TRACKER_FAILING: False}
        infos = self._listing("zest_tracker_info[]", lib.zest_session_trackers)
        return [TrackerInfo(_text(info.url), states[info.state], _text(info.message), info.peers) for info in infos]

    def shares(self) -> list[ShareInfo]:
        """The offered files that somebody has taken from."""
        infos = self._listing("zest_share_info[]", lib.zest_session_shares)
        return [ShareInfo(XetHash(bytes(info.file_hash)), info.bytes_up, info.peers) for info in infos]

    def stats(self) -> SessionStats:
        """Totals of this session."""
        out = ffi.new("zest_session_stats *")
        with self._open() as session:
            lib.zest_session_get_stats(session, out)
        return SessionStats(
            out.bytes_up,
            out.bytes_down,
            out.chunks_wrong,
            out.peers_ready,
            out.files_shared,
            out.xorbs_shared,
            out.bans,
            out.dht_nodes,
            out.swarms_joined,
            out.swarms_loaded,
            out.dials_open,
        )

    def _listing(self, type_: str, call: Any) -> Iterator[Any]:
        # Elements of a native array do not keep it alive; this frame does, as long as it yields them.
        capacity = 256
        while True:
            out = ffi.new(type_, capacity)
            with self._open() as session:
                count = call(session, out, capacity)
            if count <= capacity:
                yield from (out[i] for i in range(count))
                return
            capacity = count + 64


def _hash(value: bytes) -> bytes:
    # Native code reads 32 bytes, whatever is there.
    if len(value) != 32:
        raise SwarmError(f"a hash of {len(value)} bytes instead of 32")
    return value


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _term_list(terms: Sequence[Term]) -> Any:
    native = ffi.new("zest_term[]", max(1, len(terms)))
    for slot, term in zip(native, terms, strict=False):
        slot.xorb = term.xorb
        slot.start = term.start
        slot.end = term.end
    return native


def _text(field: Any) -> str:
    return str(ffi.string(field).decode("utf-8", "replace"))


def _node_text(field: Any) -> str:
    raw = bytes(ffi.buffer(field))
    return raw.hex() if any(raw) else ""
