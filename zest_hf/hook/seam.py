"""The functions that take the place of huggingface_hub's.

`xet_get` is the one door through which hf_hub_download, snapshot_download, `hf download` and everything built
on them get a Xet file. `_download_to_tmp_and_move` around it knows the path that the file gets, which the
index needs. From huggingface_hub 1.32 on the file then moves once more, into a store shared by repositories,
before `_hf_hub_download_to_cache_dir` ends. `is_xet_available` is replaced where hf_xet is not installed, so
that the door is used at all.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from . import switch
from .connection import parse_route
from .one_file import Move, OneFile, current_move, hub_is_alone, is_strict

_MARK = "__zest_original__"
_NEEDED = {"incomplete_path", "xet_file_data", "headers"}
_UNDERSTOOD = _NEEDED | {"expected_size", "displayed_filename", "tqdm_class", "_tqdm_bar"}
_MOVE_NEEDED = {"incomplete_path", "destination_path", "url_to_download", "etag", "xet_file_data"}

_Records = list[tuple[Path, Callable[[Path], None], Callable[[], None]]]
"""To be called when the files are where they stay, or else when they will not be; they were to be there."""
_to_be_recorded: ContextVar[_Records | None] = ContextVar("zest_hf_recorded", default=None)


def patches_for(module: ModuleType) -> list[switch.Patch]:
    """What is to be replaced in one of `switch.TARGETS`; nothing, with one warning, where it cannot be."""
    from huggingface_hub import constants

    if constants.HF_HUB_DISABLE_XET:
        switch.warn_once(
            "xet off", "zest_hf: HF_HUB_DISABLE_XET is set and wins; downloads run without zest_hf"
        )
        return []
    is_file_download = module.__name__ == switch.TARGETS[0]
    if not is_file_download and not hasattr(module, "xet_get"):
        return []  # huggingface_hub < 2.1: HfFileSystem does not use Xet
    get = _original(getattr(module, "xet_get", None))
    move = _original(getattr(module, "_download_to_tmp_and_move", None)) if is_file_download else None
    if not _takes(get, _NEEDED, _UNDERSTOOD) or (is_file_download and not _takes(move, _MOVE_NEEDED, None)):
        import huggingface_hub

        switch.warn_once(
            "signature",
            "zest_hf: huggingface_hub %s works in an unknown way; downloads run without zest_hf",
            huggingface_hub.__version__,
        )
        return []
    wanted = [switch.Patch(module, "xet_get", get, _wrap_xet_get(get))]
    if move is not None:
        wanted.append(switch.Patch(module, "_download_to_tmp_and_move", move, _wrap_move(move)))
    whole = _original(getattr(module, "_hf_hub_download_to_cache_dir", None)) if is_file_download else None
    if whole is not None:
        wanted.append(switch.Patch(module, "_hf_hub_download_to_cache_dir", whole, _wrap_whole(whole)))
    available = _original(getattr(module, "is_xet_available", None))
    if available is not None and not available():
        wanted.append(switch.Patch(module, "is_xet_available", available, _wrap_available(available)))
    return wanted


def _original(function: Any) -> Any:
    # `from .file_download import xet_get` may have run before or after we came.
    return getattr(function, _MARK, function)


def _takes(function: Any, needed: set[str], understood: set[str] | None) -> bool:
    """Whether a function has the arguments ``needed`` and requires none beyond those ``understood``."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    named = [p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = {p.name for p in named if p.default is p.empty}
    return needed <= {p.name for p in named} and (understood is None or required <= understood)


# Cached: the same function reached by two names gets the same replacement.
@functools.cache
def _wrap_xet_get(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def xet_get(**arguments: Any) -> None:
        if _is_for_us(arguments):
            OneFile(original, arguments, current_move.get()).download()
        else:
            original(**arguments)

    setattr(xet_get, _MARK, original)
    return xet_get


@functools.cache
def _wrap_move(original: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def _download_to_tmp_and_move(*args: Any, **kwargs: Any) -> None:
        if not switch.is_enabled():
            original(*args, **kwargs)
            return
        move = Move(signature.bind(*args, **kwargs).arguments)
        reset = current_move.set(move)
        try:
            original(*args, **kwargs)
        except BaseException:
            move.abandon()
            raise
        finally:
            current_move.reset(reset)
        if move.record is None:
            return
        destination = Path(move.arguments["destination_path"])
        later = _to_be_recorded.get()
        if later is None:
            move.record(destination)
        else:
            later.append((destination, move.record, move.abandon))

    setattr(_download_to_tmp_and_move, _MARK, original)
    return _download_to_tmp_and_move


@functools.cache
def _wrap_whole(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def _hf_hub_download_to_cache_dir(*args: Any, **kwargs: Any) -> Any:
        records: _Records = []
        reset = _to_be_recorded.set(records)
        try:
            path = original(*args, **kwargs)
        except BaseException:
            for _, _, abandon in records:
                abandon()
            raise
        finally:
            _to_be_recorded.reset(reset)
        for destination, record, _ in records:
            # Where there are to be no links, the file has been moved to the path that the caller gets.
            record(destination if destination.exists() else Path(path))
        return path

    setattr(_hf_hub_download_to_cache_dir, _MARK, original)
    return _hf_hub_download_to_cache_dir


@functools.cache
def _wrap_available(original: Callable[[], bool]) -> Callable[[], bool]:
    from huggingface_hub import constants

    @functools.wraps(original)
    def is_xet_available() -> bool:
        if switch.is_enabled() and not switch.is_unusable():
            return not constants.HF_HUB_DISABLE_XET
        return original()

    setattr(is_xet_available, _MARK, original)
    return is_xet_available


def _is_for_us(arguments: dict[str, Any]) -> bool:
    from huggingface_hub import constants

    if not switch.is_enabled() or hub_is_alone.get() or constants.HF_HUB_OFFLINE:
        return False
    if switch.is_unusable() and not is_strict():
        return False
    if not arguments.keys() <= _UNDERSTOOD:
        return False  # a request for something that we know nothing of
    if parse_route(arguments["xet_file_data"].refresh_route) is None:
        return False  # a bucket, or a kind of repository that we know nothing of
    path = Path(arguments["incomplete_path"])
    return path.is_file() or not path.exists()  # never a pipe, a device or a directory
