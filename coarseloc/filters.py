"""The filter on reference tiles: parsed from text, said as JSON, and evaluated on arrays. Pure.

`Where` is what the command line (`--angle 45`), the pages (`?angle=45`) and a notebook ask by; `Where.parse` is the one
parser of its texts. `mask` is the filter of the exact mirrors and the oracle of the vector stores' own spelling.

Footprints are compared at seven decimals of a degree (about 1 cm), here and in the vector stores, and with their
longitudes unwrapped: a footprint across the antimeridian (west > east) has 360 added to its east, so that west <= east
always holds. Two footprints then touch when they do so at the same longitudes or a whole turn apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coarseloc import ids
from coarseloc.errors import InputError
from coarseloc.geo import EARTH_RADIUS_M, distance_m
from coarseloc.types import BBox, Bools, Floats, TileFacts

DECIMALS = 7


class Near(NamedTuple):
    """Within `radius_m` metres (great circle) of a position."""

    lon: float
    lat: float
    radius_m: float


@dataclass(frozen=True, slots=True)
class Where:
    """Filters on reference tiles; None, or (), means "any"."""

    reference_sets: tuple[str, ...] = ()  # any of them: several are one search space
    tile_id: str | None = None
    angles: tuple[int, ...] | None = None
    altitude_m: tuple[float, float] | None = None  # inclusive
    overlap_pct: int | None = None
    touches: BBox | None = None  # the footprint touches this box
    near: Near | None = None  # the centre lies within

    def __post_init__(self) -> None:
        """Raises InputError for what no tile can be."""
        # `not low <= high` so that NaN is refused too
        if self.altitude_m and not self.altitude_m[0] <= self.altitude_m[1]:
            raise InputError(f"altitude range {self.altitude_m} is the wrong way round: give LOW:HIGH")
        if wrong := [angle for angle in self.angles or () if not 0 <= angle < 360]:
            raise InputError(f"angle {wrong[0]} is no heading: give degrees from 0 to 359")
        if self.touches:
            west, south, east, north = self.touches
            _check_positions("bbox", [west, east], [south, north])
            if south > north:
                raise InputError(f"bbox {tuple(self.touches)} has south above north: give west,south,east,north")
        if self.near:
            lon, lat, radius_m = self.near
            _check_positions("near", [lon], [lat])
            if not 0 < radius_m < math.inf:
                raise InputError(f"near has a radius of {radius_m:g} m: give metres above 0")

    @classmethod
    def parse(cls, texts: Mapping[str, Sequence[str]]) -> Where:
        """From texts by key, as a command line's options or an address's query give them.

        A key may come several times where it names alternatives: `angle` (or with commas: 0,45) and `reference_set`
        (whose names may hold commas). Empty texts ask for nothing. Raises InputError for an unknown key, and for a
        malformed value, saying what was expected.
        """
        if unknown := [key for key in texts if key not in _PARSERS]:
            raise InputError(f"filter {unknown[0]!r} is not known: expected some of {', '.join(_PARSERS)}")
        fields: dict[str, Any] = {}
        for key, values in texts.items():
            given = [value.strip() for value in values if value.strip()]
            if given:
                field, several, parser = _PARSERS[key]
                if len(given) > 1 and not several:
                    raise InputError(f"{key} is given {len(given)} times ({', '.join(given)}): give it once")
                fields[field] = parser(key, given)
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """Only what it asks for, positions by name; `from_json` reads it."""
        facts: dict[str, Any] = {
            "reference_sets": list(self.reference_sets) or None,
            "tile_id": self.tile_id,
            "angles": self.angles and list(self.angles),
            "altitude_m": self.altitude_m and list(self.altitude_m),
            "overlap_pct": self.overlap_pct,
            "bbox": self.touches and list(self.touches),
            "near": self.near and self.near._asdict(),
        }
        return {name: value for name, value in facts.items() if value is not None}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Where:
        """Of `to_json`, and of what runs stored before several sets could be named (`reference_set`, one name)."""
        one = facts.get("reference_set")
        return cls(
            reference_sets=tuple(facts.get("reference_sets") or ((one,) if one else ())),
            tile_id=facts.get("tile_id"),
            angles=tuple(facts["angles"]) if facts.get("angles") else None,
            altitude_m=(facts["altitude_m"][0], facts["altitude_m"][1]) if facts.get("altitude_m") else None,
            overlap_pct=facts.get("overlap_pct"),
            touches=BBox(*facts["bbox"]) if facts.get("bbox") else None,
            near=Near(**facts["near"]) if facts.get("near") else None,
        )

    def mask(self, tiles: TileColumns) -> Bools:
        """bool [N]: which tiles match every condition. An unknown altitude is in no range."""
        keep: Bools = np.ones(len(tiles), np.bool_)
        if self.reference_sets:
            keep &= np.isin(tiles.reference_set, self.reference_sets)
        if self.tile_id is not None:
            keep &= tiles.tile_id == self.tile_id
        if self.angles is not None:
            keep &= np.isin(tiles.angle_deg, self.angles)
        if self.overlap_pct is not None:
            keep &= tiles.overlap_pct == self.overlap_pct
        if self.altitude_m is not None:
            low, high = self.altitude_m
            keep &= (tiles.altitude_m >= low) & (tiles.altitude_m <= high)
        if self.touches is not None:
            keep &= _touching(tiles, self.touches)
        if self.near is not None:
            lon, lat, radius_m = self.near
            # The haversine is the dear one: only for those still in, and no circle reaches beyond its band of latitude.
            keep &= np.abs(tiles.lat - lat) <= np.degrees(radius_m / EARTH_RADIUS_M) + 10.0**-DECIMALS
            left = np.flatnonzero(keep)
            keep[left] = distance_m(lon, lat, tiles.lon[left], tiles.lat[left]) <= radius_m
        return keep


ANYTHING = Where()


# --- texts ----------------------------------------------------------------------------------------


def parse_overlap(key: str, text: str) -> float:
    """An overlap as a fraction: users type 50, 50% or 0.5. Raises InputError for what is none."""
    number = _number(key, text.removesuffix("%").rstrip())
    fraction = number / 100 if number >= 1 or text.endswith("%") else number
    if not 0 <= fraction < 1:
        raise InputError(f"{key} is {text!r}: expected a percentage from 0 to 99, such as 50, or a fraction below 1")
    return fraction


def parse_angles(key: str, texts: Sequence[str]) -> tuple[int, ...]:
    """Whole headings, given several times or with commas: `0,45`. Raises InputError for what is none."""
    numbers = [_number(key, part) for text in texts for part in text.split(",")]
    if any(number != int(number) or not 0 <= number < 360 for number in numbers):
        raise InputError(f"{key} is {', '.join(texts)!r}: expected whole degrees from 0 to 359, such as 0,45,90")
    return tuple(sorted({int(number) for number in numbers}))


def _parse_altitude(key: str, texts: Sequence[str]) -> tuple[float, float]:
    parts = texts[0].split(":")
    if len(parts) > 2:
        raise InputError(f"{key} is {texts[0]!r}: expected metres, or LOW:HIGH, such as 250:350")
    numbers = [_number(key, part) for part in parts]
    return numbers[0], numbers[-1]


def _parse_bbox(key: str, texts: Sequence[str]) -> BBox:
    return BBox(*_numbers(key, texts[0], "WEST,SOUTH,EAST,NORTH in degrees"))


def _parse_near(key: str, texts: Sequence[str]) -> Near:
    return Near(*_numbers(key, texts[0], "LON,LAT,METRES"))


def _numbers(key: str, text: str, form: str) -> list[float]:
    parts = text.split(",")
    if len(parts) != form.count(",") + 1:
        raise InputError(f"{key} is {text!r}, which has {len(parts)} parts: expected {form}")
    return [_number(key, part) for part in parts]


def _number(key: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{key} is {text!r}: expected a number")
    return number


_PARSERS: dict[str, tuple[str, bool, Any]] = {  # {key: (field, may come several times, parser)}
    "reference_set": ("reference_sets", True, lambda _, texts: tuple(dict.fromkeys(map(ids.label, texts)))),
    "angle": ("angles", True, parse_angles),
    "altitude": ("altitude_m", False, _parse_altitude),
    "overlap": ("overlap_pct", False, lambda key, texts: percent(parse_overlap(key, texts[0]))),
    "bbox": ("touches", False, _parse_bbox),
    "near": ("near", False, _parse_near),
}
KEYS = tuple(_PARSERS)


def _check_positions(key: str, lons: Sequence[float], lats: Sequence[float]) -> None:
    for lon in lons:
        if not -180 <= lon <= 180:
            raise InputError(
                f"{key} has the longitude {lon:g}: expected WGS84 degrees from -180 to 180"
                + ("; west > east crosses the antimeridian" if key == "bbox" else "")
            )
    for lat in lats:
        if not -90 <= lat <= 90:
            raise InputError(f"{key} has the latitude {lat:g}: expected WGS84 degrees from -90 to 90")


# --- tiles ----------------------------------------------------------------------------------------

Ints = NDArray[np.int32]
Texts = NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class TileColumns:
    """What is known of N rotated tiles, one array [N] a fact, in the order of a mirror's vectors.

    Coordinates are WGS84 degrees rounded to `DECIMALS`; `east` is unwrapped and may exceed 180.
    """

    reference_set: Texts
    tile_id: Texts
    angle_deg: Ints
    overlap_pct: Ints
    altitude_m: Floats  # nan where unknown
    lon: Floats
    lat: Floats
    west: Floats
    south: Floats
    east: Floats
    north: Floats

    def __len__(self) -> int:
        return len(self.angle_deg)


def columns(facts: Sequence[TileFacts]) -> TileColumns:
    """The facts of N rotated tiles as columns, in their order."""
    altitudes = [np.nan if f.altitude_m is None else f.altitude_m for f in facts]
    centers = np.array([f.center for f in facts], np.float64).reshape(-1, 2).round(DECIMALS)
    bounds = np.array([unwrapped(f.bbox) for f in facts], np.float64).reshape(-1, 4)
    return TileColumns(
        reference_set=np.array([f.reference_set for f in facts], np.str_),
        tile_id=np.array([f.tile_id for f in facts], np.str_),
        angle_deg=np.array([f.angle_deg for f in facts], np.int32),
        overlap_pct=np.array([percent(f.overlap) for f in facts], np.int32),
        altitude_m=np.array(altitudes, np.float64),
        lon=centers[:, 0],
        lat=centers[:, 1],
        west=bounds[:, 0],
        south=bounds[:, 1],
        east=bounds[:, 2],
        north=bounds[:, 3],
    )


def percent(overlap: float) -> int:
    """An overlap fraction as the whole percent that filters compare, e.g. 0.5 → 50."""
    return round(overlap * 100)


def unwrapped(box: BBox) -> BBox:
    """A box at `DECIMALS` with west <= east: east is above 180 where it crosses the antimeridian."""
    west, south, east, north = (round(float(degrees), DECIMALS) for degrees in box)
    return BBox(west, south, east + 360.0 if west > east else east, north)


def turns(box: BBox) -> tuple[BBox, ...]:
    """An asked-for box at every longitude where an unwrapped footprint may touch it: where it lies, a turn
    further east (for footprints that cross the antimeridian), and a turn back where it reaches 180 itself."""
    west, south, east, north = unwrapped(box)
    shifts = (0.0, 360.0, -360.0) if east >= 180.0 else (0.0, 360.0)
    return tuple(BBox(west + by, south, east + by, north) for by in shifts)


def _touching(tiles: TileColumns, box: BBox) -> Bools:
    _, south, _, north = unwrapped(box)
    beside: Bools = np.zeros(len(tiles), np.bool_)
    for turn in turns(box):
        beside |= (tiles.west <= turn.east) & (tiles.east >= turn.west)
    return beside & (tiles.south <= north) & (tiles.north >= south)
