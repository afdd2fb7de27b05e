"""What the yardsticks' processes have in common: they say where they listen, and end with who has started them."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path


def listening(port: int) -> None:
    """Tell the parent. From now on the process ends with its stdin, and so with the parent, however that ends."""
    print(port, flush=True)
    threading.Thread(target=_end_with_parent, name="zest-bench-parent", daemon=True).start()


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def done(call_s: float) -> None:
    """What a download says at its end: how long the call took, and the most memory that this process ever had."""
    # Not ru_maxrss: that also counts the parent's memory before the exec.
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(json.dumps({"call_s": call_s, "peak_bytes": peak * 1024}), flush=True)


def files_in(folder: Path) -> list[Path]:
    """In the order that both ends have."""
    return sorted(path for path in folder.iterdir() if path.is_file())
