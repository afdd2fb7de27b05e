"""The systemd user unit that has zest-seed running from login on, or from boot with lingering."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from zest_hf.errors import ConfigError, StorageError
from zest_hf.seed.places import PLACES, lasting

UNIT = "zest-seed.service"
COMMANDS = ("systemctl --user daemon-reload", f"systemctl --user enable --now {UNIT}")

_TEXT = """\
# Written by `zest start --systemd`. To have it run from boot on, not from login on: loginctl enable-linger
[Unit]
Description=Offers what is in the Hugging Face cache to peers
After=network-online.target

[Service]
Type=exec
ExecStart={command}
{environment}Restart=on-failure
RestartSec=5
TimeoutStopSec=5
Nice=10
IOSchedulingClass=idle

[Install]
WantedBy=default.target
"""


def write_unit(environ: Mapping[str, str]) -> Path:
    """Writes the unit with the settings of ``environ``; its path.

    Raises ConfigError for what must not or cannot be written there, StorageError.
    """
    key = environ.get("ZEST_SWARM_KEY", "")
    if key and not key.strip().startswith("file:"):
        raise ConfigError("ZEST_SWARM_KEY would lie open in the unit: put the secret into a file, and set file:PATH")
    wanted = (*PLACES, "HF_ENDPOINT")
    names = sorted(name for name in environ if name in wanted or name.startswith("ZEST_"))
    lines = [f"Environment={_quoted(f'{name}={lasting(name, environ[name])}')}\n" for name in names if environ[name]]
    # Not the script of that name: it is not there in every kind of installation.
    program = [sys.executable, "-c", "import sys; from zest_hf.cli import seed_main; sys.exit(seed_main())"]
    command = " ".join(_quoted(word).replace("$", "$$") for word in program)
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    path = Path(base, "systemd", "user", UNIT)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_TEXT.format(command=command, environment="".join(lines)), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    return path


def _quoted(word: str) -> str:
    """As systemd.syntax(7) has it; `%` begins a specifier there."""
    if not word.isprintable():
        raise ConfigError(f"{word.partition('=')[0]} has characters that cannot be written into a unit")
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{word}"'
