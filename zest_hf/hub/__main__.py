"""``python -m zest_hf.hub``: the same as ``zest hub``."""

from __future__ import annotations

import argparse
import sys

from zest_hf.hub import command


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m zest_hf.hub", description=command.DESCRIPTION)
    command.add_arguments(parser)
    return command.run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
