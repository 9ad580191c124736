"""The filter on reference tiles: `Where`, how people spell it, how JSON holds it, and which tiles it keeps. Pure.

Only two other spellings exist: Qdrant's in `coarseloc.vectors.payload` and SQL's in `coarseloc.store.filters`. All
three agree on every tile.

Footprints are compared at seven decimals of a degree (about 1 cm), here and in the vector stores, and with their
longitudes unwrapped: a footprint across the antimeridian (west > east) has 360 added to its east, so that west <= east
always holds. Two footprints then touch when they do so at the same longitudes or a whole turn apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict  # pydantic, which describes it for the web, takes no other before 3.12

from coarseloc.core import ids
from coarseloc.core.errors import InputError
from coarseloc.core.geo import EARTH_RADIUS_M, distance_m
from coarseloc.core.types import BBox, Bools, Floats, LonLat, Near, ReferenceSet, TileFacts

DECIMALS = 7

Ints = NDArray[np.int32]
Texts = NDArray[np.str_]
T = TypeVar("T")


class WhereJson(TypedDict, total=False):
    """A filter as JSON: only what it asks, all of which must hold. `altitude_m` is lowest and highest, null for an open
    end; `bbox` is west, south, east, north of a box that footprints touch; `near` is lon, lat, radius_m of a circle
    around centres."""

    reference_sets: list[str]
    tile_id: str
    angles: list[int]
    altitude_m: list[float | None]
    overlap_pct: int
    bbox: list[float]
    near: dict[str, float]


@dataclass(frozen=True, slots=True)
class Where:
    """Conditions on reference tiles, all of which must hold; None or an empty tuple asks for nothing.

    Values take one form whatever they were given as (names and headings sorted, each once; numbers as float), so that
    filters that mean the same are equal. Raises InputError for what no tile can be.
    """

    reference_sets: tuple[str, ...] = ()  # in any of these: several sets are one search space
    tile_id: str | None = None
    angles: tuple[int, ...] = ()  # at any of these headings, whole degrees in [0, 360)
    altitude_m: tuple[float, float] | None = None  # lowest and highest, inclusive; infinite where open
    overlap_pct: int | None = None  # whole percent
    touches: BBox | None = None  # the footprint touches this box
    near: Near | None = None  # the centre lies within

    def __post_init__(self) -> None:
        names = (self.reference_sets,) if isinstance(self.reference_sets, str) else self.reference_sets
        self._set("reference_sets", tuple(sorted({ids.label(name) for name in names or ()})))
        if "" in self.reference_sets:
            raise InputError("the name of a reference set is empty: give one of those there are")
        self._set("angles", tuple(sorted({_heading(angle) for angle in self.angles or ()})))
        if self.altitude_m is not None:
            self._set("altitude_m", _construct(_altitudes, self.altitude_m, "LOW:HIGH in metres"))
        if self.overlap_pct is not None:
            self._set("overlap_pct", _whole_percent(self.overlap_pct))
        if self.touches is not None:
            self._set("touches", _construct(_box, self.touches, "west,south,east,north in degrees"))
        if self.near is not None:
            self._set("near", _construct(_circle, self.near, "lon,lat in degrees and metres"))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # frozen for everyone else

    # --- texts and JSON -------------------------------------------------------------------------

    @classmethod
    def parse(cls, texts: Mapping[str, str | Sequence[str]], *, beside: Collection[str] = ()) -> Where:
        """Read a filter as people type it: {key of `KEYS`: every text given for it}.

        Keys in `beside` are the caller's own: they are passed over here, and named where an unknown key is refused.
        Raises InputError saying what was found, what is allowed and an example of it.
        """
        conditions = {}
        for name, spelled in texts.items():
            if name in KEYS:
                conditions[KEYS[name].field] = _read(
                    KEYS[name], [spelled] if isinstance(spelled, str) else list(spelled)
                )
            elif name not in beside:
                raise InputError(f"there is no filter {name!r}: expected one of {', '.join([*KEYS, *beside])}")
        return cls(**conditions)

    def to_texts(self) -> dict[str, list[str]]:
        """Spell the filter as texts that `parse` reads, only for its conditions."""
        return {key.name: key.spell(getattr(self, key.field)) for key in KEYS.values() if self._is_set(key)}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Where:
        """Read what `to_json` wrote, now or in an earlier release. Raises InputError for a key of a later one."""
        facts = dict(facts)
        if "reference_set" in facts:  # as it was stored while a filter could name only one
            facts["reference_sets"] = [facts.pop("reference_set")]
        by_json_key = {key.json_key: key for key in KEYS.values()}
        if unknown := facts.keys() - by_json_key:
            raise InputError(f"this filter has {sorted(unknown)}: expected only {', '.join(by_json_key)}")
        return cls(**{by_json_key[name].field: by_json_key[name].load(value) for name, value in facts.items()})

    def to_json(self) -> WhereJson:
        """Write the filter as runs store it and exports show it: only its conditions."""
        conditions = {key.json_key: _as_json(getattr(self, key.field)) for key in KEYS.values() if self._is_set(key)}
        return cast(WhereJson, conditions)

    def _is_set(self, key: Key) -> bool:
        return getattr(self, key.field) not in (None, ())

    # --- which tiles ----------------------------------------------------------------------------

    def mask(self, tiles: TileColumns) -> Bools:
        """Test which tiles match every condition, bool [N]. An unknown altitude is in no range."""
        keep: Bools = np.ones(len(tiles), np.bool_)
        if self.reference_sets:
            keep &= np.isin(tiles.reference_set, self.reference_sets)
        if self.tile_id is not None:
            keep &= tiles.tile_id == self.tile_id
        if self.angles:
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
            remaining = np.flatnonzero(keep)
            keep[remaining] = distance_m(lon, lat, tiles.lon[remaining], tiles.lat[remaining]) <= radius_m
        return keep

    def admits(self, reference_sets: Sequence[ReferenceSet]) -> Bools:
        """Test which sets may hold a match, bool [N], by name, altitude and overlap; their tiles decide the rest."""
        of_sets = Where(self.reference_sets, altitude_m=self.altitude_m, overlap_pct=self.overlap_pct)
        nowhere = (LonLat(0.0, 0.0), BBox(0.0, 0.0, 0.0, 0.0))
        return of_sets.mask(
            columns([TileFacts("", s.name, "", "", 0, s.altitude_m, s.overlap, *nowhere) for s in reference_sets])
        )


# --- values that a tile can have ------------------------------------------------------------------


def _construct(build: Callable[..., T], numbers: Sequence[float], form: str) -> T:
    try:
        return build(*map(float, numbers))
    except (TypeError, ValueError):
        raise InputError(f"{numbers!r} is not {form}") from None


def _heading(angle: float) -> int:
    if not 0 <= angle < 360 or angle != int(angle):
        raise InputError(f"angle {angle:g} is no heading: give whole degrees from 0 to 359, such as 0,45,90")
    return int(angle)


def _altitudes(low: float, high: float) -> tuple[float, float]:
    if not low <= high:  # so written, NaN is refused too
        raise InputError(f"altitude range {low:g}:{high:g} is the wrong way round: give LOW:HIGH in metres")
    return low, high


def _whole_percent(overlap: float) -> int:
    if not 0 <= overlap <= 100 or overlap != int(overlap):
        raise InputError(f"overlap_pct {overlap:g} is no overlap: give a whole percentage, such as 50")
    return int(overlap)


def _box(west: float, south: float, east: float, north: float) -> BBox:
    form = "give west,south,east,north in WGS84 degrees; west > east crosses the antimeridian"
    text = f"bounds {west:.10g},{south:.10g},{east:.10g},{north:.10g}"
    for lon, lat in ((west, south), (east, north)):
        _check_on_globe(lon, lat, f"in {text}: {form}")
    if south > north:
        raise InputError(f"{text} have south above north: {form}")
    return BBox(west, south, east, north)


def _circle(lon: float, lat: float, radius_m: float) -> Near:
    _check_on_globe(lon, lat, "in near: give lon,lat in WGS84 degrees and metres")
    if not 0 < radius_m < math.inf:
        raise InputError(f"radius {radius_m:g} m in near is no distance: give metres above 0")
    return Near(lon, lat, radius_m)


def _check_on_globe(lon: float, lat: float, of: str) -> None:
    for name, degrees, limit in (("longitude", lon, 180), ("latitude", lat, 90)):
        if not -limit <= degrees <= limit:
            raise InputError(f"{name} {degrees:.10g} is off the globe, outside -{limit} to {limit}, {of}")


# --- the keys and their texts ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """One filter as it is typed: `--name FORM` on a command line, `?name=FORM` in an address."""

    name: str
    field: str  # of `Where`
    json_key: str
    form: str
    example: str
    help: str
    read: Callable[[Sequence[str]], Any]  # every text given → the field's value
    spell: Callable[[Any], list[str]]  # the field's value → texts that `read` takes
    load: Callable[[Any], Any] = lambda value: value  # JSON → the field's value


def _read(key: Key, texts: Sequence[str]) -> Any:
    try:
        return key.read(texts)
    except InputError as error:
        quoted = ", ".join(map(repr, texts))
        raise InputError(f"{key.name} {quoted}: {error}; give {key.form}, such as {key.example}") from None


def read_angles(texts: Sequence[str]) -> tuple[int, ...]:
    """`0,45`, `90` → (0, 45, 90): headings in whole degrees, in lists, one by one, or both; sorted, each once."""
    return tuple(sorted({_heading(_number(part)) for text in texts for part in text.split(",")}))


def read_overlap(text: str) -> float:
    """`50`, `50%` or `0.5` → 0.5: people type a percentage, the domain's overlap is a fraction in [0, 1)."""
    number = _number(text.strip().removesuffix("%"))
    fraction = number / 100 if number >= 1 or "%" in text else number
    if not 0 <= fraction < 1:
        raise InputError(f"{text} is no overlap: it is a percentage from 0 to 99")
    return fraction


