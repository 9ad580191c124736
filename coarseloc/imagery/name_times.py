"""When frames were taken, as their file names say."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from coarseloc.imagery.written_values import hour_of_day

Stamp = Callable[[re.Match[str]], datetime]
_FIRST_YEAR, _LAST_YEAR = 2005, 2099  # counters of ten digits begin in 2001


class _Form(NamedTuple):
    description: str
    pattern: re.Pattern[str]
    read: Stamp  # raises ValueError where the digits are no time


class NameTimes(NamedTuple):
    """{file name: its time, with a zone where the name tells UTC}, and what of the names was doubtful."""

    times: dict[str, datetime | None]
    form: str = ""
    notices: tuple[str, ...] = ()


def _calendar(match: re.Match[str]) -> datetime:
    parts = match.groupdict()
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    fraction = parts.get("fraction") or parts.get("ms") or "0"
    hour = hour_of_day(hour, parts.get("half") or "")
    time = datetime(year + 2000 if year < 100 else year, month, day, hour, minute, second, int(f"{fraction[:6]:0<6}"))
    return time.replace(tzinfo=datetime.strptime(zone, "%z").tzinfo) if (zone := parts.get("zone")) else time


def _spoken(match: re.Match[str]) -> datetime:
    clock = match.group("h", "m", "s") if match["half"] else match.group("hour", "minute", "second")
    year, month, day, hour, minute, second = map(int, (*match.groups()[:3], *clock))
    milliseconds = int(match["ms"] or 0)
    return datetime(year, month, day, hour_of_day(hour, match["half"] or ""), minute, second, milliseconds * 1000)


def _day_first(match: re.Match[str]) -> datetime:
    day, month, year, hour, minute, second = map(int, match.groups()[:6])
    return datetime(year, month, day, hour, minute, second)


def _unix(match: re.Match[str]) -> datetime:
    fraction = match["fraction"] or match["ns"] or ""
    nanoseconds = int(f"{match['seconds'] or match['whole']}{fraction:0<9}".ljust(19, "0")[:19])
    return datetime.fromtimestamp(nanoseconds // 10**9, UTC) + timedelta(microseconds=nanoseconds % 10**9 // 1000)


_FORMS = (
    _Form(
        "Unix time",
        re.compile(
            r"(?<![\d.])(?:(?P<seconds>[1-3]\d{9})(?:\.(?P<fraction>\d{1,9})|[_-](?P<ns>\d{9}))"
            r"|(?P<whole>[1-3]\d{9}(?:\d{3}){0,3}))(?!\d)",
            re.ASCII,
        ),
        _unix,
    ),
    _Form(
        "YYYYMMDDhhmmss",
        re.compile(
            r"(?<![\d.])(20\d\d)[-_.]?(\d\d)[-_.]?(\d\d)[-_T ]?(\d\d)[-_:.]?(\d\d)[-_:.]?(\d\d)"
            r"(?:\.(?P<fraction>\d{1,9})|(?P<ms>\d{3}))?(?!\d)(?P<zone>Z|\+\d\d:?\d\d)?(?: ?(?P<half>[AP]M)(?![A-Z]))?",
            re.ASCII | re.IGNORECASE,
        ),
        _calendar,
    ),
    _Form(  # `2025-11-24 오후 3-57-12`, `2025년 11월 24일 15시 57분 12초`, `2025-11-24-15h57m12s001`
        "YYYY MM DD, hh mm ss in words",
        re.compile(
            r"(?<![\d.])(20\d\d)[-_. 년]+(\d\d?)[-_. 월]+(\d\d?)[-_. 일T]*"
            r"(?:(?P<half>오전|오후|[AP]M)[-_. ]*(?P<h>\d\d?)[-_.: 시h]+(?P<m>\d\d?)[-_.: 분m]+(?P<s>\d\d?)"
            r"|(?P<hour>\d\d?) ?[h시] ?(?P<minute>\d\d?) ?[m분] ?(?P<second>\d\d?))[s초]?(?P<ms>\d{3})?(?!\d)",
            re.ASCII | re.IGNORECASE,
        ),
        _spoken,
    ),
    _Form(
        "DD-MM-YYYY hh-mm-ss",
        re.compile(r"(?<!\d)(\d\d)[-_.](\d\d)[-_.](20\d\d)[-_T ]+(\d\d)[-_:.]?(\d\d)[-_:.]?(\d\d)(?!\d)", re.ASCII),
        _day_first,
    ),
    _Form(
        "YYMMDDhhmmss",
        re.compile(r"(?<![\d.])(\d\d)(\d\d)(\d\d)[-_]?(\d\d)(\d\d)(\d\d)(?!\d)", re.ASCII),
        _calendar,
    ),
)


def name_times(names: Sequence[str], flight_id: str) -> NameTimes:
    """Read when frames were taken from their file names: Unix time in s (with a fraction), ms, µs or ns; or a date and
    a time of day, local unless a Z follows.

    A stamp that every name has alike is the flight's start, not a frame's time. Where fewer than half of the stamps
    differ, or stamps of two places in the names do, they are doubtful: none is taken, and that is said.
    """
    columns: dict[tuple[str, int], dict[str, datetime]] = {}
    for name in names:
        stem = unicodedata.normalize("NFC", Path(name).stem)
        for form in _FORMS:
            for place, match in enumerate(form.pattern.finditer(stem)):
                if (time := _plausible(form, match)) is not None and not _is_of_flight(match[0], flight_id, names):
                    columns.setdefault((form.description, place), {})[name] = time
    varying = {key: times for key, times in columns.items() if len(times) == 1 or len(set(times.values())) > 1}
    frequent = {key: times for key, times in varying.items() if 2 * len(set(times.values())) >= len(times)}
    if len(frequent) == 1:
        (((form_name, _), times),) = frequent.items()
        return NameTimes({name: times.get(name) for name in names}, form_name)
    no_times: dict[str, datetime | None] = dict.fromkeys(names)
    if frequent:
        forms = " and ".join(dict.fromkeys(form_name for form_name, _ in frequent))
        return NameTimes(no_times, "", (f"names such as {names[0]} hold several times ({forms}): none is taken",))
    if varying:
        times = max(varying.values(), key=len)
        notice = f"the names of {len(times)} frames hold {len(set(times.values()))} times: not taken as the frames' own"
        return NameTimes(no_times, "", (notice,))
    return NameTimes(no_times)


def _plausible(form: _Form, match: re.Match[str]) -> datetime | None:
    try:
        time = form.read(match)
    except (ValueError, OverflowError, OSError):
        return None
    return time if _FIRST_YEAR <= time.year <= _LAST_YEAR else None


def _is_of_flight(stamp: str, flight_id: str, names: Sequence[str]) -> bool:
    return len(names) == 1 and stamp in flight_id
