"""Distances and small offsets on the WGS84 ellipsoid. Pure; angles in degrees, lengths in metres."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from coarseloc.core.types import BBox, Bools, Floats, LonLat

Metres = TypeVar("Metres", float, Floats)

EARTH_RADIUS_M = 6_371_008.8  # IUGG mean radius
_A = 6_378_137.0  # WGS84 semi-major axis
_E2 = 0.006_694_379_990_141_316  # WGS84 first eccentricity squared


def distance_m(lon1: ArrayLike, lat1: ArrayLike, lon2: ArrayLike, lat2: ArrayLike) -> Floats:
    """Great-circle distance by the haversine formula on the mean sphere; broadcasts."""
    phi1, phi2 = np.radians(lat1), np.radians(lat2)
    half_dphi = (phi2 - phi1) / 2
    half_dlam = np.radians(np.subtract(lon2, lon1)) / 2
    h = np.sin(half_dphi) ** 2 + np.cos(phi1) * np.cos(phi2) * np.sin(half_dlam) ** 2
    return np.asarray(2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0))))


def ellipsoid_distance_m(lon1: ArrayLike, lat1: ArrayLike, lon2: ArrayLike, lat2: ArrayLike) -> Floats:
    """Distance on the WGS84 ellipsoid by its radii of curvature at the mean latitude; broadcasts.

    Within 1 mm of the geodesic up to 10 km away from the poles: the same as `offset` lays tiles out by. The mean
    sphere of `distance_m` is off by up to 0.5 %, with a sign that depends on the direction.
    """
    per_lon, per_lat = degree_lengths(np.add(lat1, lat2) / 2)
    return np.asarray(np.hypot(signed_difference_deg(lon1, lon2) * per_lon, np.subtract(lat2, lat1) * per_lat))


def degree_lengths(lat: ArrayLike) -> tuple[Floats, Floats]:
    """(east, north) metres of one degree of longitude and of latitude at each `lat`.

    The radii of curvature of the WGS84 ellipsoid: prime vertical N = a / w, meridian M = a (1-e²) / w³
    with w = sqrt(1 - e² sin² lat).
    """
    phi = np.radians(lat)
    w = np.sqrt(1 - _E2 * np.sin(phi) ** 2)
    degree = math.radians(1)
    return np.asarray(degree * _A / w * np.cos(phi)), np.asarray(degree * _A * (1 - _E2) / w**3)


def metres_per_degree(lat: float) -> tuple[float, float]:
    """`degree_lengths` of one latitude."""
    east, north = degree_lengths(lat)
    return float(east), float(north)


def offset(origin: LonLat, east_m: float, north_m: float) -> LonLat:
    """The position `east_m`, `north_m` from `origin` in its local tangent plane; good to a few
    centimetres over a tile. Longitudes wrap into [-180, 180)."""
    per_lon, per_lat = metres_per_degree(origin.lat)
    lon = origin.lon + east_m / per_lon
    return LonLat((lon + 180.0) % 360.0 - 180.0, origin.lat + north_m / per_lat)


def offset_m(origin: LonLat, location: LonLat) -> tuple[float, float]:
    """(east, north) metres from `origin` to a position near it: the inverse of `offset`."""
    per_lon, per_lat = metres_per_degree(origin.lat)
    return float(signed_difference_deg(origin.lon, location.lon)) * per_lon, (location.lat - origin.lat) * per_lat


def local_metres(middle: LonLat, lon: ArrayLike, lat: ArrayLike) -> tuple[Floats, Floats]:
    """(east, north) of a middle, on the plane that touches the Earth there; arrays of any shape."""
    per_lon, per_lat = metres_per_degree(middle.lat)
    return signed_difference_deg(middle.lon, lon) * per_lon, (np.asarray(lat) - middle.lat) * per_lat


def turned_m(right_m: Metres, forward_m: Metres, heading_deg: float) -> tuple[Metres, Metres]:
    """(east, north) metres of what lies so far to the right of and ahead of somebody who faces a heading."""
    cos, sin = math.cos(math.radians(heading_deg)), math.sin(math.radians(heading_deg))
    return right_m * cos + forward_m * sin, forward_m * cos - right_m * sin


def distance_text(metres: float) -> str:
    """Metres, or kilometres from one on: "75 m", "11,147 km"."""
    return f"{metres:.0f} m" if metres < 1000 else f"{metres / 1000:,.0f} km"


def square(center: LonLat, side_m: float) -> BBox:
    """The north-up square of `side_m` metres around a centre."""
    return rectangle(center, side_m, side_m)


def rectangle(center: LonLat, width_m: float, height_m: float) -> BBox:
    """The north-up rectangle around a centre, `width_m` from west to east and `height_m` from south to north."""
    low, high = offset(center, -width_m / 2, -height_m / 2), offset(center, width_m / 2, height_m / 2)
    return BBox(low.lon, low.lat, high.lon, high.lat)


def box_center(box: BBox) -> LonLat:
    """A box's centre; its longitude in [-180, 180)."""
    width = (box.east - box.west) % 360.0
    return LonLat((box.west + width / 2 + 180.0) % 360.0 - 180.0, (box.south + box.north) / 2)


def box_width_deg(box: BBox) -> float:
    """The degrees of longitude that a box spans, across the antimeridian where west > east."""
    return box.east - box.west + (360 if box.west > box.east else 0)


def box_size_m(box: BBox) -> tuple[float, float]:
    """(width, height) in metres at the box's middle latitude."""
    per_lon, per_lat = metres_per_degree((box.south + box.north) / 2)
    return box_width_deg(box) * per_lon, (box.north - box.south) * per_lat


def bounds(lon: ArrayLike, lat: ArrayLike) -> BBox:
    """The box around positions, across the antimeridian where that is the narrower way round."""
    west, east = float(np.min(lon)), float(np.max(lon))
    turned = np.mod(lon, 360.0)
    if np.ptp(turned) < east - west and east - west > 180.0:
        west, east = float(np.min(turned)), float(np.max(turned)) - 360.0
    return BBox(west, float(np.min(lat)), east, float(np.max(lat)))


def inside(lon: ArrayLike, lat: ArrayLike, bounds: ArrayLike) -> Bools:
    """Whether positions lie in boxes [..., 4] of BBox order, edges included; broadcasts over all but the last axis.
    NaN lies in none."""
    west, south, east, north = np.moveaxis(np.asarray(bounds, np.float64), -1, 0)
    beside = np.subtract(lon, west) % 360.0 <= (east - west) % 360.0
    return np.asarray(beside & np.less_equal(south, lat) & np.less_equal(lat, north))


def signed_difference_deg(start_deg: ArrayLike, end_deg: ArrayLike) -> Floats:
    """Degrees from one heading or longitude to another the short way round, in [-180, 180); broadcasts."""
    return np.asarray((np.subtract(end_deg, start_deg) + 180.0) % 360.0 - 180.0)


def heading_difference(a_deg: float, b_deg: float) -> float:
    """The circular difference of two headings, in [0, 180]."""
    return abs(float(signed_difference_deg(a_deg, b_deg)))
