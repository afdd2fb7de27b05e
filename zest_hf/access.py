"""Of what this machine gives and takes, and when: lists of repositories, and quiet hours. No I/O.

A repository is named as on the Hub: ``org/name``. A pattern of the lists is such a name with ``*``, ``?`` and ``[...]``
as in a shell, except that ``*`` also stands for ``/``; it means models, datasets and spaces, unless it begins with
``models/``, ``datasets/`` or ``spaces/``. The Hub's names are the same in upper and lower case, and so are ours.

Quiet hours are times of the local clock, whatever day it is: 02:00-03:00 lasts no time at all in the night in which the
clock is put forward, and two hours when it is put back.
"""

from __future__ import annotations

import fnmatch
import functools
import re
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from zest_hf.setting_values import Rejected, items, rate

MINUTES_A_DAY: Final = 24 * 60

_HOURS: Final = re.compile(r"([0-9]{1,2}):([0-9]{2})-([0-9]{1,2}):([0-9]{2})(?:=(.+))?")
_PATTERN: Final = re.compile(r"[\w.*?!\[\]/-]+", re.ASCII)


class QuietHours(NamedTuple):
    """From one minute of the day up to another, which may be one of the next day."""

    begin_minute: int
    """0..1439."""
    end_minute: int
    """1..1440, never ``begin_minute``."""
    max_up_bytes_s: int = 0
    """What may be uploaded then; 0: nothing."""

    def cover(self, minute: int) -> bool:
        if self.begin_minute < self.end_minute:
            return self.begin_minute <= minute < self.end_minute
        return minute >= self.begin_minute or minute < self.end_minute

    def __str__(self) -> str:
        times = (f"{minute // 60:02}:{minute % 60:02}" for minute in self[:2])
        return "-".join(times) + (f"={self.max_up_bytes_s}" if self.max_up_bytes_s else "")


def quiet_hours(text: str) -> tuple[QuietHours, ...]:
    """``22:00-07:00`` (nothing is uploaded) or ``08:00-18:00=1MB`` (at most that a second), separated by commas.

    Raises Rejected.
    """
    return tuple(dict.fromkeys(_one_range(item) for item in items(text)))


def _one_range(text: str) -> QuietHours:
    match = _HOURS.fullmatch(text)
    if match is not None:
        begin, end = (int(match[n]) * 60 + int(match[n + 1]) for n in (1, 3))
        valid = int(match[2]) < 60 and int(match[4]) < 60 and begin < MINUTES_A_DAY and 0 <= end <= MINUTES_A_DAY
        if valid and begin != end:
            # 22:00-00:00 ends with the day.
            return QuietHours(begin, end or MINUTES_A_DAY, 0 if match[5] is None else rate(match[5]))
    raise Rejected("accepted are times such as 22:00-07:00, or 08:00-18:00=1MB for a cap, separated by commas")


def patterns(text: str) -> tuple[str, ...]:
    """Names of repositories with wildcards, separated by commas. Raises Rejected."""
    found = tuple(dict.fromkeys(items(text)))
    if not all(_PATTERN.fullmatch(pattern) for pattern in found):
        raise Rejected("accepted are names of repositories with wildcards, such as meta-llama/*, separated by commas")
    return found


def permits(allow: Sequence[str], deny: Sequence[str], repo_type: str, repo_id: str) -> bool:
    """Whether a repository may be shared with peers, and asked of them. ``deny`` wins; an empty ``allow`` is all.

    ``repo_type``: "model", "dataset" or "space".
    """
    names = (repo_id.casefold(), f"{repo_type}s/{repo_id}".casefold())

    def is_named(by: Sequence[str]) -> bool:
        matches = _matcher(tuple(by)).fullmatch
        return any(matches(name) for name in names)

    return not (deny and is_named(deny)) and (not allow or is_named(allow))


@functools.lru_cache(maxsize=16)
def _matcher(by: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(pattern.casefold()) for pattern in by))


def upload_cap(hours: Sequence[QuietHours], minute: int, usual_bytes_s: int | None) -> int | None:
    """What may be uploaded a second at a minute of the day: None without a cap, 0 for nothing.

    Where several hours hold, and beside ``usual_bytes_s``, the least counts.
    """
    caps = [one.max_up_bytes_s for one in hours if one.cover(minute)]
    if usual_bytes_s is not None:
        caps.append(usual_bytes_s)
    return min(caps, default=None)


def minute_of_day(wall_s: float) -> int:
    """The local clock's minute of the day at a time of the epoch."""
    local = time.localtime(wall_s)
    return local.tm_hour * 60 + local.tm_min
