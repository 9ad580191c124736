"""Tables with a UTM zone beside eastings and northings."""

from __future__ import annotations

from pathlib import Path

import pytest
import rasterio.warp
from PIL import Image

from coarseloc.core import geo
from coarseloc.core.types import Flight, LonLat
from coarseloc.imagery.flights import open_flight
from coarseloc.imagery.stated_labels import StatedLabels

GANGNAM = LonLat(127.02765, 37.49792)
HOBART = LonLat(147.33, -42.88)


def metres(at: LonLat, epsg: int) -> str:
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", f"EPSG:{epsg}", [at.lon], [at.lat])
    return f"{x:.3f},{y:.3f}"


def flight(folder: Path, table: str, crs: str | None = None) -> Flight:
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.jpg")
    (folder / "labels.csv").write_text(table, encoding="utf-8")
    return open_flight(folder, labels=StatedLabels(None, crs))


@pytest.mark.parametrize(
    ("header", "place", "epsg", "zone"),
    [
        ("filename,x,y,zone", GANGNAM, 32652, "52N"),
        ("filename,easting,northing,utm_zone", GANGNAM, 32652, "52 north"),
        ("filename,utm_x,utm_y,zone", GANGNAM, 32652, "UTM zone 52S"),  # band S
        ("filename,X,Y,zone_number,zone_letter", GANGNAM, 32652, "52,S"),
        ("filename,easting,northing,zone,hemisphere", GANGNAM, 32652, "52,North"),
        ("filename,x,y,zone", HOBART, 32755, "55S"),  # the hemisphere: band S ends at 32° north
        ("filename,x,y,zone", HOBART, 32755, "55G"),
    ],
)
def test_eastings_and_northings_are_placed_by_their_zone(
    tmp_path: Path, header: str, place: LonLat, epsg: int, zone: str
) -> None:
    opened = flight(tmp_path / "f", f"{header}\na.jpg,{metres(place, epsg)},{zone}\n")
    location = opened.frames[0].truth.location
    assert location is not None and geo.distance_m(*location, *place) < 0.01
    words = "taken as band S" if "S" in zone and place is GANGNAM else f"taken in EPSG:{epsg}, by their zone"
    assert any(words in notice for notice in opened.notices)


@pytest.mark.parametrize(
    ("cells", "word"),
    [
        ("325892.12,4152310.55,52", "does not say the hemisphere"),
        ("325892.12,4152310.55,99N", "expected 1 to 60"),
        ("4152310.55,325892.12,52N", "are the two exchanged"),
        ("127.02,37.49,52N", "or degrees?"),
    ],
)
def test_a_zone_that_places_nothing_is_refused_with_its_reason(tmp_path: Path, cells: str, word: str) -> None:
    with pytest.raises(Exception, match=word.replace("?", r"\?")):
        flight(tmp_path / "f", f"filename,x,y,zone\na.jpg,{cells}\n")


def test_a_stated_crs_comes_before_the_zone(tmp_path: Path) -> None:
    table = f"filename,x,y,zone\na.jpg,{metres(GANGNAM, 5186)},52S\n"
    location = flight(tmp_path / "f", table, "EPSG:5186").frames[0].truth.location
    assert location is not None and geo.distance_m(*location, *GANGNAM) < 0.01
    opened = flight(tmp_path / "g", "filename,x,y\na.jpg,127.02,37.49\n")
    assert opened.frames[0].truth.location is None and any("not used" in notice for notice in opened.notices)
