"""Downloads to a directory of the user's (`local_dir`): which those were, and what of them is still there.

The Hub's client keeps no list of them, and what lies there does not say from which repository it came. So a download
notes the directory in ZEST_HOME, apart from the index, which may be made anew. What the Hub's client leaves in it,
`.cache/huggingface/download/{path}.metadata`, is the commit, the file's etag (the SHA-256 of a large one), and when it
had been written; who has changed the file since has another one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from .cache import CachedFile, folder_of

NAME = "local_dirs"
MAX_NOTED = 1000
"""Of more only the last ones are looked at."""
MAX_BYTES = 1 << 20
MAX_METADATA_BYTES = 4096
_STATE = Path(".cache", "huggingface", "download")
_SUFFIX = ".metadata"
_HEX64 = re.compile(r"[0-9a-f]{64}")


class LocalDir(NamedTuple):
    """Files of a repository were downloaded there."""

    path: str
    repo_type: str
    repo_id: str


def root_of(incomplete: Path, destination: Path) -> Path | None:
    """The `local_dir` of a download that writes to ``incomplete`` first; None: it is one to the cache."""
    if _STATE.name not in incomplete.parts:
        return None
    for folder in incomplete.parents:
        root = folder.parents[2] if len(folder.parents) > 2 else None
        if root is not None and root / _STATE == folder and root in destination.parents:
            return root
    return None


def note(home: Path, one: LocalDir) -> None:
    """Remembers it in ZEST_HOME, once. Raises OSError."""
    if one in noted(home):
        return
    home.mkdir(parents=True, exist_ok=True)
    fd = os.open(home / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # In one piece, behind whatever others write at the same time. A line that was cut off ends here.
        os.write(fd, f"\n{json.dumps(one)}\n".encode())
    finally:
        os.close(fd)


def noted(home: Path) -> list[LocalDir]:
    """What was noted, the last ones; what makes no sense is left out."""
    try:
        with open(home / NAME, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - MAX_BYTES))
            lines = file.read(MAX_BYTES).splitlines()
    except OSError:
        return []
    found: dict[LocalDir, None] = {}
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, list) and len(value) == 3 and all(isinstance(part, str) for part in value):
                found[LocalDir(*value)] = None
    return list(found)[-MAX_NOTED:]


def local_files(dirs: Collection[LocalDir], only: Collection[str] | None = None) -> Iterator[CachedFile]:
    """The large files there that are as they were downloaded. ``only``: as of `cached_files`."""
    for one in dirs:
        if only is not None and folder_of(one.repo_type, one.repo_id) not in only:
            continue
        root = Path(one.path)
        for folder, _, names in os.walk(root / _STATE):
            for name in sorted(names):
                if name.endswith(_SUFFIX):
                    path = Path(folder, name)
                    with contextlib.suppress(OSError, ValueError, RuntimeError):
                        if (file := _file(one, root, path)) is not None:
                            yield file


def _file(one: LocalDir, root: Path, metadata: Path) -> CachedFile | None:
    """Raises OSError, ValueError, RuntimeError (a loop of links)."""
    with metadata.open("rb") as stream:
        commit, etag, written, *_ = stream.read(MAX_METADATA_BYTES).decode("ascii").splitlines()
    place = metadata.relative_to(root / _STATE).as_posix().removesuffix(_SUFFIX)
    path = (root / place).resolve(strict=True)
    stat = path.stat()
    # As the Hub's client looks at it: times of a file may be those of whole seconds.
    if not _HEX64.fullmatch(etag) or not path.is_file() or not stat.st_size or stat.st_mtime - 1 > float(written):
        return None
    return CachedFile(path, stat.st_size, stat.st_mtime_ns, one.repo_type, one.repo_id, None, etag, (commit, place))
