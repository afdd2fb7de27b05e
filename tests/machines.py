"""Users' machines on this one: each with an HF_HOME of its own, and a Hub somewhere else.

Everything they run is a process of its own: huggingface_hub reads its settings while it is imported.
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from zest_hf.hub.process import HubProcess

RUN_TIMEOUT_S = 60
WAIT_S = 15.0

# The code of every run may use these; `show` is what the test gets back.
PRELUDE = """
import json, os, sys
def show(**values): print("RESULT " + json.dumps(values), flush=True)
def total():
    import zest_hf
    return zest_hf.status()["bytes"]["total"]
def size(path): return os.stat(path).st_size
"""


def eventually(check: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    """The first true answer of ``check``, which is asked again and again until then."""
    deadline_s = time.monotonic() + timeout_s
    while not (answer := check()):
        assert time.monotonic() < deadline_s, f"never true: {what}"
        time.sleep(0.02)
    return answer


@dataclass
class Run:
    """What a process left behind. ``shown``: the keyword arguments of its last `show`."""

    code: int
    stdout: str
    stderr: str

    @property
    def shown(self) -> dict[str, Any]:
        lines = [line for line in self.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, f"nothing was shown; stderr: {self.stderr}"
        shown: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
        return shown

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if "zest_hf:" in line]


class Program:
    """A process that is still running; its stdout and stderr are read all the time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None and process.stderr is not None
        self.process = process
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        """None: one of the streams is at its end."""
        self._text: dict[str, list[str]] = {"stdout": [], "stderr": []}
        streams: dict[str, IO[str]] = {"stdout": process.stdout, "stderr": process.stderr}
        self._open = len(streams)
        self._readers = [threading.Thread(target=self._read, args=item, daemon=True) for item in streams.items()]
        for reader in self._readers:
            reader.start()

    def wait_for_line(self, text: str, timeout_s: float = WAIT_S) -> str:
        """The next line of either stream that contains ``text``; lines before it are skipped."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {text!r}: {self._text}") from None
            self._open -= line is None
            assert self._open, f"it ended without a line with {text!r}: {self._text}"
            if line is not None and text in line:
                return line

    def end(self, signal_number: int | None = None, timeout_s: float = WAIT_S) -> Run:
        """Sends a signal, if given, and waits."""
        if signal_number is not None:
            self.process.send_signal(signal_number)
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it goes on and on: {self._text}") from None
        for reader in self._readers:
            reader.join(WAIT_S)
        return Run(code, "".join(self._text["stdout"]), "".join(self._text["stderr"]))

    def _read(self, name: str, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._text[name].append(line)
                self._lines.put(line)
        self._lines.put(None)


CONSOLE = """
import faulthandler, signal, traceback
faulthandler.register(signal.SIGUSR1)
for line in sys.stdin:
    try:
        exec(json.loads(line))
    except Exception:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        print("DONE", file=stream, flush=True)
"""


class Console(Program):
    """An interpreter that stays and runs one piece of code after the other, as a notebook does."""

    def run(self, code: str, limit_s: float = RUN_TIMEOUT_S) -> Run:
        """Runs code in the namespace of what ran before. ``code`` 0 for success, 1 for an exception."""
        assert self.process.stdin is not None
        marks = {name: len(lines) for name, lines in self._text.items()}
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()
        try:
            for _ in marks:
                self.wait_for_line("DONE", limit_s)
        except AssertionError:
            self.end(signal.SIGUSR1, timeout_s=1.0)  # says in what it says where it hangs
            raise
        out, err = ("".join(self._text[name][marks[name] :]).removesuffix("DONE\n") for name in marks)
        return Run(int("Traceback" in err), out, err)


class Seeder(Program):
    """A `zest-seed` that has said where it listens. ``address``: for ZEST_PEERS; ``url``: its status page, or empty."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(process)
        self.line = self.wait_for_line("offered on")
        found = re.search(r" offered on (\S+:\d+)", self.line)
        assert found is not None
        self.address = found[1]
        page = re.search(r"page on (\S+)", self.line)
        self.url = page[1] if page is not None else ""

    def ask(self, path: str = "/v1/status") -> dict[str, Any]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url + path, timeout=WAIT_S) as answer:
            value: dict[str, Any] = json.load(answer)
        return value

    def wait_for_files(self, count: int) -> None:
        eventually(lambda: self.ask()["files"] == count, f"{count} files are offered")


