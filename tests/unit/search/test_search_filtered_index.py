"""Filtered look-up: what the vector store answers, as the exact index answers it."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import delete
from whole import whole

from coarseloc.core.errors import VectorStoreError, VectorStoreUnavailable
from coarseloc.core.filters import Where
from coarseloc.localize.localizer import rank
from coarseloc.store import embeddings
from coarseloc.store.tables import EmbeddingRow
from coarseloc.vectors import open_store
from coarseloc.vectors import sync as ingest_index
from search import filtered_index as module
from search.filtered_index import FilteredIndex
from search.mirror_index import index_tiles, open_mirrors


@pytest.fixture
def store(world):
    opened = open_store(world.folder, world.db.identity)
    yield opened
    opened.close()


def drain(world, store, spec, leave=0):
    """Bring the store up to the database, but for the last `leave` embeddings."""
    with world.db.write() as session:
        pending = embeddings.take_pending(session, spec, 1000)
        done = pending[: len(pending) - leave]
        store.ensure(spec.collection, spec.dim)
        store.upsert(spec.collection, [row.point for row in done])
        store.flush(spec.collection)
        embeddings.mark_indexed(session, done)


@pytest.fixture
def said():
    """What a look-up tells its user beside the answer."""
    return []


@pytest.fixture
def filtered_index(world, store, said):
    """`filtered_index(spec, where)`: the store's index; a drain brings all that is pending over."""

    def of(spec, where=Where(), store=store):  # noqa: B008 - frozen
        bring = lambda: ingest_index.drain(world.db, store)  # noqa: E731
        return FilteredIndex(store, world.db, spec, bring, where, said.append)

    return of


def exact_index(world, spec, where=Where()):  # noqa: B008 - frozen
    return index_tiles(world.db, open_mirrors(world.db, world.mirrors, [world.reference_set], spec), where)


def stored_vectors(world, spec):
    with world.db.read() as session:
        return whole(session, world.reference_set.id, spec.id).vectors


def best(index, query, k):
    """The k best of one query as `RankedTile`s."""
    scores, keys = index.search(query[None], k)
    return index.tiles(scores[0], keys[0])


def test_it_answers_as_the_exact_index_does(world, fake_backbone, store, filtered_index, said):
    spec = world.embed(fake_backbone)
    drain(world, store, spec)
    vectors = stored_vectors(world, spec)
    for where in (Where(), Where(angles=(90,)), Where(tile_id="gangnam-300m/00002")):
        found, _ = rank(vectors[[4, 9]], filtered_index(spec, where), 5)
        exact, _ = rank(vectors[[4, 9]], exact_index(world, spec, where), 5)
        assert found == exact and all(found)
        assert [hit.rank for hit in found[0]] == list(range(1, len(found[0]) + 1))
    assert said == []


def test_what_is_not_in_the_store_yet_is_said(world, fake_backbone, store, filtered_index, said):
    spec = world.embed(fake_backbone)
    drain(world, store, spec, leave=7)
    assert len(best(filtered_index(spec), stored_vectors(world, spec)[0], 100)) == 17
    assert said == ["7 embeddings of fake are not in the vector store yet: it may miss references"]


def test_a_store_that_has_nothing_yet_says_what_to_do(world, fake_backbone, filtered_index):
    spec = world.embed(fake_backbone)
    with pytest.raises(VectorStoreError, match="holds nothing of fake yet, 24 embeddings are pending: run"):
        best(filtered_index(spec), stored_vectors(world, spec)[0], 5)


def test_a_store_that_is_down_is_named_with_what_goes_on_without_it(world, fake_backbone, filtered_index):
    class Down:
        location = "http://qdrant:6333"

        def has(self, collection):
            raise VectorStoreUnavailable("http://qdrant:6333 does not answer.")

    spec = world.embed(fake_backbone)
    with pytest.raises(VectorStoreUnavailable, match=r"qdrant:6333 does not answer\. Exact search .* goes on"):
        best(filtered_index(spec, store=Down()), stored_vectors(world, spec)[0], 5)


# --- equal scores -------------------------------------------------------------------------------


@pytest.fixture
def equals(world, fake_backbone, store):
    """(spec, vector) of a set of 240 rotated tiles, 200 of which look the same, as water does."""
    embed = fake_backbone.embed

    def of_water(images):
        vectors = embed(images)
        vectors[20:220] = vectors[20]
        return vectors

    fake_backbone.embed = of_water
    spec = world.embed(fake_backbone, range(60))
    fake_backbone.embed = embed
    drain(world, store, spec)
    return spec, stored_vectors(world, spec)[100]


