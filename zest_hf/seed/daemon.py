"""The process: opens index, swarm and status page, keeps them going, ends on a signal."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from zest_hf import __version__, access
from zest_hf._native import codec
from zest_hf.config import Settings
from zest_hf.core.policy import PolicySettings
from zest_hf.errors import ConfigError, StorageError, SwarmError, ZestError
from zest_hf.hook.cache import cache_directory
from zest_hf.index import Index
from zest_hf.seed.idle import Idle
from zest_hf.seed.instance import By, Instance
from zest_hf.seed.ledger import Ledger
from zest_hf.seed.scan import NOBODY, CacheScan
from zest_hf.seed.scan_bar import ScanBar
from zest_hf.seed.seeder import Seeder
from zest_hf.seed.status import Status
from zest_hf.seed.terms import TermsQuest
from zest_hf.seed.troubles import Troubles
from zest_hf.seed.visibility import Visibility
from zest_hf.seed.web import StatusServer, listen
from zest_hf.setting_values import HostPort
from zest_hf.swarm import PORT_RETRIES, Swarm
from zest_hf.traffic import TrafficLog

log = logging.getLogger("zest_hf.seed")

REFRESH_S = 1.0
JOIN_S = 0.5
TRAFFIC_PATIENCE_S = 0.2
"""How long it is waited for others who note what they have moved."""
LOOK_S = 1.0
"""How often the cache's directories are looked at for new files."""
LONGEST_LOOK_S = 30.0
"""... at most, where that takes long."""
VISIBILITY_LOOK_S = 60.0
"""How often it is looked for repositories of whose visibility nothing recent is known."""


def serve(settings: Settings, *, scan: bool) -> int:
    """Seeds in the foreground until SIGTERM or SIGINT.

    The exit code: 0 after a clean stop, 1 when it cannot start (with one line).
    """
    # Whoever starts a second one in a terminal wants a second one: then `zest stop` knows the first alone.
    instance = Instance(settings.home)
    try:
        serve_until_told(settings, scan=scan, instance=instance, say=_say)
    except ZestError as error:
        print(f"zest-seed: {error}", file=sys.stderr)
        return 1
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def serve_until_told(
    settings: Settings,
    *,
    scan: bool,
    instance: Instance,
    say: Callable[[str], None],
    serves: Callable[[], None] = lambda: None,
    by: By = "user",
) -> None:
    """Seeds until SIGTERM or SIGINT; needs the main thread. Raises ZestError when it cannot start.

    ``instance``: becomes its own if nobody has it, and is let go of at the end. ``say`` gets one line that says what
    is offered where; after it ``serves`` is called. ``by``: one that a download has left ends when it has had nothing
    to do for ``idle_exit_s``, and takes the next free ports where its own are taken: nobody would read why it does not.
    """
    stop = threading.Event()
    os.environ["ZEST_DAEMON"] = "off"  # what this process downloads, or one that it starts, leaves no other behind

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    try:
        _serve(settings, stop, instance, say, serves, scan=scan, by=by)
    finally:
        instance.release()


def _serve(
    settings: Settings,
    stop: threading.Event,
    instance: Instance,
    say: Callable[[str], None],
    serves: Callable[[], None],
    *,
    scan: bool,
    by: By,
) -> None:
    listener = _page_socket(settings, gives_way=by == "hook")
    index = Index(settings.home / "index.sqlite")
    index.generation()  # an index that cannot be used is said now, not later in a thread
    withdrawn: list[str] = []
    swarm = _open_swarm(settings, withdrawn.append, gives_way=by == "hook")
    permits = functools.partial(access.permits, settings.allow, settings.deny)
    seeder = Seeder(index, swarm, stop, keyed=settings.swarm_key is not None, permits=permits)
    ledger = Ledger(TrafficLog(settings.home, patience_s=TRAFFIC_PATIENCE_S), swarm)
    page = StatusServer(Status(seeder, swarm, ledger), listener, settings.home) if listener is not None else None
    watch = threading.Thread(target=_watch, args=(settings, index, stop, scan), name="zest-watch", daemon=True)
    # A thread of its own: a CAS that is slow holds up nothing else.
    quest = threading.Thread(target=_ask_for_terms, args=(settings, index, stop), name="zest-terms", daemon=True)
    try:
        if page is not None:
            page.start()
        seeder.refresh()
        if stop.is_set():
            return
        _publish(settings, instance, swarm, page, by)
        say(_announcement(settings, seeder, swarm, page))
        serves()
        if not settings.hub_offline:
            swarm.dial_given()
        watch.start()
        if scan and not settings.hub_offline:
            quest.start()
        troubles = Troubles("the index does not answer")
        idle = Idle(settings.idle_exit_s if by == "hook" else None, time.monotonic())
        while not stop.wait(REFRESH_S):
            while withdrawn:
                seeder.lost(withdrawn.pop())
            ledger.tick()
            troubles.during(seeder.refresh)
            if instance.is_lost:
                log.info("%s is not what it was; this seeder ends", instance.home)
                return
            if idle.is_over(seeder.activity(), time.monotonic()):
                log.info("nothing to do for %g hours; this seeder ends", idle.limit_hours)
                return
    finally:
        stop.set()
        if page is not None:
            page.stop()
        ledger.close()
        swarm.close()
        for thread in (watch, quest):
            if thread.ident is not None:
                thread.join(JOIN_S)
        index.close()


