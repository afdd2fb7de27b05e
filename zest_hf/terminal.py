"""What commands print: sizes, durations, tables, the line of a failure."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence

BOLD, RED, GREEN, YELLOW = "1", "31", "32", "33"
MIN_NAME = 8
"""Characters of a name that are left, however narrow the terminal."""


def failed(reason: str, program: str = "zest") -> int:
    """The one line on stderr, and the exit code for it."""
    print(f"{program}: {reason}", file=sys.stderr)
    return 1


def styled(text: str, code: str, environ: Mapping[str, str] | None = None) -> str:
    """With a terminal's escape codes where stdout is one that wants them (https://no-color.org)."""
    environ = os.environ if environ is None else environ
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    plain = environ.get("NO_COLOR") or environ.get("TERM") == "dumb" or not is_terminal
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"


def columns(
    head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None, first_to_go: Sequence[int] = ()
) -> Iterator[str]:
    """A table: the first column to the left, the others to the right.

    ``width``: of the terminal, None if lines may have any length. Where the table is wider, the columns of
    ``first_to_go`` are left out, in this order, and then what is in the first column is cut in its middle.
    """
    kept = list(range(len(head)))
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    if width is not None:
        for column in first_to_go:
            if _wide(widths, kept) <= width:
                break
            kept.remove(column)
        widths[0] = max(min(widths[0], MIN_NAME), widths[0] - max(0, _wide(widths, kept) - width))

    def line(row: Sequence[str]) -> str:
        first = shortened(row[0], widths[0]).ljust(widths[0])
        return "  ".join([first, *(row[at].rjust(widths[at]) for at in kept[1:])]).rstrip()

    yield styled(line(head), BOLD)
    yield from map(line, rows)


def _wide(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[at] + 2 for at in kept) - 2


def shortened(text: str, width: int) -> str:
    """At most so many characters; what is left out is in the middle, as names differ at both ends."""
    if len(text) <= width:
        return text
    if width < 3:
        return text[:width]
    return f"{text[: width // 2]}…{text[len(text) - (width - 1) // 2 :]}"


def printable(text: object) -> str:
    """What another program or a peer wrote, without its control characters."""
    return "".join(char if char.isprintable() else "?" for char in str(text))


def size_text(count: float) -> str:
    """As the status page writes it, as well as `duration_text`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.95:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} PB"


def duration_text(seconds: float) -> str:
    minutes, seconds = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
