"""Whom of the crowd to follow: to take a GET from a member while it comes there, and not when it is complete. Pure.

Few units travel through a crowd slowly when each goes on only after its last byte. What is followed comes as it is
fetched, without proof; when all of it is there it proves itself, and until then it is nobody's.

Of a large crowd a few follow each unit, which ones is chance; the others get it from those when it is proved. Who has
sent nothing yet is tried with little. Whom it was of no use to follow is not followed for the same again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from zest_hf.core.actions import Follow, PeerTrouble, StopFollow
from zest_hf.core.assignments import Assignments
from zest_hf.core.begun import Begun
from zest_hf.core.crowd import STEP, Crowd
from zest_hf.core.crowd_claims import FULL, Claim, name_score
from zest_hf.core.crowd_decision import Decision, Reason
from zest_hf.core.knowledge import Knowledge
from zest_hf.core.peers import Peers
from zest_hf.core.pieces import Pieces, State
from zest_hf.core.plan import FilePlan
from zest_hf.core.policy import rest_s
from zest_hf.core.ranges import contains

MAX_FOLLOWS = 8
"""At once."""
MAX_UNTRIED = 2
"""... of a member that has sent nothing yet."""
FEW = 12
"""About so many follow one unit: a member lets 8 do so."""
BUSY_S = 1.0
LONGEST_BUSY_S = 8.0
"""Who has too much to do is asked again after this time; twice as long each time."""
MAX_WRONG = 2
"""So many members have passed on a unit that is not what it should be: nobody is followed for it any more."""
LOOK_S = 0.05
STOPPED_SHARE = 8
"""With less than this part of a unit to come it is not taken from others instead."""


@dataclass(slots=True)
class _Followed:
    fetch: int
    member: bytes
    began_s: float
    begun_bytes: int
    """That were there."""
    size_bytes: int = 0
    """That have come."""
    stopped: bool = False

    @property
    def there_bytes(self) -> int:
        return self.begun_bytes + self.size_bytes


class Following:
    """See the module."""

    def __init__(
        self,
        crowd: Crowd,
        plan: FilePlan,
        pieces: Pieces,
        knowledge: Knowledge,
        assignments: Assignments,
        begun: dict[int, Begun],
    ) -> None:
        """``begun``: what is there of GETs, by their numbers; what one goes on with is taken from it."""
        self._crowd = crowd
        self._plan = plan
        self._pieces = pieces
        self._knowledge = knowledge
        self._assignments = assignments
        self._begun = begun
        self._running: dict[int, _Followed] = {}
        self._failed: set[tuple[bytes, int]] = set()
        self._busy: dict[tuple[bytes, int], tuple[int, float]] = {}
        """Who had too much to do: how often, and until when it is left alone."""
        self._gave: set[bytes] = set()
        self._wrong: dict[bytes, int | None] = {}
        """Who has passed on what is not the file's, and the unit."""
        self._right: set[bytes] = set()
        self._looks_s = self._checks_s = float("-inf")
        self._news = 0

    # --- what happens ----------------------------------------------------------------------------------------

    def brought(self, brought: Mapping[int, int], now_s: float) -> int:
        """So many bytes of the file has each that runs brought so far; how many of them are new."""
        new = 0
        for number, size_bytes in brought.items():
            followed = self._running.get(number)
            if followed is not None and size_bytes > followed.size_bytes:
                new += size_bytes - followed.size_bytes
                followed.size_bytes = size_bytes
                self._gave.add(followed.member)
        self._crowd.came(new)
        return new

    def ended(self, number: int, size_bytes: int, trouble: PeerTrouble | None, now_s: float) -> None:
        """One is over, with so much of the file."""
        self.brought({number: size_bytes}, now_s)
        followed = self._running.pop(number)
        key = followed.member, followed.fetch
        self._looks_s = float("-inf")
        if trouble is None or trouble is PeerTrouble.CANCELLED:
            return
        if trouble is PeerTrouble.BUSY:
            times = self._busy.get(key, (0, 0.0))[0] + 1
            self._busy[key] = times, now_s + rest_s(times, BUSY_S, LONGEST_BUSY_S)
            return
        self._failed.add(key)
        if trouble is PeerTrouble.SILENT and not size_bytes:
            self._crowd.others.found_out(followed.member, followed.fetch, now_s)

    def wrong(self, member: bytes, fetch: int | None = None) -> None:
        """What it has passed on is not what it should be."""
        self._wrong.setdefault(member, fetch)

    def right(self, member: bytes, size_bytes: int) -> None:
        """So much that it has passed on is proved."""
        self._right.add(member)
        self._crowd.given(size_bytes)

    def has_proved(self, member: bytes) -> bool:
        """Whether it has passed on what was right."""
        return member in self._right and member not in self._wrong

    # --- what to do --------------------------------------------------------------------------------------------

    def starts(self, now_s: float) -> Iterator[Follow]:
        """Whom to follow from now on."""
        others = self._crowd.others
        if len(self._running) >= MAX_FOLLOWS or (now_s < self._looks_s and self._news == others.news):
            return
        self._looks_s, self._news = now_s + LOOK_S, others.news
        found: list[tuple[int, int, int, bytes]] = []
        for number, claims in others.fetching.items():
            able = [one for one, claim in claims.items() if self._may_follow(one, number, claim, now_s)]
            if not able or self._crowd.is_to_probe(number, 0.0, now_s):
                continue
            if self._is_for_us(number) and self._is_open(number):
                member = max(able, key=lambda one: (claims[one].progress, one))
                mine = name_score(self._crowd.me, b"follow %d" % number)
                # Those first of which most is left.
                found.append((claims[member].progress // STEP, mine, number, member))
        for _, _, number, member in sorted(found):
            if len(self._running) >= MAX_FOLLOWS:
                return
            if member in self._gave or self._running_of(member) < MAX_UNTRIED:
                yield self._start(number, member, now_s)

    def stops(self, peers: Peers, now_s: float) -> Iterator[StopFollow]:
        """Whom not to follow any longer."""
        if not self._running or now_s < self._checks_s:
            return
        self._checks_s = now_s + LOOK_S
        for number, followed in self._running.items():
            if followed.stopped:
                continue
            if self._is_had_elsewhere(followed, peers, now_s):
                followed.stopped = True
                self._crowd.notes.append(Decision(followed.fetch, Reason.ELSEWHERE))
                yield StopFollow(number)
            elif self._crowd.is_to_probe(followed.fetch, self._bytes_s(followed, now_s), now_s):
                followed.stopped = True
                self._crowd.notes.append(Decision(followed.fetch, Reason.PROBE))
                yield StopFollow(number)
            elif self._is_slow(followed, now_s):
                followed.stopped = True
                self._crowd.notes.append(Decision(followed.fetch, Reason.UNFOLLOWED))
                self._failed.add((followed.member, followed.fetch))
                self._crowd.others.found_out(followed.member, followed.fetch, now_s)
                yield StopFollow(number)
        if not self._pieces.wanted and self._crowd.is_starving(now_s):
            yield from self._stop_one()

    def _start(self, number: int, member: bytes, now_s: float) -> Follow:
        begun = self._begun.pop(number, None)
        follow = Follow(self._assignments.next_number, member, self._plan.fetches[number], begun)
        self._running[follow.assignment] = _Followed(number, member, now_s, begun.size_bytes if begun else 0)
        self._assignments.begin(follow, list(self._pieces.of_fetch(number)), now_s)
        return follow

    def _stop_one(self) -> Iterator[StopFollow]:
        """All is promised, and nothing comes: the CDN is asked for one of them."""
        running = [(one.size_bytes, number) for number, one in self._running.items() if not one.stopped]
        if running and len(running) == len(self._running):
            _, number = min(running)
            followed = self._running[number]
            followed.stopped = True
            self._crowd.notes.append(Decision(followed.fetch, Reason.STARVING))
            self._failed.add((followed.member, followed.fetch))
            yield StopFollow(number)

    def _running_of(self, member: bytes) -> int:
        return sum(one.member == member for one in self._running.values())

    def _is_open(self, number: int) -> bool:
        """Whether nothing is known of a unit, and none of it is there or asked for."""
        fetch = self._plan.fetches[number]
        if not fetch.is_one_piece or self._knowledge.knows_xorb(fetch.source.xorb):
            return False
        begins = self._pieces.of_fetch(number)
        return (
            all(self._pieces[one].state is State.WANTED and self._pieces.is_untouched(one) for one in begins)
            and list(self._wrong.values()).count(number) < MAX_WRONG
        )

    def _is_for_us(self, number: int) -> bool:
        count = len(self._crowd.others.members)
        return count <= FEW or name_score(self._crowd.me, b"follow %d" % number) < (FEW << 64) // count

    def _may_follow(self, member: bytes, number: int, claim: Claim, now_s: float) -> bool:
        return (
            0 < claim.progress < FULL
            and member not in self._wrong
            and (member, number) not in self._failed
            and self._busy.get((member, number), (0, now_s))[1] <= now_s
            and self._is_further(number, claim)
            and self._crowd.others.is_valid(member, claim, now_s)
        )

    def _is_further(self, number: int, claim: Claim) -> bool:
        """Than we: else nothing would come for a while, as if it had nothing."""
        begun = self._begun.get(number)
        return begun is None or claim.progress / FULL * self._crowd.units[number].size_bytes > begun.size_bytes

    def _is_had_elsewhere(self, followed: _Followed, peers: Peers, now_s: float) -> bool:
        """Whether peers can give, and prove, much that is still to come."""
        unit = self._crowd.units[followed.fetch]
        rest = unit.size_bytes - followed.there_bytes
        return (
            rest * STOPPED_SHARE > unit.size_bytes
            and contains(self._knowledge.known, unit.first, unit.end)
            and contains(peers.held(now_s), unit.first, unit.end)
        )

    def _is_slow(self, followed: _Followed, now_s: float) -> bool:
        """Whether it takes much longer than it would from anybody else."""
        settings = self._crowd.settings
        if now_s - followed.began_s < settings.slow_s:
            return False
        usual = self._crowd.usual_bytes_s(now_s)
        size = self._crowd.units[followed.fetch].size_bytes
        claim = self._crowd.others.claim(followed.member, followed.fetch)
        if claim is not None and followed.there_bytes >= claim.progress / FULL * size / 2:
            # It gives what it gets: whether that is enough is judged by what it says.
            return not self._crowd.others.is_valid(followed.member, claim, now_s)
        # All that it gives is on the same line, and comes unevenly.
        rate = sum(self._bytes_s(one, now_s) for one in self._running.values() if one.member == followed.member)
        needs_s = (size - followed.there_bytes) / max(rate, 1.0)
        return usual > 0 and needs_s > settings.slow_factor * size / usual + settings.stall_s

    @staticmethod
    def _bytes_s(followed: _Followed, now_s: float) -> float:
        """Not to be told at first, when what had come before comes all at once."""
        passed_s = now_s - followed.began_s
        return followed.size_bytes / passed_s if passed_s >= 1.0 else 0.0
