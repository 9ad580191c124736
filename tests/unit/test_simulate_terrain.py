"""Generated land: deterministic, varied, and one place in every season."""

import math

import numpy as np
import pytest
import rasterio
import rasterio.warp
from hypothesis import given
from hypothesis import strategies as st

from coarseloc.core import geo
from coarseloc.core.errors import InputError
from coarseloc.core.types import LonLat
from coarseloc.imagery.geotiff import utm_epsg, write_rgb
from coarseloc.simulate import polygons
from coarseloc.simulate.canvas import hull
from coarseloc.simulate.terrain import STYLES, render_area, write_area

SMALL = {"width_m": 700.0, "height_m": 500.0, "gsd_m": 4.0}


def edges(pixels):
    grey = pixels.mean(-1)
    return np.hypot(*np.gradient(grey)).ravel()


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_a_seed_always_gives_the_same_land():
    first, repeated, other_seed = (render_area(seed, **SMALL) for seed in (5, 5, 6))
    assert first.shape == (125, 175, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, repeated)
    assert not np.array_equal(first, other_seed)


@pytest.mark.parametrize("style", STYLES)
def test_every_style_has_light_shade_and_colour(style):
    pixels = render_area(3, style=style, **SMALL)
    assert pixels.std() > 12
    assert len(np.unique(pixels.reshape(-1, 3) // 16, axis=0)) > 60


def test_another_season_changes_the_colours_and_keeps_the_plan():
    area = {"width_m": 1400.0, "height_m": 1000.0, "gsd_m": 4.0, "style": "farmland"}
    summer, later, elsewhere = render_area(8, **area), render_area(8, season=2, **area), render_area(9, **area)
    assert np.abs(summer.astype(int) - later).mean() > 8
    assert correlation(edges(summer), edges(later)) > 0.35
    assert abs(correlation(edges(summer), edges(elsewhere))) < 0.15


def test_a_finer_raster_shows_the_same_land():
    fine = render_area(4, 800.0, 800.0, 4.0).astype(float)
    coarse = render_area(4, 800.0, 800.0, 8.0).astype(float)
    averaged = fine.reshape(100, 2, 100, 2, 3).mean((1, 3))
    assert correlation(averaged, coarse) > 0.85


def test_an_unknown_style_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="no terrain style 'desert': choose one of mixed, city"):
        render_area(1, style="desert", **SMALL)


def test_an_area_of_no_size_is_refused():
    with pytest.raises(InputError, match="is no picture"):
        render_area(1, 20.0, 500.0, 4.0)


def test_an_area_is_written_where_it_was_asked_for(tmp_path):
    center = LonLat(127.03, 37.49)
    path = write_area(tmp_path / "deep" / "area.tif", 2, width_m=1200, height_m=1000, gsd_m=2, center=center)
    with rasterio.open(path) as raster:
        assert raster.crs.to_epsg() == 32652
        assert raster.res == (2.0, 2.0)
        assert raster.profile["tiled"]
        assert raster.overviews(1) == [2, 4]
        assert np.array_equal(raster.read().transpose(1, 2, 0), render_area(2, 1200, 1000, 2))
        east, north = raster.xy(raster.height / 2 - 0.5, raster.width / 2 - 0.5)
        (lon,), (lat,) = rasterio.warp.transform(raster.crs, "EPSG:4326", [east], [north])
    assert geo.distance_m(lon, lat, *center) < 1.5
    assert [file.name for file in path.parent.iterdir()] == ["area.tif"]


@pytest.mark.parametrize(
    ("center", "epsg"),
    [((127.03, 37.49), 32652), ((-58.4, -34.6), 32721), ((180.0, 10.0), 32660), ((-180.0, 10.0), 32601)],
)
def test_the_utm_zone_is_that_of_the_centre(center, epsg):
    assert utm_epsg(LonLat(*center)) == epsg


def test_utm_does_not_reach_the_poles(tmp_path):
    with pytest.raises(InputError, match="UTM ends at"):
        write_rgb(tmp_path / "a.tif", np.zeros((8, 8, 3), np.uint8), center=LonLat(0, 88), gsd_m=1)


# --- polygons -----------------------------------------------------------------------------------


def surface(polygon):
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)) / 2


convex = st.builds(
    lambda points: hull([(float(x), float(y)) for x, y in points]),
    st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=8, max_size=20, unique=True),
).filter(lambda polygon: len(polygon) >= 3 and surface(polygon) > 2000)


@given(convex, st.floats(0, math.pi))
def test_a_cut_leaves_two_parts_of_the_whole(polygon, angle):
    parts = polygons.cut(polygon, polygons.centroid(polygon), angle)
    assert sum(surface(part) for part in parts) == pytest.approx(surface(polygon), rel=1e-6)
    assert all(surface(part) > 0 for part in parts)


@given(convex, st.floats(1, 30))
def test_an_inset_polygon_lies_inside(polygon, by):
    inner = polygons.inset(polygon, by)
    assert not inner or surface(inner) < surface(polygon)
    assert all(0 <= x <= 1000 and 0 <= y <= 1000 for x, y in inner)


@given(convex, st.floats(0, math.pi), st.integers(0, 99))
def test_the_pieces_of_a_polygon_cover_it_and_are_small(polygon, angle, seed):
    pieces = list(polygons.subdivide(polygon, np.random.default_rng(seed), 120, 90, angle))
    assert sum(surface(piece) for piece in pieces) == pytest.approx(surface(polygon), rel=1e-6)
    for piece in pieces:
        lo_u, hi_u, lo_v, hi_v = polygons.extent(piece, angle)
        assert hi_u - lo_u <= 1.35 * 120 + 1e-6
        assert hi_v - lo_v <= 1.35 * 90 + 1e-6
