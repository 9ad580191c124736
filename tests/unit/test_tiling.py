"""The grid: order, spacing, fit; and footprints."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coarseloc.core import geo, tiling
from coarseloc.core.errors import InputError
from coarseloc.core.types import BBox, LonLat

SEOUL = LonLat(127.0, 37.5)


def area(width_m: float, height_m: float, north_west: LonLat = SEOUL) -> BBox:
    """Bounds of this size, measured at their middle latitude."""
    middle = geo.offset(north_west, 0, -height_m / 2)
    east = geo.offset(middle, width_m, 0).lon
    south = geo.offset(north_west, 0, -height_m).lat
    return BBox(north_west.lon, south, east, north_west.lat)


def metres_between(a: LonLat, b: LonLat) -> tuple[float, float]:
    """(east, north) from a to b."""
    per_lon, per_lat = geo.metres_per_degree(a.lat)
    return ((b.lon - a.lon + 180) % 360 - 180) * per_lon, (b.lat - a.lat) * per_lat


def test_the_first_footprint_lies_in_the_north_west_corner() -> None:
    bounds = area(3000, 2000)
    first = tiling.grid(bounds, 600, 0.5)[0]
    assert first.index == 1
    assert first.bbox.west == pytest.approx(bounds.west, abs=1e-9)
    assert first.bbox.north == pytest.approx(bounds.north, abs=1e-8)


def test_indices_run_west_to_east_then_north_to_south() -> None:
    tiles = tiling.grid(area(1000, 700), 400, 0.25)
    assert [tile.index for tile in tiles] == [1, 2, 3, 4, 5, 6]
    lons, lats = [t.center.lon for t in tiles], [t.center.lat for t in tiles]
    assert lons[0] < lons[1] < lons[2] and lats[0] == lats[1] == lats[2]
    assert lats[3] < lats[0]
    assert lons[3] == pytest.approx(lons[0], abs=1e-5)


def test_an_area_of_exactly_n_strides_keeps_its_last_row_and_column() -> None:
    assert len(tiling.grid(area(1000, 1000), 500, 0.5)) == 9
    assert len(tiling.grid(area(500, 500), 500, 0.5)) == 1
    assert len(tiling.grid(area(500, 500), 500, 0.0)) == 1


@settings(max_examples=60)
@given(
    st.floats(-179, 179),
    st.floats(-70, 70),
    st.floats(200, 2500),
    st.floats(200, 2500),
    st.floats(150, 900),
    st.floats(0, 0.6),
)
def test_tiles_lie_inside_a_stride_apart_and_leave_no_room_for_another(
    lon: float, lat: float, width: float, height: float, footprint: float, overlap: float
) -> None:
    assume(width > footprint * 1.01 and height > footprint * 1.01)
    bounds = area(width, height, LonLat(lon, lat))
    tiles = tiling.grid(bounds, footprint, overlap)
    stride, slack = footprint * (1 - overlap), footprint * 2e-4 + 0.05
    for tile in tiles:
        east, south = metres_between(tile.center, LonLat(bounds.east, bounds.south))
        assert east >= footprint / 2 - slack and -south >= footprint / 2 - slack
        west, north = metres_between(tile.center, LonLat(bounds.west, bounds.north))
        assert -west >= footprint / 2 - slack and north >= footprint / 2 - slack
    for before, after in pairwise(tiles):
        east, north = metres_between(before.center, after.center)
        if abs(north) < stride / 2:
            assert east == pytest.approx(stride, rel=1e-4)
        else:
            assert -north == pytest.approx(stride, rel=1e-4)
    east, south = metres_between(tiles[-1].center, LonLat(bounds.east, bounds.south))
    assert east < footprint / 2 + stride + slack and -south < footprint / 2 + stride + slack


def test_bounds_may_cross_the_antimeridian() -> None:
    bounds = area(2000, 1000, LonLat(179.99, 10))
    assert bounds.west > bounds.east
    tiles = tiling.grid(bounds, 500, 0.5)
    assert len(tiles) == 7 * 3
    assert tiles[0].center.lon > 0 > tiles[6].center.lon


def test_a_row_in_the_south_of_a_wide_area_holds_more_tiles() -> None:
    tiles = tiling.grid(BBox(0, 58, 1, 62), 5_000, 0)
    north = sum(tile.center.lat == tiles[0].center.lat for tile in tiles)
    south = sum(tile.center.lat == tiles[-1].center.lat for tile in tiles)
    assert north < south


def test_an_area_too_small_is_refused_with_its_size_and_the_footprint() -> None:
    with pytest.raises(InputError, match=r"300\.0 m x 200\.0 m.*footprint 640\.0 m"):
        tiling.grid(area(300, 200), 640, 0.5)


@pytest.mark.parametrize("overlap", [-0.1, 1.0, 50, math.nan])
def test_an_impossible_overlap_is_refused(overlap: float) -> None:
    with pytest.raises(InputError, match="overlap"):
        tiling.grid(area(1000, 1000), 100, overlap)


@pytest.mark.parametrize("footprint", [0, -5, math.nan, math.inf])
def test_an_impossible_footprint_is_refused(footprint: float) -> None:
    with pytest.raises(InputError, match="footprint"):
        tiling.grid(area(1000, 1000), footprint, 0.5)


def test_bounds_in_metres_are_refused() -> None:
    with pytest.raises(InputError, match="degrees"):
        tiling.grid(BBox(485902.0, 5205628.0, 490572.0, 5209248.0), 640, 0.5)


def test_a_mistyped_footprint_does_not_fill_the_memory() -> None:
    with pytest.raises(InputError, match="more than"):
        tiling.grid(BBox(0, 0, 10, 10), 1, 0.5)
    with pytest.raises(InputError, match="more than"):
        tiling.grid(BBox(-180, -60, 180, 60), 5000, 0.999)


def test_the_footprint_of_a_field_of_view() -> None:
    assert tiling.footprint_from_fov(300, 90) == pytest.approx(600)
    assert tiling.footprint_from_fov(300, 60) == pytest.approx(346.41, abs=0.01)


@pytest.mark.parametrize(
    ("altitude", "fov"), [(0, 60), (-1, 60), (300, 0), (300, 180), (math.nan, 60), (300, math.nan)]
)
def test_an_impossible_camera_is_refused(altitude: float, fov: float) -> None:
    with pytest.raises(InputError):
        tiling.footprint_from_fov(altitude, fov)


@given(st.floats(50, 2000), st.sampled_from([0.0, 0.25, 0.5, 0.8]), st.floats(-65, 65))
@settings(max_examples=25)
def test_the_footprint_is_told_back_by_the_grids_own_spacing(footprint: float, overlap: float, lat: float) -> None:
    tiles = tiling.grid(area(footprint * 4, footprint * 3, LonLat(10, lat)), footprint, overlap)
    centres = [tile.center for tile in tiles]
    assert tiling.footprint_from_spacing(centres, overlap) == pytest.approx(footprint, rel=1e-3)


def test_spacing_bears_missing_doubled_and_misplaced_tiles() -> None:
    centres = [tile.center for tile in tiling.grid(area(4000, 4000), 400, 0.5)]
    centres = centres[::3] + centres[1::3] + centres[:5] + [LonLat(0, 0)]
    assert tiling.spacing(centres) == pytest.approx(200, rel=1e-3)


def test_spacing_of_one_place_is_refused() -> None:
    with pytest.raises(InputError, match="two"):
        tiling.footprint_from_spacing([SEOUL, SEOUL], 0.5)


def test_a_sample_of_rows_falls_into_step_with_no_column_of_a_grid() -> None:
    rows = tiling.spread_rows(690, 24)
    assert len(set(rows.tolist())) == 24 and (np.diff(rows) > 0).all() and rows[-1] < 690
    assert len(set((rows % 30).tolist())) > 10 and (np.bincount(rows * 4 // 690) == 6).all()
    assert tiling.spread_rows(5, 24).tolist() == [0, 1, 2, 3, 4]
