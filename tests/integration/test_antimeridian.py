"""A reference set that lies across the antimeridian is laid out as the same set anywhere else."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from databases import settings_of
from PIL import Image

from coarseloc.core import geo
from coarseloc.core.filters import Where
from coarseloc.core.types import BBox, LonLat, ReferenceSet, Tile, View
from coarseloc.imagery.decode import content_digest, thumbnail_path, write_thumbnail
from coarseloc.store import gallery, open_database, references
from web import create_app

COLUMNS, ROWS, STRIDE_M = 5, 3, 150.0
ORIGINS = {"here": LonLat(127.03, -17.0), "across": LonLat(179.998, -17.0)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tiles in two places of the same latitude, each of a colour of its own, with thumbnails."""
    folder = tmp_path_factory.mktemp("antimeridian")
    settings = settings_of(folder)
    database = open_database(settings.database)
    with database.write() as session:
        for name, origin in ORIGINS.items():
            facts = ReferenceSet(name, "orthophoto", "nowhere", 300.0, 0.5, 2 * STRIDE_M, (0,))
            stored = references.save_reference_set(session, facts)
            tiles, views = [], []
            for index in range(COLUMNS * ROWS):
                row, column = divmod(index, COLUMNS)
                centre = geo.offset(origin, column * STRIDE_M, -row * STRIDE_M)
                tiles.append(Tile(index + 1, centre, geo.square(centre, 2 * STRIDE_M)))
                pixels = np.full((64, 64, 3), (40 * column + 40, 60 * row + 60, 128), np.uint8)
                views.append((tiles[-1], View(0, pixels, content_digest(pixels), 1.0, None), "stamp"))
                write_thumbnail(pixels, thumbnail_path(settings.thumbnails, content_digest(pixels)))
            references.save_views(session, name, references.save_tiles(session, stored.id, tiles), views)
    database.close()
    return folder


def test_its_extent_is_as_wide_as_it_is(folder: Path) -> None:
    database = open_database(settings_of(folder).database)
    with database.read() as session:
        found = {one.name: gallery.extent(session, one.id) for one in references.reference_sets(session)}
    database.close()
    assert found["across"].west > 179 and found["across"].east < -179
    widths = {name: (box.east - box.west) % 360.0 for name, box in found.items()}
    assert widths["across"] == pytest.approx(widths["here"])


@pytest.mark.parametrize(
    ("box", "tiles"),
    [
        (BBox(179.9, -18, 179.9995, -16), 9),  # the first column, and the two that cross
        (BBox(-179.9999, -18, -179.9, -16), 12),  # those two, and the two beyond
        (BBox(179.9, -18, -179.9, -16), 15),
        (BBox(10, -18, 20, -16), 0),
    ],
)
def test_tiles_that_touch_a_box_are_counted_on_both_sides(folder: Path, box: BBox, tiles: int) -> None:
    database = open_database(settings_of(folder).database)
    with database.read() as session:
        across = next(one.id for one in references.reference_sets(session) if one.name == "across")
        assert gallery.views_by_set_and_angle(session, Where(touches=box)).get((across, 0), 0) == tiles
    database.close()


def test_its_map_and_its_ground_are_those_of_the_same_set_elsewhere(folder: Path) -> None:
    client = create_app(settings_of(folder)).test_client()
    maps = {one["name"]: one["map"] for one in client.get("/references.json").json["sets"]}
    here, across = maps["here"], maps["across"]
    assert across["metres_per_degree"] == here["metres_per_degree"]
    for name, origin in ORIGINS.items():
        middle = geo.offset(origin, STRIDE_M * (COLUMNS - 1) / 2, -STRIDE_M * (ROWS - 1) / 2)
        assert geo.distance_m(*middle, maps[name]["origin"]["lon"], maps[name]["origin"]["lat"]) < 1
    pictures = [Image.open(io.BytesIO(client.get(one["ground"]).data)).convert("RGB") for one in (here, across)]
    assert pictures[0].size == pictures[1].size
    difference = np.abs(np.subtract(*(np.asarray(picture, int) for picture in pictures)))
    assert (difference > 12).mean() < 0.01 and np.asarray(pictures[0]).std() > 30
    centres = {name: client.get(maps[name]["tiles"]).json["tiles"] for name in ORIGINS}
    for (lon, lat, _), tile in zip(centres["across"], centres["here"], strict=True):
        assert (lon - 179.998) % 360 == pytest.approx(tile[0] - 127.03, abs=2e-6) and lat == tile[1]
