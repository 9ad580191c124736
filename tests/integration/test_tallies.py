"""Tallies: always what the rows say, whatever is written, deleted, drained, rolled back or killed."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from databases import database_url
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, text

from coarseloc.core.types import BBox, EmbeddingSpec, LonLat, ReferenceSet, Tile, View
from coarseloc.store import Database, Session, embeddings, open_database, references, tallies
from coarseloc.store import session as store_session
from coarseloc.store.tables import EmbeddingRow, ReferenceSetRow, RotatedTileRow, TallyRow, TileRow
from coarseloc.vectors import sync

SETS, BACKBONES, TILES, ANGLES = ("near", "far"), ("vits16", "vitb16"), (1, 2, 3), (0, 45)
DIM = 4


def spec(backbone: str) -> EmbeddingSpec:
    return EmbeddingSpec(backbone, DIM, "abc", 224, (0.5,) * 3, (0.5,) * 3, "cls")


def tile(place: int, shift: float = 0.0) -> Tile:
    return Tile(place, LonLat(127.0 + place * 1e-3 + shift, 37.0), BBox(126.0, 36.0, 128.0, 38.0))


def write(session: Session, name: str, places: tuple[int, ...], backbones: tuple[str, ...], shift: float = 0.0) -> None:
    """What an ingest commits: tiles (moved where `shift` has changed), views, vectors."""
    stored = references.save_reference_set(session, ReferenceSet(name, "captures", "/x", 300.0, 0.5, 100.0, ANGLES))
    tiles = [tile(place, shift) for place in places]
    keys = references.save_tiles(session, stored.id, tiles)
    views = [(t, View(a, np.zeros((1, 1, 3), np.uint8), "d" * 64, 1.0, None), "") for t in tiles for a in ANGLES]
    rotated = references.save_views(session, name, keys, views)
    vectors = np.eye(DIM, dtype=np.float32)
    rows = [
        (key, embeddings.save_spec(session, spec(backbone)).id, "d" * 64, vectors[key % DIM])
        for key in rotated.values()
        for backbone in backbones
    ]
    embeddings.write_embeddings(session, rows)


def mark(session: Session, name: str) -> None:
    for stored in references.reference_sets(session):
        if stored.name == name:
            embeddings.mark_deleted(session, stored.id)


def drop(session: Session, name: str) -> None:
    for stored in references.reference_sets(session):
        if stored.name == name:
            references.delete_reference_set(session, stored.id)


def drain(session: Session, backbone: str, limit: int) -> None:
    for stored in embeddings.specs(session):
        if stored.backbone == backbone:
            embeddings.mark_indexed(session, embeddings.take_pending(session, stored, limit))


def forget(session: Session, backbone: str) -> None:
    for stored in embeddings.specs(session):
        if stored.backbone == backbone:
            embeddings.forget_indexed(session, stored.id)


def some_of(values):
    return st.lists(st.sampled_from(values), min_size=1, unique=True).map(tuple)


WRITES = st.tuples(
    st.just(write), st.sampled_from(SETS), some_of(TILES), some_of(BACKBONES), st.sampled_from([0.0, 1e-3])
)
CHANGES = st.one_of(
    WRITES,
    WRITES,
    WRITES,  # as often as all that takes away, or there would be little to take
    st.tuples(st.just(mark), st.sampled_from(SETS)),
    st.tuples(st.just(drain), st.sampled_from(BACKBONES), st.integers(1, 12)),
    st.tuples(st.just(forget), st.sampled_from(BACKBONES)),
    st.tuples(st.just(drop), st.sampled_from(SETS)),
)
GIVEN_UP = st.sampled_from([False, False, False, True])


class GivenUpError(Exception):
    """A write that fails after it has done everything but commit."""


def rows_say(session: Session) -> dict[tuple[int, int], dict[int, int]]:
    """{(reference set, spec): {live embedding: generation}}, read row by row."""
    query = (
        select(TileRow.reference_set_id, EmbeddingRow)
        .join(RotatedTileRow, RotatedTileRow.tile_id == TileRow.id)
        .join(EmbeddingRow, EmbeddingRow.rotated_tile_id == RotatedTileRow.id)
    )
    found: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    for owner, row in session.execute(query):
        if not row.deleted:
            found[owner, row.spec_id][row.id] = row.generation
    return found


@given(changes=st.lists(st.tuples(CHANGES, GIVEN_UP), min_size=6, max_size=14))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_a_tally_is_what_the_rows_say_after_any_sequence_of_writes_and_a_version_stands_for_one_state(
    db: Database, changes: list[tuple[tuple, bool]]
):
    with db.write() as session:
        session.execute(delete(ReferenceSetRow))
    states: dict[tuple[int, int, str], dict[int, int]] = {}
    for (change, *what), given_up in changes:
        try:
            with db.write() as session:
                change(session, *what)
                if given_up:
                    raise GivenUpError
        except GivenUpError:
            pass
        with db.read() as session:
            rows = rows_say(session)
            for owner in rows.keys() | set(session.execute(select(TallyRow.reference_set_id, TallyRow.spec_id))):
                tally = tallies.tally(session, *owner)
                live = rows.get(owner, {})
                assert tally.live == len(live)
                assert tally.newest >= max(live.values(), default=0)
                assert states.setdefault((*owner, tally.version), live) == live
            assert tallies.miscounts(session) == {}
            for stored in references.reference_sets(session):
                held = [one.id for one in embeddings.specs(session, stored.id)]
                assert held == sorted(spec_id for owner, spec_id in rows if owner == stored.id)


def _write_until_killed(url: str, ready) -> None:
    db, places = open_database(url), random.Random(0)
    while True:
        with db.write() as session:
            write(session, "near", (places.randrange(1, 40),), BACKBONES)
        with db.write() as session:
            drain(session, "vits16", 5)
        if places.random() < 0.1:
            with db.write() as session:
                mark(session, "near")
        ready.set()


def test_a_kill_at_any_moment_leaves_tallies_that_the_rows_confirm(db: Database, tmp_path: Path):
    url, children, seen = database_url(tmp_path / "state"), multiprocessing.get_context("fork"), set()
    db.engine.dispose()  # a forked child must not share our connection
    for pause in (0.05, 0.2, 0.4, 0.6):
        ready = children.Event()
        child = children.Process(target=_write_until_killed, args=(url, ready))
        child.start()
        assert ready.wait(120)
        time.sleep(pause)
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        with db.read() as session:
            assert tallies.miscounts(session) == {}
            seen.update(session.execute(select(TallyRow.live, TallyRow.newest)))
    assert len(seen) > 1, "the child wrote nothing: the kills came too early"


@pytest.fixture
def filled(db: Database) -> tuple[int, int]:
    """The owner (reference set, spec) of six embeddings."""
    with db.write() as session:
        write(session, "near", TILES, ("vits16",))
        return references.find_reference_set(session, "near").id, embeddings.specs(session)[0].id


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE embedding_tallies SET live = live + 1",
        "UPDATE embedding_tallies SET newest = 0",
        "DELETE FROM embedding_tallies",
    ],
)
def test_a_tally_that_lies_is_found_and_mended_and_its_version_is_new(db: Database, filled, damage: str):
    with db.write() as session:
        before = tallies.tally(session, *filled).version
        session.execute(text(damage))
        lie = tallies.tally(session, *filled)
    (miscount,) = sync.recount(db)
    assert (miscount.reference_set, miscount.found, miscount.rows.live) == ("near", lie, 6)
    with db.read() as session:
        mended = tallies.tally(session, *filled)
    assert mended.live == 6 and mended.version not in (before, lie.version)
    assert sync.recount(db) == []


def test_reconcile_says_which_tally_it_has_mended(coarseloc, ingested, state: Path):
    db = open_database(database_url(state))
    with db.write() as session:
        session.execute(text("UPDATE embedding_tallies SET live = live + 1"))
    db.close()
    assert "said 13 embeddings and there are 12: mended" in " ".join(coarseloc("reconcile").out.split())
    assert coarseloc("reconcile", "--json").json["miscounts"] == []


def test_a_database_of_the_revision_before_is_counted_once_when_it_is_upgraded(tmp_path: Path, monkeypatch):
    url = database_url(tmp_path / "state")
    db = open_database(url)
    with db.write() as session:
        write(session, "near", TILES, BACKBONES)
        write(session, "far", (1,), ("vits16",))
        mark(session, "far")
        write(session, "far", (2,), ("vits16",))
        expected = session.execute(select(TallyRow.reference_set_id, TallyRow.spec_id, TallyRow.live)).all()
    assert [live for *_, live in expected] == [6, 6, 2]
    with db.engine.begin() as connection:
        connection.execute(text("DROP TABLE embedding_tallies"))  # as the revision before had none
        script = ScriptDirectory.from_config(store_session._alembic_config()).get_revision("0003")
        with Operations.context(MigrationContext.configure(connection)):
            script.module.upgrade()
    db.close()
    upgraded = open_database(url)
    with upgraded.write() as session:
        assert tallies.miscounts(session) == {}
        found = session.execute(select(TallyRow.reference_set_id, TallyRow.spec_id, TallyRow.live)).all()
        assert sorted(found) == sorted(expected)
        write(session, "near", (1, 4), ("vits16",))
        assert tallies.miscounts(session) == {}
    upgraded.close()
