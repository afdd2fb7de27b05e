"""What zest_hf adds to the start of an interpreter: medians of `python -c pass`, in milliseconds.

Two bare virtual environments, one without and one with what an installation puts into site-packages; all
cases take turns, so that a busy machine disturbs them alike.

    python tests/bench/startup.py [RUNS]
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import zest_hf

DEFAULT_RUNS = 25
PACKAGE = Path(zest_hf.__file__).parent
BOOTSTRAP = PACKAGE.parent / "bootstrap"
HUB = "import huggingface_hub.file_download"


def environment(directory: Path, *, with_us: bool) -> str:
    """A virtual environment of this Python; returns its interpreter."""
    venv.create(directory, with_pip=False, symlinks=True)
    if with_us:
        site_packages = next(directory.glob("lib/python*/site-packages"))
        shutil.copytree(BOOTSTRAP, site_packages, dirs_exist_ok=True)
        (site_packages / "zest_hf").symlink_to(PACKAGE)
    return str(directory / "bin" / "python")


def start_ms(interpreter: str, code: str, *, enabled: bool, bytecode: Path) -> float:
    """Wall time of one interpreter, compiled modules being kept in the directory ``bytecode``."""
    left_out = {"HF_HUB_ENABLE_ZEST", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}
    environ = {name: value for name, value in os.environ.items() if name not in left_out}
    environ["PYTHONPYCACHEPREFIX"] = str(bytecode)
    if enabled:
        environ["HF_HUB_ENABLE_ZEST"] = "1"
    began_s = time.perf_counter()
    subprocess.run([interpreter, "-c", code], env=environ, check=True)
    return (time.perf_counter() - began_s) * 1000


def pth_line_us(passes: int = 2000) -> float:
    """The `.pth` line itself while zest_hf is off, in microseconds a pass."""
    line = (BOOTSTRAP / "zest_hf.pth").read_text()
    os.environ.pop("HF_HUB_ENABLE_ZEST", None)
    began_s = time.perf_counter()
    for _ in range(passes):
        exec(line, {})
    return (time.perf_counter() - began_s) / passes * 1e6


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_RUNS
    with tempfile.TemporaryDirectory() as scratch:
        without = environment(Path(scratch, "without"), with_us=False)
        installed = environment(Path(scratch, "with"), with_us=True)
        cases = {
            "without the .pth": (without, "pass", False),
            "with it, off": (installed, "pass", False),
            "with it, on": (installed, "pass", True),
            "this environment, off, " + HUB: (sys.executable, HUB, False),
            "this environment, on, " + HUB: (sys.executable, HUB, True),
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for turn in range(runs + 1):
            for name, (interpreter, code, enabled) in cases.items():
                took_ms = start_ms(interpreter, code, enabled=enabled, bytecode=Path(scratch, "bytecode"))
                if turn:  # the first one compiles
                    times[name].append(took_ms)
    for name, values in times.items():
        print(f"{name:60} {statistics.median(values):8.2f} ms  (fastest {min(values):.2f})")
    print(f"{'the .pth line while off':60} {pth_line_us():8.2f} us a pass")


if __name__ == "__main__":
    main()
