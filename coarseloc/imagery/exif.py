"""Position, height and time that a camera wrote into an image."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from coarseloc.core.types import LonLat, Pose
from coarseloc.imagery.decode import FORMATS
from coarseloc.imagery.label_files import parse_number


def exif_pose(path: Path) -> Pose:
    """Read the EXIF GPS position and height of an image; an empty Pose where it has none or is no image.

    Latitude and longitude both exactly 0 is what cameras write without a fix. The altitude's datum is as the
    camera meant it, usually mean sea level. A direction in EXIF is the camera's, not the image's upper edge.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            gps = image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
        lat = _signed_degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef), "S")
        lon = _signed_degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef), "W")
        altitude = parse_number(gps.get(ExifTags.GPS.GPSAltitude))
        below = gps.get(ExifTags.GPS.GPSAltitudeRef) in (b"\x01", 1)
    except Exception:  # a damaged image says nothing here; decoding it names the damage
        return Pose()
    if lat is None or lon is None or (lat == 0 and lon == 0) or abs(lat) > 90 or abs(lon) > 180:
        return Pose()
    return Pose(LonLat(lon, lat), -altitude if altitude is not None and below else altitude)


def exif_time(path: Path) -> datetime | None:
    """Read when an image was taken by the camera's clock (DateTimeOriginal with its sub-seconds), with the offset from
    UTC where the image gives one; None where it gives no time."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            facts = image.getexif().get_ifd(ExifTags.IFD.Exif)
        time = datetime.strptime(_text(facts[ExifTags.Base.DateTimeOriginal]), "%Y:%m:%d %H:%M:%S")
        fraction = _text(facts.get(ExifTags.Base.SubsecTimeOriginal, ""))
        offset = _text(facts.get(ExifTags.Base.OffsetTimeOriginal, "") or facts.get(ExifTags.Base.OffsetTime, ""))
    except Exception:  # a damaged image says nothing here; decoding it names the damage
        return None
    if fraction.isascii() and fraction.isdigit():
        time = time.replace(microsecond=int(f"{fraction[:6]:0<6}"))
    return time.replace(tzinfo=_time_zone(offset))


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
    sign = -1 if str(reference).strip("\x00 ").upper() == negative else 1
    return sign * (degrees + minutes / 60 + seconds / 3600)
