"""On and off: which functions of huggingface_hub are replaced, when, and how they are put back.

``import huggingface_hub`` loads its submodules on demand, so that there is usually nothing to replace
when we are switched on. A finder at the head of ``sys.meta_path`` waits for the two modules that matter,
lets the regular machinery load them and patches them before anyone else sees them. Modules that are loaded
already are patched at once.

This module is loaded at interpreter start, hence its short list of imports.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock  # not by way of threading, which would be most of this module's import time

TYPE_CHECKING = False  # likewise typing
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

TARGETS = ("huggingface_hub.file_download", "huggingface_hub.hf_file_system")


class _State:
    """Everything that enable() and disable() change. One per process."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.wanted = False  # enable() or the environment
        self.holds = 0  # calls of enabled_for_now() under way
        self.patches: list[Patch] = []
        self.warned: set[str] = set()
        self.unusable = False  # a reason that holds for every file of this process has been shown

    @property
    def active(self) -> bool:
        return self.wanted or self.holds > 0


class Patch:
    """One replaced attribute of one module."""

    __slots__ = ("module", "name", "original", "replacement")

    def __init__(self, module: ModuleType, name: str, original: Any, replacement: Any) -> None:
        self.module, self.name = module, name
        self.original, self.replacement = original, replacement

    def apply(self) -> None:
        setattr(self.module, self.name, self.replacement)

    def repeats(self, other: Patch) -> bool:
        """Whether ``other`` has been applied already and has the same effect."""
        return (self.module, self.name, self.original) == (other.module, other.name, other.original)

    def undo(self) -> None:
        # Someone may have wrapped our replacement since: then it stays underneath and merely passes on.
        if getattr(self.module, self.name, None) is self.replacement:
            setattr(self.module, self.name, self.original)


class _PatchingLoader:
    """Stands in for a module's loader while the module is loaded for the first time."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        # Introspection (inspect, pkgutil, reload) must find the real loader afterwards.
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _patch([module])


class _Finder:
    """Finds exactly TARGETS, through the finders behind it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in TARGETS:
            return None
        for finder in list(sys.meta_path):
            find_spec = getattr(finder, "find_spec", None)
            if finder is self or find_spec is None:
                continue
            spec: ModuleSpec | None = find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _PatchingLoader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


_state = _State()
_finder = _Finder()


def is_enabled() -> bool:
    """Whether downloads of this process are routed through us right now."""
    return _state.active


def enable() -> None:
    """See `zest_hf.enable`."""
    with _state.lock:
        _state.wanted = True
        _state.unusable = False
    _switch_on()


def disable() -> None:
    """See `zest_hf.disable`."""
    with _state.lock:
        _state.wanted = False
        _state.unusable = False
        if not _state.active:
            _switch_off()


class enabled_for_now:
    """Context manager: enabled inside, and afterwards what it was before. Calls may overlap in threads."""

    def __enter__(self) -> None:
        with _state.lock:
            _state.holds += 1
        _switch_on()

    def __exit__(self, *_exc: object) -> None:
        with _state.lock:
            _state.holds -= 1
            if not _state.active:
                _switch_off()


def status() -> dict[str, Any]:
    """See `zest_hf.status`."""
    answer: dict[str, Any] = {"bytes": {"local": 0, "peer": 0, "cdn": 0, "total": 0}}
    module = sys.modules.get("zest_hf.engine")
    engine = module.current_engine() if module is not None else None
    if engine is not None:
        answer.update(engine.status())
    answer["enabled"] = is_enabled()
    return answer


def warn_once(key: str, message: str, *args: object) -> None:
    """Log a warning that says something about the whole process, once."""
    with _state.lock:
        if key in _state.warned:
            return
        _state.warned.add(key)
    import logging

    logging.getLogger("zest_hf").warning(message, *args)


def mark_unusable() -> bool:
    """Note that no file of this process can go through us; False if that was known already."""
    with _state.lock:
        first, _state.unusable = not _state.unusable, True
    return first


def is_unusable() -> bool:
    """Whether `mark_unusable` was called since we were last switched on or off."""
    return _state.unusable


def _switch_on() -> None:
    with _state.lock:
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
    # A module that another thread is importing at this moment gets patched by that import.
    loaded = [sys.modules[name] for name in TARGETS if name in sys.modules]
    ready = [module for module in loaded if not getattr(module.__spec__, "_initializing", False)]
    if ready:
        _patch(ready)


def _switch_off() -> None:
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    for patch in reversed(_state.patches):
        patch.undo()
    _state.patches.clear()


def _patch(modules: Sequence[ModuleType]) -> None:
    try:
        from . import seam  # outside the lock: an import may wait for another thread's import

        patches_for: Callable[[ModuleType], list[Patch]] = seam.patches_for
        with _state.lock:
            if not _state.active:
                return
            for module in modules:
                for patch in patches_for(module):
                    if not any(patch.repeats(earlier) for earlier in _state.patches):
                        patch.apply()
                        _state.patches.append(patch)
    except Exception as error:
        warn_once("patch", "zest_hf: cannot be enabled (%s); downloads run without it", error)


def _after_fork_in_child() -> None:
    # Another thread of the parent may have held it.
    _state.lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
