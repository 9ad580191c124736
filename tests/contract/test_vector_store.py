"""What every VectorStore does: one suite for Edge, the client's local mode and, where COARSELOC_TEST_QDRANT_URL or
COARSELOC_TEST_QDRANT_BIN is set, a real server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from qdrant_client import QdrantClient
from qdrant_servers import HAS_SERVER, server_url
from random_tiles import clear_of_the_circle, rotated_tiles, wheres

from coarseloc.core.errors import VectorStoreError
from coarseloc.core.filters import Where, columns
from coarseloc.core.types import BBox, Float32, LonLat, Point, TileFacts
from coarseloc.vectors import open_store
from coarseloc.vectors.protocol import VectorStore
from coarseloc.vectors.server import LocalStore

DIM = 16
MakePoints = Callable[..., list[Point]]
NAME = f"contract-{uuid4().hex[:8]}"
DATABASE, OTHER = uuid4().hex, uuid4().hex  # of this run alone, for a server that other runs use too


@pytest.fixture(
    scope="module",
    params=[
        "edge",
        "local",
        pytest.param("server", marks=pytest.mark.skipif(not HAS_SERVER, reason="COARSELOC_TEST_QDRANT_URL is not set")),
    ],
)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def open_backend(backend: str, folder: Path, database: str = DATABASE) -> VectorStore:
    """The store of a database in a folder; a server has only the one."""
    if backend == "local":
        return LocalStore(str(folder / "local"), database)
    if backend == "server":
        return open_store(folder, database, server_url(), os.environ.get("COARSELOC_TEST_QDRANT_API_KEY"))
    return open_store(folder, database)


class Beside(LocalStore):
    """The store of another database on the server, or the folder, of a first one."""

    def __init__(self, first: LocalStore, database: str) -> None:
        self._first = first
        super().__init__(database=database)

    def _connect(self, *_: object) -> QdrantClient:
        return self._first._client

    def close(self) -> None:
        """The client is the first one's."""


@pytest.fixture(scope="module")
def shared(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorStore]:
    # local mode on disk syncs every point for itself
    store = (
        LocalStore(database=DATABASE)
        if backend == "local"
        else open_backend(backend, tmp_path_factory.mktemp("vectors"))
    )
    yield store
    for collection in store.collections():
        if collection.startswith(NAME):
            store.drop(collection)
    store.close()


@pytest.fixture
def collection(shared: VectorStore) -> Iterator[str]:
    """A collection, empty now and emptied afterwards: that is faster than making one for every test."""
    shared.ensure(NAME, DIM)
    yield NAME
    if NAME in shared.collections():
        shared.delete(NAME, list(shared.ids(NAME)))


# --- write and read -----------------------------------------------------------------------------


def test_what_was_written_is_found_best_first_with_its_cosine(
    shared: VectorStore, collection: str, make_points: MakePoints, make_vectors: Callable[..., Float32]
) -> None:
    points = make_points(400)
    shared.upsert(collection, points[:250])
    shared.upsert(collection, points[250:])
    query = make_vectors(1, seed=9)[0]
    scores = np.array([point.vector for point in points]) @ query
    best = np.argsort(-scores)[:10]

    hits = shared.query(collection, query, 10)

    assert [hit.id for hit in hits] == [points[i].id for i in best]
    assert np.allclose([hit.score for hit in hits], scores[best], atol=1e-6)
    assert shared.count(collection) == 400
    assert set(shared.ids(collection)) == {point.id for point in points}


def test_ids_beyond_one_page_are_all_listed_once(shared: VectorStore, collection: str, make_points: MakePoints) -> None:
    points = make_points(2_001)
    shared.upsert(collection, points)
    listed = list(shared.ids(collection))
    assert len(listed) == 2_001
    assert set(listed) == {point.id for point in points}


