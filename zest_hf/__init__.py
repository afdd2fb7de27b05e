"""Peer-to-peer downloads for the Hugging Face Hub.

``HF_HUB_ENABLE_ZEST=1`` switches this on for every Python process of an environment in which the
package is installed. The functions here do the same from code::

    import zest_hf

    zest_hf.enable()                       # from now on, in this process
    path = zest_hf.pull("org/model")       # or for one snapshot only
    print(zest_hf.status()["bytes"])       # where the bytes came from

Importing this module costs next to nothing: neither huggingface_hub nor the native module is loaded
before the first download.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which would be most of this module's import time
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__version__ = "0.1.0"

__all__ = ["__version__", "disable", "enable", "pull", "status"]


def enable() -> None:
    """Route the Hub's Xet downloads of this process through zest_hf.

    May be called at any time, before or after ``import huggingface_hub``, and any number of times.
    ``HF_HUB_DISABLE_XET=1`` wins over it, with one warning.
    """
    from zest_hf.hook import enable as switch_on

    switch_on()


def disable() -> None:
    """Undo :func:`enable` (and ``HF_HUB_ENABLE_ZEST``): the Hub's own functions are put back everywhere.

    Downloads that have already begun end as they began.
    """
    from zest_hf.hook import disable as switch_off

    switch_off()


def pull(
    repo: str,
    revision: str | None = None,
    allow_patterns: str | Sequence[str] | None = None,
    repo_type: str | None = None,
    **kwargs: Any,
) -> str:
    """Download a repository, or the part of it that matches ``allow_patterns``, and return its local path.

    This is ``huggingface_hub.snapshot_download`` with zest_hf enabled for the duration of the call;
    ``kwargs`` are handed on to it (``local_dir``, ``cache_dir``, ``token``, ``force_download``, ...) and it
    raises what that raises.
    """
    from zest_hf.hook import enabled_for_now

    with enabled_for_now():
        from huggingface_hub import snapshot_download

        if allow_patterns is not None and not isinstance(allow_patterns, str):
            allow_patterns = list(allow_patterns)
        kwargs.update(revision=revision, repo_type=repo_type, allow_patterns=allow_patterns)
        return str(snapshot_download(repo, **kwargs))


def status() -> dict[str, Any]:
    """What zest_hf has done in this process so far.

    ``["enabled"]`` is whether downloads are routed through it. ``["bytes"]`` holds file bytes by where they
    came from: ``"local"`` (this machine), ``"peer"``, ``"cdn"``, and their sum ``"total"``. Never starts
    anything: before the first download all of them are 0.
    """
    from zest_hf.hook import status as current

    return current()


def load_ipython_extension(ipython: Any) -> None:
    """``%load_ext zest_hf``: :func:`enable`, in the program of a notebook."""
    enable()


def unload_ipython_extension(ipython: Any) -> None:
    """``%unload_ext zest_hf``: :func:`disable`."""
    disable()


def __getattr__(name: str) -> Any:
    # `except zest_hf.ZestError` without paying for the module when nobody asks.
    if name == "ZestError":
        from zest_hf.errors import ZestError

        return ZestError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
