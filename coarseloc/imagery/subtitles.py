"""What a drone writes into the subtitle (SRT) beside its video: where, when and how each moment was filmed."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from coarseloc.core.types import AltitudeDatum, LonLat, Pose
from coarseloc.imagery.gimbal import picture_attitude
from coarseloc.imagery.written_values import parse_number

_START = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})\s*-->")
_VALUE = re.compile(r"\b([a-z_]+)\s*:\s*(-?\d+(?:\.\d+)?)", re.IGNORECASE)
_TIME = re.compile(r"(\d{4})[-./](\d\d)[-./](\d\d)[ T](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,3}))?")
_OLD_PLACE = re.compile(r"GPS\s*\(\s*(-?\d+\.\d+)\s*,\s*(-?\d+\.\d+)\s*,")  # longitude first


class SubtitleMoment(NamedTuple):
    """What is said from a moment of the video on."""

    start_s: float
    pose: Pose
    time: datetime | None  # by the drone's clock, no zone


def read_subtitle(path: Path) -> list[SubtitleMoment]:
    """Read DJI's forms: `[latitude: …] [longitude: …] [rel_alt: … abs_alt: …] [gb_yaw: …]`, and GPS(lon,lat,…).

    What it says in no form known is left out. Raises OSError.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace").replace("\r\n", "\n")
    moments = []
    for block in re.split(r"\n\s*\n", text):
        if (start := _START.search(block)) is not None:
            hours, minutes, seconds = (int(part) for part in start.groups()[:3])
            start_s = hours * 3600 + minutes * 60 + seconds + int(f"{start[4]:0<3}") / 1000
            moments.append(SubtitleMoment(start_s, _pose(block), _time(block[start.end() :])))
    return sorted(moments, key=lambda moment: moment.start_s)


def moment_at(moments: Sequence[SubtitleMoment], seconds: float) -> SubtitleMoment | None:
    """The latest one that has begun."""
    place = bisect_right([moment.start_s for moment in moments], seconds + 1e-3)
    return moments[place - 1] if place else None


def _pose(block: str) -> Pose:
    values = {name.lower(): parse_number(text) for name, text in _VALUE.findall(block)}
    altitude_m, datum = _altitude(values)
    attitude = None
    if (yaw := values.get("gb_yaw")) is not None and (pitch := values.get("gb_pitch")) is not None:
        attitude = picture_attitude(yaw, pitch, values.get("gb_roll") or 0.0)
    attitude = attitude or Pose()
    return Pose(_location(values, block), altitude_m, attitude.yaw_deg, attitude.pitch_deg, attitude.roll_deg, datum)


def _location(values: dict[str, float | None], block: str) -> LonLat | None:
    lat = values.get("latitude")
    lon = values.get("longitude", values.get("longtitude"))  # as some firmware spells it
    if lat is None or lon is None:
        if (old := _OLD_PLACE.search(block)) is None:
            return None
        lon, lat = float(old[1]), float(old[2])
    has_position = abs(lat) <= 90 and abs(lon) <= 180 and (lat, lon) != (0.0, 0.0)  # 0, 0: no satellites yet
    return LonLat(lon, lat) if has_position else None


def _altitude(values: dict[str, float | None]) -> tuple[float | None, AltitudeDatum]:
    """That above take-off before the one above the sea, as of an image's XMP."""
    sources: tuple[tuple[str, AltitudeDatum], ...] = (
        ("rel_alt", "takeoff"),
        ("abs_alt", "sea"),
        ("altitude", "unknown"),
    )
    for name, datum in sources:
        if values.get(name) is not None:
            return values[name], datum
    return None, "unknown"


def _time(text: str) -> datetime | None:
    if (match := _TIME.search(text)) is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    try:
        return datetime(year, month, day, hour, minute, second, int(f"{match[7] or 0:0<3}") * 1000)
    except ValueError:
        return None
