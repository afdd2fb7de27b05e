"""`zest status` in a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pages
import pytest
from machines import Machine, eventually

from zest_hf.terminal import columns, shortened

WAIT_S = 15.0
ESCAPES = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


class Terminal:
    """A program, and the terminal that it believes to run in."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process, self._fd = process, fd
        self.text = ""

    def wait_for(self, pattern: str) -> str:
        """What has been written until this appears; the rest stays for the next time."""
        deadline_s = time.monotonic() + WAIT_S
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < deadline_s, self.text
            if select.select([self._fd], [], [], 0.1)[0]:
                self._read()
        before, self.text = self.text[: found.end()], self.text[found.end() :]
        return before

    def end(self) -> int:
        """The exit code; all that was written is in ``text``."""
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s and (not select.select([self._fd], [], [], 0.1)[0] or self._read()):
            pass
        return self.process.wait(max(0.1, deadline_s - time.monotonic()))

    def press(self, key: bytes) -> None:
        os.write(self._fd, key)

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def _read(self) -> bool:
        try:
            part = os.read(self._fd, 65536)
        except OSError:  # nobody is on the other side any more
            return False
        self.text += part.decode()
        return bool(part)


@contextmanager
def terminal(
    machine: Machine, *arguments: str, width: int = 80, height: int = 24, **environ: str
) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    program = str(Path(sys.executable).parent / arguments[0])
    env = {**machine.environ, "TERM": "xterm", **environ}
    for name in ("COLUMNS", "LINES", "CI", "NO_COLOR"):
        if name not in environ:
            env.pop(name, None)
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    process = subprocess.Popen(
        [program, *arguments[1:]],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def lines_of(text: str) -> list[str]:
    return [ESCAPES.sub("", line) for line in text.split("\r\n")]


def test_it_goes_on_until_q(owner: Machine) -> None:
    with owner.seeder() as seeder:
        with terminal(owner, "zest", "status", ZEST_STATUS=seeder.url.removeprefix("http://")) as screen:
            first = screen.wait_for(r"\x1b\[J")
            assert "org/model" in first and "\x1b[?25l" in first and "\x1b[1m" in first
            again = screen.wait_for(r"\x1b\[J")
            # In the same place: so many lines up as there were.
            up = re.search(r"\x1b\[(\d+)A", again)
            assert up is not None and int(up[1]) == first.count("\r\n")
            screen.press(b"q")
            assert screen.end() == 0 and "\x1b[?25h" in screen.text
        with terminal(owner, "zest", "status", ZEST_STATUS=seeder.url.removeprefix("http://")) as screen:
            screen.wait_for(r"\x1b\[J")
            screen.press(b"\x1b[Aq")  # an arrow, which is three bytes, and what is pressed at once after it
            assert screen.end() == 0
        with terminal(owner, "zest", "status", ZEST_STATUS=seeder.url.removeprefix("http://")) as screen:
            screen.wait_for(r"\x1b\[J")
            screen.press(b"\x03")
            assert screen.end() == 0 and "\x1b[?25h" in screen.text and "Traceback" not in screen.text


@pytest.mark.parametrize(("width", "height"), [(20, 10), (40, 24), (120, 12)])
def test_it_fits(machine: Machine, width: int, height: int) -> None:
    pages.offer(machine, [f"org/model-{number}" for number in range(30)] + list(pages.HOSTILE_NAMES))
    with machine.seeder(**pages.OFFLINE) as seeder:
        address = seeder.url.removeprefix("http://")
        with terminal(machine, "zest", "status", width=width, height=height, ZEST_STATUS=address) as screen:
            text = lines_of(screen.wait_for(r"\x1b\[J"))
            assert max(map(len, text)) <= width and len(text) <= height
            assert "lines more" in text[-2] or width < 40
            screen.resize(60, 40)
            wider = screen.wait_for(r"\x1b\[2J\x1b\[H[^\x00]*?\x1b\[J")
            assert 40 >= len(lines_of(wider)) > height
        with terminal(machine, "zest", "status", "--once", width=width, ZEST_STATUS=address) as screen:
            assert screen.end() == 0
            text = lines_of(screen.text)
            assert max(map(len, text)) <= width and len([line for line in text if line.startswith("org/")]) >= 30


def test_the_seeder_goes_and_comes_back(machine: Machine) -> None:
    with machine.seeder() as seeder:
        address = seeder.url.removeprefix("http://")
        with terminal(machine, "zest", "status", ZEST_STATUS=address) as screen:
            screen.wait_for("up 0 min")
            seeder.process.kill()
            seeder.process.wait()
            screen.wait_for("no seeder answers")
            with machine.seeder(ZEST_STATUS=address):
                eventually(lambda: "no seeder" not in screen.wait_for(r"\x1b\[J"), "it is shown again")


def test_where_it_shows_once(owner: Machine) -> None:
    with owner.seeder() as seeder:
        address = seeder.url.removeprefix("http://")
        for environ in ({"CI": "true"}, {"TERM": "dumb"}):
            with terminal(owner, "zest", "status", ZEST_STATUS=address, **environ) as screen:
                assert screen.end() == 0 and "org/model" in screen.text and "\x1b[J" not in screen.text
        with terminal(owner, "zest", "status", "--once", ZEST_STATUS=address, NO_COLOR="1") as screen:
            assert screen.end() == 0 and "org/model" in screen.text and "\x1b" not in screen.text
        # Where nobody sees it, it goes on only if that is asked for.
        with owner.running("zest", "status", "--watch", ZEST_STATUS=address) as program:
            for _ in range(2):
                assert "\x1b" not in program.wait_for_line("zest-seed")


def test_nobody_to_ask(machine: Machine, nobody: str) -> None:
    with terminal(machine, "zest", "status", ZEST_STATUS=nobody) as screen:
        assert screen.end() == 1
        assert "start one with zest start" in screen.text and "\x1b" not in screen.text


def test_what_is_left_out_of_a_table() -> None:
    head, rows = ("name", "a", "b"), [("a-long-name-of-a-model", "11", "222")]
    assert list(columns(head, rows)) == ["name                     a    b", "a-long-name-of-a-model  11  222"]
    assert list(columns(head, rows, 28, (1,))) == ["name                      b", "a-long-name-of-a-model  222"]
    assert list(columns(head, rows, 20, (1,))) == ["name               b", "a-long-…a-model  222"]
    assert shortened("abcdefgh", 5) == "ab…gh" and shortened("abc", 3) == "abc" and shortened("abcd", 2) == "ab"
