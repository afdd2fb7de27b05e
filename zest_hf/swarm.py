"""The swarm of this process: its session, the peers that were given by hand, and who waits for which answer.

One thread takes the session's events and hands each to the one who asked; it decides nothing.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from zest_hf._native.session import (
    BanInfo,
    Event,
    HaveAnswer,
    Kind,
    ManifestAnswer,
    PeerBanned,
    PeerConnected,
    PeerGone,
    PeerInfo,
    PeerReady,
    PieceEnd,
    Session,
    SessionStats,
    ShareInfo,
    ShareLost,
    WritableFile,
)
from zest_hf.config import Settings
from zest_hf.core.ids import XetHash
from zest_hf.core.policy import PolicySettings
from zest_hf.errors import SwarmError
from zest_hf.index import IndexedFile

log = logging.getLogger("zest_hf.swarm")

PORT_RETRIES = 20
REDIAL_FIRST_S = 1.0
REDIAL_AFTER_S = 20.0
"""A given peer that cannot be reached is tried again after 1, 2, 4... 20 s, as long as there is a download."""
POLL_S = 0.5
MAX_DIAL_THREADS = 16

Listener = Callable[[Event], None]


@dataclass(slots=True)
class _Dial:
    """A peer that was given: what is known of reaching it."""

    host: str
    port: int
    token: int
    state: str = "idle"  # idle, dialling, connected, ready, failed
    since_s: float = 0.0
    peer: int | None = None
    was_connected: bool = False
    """It took a connection and hung up before it was ready."""
    failures: int = 0
    """Attempts that failed since it was ready last."""

    def due(self, now_s: float) -> bool:
        pause_s = min(REDIAL_AFTER_S, REDIAL_FIRST_S * 2.0 ** min(self.failures - 1, 10))
        return self.state == "idle" or (self.state == "failed" and now_s - self.since_s >= pause_s)


class Swarm:
    """Started by `start`, ended by `close`. Methods may be called from any thread."""

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
        self._policy = policy
        self._share_lost = share_lost
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._waiting: dict[int, Listener] = {}
        self._tokens = itertools.count(1)
        self._dials = [_Dial(host, port, next(self._tokens)) for host, port in settings.peers]
        self._ready: dict[int, PeerReady] = {}
        self._closing = threading.Event()
        self._session = Session(
            node_id=self.node_id,
            listen_host=settings.listen.host,
            listen_port=settings.listen.port,
            port_retries=port_retries,
            connect_timeout_s=5.0,
            max_up_bytes_s=settings.max_up_bytes_s,
            max_down_bytes_s=settings.max_down_bytes_s,
        )
        self.port = self._session.port
        self._thread = threading.Thread(target=self._run, name="zest-swarm", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends all connections and the thread."""
        self._closing.set()
        self._session.wake()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=2 * POLL_S + 1)
        self._session.close()

    # --- peers given by hand -------------------------------------------------------------------------

    def dial_given(self) -> None:
        """Connects to every given peer that is not connected and was not tried just now. Returns at once."""
        now_s = time.monotonic()
        with self._lock:
            due = [dial for dial in self._dials if dial.due(now_s)]
            for dial in due:
                # Only the first attempt is waited for: a peer that was not there does not slow the next file.
                dial.state = "dialling" if dial.state == "idle" else "redialling"
                dial.since_s = now_s
        self._start_dials(due, None)

    def dial_xorb_swarm(self, xorb: XetHash) -> None:
        """Tries given peers that hung up at our rendezvous once more in a xorb's swarm: they may know only that."""
        try:
            info_hash = self._session.info_hash(Kind.XORB, xorb)
        except SwarmError:  # it is being closed
            return
        now_s = time.monotonic()
        with self._lock:
            due = [dial for dial in self._dials if dial.state in ("failed", "redialling") and dial.was_connected]
            for dial in due:
                dial.state, dial.since_s, dial.was_connected = "dialling", now_s, False
        self._start_dials(due, info_hash)

    def reaching(self, now_s: float) -> bool:
        """Whether a given peer may still become ready within the patience for it."""
        with self._lock:
            return any(
                (dial.state == "dialling" and now_s - dial.since_s < self._policy.dial_patience_s)
                or (dial.state == "connected" and now_s - dial.since_s < self._policy.answer_patience_s)
                for dial in self._dials
            )

    def ready_peers(self) -> set[int]:
        """The connections that can be asked now."""
        with self._lock:
            return set(self._ready)

    def _start_dials(self, dials: list[_Dial], info_hash: bytes | None) -> None:
        # A name that takes long to resolve must not hold up the others.
        for at in range(min(len(dials), MAX_DIAL_THREADS)):
            share = dials[at::MAX_DIAL_THREADS]
            threading.Thread(target=self._dial, args=(share, info_hash), name="zest-dial", daemon=True).start()

    def _dial(self, dials: list[_Dial], info_hash: bytes | None) -> None:
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
                with self._lock:
                    dial.state, dial.since_s = "failed", time.monotonic()
                    dial.failures += 1

    # --- questions --------------------------------------------------------------------------------------

    def subscribe(self, listener: Listener) -> list[PeerReady]:
        """``listener`` gets PeerReady, PeerGone and PeerBanned from now on, on the swarm's thread. Who is ready now."""
        with self._lock:
            self._listeners.append(listener)
            return list(self._ready.values())

    def unsubscribe(self, listener: Listener) -> None:
        """No further event reaches the listener, nor any answer that it waits for."""
        with self._lock:
            self._listeners.remove(listener)
            self._waiting = {token: who for token, who in self._waiting.items() if who is not listener}

    def ask_have(self, listener: Listener, peer: int, kind: Kind, hash_: XetHash, timeout_s: float) -> int:
        """The token of the HaveAnswer that will come."""
        token = self._expect(listener)
        self._session.ask_have(token, peer, kind, hash_, timeout_s)
        return token

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

    def ban(self, peer: int, reason: str) -> None:
        """For provably wrong answers that native code cannot see."""
        self._session.ban(peer, reason)

    def _expect(self, listener: Listener) -> int:
        with self._lock:
            token = next(self._tokens)
            self._waiting[token] = listener
            return token

    # --- what is offered ---------------------------------------------------------------------------------

    def share(self, file: IndexedFile) -> None:
        """Offers a file. The caller has made sure that its repository may be offered. Raises SwarmError."""
        self._session.share(
            os.fspath(file.path), file.size_bytes, file.mtime_ns, file.file_hash, file.manifest, file.terms
        )

    def unshare(self, path: str, file_hash: XetHash) -> None:
        """Stops offering it."""
        self._session.unshare(path, file_hash)

    def peers(self) -> list[PeerInfo]:
        return self._session.peers()

    def bans(self) -> list[BanInfo]:
        return self._session.bans()

    def shares(self) -> list[ShareInfo]:
        return self._session.shares()

    def stats(self) -> SessionStats:
        return self._session.stats()

    # --- events -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
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
        if isinstance(event, ShareLost):
            log.info("%s has changed or is gone; it is not offered any more", event.path)
            if self._share_lost is not None:
                self._share_lost(event.path)
            return
        if isinstance(event, PeerBanned):
            log.warning("zest_hf: peer banned: %s", event.reason)
        with self._lock:
            self._note(event)
            listeners = list(self._listeners)
        for listener in listeners:
            listener(event)

    def _note(self, event: PeerConnected | PeerReady | PeerGone | PeerBanned) -> None:
        dial = next((dial for dial in self._dials if event.token and dial.token == event.token), None)
        now_s = time.monotonic()
        if isinstance(event, PeerReady):
            self._ready[event.peer] = event
            if dial is not None:
                dial.state, dial.since_s, dial.peer, dial.failures = "ready", now_s, event.peer, 0
                dial.was_connected = False
        elif isinstance(event, PeerGone):
            self._ready.pop(event.peer, None)
            if dial is not None and (dial.peer in (None, event.peer) or dial.state != "ready"):
                dial.state, dial.since_s, dial.peer = "failed", now_s, None
                dial.failures += 1
        elif isinstance(event, PeerConnected) and dial is not None:
            dial.was_connected = True
            if dial.state == "dialling":
                dial.state, dial.since_s = "connected", now_s
