"""The program zest 0.4.2 (PyPI: zest-transfer) as it is, on a machine with a home of its own.

It takes its Hub to be https://huggingface.co, and its `pull` leaves a server behind on port 6881.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from machines import eventually

REPOSITORY = Path(__file__).parents[2]
PROGRAM = REPOSITORY / "build" / "interop" / "zest" / "_bin" / "zest"
PORT = 6881
ADDRESS = f"127.0.0.1:{PORT}"
PULL_TIMEOUT_S = 60


@dataclass(frozen=True)
class Pull:
    """What one `zest pull` did, by its own words."""

    output: str
    folder: Path
    from_peers: int
    """Xorbs."""
    from_cdn: int


class ZestProgram:
    def __init__(self, home: Path) -> None:
        home.mkdir()
        self._home = home

    def pull(self, repo: str, *peers: str) -> Pull:
        """Downloads a repository, with these host:port as peers."""
        done = self._run("pull", repo, *(word for peer in peers for word in ("--peer", peer)))
        assert done.returncode == 0, done.stdout
        folder = re.search(r"Model available at:\s+(\S+)", done.stdout)
        assert folder is not None, done.stdout
        counts = [re.search(rf"From {source}:\s+(\d+)", done.stdout) for source in ("peers", "CDN")]
        from_peers, from_cdn = (int(found[1]) if found else 0 for found in counts)
        return Pull(done.stdout, Path(folder[1]), from_peers, from_cdn)

    def serve(self) -> None:
        """Starts the server, and waits until it listens."""
        self._run("start")
        eventually(_listening, "zest listens")

    @contextmanager
    def stopped_after(self) -> Iterator[None]:
        """Ends the server that was started, or that `pull` has left behind."""
        try:
            yield
        finally:
            self._run("stop")
            eventually(lambda: not _listening(), "zest is gone")

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # A file, as the server that is left behind would keep a pipe open.
        output = self._home / "output"
        with output.open("w") as file:
            done = subprocess.run(
                [str(PROGRAM), *arguments],
                env={"HOME": str(self._home), "HF_TOKEN": "hf_any", "PATH": os.environ["PATH"]},
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=PULL_TIMEOUT_S,
            )
        return subprocess.CompletedProcess(done.args, done.returncode, output.read_text())


def _listening() -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", PORT)) == 0
