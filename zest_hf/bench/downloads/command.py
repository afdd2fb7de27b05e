"""`zest bench download`: its arguments, what is wrong with them, and where the figures go.

What it needs is imported when it is needed: every command loads this module.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from zest_hf.errors import ZestError
from zest_hf.terminal import size_text

if TYPE_CHECKING:
    from zest_hf.bench.downloads.line import Line

DESCRIPTION = """Download the same repository by hf_xet and by zest_hf, without a peer and from one, in turn: what each
takes on this machine, in time, processor time and memory. Beside them, as far as they are installed, aria2 from a plain
HTTP server, libtorrent, and TCP with nothing else. The Hub, the peer and all others run on this machine too, over
loopback or, as root, over a line that has delay, loss and a rate."""

RUNS, MEGABYTES, FILES, SYNTHETIC_MEGABYTES = 7, 1000, 4, 256
DELAY_MS, LOSS, MBIT = 0.0, 0.0, 100.0
MOST_DELAY_MS, MOST_LOSS, LEAST_MBIT, MOST_MBIT = 2000.0, 0.5, 1.0, 500.0
"""At most what one core carries, here, with as much to spare."""
MOST_RUNS, MOST_MEGABYTES, MOST_FILES, MOST_SYNTHETIC_MEGABYTES = 1000, 1_000_000, 100_000, 4000
LEAST_FILE_BYTES = 1000
COPIES = 5
"""Of the repository that are on the disk at once: what is uploaded, the Hub's, the seeder's, a download's; and room."""
LINE_OPTIONS = ("delay_ms", "loss", "mbit", "congestion")
HUB_NEEDS = ("starlette", "uvicorn", "httptools")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, metavar="N", help=f"counted rounds; one more comes first ({RUNS})")
    parser.add_argument("--megabytes", type=int, metavar="N", help=f"size of the repository ({MEGABYTES})")
    parser.add_argument("--files", type=int, metavar="N", help=f"files of the same size that it has ({FILES})")
    parser.add_argument("--tls", action="store_true", help="the Hub speaks https")
    parser.add_argument(
        "--delay-ms", type=float, metavar="MS", help="a line that takes this long there and back; needs root"
    )
    parser.add_argument("--loss", type=float, metavar="SHARE", help="... that loses this share of packets, as 0.001")
    parser.add_argument("--mbit", type=float, metavar="N", help=f"... of N Mbit/s each way ({MBIT:g})")
    parser.add_argument(
        "--congestion", metavar="NAME", help="... over which TCP works like this: cubic, bbr (the system's choice)"
    )
    parser.add_argument("--only", metavar="CASE,...", help="of hf_xet, zest, zest-peer, aria2, libtorrent, tcp")
    parser.add_argument("--dir", type=Path, help="work below this directory (the system's for what is temporary)")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="every round as JSON: to a file, or instead of the table"
    )
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="fail if zest_hf is worse than in what --json has written here"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the figures as well")
    parser.add_argument(
        "--synthetic", action="store_true", help="no downloads: chunking, hashing and decoding alone, on one core"
    )


def run(args: argparse.Namespace) -> int:
    """The exit code: 1 if it is worse than --against says. Raises ZestError for whatever cannot be done."""
    return _synthetic(args) if args.synthetic else _downloads(args)


