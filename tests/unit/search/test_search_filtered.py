"""Filtered look-up: what the vector store answers, joined with what SQL knows."""

from __future__ import annotations

import pytest
from whole import whole

from coarseloc.errors import VectorStoreError, VectorStoreUnavailable
from coarseloc.filters import Where
from coarseloc.store import embeddings
from coarseloc.vectors import open_store
from search import query
from search.filtered import lookup
from search.mirror import open_mirror


@pytest.fixture
def store(tmp_path):
    opened = open_store(tmp_path / "vectors")
    yield opened
    opened.close()


def drain(world, store, spec, leave=0):
    """Bring the store up to the database, but for the last `leave` embeddings."""
    with world.db.write() as session:
        pending = embeddings.take_pending(session, spec, 1000)
        done = pending[: len(pending) - leave]
        store.ensure(spec.spec.collection, spec.spec.dim)
        store.upsert(spec.spec.collection, [row.point for row in done])
        store.flush(spec.spec.collection)
        embeddings.mark_indexed(session, done)


def test_it_answers_as_the_exact_index_does(world, fake_backbone, store):
    spec = world.embed(fake_backbone)
    drain(world, store, spec)
    mirror = open_mirror(world.db, world.mirrors, world.reference_set, spec)
    for where in (Where(), Where(angles=(90,)), Where(tile_id="gangnam-300m/00002")):
        vector = mirror.index.vectors[4]
        hits = lookup(store, world.db, spec, vector, 5, where, thumbnails=world.thumbnails)
        exact = query.nearest(mirror, vector, 5, where)
        with world.db.read() as session:
            facts = embeddings.facts_by_key(session, [key for key, _ in exact])
        assert [hit.tile for hit in hits] == [facts[key][0] for key, _ in exact]
        assert [hit.score for hit in hits] == pytest.approx([score for _, score in exact], abs=1e-5)
        assert [hit.rank for hit in hits] == list(range(1, len(exact) + 1))
        assert hits[0].filename == f"251210182149_300_50_0_{hits[0].tile.angle_deg:03d}_{hits[0].tile.tile_id[-5:]}.jpg"


def test_what_is_not_in_the_store_yet_is_said(world, fake_backbone, store):
    spec = world.embed(fake_backbone)
    drain(world, store, spec, leave=7)
    said = []
    hits = lookup(
        store, world.db, spec, embeddings_of(world, spec)[0], 100, thumbnails=world.thumbnails, notice=said.append
    )
    assert len(hits) == 17
    assert said == ["7 embeddings of fake are not in the vector store yet: it may miss references"]


def test_a_store_that_has_nothing_yet_says_what_to_do(world, fake_backbone, store):
    spec = world.embed(fake_backbone)
    vector = embeddings_of(world, spec)[0]
    with pytest.raises(VectorStoreError, match="holds nothing of fake yet, 24 embeddings are pending: run"):
        lookup(store, world.db, spec, vector, 5, thumbnails=world.thumbnails)


def embeddings_of(world, spec):
    with world.db.read() as session:
        return whole(session, world.reference_set.id, spec.id).vectors


def test_a_store_that_is_down_is_named_with_what_goes_on_without_it(world, fake_backbone):
    class Down:
        location = "http://qdrant:6333"

        def collections(self):
            raise VectorStoreUnavailable("http://qdrant:6333 does not answer.")

    spec = world.embed(fake_backbone)
    with pytest.raises(VectorStoreUnavailable, match=r"qdrant:6333 does not answer\. Exact search .* goes on"):
        lookup(Down(), world.db, spec, embeddings_of(world, spec)[0], 5, thumbnails=world.thumbnails)
