"""A flight's clock: which source of times is taken, how far it is from UTC, and in which order that puts the frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from coarseloc.core.clock import (
    MAX_UTC_OFFSET_S,
    TIME_SOURCES,
    FlightClock,
    TimeSource,
    interval_steps,
    utc_offset_text,
)

Times = Mapping[str, datetime | None]
"""A frame's name → when it was taken, with a zone where its source gives one; may lack names."""

_SAME_TIME_S = 5.0  # of two clocks: less is rounding to seconds, and the delay between shutter and writing
_ZONE_STEP_S = 900  # all offsets from UTC are whole quarters of an hour
_MANY_FRAMES = 5  # of one moment: fewer may be a burst
_SAME_CLOCK_S = 120.0  # a camera's clock off GPS by more is no clock to tell an offset by


@dataclass(frozen=True, slots=True)
class StatedTime:
    """What a flight's user says of its times."""

    interval_s: float | None = None  # from one frame to the next
    utc_offset_s: int | None = None  # of times without a zone

    def over(self, base: StatedTime) -> StatedTime:
        """This, with what it does not say taken from another."""
        return StatedTime(
            base.interval_s if self.interval_s is None else self.interval_s,
            base.utc_offset_s if self.utc_offset_s is None else self.utc_offset_s,
        )


class FrameTimes(NamedTuple):
    """`times` by `clock`, without a zone; `names` in the order of the flight."""

    times: dict[str, datetime | None]
    names: list[str]
    clock: FlightClock
    notices: list[str]


def tell_times(
    names: Sequence[str],
    sources: Mapping[TimeSource, Times],
    utc_times: Times,
    stated: StatedTime,
    started_at: datetime | None,
    number: Callable[[Sequence[str]], Sequence[int]],
) -> FrameTimes:
    """Give frames their times, and put them in the order of these.

    names: in natural order. sources: every one that was read. utc_times: by GPS, of the images that have them. number:
    gives frames in their order their numbers, which a stated interval counts.

    The first source, in the order of `TIME_SOURCES`, that gives every frame a time is taken; without one a stated
    interval; else the source that covers most frames, which are then ordered by name. Times of two clocks are never
    mixed. Frames of one moment stay in natural order: a copy has its original's time, and seconds may be all a camera
    writes. With a zone for every frame, times are in that of the user, or of the first frame.
    """
    sources, constant_notices = _without_constant_times(sources)
    covered = {source: sum(sources[source].get(name) is not None for name in names) for source in sources}
    ranked = sorted((source for source in covered if covered[source]), key=TIME_SOURCES.index)
    complete = [source for source in ranked if covered[source] == len(names)]
    offset_s, notices = _utc_offset(sources.get("exif", {}), utc_times, stated)
    notices = [*constant_notices, *notices]
    if not complete and stated.interval_s is not None:
        return _counted(names, FlightClock("interval", offset_s, stated.interval_s), started_at, number, notices)
    if not ranked:
        return FrameTimes(dict.fromkeys(names), list(names), FlightClock("index", offset_s), notices)
    source = complete[0] if complete else max(ranked, key=lambda source: covered[source])
    clock = FlightClock(source, offset_s, stated.interval_s)
    times = {name: sources[source].get(name) for name in names}
    for rival in ranked:
        if rival != source:
            notices += _contradictions(FlightClock(rival), sources[rival], clock, times)
        if TIME_SOURCES.index(rival) < TIME_SOURCES.index(source):
            rest = len(names) - covered[rival]
            notices.append(
                f"{rest} of {len(names)} frames have no time from {FlightClock(rival).description}: all are timed by "
                f"{clock.description}"
            )
    if not complete:
        notices.append(
            f"{covered[source]} of {len(names)} frames say when they were taken ({clock.description}): all are ordered "
            "by name"
        )
        return FrameTimes({name: _without_zone(time) for name, time in times.items()}, list(names), clock, notices)
    timed = {name: time for name, time in times.items() if time is not None}
    zoned = all(time.tzinfo is not None for time in timed.values())
    if not zoned:
        timed = {name: time.replace(tzinfo=None) for name, time in timed.items()}
    order = sorted(names, key=timed.__getitem__)  # stable
    if zoned:
        zone = timed[order[0]].tzinfo if stated.utc_offset_s is None else _zone(stated.utc_offset_s)
        timed = {name: time.astimezone(zone) for name, time in timed.items()}
        difference = timed[order[0]].utcoffset() or timedelta()
        clock = FlightClock(source, round(difference.total_seconds()), stated.interval_s)
    if order != list(names):
        notices.append(
            f"the frames are in the order of their times ({clock.description}), which is not the order of their names"
        )
    if stated.interval_s is not None:
        steps = [(timed[b] - timed[a]).total_seconds() for a, b in pairwise(order)]
        spacing = f", {median(steps):g} s apart" if steps else ""
        notices.append(
            f"the interval of {stated.interval_s:g} s is not used: {clock.description} give the frames' times{spacing}"
        )
    return FrameTimes({name: _without_zone(time) for name, time in timed.items()}, order, clock, notices)


