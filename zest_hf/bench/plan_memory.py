"""How much memory one node of a crowd needs to decide: what is to be fetched, how far it is, and who claims what."""

from __future__ import annotations

import hashlib
import random
import tracemalloc

from zest_hf.bench.virtual import CHUNK_BYTES, VirtualFile
from zest_hf.core.crowd import Crowd
from zest_hf.core.crowd_claims import FETCHING, FULL, HELD, units_of
from zest_hf.core.plan import plan_file
from zest_hf.core.policy import PolicySettings
from zest_hf.core.transfer import Transfer

PIECE_BYTES = 4 * 1024 * 1024
"""As large as pieces are in true files."""
MOST_HELD = 64
"""So many units a member says to have fetched, at most."""


def plan_bytes(size_bytes: int, nodes: int, neighbours: int) -> int:
    """Of a node in the middle of a file: its plan, the state of each piece, what every other claims, and what those of
    whom it takes chunks hold.

    What the chunks are checked by is not counted (36 bytes for each), as one needs it without a crowd too.
    """
    file = VirtualFile(size_bytes, piece_chunks=PIECE_BYTES // CHUNK_BYTES)
    reconstruction, file_hash = file.reconstruction, file.file_hash
    chance = random.Random(1)
    is_traced = tracemalloc.is_tracing()
    if not is_traced:
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    plan = plan_file(reconstruction, file.piece_chunks)
    units = units_of(plan)
    crowd = Crowd(_name(0), units)
    transfer = Transfer(plan, file_hash, PolicySettings(), 0)
    transfer.join(crowd, 0.0)
    held = [chance.sample(range(len(units)), min(MOST_HELD, len(units) // nodes)) for _ in range(nodes)]
    for number in range(1, nodes):
        fetches = chance.randrange(len(units))
        claims = [(units[one].first, units[one].end, HELD, FULL) for one in held[number] if one != fetches]
        claims.append((units[fetches].first, units[fetches].end, FETCHING, FULL // 2))
        crowd.others.heard(_name(number), True, claims, 1.0)
    transfer.manifest_proved(file.manifest)
    for number in range(min(neighbours, nodes - 1)):
        some = sorted(chance.sample(range(len(units)), len(units) // 2))
        transfer.peer_holds_more(number, [(units[one].first, units[one].end) for one in some])
    after = tracemalloc.get_traced_memory()[0]
    if not is_traced:
        tracemalloc.stop()
    return after - before


def _name(number: int) -> bytes:
    return hashlib.sha1(b"%d" % number).digest()
