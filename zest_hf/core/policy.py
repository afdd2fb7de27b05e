"""Peer or CDN, and how much of whom: the one place that decides. Pure functions of a view and the time it carries.

The rule in words: peers that hold the file give all of it. The CDN is asked for what no peer holds, and for
the rest as well when the peers together are slower than a usual Internet line, or slower than the CDN, which is found
out where much is left. That ends when it has shown to add nothing, as on a line that peers fill alone. Nobody waits
long for peers: as long as a peer given by hand is still being reached, and never longer than that would take a healthy
one; for peers that may yet be discovered, a small part of what the CDN would need.

A CDN that was asked for everything since nobody was there gives way to peers that turn up: it leaves them the ends of
its GETs, so much that they are done when it is, and all of it as soon as they have shown that they give as much as it
does and enough by themselves. Before, it goes on as if nobody had come.

A peer that is of no use is replaced in a stated time. One that sends nothing loses what it was asked for after
`piece_silence_s`, when it is the last that is needed after `overdue_s` already, and is left alone for
`suspension_s`, twice as long each time. One that answers, but never with what it claims to hold, is left alone
likewise after `fruitless_limit` answers. What waits at a slow peer is taken away as soon as a faster one has
nothing to do.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """Times in seconds, rates in bytes per second."""

    permission_patience_s: float = 2.0
    """How long a download waits for the Hub to say whether peers may be asked."""
    dial_patience_s: float = 1.0
    """How long a download waits for a TCP connection to a peer that was given."""
    answer_patience_s: float = 2.5
    """How long it waits for a connected peer's handshake, and for its answer to what it holds."""
    manifest_patience_s: float = 4.0
    """How long it waits, in all, for manifests on their way."""
    stranger_patience_s: float = 0.5
    """The same two for a peer that was not given: how long it may say nothing. One that has let a question pass
    is not waited for again, by no download of the process, before it has answered one."""
    xorb_patience_s: float = 0.5
    """How long it waits, in all, for what peers without the file say of its xorbs."""
    discovery_share: float = 0.02
    """The part of the time that a fast CDN would need which is waited for peers that may be discovered yet."""
    discovery_patience_s: float = 0.3
    """... and no longer than this,"""
    least_discovery_patience_s: float = 0.05
    """... but as long as it takes on a local network,"""
    worth_discovery_bytes: int = 8 * 1024 * 1024
    """... for a file of this size or more."""
    usual_cdn_bytes_s: float = 125e6
    """What a fast CDN is taken to give: a 1 Gbit/s line."""
    piece_silence_s: float = 4.0
    """A peer that sends nothing for this long loses what it was asked for."""
    suspension_s: float = 15.0
    """How long such a peer is left alone by this download; twice as long each time until it gives something."""
    longest_suspension_s: float = 240.0
    busy_rest_s: float = 1.0
    """How long one is that says it has too much to do; twice as long each time, up to `suspension_s`."""
    fruitless_limit: int = 3
    """A peer that has said so often in a row that it lacks what it claims to hold is left alone like a silent one."""
    overdue_s: float = 1.0
    """When nothing else is left, somebody else is asked as well for what a source has had for this long."""
    comeback_patience_s: float = 20.0
    """How long a download whose CDN fails waits, without progress, for peers to come back."""
    slow_after_s: float = 1.5
    """When peers are judged by their rate."""
    fair_rate_bytes_s: float = 10e6
    """Peers that together give less are helped by the CDN: what a line of 100 Mbit/s has for data, 12.07e6 at
    best, less what it loses. Nobody could bring more over it, and what both bring is of use once."""
    enough_bytes_s: float = 100e6
    """Peers that together give as much are quick enough, whatever the CDN may give."""
    worth_measuring_s: float = 6.0
    """Else, if they need this long for what is left, it is found out whether the CDN would give more than they do,"""
    cdn_measured_s: float = 1.5
    """... which shows in this time;"""
    quicker_factor: float = 1.1
    """... and is of use if it gives so many times as much as they did,"""
    adds_factor: float = 1.15
    """... or, beside slow ones, if both give so many times as much."""
    recovers_s: float = 3.0
    """So long after GETs were stopped peers have the line again."""
    adds_nothing_s: float = 15.0
    """What a CDN adds that adds nothing is found out again after this time, twice as long each time."""
    max_cdn_fetches: int = 8
    """GETs at the same time for one file, where `core.concurrency` does not say how many."""
    measured_s: float = 0.2
    measured_bytes: int = 4 * 1024 * 1024
    """A rate can be told after so long, or so much: before, CDN and peers are not compared."""
    cdn_latency_s: float = 0.5
    """... nor is a GET's silence held against the CDN."""
    unmeasured_share: float = 0.25
    """What peers are left of the rest until then, at most,"""
    worth_a_try_s: float = 0.5
    """... if the CDN needs this long for it: who has given nothing yet gets `least_ask_bytes` to try."""
    kept_get_s: float = 0.1
    """A GET that needs this much longer for its rest than peers would is not stopped for them."""
    slow_get_s: float = 5.0
    """A GET that in this time has brought so little"""
    slow_get_factor: float = 8.0
    """... that others bring so many times as much is gone on with on another connection,"""
    least_get_bytes_s: float = 160e3
    """... or so many times less than this, if there are no others and were none,"""
    measured_get_bytes: int = 256 * 1024
    """... that have brought this at least,"""
    most_replaced: int = 2
    """... so often."""
    left_alone_s: float = 0.25
    """What a GET has left to peers is not asked of the CDN again for this long, while other GETs run."""
    copy_patience_s: float = 5.0
    """What is here already is asked of nobody before nothing was copied for this long: the disk does not answer."""
    ask_s: float = 0.25
    """A peer is asked for as much at once as it sends in this time,"""
    least_ask_bytes: int = 256 * 1024
    most_ask_bytes: int = 4 * 1024 * 1024
    """... between these, or a bit more,"""
    first_ask_bytes: int = 1024 * 1024
    """... and for this as long as its rate is not known."""
    window_s: float = 0.5
    """As much is asked for ahead as it sends in this time: more than any connection has on its way,"""
    min_depth: int = 2
    max_depth: int = 12
    """... in so many requests."""

    @property
    def patience_s(self) -> float:
        """How long a download waits for peers in all: permission, dial, handshake, have, xorbs, manifest."""
        return (
            self.permission_patience_s
            + self.dial_patience_s
            + 2 * self.answer_patience_s
            + self.xorb_patience_s
            + self.manifest_patience_s
        )


