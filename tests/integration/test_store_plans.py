"""What is asked again and again reads no more rows than it answers with, however many there are: SQLite's own plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from databases import SERVER
from sqlalchemy import event

from coarseloc.core.types import BBox, EmbeddingSpec, LonLat, ReferenceSet, Tile, View
from coarseloc.store import Database, Session, embeddings, matrix, references, tallies

pytestmark = pytest.mark.skipif(SERVER is not None, reason="PostgreSQL plans by what a table holds, not by its indexes")

SPEC = EmbeddingSpec("vits16", 4, "abc", 224, (0.5,) * 3, (0.5,) * 3, "cls")


@pytest.fixture
def owner(db: Database) -> tuple[references.StoredReferenceSet, embeddings.StoredSpec]:
    with db.write() as session:
        stored = references.save_reference_set(
            session, ReferenceSet("set", "captures", "/x", 300.0, 0.5, 100.0, (0, 45))
        )
        tiles = [Tile(i, LonLat(127.0 + i, 37.0), BBox(126.0, 36.0, 128.0, 38.0)) for i in range(1, 4)]
        keys = references.save_tiles(session, stored.id, tiles)
        views = [(t, View(a, np.zeros((1, 1, 3), np.uint8), "d" * 64, 1.0, None), "") for t in tiles for a in (0, 45)]
        rotated = references.save_views(session, "set", keys, views)
        spec = embeddings.save_spec(session, SPEC)
        rows = [(key, spec.id, "d" * 64, np.eye(4, dtype=np.float32)[key % 4]) for key in rotated.values()]
        embeddings.write_embeddings(session, rows)
    return stored, spec


@contextmanager
def statements(db: Database) -> Iterator[list[tuple[str, Any]]]:
    """What is asked of the database inside, each statement with its parameters, those of the first row for many."""
    asked: list[tuple[str, Any]] = []

    def note(_connection, _cursor, statement, parameters, _context, many):
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            asked.append((statement, parameters[0] if many else parameters))

    event.listen(db.engine, "before_cursor_execute", note)
    yield asked
    event.remove(db.engine, "before_cursor_execute", note)


def plan(db: Database, ask: Callable[[Session], object]) -> list[str]:
    """The steps by which SQLite answers."""
    with db.write() as session:
        with statements(db) as asked:
            ask(session)
        connection = session.connection()
        steps = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all() for text, values in asked]
        session.rollback()
    assert steps
    return [row[-1] for rows in steps for row in rows]


def of(table: str, steps: list[str]) -> list[str]:
    return [step for step in steps if table in step.split()]


def test_a_drain_finds_what_is_behind_in_an_index_of_nothing_else(db: Database, owner):
    _, spec = owner
    steps = plan(db, lambda session: embeddings.take_pending(session, spec, 100))
    assert of("embeddings", steps) == ["SEARCH embeddings USING INDEX ix_embeddings_behind (spec_id=?)"]
    assert not any("SCAN" in step or "TEMP B-TREE" in step for step in steps)


def test_what_is_drained_is_recorded_row_by_row(db: Database, owner):
    stored, spec = owner

    def drain(session: Session) -> None:
        taken = embeddings.take_pending(session, spec, 3)
        embeddings.mark_deleted(session, stored.id)
        gone = embeddings.take_pending(session, spec, 3)
        with statements(db) as asked:
            embeddings.mark_indexed(session, [*taken, *gone])
        assert len(asked) == 2  # one statement for all that are kept, one for all that are deleted

    by_key = "SEARCH embeddings USING INTEGER PRIMARY KEY (rowid=?)"
    assert of("embeddings", plan(db, drain))[-2:] == [by_key, by_key]


def test_what_is_behind_is_counted_without_looking_at_rows(db: Database, owner):
    steps = plan(db, embeddings.pending_counts)
    assert of("embeddings", steps) == ["SCAN embeddings USING COVERING INDEX ix_embeddings_behind"]


def test_whether_anything_was_ever_indexed_is_one_search(db: Database, owner):
    _, spec = owner
    (step,) = plan(db, lambda session: embeddings.has_indexed(session, spec.id))
    assert "(spec_id=? AND indexed_generation>?)" in step


def test_what_a_set_holds_and_whether_its_mirror_is_current_never_looks_at_embeddings(db: Database, owner):
    stored, spec = owner
    steps = plan(db, lambda session: (tallies.tally(session, stored.id, spec.id), embeddings.specs(session, stored.id)))
    assert not of("embeddings", steps) and not any("SCAN" in step for step in steps)


def test_a_part_of_the_vectors_is_found_by_its_keys(db: Database, owner):
    stored, spec = owner
    steps = plan(db, lambda session: next(matrix.load_vectors(session, stored.id, spec.id).parts))
    assert of("embeddings", steps)[-1].endswith("(rotated_tile_id=? AND spec_id=?)")
    assert not any("TEMP B-TREE" in step for step in steps)


@pytest.mark.parametrize("table", ["reference_sets", "tiles", "rotated_tiles"])
def test_deleting_looks_through_no_other_table_for_what_hangs_on_it(db: Database, owner, table: str):
    with db.read() as session:
        steps = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN DELETE FROM {table} WHERE id = 1").all()
    assert len(steps) > 1 and not any("SCAN" in row[-1] for row in steps)
