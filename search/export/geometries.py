"""Shapes on the ground as GeoJSON geometries, cut where they cross the antimeridian (RFC 7946, 3.1.9). Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from coarseloc.core import geo
from coarseloc.core.fixes import Ellipse
from coarseloc.core.types import LonLat

ELLIPSE_VERTICES = 64  # the polygon through them has 99.8 % of the ellipse's area
_DECIMALS = 7  # of a degree, about a centimetre: RFC 7946 advises against more digits than the precision
_TURNS = (0.0, -360.0, 360.0)  # the part with the first position comes first


def position(location: LonLat) -> list[float]:
    """[lon, lat] as a file holds it."""
    return [round(location.lon, _DECIMALS), round(location.lat, _DECIMALS)]


def point(location: LonLat) -> dict[str, Any]:
    return {"type": "Point", "coordinates": position(location)}


def line(*locations: LonLat) -> dict[str, Any]:
    """The line through positions, each step the short way round, in a part on each side of the antimeridian."""
    parts: list[list[list[float]]] = [[position(locations[0])]]
    for step in pairwise(locations):
        for piece in _cut(unwrapped(step)):
            start, end = (position(corner) for corner in piece[:2])
            if abs(start[0] - parts[-1][-1][0]) > 180.0:
                parts.append([start])
            parts[-1].append(end)
    parts = [part for part in parts if len(part) > 1]
    if len(parts) == 1:
        return {"type": "LineString", "coordinates": parts[0]}
    return {"type": "MultiLineString", "coordinates": parts}


def polygon(ring: Sequence[LonLat]) -> dict[str, Any]:
    """A convex polygon given by its corners counter-clockwise, in two parts across the antimeridian."""
    outlines = [[position(corner) for corner in piece] for piece in _cut(unwrapped(ring))]
    parts = [[[*outline, outline[0]]] for outline in outlines]
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def ellipse_ring(center: LonLat, ellipse: Ellipse) -> list[LonLat]:
    """Corners of the polygon inscribed in an ellipse around a position, counter-clockwise from its major axis.

    Longitudes go on beyond ±180 where it crosses the antimeridian.
    """
    turn = np.arange(ELLIPSE_VERTICES) * (2 * math.pi / ELLIPSE_VERTICES)
    along, across = ellipse.major_m * np.cos(turn), ellipse.minor_m * np.sin(turn)
    east, north = math.sin(math.radians(ellipse.azimuth_deg)), math.cos(math.radians(ellipse.azimuth_deg))
    per_lon, per_lat = geo.metres_per_degree(center.lat)
    lon = center.lon + (along * east - across * north) / per_lon
    lat = center.lat + (along * north + across * east) / per_lat
    return [LonLat(*corner) for corner in zip(lon.tolist(), lat.tolist(), strict=True)]


def unwrapped(ring: Sequence[LonLat]) -> list[LonLat]:
    """Positions with longitudes that go on beyond ±180 where they cross the antimeridian, from the first one's on."""
    lons, lats = zip(*ring, strict=True)
    turned = lons[0] + geo.signed_difference_deg(lons[0], lons)
    return [LonLat(*corner) for corner in zip(turned.tolist(), lats, strict=True)]


def _cut(ring: Sequence[LonLat]) -> list[list[LonLat]]:
    """The parts of an unwrapped convex ring, or of a line as the ring of its two ends, on each side of the
    antimeridian. Parts without width are dropped: what only touches it is not cut."""
    if all(abs(corner.lon) <= 180.0 for corner in ring):
        return [list(ring)]
    turned = [[LonLat(corner.lon + turn, corner.lat) for corner in ring] for turn in _TURNS]
    pieces = [_clipped(_clipped(piece, 180.0, 1.0), -180.0, -1.0) for piece in turned]
    return [piece for piece in pieces if len({corner.lon for corner in piece}) > 1]


def _clipped(ring: Sequence[LonLat], bound: float, side: float) -> list[LonLat]:
    """The part of a convex ring west (`side` 1) or east (-1) of a meridian: one step of Sutherland and Hodgman."""
    clipped = []
    for start, end in zip(ring, [*ring[1:], *ring[:1]], strict=True):
        start_inside, end_inside = ((corner.lon - bound) * side <= 0.0 for corner in (start, end))
        if start_inside:
            clipped.append(start)
        if start_inside != end_inside:
            share = (bound - start.lon) / (end.lon - start.lon)
            clipped.append(LonLat(bound, start.lat + share * (end.lat - start.lat)))
    return clipped
