"""The modules of the engine, loaded when the first file is wanted."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """No garbage is looked for meanwhile.

    A hundred modules are made of many small things, none of which is garbage: the interpreter would look through all
    that the process has, which takes a quarter of the loading; and much longer where much was loaded before.
    """
    was_on = gc.isenabled() and "zest_hf.engine" not in sys.modules
    if was_on:
        gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
