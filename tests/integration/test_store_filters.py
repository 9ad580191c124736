"""SQL's spelling of a filter, against numpy's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from random_tiles import SETS, clear_of_the_circle, rotated_tiles, wheres
from sqlalchemy import select

from coarseloc.core.filters import Where, columns
from coarseloc.core.types import BBox, LonLat, Near, ReferenceSet, Tile, TileFacts, View
from coarseloc.store import Database, Session, filters, gallery, references
from coarseloc.store.tables import RotatedTileRow, TileRow


@pytest.fixture
def sets(db: Database) -> Iterator[dict[str, int]]:
    """{name: primary key} of the reference sets, without tiles."""
    with db.write() as session:
        facts = [ReferenceSet(name, "captures", "/x", at, by, 300.0, (0,)) for name, (at, by) in SETS.items()]
        stored = [references.save_reference_set(session, one) for one in facts]
    yield {one.name: one.id for one in stored}


def write(session: Session, sets: dict[str, int], tiles: Sequence[TileFacts]) -> None:
    for (name, tile_id), turned in groupby(tiles, key=lambda facts: (facts.reference_set, facts.tile_id)):
        headings = list(turned)
        tile = Tile(int(tile_id.rpartition("/")[2]), headings[0].center, headings[0].bbox)
        views = [View(f.angle_deg, np.zeros((1, 1, 3), np.uint8), "d" * 64, 1.0, None) for f in headings]
        keys = references.save_tiles(session, sets[name], [tile])
        references.save_views(session, name, keys, [(tile, view, "") for view in views])


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(tiles=rotated_tiles(), where=wheres())
def test_every_filter_in_sql_matches_what_numpy_says(
    db: Database, sets: dict[str, int], tiles: list[TileFacts], where: Where
) -> None:
    tiles = clear_of_the_circle(tiles, where.near)
    kept = [tile for tile, matches in zip(tiles, where.mask(columns(tiles)), strict=True) if matches]
    with db.write() as session:
        write(session, sets, tiles)
        query = select(TileRow.reference_set_id, TileRow.index, RotatedTileRow.angle_deg)
        joined = query.join(RotatedTileRow, RotatedTileRow.tile_id == TileRow.id)
        found = {tuple(row) for row in session.execute(joined.where(*filters.conditions(where)))}
        counted = gallery.views_by_set_and_angle(session, where)
        session.rollback()

    assert found == {(sets[t.reference_set], int(t.tile_id.rpartition("/")[2]), t.angle_deg) for t in kept}
    assert sum(counted.values()) == len(kept)


@pytest.mark.parametrize(
    ("where", "count"),
    [
        (Where(), 2),
        (Where(("north",)), 1),
        (Where(("north", "south")), 2),
        (Where(altitude_m=(0, float("inf"))), 1),  # the south's is not known
        (Where(touches=BBox(179.9, -1, -179.9, 1)), 1),
        (Where(near=Near(-179.999, 0, 500)), 1),
        (Where(("south",), near=Near(-179.999, 0, 500)), 0),
    ],
)
def test_views_are_counted_by_any_filter(db: Database, sets: dict[str, int], where: Where, count: int) -> None:
    across = TileFacts(
        "", "north", "north/00001", "", 0, 300.0, 0.5, LonLat(179.999, 0.0), BBox(179.99, -0.01, -179.99, 0.01)
    )
    beside = TileFacts("", "south", "south/00001", "", 0, None, 0.8, LonLat(10.0, 0.0), BBox(9.99, -0.01, 10.01, 0.01))
    with db.write() as session:
        write(session, sets, [across, beside])
        assert sum(gallery.views_by_set_and_angle(session, where).values()) == count
