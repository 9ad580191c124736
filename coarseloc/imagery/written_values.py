"""Numbers, angles and times as cameras, tools and spreadsheets write them."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

_BLANKS = ("", "-", "--", "n/a", "na", "nan", "none", "null", "inf", "-inf")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+\.\d+")
_WITH_UNIT = re.compile(
    r"(?P<number>[+-]?\d+(?:[.,]\d+)?)\s*"
    r"(?:(?P<length>m|meters?|metres?|ft|feet)(?:\s.*?(?P<below>below)?.*)?|(?P<angle>deg|[°º도]|rad|gon))?",
    re.IGNORECASE,
)
_DEGREES = re.compile(
    r"(?P<before>[NSEW]?)\s*(\d+(?:\.\d+)?)\s*(?:deg|[°º도:\s])?\s*"
    r"(?:(\d+(?:\.\d+)?)\s*['′’분:\s]?\s*(?:(\d+(?:\.\d+)?)\s*(?:[\"″”초]|''|))?)?\s*(?P<behind>[NSEW]?)",
    re.IGNORECASE,
)
_FACTORS = {  # to metres or degrees
    **dict.fromkeys(("ft", "feet", "foot", "us-ft", "usft", "피트"), 0.3048),
    **dict.fromkeys(("rad", "rads", "radian", "radians", "라디안"), 180 / math.pi),
    **dict.fromkeys(("gon", "gons", "grad", "grads", "gradian", "gradians"), 0.9),
    **dict.fromkeys(("mrad", "milliradians"), 0.18 / math.pi),
    **dict.fromkeys(("cdeg", "centidegrees", "centideg"), 0.01),
    **dict.fromkeys(("dege7", "deg*1e7", "1e7", "1e-7deg", "deg1e7"), 1e-7),
    "km": 1000.0, "cm": 0.01, "mm": 0.001,
}  # fmt: skip


def unit_factor(unit: str) -> float | None:
    """What a number in a unit is multiplied by to be in metres or degrees; None for these and for what is no unit."""
    return _FACTORS.get(re.sub(r"\s+", "", unit.casefold()))


def is_blank(text: str) -> bool:
    """Whether a cell says that there is no value."""
    return text.strip().casefold() in _BLANKS


def parse_number(value: Any) -> float | None:
    """Parse a finite number, also given as text; None for anything else."""
    if value is None or isinstance(value, bool | bytes):
        return None
    try:
        parsed = float(value)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return None
    return parsed if math.isfinite(parsed) else None


def parse_cell(value: Any) -> float | None:
    """Parse a number, also as text: with a decimal point or comma, degrees with minutes and seconds as exiftool writes
    them, or with its unit (`352.1 m Above Sea Level`, `984 ft`), which becomes metres or degrees."""
    if not isinstance(value, str):
        return parse_number(value)
    text = value.strip().replace("−", "-")
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if (number := parse_number(text)) is not None:
        return number
    if match := _WITH_UNIT.fullmatch(text):
        number = parse_number(match["number"].replace(",", "."))
        factor = unit_factor(match["length"] or match["angle"] or "") or 1.0
        return None if number is None else number * (-factor if match["below"] else factor)
    return _parse_degrees(text)


def _parse_degrees(text: str) -> float | None:
    if (match := _DEGREES.fullmatch(text)) is None or (match["before"] and match["behind"]):
        return None
    degrees = float(match[2]) + float(match[3] or 0) / 60 + float(match[4] or 0) / 3600
    return -degrees if (match["before"] or match["behind"]).upper() in ("S", "W") else degrees


# --- times -----------------------------------------------------------------------------------------

_TIME_FORMATS = (
    "%Y:%m:%d %H:%M:%S",
    "%Y:%m:%d %H:%M:%S.%f",
    "%Y%m%d%H%M%S",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M:%S.%f",
)
_HALVES = r"[AP]\.?M\.?|오전|오후"
_SPOKEN = re.compile(  # Korean Excel's `2025. 11. 24. 오후 3:57:12`, and clocks of twelve hours
    r"(\d{4})\s*[-/.:년]\s*(\d{1,2})\s*[-/.:월]\s*(\d{1,2})\s*[.일]?[T,]?\s*"
    rf"(?P<before>{_HALVES})?\s*(\d{{1,2}})\s*[:시]\s*(\d{{1,2}})\s*[:분]\s*(\d{{1,2}})(?:[.,](?P<fraction>\d{{1,9}}))?\s*초?"
    rf"\s*(?P<behind>{_HALVES})?\s*(?P<zone>Z|UTC|GMT|KST)?",
    re.IGNORECASE | re.ASCII,
)
_ZONES_H = {"Z": 0, "UTC": 0, "GMT": 0, "KST": 9}
_UNITS_PER_S = (1, 1e3, 1e6, 1e9)  # of a Unix time
_FIRST_YEAR, _LAST_YEAR = 1980, 2099


def parse_time(value: Any) -> datetime | None:
    """Parse a date with its time of day: ISO 8601, as EXIF writes it, with AM and PM or in Korean, or Unix time in s,
    ms, µs or ns (which gets the zone UTC). None for anything else, such as seconds since take-off or a day before its
    year, and for years before 1980 or after 2099."""
    if not isinstance(value, str | float | int) or isinstance(value, bool):
        return None
    text = value.strip() if isinstance(value, str) else str(value) if abs(value) < 1e21 else ""
    times = (_unix_time(text), *(_formatted_time(text, form) for form in _TIME_FORMATS), _iso_time(text), _spoken(text))
    return next((time for time in times if time is not None and _FIRST_YEAR <= time.year <= _LAST_YEAR), None)


def hour_of_day(hour: int, half: str) -> int:
    """The hour of 24 of an hour with AM or PM, or their Korean; as it is without. Raises ValueError for none of 1 to 12
    with them."""
    word = half.replace(".", "").casefold()
    if not word:
        return hour
    if not 1 <= hour <= 12:
        raise ValueError(f"{hour} {half}")
    return hour % 12 + (12 if word in ("pm", "오후") else 0)


def _unix_time(text: str) -> datetime | None:
    seconds = parse_number(text)
    if seconds is None:
        return None
    plausible = [seconds / unit for unit in _UNITS_PER_S if 315_532_800 <= seconds / unit < 4_102_444_800]
    return datetime.fromtimestamp(plausible[0], UTC) if plausible else None


def _formatted_time(text: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(text, form)
    except ValueError:
        return None


def _iso_time(text: str) -> datetime | None:
    if len(text) < len("2025-11-24T15"):
        return None  # a day is no time
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _spoken(text: str) -> datetime | None:
    match = _SPOKEN.fullmatch(text)
    if match is None or (match["before"] and match["behind"]):
        return None
    year, month, day, _, hour, minute, second = match.groups()[:7]
    microsecond = int(f"{match['fraction'] or 0:0<6}"[:6])
    try:
        hours = hour_of_day(int(hour), match["before"] or match["behind"] or "")
        time = datetime(int(year), int(month), int(day), hours, int(minute), int(second), microsecond)
    except ValueError:
        return None
    zone = match["zone"]
    return time if zone is None else time.replace(tzinfo=UTC) - timedelta(hours=_ZONES_H[zone.upper()])
