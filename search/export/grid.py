"""Positions in the users' own grid: x and y of a projected CRS, by PROJ."""

from __future__ import annotations

import math

from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from coarseloc.core.errors import InputError
from coarseloc.core.types import LonLat
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
