"""Names that hold the time of day alone, of frames taken before and after midnight: the order of their times."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

_DAY_S = 86_400.0
_HOUR_S = 3_600.0
_PAUSE_S = 600.0  # at midnight: a longer one may be that between two flights of one day
_LONGEST_GAP_RATIO = 10.0  # of the hours without a frame, to every other gap
_FEWEST_FRAMES = 3
_CLOCK = re.compile(
    r"(?<!\d)(?<!\d\.)(?P<hour>[01]\d|2[0-3])(?P<mark>[-_.:]?)(?P<minute>[0-5]\d)(?P=mark)(?P<second>[0-5]\d)"
    r"(?:\.(?P<fraction>\d{1,9})|(?P<ms>\d{3}|\d{6}))?(?!\d)",
    re.ASCII,
)
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


class NameOrder(NamedTuple):
    """Names in the order of a flight, and what is to be said of it."""

    names: list[str]
    notices: tuple[str, ...] = ()


class _ClockName(NamedTuple):
    name: str
    prefix: str
    seconds: float  # since midnight
    counter: int | None  # the first number behind the time of day


def order_over_midnight(
    names: Sequence[str], times: Iterable[Callable[[str], datetime | None]], started_at: datetime | None
) -> NameOrder:
    """Put names that hold the time of day alone (235959.jpg, 000001.jpg) in the order of their times where these pass
    midnight; other names stay as they are.

    names: in natural order. times: what else tells when a frame was taken, for some of them. started_at: the flight's
    start. Midnight is passed where hours without a frame are 10 times any other gap, and the pause at midnight is at
    most 10 minutes. Where names' beginnings differ, frames are fewer than 3, or a counter behind the time, a frame's
    time or the flight's start says otherwise, names stay in their order, and that is said.
    """
    clocks = [clock for name in names if (clock := _read_clock(name))]
    if not clocks or len(clocks) < len(names):
        return NameOrder(list(names))
    seconds = [clock.seconds for clock in clocks]
    if max(seconds) < _DAY_S - _HOUR_S or min(seconds) >= _HOUR_S or 2 * len(set(seconds)) < len(seconds):
        return NameOrder(list(names))
    distinct = sorted(set(seconds))
    gap_s, first_s = max((after - before, after) for before, after in pairwise(distinct))
    ordered = sorted(clocks, key=lambda clock: _since(first_s, clock.seconds))  # stable
    if ordered == clocks:
        return NameOrder(list(names))
    others_s = [after - before for before, after in pairwise(distinct) if after != first_s]
    pause_s = _DAY_S - distinct[-1] + distinct[0]
    is_sound = (
        len(names) >= _FEWEST_FRAMES
        and len({clock.prefix for clock in clocks}) == 1
        and pause_s <= _PAUSE_S
        and gap_s >= _LONGEST_GAP_RATIO * max([pause_s, *others_s])
        and not _contradicts(clocks, ordered, times, started_at)
    )
    if not is_sound:
        return NameOrder(list(names), (_doubt(names),))
    before = [clock.name for clock in ordered if clock.seconds >= first_s]
    after = len(ordered) - len(before)
    notice = (
        f"the names hold the time of day and pass midnight: {len(before)} frames from {before[0]} to {before[-1]} come "
        f"first, {after} from {names[0]} on after them"
    )
    return NameOrder([clock.name for clock in ordered], (notice,))


def _doubt(names: Sequence[str]) -> str:
    return (
        f"names such as {names[0]} seem to hold the time of day and to pass midnight: frames are in the order of the "
        "names, not of the time. Give a timestamp in labels, or name the day"
    )


def _read_clock(name: str) -> _ClockName | None:
    stem = Path(name).stem
    match = _CLOCK.search(stem)
    if match is None:
        return None
    whole = int(match["hour"]) * 3600 + int(match["minute"]) * 60 + int(match["second"])
    counter = _NUMBER.search(stem, match.end())
    return _ClockName(
        name,
        stem[: match.start()].casefold(),
        whole + float(f"0.{match['fraction'] or match['ms'] or '0'}"),
        int(counter[0]) if counter else None,
    )


def _since(first_s: float, seconds: float) -> float:
    return (seconds - first_s) % _DAY_S


def _contradicts(
    clocks: Sequence[_ClockName],
    ordered: Sequence[_ClockName],
    times: Iterable[Callable[[str], datetime | None]],
    started_at: datetime | None,
) -> bool:
    """Whether something says that the frames were not taken in this order."""
    by_name, by_time = ([clock.counter for clock in order] for order in (clocks, ordered))
    if _rises(by_name) and not _rises(by_time):
        return True
    for time_of in times:
        local_times = [time.replace(tzinfo=None) for clock in ordered if (time := time_of(clock.name))]
        if any(b < a for a, b in pairwise(local_times)):
            return True
    if started_at is None:
        return False
    start_s = started_at.hour * 3600.0 + started_at.minute * 60 + started_at.second
    return _since(start_s, ordered[0].seconds) > _DAY_S / 2


def _rises(numbers: Sequence[int | None]) -> bool:
    numbered = [number for number in numbers if number is not None]
    return len(numbered) == len(numbers) and all(a < b for a, b in pairwise(numbered))
