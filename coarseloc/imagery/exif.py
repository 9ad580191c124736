"""Position, height and time that a camera wrote into an image's EXIF data."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from PIL import ExifTags
from PIL.Image import Exif

from coarseloc.core.types import AltitudeDatum, LonLat, Pose
from coarseloc.imagery.written_values import parse_number

_SEA_REFERENCES = {b"\x00": 1, 0: 1, b"\x01": -1, 1: -1, b"\x02": 1, 2: 1, b"\x03": -1, 3: -1}  # 2 and 3: EXIF 3.0


def exif_pose(exif: Exif) -> Pose:
    """Read the GPS position and height; an empty Pose where there is no position.

    Latitude and longitude both exactly 0 is what cameras write without a fix. The altitude is above the sea where its
    reference is stated. A direction in EXIF is the camera's, not the image's upper edge.
    """
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    lat = _signed_degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef), "S")
    lon = _signed_degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef), "W")
    if lat is None or lon is None or (lat == 0 and lon == 0) or abs(lat) > 90 or abs(lon) > 180:
        return Pose()
    altitude = parse_number(gps.get(ExifTags.GPS.GPSAltitude))
    sign = _SEA_REFERENCES.get(gps.get(ExifTags.GPS.GPSAltitudeRef))
    datum: AltitudeDatum = "unknown" if altitude is None or sign is None else "sea"
    return Pose(LonLat(lon, lat), altitude and altitude * (sign or 1), altitude_datum=datum)


def lacks_hemisphere(exif: Exif) -> bool:
    """Whether there are a latitude and a longitude, and not the letters that say on which side of 0."""
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    has_numbers = ExifTags.GPS.GPSLatitude in gps and ExifTags.GPS.GPSLongitude in gps
    letters = _letter(gps.get(ExifTags.GPS.GPSLatitudeRef)), _letter(gps.get(ExifTags.GPS.GPSLongitudeRef))
    return has_numbers and not (letters[0] in ("N", "S") and letters[1] in ("E", "W"))


def _letter(reference: Any) -> str:
    text = reference.decode("ascii", "replace") if isinstance(reference, bytes) else str(reference or "")
    return text.strip("\x00 ").upper()[:1] or "?"


def exif_time(exif: Exif) -> datetime | None:
    """Read when an image was taken by the camera's clock (DateTimeOriginal with its sub-seconds), with the offset from
    UTC where the image gives one; None where it gives no time."""
    facts = exif.get_ifd(ExifTags.IFD.Exif)
    try:
        time = datetime.strptime(_text(facts[ExifTags.Base.DateTimeOriginal]), "%Y:%m:%d %H:%M:%S")
    except (KeyError, ValueError):
        return None
    fraction = _text(facts.get(ExifTags.Base.SubsecTimeOriginal, ""))
    offset = _text(facts.get(ExifTags.Base.OffsetTimeOriginal, "") or facts.get(ExifTags.Base.OffsetTime, ""))
    if fraction.isascii() and fraction.isdigit():
        time = time.replace(microsecond=int(f"{fraction[:6]:0<6}"))
    return time.replace(tzinfo=_time_zone(offset))


def gps_time(exif: Exif) -> datetime | None:
    """Read the time of the GPS fix, in UTC; None where there is none."""
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    parts = gps.get(ExifTags.GPS.GPSTimeStamp)
    clock = [parse_number(part) for part in parts] if isinstance(parts, tuple | list) and len(parts) == 3 else []
    try:
        day = datetime.strptime(_text(gps[ExifTags.GPS.GPSDateStamp]), "%Y:%m:%d").replace(tzinfo=UTC)
        hours, minutes, seconds = (part for part in clock if part is not None)
    except (KeyError, ValueError):
        return None
    if not (0 <= hours < 24 and 0 <= minutes < 60 and 0 <= seconds < 61):
        return None
    return day + timedelta(hours=hours, minutes=minutes, seconds=seconds)


def _text(value: Any) -> str:
    return str(value).strip("\x00 ")


def _time_zone(offset: str) -> timezone | None:
    """Parse an offset such as `+09:00`, as EXIF writes it."""
    match = re.fullmatch(r"([+-])(\d\d):(\d\d)", offset, re.ASCII)
    if match is None or (minutes := int(match[2]) * 60 + int(match[3])) >= 24 * 60:
        return None
    return timezone(timedelta(minutes=-minutes if match[1] == "-" else minutes))


def _signed_degrees(value: Any, reference: Any, negative: str) -> float | None:
    """Convert degrees, minutes, seconds and a letter to signed degrees."""
    parts = [parse_number(part) for part in value] if isinstance(value, tuple | list) and len(value) == 3 else [None]
    if any(part is None for part in parts):
        return None
    degrees, minutes, seconds = (part or 0.0 for part in parts)
    letter = _letter(reference)
    if letter not in ("NS" if negative == "S" else "EW"):
        return None  # see `lacks_hemisphere`
    sign = -1 if letter == negative else 1
    return sign * (degrees + minutes / 60 + seconds / 3600)