def _downloads(args: argparse.Namespace) -> int:
    runs = _number(args.runs, RUNS, "--runs", MOST_RUNS)
    total_bytes = _number(args.megabytes, MEGABYTES, "--megabytes", MOST_MEGABYTES) * 1_000_000
    files = _number(args.files, FILES, "--files", MOST_FILES)
    if total_bytes // files < LEAST_FILE_BYTES:
        raise ZestError(f"--files is {files}, too many for {size_text(total_bytes)}: the least is a kilobyte each")
    missing = [name for name in HUB_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ZestError(f'the local Hub needs {", ".join(missing)}: pip install "zest_hf[hub]"')
    from zest_hf.bench.downloads import regression, report
    from zest_hf.bench.downloads.comparison import compared

    then = None if args.against is None else regression.read(args.against)
    names = _chosen(args.only)
    _check_targets(args)
    line = _line(args)
    with _folder(args.dir, COPIES * total_bytes) as work:
        outcome = compared(work, names, runs, total_bytes, files, tls=args.tls, line=line, say=_say)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    value = report.as_json(outcome)
    _show(args.json, value, report.lines(outcome, width))
    if args.plot is not None:
        from zest_hf.bench.downloads.picture import draw

        draw(args.plot, outcome)
    if not outcome.is_complete:
        raise KeyboardInterrupt
    return 0 if then is None else _compare(value, then)


def _compare(now: dict[str, Any], then: dict[str, Any]) -> int:
    from zest_hf.bench.downloads import regression

    if regression.measured(now) != regression.measured(then):
        raise ZestError(
            f"this was {regression.measured(now)}; --against has {regression.measured(then)}, which says nothing of it"
        )
    worse = list(regression.worse(now, then))
    for line in worse:
        _say(f"worse: {line}")
    if not worse:
        _say("not worse than it was")
    return 1 if worse else 0


def _synthetic(args: argparse.Namespace) -> int:
    for name in ("only", "files", "tls", "against", "plot", *LINE_OPTIONS):
        if not (getattr(args, name) is None or getattr(args, name) is False):
            raise ZestError(f"--{name.replace('_', '-')} is for downloads, and --synthetic makes none")
    runs = _number(args.runs, RUNS, "--runs", MOST_RUNS)
    megabytes = _number(args.megabytes, SYNTHETIC_MEGABYTES, "--megabytes", MOST_SYNTHETIC_MEGABYTES)
    from zest_hf.bench.downloads import kernels
    from zest_hf.bench.downloads.comparison import machine

    _check_targets(args)
    size_bytes = megabytes * 1_000_000
    with _folder(args.dir, size_bytes) as work:
        found = list(kernels.kernels(work / "weights", size_bytes, runs))
    value = {"bytes": size_bytes, "runs": runs, "machine": machine(), "mb_s": kernels.as_json(found)}
    _show(args.json, value, kernels.lines(found, size_bytes, runs))
    return 0


def _number(value: int | None, default: int, option: str, most: int) -> int:
    if value is None:
        return default
    if not 1 <= value <= most:
        raise ZestError(f"{option} is {value}, accepted is 1 to {most:,}")
    return value


def _line(args: argparse.Namespace) -> Line | None:
    """None: loopback. Raises ZestError also where there can be no such line."""
    if all(getattr(args, name) is None for name in LINE_OPTIONS):
        return None
    delay_ms = _real(args.delay_ms, DELAY_MS, "--delay-ms", 0, MOST_DELAY_MS)
    loss = _real(args.loss, LOSS, "--loss", 0, MOST_LOSS)
    mbit_s = _real(args.mbit, MBIT, "--mbit", LEAST_MBIT, MOST_MBIT)
    from zest_hf.bench.downloads import places
    from zest_hf.bench.downloads.line import Line

    line = Line(delay_ms / 1e3, loss, mbit_s, args.congestion or places.congestion())
    places.check(line.congestion)
    return line


def _real(value: float | None, default: float, option: str, least: float, most: float) -> float:
    if value is None:
        return default
    if not least <= value <= most:  # neither is what is no number
        raise ZestError(f"{option} is {value:g}, accepted is {least:g} to {most:g}")
    return value


def _chosen(only: str | None) -> list[str]:
    """The cases that are to be run, in their order. Those that cannot be are left out, with a line."""
    from zest_hf.bench.downloads.cases import KINDS

    asked = list(KINDS) if only is None else [name.strip() for name in only.split(",")]
    for name in asked:
        if name not in KINDS:
            raise ZestError(f"--only has {name!r}, accepted are {', '.join(KINDS)}, with commas between")
    missing = {name: kind.missing() for name, kind in KINDS.items() if name in asked}
    for name, reason in missing.items():
        if reason is not None:
            _say(f"{name} is left out: {reason}")
    names = [name for name, reason in missing.items() if reason is None]
    if not names:
        raise ZestError("nothing is left to be measured")
    return names


def _check_targets(args: argparse.Namespace) -> None:
    """What could not be written in the end is said before anything is measured."""
    if args.plot is not None:
        from zest_hf.bench import picture

        picture.check(args.plot)
    if args.json is not None and args.json != "-":
        try:
            open(args.json, "a").close()
        except OSError as error:
            raise ZestError(f"{args.json} cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def _folder(parent: Path | None, needed_bytes: int) -> Iterator[Path]:
    """A directory of its own that is gone afterwards, also when the program is told to end."""
    where = parent if parent is not None else Path(tempfile.gettempdir())
    try:
        os.scandir(where).close()
        free = shutil.disk_usage(where).free
        if free < needed_bytes:
            raise ZestError(
                f"{where} has {size_text(free)} left, and it takes {size_text(needed_bytes)}: "
                "name another directory with --dir, or take less with --megabytes"
            )
        made = tempfile.TemporaryDirectory(prefix="zest-bench-", dir=where)
    except OSError as error:
        raise ZestError(f"{where} cannot be used: {error.strerror}; name a directory with --dir") from None
    with made as name, _ended_in_order():
        yield Path(name)


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP end it as Ctrl-C does: with all that it has started."""

    def interrupted(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupted) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _show(target: str | None, value: dict[str, Any], lines: Iterator[str]) -> None:
    """JSON on stdout takes the place of the lines, since a program reads it."""
    text = json.dumps(value, indent=1)
    if target == "-":
        print(text)
        return
    if target is not None:
        Path(target).write_text(text + "\n", encoding="utf-8")
    for line in lines:
        print(line)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
