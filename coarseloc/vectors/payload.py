"""The one home of a point's payload: which fields it has, and how each is indexed."""

from __future__ import annotations

from typing import Any, Literal

from coarseloc.core.filters import DECIMALS, percent, unwrapped
from coarseloc.core.types import TileFacts

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
    """A rotated tile's payload. Degrees are rounded to seven decimals; `east` is unwrapped (above 180 for a
    footprint across the antimeridian); an unknown altitude is left out, so that no range finds it."""
    lon, lat = facts.center
    west, south, east, north = unwrapped(facts.bbox)
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
