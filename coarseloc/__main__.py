"""The console script, and `python -m coarseloc`: what holds before a command is known and after it has ended."""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    """Run the command line. Ctrl-C at any moment ends with 130 and no traceback; closed standard streams are none."""
    gc.disable()  # until the command's modules are imported: they stay
    try:
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            if getattr(sys, name) is None:
                setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
        from coarseloc.cli import main as run_command

        run_command()
    except KeyboardInterrupt:  # while modules were imported
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left to tidy up: it may end at once


if __name__ == "__main__":
    main()
