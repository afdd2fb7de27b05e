"""Peers that hold xorbs of a file and not the file: what they are asked, what is believed, what is followed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm import wire_peer as wire
from swarm.node import Content
from swarm.test_sources import Download
from swarm.wire_peer import Question, WirePeer, WireServer
from zest_hf.core.actions import AskPeer
from zest_hf.sources.base import PeerEnded, PeerHolds, PeerHoldsMore, PeerLacks, XorbProved
from zest_hf.sources.xorb_search import MAX_FAILED_QUESTS, PROBE, WINDOW


@pytest.fixture
def content() -> Content:
    """200 chunks in 20 xorbs."""
    return Content.random(200)


class BaseHolder:
    """A peer that has some of the file's xorbs, and not the file. ``lie`` may answer instead."""

    def __init__(
        self, content: Content, numbers: range, lie: Callable[[Question], bytes | None] = lambda _: None
    ) -> None:
        self.content, self.numbers, self.lie = content, numbers, lie
        self.asked: list[Question] = []
        self.peers: list[WirePeer] = []
        self.lock = threading.Lock()

    def __call__(self, peer: WirePeer) -> None:
        self.peers.append(peer)
        while True:
            question = peer.question()
            with self.lock:
                self.asked.append(question)
            answer = self.lie(question)
            if answer is not None:
                peer.send_zest(answer)
            else:
                self.serve(peer, question)

    def of(self, type_: int, kind: int = wire.XORB) -> list[Question]:
        with self.lock:
            return [question for question in self.asked if (question.type, question.kind) == (type_, kind)]

    def xorb_of(self, question: Question) -> int | None:
        for number in self.numbers:
            hash_ = self.content.xorbs[number][0]
            if question.hash == hash_ or question.swarm == wire.xorb_swarm(hash_):
                return number
        return None

    def serve(self, peer: WirePeer, question: Question) -> None:
        number = self.xorb_of(question)
        if question.type == wire.HAVE_REQUEST:
            if number is None or question.kind == wire.FILE:
                peer.send_zest(wire.have(question.request, wire.NOT_FOUND, 0, []))
                return
            xorb, first, end = self.content.xorbs[number]
            count = end - first
            peer.send_zest(wire.have(question.request, wire.OK, count, [(0, count)], question.hold(xorb)))
        elif question.type == wire.MANIFEST_REQUEST:
            if question.kind == wire.FILE:
                peer.send_zest(wire.manifest(question.request, wire.NOT_FOUND, 0, 0, []))
                return
            assert number is not None
            _, first, end = self.content.xorbs[number]
            part = self.content.entries[first:end]
            peer.send_zest(wire.manifest(question.request, wire.OK, end - first, 0, part))
        elif question.type == wire.RANGE_REQUEST:
            assert number is not None and question.kind == wire.XORB
            first = self.content.xorbs[number][1]
            for chunk in range(question.first, question.end_or_count):
                peer.send_zest(wire.range_data(question.request, chunk, self.content.chunks[first + chunk]))


def test_all_xorbs_of_a_base_are_found_and_taken(tmp_path: Path, content: Content) -> None:
    holder = BaseHolder(content, range(0, 20))
    with WireServer(holder) as server, Download(tmp_path, content, server.port) as download:
        for _ in range(20):
            proved = download.wait(XorbProved)
            download.transfer.xorb_proved(proved.xorb, proved.manifest)
        held = [report for report in download.reports if isinstance(report, PeerHoldsMore)]
        assert {report.xorb for report in held} == {xorb for xorb, _, _ in content.xorbs}
        xorb, first, _ = content.xorbs[7]
        download.source.start(AskPeer(1, held[0].peer, first + 2, 5, xorb, 2, by_xorb=True))
        end = download.wait(PeerEnded)
        assert (end.chunks_written, end.trouble) == (5, None)
        offset = content.manifest.offset
        size = offset(first + 7) - offset(first + 2)
        assert os.pread(download.fd, size, offset(first + 2)) == b"".join(content.chunks[first + 2 : first + 7])


