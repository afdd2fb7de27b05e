"""Variables that name files, in a form that means the same wherever the process that gets them works."""

from __future__ import annotations

import os

from zest_hf.config import CA_BUNDLE_VARIABLES

PLACES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH", "XDG_CACHE_HOME", "ZEST_HOME")
_FILE = "file:"


def lasting(name: str, value: str) -> str:
    """The value that means the same in another directory."""
    if not value.strip():
        return value
    if name in PLACES or name in CA_BUNDLE_VARIABLES:
        return _absolute(value)
    if name == "ZEST_SWARM_KEY" and value.strip().startswith(_FILE):
        return _FILE + _absolute(value.strip().removeprefix(_FILE))
    return value


def _absolute(path: str) -> str:
    return path if path.startswith("$") else os.path.abspath(os.path.expanduser(path))
