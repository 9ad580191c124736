"""Whether a raster's CRS is tied to WGS84: PROJ passes over a datum that it does not know, hundreds of metres off."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from pyproj import CRS, Transformer
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_crs_info
from pyproj.enums import PJType
from pyproj.exceptions import CRSError, ProjError

from coarseloc.core.errors import InputError
from coarseloc.core.types import LonLat

_UTM = re.compile(r"WGS ?84 UTM (?:zone )?(\d{1,2}) ?([NS])", re.IGNORECASE)  # ODM's
_CODE = re.compile(r"[A-Za-z]+:[A-Za-z0-9_]+")
_GEOCENTRIC = {(6378137.0, 298.257222101), (6378137.0, 298.257223563)}  # GRS80, WGS84: (semi-major m, 1/flattening)
_GEOCENTRIC_M = 2.0  # what the datums laid on these two ellipsoids (ETRS89, NAD83, KGD2002, GDA …) differ by at most
_AROUND_DEG = 1.0  # around a ballpark position: where codes that fit are looked for
# Outside it, where it lies inside with exchanged axes: a word, and a refusal. Between them lie places that the CRS of a
# neighbouring zone is used for, such as Busan in Korea's central belt.
_DOUBTED_DEG, _REFUSED_DEG = 1.0, 2.0
BESIDE_DEG = 3.0  # outside the area that a CRS is for, half a UTM zone: farther is no extended use of it
_FITTING = 6  # codes that a refusal names


ToDegrees = Callable[[float, float], tuple[float, float]]
"""(easting, northing) → (lon, lat)."""


class Axes(NamedTuple):
    """A point of a raster, as its georeference gives it: what is across its CRS's x, and its y."""

    x: float
    y: float


def chosen_crs(code: str) -> str:
    """WKT of a CRS that the user names for a file, such as EPSG:5174.

    Raises InputError where PROJ does not know it, it has no x and y, or its datum is not tied to WGS84.
    """
    code = code.strip().upper()
    crs = crs_of_code(code, "a CRS such as EPSG:5174")
    if not (crs.is_projected or crs.is_geographic):
        raise InputError(
            f"--crs {code} ({crs.name}) is no map's grid ({crs.type_name}): expected one such as EPSG:5174"
        )
    if not _is_tied(crs):
        raise InputError(
            f"--crs {code} ({crs.name}): PROJ knows no transformation from its datum to WGS84 but a rough one, which "
            "can be hundreds of metres wrong; give a CRS on a datum that is tied to WGS84"
        )
    return crs.to_wkt()


def crs_of_code(code: str, expected: str) -> CRS:
    """The CRS of an authority's code. Raises InputError, saying what was `expected`, where PROJ does not know it."""
    if not _CODE.fullmatch(code):
        example = expected.split()[-1]
        raise InputError(f"--crs {code!r}: expected an authority and its code, such as {example}")
    try:
        return CRS.from_authority(*code.split(":"))
    except CRSError:
        raise InputError(f"--crs {code} is not known to PROJ: expected {expected}") from None


@cache
def grid_positions(crs: str) -> ToDegrees:
    """The way from eastings and northings to WGS84 (lon, lat): inf where there is none, and degrees beside metres as
    they are. crs: as tables name it: EPSG:5186, `WGS84 UTM 52N`, PROJ's or WKT text.

    Raises InputError where PROJ does not know it, or its datum is not tied to WGS84.
    """
    text = re.sub(r"^EPSG\s+", "EPSG:", crs.strip(), flags=re.IGNORECASE)
    if utm := _UTM.fullmatch(text):
        text = f"+proj=utm +zone={utm[1]}{' +south' if utm[2].upper() == 'S' else ''} +datum=WGS84"
    try:
        system = CRS.from_user_input(text)
        to_wgs84 = Transformer.from_crs(system, "EPSG:4326", always_xy=True, allow_ballpark=False)
    except (CRSError, ProjError) as error:
        raise InputError(f"positions in {crs[:60]!r} cannot be placed: {error}") from None

    def to_degrees(easting: float, northing: float) -> tuple[float, float]:
        if system.is_projected and abs(easting) <= 180 and abs(northing) <= 90:
            return easting, northing  # degrees beside metres: no grid begins within 200 m
        lon, lat = to_wgs84.transform(easting, northing)
        return float(lon), float(lat)

    return to_degrees


def check_datum(name: str, wkt: str, ballpark: LonLat) -> list[str]:
    """Notices of a raster's CRS; `ballpark`: its middle with the datum passed over.

    Raises InputError, with the EPSG codes that fit, where PROJ knows no way from its datum to WGS84 but to pass over
    it. Datums on the ellipsoids GRS80 and WGS84 are taken for WGS84, with a notice: they agree within metres.
    """
    crs = CRS.from_wkt(wkt)
    if _is_tied(crs):
        return []
    ellipsoid = crs.ellipsoid
    if ellipsoid and (ellipsoid.semi_major_metre, round(ellipsoid.inverse_flattening, 9)) in _GEOCENTRIC:
        return [
            f"{name} does not say which datum its CRS {crs.name!r} stands on: taken for WGS84, as its ellipsoid is "
            f"{ellipsoid.name}, whose datums lie within about {_GEOCENTRIC_M:g} m of it. --crs EPSG:… gives it exactly"
        ]
    codes = _fitting_codes(crs, ballpark)
    fitting = (
        f"The same grid with a datum is {' or '.join(codes)}"
        if codes
        else "No EPSG code near there has the same grid and a known datum: ask who made the file for its CRS"
    )
    raise InputError(
        f"{name}: the datum of its CRS {crs.name!r} is unknown (ellipsoid {ellipsoid.name if ellipsoid else 'none'}): "
        "PROJ knows no transformation to WGS84 but a ballpark one, which passes over the datum and can be hundreds of "
        f"metres wrong. {fitting}; give it by --crs {codes[0].split()[0] if codes else 'EPSG:…'}."
    )


