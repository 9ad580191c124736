"""Several databases on one Qdrant server: each sees, rebuilds and drops its own collections only."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from databases import database_url
from qdrant_client import QdrantClient, models
from qdrant_servers import HAS_SERVER, server_url

from coarseloc.core.types import BBox, EmbeddingSpec, LonLat, ReferenceSet, Tile, View
from coarseloc.store import Database, embeddings, open_database, references
from coarseloc.vectors import sync
from coarseloc.vectors.server import LocalStore, ServerStore
from search.filtered_index import FilteredIndex

SPEC = EmbeddingSpec("vits16", 4, "abc", 224, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0), "cls")
OF_AN_OLDER_VERSION = f"coarseloc-{SPEC.collection}"


class OnServer(LocalStore):
    """A database's store on a server that others use too."""

    def __init__(self, server: QdrantClient, database: str) -> None:
        self._server = server
        super().__init__(database=database)

    def _connect(self, *_: object) -> QdrantClient:
        return self._server


@pytest.fixture
def server() -> Iterator[QdrantClient]:
    """It holds a collection as versions before the database's identity named them."""
    client = QdrantClient(":memory:")
    client.create_collection(
        OF_AN_OLDER_VERSION, vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT)
    )
    client.upsert(OF_AN_OLDER_VERSION, [models.PointStruct(id=1, vector=[1.0, 0.0, 0.0, 0.0], payload={})])
    yield client
    client.close()


@pytest.fixture
def other(db: Database, tmp_path: Path) -> Iterator[Database]:
    database = open_database(database_url(tmp_path / "other"))
    yield database
    database.close()


def fill(db: Database, tiles: int) -> None:
    """A reference set of this many tiles, embedded and waiting for the vector store."""
    made = [Tile(i, LonLat(127.0 + i * 1e-3, 37.0), BBox(126.9, 36.9, 127.1, 37.1)) for i in range(1, tiles + 1)]
    with db.write() as session:
        stored = references.save_reference_set(
            session, ReferenceSet("area", "captures", "/area", 300.0, 0.5, 300.0, (0,))
        )
        keys = references.save_tiles(session, stored.id, made)
        views = [(tile, View(0, np.zeros((1, 1, 3), np.uint8), "d" * 64, 1.0, None), "stamp") for tile in made]
        rotated = references.save_views(session, stored.point_key, keys, views)
        spec = embeddings.save_spec(session, SPEC)
        vectors = np.eye(4, dtype=np.float32)
        embeddings.write_embeddings(
            session, [(key, spec.id, "d" * 64, vectors[i % 4]) for i, key in enumerate(rotated.values())]
        )


def names(server: QdrantClient) -> set[str]:
    return {collection.name for collection in server.get_collections().collections}


def test_a_rebuild_of_one_database_touches_no_collection_of_another_or_of_an_older_version(
    db: Database, other: Database, server: QdrantClient
) -> None:
    fill(db, 3)
    fill(other, 5)
    assert db.identity != other.identity
    first, second = OnServer(server, db.identity), OnServer(server, other.identity)
    sync.drain(db, first)
    sync.drain(other, second)
    assert first.collections() == second.collections() == [SPEC.collection]  # each its own
    assert len(names(server)) == 3
    untouched = set(second.ids(SPEC.collection))

    assert sync.rebuild(db, first).upserted == 3

    assert set(second.ids(SPEC.collection)) == untouched and len(untouched) == 5
    assert first.count(SPEC.collection) == 3
    assert len(names(server)) == 3 and OF_AN_OLDER_VERSION in names(server)
    assert server.count(OF_AN_OLDER_VERSION).count == 1
    for database, store in ((db, first), (other, second)):
        (difference,) = sync.reconcile(database, store)
        assert not (difference.missing or difference.orphaned or difference.differing)


def test_forgetting_a_set_in_one_database_leaves_the_same_points_of_another(
    db: Database, other: Database, server: QdrantClient
) -> None:
    """Point ids are made of names, so the same captures have the same ids in both."""
    fill(db, 3)
    fill(other, 3)
    first, second = OnServer(server, db.identity), OnServer(server, other.identity)
    sync.drain(db, first)
    sync.drain(other, second)
    assert set(first.ids(SPEC.collection)) == set(second.ids(SPEC.collection))
    sync.delete_reference_set(db, first, "area")
    assert first.count(SPEC.collection) == 0 and second.count(SPEC.collection) == 3


# --- attacked -----------------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[[Database, ServerStore], object]] = {
    "ingest": lambda db, store: fill(db, 9),
    "drain": lambda db, store: sync.drain(db, store),
    "rebuild": lambda db, store: sync.rebuild(db, store),
    "reconcile": lambda db, store: [sync.recount(db), *sync.reconcile(db, store)],
    "forget": lambda db, store: has_set(db) and sync.delete_reference_set(db, store, "area"),
    "drop": lambda db, store: store.drop_all(),
}


def has_set(db: Database) -> bool:
    with db.read() as session:
        return bool(references.reference_sets(session))


def look_up(db: Database, store: ServerStore, said: list[str]) -> list[object]:
    """What a look-up of four pictures answers, and what it says beside."""
    with db.read() as session:
        (spec,) = embeddings.specs(session)
    index = FilteredIndex(store, db, spec, lambda: sync.drain(db, store), notice=said.append)
    scores, points = index.search(np.eye(4, dtype=np.float32), 3)
    return [scores.tolist(), points.tolist()]


def attack(db: Database, store: ServerStore, rng: random.Random, after: Callable[[str], object]) -> None:
    """Do everything that a database does to its vectors, in any order and each at least once."""
    fill(db, 3)
    names = [*OPERATIONS, *rng.choices(list(OPERATIONS), k=24)]
    rng.shuffle(names)
    for name in names:
        OPERATIONS[name](db, store)
        after(name)


def test_whatever_one_database_does_another_of_the_same_names_answers_as_before(
    db: Database, other: Database, server: QdrantClient
) -> None:
    fill(other, 6)
    first, second = OnServer(server, db.identity), OnServer(server, other.identity)
    sync.drain(other, second)
    said: list[str] = []
    expected = look_up(other, second, said)
    before = set(second.ids(SPEC.collection))

    def check(name: str) -> None:
        assert look_up(other, second, said) == expected and said == [], name
        assert set(second.ids(SPEC.collection)) == before, name

    for seed in (1, 2):
        attack(db, first, random.Random(seed), check)
    (difference,) = sync.reconcile(other, second)
    assert not (difference.missing or difference.orphaned or difference.differing)
    assert server.count(OF_AN_OLDER_VERSION).count == 1


@pytest.mark.skipif(not HAS_SERVER, reason="COARSELOC_TEST_QDRANT_URL is not set")
def test_on_a_real_server_look_ups_go_on_beside_another_databases_rebuilds(db: Database, other: Database) -> None:
    key = os.environ.get("COARSELOC_TEST_QDRANT_API_KEY")
    first, second = ServerStore(server_url(), db.identity, key), ServerStore(server_url(), other.identity, key)
    fill(other, 6)
    sync.drain(other, second)
    said: list[str] = []
    expected, answers, over = look_up(other, second, said), [], threading.Event()

    def look_up_again() -> None:
        while not over.is_set():
            answers.append(look_up(other, second, said))

    thread = threading.Thread(target=look_up_again)
    thread.start()
    try:
        attack(db, first, random.Random(3), lambda name: None)
    finally:
        over.set()
        thread.join()
        first.drop_all()
        second.drop_all()
    assert answers and all(answer == expected for answer in answers) and said == []
