"""The Hub's own progress bars, fed by the engine.

Three generations of them: a pair of bars behind `XetDownloadProgressReporter` (huggingface_hub >= 1.23), one
bar from `_get_progress_bar_context` with a class chosen by the caller (>= 1.1) and without. Using them gives
users what they know, and what they have switched off stays off. Bars are decoration: nothing that goes wrong
here may reach a download.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any

from .file_bars import FileBar, sources_text

if TYPE_CHECKING:
    from zest_hf.traffic import Traffic

_log = logging.getLogger("zest_hf.hook")

_GROUP = "huggingface_hub.xet_get"  # the name by which users switch these bars off
_LONGEST_NAME = 40


def byte_bar(name: str, size_bytes: int) -> Any:
    """A bar of the Hub's kind, for what is none of its downloads: a tqdm, which counts bytes."""
    tqdm: Any = importlib.import_module("huggingface_hub.utils").tqdm
    return tqdm(total=size_bytes, desc=name, unit="B", unit_scale=True, dynamic_ncols=True)


class _PairOfBars:
    """huggingface_hub >= 1.23: bytes written and bytes from the network."""

    def __init__(
        self, hub: ModuleType, reporter: Callable[..., Any], name: str, total: int | None, cls: Any, bar: Any
    ) -> None:
        self._reporter = reporter(
            reconstruction_desc=f"{name}: reconstructing file",
            transfer_desc=f"{name}: downloading bytes",
            total=total,
            log_level=hub.logger.getEffectiveLevel(),
            name=_GROUP,
            tqdm_class=cls,
            external_reconstruction_bar=bar,
        )
        self.bar = self._reporter.reconstruction_bar
        self._network_bar = self._reporter.transfer_bar
        # Others count for many files, or are somebody else's.
        self._is_one_file = bar is None and cls is None
        self._began_s = time.monotonic()

    def show(self, done_bytes: int, total_bytes: int, network_bytes: int, came: Traffic | None) -> None:
        elapsed_s = max(time.monotonic() - self._began_s, 1e-3)
        self._reporter.update_progress(
            SimpleNamespace(
                total_bytes=total_bytes,
                total_bytes_completed=done_bytes,
                total_bytes_completion_rate=done_bytes / elapsed_s,
                total_transfer_bytes_completed=network_bytes,
                total_transfer_bytes_completion_rate=network_bytes / elapsed_s,
            )
        )
        if self._is_one_file:
            rate = self.bar.format_sizeof(done_bytes / elapsed_s)
            self.bar.set_postfix_str(f"{rate}B/s, {sources_text(came)}", refresh=False)

    def take_back(self, done_bytes: int, network_bytes: int) -> None:
        self.bar.update(-done_bytes)
        if self._network_bar is self.bar:
            self.bar.update_transfer(-network_bytes)
        elif self._network_bar is not None:
            self._network_bar.update(-network_bytes)

    def hide(self) -> None:
        for bar in (self.bar, self._network_bar):
            if bar is not None:
                bar.leave = False

    def close(self) -> None:
        self._reporter.close()


class _OneBar:
    """huggingface_hub < 1.23."""

    def __init__(
        self, hub: ModuleType, make: Callable[..., Any], name: str, total: int | None, cls: Any, bar: Any
    ) -> None:
        more = {"tqdm_class": cls} if "tqdm_class" in inspect.signature(make).parameters else {}
        self._context = make(
            desc=name,
            log_level=hub.logger.getEffectiveLevel(),
            total=total,
            initial=0,
            name=_GROUP,
            _tqdm_bar=bar,
            **more,
        )
        self.bar = self._context.__enter__()
        self._shown_bytes = 0

    def show(self, done_bytes: int, total_bytes: int, network_bytes: int, came: Traffic | None) -> None:
        self.bar.update(done_bytes - self._shown_bytes)
        self._shown_bytes = done_bytes

    def take_back(self, done_bytes: int, network_bytes: int) -> None:
        self.bar.update(-done_bytes)
        self._shown_bytes = 0

    def hide(self) -> None:
        self.bar.leave = False

    def close(self) -> None:
        self._context.__exit__(None, None, None)


class HubBars:
    """The bars of one file; the engine's `Progress`. A context manager that closes what it has opened.

    ``hub`` is the module `huggingface_hub.file_download`; ``tqdm_class`` and ``bar`` are what the Hub passed
    to `xet_get` as ``tqdm_class`` and ``_tqdm_bar``. To be used by one thread.
    """

    def __init__(
        self, hub: ModuleType, *, name: str, total_bytes: int | None, tqdm_class: Any = None, bar: Any = None
    ) -> None:
        self._hub, self._total_bytes = hub, total_bytes
        self._name = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}(…)"
        self._tqdm_class, self._given_bar = tqdm_class, bar
        self._bars: _PairOfBars | _OneBar | None = None
        self._file_bar: FileBar | None = None
        self._came: Traffic | None = None
        self._done_bytes = self._network_bytes = 0

    def __enter__(self) -> HubBars:
        self._safely(self._open)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        bars, self._bars = self._bars, None
        if bars is not None:
            self._safely(bars.close)
        if self._file_bar is not None:
            self._safely(self._file_bar.close)

    def update(self, done_bytes: int, total_bytes: int, network_bytes: int, came: Traffic | None) -> None:
        """Show the state of the file; called by the engine."""
        # A range that has to be fetched again must not count twice, nor make a bar run backwards.
        self._done_bytes = max(self._done_bytes, done_bytes)
        self._network_bytes = max(self._network_bytes, network_bytes)
        if self._bars is not None:
            self._safely(self._bars.show, self._done_bytes, total_bytes, self._network_bytes, came)
        self._came = came
        if self._file_bar is not None:
            self._safely(self._file_bar.show, self._done_bytes, came)

    def finish(self, size_bytes: int) -> None:
        """Show the file as complete."""
        self.update(size_bytes, size_bytes, self._network_bytes, self._came)

    def roll_back(self) -> Any:
        """Put the bars back to where they began, for another download of the same file.

        Returns the bar that this other download has to use as its ``_tqdm_bar``, or None if it is to make its
        own: one that was given to us, or one of the caller's class (which may add every new bar's size to a
        shared total). Bars that are only ours disappear.
        """
        bars = self._bars
        if self._file_bar is not None:
            self._safely(self._file_bar.hide)
            self._safely(self._file_bar.close)
        if bars is None:
            return self._given_bar
        self._safely(bars.take_back, self._done_bytes, self._network_bytes)
        self._done_bytes = self._network_bytes = 0
        if self._given_bar is not None or self._tqdm_class is not None:
            return bars.bar
        self._bars = None
        self._safely(bars.hide)
        self._safely(bars.close)
        return None

    def _open(self) -> None:
        arguments = self._name, self._total_bytes, self._tqdm_class, self._given_bar
        try:
            reporting = importlib.import_module("huggingface_hub.utils._xet_progress_reporting")
            reporter = reporting.XetDownloadProgressReporter
        except (ImportError, AttributeError):
            self._bars = _OneBar(self._hub, self._hub._get_progress_bar_context, *arguments)
        else:
            self._bars = _PairOfBars(self._hub, reporter, *arguments)
        if self._tqdm_class is not None or self._given_bar is not None:
            self._file_bar = FileBar(self._name, self._total_bytes)

    def _safely(self, call: Callable[..., Any], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception:
            _log.debug("a progress bar failed; this file goes on without", exc_info=True)
            self._bars = None