def test_vectors_come_back_as_they_were_and_unknown_ids_are_left_out(
    shared: VectorStore, collection: str, make_points: MakePoints
) -> None:
    points = make_points(16)
    shared.upsert(collection, points)
    found = shared.vectors(collection, [points[3].id, points[7].id, str(uuid4())])
    assert found.keys() == {points[3].id, points[7].id}
    assert found[points[3].id].dtype == np.float32
    assert np.array_equal(found[points[3].id], points[3].vector)
    assert shared.vectors(collection, []) == {}


def test_an_upsert_of_the_same_ids_replaces_vector_and_payload(
    shared: VectorStore, collection: str, make_points: MakePoints
) -> None:
    shared.upsert(collection, make_points(16))
    changed = [Point(replace(point.facts, altitude_m=None), point.vector) for point in make_points(16, seed=5)]
    shared.upsert(collection, changed)
    assert shared.count(collection) == 16
    assert shared.count(collection, Where(altitude_m=(0, 1000))) == 0
    assert shared.query(collection, changed[4].vector, 1)[0].id == changed[4].id


def test_deleted_points_are_gone_and_deleting_again_is_no_error(
    shared: VectorStore, collection: str, make_points: MakePoints
) -> None:
    points = make_points(24)
    shared.upsert(collection, points)
    gone = [point.id for point in points[:8]]
    shared.delete(collection, gone)
    shared.delete(collection, gone)
    shared.delete(collection, [])
    assert shared.count(collection) == 16
    assert not set(gone) & set(shared.ids(collection))
    assert not set(gone) & {hit.id for hit in shared.query(collection, points[0].vector, 24)}


def test_more_neighbours_asked_than_there_are_gives_all_there_are(
    shared: VectorStore, collection: str, make_points: MakePoints
) -> None:
    assert shared.query(collection, make_points(1)[0].vector, 10) == []
    shared.upsert(collection, make_points(3))
    assert len(shared.query(collection, make_points(1)[0].vector, 10)) == 3
    assert shared.query(collection, make_points(1)[0].vector, 10, Where(tile_id="nowhere/00001")) == []


def test_equal_scores_are_all_found_and_ordered_by_id(
    shared: VectorStore, collection: str, make_points: MakePoints
) -> None:
    points = make_points(40)
    tied = [Point(point.facts, points[0].vector) for point in points[:6]]
    shared.upsert(collection, tied + points[6:])
    hits = shared.query(collection, points[0].vector, 6)
    assert [hit.id for hit in hits] == sorted(point.id for point in tied)
    fewer = shared.query(collection, points[0].vector, 4)
    assert {hit.id for hit in fewer} < {point.id for point in tied}
    assert len({hit.id for hit in fewer}) == 4


def test_scores_are_cosines_at_half_turn_and_a_right_angle_too(
    shared: VectorStore, collection: str, make_points: MakePoints
) -> None:
    axes = np.eye(DIM, dtype=np.float32)
    vectors = [axes[0], axes[1], -axes[0]]
    points = [Point(point.facts, vector) for point, vector in zip(make_points(3), vectors, strict=True)]
    shared.upsert(collection, points)
    hits = shared.query(collection, axes[0], 3)
    assert [hit.id for hit in hits] == [point.id for point in points]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.0, -1.0], abs=1e-6)


# --- collections --------------------------------------------------------------------------------


def test_ensure_again_keeps_the_points_and_another_dim_is_refused(
    shared: VectorStore, collection: str, make_points: MakePoints
) -> None:
    shared.upsert(collection, make_points(8))
    shared.ensure(collection, DIM)
    assert shared.count(collection) == 8
    with pytest.raises(VectorStoreError, match=r"holds vectors of 16 values, not 32"):
        shared.ensure(collection, 32)
    assert shared.count(collection) == 8


