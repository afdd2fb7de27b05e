"""Writes the C source of the extension module from the public headers (cffi, out-of-line API mode).

    build_shim.py MODULE OUTPUT.c HEADER.h [HEADER.h ...]

The headers are the definition: preprocessor lines, and what is meant for C++ only, are dropped, and
the rest goes to ``FFI.cdef``. So a header and its Python side cannot drift apart: the compiler checks
one against the other.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cffi import FFI

PACKAGE = "zest_hf._native"


def declarations(header: str) -> str:
    """The plain C declarations of a header; of the conditions only ``__cplusplus`` is known."""
    kept: list[str] = []
    cpp_depth = 0
    for line in header.splitlines():
        directive = line.lstrip()
        if directive.startswith("#"):
            word = directive[1:].split(maxsplit=1)[0] if directive[1:].strip() else ""
            if cpp_depth:
                cpp_depth += word.startswith("if")
                cpp_depth -= word == "endif"
            elif word == "ifdef" and "__cplusplus" in directive:
                cpp_depth = 1
        elif not cpp_depth:
            kept.append(line)
    return "\n".join(kept) + "\n"


def main(arguments: list[str]) -> int:
    if len(arguments) < 3:
        sys.stderr.write("usage: build_shim.py MODULE OUTPUT.c HEADER.h ...\n")
        return 2
    module, *paths = arguments
    output, *headers = map(Path, paths)
    ffi = FFI()
    for header in headers:
        ffi.cdef(declarations(header.read_text(encoding="utf-8")))
    includes = "".join(f'#include "{header.name}"\n' for header in headers)
    ffi.set_source(f"{PACKAGE}.{module}", includes, py_limited_api=True)
    ffi.emit_c_code(str(output))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
