"""The command line: `zest` (also `zest-hf`) and `zest-seed`. Exit codes: 0 done, 1 failed, 2 wrong usage; of
`zest run` those of the program.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from zest_hf import __version__, completion
from zest_hf.doctor import command as doctor_command
from zest_hf.errors import ZestError
from zest_hf.seed import command as seed_command
from zest_hf.seed import scan_command
from zest_hf.terminal import failed as _failed
from zest_hf.terminal import size_text as _size

NOT_RUNNABLE, NOT_FOUND = 126, 127
"""Exit codes of `zest run` for a program that cannot be run, as shells have them."""
INTERRUPT_GRACE_S = 3.0
"""How long downloads may take to end after Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """`zest`."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.run is None:
        parser.print_help(sys.stderr)
        return 2
    return _guarded("zest", args)


def seed_main(arguments: Sequence[str] | None = None) -> int:
    """`zest-seed`."""
    return _guarded("zest-seed", _seed_parser().parse_args(arguments))


def _guarded(program: str, args: argparse.Namespace) -> int:
    try:
        code: int = args.run(args)
        if sys.stdout is not None:  # as it is for a program that was started without one
            sys.stdout.flush()  # here, where a reader that has gone away is expected
        return code
    except ZestError as error:
        return _failed(str(error), program)
    except KeyboardInterrupt:
        return _failed("interrupted", program)
    except BrokenPipeError:
        # Whoever read our output has gone away; nothing more can be said there.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


_SEED = """Offer what is in the Hugging Face cache to peers, from the files themselves. Stays in the foreground and
logs to stderr; SIGTERM or Ctrl-C ends it."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zest",
        description="Peer-to-peer downloads for the Hugging Face Hub.",
        epilog="HF_HUB_ENABLE_ZEST=1 does the same for every program that downloads through huggingface_hub.",
    )
    parser.add_argument("--version", action="version", version=f"zest_hf {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    pull = commands.add_parser("pull", help="download a repository, from peers where possible")
    pull.add_argument("repo", help="such as org/model")
    pull.add_argument("--revision", help="branch, tag or commit (main)")
    pull.add_argument("--repo-type", choices=["model", "dataset", "space"], default="model")
    pull.add_argument(
        "--include", action="append", metavar="PATTERN", help="only files that match (repeatable)"
    )
    pull.add_argument(
        "--exclude", action="append", metavar="PATTERN", help="no files that match (repeatable)"
    )
    pull.add_argument("--local-dir", metavar="DIR", help="put the files here instead of the cache")
    pull.add_argument(
        "--peer", action="append", default=[], metavar="HOST:PORT", help="ask this peer (repeatable)"
    )
    pull.add_argument("--force-download", action="store_true", help="also what is in the cache already")
    pull.set_defaults(run=_pull)

    for name in ("seed", "serve"):
        _seed_arguments(
            commands.add_parser(name, help="offer what is in the cache (= zest-seed)", description=_SEED)
        )

    scan_command.add_arguments(commands.add_parser("scan", help="hash what is new in the cache, with a bar"))
    seed_command.add_commands(commands)

    run = commands.add_parser(
        "run", help="run a program with zest_hf switched on", usage="zest run -- COMMAND [ARG ...]"
    )
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    run.set_defaults(run=_run)

    doctor = commands.add_parser("doctor", help="check what downloads and seeding need, and say what to do")
    doctor_command.add_arguments(doctor)

    hub = commands.add_parser("hub", help="serve a Hugging Face Hub with Xet storage from a directory")
    _hub_arguments(hub)

    xet = commands.add_parser("xet", help="hashes, chunks and xorbs as the Hub has them; uploads")
    _xet_arguments(xet)

    bench = commands.add_parser("bench", help="measure downloads on this machine, simulate crowds")
    _bench_arguments(bench)

    completing = commands.add_parser("completion", help="print what a shell needs to complete these commands")
    completion.add_arguments(completing, {"zest": _parser, "zest-hf": _parser, "zest-seed": _seed_parser})

    commands.add_parser("version", help="print the version").set_defaults(run=_version)
    return parser


def _seed_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="zest-seed", description=_SEED)
    _seed_arguments(parser)
    return parser


def _seed_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-scan", action="store_true", help="offer only what zest_hf itself has downloaded"
    )
    parser.add_argument("--version", action="version", version=f"zest_hf {__version__}")
    parser.set_defaults(run=_seed)


def _hub_arguments(parser: argparse.ArgumentParser) -> None:
    from zest_hf.hub import command

    parser.description = command.DESCRIPTION
    command.add_arguments(parser)
    parser.set_defaults(run=command.run)


