"""Which reference is right for which frame, on places laid out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from coarseloc import geo
from coarseloc.types import LonLat
from search.laboratory import truth


@pytest.mark.parametrize("lon", [127.03, 179.9995, -180.0])
def test_a_reference_is_right_within_half_a_footprint_either_way(lon: float) -> None:
    """Across the antimeridian too: the same layout gives the same truth wherever it lies."""
    frame = LonLat(lon, -17.0)
    references = [geo.offset(frame, east, north) for east, north in [(0, 0), (140, -140), (160, 0), (0, -160)]]
    held = truth.of_places([frame, references[2]], references, half_m=150.0)
    assert held.right.tolist() == [[True, True, False, False], [False, True, True, False]]
    assert held.error_m[0] == pytest.approx(
        [0, np.hypot(140, 140), 160, 160], rel=6e-3, abs=1e-6
    )  # ellipsoid against sphere


def test_pictures_are_right_for_themselves_alone() -> None:
    held = truth.of_pictures(2, 3)
    assert held.right.tolist() == [[True, False, False], [False, True, False]] and np.isnan(held.error_m).all()
    places = [LonLat(0.0, 0.0), LonLat(0.0, 1.0), LonLat(1.0, 0.0)]
    assert truth.of_pictures(2, 3, places).error_m.shape == (2, 3)


def test_answers_are_looked_up_for_each_view_of_a_frame() -> None:
    held = truth.Truth(np.array([[True, False], [False, True]]), np.array([[1.0, 9.0], [8.0, 2.0]]))
    right, error_m = held.of(np.array([[0, 1, 1], [1, 1, 0]]))
    assert right.tolist() == [[True, False, False], [True, True, False]]
    assert error_m.tolist() == [[1, 9, 9], [2, 2, 8]]
