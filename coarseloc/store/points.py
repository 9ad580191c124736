"""Positions with their covariances as columns."""

from __future__ import annotations

from typing import Literal

from coarseloc.core.types import Covariance, LonLat
from coarseloc.store.tables import GroundAndAircraft

_COVARIANCE = ("cov_east_east_m2", "cov_east_north_m2", "cov_north_north_m2")

Prefix = Literal["", "aircraft_"]


def point_columns(prefix: Prefix, location: LonLat | None, covariance: Covariance | None) -> dict[str, float]:
    """{column: value} of `GroundAndAircraft`; none where the point is not known."""
    if location is None or covariance is None:
        return {}
    values = {"lon": location.lon, "lat": location.lat, **dict(zip(_COVARIANCE, covariance, strict=True))}
    return {f"{prefix}{name}": value for name, value in values.items()}


def point_of(row: GroundAndAircraft, prefix: Prefix) -> tuple[LonLat | None, Covariance | None]:
    """The point that a row's columns hold."""
    names = ("lon", "lat", *_COVARIANCE)
    values = [value for name in names if (value := getattr(row, f"{prefix}{name}")) is not None]
    if len(values) < len(names):
        return None, None
    return LonLat(*values[:2]), Covariance(*values[2:])
