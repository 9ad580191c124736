"""kill -9 at random moments: nothing is lost, nothing half-written is seen, the same command ends the work."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from databases import database_url
from whole import whole

from coarseloc.imagery.decode import thumbnail_path
from coarseloc.store import embeddings, open_database, references
from coarseloc.vectors import open_store, sync

CHILD = Path(__file__).with_name("ingest_child.py")
KILLS = 10
PAUSE = 0.004  # seconds an image, so that kills find an ingest at work


class Ingests:
    """Starts ingests in processes of their own, one at a time."""

    def __init__(self, parent: subprocess.Popen[str]) -> None:
        self._parent = parent

    def start(self, root: Path, state: Path, pause: float = 0.0, held_after: int | None = None) -> int:
        """The id of a process that begins to work now. held_after: it says `held` and waits after so many images."""
        assert self._parent.stdin is not None
        self._parent.stdin.write(json.dumps([str(root), str(state), database_url(state), pause, held_after]) + "\n")
        self._parent.stdin.flush()
        ready, process = self.next_line().split()
        assert ready == "ready"
        return int(process)

    def end(self) -> list[str]:
        """What it said until it ended, and its exit code."""
        said = [self.next_line()]
        while not said[-1].startswith("ended"):
            said.append(self.next_line())
        return said

    def finish(self, root: Path, state: Path, pause: float = 0.0) -> float:
        """Ingest to the end; returns its seconds."""
        self.start(root, state, pause)
        started = time.monotonic()
        assert self.end() == ["done", "ended 0"]
        return time.monotonic() - started

    def next_line(self) -> str:
        assert self._parent.stdout is not None
        return self._parent.stdout.readline().strip() or pytest.fail("the process of ingests has ended")


@pytest.fixture(scope="module")
def ingests() -> Iterator[Ingests]:
    with subprocess.Popen(
        [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        yield Ingests(parent)


def everything(state: Path) -> dict[tuple[str, int], tuple[bytes, str]]:
    """{(tile, angle): (vector, content digest)} of the one reference set."""
    db = open_database(database_url(state))
    with db.read() as session:
        stored = references.find_reference_set(session, None)
        (spec,) = embeddings.specs(session, stored.id)
        found = whole(session, stored.id, spec.id)
        facts = embeddings.facts_by_key(session, [int(k) for k in found.rotated_tile_ids])
    db.close()
    return {
        (fact.tile_id, fact.angle_deg): (vector.tobytes(), facts[int(key)][2])
        for fact, vector, key in zip(found.facts, found.vectors, found.rotated_tile_ids, strict=True)
    }


def test_ten_kills_at_random_moments_end_in_what_one_clean_run_gives(ingests, make_captures, tmp_path):
    root = make_captures(columns=10, rows=6, angles=(0, 45, 90))
    seconds = ingests.finish(root, tmp_path / "clean", PAUSE)
    clean = everything(tmp_path / "clean")
    assert len(clean) == 180
    rng = random.Random(20251124)
    state, progress = tmp_path / "killed", []
    for number in range(KILLS):
        held_after = 90 if number == 0 else None  # one half-way, however fast this machine is
        process = ingests.start(root, state, PAUSE, held_after)
        if held_after:
            assert ingests.next_line() == "held"
        else:
            time.sleep(rng.uniform(0.0, seconds))
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        ingests.end()
        db = open_database(database_url(state))
        with db.read() as session:
            progress.append(sum(embeddings.pending_counts(session).values()))
        db.close()
    ingests.finish(root, state)
    assert everything(state) == clean
    for _, content in clean.values():
        assert thumbnail_path(state / "thumbnails", content).stat().st_size > 0
    db = open_database(database_url(state))
    store = open_store(state, db.identity)
    (difference,) = sync.reconcile(db, store)
    assert not (difference.missing or difference.orphaned or difference.differing) and difference.compared == 180
    with db.read() as session:
        assert embeddings.pending_counts(session) == {}
    store.close()
    assert 0 < progress[0] < 180, "the first kill found it half-way"


def test_a_kill_between_upsert_and_bookkeeping_only_repeats_the_upsert(ingests, make_captures, tmp_path):
    root, state = make_captures(), tmp_path / "state"
    ingests.finish(root, state)
    db = open_database(database_url(state))
    store = open_store(state, db.identity)
    with db.write() as session:
        (spec,) = embeddings.specs(session)
        embeddings.forget_indexed(session, spec.id)  # as if the kill had come before `mark_indexed`
    assert sync.drain(db, store).upserted == 12
    found = sync.reconcile(db, store)[0]
    assert not (found.missing or found.orphaned or found.differing)
    points = list(store.ids(spec.collection))
    assert all(np.isfinite(vector).all() for vector in store.vectors(spec.collection, points).values())
    store.close()
