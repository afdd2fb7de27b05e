"""How a file, or a byte range of it, is rebuilt from what the hub has stored."""

from __future__ import annotations

from zest_hf.core.ids import XetHash, hash_to_text
from zest_hf.core.planning import RangePlan, plan_range
from zest_hf.errors import StorageError
from zest_hf.hub.store import CasStore, StoredFile, StoredXorb


def plan(store: CasStore, file: StoredFile, start: int, end: int) -> RangePlan:
    """The plan for bytes start..end (half-open) of a file; only chunks that the range touches are named."""

    def layout_of(xorb: XetHash) -> StoredXorb:
        found = store.xorb(xorb)
        if found is None:
            raise StorageError(f"xorb {hash_to_text(xorb)} is missing from the hub's state")
        return found

    return plan_range(file.terms, layout_of, start, end)
