"""A map laid together out of captures shows the ground they were cut from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coarseloc.core import geo, rotation
from coarseloc.core.errors import InputError
from coarseloc.core.rotation import Affine
from coarseloc.core.types import LonLat, UInt8
from coarseloc.imagery.mosaics import CaptureWindows, PlacedPicture
from coarseloc.simulate.terrain import render_area

CENTER = LonLat(127.03, 37.49)
TILE_PX, GSD_M = 100, 2.0


@pytest.fixture(scope="module")
def ground() -> UInt8:
    """400 x 400 px of 2 m around CENTER."""
    return render_area(3, 800.0, 800.0, GSD_M)


def captures(ground: UInt8, heading_deg: float) -> dict[Path, tuple[UInt8, PlacedPicture]]:
    """Nine tiles of 200 m, 100 m apart, turned to a heading."""
    pictures = {}
    for row in (-1, 0, 1):
        for column in (-1, 0, 1):
            corner = 200 + column * 50 - TILE_PX / 2, 200 + row * 50 - TILE_PX / 2
            view = rotation.affine_view(ground, Affine(1, 0, corner[0], 0, 1, corner[1]), TILE_PX, heading_deg)
            path = Path(f"{row}{column}.jpg")
            spot = geo.offset(CENTER, column * 100.0, -row * 100.0)
            pictures[path] = (view.pixels, PlacedPicture(path, spot, heading_deg, 200.0))
    return pictures


@pytest.mark.parametrize("heading_deg", [0.0, 45.0, 270.0])
def test_a_mosaic_shows_the_ground(ground: UInt8, heading_deg: float):
    pictures = captures(ground, heading_deg)
    source = CaptureWindows([placed for _, placed in pictures.values()], GSD_M, lambda path: pictures[path][0])
    window = source.window(geo.offset(CENTER, 12.0, 8.0), 240.0, GSD_M)
    assert window.valid is None
    expected = ground[200 - 4 - 60 : 200 - 4 + 60, 200 + 6 - 60 : 200 + 6 + 60].astype(float)
    difference = np.abs(window.pixels.astype(float) - expected).mean()
    shifted = np.abs(window.pixels[:, 1:].astype(float) - expected[:, :-1]).mean()
    assert difference < (0.5 if heading_deg % 90 == 0 else 4.0) and difference < 0.6 * shifted


def test_a_coarser_window_is_the_averaged_ground(ground: UInt8):
    pictures = captures(ground, 0.0)
    source = CaptureWindows([placed for _, placed in pictures.values()], GSD_M, lambda path: pictures[path][0])
    window = source.window(CENTER, 240.0, 8.0)
    piece = Image.fromarray(ground).crop((140, 140, 260, 260))
    expected = np.asarray(piece.resize((30, 30), Image.Resampling.BOX), float)
    assert np.abs(window.pixels.astype(float) - expected).mean() < 3.0


def test_beyond_the_captures_a_window_is_not_valid(ground: UInt8):
    pictures = captures(ground, 0.0)
    source = CaptureWindows([placed for _, placed in pictures.values()], GSD_M, lambda path: pictures[path][0])
    window = source.window(CENTER, 600.0, 4.0)
    assert window.valid is not None and 0.40 < float(window.valid.mean()) < 0.45  # 400 of 600 m a side
    assert not window.pixels[~window.valid].any()
    assert bool(geo.inside(CENTER.lon, CENTER.lat, source.bounds))


def test_a_mosaic_of_nothing_and_of_no_size_is_refused(ground: UInt8):
    with pytest.raises(InputError, match="at least one capture"):
        CaptureWindows([], 1.0)
    pictures = captures(ground, 0.0)
    source = CaptureWindows([placed for _, placed in pictures.values()], GSD_M, lambda path: pictures[path][0])
    with pytest.raises(InputError, match="expected both above 0"):
        source.window(CENTER, 0.0, 1.0)


def test_it_counts_the_pictures_under_a_window(tmp_path):
    here, east = LonLat(127.0, 37.5), geo.offset(LonLat(127.0, 37.5), 100.0, 0.0)
    pictures = [PlacedPicture(tmp_path / name, center, 0.0, 200.0) for name, center in (("a", here), ("b", east))]
    windows = CaptureWindows(pictures, 1.0)
    assert windows.pictures_around(here, 150.0) == 2
    assert CaptureWindows(pictures[:1], 1.0).pictures_around(here, 150.0) == 1
    assert windows.pictures_around(geo.offset(here, -3000.0, 0.0), 150.0) == 0
