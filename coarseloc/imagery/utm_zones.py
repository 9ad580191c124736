"""UTM zones as columns of tables say them: 52N, 52S, 52 beside S, zone 52 north."""

from __future__ import annotations

import re
from typing import NamedTuple

from coarseloc.core.errors import ImageryError

_BANDS = "CDEFGHJKLMNPQRSTUVWX"  # of 8 degrees of latitude from 80 south on (X of 12); no I, no O
_BAND_S_M = (3_540_000.0, 4_430_000.0)  # northings of 32 to 40 degrees north
_ZONE = re.compile(
    r"(?:utm|zone|존|구역|[\s_:/-])*(?P<number>\d{1,2})\s*(?P<letter>[A-Z]|north|south|북|남)?\w*", re.IGNORECASE
)
_EASTINGS_M, _NORTHINGS_M = (100_000.0, 900_000.0), (0.0, 10_000_000.0)


class ZoneReading(NamedTuple):
    """The CRS that a zone is taken as, and what was doubtful."""

    crs: str  # of WGS84
    note: str


def read_zone(zone: str, letter: str, easting: float, northing: float) -> ZoneReading:
    """Read a UTM zone, with its letter or the one of another column, for a position in it.

    N is the northern hemisphere, and so is band N. S is band S (32 to 40 degrees north) where the northing lies in it,
    which it does in the southern hemisphere from 50 to 58 degrees only; else the southern hemisphere. Other letters are
    bands. Raises ImageryError of kind "wrong-crs" where the hemisphere is not said, for what is no zone, and for
    numbers that are no easting and northing.
    """
    match = _ZONE.fullmatch(zone.strip())
    number = int(match["number"]) if match else 0
    sign = ((match["letter"] if match else "") or letter).strip().upper()
    if not 1 <= number <= 60:
        raise ImageryError("wrong-crs", f"its UTM zone {zone!r} is none: expected 1 to 60 with N or S, such as 52N")
    if not (_EASTINGS_M[0] <= easting <= _EASTINGS_M[1] and _NORTHINGS_M[0] <= northing <= _NORTHINGS_M[1]):
        raise ImageryError(
            "wrong-crs",
            f"easting {easting:.10g} and northing {northing:.10g} in UTM zone {zone.strip()}: expected 100,000 to "
            "900,000 and 0 to 10,000,000 m (are the two exchanged, or degrees?)",
        )
    is_north = {"NORTH": True, "북": True, "SOUTH": False, "남": False}.get(sign)
    note = ""
    if is_north is None and sign == "S":
        is_north = _BAND_S_M[0] <= northing <= _BAND_S_M[1]
        if is_north:
            note = (
                f"its UTM zone {number}S is taken as band S, 32° to 40° north; if it is the southern hemisphere (50° "
                f"to 58° south), say --label-crs EPSG:{32700 + number}"
            )
    elif is_north is None and sign[:1] in _BANDS and sign:
        is_north = sign[0] >= "N"
    if is_north is None:
        raise ImageryError(
            "wrong-crs",
            f"its UTM zone {zone.strip()!r} does not say the hemisphere: give --label-crs EPSG:{32600 + number} or "
            f"EPSG:{32700 + number}, north or south",
        )
    return ZoneReading(f"EPSG:{(32600 if is_north else 32700) + number}", note)
