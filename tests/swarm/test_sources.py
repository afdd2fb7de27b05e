"""The swarm of a process and the peers of one download, over real sessions: who is believed, banned, dialled again."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from swarm import wire_peer as wire
from swarm.node import DEADLINE_S, Content, good, serve, settings_of
from swarm.wire_peer import Script, WirePeer, WireServer
from zest_hf.core.actions import AskPeer
from zest_hf.core.manifest import Manifest
from zest_hf.core.policy import PolicySettings
from zest_hf.core.transfer import Transfer
from zest_hf.sources.base import ManifestProved, PeerEnded, PeerHolds, PeerLeft
from zest_hf.sources.manifest_quest import MANIFEST_WINDOW
from zest_hf.sources.peer import PeerSource
from zest_hf.swarm import Swarm

T = TypeVar("T")


class Download:
    """A download as far as its peers go: the thread that takes their events is the test's."""

    def __init__(
        self,
        tmp_path: Path,
        content: Content,
        *ports: int,
        manifest: Manifest | None = None,
        planned: bool = True,
        **options: Any,
    ) -> None:
        """``planned``: the CAS has answered."""
        settings = settings_of(tmp_path, *ports)
        self.content = content
        self.swarm = Swarm(settings, PolicySettings())
        self.reports: list[object] = []
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.fd = os.open(tmp_path / "taken", os.O_RDWR | os.O_CREAT)
        self.source = PeerSource(
            self.swarm,
            content.hash,
            self.fd,
            PolicySettings(),
            self._inbox.put,
            self.reports.append,
            **{"size_bytes": len(content.data), **options},
        )
        self.transfer = Transfer(content.plan, content.hash, PolicySettings())
        if manifest is not None:
            self.transfer.manifest_proved(manifest)
        if planned:
            self.source.begin(self.transfer)

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()
        self.swarm.close()
        self.swarm.close()
        os.close(self.fd)

    def until(self, condition: Callable[[], bool]) -> None:
        end_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end_s, f"it does not come true; there are {self.reports}"
            with contextlib.suppress(queue.Empty):
                self.source.handle(self._inbox.get(timeout=0.02))
            self.source.step(time.monotonic())

    def wait(self, kind: type[T]) -> T:
        self.until(lambda: any(isinstance(report, kind) for report in self.reports))
        found = next(report for report in self.reports if isinstance(report, kind))
        self.reports.remove(found)
        return found


@pytest.fixture
def content() -> Content:
    return Content.random(60)


@contextlib.contextmanager
def caller(port: int, content: Content) -> Iterator[None]:
    """A good peer that dials."""
    with WirePeer.dial(port) as peer:

        def answer() -> None:
            with contextlib.suppress(wire.HungUp, OSError):
                good(content)(peer)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            peer.socket.shutdown(socket.SHUT_RDWR)
            thread.join()


def lying(content: Content, lie: Callable[[wire.Question], bytes | None]) -> Script:
    """Answers as ``lie`` says, and well where it says nothing."""

    def script(peer: WirePeer) -> None:
        while True:
            question = peer.question()
            answer = lie(question)
            if answer is None:
                serve(peer, content, question)
            else:
                peer.send_zest(answer)

    return script


