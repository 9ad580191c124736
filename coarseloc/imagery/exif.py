"""Position, height and time that a camera wrote into an image's EXIF data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal

from PIL import ExifTags
from PIL.Image import Exif

from coarseloc.core.types import AltitudeDatum, LonLat, Pose
from coarseloc.imagery.written_values import parse_number, parse_time

PositionDoubt = Literal["hemisphere", "numbers", "datum", "void"]
"""Of a position in EXIF: no letters that say on which side of 0 it is; numbers that are no degrees; another datum than
WGS84; a receiver that had no fix."""
_FOREIGN_DATUMS = ("TOKYO", "TKY", "BESSEL", "KOREA", "NAD27", "NAD-27", "ED50", "PULKOVO", "OSGB")
_SEA_REFERENCES = {b"\x00": 1, 0: 1, b"\x01": -1, 1: -1, b"\x02": 1, 2: 1, b"\x03": -1, 3: -1}  # 2 and 3: EXIF 3.0


def exif_pose(exif: Exif) -> Pose:
    """Read the GPS position and height; an empty Pose where there is no position.

    Latitude and longitude both exactly 0 is what cameras write without a fix. The altitude is above the sea where its
    reference is stated. A direction in EXIF is the camera's, not the image's upper edge.
    """
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    location = _location(gps)
    if location is None or location == LonLat(0.0, 0.0) or _foreign_datum(gps):
        return Pose()
    altitude = parse_number(gps.get(ExifTags.GPS.GPSAltitude))
    sign = _SEA_REFERENCES.get(gps.get(ExifTags.GPS.GPSAltitudeRef))
    datum: AltitudeDatum = "unknown" if altitude is None or sign is None else "sea"
    return Pose(location, altitude and altitude * (sign or 1), altitude_datum=datum)


def position_doubt(exif: Exif) -> PositionDoubt | None:
    """Why a position is not used though there is one, or may be old; None where there is none or nothing to doubt."""
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    if not (ExifTags.GPS.GPSLatitude in gps and ExifTags.GPS.GPSLongitude in gps):
        return None
    letters = _letter(gps.get(ExifTags.GPS.GPSLatitudeRef)), _letter(gps.get(ExifTags.GPS.GPSLongitudeRef))
    if not (letters[0] in ("N", "S") and letters[1] in ("E", "W")):
        return "hemisphere"
    location = _location(gps)
    if location is None:
        return "numbers"
    if location == LonLat(0.0, 0.0):
        return None
    if _foreign_datum(gps):
        return "datum"
    return "void" if _text(gps.get(ExifTags.GPS.GPSStatus, "")).upper() == "V" else None


def exif_position_notices(doubts: Mapping[str, PositionDoubt | None], missing: Sequence[str]) -> list[str]:
    """Say which positions are not used and why, and which frames have none where others do. doubts: by frame."""
    frames_by_doubt: dict[PositionDoubt, list[str]] = {}
    for name, doubt in doubts.items():
        if doubt is not None:
            frames_by_doubt.setdefault(doubt, []).append(name)
    notices = [_doubt_text(doubt, len(names), names[0]) for doubt, names in frames_by_doubt.items()]
    without = [name for name in missing if doubts[name] is None]
    if without and len(missing) < len(doubts):
        notices.append(f"{len(without)} of {len(doubts)} frames have no EXIF position: first {without[0]}")
    return notices


def _doubt_text(doubt: PositionDoubt, count: int, first: str) -> str:
    if doubt == "hemisphere":
        return (
            f"the EXIF positions of {count} frames (first {first}) do not say whether they are north or south, east or "
            "west (GPSLatitudeRef, GPSLongitudeRef: the hemisphere): not used. If you know: exiftool -GPSLatitudeRef=N "
            "-GPSLongitudeRef=E FOLDER"
        )
    if doubt == "numbers":
        return (
            f"the EXIF positions of {count} frames (first {first}) are no degrees, minutes and seconds of a latitude "
            "and a longitude (0/0, exchanged?): not used"
        )
    if doubt == "datum":
        return (
            f"the EXIF positions of {count} frames (first {first}) are on another datum than WGS84 (GPSMapDatum), "
            "hundreds of metres beside it: not used. Give them as labels with --label-crs"
        )
    return f"{count} frames (first {first}) say in EXIF that the receiver had no fix (GPSStatus V): are positions old?"


def _location(gps: Mapping[int, Any]) -> LonLat | None:
    lat = _signed_degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef), "S")
    lon = _signed_degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef), "W")
    return None if lat is None or lon is None or abs(lat) > 90 or abs(lon) > 180 else LonLat(lon, lat)


def _foreign_datum(gps: Mapping[int, Any]) -> bool:
    """Whether the map datum is one that lies hundreds of metres beside WGS84."""
    return _text(gps.get(ExifTags.GPS.GPSMapDatum, "")).upper().startswith(_FOREIGN_DATUMS)


def _letter(reference: Any) -> str:
    text = reference.decode("ascii", "replace") if isinstance(reference, bytes) else str(reference or "")
    return text.strip("\x00 ").upper()[:1] or "?"


def exif_time(exif: Exif) -> datetime | None:
    """Read when an image was taken by the camera's clock (DateTimeOriginal with its sub-seconds), with the offset from
    UTC where the image gives one; None where it gives no time."""
    facts = exif.get_ifd(ExifTags.IFD.Exif)
    try:
        time = parse_time(_text(facts[ExifTags.Base.DateTimeOriginal]))
    except KeyError:
        return None
    if time is None:
        return None
    fraction = _text(facts.get(ExifTags.Base.SubsecTimeOriginal, ""))
    offset = _text(facts.get(ExifTags.Base.OffsetTimeOriginal, "") or facts.get(ExifTags.Base.OffsetTime, ""))
    if fraction.isascii() and fraction.isdigit():
        time = time.replace(microsecond=int(f"{fraction[:6]:0<6}"))
    return time if time.tzinfo else time.replace(tzinfo=_time_zone(offset))


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
    """Convert degrees, or these and minutes, or these and seconds, and a letter to signed degrees."""
    parts = [parse_number(part) for part in (value if isinstance(value, tuple | list) else (value,))]
    letter = _letter(reference)
    if not 1 <= len(parts) <= 3 or None in parts or letter not in ("NS" if negative == "S" else "EW"):
        return None  # see `position_doubt`
    degrees, minutes, seconds = (part or 0.0 for part in (*parts, 0.0, 0.0)[:3])
    if degrees < 0 and letter != negative:
        return None  # west and east at once
    return (-1 if letter == negative else 1) * (abs(degrees) + minutes / 60 + seconds / 3600)
