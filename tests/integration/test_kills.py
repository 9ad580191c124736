"""The short form of `make torture`: one kill -9 of each command that writes, at a random moment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

KILLS = Path(__file__).parents[1] / "torture" / "kills.py"


def test_whatever_is_killed_nothing_acknowledged_is_lost_and_the_same_command_finishes(tmp_path):
    memory = Path("/dev/shm")
    folder = memory if memory.is_dir() and os.access(memory, os.W_OK) else tmp_path
    done = subprocess.run(
        [sys.executable, str(KILLS), "--trials", "5", "--commands", "ingest", "drain", "forget", "search", "migrate"],
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
