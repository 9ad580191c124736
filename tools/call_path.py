"""Functions and files that one command passes through: `python tools/call_path.py search demo-data/flights/ID`.

Runs `coarseloc ARGUMENTS` in this process and counts the product's own functions that were called in any thread, apart
from module bodies, class bodies, lambdas and comprehensions. `--list` before the arguments prints them by file.
"""

from __future__ import annotations

import inspect
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType

ROOT = Path(__file__).parents[1]
PACKAGES = ("coarseloc", "ingest", "search", "web")


def called_functions(arguments: list[str]) -> dict[Path, set[str]]:
    """{file below the root: its functions that were called} of one run of `coarseloc`."""
    sys.path.insert(0, str(ROOT))
    codes: set[CodeType] = set()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            codes.add(frame.f_code)

    from coarseloc.cli import main

    sys.argv = ["coarseloc", *arguments]
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    functions: dict[Path, set[str]] = {}
    for code in codes:
        path = Path(code.co_filename)
        is_function = code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<")
        if is_function and path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PACKAGES:
            functions.setdefault(path.relative_to(ROOT), set()).add(code.co_qualname)
    return functions


if __name__ == "__main__":
    listed = sys.argv[1:2] == ["--list"]
    functions = called_functions(sys.argv[2:] if listed else sys.argv[1:])
    if listed:
        for path, names in sorted(functions.items()):
            print(path, len(names), *sorted(names))
    print(f"{sum(map(len, functions.values()))} functions in {len(functions)} files")