def _read_altitudes(texts: Sequence[str]) -> tuple[float, float]:
    low, colon, high = _single_text(texts).partition(":")
    if not colon:
        return (_number(low),) * 2
    return _number(low) if low.strip() else -math.inf, _number(high) if high.strip() else math.inf


def _read_numbers(count: int) -> Callable[[Sequence[str]], tuple[float, ...]]:
    def read(texts: Sequence[str]) -> tuple[float, ...]:
        parts = _single_text(texts).split(",")
        if len(parts) != count:
            raise InputError(f"it has {len(parts)} parts, expected {count}")
        return tuple(map(_number, parts))

    return read


def _read_names(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(ids.label(_name(text)) for text in texts)


def _name(text: str) -> str:
    if not ids.label(text):
        raise InputError("it is empty")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):  # no database takes these
        raise InputError("it holds what is no character")
    return text


def _single_text(texts: Sequence[str]) -> str:
    if len(texts) != 1:
        raise InputError(f"it is given {len(texts)} times, expected once")
    return texts[0]


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise InputError(f"{text!r} is not a number") from None
    if not math.isfinite(number):
        raise InputError(f"{text!r} is not a finite number")
    return number


def _number_text(number: float) -> str:
    """Spell a float by its shortest exact text; empty for an open end."""
    return repr(float(number)).removesuffix(".0") if not math.isinf(number) else ""