def test_a_dropped_collection_is_gone_alone_and_may_be_made_anew(
    shared: VectorStore, collection: str, make_points: MakePoints
) -> None:
    name = f"{NAME}-dropped"
    shared.ensure(name, DIM)
    shared.upsert(name, make_points(8))
    assert {name, collection} <= set(shared.collections())
    assert shared.has(name) and shared.has(collection)
    assert shared.count(collection) == 0
    shared.drop(name)
    shared.drop(name)
    assert name not in shared.collections() and not shared.has(name)
    assert collection in shared.collections()
    for use in (shared.count, shared.ids, lambda gone: shared.upsert(gone, make_points(8))):
        with pytest.raises(VectorStoreError, match=name):
            list(use(name) or ())
    shared.ensure(name, 32)
    assert shared.count(name) == 0


def test_two_databases_share_a_place_and_nothing_in_it(
    backend: str, make_points: MakePoints, make_vectors: Callable[..., Float32], tmp_path: Path
) -> None:
    first = open_backend(backend, tmp_path)
    other = Beside(first, OTHER) if isinstance(first, LocalStore) else open_backend(backend, tmp_path, OTHER)
    name, query = f"{NAME}-both", make_vectors(1)[0]
    for store, points in ((first, make_points(16)), (other, make_points(24, seed=5))):
        store.ensure(name, DIM)
        store.upsert(name, points)
    other.ensure(f"{name}-more", DIM)
    assert (first.count(name), other.count(name)) == (16, 24)
    assert name in first.collections() and f"{name}-more" not in first.collections()
    before = other.query(name, query, 24)

    for collection in first.collections():
        if collection.startswith(name):
            first.drop(collection)

    assert name not in first.collections()
    assert {name, f"{name}-more"} <= set(other.collections())
    assert other.query(name, query, 24) == before
    for collection in (name, f"{name}-more"):
        other.drop(collection)
    other.close()
    first.close()


@pytest.mark.parametrize("name", ["", "..", "a/b", "../up", "Upper", "spa ce", ".hidden", "a\n"])
def test_a_name_that_would_be_a_strange_folder_or_url_is_refused(shared: VectorStore, name: str) -> None:
    with pytest.raises(VectorStoreError, match="collection name"):
        shared.ensure(name, DIM)
    with pytest.raises(VectorStoreError, match="collection name"):
        shared.drop(name)


def test_everything_flushed_is_there_after_opening_again(backend: str, make_points: MakePoints, tmp_path: Path) -> None:
    name, points = f"{NAME}-reopened", make_points(32)
    store = open_backend(backend, tmp_path)
    store.ensure(name, DIM)
    store.upsert(name, points)
    store.delete(name, [points[0].id])
    store.flush(name)
    store.close()

    store = open_backend(backend, tmp_path)
    assert name in store.collections()
    assert set(store.ids(name)) == {point.id for point in points[1:]}
    assert store.query(name, points[5].vector, 1, Where(angles=(points[5].facts.angle_deg,)))[0].id == points[5].id
    store.ensure(name, DIM)
    store.upsert(name, points)
    assert store.count(name) == 32
    store.drop(name)
    store.close()


# --- what is refused ----------------------------------------------------------------------------


def _with_vector(point: Point, vector: Any) -> Point:
    return Point(point.facts, vector)


BAD = {
    "nan": (lambda p: _with_vector(p, np.where(np.arange(DIM) == 3, np.nan, p.vector)), "not finite"),
    "infinite": (lambda p: _with_vector(p, np.full(DIM, np.inf, np.float32)), "not finite"),
    "zero": (lambda p: _with_vector(p, np.zeros(DIM, np.float32)), "norm 0, expected 1"),
    "not unit": (lambda p: _with_vector(p, p.vector * 1.01), "norm 1.01, expected 1"),
    "short": (lambda p: _with_vector(p, p.vector[:-1]), r"shape \[15\]"),
    "a matrix": (lambda p: _with_vector(p, p.vector[None]), r"shape \[1, 16\]"),
    "no uuid": (lambda p: Point(replace(p.facts, point_id="area/00001/000"), p.vector), "not a UUID"),
    "off the globe": (lambda p: Point(replace(p.facts, center=LonLat(127.0, 97.5)), p.vector), "expected WGS84"),
    "metres": (lambda p: Point(replace(p.facts, bbox=BBox(320000, 4150000, 320400, 4150400)), p.vector), "WGS84"),
    "upside down": (lambda p: Point(replace(p.facts, bbox=BBox(127, 38, 128, 37)), p.vector), "WGS84"),
    "nan altitude": (lambda p: Point(replace(p.facts, altitude_m=float("nan")), p.vector), "altitude nan"),
}


