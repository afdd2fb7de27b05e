"""What a crowd decides about a unit, and why: for the log. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Reason(enum.Enum):
    """Why a unit is fetched, or not any more."""

    OWNED = "it is due, and ours"
    OVERDUE = "it is due, and who comes before us has not begun"
    UNPROVED = "who fetched it cannot prove it, and we are to prove the file"
    LAST = "nothing else is left, and who has it cannot prove it"
    MEASURE = "nothing has come from the crowd yet"
    ALONE = "the crowd gives less than the CDN did"
    COLLISION = "another member fetches it as well, and goes on"
    CROWDED = "others have come, to whom we leave it"
    PROBE = "nobody knows whether the CDN would be quicker than who fetches it"
    STALLED = "who claims it makes no progress"
    SLOW = "who claims it takes much longer than others"
    ELSEWHERE = "other peers can give what is left of it"
    UNFOLLOWED = "it comes too slowly from whom we follow"
    STARVING = "nothing comes from whom we follow"


@dataclass(frozen=True, slots=True)
class Decision:
    """About the unit that is one of the plan's GETs, by its number."""

    fetch: int
    reason: Reason