def test_who_has_none_is_asked_for_a_few_and_later_again(tmp_path: Path, content: Content) -> None:
    holder = BaseHolder(content, range(0))
    with WireServer(holder) as server, Download(tmp_path, content, server.port) as download:
        download.until(lambda: len(holder.of(wire.HAVE_REQUEST)) == PROBE)
        download.until(lambda: not download.source.waiting(time.monotonic()))
        assert len(holder.of(wire.HAVE_REQUEST, wire.FILE)) == 1
        # It is downloading a file with these xorbs now, or this very file.
        holder.numbers = range(0, 20)
        download.until(lambda: len(holder.of(wire.HAVE_REQUEST, wire.FILE)) == 2)
        assert download.wait(PeerHoldsMore).xorb in {xorb for xorb, _, _ in content.xorbs}


def test_who_never_answers_has_few_questions_and_is_not_waited_for(tmp_path: Path, content: Content) -> None:
    holder = BaseHolder(content, range(0, 20))
    first = threading.Event()

    def serve(peer: WirePeer, question: Question) -> None:
        """Says that it has not the file, and no more."""
        if question.kind == wire.FILE:
            peer.send_zest(wire.have(question.request, wire.NOT_FOUND, 0, []))
            first.set()

    holder.serve = serve  # type: ignore[method-assign]
    with WireServer(holder) as server, Download(tmp_path, content, server.port) as download:
        download.until(lambda: len(holder.of(wire.HAVE_REQUEST)) == PROBE)
        asked_s = time.monotonic()
        download.until(lambda: not download.source.waiting(time.monotonic()))
        assert time.monotonic() - asked_s <= 0.5 + 0.3
        assert len(holder.of(wire.HAVE_REQUEST)) == PROBE


def test_questions_at_a_time_are_bounded(tmp_path: Path, content: Content) -> None:
    """After some good answers it only listens."""
    holder = BaseHolder(content, range(0, 20))
    good = holder.serve

    def serve(peer: WirePeer, question: Question) -> None:
        if question.kind == wire.FILE or len(holder.of(wire.HAVE_REQUEST)) <= PROBE:
            good(peer, question)

    holder.serve = serve  # type: ignore[method-assign]
    with WireServer(holder) as server, Download(tmp_path, content, server.port) as download:
        download.until(lambda: len(holder.of(wire.HAVE_REQUEST)) >= PROBE + WINDOW)
        end_s = time.monotonic() + 0.3
        download.until(lambda: time.monotonic() > end_s)
        assert len(holder.of(wire.HAVE_REQUEST)) <= PROBE + WINDOW


def wrong_manifest(content: Content, question: Question) -> bytes | None:
    if question.type != wire.MANIFEST_REQUEST:
        return None
    entries = [(os.urandom(32), length) for _, length in content.entries[:10]]
    return wire.manifest(question.request, wire.OK, 10, 0, entries)


def giant_xorb(content: Content, question: Question) -> bytes | None:
    if question.type != wire.HAVE_REQUEST or question.kind != wire.XORB:
        return None
    xorb = next(xorb for xorb, _, _ in content.xorbs if wire.xorb_swarm(xorb) == question.swarm)
    return wire.have(question.request, wire.OK, 8193, [(0, 8193)], question.hold(xorb))


@pytest.mark.parametrize("lie", [wrong_manifest, giant_xorb])
def test_provable_lies_end_in_a_ban(
    tmp_path: Path, content: Content, lie: Callable[[Content, Question], bytes | None]
) -> None:
    holder = BaseHolder(content, range(0, 20), lambda question: lie(content, question))
    with WireServer(holder) as server, Download(tmp_path, content, server.port) as download:
        download.until(lambda: bool(download.swarm.bans()))
        assert not any(isinstance(report, XorbProved) for report in download.reports)
        # Somebody else is believed.
        with WireServer(BaseHolder(content, range(0, 20))) as honest:
            download.swarm._session.dial("127.0.0.1", honest.port, 1000)
            assert download.wait(XorbProved).manifest.xorb_hash() in {xorb for xorb, _, _ in content.xorbs}