def _bench_arguments(parser: argparse.ArgumentParser) -> None:
    from zest_hf.bench import crowd_curves
    from zest_hf.bench.downloads import command as download_bench

    subjects = parser.add_subparsers(title="subjects", metavar="SUBJECT", required=True)
    crowd = subjects.add_parser("crowd", help="many nodes and one model", description=crowd_curves.DESCRIPTION)
    crowd_curves.add_arguments(crowd)
    crowd.set_defaults(run=crowd_curves.run)
    download = subjects.add_parser(
        "download", help="what downloads take here, against hf_xet", description=download_bench.DESCRIPTION
    )
    download_bench.add_arguments(download)
    download.set_defaults(run=download_bench.run)


def _xet_arguments(parser: argparse.ArgumentParser) -> None:
    from zest_hf import xet_command

    parser.description = xet_command.DESCRIPTION
    xet_command.add_arguments(parser)


def _version(args: argparse.Namespace) -> int:
    print(f"zest_hf {__version__}")
    return 0


def _pull(args: argparse.Namespace) -> int:
    # Read by the settings when the first file is asked for.
    if args.peer:
        os.environ["ZEST_PEERS"] = ",".join(args.peer)
    from zest_hf.config import load_settings

    load_settings()  # a wrong setting is said at once, not as a warning in the middle
    from huggingface_hub.utils import logging as hub_logging

    import zest_hf
    from zest_hf.hook.file_bars import each_file
    from zest_hf.hook.reasons import download_directory, explain, why_not_writable

    reason = why_not_writable(download_directory(args.local_dir))
    if reason is not None:
        # It may be in the cache all the same; what the Hub's client cannot note there is of no interest then.
        hub_logging.set_verbosity(logging.ERROR)
    try:
        with each_file(), _prompt_interrupt():
            path = zest_hf.pull(
                args.repo,
                revision=args.revision,
                repo_type=args.repo_type,
                allow_patterns=args.include,
                ignore_patterns=args.exclude,
                local_dir=args.local_dir,
                force_download=args.force_download,
            )
    except ZestError:
        raise
    except Exception as error:
        logging.getLogger("zest_hf.cli").debug("the reason in full", exc_info=error)
        if reason is not None and isinstance(error, OSError) and error.strerror:
            return _failed(f"{reason}: name another place with --local-dir, or set HF_HOME")
        return _failed(explain(error, args.repo, args.repo_type, args.revision))
    if not os.path.isdir(path):
        return _failed(f"no file of {args.repo} matches: check --include and --exclude")
    count = zest_hf.status()["bytes"]
    print(path)
    if count["total"]:
        by_source = (("peer", "peers"), ("cdn", "the CDN"), ("local", "this machine"))
        parts = ", ".join(f"{_size(count[key])} from {name}" for key, name in by_source)
        print(f"{_size(count['total'])} downloaded: {parts}", file=sys.stderr)
    return 0


@contextlib.contextmanager
def _prompt_interrupt() -> Iterator[None]:
    """Ctrl-C ends downloads on other threads too; by itself the Hub's client waits until they are complete."""

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        from zest_hf.engine import current_engine

        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if (engine := current_engine()) is not None:
            engine.interrupt()
        last_resort = threading.Timer(INTERRUPT_GRACE_S, _leave)
        last_resort.daemon = True
        last_resort.start()
        raise KeyboardInterrupt

    def _leave() -> None:
        # Something of the Hub's own is still under way. What is incomplete has a name that says so.
        os._exit(_failed("interrupted"))

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _seed(args: argparse.Namespace) -> int:
    from zest_hf.config import load_settings
    from zest_hf.seed.daemon import serve
    from zest_hf.seed.log_format import FORMAT, without_prefix

    settings = load_settings()
    handler = logging.StreamHandler()
    handler.addFilter(without_prefix)
    logging.basicConfig(format=FORMAT, handlers=[handler])
    logging.getLogger("zest_hf").setLevel(settings.log_level)
    return serve(settings, scan=not args.no_scan)


def _run(args: argparse.Namespace) -> int:
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        print("zest run: name the program to run, as in: zest run -- python train.py", file=sys.stderr)
        return 2
    program = shutil.which(command[0])
    if program is None:
        return _not_run(command[0])
    os.environ["HF_HUB_ENABLE_ZEST"] = "1"
    # Python reads .pth files in site-packages only. Where zest_hf lies elsewhere (a --target folder on PYTHONPATH),
    # this folder's sitecustomize does it; where it is not installed at all, it says so.
    paths = [str(Path(__file__).parent / "run_site"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    try:
        os.execv(program, command)
    except OSError as error:
        _failed(f"{command[0]}: {error.strerror}")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUNNABLE


def _not_run(name: str) -> int:
    if not os.path.dirname(name) or not os.path.exists(name):
        _failed(f"{name}: no such program")
        return NOT_FOUND
    _failed(f"{name}: {'a directory' if os.path.isdir(name) else 'not executable'}, and no program")
    return NOT_RUNNABLE