def _without_constant_times(sources: Mapping[TimeSource, Times]) -> tuple[dict[TimeSource, Times], list[str]]:
    """(the sources without those that give many frames one time, which is when something was made of them; notices)."""
    varying: dict[TimeSource, Times] = {}
    notices = []
    for source, times in sources.items():
        moments = [time for time in times.values() if time is not None]
        if len(moments) >= _MANY_FRAMES and len(set(moments)) == 1:
            clock = FlightClock(source).description
            notices.append(f"{clock} give {len(moments)} frames one time, {moments[0]}: not taken")
        else:
            varying[source] = times
    return varying, notices


def _counted(
    names: Sequence[str],
    clock: FlightClock,
    started_at: datetime | None,
    number: Callable[[Sequence[str]], Sequence[int]],
    notices: list[str],
) -> FrameTimes:
    """Times that a stated interval gives, counted from the flight's start."""
    if started_at is None or clock.interval_s is None:
        notices.append("the flight's name tells no start (YYMMDDhhmmss): its times count from its first frame, no day")
        return FrameTimes(dict.fromkeys(names), list(names), clock, notices)
    seconds = [step * clock.interval_s for step in interval_steps(number(names))]
    times = {name: started_at + timedelta(seconds=after) for name, after in zip(names, seconds, strict=True)}
    return FrameTimes(dict(times), list(names), clock, notices)


def _utc_offset(exif_times: Times, utc_times: Times, stated: StatedTime) -> tuple[int | None, list[str]]:
    """(local time minus UTC, notices): as stated, else as EXIF says, else as GPS times tell of EXIF's local ones."""
    written = {time.utcoffset() for time in exif_times.values() if time is not None and time.tzinfo is not None}
    notices: list[str] = []
    offset_s: int | None = None
    if len(written) > 1:
        texts = sorted(utc_offset_text(round(offset.total_seconds())) for offset in written if offset is not None)
        notices.append(f"EXIF gives several offsets from UTC ({', '.join(texts)})")
    elif written:
        offset_s = round((written.pop() or timedelta()).total_seconds())
    else:
        offset_s, notices = _offset_by_gps(exif_times, utc_times)
    if stated.utc_offset_s is None:
        return offset_s, notices
    if offset_s is not None and offset_s != stated.utc_offset_s:
        notices.append(
            f"the images tell {utc_offset_text(offset_s)} of UTC, and {utc_offset_text(stated.utc_offset_s)} is "
            "stated: that is taken"
        )
    return stated.utc_offset_s, notices


def _offset_by_gps(exif_times: Times, utc_times: Times) -> tuple[int | None, list[str]]:
    differences = [
        (local.replace(tzinfo=None) - utc.replace(tzinfo=None)).total_seconds()
        for name, local in exif_times.items()
        if local is not None and (utc := utc_times.get(name)) is not None
    ]
    if not differences:
        return None, []
    offsets = Counter(round(seconds / _ZONE_STEP_S) * _ZONE_STEP_S for seconds in differences)
    offset_s, count = offsets.most_common(1)[0]
    clock_error_s = median(seconds - offset_s for seconds in differences)
    if 10 * count < 9 * len(differences) or abs(clock_error_s) > _SAME_CLOCK_S or abs(offset_s) > MAX_UTC_OFFSET_S:
        return None, ["EXIF's times and those by GPS tell no one offset from UTC: none is taken"]
    text = (
        f"the camera's clock is {clock_error_s:+.0f} s off GPS (beside {utc_offset_text(offset_s)}): its times are kept"
    )
    return offset_s, [text] if abs(clock_error_s) > _SAME_TIME_S else []


def _contradictions(rival: FlightClock, rival_times: Times, clock: FlightClock, times: Times) -> list[str]:
    """What to say of a source that is not taken. Of a time with a zone and one without, whole quarters of an hour are
    the zone."""
    apart_s = []
    for name, time in times.items():
        other_time = rival_times.get(name)
        if time is None or other_time is None:
            continue
        zones = sum(moment.tzinfo is not None for moment in (time, other_time))
        if zones == 2:
            seconds = (time - other_time).total_seconds()
        else:
            seconds = (time.replace(tzinfo=None) - other_time.replace(tzinfo=None)).total_seconds()
        if zones == 1:
            seconds -= round(seconds / _ZONE_STEP_S) * _ZONE_STEP_S
        apart_s.append(abs(seconds))
    differing = sum(seconds > _SAME_TIME_S for seconds in apart_s)
    if not differing:
        return []
    return [
        f"{clock.description} and {rival.description} contradict each other about when {differing} of {len(apart_s)} "
        f"frames were taken (median {median(apart_s):.0f} s apart): {clock.description} count"
    ]


def _zone(offset_s: int) -> timezone:
    return timezone(timedelta(seconds=offset_s))


def _without_zone(time: datetime | None) -> datetime | None:
    return time and time.replace(tzinfo=None)
