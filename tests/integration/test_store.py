"""The database: schema, transactions, generations, runs."""

from __future__ import annotations

import threading
from contextlib import closing
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from coarseloc.core.clock import FlightClock
from coarseloc.core.errors import StoreError
from coarseloc.core.types import (
    BBox,
    EmbeddingSpec,
    Flight,
    Frame,
    LonLat,
    Pose,
    RankedTile,
    ReferenceSet,
    Tile,
    Timing,
    View,
)
from coarseloc.store import (
    Database,
    embeddings,
    flights,
    localizations,
    open_database,
    references,
    runs,
    seals,
    snapshots,
    tallies,
)
from coarseloc.store.session import head_revision, schema_change
from coarseloc.store.tables import Base

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
        assert db.revision() == head_revision() == context.get_current_revision()


def test_a_flight_survives_the_way_back_to_schema_6_and_forth_again(db: Database):
    frames = (Frame(1, Path("/f/a.jpg"), "a.jpg", Pose(altitude_label_m=110.0, altitude_datum="takeoff")),)
    with db.write() as session:
        flights.save_flight(session, Flight("f", Path("/f"), frames, clock=FlightClock("exif", 32_400)))
    alembic = Config()
    alembic.set_main_option("script_location", str(resources.files("migrations")))
    with schema_change(db.engine) as connection:
        alembic.attributes["connection"] = connection
        command.downgrade(alembic, "0006")
    assert db.revision() == "0006"
    with closing(open_database(db.engine.url.render_as_string(hide_password=False))) as again, again.read() as session:
        flight = flights.find_flight(session, "f").flight
    assert flight.frames[0].truth == Pose(altitude_label_m=110.0), "what the altitude is above was dropped"
    assert flight.clock == FlightClock("index"), "none of its frames has a time"


def test_damage_is_named_to_whoever_reads_its_block_of_frames(db: Database, monkeypatch: pytest.MonkeyPatch):
    names = [f"{i:04d}.jpg" for i in range(1, 601)]
    frames = tuple(Frame(i, Path("/f") / name, name, Pose()) for i, name in enumerate(names, start=1))
    with db.write() as session:
        flights.save_flight(session, Flight("f", Path("/f"), frames))
    with db.write() as session:
        session.execute(text("UPDATE frames SET pitch_deg = 1 WHERE relative_path = '0590.jpg'"))

    def is_read(*indices: int) -> bool:
        monkeypatch.setattr(seals, "_sound", set())
        with db.read() as session:
            try:
                return len(flights.find_flight(session, "f", indices or None).flight.frames) > 0
            except StoreError as error:
                assert "damaged" in str(error)
                return False

    assert [is_read(5), is_read(580), is_read(5, 580), is_read(5, 601), is_read()] == [True, *[False] * 4]
    with db.write() as session:  # a lost frame, where nothing else is damaged
        session.execute(text("UPDATE frames SET pitch_deg = NULL WHERE relative_path = '0590.jpg'"))
        assert seals.is_sound(session, "flight", 1)
        session.execute(text("DELETE FROM frames WHERE relative_path = '0300.jpg'"))
    assert [is_read(5), is_read(300), is_read(301)] == [True, False, False]
    if db.engine.dialect.name == "sqlite":  # PostgreSQL takes nothing but JSON
        with db.write() as session:
            session.execute(text("UPDATE seals SET blocks = replace(blocks, ':', ';')"))
        assert not is_read(5)
    with db.write() as session:  # as an earlier version sealed it: one digest of all rows
        seals.unseal(session, "flight", 1)
        digest = seals.rows_digest(session, "flight", 1)
        session.execute(text("INSERT INTO seals (kind, owner, digest) VALUES ('flight', 1, :d)"), {"d": digest})
    assert is_read(5)
    with db.write() as session:
        session.execute(text("UPDATE frames SET pitch_deg = 1 WHERE relative_path = '0590.jpg'"))
    assert not is_read(5), "an earlier version's seal has no blocks"


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
        assert embeddings.specs(session, stored.id) == [spec] and spec.embedding_spec == SPEC
        assert embeddings.specs(session, stored.id)[0].digest == SPEC.digest


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


