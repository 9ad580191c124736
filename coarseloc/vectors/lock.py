"""One process at a time: the lock beside the shards, with its owner's name for the message."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from coarseloc.core.errors import LockedError, VectorStoreError


def hold(folder: Path) -> BaseFileLock:
    """Create the folder and lock it for this process until the lock is released or the process dies.

    Raises LockedError naming the process that holds it, VectorStoreError where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", thread_local=False)  # the process owns it, not the thread that opened
        lock.acquire(timeout=0)
        _write_owner(folder / "owner.json")
    except Timeout:
        raise LockedError(
            f"the vectors in {folder} are in use by {_owner(folder / 'owner.json')}. One process at a time: stop "
            "that one, let it do this work, or run a Qdrant server and set COARSELOC_QDRANT_URL."
        ) from None
    except OSError as error:
        raise VectorStoreError(
            f"{folder} cannot be used for vectors ({error.strerror or error}): make it writable, or set "
            "COARSELOC_DATA_DIR to a folder on a local disk"
        ) from error
    return lock


def _write_owner(path: Path) -> None:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
    owner = {"pid": os.getpid(), "command": command, "since": datetime.now(UTC).isoformat(timespec="seconds")}
    path.write_text(json.dumps(owner), encoding="utf-8")


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return f"process {owner['pid']} (`{owner['command']}`, since {owner['since']})"
    except (OSError, ValueError, KeyError):  # it may be writing it just now
        return "another process"
