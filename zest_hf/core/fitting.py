"""Whether a plan of the CAS is one of the file whose manifest is known. Pure.

What that leaves open is whether a xorb has those chunks at all: only the hash of a whole xorb can say that. As of any
plan, that much is the CAS's word; whoever takes a part of a xorb from a file here checks it by its own means.
"""

from __future__ import annotations

from zest_hf.core.ids import HASH_SIZE, XetHash, hash_to_text
from zest_hf.core.manifest import Manifest
from zest_hf.core.reconstruction import Reconstruction
from zest_hf.errors import ReconstructionError

_Run = tuple[int, int, int]
"""Chunks start..end of a xorb are those of the file from a third number on."""


def check_fits(answer: Reconstruction, manifest: Manifest) -> None:
    """Raises ReconstructionError unless the terms have all chunks of the manifest, one after the other, each has the
    size of its chunks, and no chunk of a xorb would be two different ones.
    """
    if answer.offset_into_first_range:
        raise _error("it begins inside of a term")
    first = 0
    runs_of: dict[XetHash, list[_Run]] = {}
    for term in answer.terms:
        end = first + term.end - term.start
        if end > len(manifest) or manifest.offset(end) - manifest.offset(first) != term.size_bytes:
            raise _error(f"{end - first} chunks of the file do not have the size of their term")
        runs_of.setdefault(term.xorb, []).append((term.start, term.end, first))
        first = end
    if first != len(manifest):
        raise _error(f"{first} chunks for a file of {len(manifest)}")
    for xorb, runs in runs_of.items():
        _check_one(xorb, sorted(runs), manifest)


def _check_one(xorb: XetHash, runs: list[_Run], manifest: Manifest) -> None:
    furthest = runs[0]
    for run in runs[1:]:
        start, end = run[0], min(run[1], furthest[1])
        if start < end and _hashes(manifest, furthest, start, end) != _hashes(manifest, run, start, end):
            raise _error(f"chunks {start}..{end} of xorb {hash_to_text(xorb)} would be two different ones")
        furthest = max(furthest, run, key=lambda one: one[1])


def _hashes(manifest: Manifest, run: _Run, start: int, end: int) -> bytes:
    shift = run[2] - run[0]
    return manifest.hashes[HASH_SIZE * (start + shift) : HASH_SIZE * (end + shift)]


def _error(what: str) -> ReconstructionError:
    return ReconstructionError(f"reconstruction: it is not of this file: {what}")
