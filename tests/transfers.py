"""A transfer with sources that a test makes do what it wants, and the file that they write."""

from __future__ import annotations

from array import array

from layouts import Layout

from zest_hf.core.actions import (
    AskPeer,
    CancelPeer,
    CopyLocal,
    FetchRun,
    FetchWhole,
    Follow,
    PeerTrouble,
    ReplaceGet,
    StopFollow,
    StopGet,
)
from zest_hf.core.assignments import Work
from zest_hf.core.crowd import Crowd
from zest_hf.core.crowd_claims import FETCHING, units_of
from zest_hf.core.following import MAX_FOLLOWS
from zest_hf.core.manifest import Manifest
from zest_hf.core.pieces import State
from zest_hf.core.policy import PolicySettings
from zest_hf.core.ranges import contains
from zest_hf.core.transfer import Transfer
from zest_hf.errors import CasUnavailable

SETTINGS = PolicySettings()
GONE_CDN = CasUnavailable("the CDN is gone")


class World:
    """A transfer, what its sources were asked for, and the file that they write."""

    def __init__(self, file: Layout, policy: PolicySettings = SETTINGS, seed: int | None = None) -> None:
        self.file = file
        self.transfer = Transfer(file.plan, file.file_hash, policy, seed)
        self.now_s = 100.0
        self.running: dict[int, Work] = {}
        self.cancelled: set[int] = set()
        self.brought: dict[int, int] = {}
        """How many of its chunks a GET that runs has written,"""
        self.stops: dict[int, int] = {}
        """... and where it ends, if it was told to stop."""
        self.content: list[bytes | None] = [None] * len(file.manifest)
        """The hash of what stands at each chunk's place."""
        self.proved: set[int] = set()
        self.crowd = Crowd(b"me" * 10, units_of(file.plan))
        self.false: set[bytes] = set()
        """Members that have sent what is not the file's,"""
        self.liars: set[bytes] = set()
        """... and those found out."""
        self.before: set[int] = set()

    def act(self, waiting: bool = False, others_may_come: bool = False) -> list[Work]:
        """What to start; what is called off is noted."""
        done = {chunk for p in self._pieces() if p.state is State.DONE for chunk in range(p.begin, p.end)}
        actions = self.transfer.actions(self.now_s, waiting, others_may_come)
        out: list[Work] = []
        for action in actions:
            if isinstance(action, CancelPeer):
                asked = self.running[action.assignment]
                assert isinstance(asked, AskPeer) and asked.peer == action.peer
                assert action.assignment not in self.cancelled
                self.cancelled.add(action.assignment)
                continue
            if isinstance(action, StopGet):
                get = self.running[action.assignment]
                assert isinstance(get, FetchWhole | FetchRun)
                assert action.assignment not in self.stops or action.chunks < self.stops[action.assignment]
                self.stop(get, action.chunks)
                continue
            if isinstance(action, ReplaceGet):
                assert isinstance(self.running[action.assignment], FetchWhole | FetchRun)
                continue
            if isinstance(action, StopFollow):
                assert isinstance(self.running[action.assignment], Follow)
                assert action.assignment not in self.cancelled
                self.cancelled.add(action.assignment)
                continue
            assert action.assignment not in self.running
            self.running[action.assignment] = action
            assert done.isdisjoint(self.chunks_of(action))
            out.append(action)
        return out

    def chunks_of(self, action: Work) -> list[int]:
        """Which chunks of the file an action brings."""
        if isinstance(action, AskPeer):
            return list(range(action.first, action.first + action.count))
        if isinstance(action, CopyLocal):
            return list(range(action.first, action.first + len(action.chunks)))
        return self.first_of(action, self.stops.get(action.assignment, self.count_of(action)))

    def count_of(self, get: FetchWhole | FetchRun | Follow) -> int:
        """How many chunks a GET brings in all, in its own count."""
        source = None if isinstance(get, FetchRun) else get.fetch.source
        return len(get.chunks) if isinstance(get, FetchRun) else source.end - source.start  # type: ignore[union-attr]

    def first_of(self, get: FetchWhole | FetchRun | Follow, count: int) -> list[int]:
        """The chunks of the file that the first so many of a GET are."""
        if isinstance(get, FetchRun):
            return list(range(get.first, get.first + count))
        end = get.fetch.source.start + count
        return [
            place.file_chunk + i
            for place in get.fetch.placements
            for i in range(max(0, min(end, place.end) - place.start))
        ]

    def stop(self, get: FetchWhole | FetchRun, chunks: int) -> None:
        """It may be further already."""
        stops = max(chunks, self.brought.get(get.assignment, 0))
        self.stops[get.assignment] = min(stops, self.stops.get(get.assignment, stops))
        self.transfer.cdn_stops(get.assignment, self.stops[get.assignment])

    def cdn_brings(self, get: FetchWhole | FetchRun, chunks: int) -> None:
        """The first so many are written, and it goes on."""
        self.brought[get.assignment] = max(chunks, self.brought.get(get.assignment, 0))
        written = self.first_of(get, self.brought[get.assignment])
        for chunk in written:
            self.content[chunk] = self.file.manifest.hash(chunk)
        size = sum(self.file.manifest.length(chunk) for chunk in written)
        self.transfer.cdn_brought({get.assignment: size}, self.now_s)

    def peer_ends(self, ask: AskPeer, written: int, trouble: PeerTrouble | None) -> None:
        del self.running[ask.assignment]
        self._write(ask.first, ask.first + written)
        self.transfer.peer_ended(ask.assignment, written, trouble, self.now_s)

    def copy_ends(self, copy: CopyLocal, written: int | None = None, opened: bool = True) -> None:
        del self.running[copy.assignment]
        written = len(copy.chunks) if written is None else written
        assert copy.chunks == self.file.manifest.slice(copy.first, copy.first + len(copy.chunks))
        assert copy.offset == self.file.manifest.offset(copy.first)
        self._write(copy.first, copy.first + written)
        self.transfer.copy_ended(copy.assignment, written, opened, self.now_s)

    def join(self) -> None:
        self.transfer.join(self.crowd, self.now_s)

    def hears(self, member: bytes, *units: tuple[int, int], downloading: bool = True) -> None:
        """A member claims to fetch these units, each with its progress."""
        claims = []
        for number, progress in units:
            unit = self.crowd.units[number]
            claims.append((unit.first, unit.end, FETCHING, progress))
        self.crowd.others.heard(member, downloading, claims, self.now_s)

    def follow_brings(self, follow: Follow, count: int) -> None:
        size = self.file.truth(follow.fetch.source).slice(0, count).size_bytes
        self.transfer.followed({follow.assignment: size}, self.now_s)

    def follow_ends(
        self, follow: Follow, count: int, trouble: PeerTrouble | None = None, wrong: int | None = None
    ) -> None:
        """With so many chunks written; ``wrong``: which of them is another's, of another length perhaps."""
        del self.running[follow.assignment]
        self.cancelled.discard(follow.assignment)
        truth = self.file.truth(follow.fetch.source).slice(0, count)
        hashes = [truth.hash(i) for i in range(len(truth))]
        lengths = list(truth.lengths)
        if wrong is not None and hashes:
            at = wrong % len(hashes)
            hashes[at] = type(hashes[0])(b"\xdd" * 32)
            lengths[at] = lengths[at] if wrong % 2 else max(1, lengths[at] - 1)
            self.false.add(follow.member)
        (place,) = follow.fetch.placements
        for i, one in enumerate(hashes):
            self.content[place.file_chunk + i] = one
        self.transfer.follow_ended(
            follow.assignment, Manifest(b"".join(hashes), array("I", lengths)), trouble, self.now_s
        )

    def cdn_ends(self, get: FetchWhole | FetchRun, wrong: int | None = None) -> None:
        """``wrong``: which chunk of a GET without known hashes is falsified."""
        del self.running[get.assignment]
        count = min(self.count_of(get), self.stops.pop(get.assignment, 1 << 30))
        self.brought.pop(get.assignment, None)
        if isinstance(get, FetchRun):
            self._write(get.first, get.first + count)
            self.transfer.cdn_ended(get.assignment, get.chunks.slice(0, count), self.now_s)
            return
        truth = self.file.truth(get.fetch.source)
        if get.expected is not None:
            assert get.expected == truth.hashes
        truth = truth.slice(0, count)
        hashes = [truth.hash(i) for i in range(count)]
        if get.expected is None and wrong is not None and hashes:
            hashes[wrong % len(hashes)] = type(hashes[0])(b"\xee" * 32)
        for place in get.fetch.placements:
            for i in range(place.start, min(place.end, get.fetch.source.start + count)):
                self.content[place.file_chunk + i - place.start] = hashes[i - get.fetch.source.start]
        sent = Manifest(b"".join(hashes), array("I", truth.lengths))
        self.transfer.cdn_ended(get.assignment, sent, self.now_s)

    def cdn_fails(self, get: FetchWhole | FetchRun, error: Exception = GONE_CDN) -> None:
        del self.running[get.assignment]
        self.stops.pop(get.assignment, None)
        self.brought.pop(get.assignment, None)
        self.transfer.cdn_failed(get.assignment, error, self.now_s)

    def finished(self) -> bool:
        """Whether the transfer is complete and proved; then the file is what it should be."""
        if not self.transfer.complete:
            return False
        manifest = self.transfer.finish()
        if manifest is None:
            return False
        assert manifest == self.file.manifest
        assert self.content == [manifest.hash(i) for i in range(len(manifest))]
        assert self.transfer.counts.total == manifest.size_bytes
        return True

    def check(self) -> None:
        """What is true at any time."""
        pieces = list(self._pieces())
        assert self._pieces().wanted == [p.begin for p in pieces if p.state is State.WANTED]
        assert self._pieces().wanted_chunks == sum(p.count for p in pieces if p.state is State.WANTED)
        assert self._pieces().open == sum(p.state is not State.DONE for p in pieces)
        # Every chunk is in one piece, which lies in one of the plan's.
        assert [c for p in pieces for c in range(p.begin, p.end)] == list(range(len(self.file.manifest)))
        planned_of = {c: p for p in self.file.plan.pieces for c in range(p.first, p.first + p.count)}
        asked: dict[int, list[int]] = {}
        known = self.transfer.knowledge.known
        begin_of = self._begin_of
        for number, action in self.running.items():
            if isinstance(action, AskPeer):
                assert contains(known, action.first, action.first + action.count)
                of_xorb = self.file.xorbs[action.xorb].slice(action.xorb_first, action.xorb_first + action.count)
                assert of_xorb == self.file.manifest.slice(action.first, action.first + action.count)
            brings = self.chunks_of(action)
            for begin in {begin_of[c] for c in brings if c >= self._pieces()[begin_of[c]].first}:
                asked.setdefault(begin, []).append(number)
        for piece in pieces:
            planned = planned_of[piece.begin]
            assert piece.begin in self._pieces().of_fetch(planned.fetch) and piece.fetch == planned.fetch
            assert piece.state is State.DONE or sorted(piece.askers) == sorted(asked.get(piece.begin, []))
            assert piece.state is State.DONE or (piece.state is State.ASKED) == bool(piece.askers)
            assert piece.end <= planned.first + planned.count
            assert piece.xorb_first - planned.xorb_first == piece.first - planned.first
            askers = [self.running[number] for number in piece.askers]
            assert sum(not isinstance(one, AskPeer | CopyLocal) for one in askers) <= 1
            if any(isinstance(one, Follow) or (isinstance(one, FetchWhole) and one.expected is None) for one in askers):
                assert len(askers) == 1
            peers = [one.peer for one in askers if isinstance(one, AskPeer)]
            assert len(set(peers)) == len(peers) <= 2
        gets = sum(isinstance(action, FetchWhole | FetchRun) for action in self.running.values())
        assert gets == self.transfer._assignments.gets <= SETTINGS.max_cdn_fetches
        manifest = self.file.manifest
        size = sum(
            manifest.offset(p.end if p.state is State.DONE else p.first) - manifest.offset(p.begin) for p in pieces
        )
        assert self.transfer.counts.total == size
        assert self.transfer.counts.peer >= 0 and self.transfer.counts.cdn >= 0
        follows = [action for action in self.running.values() if isinstance(action, Follow)]
        assert len(follows) <= MAX_FOLLOWS
        assert all(follow.member not in self.liars for follow in follows if follow.assignment not in self.before)
        self.before = set(self.running)
        self.liars.update(self.transfer.take_liars())
        assert self.liars <= self.false
        for first, end in self.transfer.take_proved():
            for chunk in range(first, end):
                assert self.content[chunk] == manifest.hash(chunk)
                self.proved.add(chunk)
        for piece in pieces:
            # What is known and written is proved, and the other way round; of a blind GET before only by chance.
            for chunk in range(piece.begin, piece.end):
                is_written = piece.state is State.DONE or chunk < piece.first
                if is_written and contains(known, chunk, chunk + 1):
                    assert chunk in self.proved

    @property
    def _begin_of(self) -> dict[int, int]:
        return {chunk: p.begin for p in self._pieces() for chunk in range(p.begin, p.end)}

    def _write(self, first: int, end: int) -> None:
        for chunk in range(first, end):
            self.content[chunk] = self.file.manifest.hash(chunk)

    def _pieces(self):  # type: ignore[no-untyped-def]
        return self.transfer._pieces
