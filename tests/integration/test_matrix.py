"""All vectors of a reference set, read a part at a time: in order, of one state of the database, in little memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields

import numpy as np
import pytest
from sqlalchemy import update
from whole import whole

from coarseloc.core import filters
from coarseloc.core.errors import StoreError
from coarseloc.core.filters import TileColumns
from coarseloc.core.types import BBox, EmbeddingSpec, Float32, LonLat, ReferenceSet, Tile, View
from coarseloc.store import Database, Session, embeddings, matrix, references, tallies
from coarseloc.store.tables import EmbeddingRow, TallyRow

ANGLES = (0, 45, 90)
DIM = 16


def tile(index: int, shift: float) -> Tile:
    """Around the antimeridian, so that boxes must be unwrapped, at coordinates that must be rounded."""
    lon = (179.9999 + index / 3e4 + shift + 180.0) % 360.0 - 180.0
    west, east = ((lon + by + 180.0) % 360.0 - 180.0 for by in (-1 / 700, 1 / 700))
    return Tile(index, LonLat(lon, 37.0 + index / 7e3), BBox(west, 37.0 - 1 / 900, east, 37.0 + 1 / 900))


def write(
    session: Session, name: str, indexes: range, seed: int, shift: float = 0.0, dim: int = DIM
) -> tuple[int, int]:
    """Embed these tiles with vectors made of the seed; returns (reference set, spec)."""
    stored = references.save_reference_set(session, ReferenceSet(name, "captures", "/x", None, 0.5, 100.0, ANGLES))
    spec = embeddings.save_spec(session, EmbeddingSpec(f"of {dim}", dim, "abc", 224, (0.5,) * 3, (0.5,) * 3, "cls"))
    tiles = [tile(index, shift) for index in indexes]
    keys = references.save_tiles(session, stored.id, tiles)
    views = [(t, View(a, np.zeros((1, 1, 3), np.uint8), "d" * 64, 1.0, None), "") for t in tiles for a in ANGLES]
    rotated = references.save_views(session, name, keys, views)
    vectors = np.random.default_rng(seed).standard_normal((len(rotated), dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [(key, spec.id, "d" * 64, vector) for key, vector in zip(rotated.values(), vectors, strict=True)]
    embeddings.write_embeddings(session, rows)
    return stored.id, spec.id


@pytest.fixture
def owner(db: Database, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Written from the last tile to the first, beside another reference set; read seven vectors at a time."""
    monkeypatch.setattr(matrix, "PART", 7)
    with db.write() as session:
        write(session, "far", range(6, 12), 1)
        write(session, "beside", range(1, 12), 2)
        return write(session, "far", range(1, 6), 3)


def test_vectors_come_by_tile_then_angle_and_columns_are_those_of_their_facts(db: Database, owner: tuple[int, int]):
    with db.read() as session:
        stored = matrix.load_vectors(session, *owner)
        parts = list(stored.parts)
        facts = embeddings.facts_by_key(session, stored.rotated_tile_ids.tolist())
    assert [len(part) for part in parts] == [7, 7, 7, 7, 5]
    one, other = (
        np.random.default_rng(seed).standard_normal((count * 3, DIM), np.float32) for seed, count in ((3, 5), (1, 6))
    )
    expected = np.concatenate([one, other])
    np.testing.assert_allclose(np.concatenate(parts), expected / np.linalg.norm(expected, axis=1, keepdims=True), 1e-6)
    of_each = filters.columns([facts[key][0] for key in stored.rotated_tile_ids.tolist()])
    assert of_each.tile_id.tolist() == [f"far/{index:05d}" for index in range(1, 12) for _ in ANGLES]
    assert of_each.east.max() > 180.0
    for field in fields(TileColumns):
        found, wanted = getattr(stored.columns, field.name), getattr(of_each, field.name)
        np.testing.assert_array_equal(found, wanted, field.name)
        assert found.dtype == wanted.dtype


def test_writes_in_the_middle_do_not_tear_what_is_read(db: Database, owner: tuple[int, int]):
    with db.read() as session:
        before = whole(session, *owner)
    with db.read() as session:
        stored = matrix.load_vectors(session, *owner)
        parts: list[Float32] = [next(stored.parts)]
        with db.write() as writer:  # every kind of write, at vectors already read and still to be read
            write(writer, "far", range(1, 4), 4, shift=0.01)
            embeddings.mark_deleted(writer, owner[0])
            write(writer, "far", range(9, 14), 5)
        parts += stored.parts
        assert stored.version == before.version
    np.testing.assert_array_equal(np.concatenate(parts), before.vectors)
    with db.read() as session:
        after = whole(session, *owner)
    assert after.version != before.version and len(after.vectors) == 15


def test_what_is_held_in_memory_is_a_part_of_it(db: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(matrix, "PART", 100)
    with db.write() as session:
        owner = write(session, "large", range(1, 401), 1, dim=2048)
    size = 400 * len(ANGLES) * 2048 * 4
    with db.read() as session:
        tracemalloc.start()
        read = sum(part.nbytes for part in matrix.load_vectors(session, *owner).parts)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert read == size and peak < size / 2  # two parts, the keys and the columns


def test_rows_that_contradict_their_tally_are_not_taken_for_the_whole(db: Database, owner: tuple[int, int]):
    with db.write() as session:
        session.execute(update(TallyRow).values(live=TallyRow.live + 1))
    with (
        db.read() as session,
        pytest.raises(StoreError, match=r"counts 34 embeddings .* holds 33: run `coarseloc reconcile`"),
    ):
        matrix.load_vectors(session, *owner)
    with db.write() as session:
        tallies.correct_miscounts(session)
    with db.read() as session:
        assert len(whole(session, *owner).vectors) == 33


def test_a_vector_of_another_length_is_named(db: Database, owner: tuple[int, int]):
    with db.write() as session:
        last = session.query(EmbeddingRow).order_by(EmbeddingRow.rotated_tile_id.desc()).limit(1).one()
        last.vector = last.vector[:-4]
    with db.read() as session, pytest.raises(StoreError, match=r"rotated tile \d+ has 60 bytes, expected 64"):
        whole(session, *owner)
