"""What commands print: sizes, durations, tables, the line of a failure."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence

BOLD, RED, GREEN, YELLOW = "1", "31", "32", "33"


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


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(n) for cell, n in zip(row[1:], widths[1:], strict=True))]
        return "  ".join(cells).rstrip()

    yield styled(line(head), BOLD)
    yield from map(line, rows)


def printable(text: object) -> str:
    """What another program or a peer wrote, without its control characters."""
    return "".join(char if char.isprintable() else "?" for char in str(text))


def size_text(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration_text(seconds: float) -> str:
    minutes, _ = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {int(seconds) % 60} s"
