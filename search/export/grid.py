"""Positions in the users' own grid: x and y of a projected CRS, by PROJ."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pyproj import CRS, Transformer
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_utm_crs_info
from pyproj.exceptions import ProjError

from coarseloc.core import geo
from coarseloc.core.errors import InputError
from coarseloc.core.types import BBox, LonLat
from coarseloc.imagery.datum import BESIDE_DEG, crs_of_code, serves
from search.export.records import CoarseLocalizationInfo, FixPointInfo, GridInfo


class ProjectedGrid:
    """x (east) and y (north) of WGS84 positions in a projected CRS.

    Raises InputError where the CRS is not known, has no x and y on the ground, or PROJ only knows how to get there
    roughly ("ballpark": the datum is passed over, which can be hundreds of metres wrong).
    """

    def __init__(self, crs: str) -> None:
        self.crs = crs.strip().upper()
        projected = _projected_crs(self.crs)
        self.title = projected.name
        area = projected.area_of_use
        self._area = None if area is None else (area.west, area.south, area.east, area.north)
        try:
            self._transformer = Transformer.from_crs("EPSG:4326", projected, always_xy=True, allow_ballpark=False)
        except ProjError:
            raise InputError(
                f"--crs {self.crs} ({self.title}): PROJ knows no transformation from WGS84 to its datum but a rough "
                "one, which can be hundreds of metres wrong; give a CRS on WGS84 or on a datum that is tied to it"
            ) from None

    def position(self, lon: float, lat: float) -> GridInfo:
        """A WGS84 position in the CRS's units, to a thousandth. Raises InputError far from where the CRS is for."""
        x, y = self._transformer.transform(lon, lat) if self._serves(LonLat(lon, lat)) else (math.inf, math.inf)
        if not (math.isfinite(x) and math.isfinite(y)):
            served = "" if self._area is None else " from {:g}, {:g} to {:g}, {:g} (lon, lat)".format(*self._area)
            raise InputError(
                f"--crs {self.crs} ({self.title}) is for positions{served}, not for {lon:.4f}, {lat:.4f}: give the CRS "
                "of that region"
            )
        return GridInfo(crs=self.crs, x=round(x, 3), y=round(y, 3))

    def in_record(self, info: CoarseLocalizationInfo) -> CoarseLocalizationInfo:
        """A record with each position that it claims in the grid too."""
        estimate, fix, track, truth = info.estimate, info.estimate.fix, info.estimate.track, info.truth
        points = {"ground": self._in_point(fix.ground), "aircraft": self._in_point(fix.aircraft)}
        located = {
            "grid": self.position(estimate.location.lon, estimate.location.lat),
            "fix": fix.model_copy(update=points),
            "track": track and track.model_copy(update={"location": self._in_point(track.location)}),
        }
        return info.model_copy(
            update={
                "estimate": estimate.model_copy(update=located),
                "truth": truth
                and truth.model_copy(update={"grid": self.position(truth.location.lon, truth.location.lat)}),
            }
        )

    def _in_point(self, point: FixPointInfo | None) -> FixPointInfo | None:
        return point and point.model_copy(update={"grid": self.position(point.lon, point.lat)})

    @property
    def accuracy_m(self) -> float | None:
        """Of the transformation, as PROJ states it: 0 where both have one datum, None where nobody says."""
        accuracy = self._transformer.accuracy
        if accuracy < 0:
            accuracy = self._transformer.get_last_used_operation().accuracy
        return None if accuracy < 0 else accuracy

    def _serves(self, position: LonLat) -> bool:
        return self._area is None or serves(self._area, position, BESIDE_DEG)


def _projected_crs(code: str) -> CRS:
    crs = crs_of_code(code, "a projected CRS, such as EPSG:32652")
    if not crs.is_projected:
        kind = "geographic: its coordinates are degrees" if crs.is_geographic else f"no map's grid ({crs.type_name})"
        raise InputError(f"--crs {code} ({crs.name}) is {kind}; expected a projected CRS, such as EPSG:32652")
    return crs


_DEGREE = 4
_MAX_FIT_ERROR_M = 0.05


@dataclass(frozen=True, slots=True)
class GridPolynomials:
    """x and y of a projected CRS over an extent, for programs without PROJ: the sum of c[k] u^i v^j over `powers`
    [i, j], with u and v from -1 to 1 over the extent's longitudes and latitudes."""

    crs: str
    powers: list[tuple[int, int]]
    x: list[float]
    y: list[float]


def grid_polynomials(code: str | None, extent: BBox) -> GridPolynomials | None:
    """Fit a projected CRS, or the UTM zone of the extent's middle where `code` is None or names none.

    None where the polynomials would be off by more than 5 cm, or PROJ knows only a rough way to the CRS.
    """
    middle, half = geo.box_center(extent), (geo.box_width_deg(extent) / 2, (extent.north - extent.south) / 2)
    crs = _projected_or_utm(code, middle)
    if crs is None:
        return None
    u, v = (part.ravel() for part in np.meshgrid(np.linspace(-1, 1, 13), np.linspace(-1, 1, 13)))
    try:
        transformer = Transformer.from_crs("EPSG:4326", crs, always_xy=True, allow_ballpark=False)
        places = np.stack(transformer.transform(middle.lon + half[0] * u, middle.lat + half[1] * v), axis=1)
    except ProjError:
        return None
    powers = [(i, j) for i in range(_DEGREE + 1) for j in range(_DEGREE + 1 - i)]
    terms = np.stack([u**i * v**j for i, j in powers], axis=1)
    if not np.isfinite(places).all():
        return None
    fit = np.linalg.lstsq(terms, places, rcond=None)[0]
    if np.abs(terms @ fit - places).max() * crs.axis_info[0].unit_conversion_factor > _MAX_FIT_ERROR_M:
        return None
    authority = crs.to_authority()
    return GridPolynomials(
        ":".join(authority) if authority else crs.name, powers, fit[:, 0].tolist(), fit[:, 1].tolist()
    )


def _projected_or_utm(code: str | None, middle: LonLat) -> CRS | None:
    crs = CRS.from_user_input(code) if code else None
    if crs is not None and crs.is_projected:
        return crs
    point = AreaOfInterest(middle.lon, middle.lat, middle.lon, middle.lat)
    zones = query_utm_crs_info("WGS 84", point, contains=True)
    return CRS.from_epsg(zones[0].code) if zones else None
