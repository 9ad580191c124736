"""When a flight's frames were taken: by which clock, how far that is from UTC, how long after the first. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Literal, get_args

from coarseloc.core.errors import InputError

TimeSource = Literal["labels", "csv", "exif", "xmp", "name", "interval", "index"]
TIME_SOURCES: tuple[TimeSource, ...] = get_args(TimeSource)  # of two that say the time, the earlier is taken
MAX_UTC_OFFSET_S = 14 * 3600  # that of Kiritimati; the other side ends at 12 hours

_WHAT_TELLS = {
    "labels": "their labels",
    "csv": "a table",
    "exif": "EXIF",
    "xmp": "XMP",
    "name": "their names",
    "interval": "the interval",
}


@dataclass(frozen=True, slots=True)
class FlightClock:
    """What a flight's frames know the time by. `index`: nothing says when they were taken; None: a flight stored before
    this was recorded."""

    source: TimeSource | None = None
    utc_offset_s: int | None = None  # the frames' time minus UTC
    interval_s: float | None = None  # from one frame to the next, where it was stated

    @property
    def description(self) -> str:
        """The source in words, for messages."""
        return _WHAT_TELLS.get(self.source or "", "nothing")

    def to_utc(self, time: datetime | None, purpose: str) -> datetime:
        """A frame's time in UTC, with its zone. purpose: what needs it, such as "GPX".

        Raises InputError where the frame has no time, or nothing says how far its clock is from UTC.
        """
        if time is None:
            raise InputError(
                f"{purpose} needs the time of every frame in UTC, and nothing says when these were taken: give labels "
                "with a timestamp, or --interval with a flight named by its start (YYMMDDhhmmss)"
            )
        if self.utc_offset_s is None:
            raise InputError(
                f"{purpose} needs UTC, and the frames' times ({self.description}) are local: nothing says how far that "
                "is from UTC. Give --utc-offset, such as +09:00, or utc_offset in [time] of flight.toml"
            )
        return (time - timedelta(seconds=self.utc_offset_s)).replace(tzinfo=UTC)

    def elapsed_s(self, times: Sequence[datetime | None], indices: Sequence[int]) -> list[float] | None:
        """Seconds of each frame since the first one, of a flight's frames in order; None where nothing tells, so that
        only their order is known. times, indices: of each frame."""
        stated = [time for time in times if time is not None]
        if stated and len(stated) == len(times):
            return [(time - stated[0]).total_seconds() for time in stated]
        if self.interval_s is None:
            return None
        steps = interval_steps(indices)
        return [(step - steps[0]) * self.interval_s for step in steps]


def interval_steps(indices: Sequence[int]) -> list[int]:
    """How many intervals after the flight's start each frame comes. indices: the frames' numbers in order.

    Where they rise, a gap is one in time too; their common step is one interval, as of every 30th frame of a video.
    The first may lie that far from the start. Other numbers say nothing: the frames are counted.
    """
    steps = [b - a for a, b in pairwise(indices)]
    if not indices or any(step <= 0 for step in steps):
        return list(range(len(indices)))
    step = math.gcd(*steps) or 1
    start = min(indices[0], step)
    return [(index - start) // step for index in indices]


def in_utc(time: datetime) -> datetime:
    """A time of the database's own, which is UTC, with its zone: SQLite gives it without."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def parse_utc_offset(text: str) -> int:
    """Seconds of an offset from UTC: `+09:00`, `-03:30`, `+9`, `Z`. Raises InputError for anything else."""
    match = re.fullmatch(r"([+-])(\d{1,2})(?::?([0-5]\d))?", text.strip(), re.ASCII)
    if text.strip().upper() in ("Z", "UTC"):
        return 0
    seconds = 0 if match is None else int(match[2]) * 3600 + int(match[3] or 0) * 60
    if match is None or seconds > MAX_UTC_OFFSET_S:
        raise InputError(f"{text!r} is no offset from UTC: expected hours and minutes such as +09:00, -03:30 or Z")
    return -seconds if match[1] == "-" else seconds


def utc_offset_text(seconds: int) -> str:
    """An offset as `parse_utc_offset` reads it: `+09:00`."""
    hours, minutes = divmod(abs(seconds) // 60, 60)
    return f"{'-' if seconds < 0 else '+'}{hours:02d}:{minutes:02d}"
