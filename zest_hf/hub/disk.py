"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from zest_hf.errors import StorageError


def write_atomically(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Write ``data`` under a temporary name beside ``path`` and rename it. Raises StorageError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".partial-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def sweep_partials(root: Path) -> None:
    """Make the directory for uploads, and remove what a killed hub left half written."""
    (root / "incoming").mkdir(exist_ok=True)
    for path in [*root.glob("incoming/*"), *root.glob("*/*/.partial-*")]:
        path.unlink(missing_ok=True)
