"""One hub: its options, its stores, its counters. Every route gets it through ``request.app.state.hub``."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
from urllib.parse import urlsplit

from starlette.requests import Request

from zest_hf.errors import StorageError
from zest_hf.hub.auth import Ranges, Signer
from zest_hf.hub.database import Database
from zest_hf.hub.disk import sweep_partials
from zest_hf.hub.faults import Faults
from zest_hf.hub.options import HubOptions
from zest_hf.hub.repos import RepoStore
from zest_hf.hub.stats import Stats
from zest_hf.hub.store import CasStore

_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
_ANY = ("0.0.0.0", "::", "")
# So many uploads are decoded and hashed at once; others wait on the disk.
CONCURRENT_CHECKS = 3


def join_host(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Hub:
    """Opens the state directory (one hub at a time) and holds everything that requests share.

    Raises StorageError when the directory cannot be used.
    """

    def __init__(self, options: HubOptions) -> None:
        self.options = options
        root = options.state_dir
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            reason = "Not a directory" if isinstance(error, FileExistsError) else error.strerror
            raise StorageError(
                f"the state directory {root} cannot be used: {reason}; name another with --state"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise StorageError(f"another hub is using the state directory {root}") from None
        sweep_partials(root)
        self.database = Database(root / "hub.sqlite")
        os.chmod(root / "hub.sqlite", 0o600)
        self.signer = Signer(self.database.secret())
        self.repos = RepoStore(root, self.database)
        self.store = CasStore(root, self.database)
        self.stats = Stats()
        self.faults = Faults()
        self.checks = asyncio.Semaphore(CONCURRENT_CHECKS)
        self.address = options.listen
        self.cdn_address = options.cdn_listen

    @property
    def scheme(self) -> str:
        return "http" if self.options.tls is None else "https"

    def base_url(self, request: Request) -> str:
        """The address under which this client reached us, so that names, tunnels and proxies with TLS keep working."""
        host = request.headers.get("host", "")
        scheme = "https" if request.headers.get("x-forwarded-proto") == "https" else self.scheme
        return f"{scheme}://" + (host if _HOST.fullmatch(host) else join_host(*self.address))

    def cdn_base_url(self, request: Request) -> str:
        base = self.base_url(request)
        if self.cdn_address is None:
            return base
        # Its own listener is reached directly: what is in front of the Hub knows nothing of it.
        host, port = self.cdn_address
        if host in _ANY or host == self.address[0]:
            host = urlsplit(base).hostname or host
        return f"{self.scheme}://{join_host(host, port)}"

    def url_maker(self, request: Request) -> CdnUrls:
        return CdnUrls(self, self.cdn_base_url(request))

    def close(self) -> None:
        self.database.close()
        os.close(self._lock)


class CdnUrls:
    """Makes signed urls below one base."""

    def __init__(self, hub: Hub, base: str) -> None:
        self._hub = hub
        self._base = base

    def __call__(self, xorb: str, ranges: Ranges) -> str:
        options = self._hub.options
        return self._hub.signer.sign_url(
            self._base, xorb, ranges, options.url_lifetime_s, redirect=options.redirect_cdn
        )
