"""Whole ingests and drains in processes of their own, for tests that kill them.

Each line of the input, `[root, state, database, seconds per image, images before it waits]` in JSON, is forked: what
is imported here is imported once. The child says `ready` with its id, `held` and `done`, this process how it ended.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
import traceback
from pathlib import Path

from coarseloc.imagery.captures import open_captures
from coarseloc.store import open_database
from coarseloc.vectors import open_store, sync
from ingest import worker

spec = importlib.util.spec_from_file_location("shared_conftest", Path(__file__).parents[1] / "conftest.py")
assert spec and spec.loader
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)


class Slow(shared.FakeBackbone):
    """Slow enough that a kill finds it at work."""

    def __init__(self, pause: float, held_after: int | None) -> None:
        super().__init__()
        self._pause, self._held_after = pause, held_after

    def embed(self, images):
        if self._held_after is not None and self.images >= self._held_after:
            print("held", flush=True)
            time.sleep(600)
        time.sleep(self._pause * len(images))
        return super().embed(images)


def ingest(root: str, state: str, database: str, pause: float, held_after: int | None) -> None:
    backbone = Slow(pause, held_after)
    db = open_database(database)
    source = open_captures(Path(root))[0]
    print("ready", os.getpid(), flush=True)  # kills are meant for the work, which takes about half a second
    worker.run(db, source, [backbone.spec], lambda _: backbone, Path(state) / "thumbnails")
    store = open_store(Path(state), db.identity)
    sync.drain(db, store)
    store.close()
    print("done", flush=True)


worker.COMMIT_SECONDS = 0.05
sync.BATCH, sync.PER_FLUSH = 10, 20
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            ingest(*json.loads(line))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
