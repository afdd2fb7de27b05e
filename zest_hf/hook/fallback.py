"""The Hub's own way of downloading a file, for when ours has failed.

It runs as it would without us, except that its result is checked: neither huggingface_hub nor hf_xet
compares what they wrote with the hash that they asked for.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

from zest_hf.errors import ProofError, ZestError

from .staging import empty

_log = logging.getLogger("zest_hf.hook")

_READ_BYTES = 1 << 20


class WrongContent(ZestError, OSError):
    """The Hub's own download delivered a file that provably is not the one that was asked for."""


def download_normally(
    hub: ModuleType,
    original: Callable[..., None],
    arguments: Mapping[str, Any],
    move: Mapping[str, Any] | None,
    *,
    name: str,
) -> None:
    """Download the file of one `xet_get` call by the Hub's own means, and check it where we can.

    ``hub`` is the module `huggingface_hub.file_download`, ``original`` its own `xet_get`, ``arguments`` the
    call's, ``move`` those of the `_download_to_tmp_and_move` around it, if there is one. Raises whatever
    these raise, and WrongContent (the file is empty then).
    """
    path: Path = arguments["incomplete_path"]
    if _has_hf_xet():
        original(**arguments)
    else:
        # We made the Hub believe that Xet is available; without hf_xet its own way is a plain download.
        url = move["url_to_download"] if move is not None else _url_in_file_system(arguments)
        _http_get(hub, url, arguments, move or {}, name)
    etag = str((move or {}).get("etag") or "").lower()
    sha256 = etag if re.fullmatch(r"[0-9a-f]{64}", etag) else None
    if not _is_right(path, arguments["xet_file_data"].file_hash, sha256):
        empty(path)
        raise WrongContent(
            f"the content downloaded for {name} does not match the hash that the Hub gave for it; try again"
        )


def _has_hf_xet() -> bool:
    from huggingface_hub.utils._runtime import is_xet_available  # the one name that is never replaced

    return is_xet_available()


def _http_get(
    hub: ModuleType, url: str, arguments: Mapping[str, Any], move: Mapping[str, Any], name: str
) -> None:
    wanted: dict[str, Any] = {
        "headers": arguments["headers"],
        "expected_size": arguments.get("expected_size"),
        "displayed_filename": name,
        "tqdm_class": arguments.get("tqdm_class"),
        "_tqdm_bar": arguments.get("_tqdm_bar"),
        "proxies": move.get("proxies"),
    }
    known = inspect.signature(hub.http_get).parameters
    with arguments["incomplete_path"].open("wb") as file:
        hub.http_get(url, file, **{key: value for key, value in wanted.items() if key in known})


def _url_in_file_system(arguments: Mapping[str, Any]) -> str:
    """The address behind a call of `HfFileSystem.get_file`, which passes on its path as the name to show."""
    from huggingface_hub import HfFileSystem

    from .connection import parse_route

    route_url = arguments["xet_file_data"].refresh_route
    route = parse_route(route_url)
    authorization = next((v for k, v in arguments["headers"].items() if k.lower() == "authorization"), "")
    files = HfFileSystem(
        endpoint=route.endpoint if route is not None else None,
        token=authorization.removeprefix("Bearer ") or False,
    )
    remote = str(arguments["displayed_filename"])
    revision = None if "@" in remote else unquote(route_url.rpartition("/")[2])
    return str(files.url(files.resolve_path(remote, revision=revision).unresolve()))


def _is_right(path: Path, file_hash: str, sha256: str | None) -> bool:
    """False only if the content is provably wrong.

    The SHA-256 is a matter of the content alone. The Xet hash also depends on how the uploader cut it into chunks,
    so that it is asked only where the Hub did not say the other.
    """
    if sha256 is not None:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
        return digest.hexdigest() == sha256
    try:
        from zest_hf.core.ids import hash_from_text
        from zest_hf.engine import get_engine

        get_engine().verify(path, hash_from_text(file_hash))
    except ProofError:
        return False
    except Exception as error:
        _log.debug("the content of %s cannot be checked against its Xet hash: %s", path, error)
    return True