@pytest.mark.parametrize("where", [Where(), Where(angles=(0, 90, 180))], ids=["all", "three headings"])
def test_of_200_equal_references_both_indexes_show_the_same_ten_in_the_same_order(
    world, equals, filtered_index, said, where
):
    spec, vector = equals
    found = best(filtered_index(spec, where), vector, 10)
    points = [hit.tile.point_id for hit in found]
    assert found == best(exact_index(world, spec, where), vector, 10)
    assert len({hit.score for hit in found}) == 1 and points == sorted(points)
    assert said == []
    (hits,), _ = rank(vector[None], filtered_index(spec, where), 10)
    (exact,), _ = rank(vector[None], exact_index(world, spec, where), 10)
    assert hits == exact


def test_more_equal_references_than_are_looked_at_are_said(equals, filtered_index, said, monkeypatch):
    spec, vector = equals
    monkeypatch.setattr(module, "_MAX_POINTS", 100)
    found = best(filtered_index(spec), vector, 10)
    assert len(found) == 10 and len({hit.score for hit in found}) == 1
    assert said == ["more than 100 references are equal to the last shown: others may stand in its place"]


def test_equals_that_all_fit_are_no_surprise_worth_a_word(world, equals, filtered_index, said, monkeypatch):
    spec, vector = equals
    monkeypatch.setattr(module, "_MAX_POINTS", 220)
    assert best(filtered_index(spec), vector, 10) == best(exact_index(world, spec), vector, 10)
    assert said == []


# --- a store that is behind its database ----------------------------------------------------------


def test_a_store_that_has_lost_points_is_noticed_and_mended_and_then_finds_all(
    world, fake_backbone, store, filtered_index, said
):
    spec = world.embed(fake_backbone)
    drain(world, store, spec)
    collection, vector = spec.collection, stored_vectors(world, spec)[5]
    exact = best(exact_index(world, spec), vector, 24)
    store.delete(collection, [hit.tile.point_id for hit in exact[:10]])  # the best among them
    store.flush(collection)

    assert best(filtered_index(spec), vector, 24) == exact

    assert said == [
        "the vector store holds 14 of 24 references of fake, so that only 14 were found: the rest is written again "
        "from the database"
    ]
    assert store.count(collection) == 24
    said.clear()
    assert best(filtered_index(spec), vector, 24) == exact and said == []


def test_a_narrow_filter_that_finds_few_is_no_loss(world, fake_backbone, store, filtered_index, said):
    spec = world.embed(fake_backbone)
    drain(world, store, spec)
    found = best(filtered_index(spec, Where(tile_id="gangnam-300m/00002")), stored_vectors(world, spec)[5], 10)
    assert len(found) == 4 and said == []


def test_points_that_wait_for_their_deletion_take_nobodys_place(world, fake_backbone, store, filtered_index):
    """A set is marked as deleted, and the store, which has not heard of it yet, proposes its tiles first."""
    gone = world.add_reference_set("gone")
    gone.embed(fake_backbone, range(60), shift=100)
    spec = world.embed(fake_backbone)
    drain(world, store, spec)
    vector = stored_vectors(gone, spec)[0]
    with world.db.write() as session:
        embeddings.mark_deleted(session, gone.reference_set.id)
    found = best(filtered_index(spec), vector, 10)
    assert found == best(exact_index(world, spec), vector, 10) and len(found) == 10


def test_several_queries_have_rows_of_equal_length(world, fake_backbone, store, filtered_index):
    spec = world.embed(fake_backbone)
    drain(world, store, spec)
    scores, keys = filtered_index(spec).search(stored_vectors(world, spec)[:3], 7)
    assert scores.shape == keys.shape == (3, 7) and scores.dtype == np.float32


def test_references_that_only_the_store_knows_are_left_out_and_said(world, fake_backbone, store, filtered_index, said):
    """As after a restore of an older back-up, or where a damaged index of the database hides their rows."""
    spec = world.embed(fake_backbone)
    drain(world, store, spec)
    vector = stored_vectors(world, spec)[5]
    first, *others = best(filtered_index(spec), vector, 24)
    with world.db.write() as session:
        (lost,) = embeddings.facts_by_point(session, [first.tile.point_id]).values()
        session.execute(delete(EmbeddingRow).where(EmbeddingRow.rotated_tile_id == lost[0]))
    assert [hit.tile for hit in best(filtered_index(spec), vector, 24)] == [hit.tile for hit in others]
    assert said[0].startswith("the vector store holds 1 references of fake that the database does not know")
