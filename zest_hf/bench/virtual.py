"""Files without bytes, for simulations: whole xorbs of equal chunks, with true hashes over invented chunks.

For large files a virtual byte stands for many (`scale`), as no chunk may be larger than 128 KiB.
"""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass, replace
from functools import cached_property

from zest_hf.core.crowd_claims import CrowdSettings
from zest_hf.core.ids import XetHash
from zest_hf.core.manifest import Manifest
from zest_hf.core.plan import FilePlan, plan_file
from zest_hf.core.policy import PolicySettings
from zest_hf.core.reconstruction import FetchRange, Reconstruction, Term

XORB_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 128 * 1024


@dataclass(frozen=True)
class VirtualFile:
    """``size_bytes`` are true ones; everything that a transfer sees has 1/``scale`` of its bytes.

    ``shared``: the last xorb goes on with another file's content, so that it does not prove itself.
    """

    size_bytes: int
    scale: int = 1
    shared: bool = False
    piece_chunks: int = 64
    xorb_bytes: int = XORB_BYTES

    @cached_property
    def xorbs(self) -> dict[XetHash, Manifest]:
        per_xorb = self.xorb_bytes // (CHUNK_BYTES * self.scale)
        chunks = max(1, self.size_bytes // (CHUNK_BYTES * self.scale))
        out = {}
        for first in range(0, chunks, per_xorb):
            count = min(per_xorb, chunks - first)
            if self.shared and first + count == chunks:
                count += 1
            hashes = b"".join(hashlib.sha256(b"%d" % (first + i)).digest() for i in range(count))
            manifest = Manifest(hashes, array("I", [CHUNK_BYTES] * count))
            out[manifest.xorb_hash()] = manifest
        return out

    @cached_property
    def reconstruction(self) -> Reconstruction:
        terms = []
        ranges = {}
        last = len(self.xorbs) - 1
        for number, (xorb, manifest) in enumerate(self.xorbs.items()):
            end = len(manifest) - (self.shared and number == last)
            terms.append(Term(xorb, 0, end, manifest.offset(end)))
            ranges[xorb] = (FetchRange(xorb, 0, end, f"http://cdn/{xorb.hex()[:8]}", 0, manifest.offset(end)),)
        return Reconstruction(0, tuple(terms), ranges)

    @cached_property
    def manifest(self) -> Manifest:
        return Manifest.join(self.truth(one[0]) for one in self.reconstruction.fetch_ranges.values())

    @cached_property
    def file_hash(self) -> XetHash:
        return self.manifest.file_hash()

    @cached_property
    def plan(self) -> FilePlan:
        return plan_file(self.reconstruction, self.piece_chunks)

    def truth(self, source: FetchRange) -> Manifest:
        """What an honest CDN sends for a fetch range."""
        return self.xorbs[source.xorb].slice(source.start, source.end)

    def policy(self, settings: PolicySettings | None = None) -> PolicySettings:
        """The settings in virtual bytes."""
        policy = settings or PolicySettings()
        if self.scale == 1:
            return policy
        least = max(CHUNK_BYTES, policy.least_ask_bytes // self.scale)
        return replace(
            policy,
            worth_discovery_bytes=policy.worth_discovery_bytes // self.scale,
            usual_cdn_bytes_s=policy.usual_cdn_bytes_s / self.scale,
            fair_rate_bytes_s=policy.fair_rate_bytes_s / self.scale,
            measured_bytes=policy.measured_bytes // self.scale,
            least_ask_bytes=least,
            most_ask_bytes=max(2 * least, policy.most_ask_bytes // self.scale),
            first_ask_bytes=max(least, policy.first_ask_bytes // self.scale),
        )

    def crowd(self) -> CrowdSettings:
        """... and those of the crowd."""
        settings = CrowdSettings()
        return replace(settings, doubted_bytes_s=settings.doubted_bytes_s / self.scale)
