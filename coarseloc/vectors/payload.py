"""A point's payload in Qdrant: which fields it has, how each is indexed, and `Where` as filters on them.

`Where` is walked once into plain conditions, which are spelled for the server's client and for Edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from coarseloc.core.filters import DECIMALS, Where, box_turns, percent, unwrap
from coarseloc.core.types import BBox, Near, TileFacts

if TYPE_CHECKING:
    import qdrant_client.models
    import qdrant_edge

IndexKind = Literal["keyword", "integer", "float", "geo"]

# Every field that a filter reads. Without its index a filtered search takes about 100 times longer.
INDEXES: dict[str, IndexKind] = {
    "reference_set": "keyword",
    "tile": "keyword",
    "angle_deg": "integer",
    "overlap_pct": "integer",  # a whole percent: the engine matches no floats
    "altitude_m": "float",
    "location": "geo",
    "west": "float",
    "south": "float",
    "east": "float",
    "north": "float",
}


def payload(facts: TileFacts) -> dict[str, Any]:
    """Build a rotated tile's payload. Degrees are rounded to seven decimals; `east` is unwrapped (above 180 for a
    footprint across the antimeridian); an unknown altitude is left out, so that no range finds it."""
    lon, lat = facts.center
    west, south, east, north = unwrap(facts.bbox)
    fields: dict[str, Any] = {
        "reference_set": facts.reference_set,
        "tile": facts.tile_id,
        "place": facts.place_id,
        "angle_deg": int(facts.angle_deg),
        "overlap_pct": percent(facts.overlap),
        "location": {"lon": round(float(lon), DECIMALS), "lat": round(float(lat), DECIMALS)},
        "west": west,
        "south": south,
        "east": east,
        "north": north,
    }
    if facts.altitude_m is not None:
        fields["altitude_m"] = float(facts.altitude_m)
    return fields


# --- filters ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Match:
    """The field equals one of the values."""

    field: str
    values: tuple[str, ...] | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The field lies between the bounds, both inclusive; None is open."""

    field: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Within:
    """The centre lies within a great-circle radius."""

    near: Near


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of the groups holds in full."""

    groups: tuple[tuple[Range, ...], ...]


Condition = Match | Range | Within | AnyOf


def conditions(where: Where) -> list[Condition]:
    """List the conditions of a filter, all of which must hold; empty for no filter."""
    required: list[Condition] = []
    if where.reference_sets:
        required.append(Match("reference_set", where.reference_sets))
    if where.tile_id is not None:
        required.append(Match("tile", (where.tile_id,)))
    if where.angles:
        required.append(Match("angle_deg", where.angles))
    if where.overlap_pct is not None:
        required.append(Match("overlap_pct", (where.overlap_pct,)))
    if where.altitude_m is not None:
        low, high = (bound if math.isfinite(bound) else None for bound in where.altitude_m)
        required.append(Range("altitude_m", low, high))
    if where.touches is not None:
        required.extend(_touching(where.touches))
    if where.near is not None:
        required.append(Within(where.near))
    return required


def _touching(box: BBox) -> list[Condition]:
    """Test footprints by four ranges; the two in longitude also a turn further, see `coarseloc.core.filters`."""
    boxes = box_turns(box)
    beside = tuple((Range("west", high=turn.east), Range("east", low=turn.west)) for turn in boxes)
    return [Range("south", high=boxes[0].north), Range("north", low=boxes[0].south), AnyOf(beside)]


def edge_filter(where: Where) -> qdrant_edge.Filter | None:
    """Spell a filter for Qdrant Edge; None for no filter."""
    import qdrant_edge

    spelled: qdrant_edge.Filter | None = _spell(conditions(where), qdrant_edge, qdrant_edge.RangeFloat)
    return spelled


def client_filter(where: Where) -> qdrant_client.models.Filter | None:
    """Spell a filter for qdrant-client; None for no filter."""
    from qdrant_client import models

    spelled: qdrant_client.models.Filter | None = _spell(conditions(where), models, models.Range)
    return spelled


def _spell(items: Sequence[Condition], words: ModuleType, range_: type) -> Any:
    """Build a filter of one library's classes: both name all but the range alike."""

    def spell(item: Condition) -> Any:
        match item:
            case Match(field, values):
                return words.FieldCondition(key=field, match=words.MatchAny(any=list(values)))
            case Range(field, low, high):
                return words.FieldCondition(key=field, range=range_(gte=low, lte=high))
            case Within(Near(lon, lat, radius_m)):
                circle = words.GeoRadius(center=words.GeoPoint(lon=lon, lat=lat), radius=radius_m)
                return words.FieldCondition(key="location", geo_radius=circle)
            case AnyOf(groups):
                return words.Filter(should=[words.Filter(must=[spell(part) for part in group]) for group in groups])

    return words.Filter(must=[spell(item) for item in items]) if items else None
