"""One call of `xet_get`, through the engine if possible and by the Hub's own means otherwise."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zest_hf.errors import ConfigError, NativeUnavailable, ProofError, ProtocolError, ZestError

from . import connection as token_route
from . import loading, local_dirs, switch
from .fallback import download_normally
from .progress import HubBars
from .staging import InPlace, Place, Staged, empty, left_overs, set_aside

if TYPE_CHECKING:
    from zest_hf.core.ids import XetHash
    from zest_hf.download import RepoRef
    from zest_hf.engine import Engine

_log = logging.getLogger("zest_hf")

# Reasons that would be the same for the next file, and the one after it.
_FOR_THE_WHOLE_PROCESS = (ConfigError, NativeUnavailable, ImportError)


@dataclass
class Move:
    """A `_download_to_tmp_and_move` under way: its arguments by name, and what to do with the final path."""

    arguments: Mapping[str, Any]
    record: Callable[[Path], None] | None = None
    abandon: Callable[[], None] = lambda: None
    """... or when there will be none."""


current_move: ContextVar[Move | None] = ContextVar("zest_hf_current_move", default=None)
# True inside a fallback: whatever the Hub calls there must reach the Hub.
hub_is_alone: ContextVar[bool] = ContextVar("zest_hf_hub_is_alone", default=False)


def is_strict() -> bool:
    """Whether our errors are to be raised instead of hidden by the Hub's own download."""
    from zest_hf import config

    return config.is_strict()


