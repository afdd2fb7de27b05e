"""How a zest-seed writes its log, on a terminal or into a file."""

from __future__ import annotations

import logging
from typing import Final

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def without_prefix(record: logging.LogRecord) -> bool:
    """A filter: takes off what warnings begin with in programs of others, where nothing else says who speaks."""
    if isinstance(record.msg, str):
        record.msg = record.msg.removeprefix("zest_hf: ")
    return True
