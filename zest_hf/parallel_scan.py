"""Chunks and hashes of a file on several cores: the same list that one core finds.

Where a chunk ends depends on nothing before its start. So each core takes a part of the file and begins there as
though a chunk began there; after a few chunks it has usually met a true boundary, and from a boundary that two lists
share they are equal. Only what lies between the true end of the part before and the first shared boundary is looked at
twice. Content that never meets (long runs of one byte, say) costs at most one more pass, and is found all the same.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path

from zest_hf._native import codec
from zest_hf.core.ids import HASH_SIZE
from zest_hf.core.manifest import Manifest
from zest_hf.errors import ZestError

PART_BYTES = 32 << 20
"""A multiple of the largest chunk, so that parts of constant content meet at once."""

_BATCH_CHUNKS = 1024

ChunkSink = Callable[[bytes, "array[int]"], None]
"""Takes the hashes (32 bytes a chunk) and lengths of the next chunks of the file."""


def scan_into(fd: int, size_bytes: int, sink: ChunkSink, *, rule: int = codec.RULE_CURRENT, threads: int = 2) -> None:
    """Give the chunks of the first `size_bytes` bytes of a file to `sink`, in order, from this thread.

    `fd` is borrowed and must be good for positioned reads. Memory: about 1 MiB and one part's list for each thread.
    Raises OSError, StorageError (the file ended early), ZestError (a rule or a number of threads out of range).
    """
    if not 1 <= threads <= 64:
        raise ZestError(f"a scan runs on 1 to 64 threads, not {threads}")
    if threads == 1 or size_bytes <= PART_BYTES:
        _collect(codec.FileScan(fd, size_bytes, rule), sink)
        return

    def guess(begin: int) -> tuple[bytes, array[int]]:
        hashes, lengths = bytearray(), array("I")

        def keep(some: bytes, more: array[int]) -> None:
            hashes.extend(some)
            lengths.extend(more)

        part = (begin, min(begin + PART_BYTES, size_bytes))
        _collect(codec.FileScan(fd, size_bytes, rule, part=part), keep)
        return bytes(hashes), lengths

    begins = iter(range(0, size_bytes, PART_BYTES))
    running: deque[tuple[int, Future[tuple[bytes, array[int]]]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="zest-scan") as pool:
        try:
            at = 0
            while True:
                while len(running) < threads + 1 and (begin := next(begins, None)) is not None:
                    running.append((begin, pool.submit(guess, begin)))
                if not running:
                    return
                begin, part = running.popleft()
                at = _append(fd, size_bytes, rule, at, begin, *part.result(), sink)
        finally:
            for _, part in running:
                part.cancel()


def scan_manifest(path: Path, *, rule: int = codec.RULE_CURRENT, threads: int = 2) -> Manifest:
    """The manifest of a file. Raises as `scan_into` does. Memory: 44 bytes a chunk."""
    hashes, lengths = bytearray(), array("I")

    def keep(some: bytes, more: array[int]) -> None:
        hashes.extend(some)
        lengths.extend(more)

    with path.open("rb") as file:
        scan_into(file.fileno(), os.fstat(file.fileno()).st_size, keep, rule=rule, threads=threads)
    return Manifest(bytes(hashes), lengths)


def _append(
    fd: int, size_bytes: int, rule: int, at: int, begin: int, hashes: bytes, lengths: array[int], sink: ChunkSink
) -> int:
    """Chunks up to the end of the part that was scanned from `begin`, where `at` is the end of what is known.

    Returns the new end.
    """
    starts = array("Q", accumulate(lengths, initial=begin))  # the last one is where the list ends
    repair: codec.FileScan | None = None
    while at < min(begin + PART_BYTES, size_bytes):
        index = bisect_left(starts, at)
        if index < len(lengths) and starts[index] == at:
            sink(hashes[HASH_SIZE * index :], lengths[index:])
            return starts[-1]
        if repair is None:
            repair = codec.FileScan(fd, size_bytes, rule, part=(at, size_bytes))
        one = repair.next(1)
        sink(*one)
        at += one.lengths[0]
    return at


def _collect(scan: codec.FileScan, sink: ChunkSink) -> None:
    while True:
        hashes, lengths = scan.next(_BATCH_CHUNKS)
        if not lengths:
            return
        sink(hashes, lengths)