class CdnUse(enum.Enum):
    """What the CDN is asked for now."""

    NOTHING = "nothing"
    ORPHANS = "what no peer holds"
    EVERYTHING = "everything that is left"
    CROWD = "what is ours among those who download the same"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What peers give at the same time to other files of the process."""

    bytes_s: float = 0.0
    files: int = 0


NOTHING_ELSEWHERE = Elsewhere()


@dataclass(frozen=True, slots=True)
class View:
    """What the decision depends on."""

    now_s: float
    waiting_for_peers: bool
    """A peer is being reached or asked, within the patience above."""
    useful_peers: int
    """Peers that hold something that is still wanted and are not suspended."""
    peers_since_s: float | None
    """When the first piece was asked of a peer."""
    peer_rate_bytes_s: float
    cdn_leads: bool = False
    """The CDN was asked for everything when no peer was useful, and peers have not sufficed since."""
    in_crowd: bool = False
    """Others download the same file: `core.crowd` says who asks the CDN for what."""
    elsewhere: Elsewhere = NOTHING_ELSEWHERE
    alone_bytes_s: float = 0.0
    """What peers gave before the CDN was asked as well, of late; 0: that was not so."""
    cdn_bytes_s: float | None = None
    """What the CDN has given this file beside peers; None: it was not found out."""
    cdn_adds_nothing: bool = False
    """It was found out of late that peers fill the line."""
    rest_bytes: float = 0.0
    """What is still to come."""

    @property
    def peers_bytes_s(self) -> float:
        """What peers give to all files, or can give to them."""
        return max(self.peer_rate_bytes_s + self.elsewhere.bytes_s, self.alone_bytes_s)


@dataclass(frozen=True, slots=True)
class Rates:
    """What peers and the CDN give; None: not measured yet."""

    peers_bytes_s: float | None
    cdn_bytes_s: float | None


def cdn_use(view: View, settings: PolicySettings) -> CdnUse:
    """What to ask the CDN for."""
    if view.in_crowd:
        return CdnUse.NOTHING if view.waiting_for_peers else CdnUse.CROWD
    if view.useful_peers == 0:
        return CdnUse.NOTHING if view.waiting_for_peers else CdnUse.EVERYTHING
    if view.cdn_leads:
        return CdnUse.EVERYTHING
    asked_for_s = 0.0 if view.peers_since_s is None else view.now_s - view.peers_since_s
    if asked_for_s >= settings.slow_after_s and (
        (peers_are_slow(view, settings) and not view.cdn_adds_nothing) or cdn_may_be_quicker(view, settings)
    ):
        return CdnUse.EVERYTHING
    return CdnUse.NOTHING if view.waiting_for_peers else CdnUse.ORPHANS


def peers_are_slow(view: View, settings: PolicySettings) -> bool:
    """Whether peers give less than a usual line: to all files together, or to this one an eighth of its part of that.

    Files that come over one line at the same time have parts of it that are far from the same, and what is behind
    gets more when others are done.
    """
    fair = settings.fair_rate_bytes_s
    share = fair / (8 * (view.elsewhere.files + 1))
    return view.peers_bytes_s < fair or max(view.peer_rate_bytes_s, view.alone_bytes_s) < share


def cdn_may_be_quicker(view: View, settings: PolicySettings) -> bool:
    """Whether the CDN gives more than peers, or it is worth finding out: nobody is to wait longer than without them."""
    if view.cdn_bytes_s is not None:
        return view.cdn_bytes_s > settings.quicker_factor * view.peers_bytes_s
    rate = view.peers_bytes_s
    return rate < settings.enough_bytes_s and view.rest_bytes >= rate * settings.worth_measuring_s


def peers_suffice(rates: Rates, settings: PolicySettings) -> bool:
    """Whether GETs that run are stopped for peers."""
    if rates.peers_bytes_s is None or rates.cdn_bytes_s is None:
        return False
    return rates.peers_bytes_s >= max(rates.cdn_bytes_s, settings.fair_rate_bytes_s)


def peers_suffice_beside(
    alone_bytes_s: float, rates: Rates, is_only_file: bool, settings: PolicySettings
) -> bool:
    """Whether GETs that were made beside peers, which gave so much until then, are stopped again.

    On a line that both share the CDN gives a part of what peers gave, and both together no more than that.
    """
    if rates.peers_bytes_s is None or rates.cdn_bytes_s is None:
        return False
    if alone_bytes_s >= settings.fair_rate_bytes_s:
        return rates.cdn_bytes_s <= settings.quicker_factor * alone_bytes_s
    # What the CDN gives to other files is not known here.
    both = rates.peers_bytes_s + rates.cdn_bytes_s
    return is_only_file and both < settings.adds_factor * alone_bytes_s


def is_worth_stopping(rest_bytes: float, get_bytes_s: float, rates: Rates, settings: PolicySettings) -> bool:
    """With peers that suffice: whether a GET with so much left at this rate ends later than they would bring it."""
    if get_bytes_s <= 0 or not rates.peers_bytes_s:
        return True
    return rest_bytes / get_bytes_s > rest_bytes / rates.peers_bytes_s + settings.kept_get_s


def share_bytes(
    rest_bytes: float, ahead_bytes: float, peers_bytes_s: float, rates: Rates, settings: PolicySettings
) -> float:
    """How much of what GETs still have to bring to leave to peers, so that nobody waits for the other in the end.

    The peers have `ahead_bytes` to do and give `peers_bytes_s` as it seems, 0 if they have given nothing.
    """
    cdn = rates.cdn_bytes_s
    if cdn is not None and peers_bytes_s <= 0 and rest_bytes < cdn * settings.worth_a_try_s:
        return 0.0
    share = settings.unmeasured_share * rest_bytes
    if cdn is None or peers_bytes_s <= 0:
        return share
    even = (rest_bytes * peers_bytes_s - ahead_bytes * cdn) / (peers_bytes_s + cdn)
    return max(0.0, even if rates.peers_bytes_s is not None else min(share, even))


def discovery_patience_s(size_bytes: int, settings: PolicySettings) -> float:
    """How long a file of this size may wait for peers that nobody knows of yet."""
    if size_bytes < settings.worth_discovery_bytes:
        return 0.0
    wanted_s = settings.discovery_share * size_bytes / settings.usual_cdn_bytes_s
    return max(settings.least_discovery_patience_s, min(wanted_s, settings.discovery_patience_s))


def ask_bytes(rate_bytes_s: float, settings: PolicySettings) -> float:
    """How much to ask for at once of a peer with this rate; 0 is one whose rate is not known."""
    if rate_bytes_s <= 0:
        return settings.first_ask_bytes
    return max(settings.least_ask_bytes, min(settings.most_ask_bytes, rate_bytes_s * settings.ask_s))


def has_room(requests: int, ahead_bytes: int, rate_bytes_s: float, settings: PolicySettings) -> bool:
    """Whether a peer with this rate and so much to do should be asked for more."""
    if requests < settings.min_depth:
        return True
    return requests < settings.max_depth and ahead_bytes < rate_bytes_s * settings.window_s


def rest_s(times: int, first_s: float, longest_s: float) -> float:
    """How long to leave a peer alone that has been of no use so many times in a row."""
    return min(longest_s, first_s * 2.0 ** min(max(times - 1, 0), 20))
