"""`Where` as Qdrant filters: walked once into plain conditions, spelled for the server's client and for Edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from coarseloc.core.filters import Where, turns
from coarseloc.core.types import BBox, Near

if TYPE_CHECKING:
    import qdrant_client.models
    import qdrant_edge


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
    """What must hold, all of it; empty for "anything"."""
    found: list[Condition] = []
    if where.reference_sets:
        found.append(Match("reference_set", where.reference_sets))
    if where.tile_id is not None:
        found.append(Match("tile", (where.tile_id,)))
    if where.angles:
        found.append(Match("angle_deg", where.angles))
    if where.overlap_pct is not None:
        found.append(Match("overlap_pct", (where.overlap_pct,)))
    if where.altitude_m is not None:
        low, high = (bound if math.isfinite(bound) else None for bound in where.altitude_m)
        found.append(Range("altitude_m", low, high))
    if where.touches is not None:
        found.extend(_touching(where.touches))
    if where.near is not None:
        found.append(Within(where.near))
    return found


def _touching(box: BBox) -> list[Condition]:
    """Four ranges on the footprint; the two in longitude also a turn further, see `coarseloc.core.filters`."""
    boxes = turns(box)
    beside = tuple((Range("west", high=turn.east), Range("east", low=turn.west)) for turn in boxes)
    return [Range("south", high=boxes[0].north), Range("north", low=boxes[0].south), AnyOf(beside)]


def edge_filter(where: Where) -> qdrant_edge.Filter | None:
    """The filter in Qdrant Edge's words; None for "anything"."""
    import qdrant_edge

    return _spell(conditions(where), qdrant_edge, qdrant_edge.RangeFloat)


def client_filter(where: Where) -> qdrant_client.models.Filter | None:
    """The filter in qdrant-client's words; None for "anything"."""
    from qdrant_client import models

    return _spell(conditions(where), models, models.Range)


def _spell(items: Sequence[Condition], words: ModuleType, range_: type) -> Any:
    """The two libraries name everything alike but the range."""

    def one(item: Condition) -> Any:
        match item:
            case Match(field, values):
                return words.FieldCondition(key=field, match=words.MatchAny(any=list(values)))
            case Range(field, low, high):
                return words.FieldCondition(key=field, range=range_(gte=low, lte=high))
            case Within(Near(lon, lat, radius_m)):
                circle = words.GeoRadius(center=words.GeoPoint(lon=lon, lat=lat), radius=radius_m)
                return words.FieldCondition(key="location", geo_radius=circle)
            case AnyOf(groups):
                return words.Filter(should=[words.Filter(must=[one(part) for part in group]) for group in groups])

    return words.Filter(must=[one(item) for item in items]) if items else None
