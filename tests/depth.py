"""How long hypothesis looks for what is wrong: a moment in the suite, `make deep` longer."""

from __future__ import annotations

import os

from hypothesis import settings

DEPTH = int(os.environ.get("DEPTH", "1"))
"""So many times as many examples as usual."""


def examples(usual: int) -> int:
    return usual * DEPTH


settings.register_profile("depth", max_examples=examples(100))