def _page_socket(settings: Settings, *, gives_way: bool) -> socket.socket | None:
    if settings.status is None:
        return None
    host, first = settings.status
    # Several users of a machine have the same default.
    retries = PORT_RETRIES if first and (gives_way or settings.sources["status"] == "default") else 0
    for port in range(first, min(first + retries, 65536)):
        with contextlib.suppress(ConfigError):
            return listen(host, port)
    return listen(host, first)  # as if it had not been tried: the line that is to be read names it


def _open_swarm(settings: Settings, share_lost: Callable[[str], None], *, gives_way: bool) -> Swarm:
    retries = PORT_RETRIES if gives_way or not settings.listen.explicit else 0
    try:
        return Swarm(settings, PolicySettings(), port_retries=retries, share_lost=share_lost)
    except SwarmError as error:
        address = HostPort(settings.listen.host, settings.listen.port)
        raise ConfigError(
            f"cannot listen for peers on {address}: {str(error).rpartition(': ')[2]}; "
            "set ZEST_LISTEN to another host:port (port 0 takes any that is free)"
        ) from error


def _publish(settings: Settings, instance: Instance, swarm: Swarm, page: StatusServer | None, by: By) -> None:
    try:
        if instance.is_held or instance.take():
            listen_at = str(HostPort(settings.listen.host, swarm.port))
            address = None if page is None else page.address
            instance.publish(version=__version__, listen=listen_at, status=address, by=by)
    except StorageError as error:
        if instance.is_held:
            raise  # in the background, where nothing else would tell of it
        log.info("`zest stop` will not find this one: %s", error)


def _announcement(settings: Settings, seeder: Seeder, swarm: Swarm, page: StatusServer | None) -> str:
    where = HostPort(settings.listen.host, swarm.port)
    text = f"zest-seed {__version__}: {_offer(seeder)} offered on {where}"
    if page is not None:
        text += f", page on {page.address}"
    if settings.hub_offline:
        text += " (HF_HUB_OFFLINE: nobody is contacted)"
    return text


def _offer(seeder: Seeder) -> str:
    files, size, repos = seeder.totals()
    return f"{files} file{'s' * (files != 1)} of {repos} repositor{'y' if repos == 1 else 'ies'} ({size / 1e6:.1f} MB)"


def _watch(settings: Settings, index: Index, stop: threading.Event, scan: bool) -> None:
    """Keeps the index equal to the cache, and to what the Hub shows to everyone."""
    visibility = Visibility(index, offline=settings.hub_offline)
    codec.give_way()
    cache: CacheScan | None = None
    replaced = 0
    troubles = Troubles("the cache cannot be looked at")
    ask_at_s = pause_s = 0.0
    while not stop.wait(pause_s):
        # Of the processor: to wait for others, or for the Hub, costs nobody anything.
        began_s, now_s = time.thread_time(), time.monotonic()
        if not settings.hub_offline and now_s >= ask_at_s:
            ask_at_s = now_s + VISIBILITY_LOOK_S
            troubles.during(lambda: _ask_again(index, stop, visibility))
        if scan:
            if cache is None or index.replaced != replaced:  # then nothing of the cache is in it
                cache = CacheScan(cache_directory(), index, stop, visibility.file, ScanBar(), settings.home)
                replaced = index.replaced
            troubles.during(functools.partial(_look, cache))
        # A cache that changes all the time must not keep a processor busy: very many files take seconds to list.
        pause_s = max(LOOK_S, min(LONGEST_LOOK_S, 9 * (time.thread_time() - began_s)))


def _look(cache: CacheScan) -> None:
    if cache.is_due() and (added := cache.run()):
        log.info("%d files of the cache are new in the index", added)


def _ask_for_terms(settings: Settings, index: Index, stop: threading.Event) -> None:
    # It waits most of the time, as it asks only so often: on a busy machine one that gives way would not get on at all.
    quest = TermsQuest(index, settings, cache_directory(), stop)
    troubles = Troubles("which xorbs the files of the cache are made of cannot be asked")
    pause_s = LOOK_S
    while not stop.wait(pause_s):
        began_s = time.thread_time()
        troubles.during(lambda: quest.is_due() and quest.run())
        pause_s = max(LOOK_S, min(LONGEST_LOOK_S, 9 * (time.thread_time() - began_s)))


def _ask_again(index: Index, stop: threading.Event, visibility: Visibility) -> None:
    """Asks the Hub about repositories of which nothing recent is known; without an answer nothing changes."""
    for repo in index.repos():
        if stop.is_set():
            return
        if repo[0] != NOBODY:
            visibility.ask_again(repo)
