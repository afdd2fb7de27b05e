"""Coverage-guided fuzzing of the parsers in Python, with atheris (`pip install atheris`).

    python tests/xet/fuzz.py TARGET [libFuzzer options, such as -max_total_time=60]

TARGET is shard, xorb, footer, reconstruction or token. It starts from tests/xet/corpus/TARGET; what it finds goes to
build/fuzz/TARGET. A finding that is fixed belongs into the corpus, which test_fuzz.py replays.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import FunctionType

import atheris
from fuzz_targets import TARGETS

HERE = Path(__file__).parent


def instrument() -> int:
    """Our functions, where they are: an editable installation is imported past atheris's own import hook."""
    functions = [one for one in gc.get_objects() if isinstance(one, FunctionType)]
    found = [one for one in functions if (one.__module__ or "").startswith("zest_hf")]
    for function in found:
        atheris.instrument_func(function)
    return len(found)


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: fuzz.py {'|'.join(TARGETS)} [libFuzzer options]")
    name = sys.argv[1]
    found = HERE.parents[1] / "build" / "fuzz" / name
    found.mkdir(parents=True, exist_ok=True)
    folders = [str(found), str(HERE / "corpus" / name)]
    print(f"{instrument()} functions instrumented")
    atheris.Setup([sys.argv[0], *sys.argv[2:], *folders], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
