"""What a download that was killed has left behind: chunks in their places, and no word about which of them are right.

Each term of the file whose place is filled is cut into chunks again, which gives the same ones if it is right. Then it
is as good as any file of this disk: `core.local` proves what is a xorb as a whole, and checks every chunk once more.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path

from zest_hf._native.codec import RULE_CURRENT, RULE_EARLY, FileScan
from zest_hf.core.local import LocalFile
from zest_hf.core.manifest import Manifest
from zest_hf.core.reconstruction import Term
from zest_hf.errors import ZestError

log = logging.getLogger("zest_hf.sources.left_over")


def scan(path: Path, terms: Sequence[Term], deadline_s: float) -> list[LocalFile]:
    """What lies in the place of these terms of a file, as stretches of it; until a time of the monotonic clock.

    What cannot be read is not there.
    """
    out: list[LocalFile] = []
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return out
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return out
        offset = 0
        size_bytes = min(found.st_size, sum(term.size_bytes for term in terms))
        for term in terms:
            end = offset + term.size_bytes
            if end > size_bytes or time.monotonic() > deadline_s:
                break
            if os.lseek(fd, offset, os.SEEK_HOLE) >= end:
                for rule in (RULE_CURRENT, RULE_EARLY):
                    chunks = FileScan(fd, end, rule, part=(offset, end)).next(term.end - term.start + 1)
                    if len(chunks.lengths) == term.end - term.start and sum(chunks.lengths) == term.size_bytes:
                        out.append(LocalFile(Manifest(chunks.hashes, chunks.lengths), (term,), offset))
                        break
            offset = end
    except (OSError, ZestError) as error:
        log.info("%s is of no use behind byte %d: %s", path, offset, error)
    finally:
        os.close(fd)
    return out
