"""`Where` in SQL: conditions on the tables of reference sets, tiles and rotated tiles, as `Where.mask` keeps them."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sqlalchemy import ColumnElement, and_, case, false, func, or_, select

from coarseloc.core import ids
from coarseloc.core.filters import DECIMALS, Where, box_turns
from coarseloc.core.geo import EARTH_RADIUS_M
from coarseloc.core.types import BBox, Near
from coarseloc.store.tables import ReferenceSetRow, RotatedTileRow, TileRow

_HALF_A_STEP = 0.5 * 10.0**-DECIMALS  # coordinates here are not rounded as those are that `Where.mask` compares


def conditions(where: Where) -> list[ColumnElement[bool]]:
    """Spell a filter as conditions on joined TileRow and RotatedTileRow, all of which must hold."""
    required: list[ColumnElement[bool]] = []
    if of_sets := list(_of_sets(where)):
        required.append(TileRow.reference_set_id.in_(select(ReferenceSetRow.id).where(*of_sets)))
    if where.tile_id is not None:
        required.append(_of_tile(where.tile_id))
    if where.angles:
        required.append(RotatedTileRow.angle_deg.in_(where.angles))
    if where.touches is not None:
        required += _touching(where.touches)
    if where.near is not None:
        required += _within(where.near)
    return required


def _of_sets(where: Where) -> Iterator[ColumnElement[bool]]:
    if where.reference_sets:
        yield ReferenceSetRow.name.in_(where.reference_sets)
    if where.overlap_pct is not None:
        yield _rounds_to(ReferenceSetRow.overlap * 100.0, where.overlap_pct)
    if where.altitude_m is not None:  # an unknown altitude is NULL, and so in no range
        low, high = where.altitude_m
        yield ReferenceSetRow.altitude_m >= low if math.isfinite(low) else ReferenceSetRow.altitude_m.is_not(None)
        if math.isfinite(high):
            yield ReferenceSetRow.altitude_m <= high


def _rounds_to(value: ColumnElement[float], whole: int) -> ColumnElement[bool]:
    """Test that a value rounds to a whole number as in Python: halves to the even one, where databases round up."""
    low, high = whole - 0.5, whole + 0.5
    return and_(value >= low, value <= high) if whole % 2 == 0 else and_(value > low, value < high)


def _of_tile(tile_id: str) -> ColumnElement[bool]:
    name, _, index = tile_id.rpartition("/")
    if not (index.isascii() and index.isdecimal() and len(index) < 10 and ids.tile_id(name, int(index)) == tile_id):
        return false()
    its_set = select(ReferenceSetRow.id).where(ReferenceSetRow.name == name)
    return and_(TileRow.index == int(index), TileRow.reference_set_id.in_(its_set))


def _touching(box: BBox) -> list[ColumnElement[bool]]:
    """Test that footprints touch a box: unwrapped as in `coarseloc.core.filters`, within half a rounding step."""
    boxes, step = box_turns(box), _HALF_A_STEP
    east = case((TileRow.west > TileRow.east, TileRow.east + 360.0), else_=TileRow.east)
    beside = [and_(TileRow.west <= turn.east + step, east >= turn.west - step) for turn in boxes]
    return [TileRow.south <= boxes[0].north + step, TileRow.north >= boxes[0].south - step, or_(*beside)]


def _within(near: Near) -> list[ColumnElement[bool]]:
    """Compare the haversine with that of the radius: a circle wider than half the globe holds every centre."""
    half = near.radius_m / EARTH_RADIUS_M / 2
    if half >= math.pi / 2:
        return []
    band = math.degrees(2 * half) + _HALF_A_STEP
    radians = math.pi / 180.0
    half_dphi, half_dlam = (TileRow.lat - near.lat) * (radians / 2), (TileRow.lon - near.lon) * (radians / 2)
    across = math.cos(near.lat * radians) * func.cos(TileRow.lat * radians)
    haversine = func.sin(half_dphi) * func.sin(half_dphi) + across * func.sin(half_dlam) * func.sin(half_dlam)
    return [TileRow.lat.between(near.lat - band, near.lat + band), haversine <= math.sin(half) ** 2]