def test_who_gives_no_manifest_is_asked_a_few_times(tmp_path: Path, content: Content) -> None:
    def refuses(question: Question) -> bytes | None:
        if question.type != wire.MANIFEST_REQUEST:
            return None
        return wire.manifest(question.request, wire.BUSY, 0, 0, [])

    # As many as are asked for at the same time.
    holder = BaseHolder(content, range(0, 20), refuses)
    with WireServer(holder) as server, Download(tmp_path, content, server.port) as download:
        download.until(lambda: len(holder.of(wire.MANIFEST_REQUEST)) >= MAX_FAILED_QUESTS)
        download.until(lambda: not download.source.waiting(time.monotonic()))
        assert len(holder.of(wire.MANIFEST_REQUEST)) <= MAX_FAILED_QUESTS + 8


def test_what_a_peer_gets_meanwhile_is_followed(tmp_path: Path, content: Content) -> None:
    ready = threading.Event()
    requests: list[int] = []

    def answer(peer: WirePeer) -> None:
        while True:
            question = peer.question()
            if question.type == wire.HAVE_REQUEST and question.kind == wire.FILE:
                assert question.updates == 1
                requests.append(question.request)
                peer.send_zest(wire.have(question.request, wire.OK, 200, [], question.hold(content.hash)))
                ready.set()

    holders: list[WirePeer] = []

    def script(peer: WirePeer) -> None:
        holders.append(peer)
        answer(peer)

    with (
        WireServer(script) as server,
        Download(tmp_path, content, server.port, manifest=content.manifest) as download,
    ):
        assert download.wait(PeerHolds).ranges == ()
        (peer,) = holders
        peer.send_zest(wire.have_update(requests[0], wire.OK, 200, [(10, 20)]))
        assert download.wait(PeerHoldsMore).ranges == ((10, 20),)
        peer.send_zest(wire.have_update(requests[0], wire.OK, 200, [(0, 5), (50, 60)]))
        assert download.wait(PeerHoldsMore).ranges == ((0, 5), (50, 60))
        peer.send_zest(wire.have_update(requests[0], wire.NOT_FOUND, 0, []))
        assert download.wait(PeerHolds).ranges == ()
        # It is asked once more, in case it only moved.
        download.until(lambda: len(requests) == 2)


def test_a_xorb_that_is_held_no_more(tmp_path: Path, content: Content) -> None:
    xorb, _, _ = content.xorbs[0]
    peers: list[tuple[WirePeer, int]] = []

    def script(peer: WirePeer) -> None:
        while True:
            question = peer.question()
            if question.type != wire.HAVE_REQUEST:
                continue
            if question.kind == wire.XORB and question.swarm == wire.xorb_swarm(xorb):
                peers.append((peer, question.request))
                peer.send_zest(wire.have(question.request, wire.OK, 0, [(2, 5)], question.hold(xorb)))
            else:
                peer.send_zest(wire.have(question.request, wire.NOT_FOUND, 0, []))

    with (
        WireServer(script) as server,
        Download(tmp_path, Content(content.chunks[:40]), server.port) as download,
    ):
        held = download.wait(PeerHoldsMore)
        assert (held.ranges, held.xorb) == (((2, 5),), xorb)
        peer, request = peers[0]
        peer.send_zest(wire.have_update(request, wire.OK, 0, [(7, 9)]))
        assert download.wait(PeerHoldsMore).ranges == ((7, 9),)
        peer.send_zest(wire.have_update(request, wire.NOT_FOUND, 0, []))
        assert download.wait(PeerLacks).xorb == xorb
