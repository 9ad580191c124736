"""The database: schema, transactions, generations, runs."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from coarseloc.errors import StoreError
from coarseloc.store import Database, embeddings, open_database, references, runs, tallies
from coarseloc.store.session import head_revision
from coarseloc.store.tables import Base
from coarseloc.types import BBox, EmbeddingSpec, Flight, Frame, LonLat, Pose, ReferenceSet, Tile, Timing, View

SPEC = EmbeddingSpec("vits16", 4, "abc", 224, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0), "cls")


def tile(index: int, lon: float = 127.0) -> Tile:
    return Tile(index, LonLat(lon + index * 1e-3, 37.0), BBox(lon - 1, 36.0, lon + 1, 38.0))


def view(angle: int = 0, content: str = "d" * 64) -> View:
    return View(angle, np.zeros((1, 1, 3), np.uint8), content, 1.0, None)


@pytest.fixture
def filled(db: Database) -> tuple[references.StoredReferenceSet, embeddings.StoredSpec, dict[tuple[int, int], int]]:
    """Three tiles at two angles, embedded."""
    with db.write() as session:
        stored = references.save_reference_set(
            session, ReferenceSet("set", "captures", "/x", 300.0, 0.5, 100.0, (0, 45))
        )
        tiles = [tile(i) for i in (1, 2, 3)]
        keys = references.save_tiles(session, stored.id, tiles)
        views = [(t, view(angle), "stamp") for t in tiles for angle in (0, 45)]
        rotated = references.save_views(session, "set", keys, views)
        spec = embeddings.save_spec(session, SPEC)
        rows = [(key, spec.id, "d" * 64, np.eye(4, dtype=np.float32)[i % 4]) for i, key in enumerate(rotated.values())]
        embeddings.write_embeddings(session, rows)
    return stored, spec, rotated


def test_the_migrations_make_exactly_the_tables_of_the_models(db: Database):
    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    assert db.revision() == head_revision()


def test_an_unmigrated_database_is_refused_where_migrating_was_not_asked_for(tmp_path: Path):
    with pytest.raises(StoreError, match=r"at nothing, this version needs \d+: run `coarseloc migrate`"):
        open_database(f"sqlite:///{tmp_path}/new.db", migrate=False)


def test_a_database_of_a_newer_coarseloc_is_left_alone(db: Database, tmp_path: Path):
    with db.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="newer coarseloc"):
        open_database(db.engine.url.render_as_string(hide_password=False))


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "x.db").write_bytes(content)
    with pytest.raises(StoreError, match=r"x\.db"):
        open_database(f"sqlite:///{tmp_path}/x.db")


def test_a_failed_write_leaves_nothing(db: Database):
    with pytest.raises(RuntimeError), db.write() as session:
        references.save_reference_set(session, ReferenceSet("half", "captures", "/x", 300.0, 0.5, 100.0, (0,)))
        raise RuntimeError
    with db.read() as session:
        assert references.reference_sets(session) == []


def test_writers_in_threads_wait_for_each_other_and_every_write_has_its_own_generation(db: Database):
    seen: list[int] = []

    def write() -> None:
        for _ in range(10):
            with db.write() as session:
                seen.append(tallies.next_generation(session))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(1, 41))


def test_specs_come_back_as_they_went_in(db: Database, filled):
    stored, spec, _ = filled
    with db.read() as session:
        assert embeddings.specs(session, stored.id) == [spec] and spec.spec == SPEC
        assert embeddings.specs(session, stored.id)[0].spec.digest == SPEC.digest


def test_a_write_during_a_drain_stays_pending(db: Database, filled):
    _, spec, rotated = filled
    with db.read() as session:
        taken = embeddings.take_pending(session, spec, 100)
    with db.write() as session:  # another process embeds one of them again meanwhile
        embeddings.write_embeddings(session, [(rotated[1, 0], spec.id, "e" * 64, np.full(4, 0.5, np.float32))])
    with db.write() as session:
        embeddings.mark_indexed(session, taken)
    with db.read() as session:
        assert embeddings.pending_counts(session) == {SPEC.collection: 1}
        (left,) = embeddings.take_pending(session, spec, 100)
    assert left.point.vector.tolist() == [0.5] * 4


def test_a_deleted_row_written_again_before_the_drain_ends_is_kept(db: Database, filled):
    stored, spec, rotated = filled
    with db.write() as session:
        assert embeddings.mark_deleted(session, stored.id) == 6
        taken = embeddings.take_pending(session, spec, 100)
        assert tallies.tally(session, stored.id, spec.id).live == 0
    with db.write() as session:
        embeddings.write_embeddings(session, [(rotated[1, 0], spec.id, "e" * 64, np.full(4, 0.5, np.float32))])
    with db.write() as session:
        embeddings.mark_indexed(session, taken)
    with db.read() as session:
        assert tallies.tally(session, stored.id, spec.id).live == 1
        assert not embeddings.take_pending(session, spec, 100)[0].deleted


def test_the_version_changes_with_every_write(db: Database, filled):
    stored, spec, rotated = filled
    versions = []
    for change in (
        lambda session: None,
        lambda session: embeddings.write_embeddings(
            session, [(rotated[1, 0], spec.id, "e" * 64, np.ones(4, np.float32))]
        ),
        lambda session: embeddings.mark_deleted(session, stored.id),
    ):
        with db.write() as session:
            change(session)
            versions.append(tallies.tally(session, stored.id, spec.id).version)
    assert len(set(versions)) == 3


def test_a_run_goes_on_where_it_stopped_and_a_finished_one_is_not_reopened(db: Database, filled):
    stored, spec, rotated = filled
    frames = tuple(Frame(i, Path(f"/f/{i}.jpg"), f"{i}.jpg", Pose(LonLat(127.0, 37.0), yaw_deg=10.0)) for i in (1, 2))
    with db.write() as session:
        flight = runs.save_flight(session, Flight("f", Path("/f"), frames))
        run, done = runs.start_run(session, flight, stored, spec, {"k": 2}, {}, 1.0, 6)
        assert done == set()
        runs.save_frame_result(
            session, run, flight.frame_keys[1], Timing(1, 2, 3), [(rotated[1, 0], 0.9), (rotated[2, 45], 0.8)]
        )
    with db.write() as session:
        again, done = runs.start_run(session, flight, stored, spec, {"k": 2}, {}, 1.0, 6)
        assert (again, done) == (run, {flight.frame_keys[1]})
        runs.save_frame_result(session, run, flight.frame_keys[2], None, [], "unreadable")
        runs.finish_run(session, run)
        assert runs.start_run(session, flight, stored, spec, {"k": 2}, {}, 1.0, 6)[0] != run
    with db.read() as session:
        (latest,) = runs.latest_runs(session, "f")
        first, second = runs.results(session, latest.id)
    assert [(hit.rank, hit.tile.angle_deg, hit.score) for hit in first.hits] == [(1, 0, 0.9), (2, 45, 0.8)]
    assert first.frame.truth.yaw_deg == 10.0 and first.timing == Timing(1, 2, 3)
    assert second.error == "unreadable" and second.hits == ()


def test_an_unknown_flight_or_set_is_answered_with_what_there_is(db: Database, filled):
    with db.read() as session, pytest.raises(StoreError, match="expected one of set"):
        references.find_reference_set(session, "other")
    with db.read() as session, pytest.raises(StoreError, match="none yet"):
        runs.find_flight(session, "other")
