"""`zest start`, `zest stop`, `zest status`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

from zest_hf import __version__
from zest_hf.errors import StorageError, ZestError
from zest_hf.terminal import failed

if TYPE_CHECKING:
    from zest_hf.config import Settings
    from zest_hf.seed.instance import Running

STATUS_TIMEOUT_S = 5.0
MAX_STATUS_BYTES = 64 << 20


def add_commands(commands: Any) -> None:
    """To what `add_subparsers` has returned."""
    start = commands.add_parser(
        "start",
        help="leave a seeder running",
        description="Leaves a zest-seed running in the background, one for each ZEST_HOME; it logs to zest.log there.",
    )
    start.add_argument("--no-scan", action="store_true", help="offer only what zest_hf itself has downloaded")
    start.add_argument(
        "--systemd", action="store_true", help="write a systemd user unit that does it, and start nothing"
    )
    start.set_defaults(run=_start)
    stop = commands.add_parser("stop", help="end the seeder of this ZEST_HOME", description="Ends the zest-seed.")
    stop.set_defaults(run=_stop)
    status = commands.add_parser("status", help="what the seeder on this machine is doing")
    how = status.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="as the seeder's API gives it")
    how.add_argument("--watch", action="store_true", help="go on showing it until q or Ctrl-C, as in a terminal")
    how.add_argument("--once", action="store_true", help="show it once, also in a terminal")
    status.set_defaults(run=_status)


def _start(args: argparse.Namespace) -> int:
    from zest_hf.config import load_settings

    settings = load_settings()  # a wrong one is said now, not when the machine boots
    if args.systemd:
        from zest_hf.seed import systemd

        print(f"{systemd.write_unit(os.environ)} is written; these two start it, now and at every login:")
        print("\n".join(f"  {command}" for command in systemd.COMMANDS))
        return 0
    from zest_hf.seed import background

    started = background.start(settings, scan=not args.no_scan)
    print(("zest-seed runs already: " if started.already else "zest-seed runs: ") + _where(started.running))
    if started.instead_of is not None:
        print(f"instead of one of version {started.instead_of}, which has ended")
    elif started.running.version != __version__:
        print(f"it has version {started.running.version}, this is {__version__}: zest stop, then zest start")
    return 0


def _stop(args: argparse.Namespace) -> int:
    from zest_hf.config import load_settings
    from zest_hf.seed import background

    stopped = background.stop(load_settings())
    if stopped is None:
        print("no zest-seed runs")
    else:
        how = "did not answer and was killed" if stopped.killed else "has ended"
        print(f"zest-seed (process {stopped.running.pid}) {how}")
    return 0


def _where(running: Running) -> str:
    page = f", page on {running.status}" if running.status is not None else ""
    return f"process {running.pid}, peers at {running.listen}{page}"


def _status(args: argparse.Namespace) -> int:
    from zest_hf.config import load_settings
    from zest_hf.seed import status_text, watch

    settings = load_settings()
    base, token = _page(settings)
    try:
        status = _asked(settings, base, token)
        if args.json:
            print(json.dumps(status, indent=2))
        elif args.watch or (watch.is_wanted(os.environ) and not args.once):
            watch.watch(lambda: _asked(settings, base, token), status)
        else:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            print("\n".join(status_text.lines(status, width)))
    except _NoAnswer as error:
        return failed(str(error))
    return 0


class _NoAnswer(ZestError):
    pass


def _asked(settings: Settings, base: str, token: str | None) -> dict[str, Any]:
    """The status. Raises _NoAnswer."""
    import http.client
    import urllib.error
    import urllib.request

    from zest_hf.hook.reasons import one_line
    from zest_hf.seed import status_text

    request = urllib.request.Request(f"{base}/v1/status")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    # A proxy has no business between us and our own machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=STATUS_TIMEOUT_S) as answer:
            status: dict[str, Any] = json.loads(answer.read(MAX_STATUS_BYTES))
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _NoAnswer(_why_nobody_answers(settings, base, one_line(reason))) from error
    if not status_text.is_status(status):
        raise _NoAnswer(f"what answers at {base} is no seeder; set ZEST_STATUS to the seeder's address")
    return status


def _page(settings: Settings) -> tuple[str, str | None]:
    """Where the seeder's page is, and the token for it: where the seeder says, unless another address is given now.

    Raises ZestError.
    """
    from zest_hf.seed.instance import Instance

    given = settings.status
    try:
        running = Instance(settings.home).running()
    except StorageError:
        running = None  # a home that we may not write to; one may run all the same
    if running is not None and not running.is_here:
        running = None
    if settings.sources["status"] == "environment" and given is not None and given.port != 0:
        base = f"http://{given}"
        # The token is shown to the seeder alone that it belongs to.
        return base, _token(settings) if running is not None and running.status == base else None
    if running is not None:
        if running.status is None:
            raise ZestError(f"zest-seed runs (process {running.pid}), but without a status page: ZEST_STATUS is off")
        return running.status, _token(settings)
    if given is None:
        raise ZestError("ZEST_STATUS is off: there is no seeder to ask")
    if given.port == 0:
        raise ZestError("no seeder runs; start one with zest start")
    return f"http://{given}", None


def _why_nobody_answers(settings: Settings, base: str, reason: str) -> str:
    from zest_hf.seed.background import why_silent
    from zest_hf.seed.instance import Instance

    with contextlib.suppress(StorageError):
        running = Instance(settings.home).running()
        if running is not None and running.is_here and (why := why_silent(running)) is not None:
            return f"{why}: zest stop ends it, zest start starts another"
    return f"no seeder answers at {base} ({reason}); start one with zest start"


def _token(settings: Settings) -> str | None:
    from zest_hf.seed.guard import TOKEN_NAME, read_token

    return read_token(settings.home) if (settings.home / TOKEN_NAME).exists() else None
