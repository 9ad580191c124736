"""The mirrors of several reference sets as one index, against brute force over what the database holds."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from whole import whole

from coarseloc.core.filters import Where
from coarseloc.core.types import Near
from coarseloc.store import references
from search.mirror_index import index_by_heading, index_tiles, open_mirrors


@pytest.fixture
def sets(world, fake_backbone):
    """Two sets, one of six places and one of the first four of them, which look the same: their scores are equal."""
    other = world.add_reference_set("other")
    spec = world.embed(fake_backbone)
    other.embed(fake_backbone, range(4))
    return spec, [world.reference_set, other.reference_set]


@pytest.fixture
def opened(world, sets):
    spec, both = sets
    return open_mirrors(world.db, world.mirrors, both, spec)


@pytest.fixture
def queries(fake_backbone):
    """float32 [3, 16], of pictures that are nobody's reference."""
    return fake_backbone.embed(np.random.default_rng(5).integers(0, 256, (3, 64, 64, 3), np.uint8))


def brute_force(world, sets, query, k, wanted=lambda facts: True):
    """[(score, point id)]: inner products in float64, rounded once, by score, then point id."""
    spec, both = sets
    scored = []
    with world.db.read() as session:
        for one in both:
            stored = whole(session, one.id, spec.id)
            for facts, vector in zip(stored.facts, stored.vectors, strict=True):
                if wanted(facts):
                    score = np.float32(vector.astype(np.float64) @ query.astype(np.float64))
                    scored.append((-score, UUID(facts.point_id).int, facts.point_id))
    return [(float(-score), point) for score, _, point in sorted(scored)[:k]]


def answers(index, queries, k):
    scores, keys = index.search(queries, k)
    return [[(hit.score, hit.tile.point_id) for hit in index.tiles(*one)] for one in zip(scores, keys, strict=True)]


@pytest.fixture
def stored_vector(world, sets):
    """A reference's own vector, which the same picture in the other set has too."""
    spec, both = sets
    with world.db.read() as session:
        return whole(session, both[1].id, spec.id).vectors[5]


@pytest.mark.parametrize("k", [1, 2, 10, 30, 100])
@pytest.mark.parametrize("copied", [False, True])
def test_two_sets_are_one_search_space_ordered_by_score_then_point_id(
    world, sets, opened, queries, stored_vector, k, copied
):
    index = index_tiles(world.db, opened)
    index = index.copy_rows() if copied else index
    asked = np.vstack([queries, stored_vector])
    assert (index.count, index.headings) == (40, 8)
    found = answers(index, asked, k)
    assert found == [brute_force(world, sets, query, k) for query in asked]
    first = found[-1][:2]
    if k > 1:  # the same picture in both sets
        assert first[0][0] == first[1][0] and first[0][1] < first[1][1]


@pytest.mark.parametrize("copied", [False, True])
def test_filters_narrow_both_sets_alike(world, sets, opened, queries, copied):
    near = Near(*world.centre(0), 160.0)  # the first place, its eastern and its southern neighbour
    index = index_tiles(world.db, opened, Where(angles=(0, 90), near=near))
    index = index.copy_rows() if copied else index
    inside = {world.centre(place) for place in (0, 1, 3)}

    def wanted(facts):
        return facts.angle_deg in (0, 90) and any(facts.center == pytest.approx(centre, abs=1e-9) for centre in inside)

    assert index.count == 12 and index.headings == 4
    assert answers(index, queries, 20) == [brute_force(world, sets, query, 20, wanted) for query in queries]


def test_a_filter_that_only_one_set_meets_leaves_that_one_alone(world, sets, opened, queries):
    index = index_tiles(world.db, opened, Where(tile_id="other/00002"))
    assert index.count == 4
    found = answers(index, queries, 10)
    assert found == [
        brute_force(world, sets, query, 10, lambda facts: facts.tile_id == "other/00002") for query in queries
    ]


def test_a_filter_that_nothing_meets_answers_with_nothing(world, opened, queries):
    index = index_tiles(world.db, opened, Where(altitude_m=(1000.0, 2000.0)))
    scores, keys = index.search(queries, 5)
    assert index.count == 0 and scores.shape == keys.shape == (3, 0)


def test_each_heading_of_both_sets_is_an_index_of_its_own(world, sets, opened, queries):
    headings = index_by_heading(world.db, opened, Where(angles=(90, 180)))
    assert [angle for angle, _ in headings] == [90, 180]
    for angle, index in headings:
        assert index.count == 10
        expected = [
            brute_force(world, sets, query, 10, lambda facts, angle=angle: facts.angle_deg == angle)
            for query in queries
        ]
        assert answers(index, queries, 10) == expected


def test_the_places_that_are_searched_are_those_of_both_sets_each_once(world, opened):
    places = index_tiles(world.db, opened).places()
    assert places.shape == (10, 6)  # six, and four of the other set
    centres = {tuple(np.round(world.centre(place), 6)) for place in range(6)}
    assert {tuple(np.round(row, 6)) for row in places[:, :2]} == centres
    lon, lat, west, south, east, north = places.T
    assert (west < lon).all() and (lon < east).all() and (south < lat).all() and (lat < north).all()


def test_tiles_that_are_gone_since_the_mirror_was_opened_are_left_out(world, sets, opened, queries):
    index = index_tiles(world.db, opened)
    with world.db.write() as session:
        references.delete_reference_set(session, sets[1][1].id)
    found = answers(index, queries, 40)
    assert [len(hits) for hits in found] == [24] * 3
    scores, keys = index.search(queries, 40)
    assert [hit.rank for hit in index.tiles(scores[0], keys[0])] == list(range(1, 25))