def _spell_numbers(separator: str) -> Callable[[Sequence[float]], list[str]]:
    return lambda numbers: [separator.join(map(_number_text, numbers))]


def _as_json(value: Any) -> Any:
    if isinstance(value, Near):
        return value._asdict()
    if isinstance(value, tuple):
        return [None if isinstance(item, float) and math.isinf(item) else item for item in value]
    return value


def _load_altitudes(ends: Sequence[float | None]) -> tuple[float, float]:
    low, high = ends
    return -math.inf if low is None else low, math.inf if high is None else high


KEYS: Mapping[str, Key] = {
    key.name: key
    for key in (
        Key(
            name="reference-set",
            field="reference_sets",
            json_key="reference_sets",
            form="NAME",
            example="gangnam-300m",
            help="Only references of this set; given several times, of any of them.",
            read=_read_names,
            spell=list,
        ),
        Key(
            name="tile",
            field="tile_id",
            json_key="tile_id",
            form="ID",
            example="gangnam-300m/00001",
            help="Only this tile, at its headings.",
            read=lambda texts: _name(_single_text(texts)),
            spell=lambda tile_id: [tile_id],
        ),
        Key(
            name="angle",
            field="angles",
            json_key="angles",
            form="DEGREES",
            example="0,45,90",
            help="Only references at these headings; with commas, or given several times.",
            read=read_angles,
            spell=lambda angles: [",".join(map(str, angles))],
        ),
        Key(
            name="altitude",
            field="altitude_m",
            json_key="altitude_m",
            form="LOW:HIGH",
            example="250:350",
            help="Only altitudes in this range, metres above ground; one number is that altitude, an end may be open.",
            read=_read_altitudes,
            spell=lambda ends: [_number_text(ends[0]) if ends[0] == ends[1] else ":".join(map(_number_text, ends))],
            load=_load_altitudes,
        ),
        Key(
            name="overlap",
            field="overlap_pct",
            json_key="overlap_pct",
            form="PERCENT",
            example="50",
            help="Only sets whose neighbouring tiles overlap so: 50, 50% or 0.5.",
            read=lambda texts: percent(read_overlap(_single_text(texts))),
            spell=lambda overlap_pct: [f"{overlap_pct}%"],
        ),
        Key(
            name="bbox",
            field="touches",
            json_key="bbox",
            form="WEST,SOUTH,EAST,NORTH",
            example="127.02,37.49,127.04,37.51",
            help="Only footprints that touch this box, degrees; west > east crosses the antimeridian.",
            read=_read_numbers(4),
            spell=_spell_numbers(","),
        ),
        Key(
            name="near",
            field="near",
            json_key="near",
            form="LON,LAT,METRES",
            example="127.03,37.50,2000",
            help="Only tiles whose centre lies within so many metres.",
            read=_read_numbers(3),
            spell=_spell_numbers(","),
            load=lambda circle: Near(**circle),
        ),
    )
}
"""Every filter, by the key that command line and address share, in the order of `Where`'s fields."""

