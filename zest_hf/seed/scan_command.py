"""`zest scan`: what a seeder does at its start, for who wants to wait for it, or to see it."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from signal import SIGINT, SIGTERM, signal
from typing import TYPE_CHECKING

from zest_hf.terminal import size_text

if TYPE_CHECKING:
    from zest_hf.index import Copy

LOOK_S = 0.5
"""How often it is looked again for files that came a moment ago."""

DESCRIPTION = """Find what is in the Hugging Face cache, hash what is new there, and ask the Hub which of it may be
offered, and of which xorbs it is made. A seeder does that by itself. It can be ended at any time: the next one goes
on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.add_argument("--json", action="store_true", help="print the result for a program")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Raises ZestError. The exit code is 1 when it was ended early."""
    from zest_hf.config import load_settings
    from zest_hf.hook.cache import cache_directory
    from zest_hf.index import Index
    from zest_hf.seed.scan import CacheScan
    from zest_hf.seed.scan_bar import ScanBar
    from zest_hf.seed.terms import TermsQuest
    from zest_hf.seed.visibility import Visibility

    settings = load_settings()
    with closing(Index(settings.home / "index.sqlite")) as index, _stopped_by_signal() as stop:
        visibility = Visibility(index, offline=settings.hub_offline)
        scan = CacheScan(cache_directory(), index, stop, visibility.file, ScanBar(), settings.home)
        added = scan.run()
        while scan.is_too_early and not stop.wait(LOOK_S):
            added += scan.run()
        quest = TermsQuest(index, settings, cache_directory(), stop)
        if quest.is_due():
            quest.run()
        copies = {copy.path: copy for copy in sorted(index.copies(), key=lambda copy: copy.public)}
        sizes = {path: _size(copy) for path, copy in copies.items()}
    offered = [path for path, copy in copies.items() if copy.public]
    result = {
        "complete": not stop.is_set(),
        "new": added,
        "files": len(copies),
        "bytes": sum(sizes.values()),
        "offered": {"files": len(offered), "bytes": sum(sizes[path] for path in offered)},
        "by_xorbs": sum(copy.terms > 0 for copy in copies.values()),
    }
    if args.json:
        print(json.dumps(result))
    else:
        how = "" if result["complete"] else " (ended early)"
        print(f"{len(copies)} files, {size_text(sum(sizes.values()))}, are in the index, {added} of them new{how}")
        print(f"{len(offered)} may be offered to everyone, {size_text(sum(sizes[path] for path in offered))}")
        print(f"of {result['by_xorbs']} the xorbs are known, which other files may share")
    return 0 if result["complete"] else 1


@contextmanager
def _stopped_by_signal() -> Iterator[threading.Event]:
    stop = threading.Event()
    before = [(number, signal(number, lambda *_: stop.set())) for number in (SIGINT, SIGTERM)]
    try:
        yield stop
    finally:
        for number, handler in before:
            signal(number, handler)


def _size(copy: Copy) -> int:
    try:
        return copy.path.stat().st_size
    except OSError:
        return 0
