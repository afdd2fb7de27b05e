"""matplotlib, where it is installed, without a screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zest_hf.errors import ZestError


def pyplot() -> Any:
    """The module. Raises ZestError when it is missing."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        raise ZestError('--plot needs matplotlib: pip install "zest_hf[bench]"') from None
    return pyplot


def check(path: Path) -> None:
    """Whether a picture can be drawn and written there. Raises ZestError."""
    known = pyplot().figure().canvas.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in known:
        raise ZestError(f"--plot is {path}, accepted are names that end with .png, .svg or .pdf")
    if not path.absolute().parent.is_dir():
        raise ZestError(f"{path} cannot be written: there is no such directory")


def save(figure: Any, path: Path) -> None:
    """Raises ZestError when the file cannot be written, or has a name that says nothing that can be drawn."""
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise ZestError(f"{path} cannot be written: {error}") from None
