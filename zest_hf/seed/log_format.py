"""How a zest-seed writes its log, on a terminal or into a file."""

from __future__ import annotations

import logging
from typing import Final

from zest_hf.terminal import printable

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def without_prefix(record: logging.LogRecord) -> bool:
    """A filter: takes off what warnings begin with in programs of others, where nothing else says who speaks.

    And control characters: names of files may have any, and are given by whoever has made the repository.
    """
    record.msg, record.args = printable(record.getMessage().removeprefix("zest_hf: ")), None
    return True
