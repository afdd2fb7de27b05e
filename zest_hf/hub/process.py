"""A hub in a process of its own, for tests and examples."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from zest_hf.errors import ZestError

_READY = "zest hub listening on "
_STOP_TIMEOUT_S = 5.0
_CONTROL_TIMEOUT_S = 30.0


class HubProcess:
    """Context manager around ``python -m zest_hf.hub``.

    ``options`` are those of the command line: ``token="a"`` or ``token=["a", "b"]``, ``no_v2=True``,
    ``cdn_listen="127.0.0.1:0"``. Both listeners take free ports of 127.0.0.1 unless told otherwise. ``authority``: the
    certificate (PEM) that vouches for a hub with TLS. Raises ZestError when the hub does not start or a control request
    is refused.
    """

    def __init__(
        self, state_dir: str | Path, *, authority: Path | None = None, **options: str | float | bool | list[str]
    ) -> None:
        self.state_dir = Path(state_dir)
        self._authority = authority
        self.options = {"listen": "127.0.0.1:0", "cdn_listen": "127.0.0.1:0", **options}
        self.endpoint = ""
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running hub."""
        if self._process is None:
            raise ZestError("the hub is not running")
        return self._process.pid

    def start(self) -> HubProcess:
        """Start the hub and wait until it accepts connections."""
        command = [sys.executable, "-m", "zest_hf.hub", "--state", str(self.state_dir)]
        for name, value in self.options.items():
            for one in value if isinstance(value, list) else [value]:
                if one is not False and one is not None:
                    command += [f"--{name.replace('_', '-')}"] + ([] if one is True else [str(one)])
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(_READY):
            code = self._process.wait()
            self._process = None
            raise ZestError(f"the hub did not start: it ended with exit code {code}")
        self.endpoint = line.removeprefix(_READY).partition(",")[0]
        return self

    def stop(self) -> int:
        """Stop the hub as a user would and return its exit code; 0 when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.terminate()
        try:
            return process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
        finally:
            if process.stdout is not None:
                process.stdout.close()

    def stats(self) -> dict[str, Any]:
        """Counters since the start or the last reset."""
        return self._control("GET", "/_stats")

    def reset_stats(self) -> None:
        self._control("POST", "/_stats/reset")

    def fault(self, route: str, kind: str, **parameters: float | str | None) -> None:
        """Add one fault rule, for example ``fault("cdn", "rate", bytes_per_second=1e6)``."""
        self._control("POST", "/_faults", {"route": route, "kind": kind, **parameters})

    def clear_faults(self) -> None:
        self._control("DELETE", "/_faults")

    def _control(self, method: str, path: str, value: object = None) -> dict[str, Any]:
        data = None if value is None else json.dumps(value).encode()
        request = urllib.request.Request(self.endpoint + path, data=data, method=method)
        # Proxies of the environment are for other machines, not for this one.
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if self._authority is not None:
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=self._authority)))
        opener = urllib.request.build_opener(*handlers)
        try:
            with opener.open(request, timeout=_CONTROL_TIMEOUT_S) as response:
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise ZestError(f"the hub refused {method} {path}: {json.load(error)['error']}") from None
        except OSError as error:
            raise ZestError(f"the hub does not answer at {self.endpoint}: {error}") from error
        return answer

    def __enter__(self) -> HubProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
