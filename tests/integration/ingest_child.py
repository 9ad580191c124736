"""A whole ingest and drain in a process of its own, for tests that kill it: ROOT STATE DATABASE [SECONDS_PER_IMAGE]."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

from coarseloc.imagery.captures import open_captures
from coarseloc.store import open_database
from coarseloc.vectors import open_store, sync
from ingest import worker

root, state, database = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
pause = float(sys.argv[4]) if len(sys.argv) > 4 else 0.0

spec = importlib.util.spec_from_file_location("shared_conftest", Path(__file__).parents[1] / "conftest.py")
assert spec and spec.loader
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)


class Slow(shared.FakeBackbone):
    """Slow enough that a kill finds it at work."""

    def embed(self, images):
        time.sleep(pause * len(images))
        return super().embed(images)


worker.COMMIT_SECONDS = 0.05
sync.BATCH, sync.PER_FLUSH = 10, 20
backbone = Slow()
db = open_database(database)
source = open_captures(root)[0]
print("ready", flush=True)  # kills are meant for the work, which takes about half a second from here on
worker.run(db, source, [backbone.spec], lambda _: backbone, state / "thumbnails")
store = open_store(state, db.identity)
sync.drain(db, store)
store.close()
print("done", flush=True)