def check_area(name: str, wkt: str, middle: LonLat, axes: Axes) -> list[str]:
    """Notices of where a raster lies beside the area that its CRS is for.

    Raises InputError where it lies far off and would lie inside with its axes exchanged, or as plain degrees.
    """
    crs = CRS.from_wkt(wkt)
    area = crs.area_of_use
    if area is None and (authority := crs.to_authority(min_confidence=90)):  # the WKT in a file tells no area
        area = CRS.from_authority(*authority).area_of_use
    if area is None:
        return []
    bounds = (area.west, area.south, area.east, area.north)
    if serves(bounds, middle, 0.0):
        return []
    served = "{:g}, {:g} to {:g}, {:g} (lon, lat)".format(*bounds)
    to_wgs84 = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    exchanged = LonLat(*to_wgs84.transform(axes.y, axes.x))
    lies_inside_exchanged = serves(bounds, exchanged, 0.0)
    if lies_inside_exchanged and not serves(bounds, middle, _REFUSED_DEG):
        raise InputError(
            f"{name}: its axes are exchanged: x holds {axes.x:.6g} and y {axes.y:.6g}, outside the area that "
            f"{crs.name} is for ({served}); with x and y exchanged it lies inside, at {exchanged.lon:.4f}, "
            f"{exchanged.lat:.4f}. Write it again with x east (longitude) and y north (latitude). If it does lie at "
            f"{middle.lon:.4f}, {middle.lat:.4f}: gdalwarp -t_srs EPSG:4326 makes a file that may lie there."
        )
    if lies_inside_exchanged and not serves(bounds, middle, _DOUBTED_DEG):
        return [
            f"{name} lies at {middle.lon:.4f}, {middle.lat:.4f}, outside the area that its CRS {crs.name} is for "
            f"({served}); with x and y exchanged it would lie inside, at {exchanged.lon:.4f}, {exchanged.lat:.4f}: are "
            "its axes exchanged? It is taken as it is"
        ]
    if crs.is_projected and abs(axes.x) <= 360 and abs(axes.y) <= 90 and serves(bounds, LonLat(*axes), 0.0):
        raise InputError(
            f"{name} declares {crs.name}, whose unit is the metre, but its middle is {axes.x:.6g}, {axes.y:.6g}: these "
            "are degrees. Give its CRS by --crs EPSG:4326."
        )
    if serves(bounds, middle, BESIDE_DEG):
        return []
    return [
        f"{name} lies at {middle.lon:.4f}, {middle.lat:.4f}, outside the area that its CRS {crs.name} is for "
        f"({served}): is it the right one?"
    ]


def _is_tied(crs: CRS) -> bool:
    """Whether PROJ knows a transformation to WGS84 that does not pass over the datum."""
    try:
        Transformer.from_crs(crs, "EPSG:4326", always_xy=True, allow_ballpark=False)
    except ProjError:
        return False
    return True


def _fitting_codes(crs: CRS, ballpark: LonLat) -> list[str]:
    """EPSG codes around a position with the same ellipsoid and projection, whose datum is known, with their names."""
    if not all(map(math.isfinite, ballpark)):
        return []
    lon, lat = ballpark
    around = AreaOfInterest(lon - _AROUND_DEG, lat - _AROUND_DEG, lon + _AROUND_DEG, lat + _AROUND_DEG)
    kind = PJType.PROJECTED_CRS if crs.is_projected else PJType.GEOGRAPHIC_2D_CRS
    codes = []
    for info in query_crs_info("EPSG", kind, around):
        candidate = CRS.from_authority("EPSG", info.code)
        if _same_grid(crs, candidate) and _is_tied(candidate):
            codes.append(f"EPSG:{info.code} ({info.name})")
    return codes[:_FITTING]


def _same_grid(crs: CRS, candidate: CRS) -> bool:
    if crs.ellipsoid is None or candidate.ellipsoid is None:
        return False
    if abs(crs.ellipsoid.semi_major_metre - candidate.ellipsoid.semi_major_metre) > 0.1:
        return False
    numbers, candidate_numbers = _projection(crs), _projection(candidate)
    return numbers.keys() == candidate_numbers.keys() and all(
        math.isclose(value, candidate_numbers[key], rel_tol=1e-9, abs_tol=1e-9) for key, value in numbers.items()
    )


def _projection(crs: CRS) -> dict[str, float]:
    """A projection's numbers in radians and metres by their names, its method among them as a key."""
    operation = crs.coordinate_operation
    if not crs.is_projected or operation is None:
        return {}
    numbers = {"unit": crs.axis_info[0].unit_conversion_factor, operation.method_name: 0.0}
    return numbers | {p.name: float(p.value) * p.unit_conversion_factor for p in operation.params}


def serves(bounds: tuple[float, float, float, float], position: LonLat, beside_deg: float) -> bool:
    """Whether a position lies in the area of a CRS (west, south, east, north), or so far beside it."""
    if not (math.isfinite(position.lon) and math.isfinite(position.lat)):
        return False
    west, south, east, north = bounds
    width = (east - west) % 360.0 or 360.0
    return (position.lon - west + beside_deg) % 360.0 <= width + 2 * beside_deg and (
        south - beside_deg <= position.lat <= north + beside_deg
    )