@pytest.mark.parametrize("spoil, message", BAD.values(), ids=BAD.keys())
def test_a_batch_with_one_bad_point_is_refused_whole(
    shared: VectorStore,
    collection: str,
    make_points: MakePoints,
    spoil: Callable[[Point], Point],
    message: str,
) -> None:
    points = make_points(16)
    points[11] = spoil(points[11])
    with pytest.raises(VectorStoreError, match=message):
        shared.upsert(collection, points)
    assert shared.count(collection) == 0


def test_a_batch_with_one_id_twice_is_refused_whole(
    shared: VectorStore, collection: str, make_points: MakePoints
) -> None:
    points = make_points(8)
    with pytest.raises(VectorStoreError, match="comes twice"):
        shared.upsert(collection, [*points, points[2]])
    assert shared.count(collection) == 0


def test_an_empty_batch_is_nothing(shared: VectorStore, collection: str) -> None:
    shared.upsert(collection, [])
    assert shared.count(collection) == 0


def test_a_query_of_another_dim_or_not_finite_or_for_nothing_is_refused(shared: VectorStore, collection: str) -> None:
    good = np.eye(DIM, dtype=np.float32)[0]
    with pytest.raises(VectorStoreError, match=r"shape \[8\]"):
        shared.query(collection, good[:8], 1)
    with pytest.raises(VectorStoreError, match="not finite"):
        shared.query(collection, good * np.nan, 1)
    with pytest.raises(VectorStoreError, match="at least 1"):
        shared.query(collection, good, 0)


# --- filters, against numpy ---------------------------------------------------------------------


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(tiles=rotated_tiles(), where=wheres())
def test_every_filter_matches_what_numpy_says(
    shared: VectorStore, collection: str, make_vectors: Callable[..., Float32], tiles: list[TileFacts], where: Where
) -> None:
    tiles = clear_of_the_circle(tiles, where.near)
    vectors = make_vectors(len(tiles) + 1)
    shared.upsert(collection, [Point(tile, vector) for tile, vector in zip(tiles, vectors, strict=False)])
    expected = {tile.point_id for tile, kept in zip(tiles, where.mask(columns(tiles)), strict=True) if kept}

    found = {hit.id for hit in shared.query(collection, vectors[-1], len(tiles) + 1, where)}
    counted = shared.count(collection, where)
    shared.delete(collection, [tile.point_id for tile in tiles])

    assert found == expected
    assert counted == len(expected)


@pytest.mark.parametrize("box", [BBox(179.9, -1, -179.9, 1), BBox(179.9, -1, 180, 1), BBox(-180, -1, -179.9, 1)])
def test_a_footprint_across_the_antimeridian_is_found_from_both_sides(
    shared: VectorStore, collection: str, make_points: MakePoints, box: BBox
) -> None:
    across, elsewhere = make_points(2)
    facts = replace(across.facts, center=LonLat(179.999, 0.0), bbox=BBox(179.99, -0.01, -179.99, 0.01))
    shared.upsert(collection, [Point(facts, across.vector), elsewhere])
    hits = shared.query(collection, elsewhere.vector, 5, Where(touches=box))
    assert [hit.id for hit in hits] == [across.id]
    assert shared.count(collection, Where(touches=BBox(-179.98, -90, 179.98, 90))) == 1  # only the other one
