"""The swarm of this process: its session, how peers are found, and who waits for which answer.

One thread takes the session's events and hands each to the one who asked; it decides nothing.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from zest_hf import access
from zest_hf._native.draft import Draft
from zest_hf._native.events import (
    BanInfo,
    Claims,
    Event,
    HaveAnswer,
    HaveMore,
    Kind,
    ManifestAnswer,
    PeerBanned,
    PeerGone,
    PeerInfo,
    PeerReady,
    PieceEnd,
    SessionStats,
    ShareInfo,
    ShareLost,
)
from zest_hf._native.session import Session
from zest_hf._native.writable_file import WritableFile
from zest_hf.config import Settings
from zest_hf.core.ids import XetHash
from zest_hf.core.policy import PolicySettings
from zest_hf.core.reconstruction import Term
from zest_hf.errors import SwarmError
from zest_hf.given import Dial, GivenPeers
from zest_hf.index import IndexedFile
from zest_hf.meetings import Meetings
from zest_hf.names import Names, is_address
from zest_hf.setting_values import HostPort

log = logging.getLogger("zest_hf.swarm")

PORT_RETRIES = 20
POLL_S = 0.5
MAX_DIAL_THREADS = 16

DHT_BOOTSTRAP = (
    HostPort("dht.libtorrent.org", 25401),
    HostPort("router.bittorrent.com", 6881),
    HostPort("dht.transmissionbt.com", 6881),
)
"""Well-known nodes of the DHT."""

Listener = Callable[[Event], None]


class Swarm:
    """Methods may be called from any thread. Ended by `close`."""

    def __init__(
        self,
        settings: Settings,
        policy: PolicySettings,
        *,
        port_retries: int = PORT_RETRIES,
        share_lost: Callable[[str], None] | None = None,
    ) -> None:
        """Opens the session. Raises SwarmError when no port can be bound."""
        self.node_id = os.urandom(20)
        self.is_keyed = settings.swarm_key is not None
        """Nobody without the key is spoken to: what is private may be shared."""
        self._settings = settings
        self._policy = policy
        self._share_lost = share_lost
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._waiting: dict[int, Listener] = {}
        self._told: dict[int, tuple[Listener, int]] = {}
        """Token of a have question that goes on -> who is told, and the peer that tells."""
        tokens = itertools.count(1)
        self._new_token: Callable[[], int] = lambda: next(tokens)
        self._given = GivenPeers(settings.peers, self._new_token)
        self._ready: dict[int, PeerReady] = {}
        self.unanswering: set[tuple[int, str]] = set()
        """Peers that have let a question of this kind ("have", "manifest") pass: nobody waits for that any more."""
        self._held: dict[tuple[str, XetHash], frozenset[XetHash]] = {}
        """What is offered, and the xorbs that it is made of."""
        self._closing = threading.Event()
        # What is not for everybody is not for the DHT either.
        dht = settings.dht and settings.swarm_key is None
        trackers = () if settings.hub_offline else settings.trackers
        self._names = Names()
        self._to_look_up: list[tuple[str, int, Callable[[list[str]], None]]] = []
        for url in trackers:
            if not is_address(_host(url)):
                self._to_look_up.append((_host(url), 0, functools.partial(self._add_tracker, url)))
        for host, port in (settings.dht_bootstrap or DHT_BOOTSTRAP) if dht and not settings.hub_offline else ():
            if not is_address(host):
                self._to_look_up.append((host, port, functools.partial(self._add_dht_nodes, port)))
        self._session = Session(
            node_id=self.node_id,
            # Unless it was said which, every address of the machine.
            listen_host=settings.listen.host if settings.listen.explicit else "",
            listen_port=settings.listen.port,
            port_retries=port_retries,
            connect_timeout_s=5.0,
            max_up_bytes_s=settings.max_up_bytes_s,
            max_down_bytes_s=settings.max_down_bytes_s,
            lsd=settings.lsd and not settings.hub_offline,
            trackers=[url for url in trackers if is_address(_host(url))],
            dht=dht and not settings.hub_offline,
            dht_bootstrap=[node for node in settings.dht_bootstrap if is_address(node.host)],
            swarm_key=settings.swarm_key,
            scratch_dir=settings.home,
        )
        self._up_cap = settings.max_up_bytes_s
        """What may be uploaded a second just now: None without a cap, 0 for nothing."""
        self._keep_hours()
        self._meetings = Meetings(
            self._join,
            self._session.leave,
            finds_soon=(settings.lsd or bool(settings.trackers)) and not settings.hub_offline,
            finds_xorbs=dht and not settings.hub_offline,
        )
        self.port = self._session.port
        self._thread = threading.Thread(target=self._run, name="zest-swarm", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends all connections and the thread."""
        self._closing.set()
        self._names.close()
        self._session.wake()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=2 * POLL_S + 1)
        self._session.close()

    @property
    def is_quiet(self) -> bool:
        """Whether these are hours in which nothing is uploaded."""
        return self._up_cap == 0

    def _keep_hours(self) -> None:
        """The clock is looked at, not waited for: it may be put forward or back."""
        settings = self._settings
        if not settings.quiet_hours:
            return
        minute = access.minute_of_day(time.time())
        cap = access.upload_cap(settings.quiet_hours, minute, settings.max_up_bytes_s)
        if cap == self._up_cap:
            return
        self._up_cap = cap
        if cap:
            log.info("uploads: %d bytes a second at most from now on", cap)
        else:
            log.info("uploads: %s from now on", "without a cap" if cap is None else "none")
        if cap != 0:
            self._session.set_caps(cap, settings.max_down_bytes_s)
        self._session.set_uploads(cap != 0)

    # --- finding peers ----------------------------------------------------------------------------------

    def _join(self, kind: Kind, hash_: XetHash, announce: bool) -> None:
        self._session.join(kind, hash_, announce=announce)
        # No name is asked for before there is something to look for.
        while self._to_look_up:
            self._names.look_up(*self._to_look_up.pop())

    def _add_tracker(self, url: str, addresses: list[str]) -> None:
        with contextlib.suppress(SwarmError):  # closed meanwhile
            self._session.add_tracker(url)

    def _add_dht_nodes(self, port: int, addresses: list[str]) -> None:
        with contextlib.suppress(SwarmError):
            for address in addresses:
                self._session.add_dht_node(address, port)

    def dial_given(self) -> None:
        """Connects to every given peer that is not connected and was not tried just now. Returns at once."""
        self._start_dials(self._given.take_due(time.monotonic()), None)

    def dial_xorb_swarm(self, xorb: XetHash) -> None:
        """Tries given peers that hung up at our rendezvous once more in a xorb's swarm: they may know only that."""
        # In a keyed swarm everybody knows the rendezvous.
        if self._settings.swarm_key is None:
            with contextlib.suppress(SwarmError):  # it is being closed
                info_hash = self._session.info_hash(Kind.XORB, xorb)
                self._start_dials(self._given.take_hung_up(time.monotonic()), info_hash)

    def join_file(self, file_hash: XetHash) -> None:
        """Looks for peers of a file, by every discovery that is on, until `leave_file`: as often as it was joined."""
        self._meetings.look(file_hash, time.monotonic())

    def leave_file(self, file_hash: XetHash) -> None:
        self._meetings.look_no_more(file_hash)

    def look_for_xorb(self, xorb: XetHash) -> None:
        """Looks for who holds a xorb, perhaps as a part of another file."""
        self._meetings.look_for_xorb(xorb)

    def reaching(self, now_s: float) -> bool:
        """Whether a given peer may still become ready within the patience for it."""
        return self._given.reaching(now_s, self._policy.dial_patience_s, self._policy.answer_patience_s)

    def discovering(self, now_s: float) -> bool:
        """Whether a peer that was not given may turn up any moment."""
        return self._meetings.discovering(now_s)

    def ready_peers(self) -> set[int]:
        """The connections that can be asked now."""
        with self._lock:
            return set(self._ready)

    def _start_dials(self, dials: list[Dial], info_hash: bytes | None) -> None:
        # A name that takes long to resolve must not hold up the others.
        for at in range(min(len(dials), MAX_DIAL_THREADS)):
            share = dials[at::MAX_DIAL_THREADS]
            threading.Thread(target=self._dial, args=(share, info_hash), name="zest-dial", daemon=True).start()

    def _dial(self, dials: list[Dial], info_hash: bytes | None) -> None:
        for dial in dials:
            try:
                found = socket.getaddrinfo(dial.host, dial.port, type=socket.SOCK_STREAM)
                address = str(found[0][4][0])
                self._session.dial(address, dial.port, dial.token, info_hash)
            except (OSError, SwarmError) as error:
                if self._closing.is_set():
                    return
                level = logging.DEBUG if dial.failures else logging.WARNING
                log.log(level, "zest_hf: peer %s:%d cannot be reached: %s", dial.host, dial.port, error)
                self._given.failed(dial, time.monotonic())

    # --- questions --------------------------------------------------------------------------------------

    def subscribe(self, listener: Listener) -> list[PeerReady]:
        """Who is ready now; the listener gets PeerReady, PeerGone, PeerBanned and Claims from now on.

        It is called on the swarm's thread.
        """
        with self._lock:
            self._listeners.append(listener)
            return list(self._ready.values())

    def unsubscribe(self, listener: Listener) -> None:
        """No further event reaches the listener, nor any answer that it waits for."""
        with self._lock:
            self._listeners.remove(listener)
            self._waiting = {token: who for token, who in self._waiting.items() if who is not listener}
            told = [(token, peer) for token, (who, peer) in self._told.items() if who is listener]
        for token, peer in told:
            self.forget_have(token, peer)

    def ask_have(
        self,
        listener: Listener,
        peer: int,
        kind: Kind,
        hash_: XetHash,
        timeout_s: float,
        *,
        updates: bool = False,
    ) -> int:
        """The token of the HaveAnswer that will come; with ``updates`` of every HaveMore after it, too."""
        token = self._expect(listener)
        if updates:
            with self._lock:
                self._told[token] = listener, peer
        self._session.ask_have(token, peer, kind, hash_, timeout_s, updates=updates)
        return token

    def forget_have(self, token: int, peer: int) -> None:
        """Ends the HaveMore of a question."""
        with self._lock:
            if self._told.pop(token, None) is None:
                return
        self._session.forget_have(token, peer)

    def ask_manifest(
        self,
        listener: Listener,
        peer: int,
        kind: Kind,
        hash_: XetHash,
        first: int,
        count: int,
        timeout_s: float,
    ) -> int:
        """The token of the ManifestAnswer that will come."""
        token = self._expect(listener)
        self._session.ask_manifest(token, peer, kind, hash_, first, count, timeout_s)
        return token

    def ask_piece(
        self,
        listener: Listener,
        peer: int,
        file: WritableFile,
        kind: Kind,
        hash_: XetHash,
        object_first: int,
        file_first: int,
        count: int,
        timeout_s: float,
    ) -> int:
        """The token of the PieceEnd that will come."""
        token = self._expect(listener)
        self._session.ask_piece(token, peer, file, kind, hash_, object_first, file_first, count, timeout_s)
        return token

    def cancel_piece(self, peer: int, token: int) -> None:
        """Its PieceEnd comes as ever."""
        self._session.cancel_piece(peer, token)

    def follow(self, listener: Listener, peer: int, draft: Draft, timeout_s: float) -> int:
        """Takes what a peer shares of a draft, as it comes: the token of the PieceEnd that will come."""
        token = self._expect(listener)
        self._session.follow(token, peer, draft, timeout_s)
        return token

    def ban(self, peer: int, reason: str) -> None:
        """For provably wrong answers that native code cannot see."""
        self._session.ban(peer, reason)

    def _expect(self, listener: Listener) -> int:
        with self._lock:
            token = self._new_token()
            self._waiting[token] = listener
            return token

    def tell_claims(
        self, file_hash: XetHash, downloading: bool, claims: Sequence[tuple[int, int, int, int]]
    ) -> None:
        """What this node does about a file, for the peers that know it too. As `Session.tell_claims`.

        What they say comes to all who have subscribed, as Claims; once more from each peer that is asked what it has.
        """
        self._session.tell_claims(file_hash, downloading, claims)

    # --- what is offered ---------------------------------------------------------------------------------

    def share(self, file: IndexedFile) -> None:
        """Offers a file, and has it found. The caller has made sure that its repository may be offered.

        Raises SwarmError.
        """
        path = os.fspath(file.path)
        self._session.share(path, file.size_bytes, file.mtime_ns, file.file_hash, file.manifest, file.terms)
        xorbs = frozenset(term.xorb for term in file.terms)
        with self._lock:
            before = self._held.get((path, file.file_hash))
            self._held[path, file.file_hash] = xorbs
        self._meetings.hold(path, file.file_hash, xorbs)
        if before is not None:
            self._meetings.let_go(path, file.file_hash, before)

    def unshare(self, path: str, file_hash: XetHash) -> None:
        """Stops offering it."""
        self._session.unshare(path, file_hash)
        self._not_held(path, file_hash)

    def share_transfer(self, file: WritableFile, file_hash: XetHash | None, terms: Sequence[Term]) -> None:
        """Offers what is proved so far of a file in the making. ``file_hash`` None: only by its xorbs."""
        self._session.share_transfer(file, file_hash, terms)

    def unshare_transfer(self, file: WritableFile) -> None:
        """Ends that."""
        self._session.unshare_transfer(file)

    def share_draft(self, draft: Draft) -> None:
        """Lets peers follow what comes of a draft."""
        self._session.share_draft(draft)

    def unshare_draft(self, draft: Draft) -> None:
        """Ends that for those who do not yet."""
        self._session.unshare_draft(draft)

    def _not_held(self, path: str, file_hash: XetHash | None = None) -> None:
        with self._lock:
            gone = [key for key in self._held if key[0] == path and file_hash in (None, key[1])]
            xorbs = {key: self._held.pop(key) for key in gone}
        for (_, hash_), of_it in xorbs.items():
            self._meetings.let_go(path, hash_, of_it)

    def peers(self) -> list[PeerInfo]:
        return self._session.peers()

    def bans(self) -> list[BanInfo]:
        return self._session.bans()

    def shares(self) -> list[ShareInfo]:
        return self._session.shares()

    def stats(self) -> SessionStats:
        return self._session.stats()

    def report(self) -> dict[str, Any]:
        """This node and its peers as the status shows them: JSON values, sizes in bytes. Raises SwarmError."""
        stats = self._session.stats()
        settings = self._settings
        unknown = self._names.unknown
        return {
            "node_id": self.node_id.hex(),
            "listen": f"{settings.listen.host or '0.0.0.0'}:{self.port}",
            "keyed": settings.swarm_key is not None,
            "uploads": {"paused": self.is_quiet, "max_bytes_s": self._up_cap or None},
            "peers_connected": stats.peers_ready,
            "peers": [
                {
                    "connection": peer.peer,
                    "address": peer.address,
                    "client": peer.client,
                    "protocol": "zest_hf" if peer.ranges else "BEP XET",
                    "node_id": peer.node_id,
                    "found_by": peer.source.name.lower(),
                    "bytes_up": peer.bytes_up,
                    "bytes_down": peer.bytes_down,
                    "requests_in": peer.requests_in,
                }
                for peer in self._session.peers()
                if peer.ready
            ],
            "discovery": {
                "given": [f"{host}:{port}" for host, port in settings.peers],
                "lsd": settings.lsd and not settings.hub_offline,
                "dht": settings.dht and not self.is_keyed and not settings.hub_offline,
                "dht_nodes": stats.dht_nodes,
                "trackers": [
                    {"url": one.url, "working": one.working, "message": one.message, "peers": one.peers}
                    for one in self._session.trackers()
                ]
                + [
                    {"url": url, "working": False, "message": unknown[_host(url)], "peers": 0}
                    for url in settings.trackers
                    if _host(url) in unknown
                ],
            },
            "files": stats.files_shared,
            "xorbs": stats.xorbs_shared,
            "chunks_wrong": stats.chunks_wrong,
            "banned": [
                {"address": ban.address, "node_id": ban.node_id, "reason": ban.reason} for ban in self.bans()
            ],
        }

    # --- events -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._keep_hours()
                for event in self._session.events(POLL_S):
                    self._deliver(event)
                if self._listeners and not self._closing.is_set():
                    self.dial_given()
            except Exception:  # one event must not end the others
                log.exception("the swarm's event thread goes on after an error")

    def _deliver(self, event: Event) -> None:
        if isinstance(event, HaveAnswer | ManifestAnswer | PieceEnd):
            with self._lock:
                listener = self._waiting.pop(event.token, None)
            if listener is not None:
                listener(event)
            return
        if isinstance(event, HaveMore):
            with self._lock:
                told = self._told.get(event.token)
            if told is not None:
                told[0](event)
            return
        if isinstance(event, ShareLost):
            log.info("%s has changed or is gone; it is not offered any more", event.path)
            self._not_held(event.path)
            if self._share_lost is not None:
                self._share_lost(event.path)
            return
        if isinstance(event, Claims):
            with self._lock:
                listeners = list(self._listeners)
            for listener in listeners:
                listener(event)
            return
        if isinstance(event, PeerBanned):
            log.warning("zest_hf: peer banned: %s", event.reason)
        self._given.note(event, time.monotonic())
        with self._lock:
            if isinstance(event, PeerReady):
                self._ready[event.peer] = event
            elif isinstance(event, PeerGone):
                self._ready.pop(event.peer, None)
                self.unanswering -= {(event.peer, "have"), (event.peer, "manifest")}
                self._told = {token: told for token, told in self._told.items() if told[1] != event.peer}
            listeners = list(self._listeners)
        if isinstance(event, PeerReady) and not event.token:
            self._meetings.met_somebody()
        for listener in listeners:
            listener(event)


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""
