"""The process: opens index, swarm and status page, keeps them going, ends on a signal."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from types import FrameType

from zest_hf import __version__
from zest_hf.config import Settings
from zest_hf.core.policy import PolicySettings
from zest_hf.engine import VISIBILITY_AGE_S
from zest_hf.errors import StorageError, ZestError
from zest_hf.hook.cache import cache_directory, is_public
from zest_hf.index import Index
from zest_hf.seed.scan import scan_cache
from zest_hf.seed.seeder import Seeder
from zest_hf.seed.web import StatusServer, listen
from zest_hf.swarm import PORT_RETRIES, Swarm

log = logging.getLogger("zest_hf.seed")

REFRESH_S = 1.0


def serve(settings: Settings, *, scan: bool) -> int:
    """Seeds until SIGTERM or SIGINT. The exit code: 0 after a clean stop, 1 when it cannot start (one line on stderr)."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    try:
        _serve(settings, stop, scan=scan)
    except ZestError as error:
        print(f"zest-seed: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(settings: Settings, stop: threading.Event, *, scan: bool) -> None:
    if settings.hub_offline:
        log.info("HF_HUB_OFFLINE is set: peers that connect are served, nobody is contacted")
    listener = listen(*settings.status) if settings.status is not None else None
    index = Index(settings.home / "index.sqlite")
    index.generation()  # an index that cannot be used is said now, not later in a thread
    withdrawn: list[str] = []
    swarm = Swarm(
        settings,
        PolicySettings(),
        port_retries=0 if settings.listen.explicit else PORT_RETRIES,
        share_lost=withdrawn.append,
    )
    seeder = Seeder(index, swarm, settings.listen.host)
    page = StatusServer(seeder, listener) if listener is not None else None
    scanner = threading.Thread(target=_scan, args=(settings, index, stop), name="zest-scan", daemon=True)
    try:
        if page is not None:
            page.start()
        seeder.refresh()
        _announce(settings, seeder, swarm, page)
        if not settings.hub_offline:
            swarm.dial_given()
        if scan:
            scanner.start()
        while not stop.wait(REFRESH_S):
            while withdrawn:
                seeder.lost(withdrawn.pop())
            try:
                seeder.refresh()
            except StorageError as error:
                log.warning("the index does not answer, trying again: %s", error)
    finally:
        stop.set()
        if page is not None:
            page.stop()
        swarm.close()
        if scanner.ident is not None:
            scanner.join(1.0)
        index.close()


def _announce(settings: Settings, seeder: Seeder, swarm: Swarm, page: StatusServer | None) -> None:
    files, size, repos = seeder.totals()
    where = f"{settings.listen.host or '0.0.0.0'}:{swarm.port}"
    text = f"zest-seed {__version__}: {files} files of {repos} repositories ({size / 1e6:.1f} MB) offered on {where}"
    print(
        text + (f", status on {page.address}/v1/status" if page is not None else ""),
        file=sys.stderr,
        flush=True,
    )


def _scan(settings: Settings, index: Index, stop: threading.Event) -> None:
    def public(endpoint: str, repo_type: str, repo_id: str) -> bool:
        def remembered() -> bool | None:
            return index.is_public(endpoint, repo_type, repo_id, max_age_s=VISIBILITY_AGE_S)

        if settings.hub_offline:
            return bool(remembered())
        return is_public(
            endpoint,
            repo_type,
            repo_id,
            remembered=remembered,
            remember=lambda shown: index.set_public(endpoint, repo_type, repo_id, shown),
        )

    try:
        added = scan_cache(cache_directory(), index, stop, public)
    except StorageError as error:
        log.warning("the cache is not scanned: %s", error)
        return
    if added:
        log.info("%d files of the cache are new in the index", added)