class Machine:
    """A user's machine. The hook is on, nothing but given peers is asked, ports are free ones of ``address``.

    ``prefix``: what runs a command on the host that it is.
    """

    def __init__(
        self, hub: HubProcess, root: Path, *, address: str = "127.0.0.1", prefix: Sequence[str] = ()
    ) -> None:
        self.hub, self.root, self._prefix = hub, root, tuple(prefix)
        root.mkdir(exist_ok=True)
        self.home = root / "home"
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "ZEST_", "TQDM_"))}
        self.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        self.environ |= {
            # Most of the time goes into imports; compile only once.
            "PYTHONPYCACHEPREFIX": str(hub.state_dir.parent / "bytecode"),
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_ENABLE_ZEST": "1",
            "ZEST_DAEMON": "off",
            "ZEST_DHT": "off",
            "ZEST_LISTEN": f"{address}:0",
            "ZEST_LSD": "off",
            "ZEST_STATUS": f"{address}:0",
        }

    def command(self, *arguments: str, **environ: str | None) -> Run:
        """Run a command line to its end. None removes a variable."""
        done = subprocess.run(
            self._found(arguments),
            env=self._env(environ),
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
        )
        return Run(done.returncode, done.stdout, done.stderr)

    def python(self, code: str, **environ: str | None) -> Run:
        """Run code after PRELUDE."""
        return self.command(sys.executable, "-c", PRELUDE + code, **environ)

    @contextmanager
    def running(self, *arguments: str, **environ: str | None) -> Iterator[Program]:
        """A command that is killed at the end of the block, should it still run."""
        process = self._start(arguments, environ)
        try:
            yield Program(process)
        finally:
            process.kill()
            process.wait()

    @contextmanager
    def console(self, **environ: str | None) -> Iterator[Console]:
        """An interpreter for several pieces of code, with what PRELUDE defines."""
        process = self._start((sys.executable, "-c", PRELUDE + CONSOLE), environ)
        try:
            yield Console(process)
        finally:
            process.kill()
            process.wait()

    @contextmanager
    def seeder(self, *arguments: str, **environ: str | None) -> Iterator[Seeder]:
        """`zest-seed`, from when it listens until the end of the block."""
        process = self._start(("zest-seed", *arguments), environ)
        try:
            seeder = Seeder(process)
            yield seeder
            if process.poll() is None:
                assert seeder.end(signal.SIGTERM).code == 0
        finally:
            process.kill()
            process.wait()

    def left_behind(self) -> list[str]:
        """Names of unfinished files anywhere on the machine."""
        return sorted(path.name for path in self.root.rglob("*.incomplete"))

    def _start(self, arguments: tuple[str, ...], environ: dict[str, str | None]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self._found(arguments),
            env=self._env(environ),
            cwd=self.root,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )

    def _env(self, environ: dict[str, str | None]) -> dict[str, str]:
        env = self.environ | {k: v for k, v in environ.items() if v is not None}
        return {k: v for k, v in env.items() if environ.get(k, "") is not None}

    def _found(self, arguments: tuple[str, ...]) -> list[str]:
        """Commands of this environment by their names, whatever the PATH is."""
        program = Path(sys.executable).parent / arguments[0]
        own = "/" not in arguments[0] and program.exists()
        return [*self._prefix, str(program) if own else arguments[0], *arguments[1:]]
