"""Where a file's bytes are written until it is complete and proved.

The engine writes out of order. That is harmless in a file whose name nobody will ever resume from or open,
and fatal everywhere else: huggingface_hub < 1.18 continues `<etag>.incomplete` by its size, and
`HfFileSystem.get_file` hands over the final path itself. In those two cases the bytes go to a file of our own
in the same directory, and get the expected name in one step at the end.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

_UNIQUE = re.compile(r"(.+)\.[0-9a-f]{8}\.incomplete")
_MOST_LEFT_OVERS = 8
_LONGEST_STEM = 160  # leaves room for the suffix below the usual limit of 255 bytes


class Place:
    """A context manager around the writing of one file. ``path`` is where to write, and exists inside."""

    path: Path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Remove what has not been committed."""

    def commit(self) -> None:
        """Give the finished bytes their expected name."""


class InPlace(Place):
    """The Hub's file is unique to this download: write it directly."""

    def __init__(self, expected: Path) -> None:
        self.path = expected


class Staged(Place):
    """A file next to the expected one, which it replaces on `commit` and never otherwise.

    Raises OSError where such a file cannot be created.
    """

    def __init__(self, expected: Path) -> None:
        # Through links: what they point to is to be replaced, not the link.
        self._expected = Path(os.path.realpath(expected))
        stem = self._expected.name.removesuffix(".incomplete")
        while len(os.fsencode(stem)) > _LONGEST_STEM:
            stem = stem[:-1]
        # huggingface_hub's cache tools skip names that end like this.
        self.path = self._expected.with_name(f"{stem}.{secrets.token_hex(4)}.incomplete")

    def __enter__(self) -> Self:
        self.path.open("xb").close()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.path.unlink(missing_ok=True)

    def commit(self) -> None:
        with contextlib.suppress(OSError):
            shutil.copymode(self._expected, self.path)
        try:
            os.replace(self.path, self._expected)
        except OSError:
            # Not every file system replaces a file that is open. A copy grows from the front, so that what
            # is left of it after a crash is a true beginning of the file.
            shutil.copyfile(self.path, self._expected)


def set_aside(path: Path) -> Path | None:
    """Gives a file that will be gone on with another name of the same kind, as the Hub's client removes its own one.

    None: that could not be done.
    """
    match = _UNIQUE.fullmatch(path.name)
    if match is None:
        return None
    aside = path.with_name(f"{match[1]}.{secrets.token_hex(4)}.incomplete")
    try:
        os.rename(path, aside)
    except OSError:
        return None
    return aside


def left_overs(path: Path) -> tuple[Path, ...]:
    """Files like the one at ``path``, which is being written, of downloads that came to no end; the fullest first.

    The Hub's client and `Staged` name them alike. Another process may be writing one: they are only to be read.
    """
    match = _UNIQUE.fullmatch(path.name)
    if match is None:
        return ()
    found = []
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            other = _UNIQUE.fullmatch(entry.name)
            if other is not None and other[1] == match[1] and entry.name != path.name:
                with contextlib.suppress(OSError):
                    known = entry.stat(follow_symlinks=False)
                    if known.st_size:
                        found.append((known.st_blocks, known.st_mtime_ns, path.parent / entry.name))
    return tuple(one for _, _, one in sorted(found, reverse=True)[:_MOST_LEFT_OVERS])


def empty(path: Path) -> None:
    """Truncate `path` to nothing, as far as the file system lets us."""
    with contextlib.suppress(OSError):
        os.truncate(path, 0)