class OneFile:
    """``original`` is the Hub's `xet_get`, ``arguments`` are the call's, ``move`` is the call around it."""

    def __init__(self, original: Callable[..., None], arguments: dict[str, Any], move: Move | None) -> None:
        self._original, self._arguments, self._move = original, arguments, move
        self._hub = sys.modules["huggingface_hub.file_download"]
        self._expected = Path(arguments["incomplete_path"])
        self._size_bytes: int | None = arguments.get("expected_size")
        self._abandon: Callable[[], None] = lambda: None
        self._engine: Engine | None = None
        self._name = str(arguments.get("displayed_filename") or self._expected.name)

    def download(self) -> None:
        """Leave the complete file at the expected path, or raise.

        Raises what the Hub's own download raises, OSError when the disk is full, WrongContent (an OSError)
        when the Hub's own download delivered something else, and any other ZestError under ZEST_STRICT only.
        """
        record: Callable[[Path], None] | None = None
        with contextlib.ExitStack() as stack:
            bars = stack.enter_context(
                HubBars(
                    self._hub,
                    name=self._name,
                    total_bytes=self._size_bytes,
                    tqdm_class=self._arguments.get("tqdm_class"),
                    bar=self._arguments.get("_tqdm_bar"),
                )
            )
            place: Place = InPlace(self._expected)
            failure: Exception | None = None
            try:
                place = stack.enter_context(self._place())
                record = self._through_the_engine(place.path, bars)
            except Exception as error:
                failure = error
            except BaseException:
                self._set_aside(place.path)  # for who tries it once more after Ctrl-C
                raise
            # Outside of `except`: what the Hub raises has nothing to do with our failure.
            if failure is not None:
                self._abandon()
                # Not a file under its final name: if there is one, it is the user's last version of it.
                aside = self._set_aside(place.path) if self._may_go_on(failure, place.path) else None
                if aside is not None:
                    place.path.touch()
                elif self._move is not None or place.path != self._expected:
                    empty(place.path)
                bar = bars.roll_back()
                self._raise_or_warn(failure, place.path)
                self._by_the_hub(place.path, bar)
                if aside is not None:
                    self._remove(aside)
            try:
                place.commit()
            except BaseException:
                self._abandon()
                raise
        if record is not None and self._move is not None:
            self._move.record, self._move.abandon = record, self._abandon
        elif record is not None:
            record(self._expected)

    def _place(self) -> Place:
        if self._move is None:
            return Staged(self._expected)  # the final path itself
        if self._expected == Path(self._move.arguments["incomplete_path"]):
            return Staged(self._expected)  # a fixed name, from which a later call would resume
        return InPlace(self._expected)

    def _through_the_engine(self, path: Path, bars: HubBars) -> Callable[[Path], None]:
        """Returns what remains to be done when the file has its final path."""
        with loading.at_once():
            from zest_hf.download import FileRequest, RepoRef
            from zest_hf.engine import get_engine
            from zest_hf.seed import leave
            from zest_hf.unfinished import MIN_BYTES

        data = self._arguments["xet_file_data"]
        engine = self._engine = get_engine()
        connection = token_route.connect(data.refresh_route, self._arguments["headers"])
        repo = RepoRef(connection.route.endpoint, connection.route.repo_type, connection.route.repo_id)
        result = engine.download(
            FileRequest(
                file_hash=self._file_hash(),
                size_bytes=self._size_bytes,
                path=path,
                repo=repo,
                token_provider=connection.token,
                user_agent=_user_agent(self._arguments["headers"]),
                is_public=connection.is_public_with_token,
                display_name=self._name,
                read_timeout_s=float(self._hub.constants.HF_HUB_DOWNLOAD_TIMEOUT),
                # Not from the environment: programs set it when they run.
                high_performance=bool(getattr(self._hub.constants, "HF_XET_HIGH_PERFORMANCE", False)),
                # To look for what is left of a small file takes longer than to fetch it.
                left_overs=left_overs(path) if (self._size_bytes or 0) >= MIN_BYTES else (),
                known_to_be_public=connection.known_to_be_public,
            ),
            bars,
        )
        # What it offers of the file goes on until the file is recorded: who ends up elsewhere has to end that.
        self._abandon = functools.partial(engine.abandon, result)
        written_bytes = path.stat().st_size
        if written_bytes != result.size_bytes:
            raise ProtocolError(f"{written_bytes} bytes were written of a file of {result.size_bytes}")
        bars.finish(result.size_bytes)

        def record(final_path: Path) -> None:
            try:
                known = connection.known_to_be_public()
                engine.record(result, final_path, repo, known, connection.is_public)
            except Exception as error:  # the user has the file; only others miss it
                switch.warn_once(
                    "record", "zest_hf: downloaded files cannot be offered to others (%s)", _reason(error)
                )
            else:
                self._note_local_dir(engine, repo)
                leave.after_download(engine)

        return record

    def _note_local_dir(self, engine: Engine, repo: RepoRef) -> None:
        """Nobody would find it again if the index were lost."""
        if self._move is None:
            return
        arguments = self._move.arguments
        root = local_dirs.root_of(*(Path(arguments[name]) for name in ("incomplete_path", "destination_path")))
        if root is not None:
            with contextlib.suppress(OSError):
                local_dirs.note(
                    engine.settings.home, local_dirs.LocalDir(os.path.realpath(root), repo.repo_type, repo.repo_id)
                )

    def _may_go_on(self, failure: Exception, path: Path) -> bool:
        """Whether what is there is of use later, and leaves room for the Hub's own download."""
        if isinstance(failure, (ProofError, ProtocolError)) or self._size_bytes is None:
            return False
        try:
            return shutil.disk_usage(path.parent).free > self._size_bytes
        except OSError:
            return False

    def _set_aside(self, path: Path) -> Path | None:
        """What has been written is kept for the next download; under a name of its own, as this one is given away.

        Only in a cache: elsewhere nobody would come upon it.
        """
        engine = self._engine
        if engine is None or self._move is None or not engine.can_be_gone_on_with(self._file_hash(), path):
            return None
        return set_aside(path)

    def _remove(self, aside: Path) -> None:
        if self._engine is not None:
            self._engine.forget(self._file_hash(), aside)
        with contextlib.suppress(OSError):
            aside.unlink()

    def _file_hash(self) -> XetHash:
        from zest_hf.core.ids import hash_from_text

        return hash_from_text(self._arguments["xet_file_data"].file_hash)

    def _raise_or_warn(self, error: Exception, path: Path) -> None:
        if _disk_is_full(error, path.parent, self._size_bytes):
            raise error  # the Hub's own download would find the same disk
        if is_strict():
            if isinstance(error, (ZestError, OSError)) and not isinstance(error, ValueError):
                raise error
            raise ZestError(f"unexpected error: {_reason(error)}") from error
        concerned = self._name
        if isinstance(error, _FOR_THE_WHOLE_PROCESS):
            if not switch.mark_unusable():
                return
            concerned += " and everything after it"
        _log.warning("zest_hf: %s; using the normal download for %s", _reason(error), concerned)
        _log.debug("the reason in full", exc_info=error)

    def _by_the_hub(self, path: Path, bar: Any) -> None:
        arguments = {**self._arguments, "incomplete_path": path, "displayed_filename": self._name}
        if bar is not None:
            arguments["_tqdm_bar"] = bar
        move = self._move.arguments if self._move is not None else None
        reset = hub_is_alone.set(True)
        try:
            download_normally(self._hub, self._original, arguments, move, name=self._name)
        finally:
            hub_is_alone.reset(reset)


def _user_agent(headers: Mapping[str, str]) -> str:
    from zest_hf import __version__

    theirs = next((value for key, value in headers.items() if key.lower() == "user-agent"), "")
    return f"{theirs}; zest_hf/{__version__}" if theirs else f"zest_hf/{__version__}"


def _reason(error: BaseException) -> str:
    """One line for a user."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = " ".join(str(error).split())
    if isinstance(error, (ZestError, OSError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _disk_is_full(error: Exception, directory: Path, size_bytes: int | None) -> bool:
    """Whether the disk of the download is full, and not merely some other one, say that of ZEST_HOME."""
    if not any(isinstance(e, OSError) and e.errno == errno.ENOSPC for e in (error, error.__cause__)):
        return False
    try:
        return size_bytes is None or shutil.disk_usage(directory).free < size_bytes
    except OSError:
        return True
