"""`zest completion`: what a shell reads to complete our commands; shtab makes it from the parsers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from zest_hf.errors import ZestError

SHELLS = ("bash", "zsh", "fish")
DESCRIPTION = """Prints what the shell reads to complete zest's commands and options. For bash:
zest completion bash > ~/.local/share/bash-completion/completions/zest; for zsh into a file _zest in a folder of fpath;
for fish: ~/.config/fish/completions/zest.fish."""

_PATHS = {"DIR": "DIRECTORY", "FILE": "FILE", "FILE.png": "FILE", "PATH": "FILE", "XORB": "FILE", "OUT": "FILE"}
"""Metavars of arguments that are paths."""

Parsers = Mapping[str, Callable[[], argparse.ArgumentParser]]


def add_arguments(parser: argparse.ArgumentParser, parsers: Parsers) -> None:
    """``parsers``: of each program, by its name."""
    parser.description = DESCRIPTION
    parser.add_argument("shell", choices=SHELLS)
    parser.add_argument("--program", choices=list(parsers), default=next(iter(parsers)), help="%(default)s")
    parser.set_defaults(run=lambda args: _run(args, parsers))


def _run(args: argparse.Namespace, parsers: Parsers) -> int:
    try:
        import shtab
    except ImportError:
        raise ZestError("completion needs shtab: pip install 'zest_hf[completion]'") from None
    parser = parsers[args.program]()
    parser.prog = args.program
    _mark_paths(parser, {metavar: getattr(shtab, kind) for metavar, kind in _PATHS.items()})
    print(shtab.complete(parser, shell=args.shell))
    return 0


def _mark_paths(parser: argparse.ArgumentParser, kinds: Mapping[str, object]) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name in action.choices:
                _mark_paths(action.choices[name], kinds)
        elif action.metavar in kinds:
            action.complete = kinds[str(action.metavar)]  # type: ignore[attr-defined]