def save_hits(session, run, frame_key, stored, hits):
    """Record a frame's hits, [(rotated tile, score)], as they are now."""
    facts = embeddings.facts_by_key(session, [key for key, _ in hits])
    ranked = [RankedTile(rank, score, *facts[key], key) for rank, (key, score) in enumerate(hits, start=1)]
    keys = snapshots.save_snapshots(session, ranked, {stored.name: stored.uid})
    found = [(keys[hit.tile.point_id], hit.score) for hit in ranked]
    runs.save_frame_result(session, run, frame_key, Timing(1, 2, 3), found)


def test_a_run_goes_on_where_it_stopped_and_a_finished_one_is_not_reopened(db: Database, filled):
    stored, spec, rotated = filled
    frames = tuple(Frame(i, Path(f"/f/{i}.jpg"), f"{i}.jpg", Pose(LonLat(127.0, 37.0), yaw_deg=10.0)) for i in (1, 2))

    def start(session):
        places = snapshots.save_search_map(session, np.zeros((3, 6)))
        return runs.start_run(session, flight, [stored], places, spec, {"k": 2}, {}, 1.0, 6)

    with db.write() as session:
        flight = flights.save_flight(session, Flight("f", Path("/f"), frames))
        run, localization, done = start(session)
        assert done == set()
        save_hits(session, run, flight.frame_keys[1], stored, [(rotated[1, 0], 0.9), (rotated[2, 45], 0.8)])
    with db.write() as session:
        assert start(session) == (run, localization, {flight.frame_keys[1]})
        runs.save_frame_result(session, run, flight.frame_keys[2], None, [], "unreadable")
        runs.finish_run(session, run)
        localizations.finish_localization(session, localization)
        assert start(session)[0] != run
    with db.read() as session:
        (latest,) = runs.latest_runs(session, "f")
        first, second = runs.results(session, latest.id)
    assert [(hit.rank, hit.tile.angle_deg, hit.score) for hit in first.hits] == [(1, 0, 0.9), (2, 45, 0.8)]
    assert first.frame.truth.yaw_deg == 10.0 and first.timing == Timing(1, 2, 3)
    assert second.error == "unreadable" and second.hits == ()


def test_a_deleted_reference_set_leaves_the_runs_that_searched_it_with_what_they_found(db: Database, filled):
    stored, spec, rotated = filled
    frame = Frame(1, Path("/f/1.jpg"), "1.jpg")
    with db.write() as session:
        flight = flights.save_flight(session, Flight("f", Path("/f"), (frame,)))
        places = snapshots.save_search_map(session, np.array([[127.0, 37.0, 126.0, 36.0, 128.0, 38.0]]))
        run, _, _ = runs.start_run(session, flight, [stored], places, spec, {"k": 1}, {}, 1.0, 6)
        save_hits(session, run, flight.frame_keys[1], stored, [(rotated[2, 45], 0.8)])
        runs.finish_run(session, run)
    with db.read() as session:
        before = runs.results(session, run)
    with db.write() as session:
        references.delete_reference_set(session, stored.id)
    with db.read() as session:
        assert references.reference_sets(session) == []
        assert embeddings.facts_by_key(session, list(rotated.values())) == {}  # the live tiles are gone
        assert runs.results(session, run) == before and before[0].hits[0].tile.tile_id == "set/00002"
        (kept,) = runs.runs(session, "f")
        assert kept.reference_set == stored.reference_set
        assert snapshots.search_map(session, kept.search_map).tolist() == [[127.0, 37.0, 126.0, 36.0, 128.0, 38.0]]


def test_an_unknown_flight_or_set_is_answered_with_what_there_is(db: Database, filled):
    with db.read() as session, pytest.raises(StoreError, match="expected one of set"):
        references.find_reference_set(session, "other")
    with db.read() as session, pytest.raises(StoreError, match="none yet"):
        flights.find_flight(session, "other")