def test_manifest_and_pieces(tmp_path: Path, content: Content) -> None:
    with WireServer(good(content)) as server, Download(tmp_path, content, server.port) as download:
        holds = download.wait(PeerHolds)
        assert holds.ranges == ((0, 60),)
        assert download.wait(ManifestProved).manifest == content.manifest
        download.transfer.manifest_proved(content.manifest)
        for assignment, first in enumerate((0, 40, 20)):
            download.source.start(AskPeer(assignment, holds.peer, first, 20, content.xorbs[first // 10][0], first % 10))
        ends = [download.wait(PeerEnded) for _ in range(3)]
        assert {(end.assignment, end.chunks_written, end.trouble) for end in ends} == {
            (number, 20, None) for number in range(3)
        }
        assert os.pread(download.fd, 1 << 20, 0) == content.data


def test_a_peer_whose_event_is_on_its_way_is_waited_for(tmp_path: Path, content: Content) -> None:
    """The download's thread may decide between the moment when a peer is ready and the moment when it hears of it."""
    with WireServer(good(content)) as server, Download(tmp_path, content, server.port) as download:
        end_s = time.monotonic() + DEADLINE_S
        while not download.swarm.ready_peers():  # nothing is taken from the inbox
            assert time.monotonic() < end_s
        late_s = time.monotonic() + 60  # no dial and no question is waited for any more
        assert not download.swarm.reaching(late_s)
        assert download.source.waiting(late_s)
        download.wait(ManifestProved)
        assert not download.source.waiting(late_s)


def wrong_hashes(content: Content, question: wire.Question) -> bytes | None:
    if question.type != wire.MANIFEST_REQUEST:
        return None
    entries = list(content.entries)
    entries[33] = (os.urandom(32), entries[33][1])
    return wire.manifest(question.request, wire.OK, 60, 0, entries)


def wrong_lengths(content: Content, question: wire.Question) -> bytes | None:
    if question.type != wire.MANIFEST_REQUEST:
        return None
    entries = list(content.entries)
    entries[3], entries[4] = (entries[3][0], entries[3][1] + 1), (entries[4][0], entries[4][1] - 1)
    return wire.manifest(question.request, wire.OK, 60, 0, entries)


def too_many_chunks(content: Content, question: wire.Question) -> bytes | None:
    if question.type != wire.HAVE_REQUEST:
        return None
    return wire.have(question.request, wire.OK, 1 << 28, [(0, 1 << 28)], question.hold(content.hash))


def too_few_chunks(content: Content, question: wire.Question) -> bytes | None:
    if question.type != wire.HAVE_REQUEST:
        return None
    return wire.have(question.request, wire.OK, 1, [(0, 1)], question.hold(content.hash))


@pytest.mark.parametrize("lie", [wrong_hashes, wrong_lengths, too_many_chunks, too_few_chunks])
def test_provable_lies_end_in_a_ban(tmp_path: Path, lie: Callable[[Content, wire.Question], bytes | None]) -> None:
    content = Content.random(60, size=10_000)
    with (
        WireServer(lying(content, lambda question: lie(content, question))) as liar,
        Download(tmp_path, content, liar.port) as download,
    ):
        download.until(lambda: bool(download.swarm.bans()))
        (ban,) = download.swarm.bans()
        assert ban.address == f"127.0.0.1:{liar.port}"
        download.until(lambda: not [peer for peer in download.swarm.peers() if peer.ready])
        # Somebody else is believed.
        with caller(download.swarm.port, content):
            assert download.wait(ManifestProved).manifest == content.manifest


def other_total(content: Content, question: wire.Question) -> bytes | None:
    if question.type != wire.MANIFEST_REQUEST:
        return None
    return wire.manifest(question.request, wire.OK, 61, 0, content.entries)


def part_only(content: Content, question: wire.Question) -> bytes | None:
    if question.type != wire.MANIFEST_REQUEST:
        return None
    return wire.manifest(question.request, wire.OK, 60, 0, content.entries[:59])


def refused(content: Content, question: wire.Question) -> bytes | None:
    if question.type != wire.MANIFEST_REQUEST:
        return None
    return wire.manifest(question.request, wire.BUSY, 0, 0, [])


@pytest.mark.parametrize("odd", [other_total, part_only, refused])
def test_who_gives_no_manifest_is_passed_over(
    tmp_path: Path, content: Content, odd: Callable[[Content, wire.Question], bytes | None]
) -> None:
    asked = threading.Event()

    def script(question: wire.Question) -> bytes | None:
        answer = odd(content, question)
        if answer is not None:
            asked.set()
        return answer

    with (
        WireServer(lying(content, script)) as server,
        Download(tmp_path, content, server.port) as download,
    ):
        peer = download.wait(PeerHolds).peer
        download.until(asked.is_set)
        assert download.wait(PeerLeft).peer == peer
        with caller(download.swarm.port, content):
            assert download.wait(ManifestProved).manifest == content.manifest
        assert download.swarm.bans() == []


def test_a_small_manifest_is_asked_for_before_the_peer_has_said_that_it_has_the_file(
    tmp_path: Path, content: Content
) -> None:
    def script(peer: WirePeer) -> None:
        have = peer.question()
        manifest = peer.question()
        assert (have.type, manifest.type) == (wire.HAVE_REQUEST, wire.MANIFEST_REQUEST)
        entries = content.entries
        peer.send_zest(wire.have(have.request, wire.OK, len(entries), [(0, len(entries))], have.hold(content.hash)))
        peer.send_zest(wire.manifest(manifest.request, wire.OK, len(entries), 0, entries))
        peer.question()

    with WireServer(script) as server, Download(tmp_path, content, server.port) as download:
        assert download.wait(ManifestProved).manifest == content.manifest


def test_who_lacks_the_file_may_say_so_to_both_questions(tmp_path: Path, content: Content) -> None:
    """It is kept, and not waited for; also when it answers the second one first."""

    def script(peer: WirePeer) -> None:
        have, manifest = peer.question(), peer.question()
        assert (have.type, manifest.type) == (wire.HAVE_REQUEST, wire.MANIFEST_REQUEST)
        peer.send_zest(wire.manifest(manifest.request, wire.NOT_FOUND, 0, 0, []))
        while True:
            peer.send_zest(wire.have(have.request, wire.NOT_FOUND, 0, []))
            have = peer.question()

    with WireServer(script) as server, Download(tmp_path, content, server.port) as download:
        download.until(lambda: any(holder.answered for holder in download.source._holders.values()))
        download.until(lambda: not download.source.waiting(time.monotonic()))
        assert download.source._quest is None
        assert not [report for report in download.reports if isinstance(report, PeerLeft)]
        assert not download.swarm.unanswering


def test_a_giant_manifest_is_not_asked_for_at_once(tmp_path: Path, content: Content) -> None:
    """The size may be unknown, and the CAS slow: then a claim is found out part by part."""
    questions: list[wire.Question] = []

    def script(peer: WirePeer) -> None:
        while True:
            question = peer.question()
            if question.type == wire.HAVE_REQUEST:
                proof = question.hold(content.hash)
                peer.send_zest(wire.have(question.request, wire.OK, 1 << 28, [(0, 1 << 28)], proof))
            else:
                questions.append(question)

    with (
        WireServer(script) as server,
        Download(tmp_path, content, server.port, size_bytes=None, planned=False) as download,
    ):
        download.until(lambda: len(questions) == MANIFEST_WINDOW)
        download.until(lambda: download.swarm.peers()[0].requests_out == MANIFEST_WINDOW)
        assert [question.first for question in questions] == [16384 * at for at in range(MANIFEST_WINDOW)]


def test_a_stranger_that_never_answers_is_waited_for_once_and_not_long(tmp_path: Path, content: Content) -> None:
    with Download(tmp_path, content) as download, WirePeer.dial(download.swarm.port):
        download.until(lambda: bool(download.source._holders))
        began_s = time.monotonic()
        assert download.source.waiting(began_s)
        download.until(lambda: not download.source.waiting(time.monotonic()))
        assert time.monotonic() - began_s <= PolicySettings().stranger_patience_s + 0.3
        # The next download does not wait for it at all.
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        source = PeerSource(
            download.swarm, content.hash, download.fd, PolicySettings(), events.put, download.reports.append
        )
        assert not source.waiting(time.monotonic())
        source.close()


def test_who_is_silent_about_the_manifest_is_replaced(tmp_path: Path, content: Content) -> None:
    asked = threading.Event()

    def silent(peer: WirePeer) -> None:
        while True:
            question = peer.question()
            if question.type == wire.MANIFEST_REQUEST:
                asked.set()
            else:
                serve(peer, content, question)

    with WireServer(silent) as server, Download(tmp_path, content, server.port) as download:
        download.until(asked.is_set)
        with caller(download.swarm.port, content):
            began_s = time.monotonic()
            assert download.wait(ManifestProved).manifest == content.manifest
            assert time.monotonic() - began_s <= PolicySettings().stranger_patience_s + 0.5
        assert download.swarm.bans() == []


def test_a_given_peer_that_comes_later_is_found(tmp_path: Path, content: Content) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with Download(tmp_path, content, port) as download:
        download.until(lambda: not download.source.waiting(time.monotonic()))
        with WireServer(good(content), port=port):
            assert download.wait(ManifestProved).manifest == content.manifest


def test_a_peer_that_knows_only_the_xorb(tmp_path: Path, content: Content) -> None:
    xorb = content.xorbs[0][0]

    def script(peer: WirePeer) -> None:
        info_hash = peer.receive_handshake()
        if info_hash != wire.xorb_swarm(xorb):
            peer.close()
            return
        peer.send_handshake(info_hash)
        peer.extended_handshake()
        good(content)(peer)

    with (
        WireServer(script, handshakes=False, extensions={"ut_xet": 1}, node_id=None) as server,
        Download(tmp_path, content, server.port, manifest=content.manifest) as download,
    ):
        download.until(lambda: server.accepted >= 2)  # dialled again in vain, which must not be forgotten
        download.until(lambda: not download.source.waiting(time.monotonic()))
        holds = download.wait(PeerHolds)
        download.source.start(AskPeer(1, holds.peer, 0, 10, xorb, 0))
        end = download.wait(PeerEnded)
        assert (end.chunks_written, end.trouble) == (10, None)


def test_a_slow_name_does_not_hold_up_the_others(tmp_path: Path, content: Content, monkeypatch: Any) -> None:
    resolve = socket.getaddrinfo
    released = threading.Event()

    def slow(host: str, *args: Any, **kwargs: Any) -> Any:
        if host == "slow.invalid":
            released.wait(DEADLINE_S)
            raise socket.gaierror("no such name")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with WireServer(good(content)) as server:
        settings = settings_of(tmp_path, "slow.invalid:1", server.port)
        swarm = Swarm(settings, PolicySettings())
        try:
            ready = threading.Event()
            swarm.subscribe(lambda event: ready.set() if type(event).__name__ == "PeerReady" else None)
            swarm.dial_given()
            assert ready.wait(DEADLINE_S)
        finally:
            released.set()
            swarm.close()


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    yield
    end_s = time.monotonic() + DEADLINE_S
    while any(thread.name.startswith("zest-swarm") for thread in threading.enumerate()):
        assert time.monotonic() < end_s
        time.sleep(0.01)