ALL_TILES = Where()


# --- tiles as columns -----------------------------------------------------------------------------


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
    """Turn the facts of N rotated tiles into columns, in their order."""
    altitudes = [np.nan if f.altitude_m is None else f.altitude_m for f in facts]
    centers = np.array([f.center for f in facts], np.float64).reshape(-1, 2).round(DECIMALS)
    bounds = np.array([unwrap(f.bbox) for f in facts], np.float64).reshape(-1, 4)
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


def unwrap(box: BBox) -> BBox:
    """Round a box to `DECIMALS` with west <= east: east is above 180 where it crosses the antimeridian."""
    west, south, east, north = (round(float(degrees), DECIMALS) for degrees in box)
    return BBox(west, south, east + 360.0 if west > east else east, north)


def box_turns(box: BBox) -> tuple[BBox, ...]:
    """An asked-for box at every longitude where an unwrapped footprint may touch it: where it lies, a turn
    further east (for footprints that cross the antimeridian), and a turn back where it reaches 180 itself."""
    west, south, east, north = unwrap(box)
    shifts = (0.0, 360.0, -360.0) if east >= 180.0 else (0.0, 360.0)
    return tuple(BBox(west + by, south, east + by, north) for by in shifts)


def _touching(tiles: TileColumns, box: BBox) -> Bools:
    _, south, _, north = unwrap(box)
    beside: Bools = np.zeros(len(tiles), np.bool_)
    for turn in box_turns(box):
        beside |= (tiles.west <= turn.east) & (tiles.east >= turn.west)
    return beside & (tiles.south <= north) & (tiles.north >= south)
