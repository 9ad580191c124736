"""Frames between the thread that receives them and the tracker: dropped rather than late."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from coarseloc.core.types import Frame, UInt8

_MOST_WAITING = 4  # where none is dropped: the source waits
_MOST_BYTES = 500_000_000  # of pictures that wait
_POLL_S = 0.1  # of what a signal handler may have set


class ArrivalTime(NamedTuple):
    """When a frame came, by this machine's clock and on its monotonic one."""

    utc: datetime
    monotonic_s: float

    @classmethod
    def now(cls) -> ArrivalTime:
        return cls(datetime.now(UTC), time.monotonic())

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.monotonic_s


@dataclass(frozen=True, slots=True, eq=False)
class ArrivedFrame:
    """A frame with its picture."""

    frame: Frame
    pixels: UInt8 = field(repr=False)  # [H, W, 3], RGB
    arrived: ArrivalTime


@dataclass(frozen=True, slots=True)
class UnreadableFrame:
    """What came and is no frame: a picture that cannot be read, a line that names none."""

    reason: str


Arrival = ArrivedFrame | UnreadableFrame


class NumberedArrival(NamedTuple):
    """`number` counts all that came, from 1."""

    number: int
    arrival: Arrival


class Backlog:
    """A queue from one thread to another. With a budget the frames that are older are dropped, but never the newest:
    late is better than nothing. Without one none is dropped, and the source waits instead."""

    def __init__(self, max_age_s: float | None) -> None:
        self._max_age_s = max_age_s
        self._waiting: deque[NumberedArrival] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self._stopped = False
        self.arrived = 0
        self.dropped = 0

    @property
    def is_stopped(self) -> bool:
        return self._stopped

    def stop(self) -> None:
        """Take and give no more. Sets a flag alone, so that a signal handler may call it."""
        self._stopped = True

    def put(self, arrival: Arrival) -> None:
        with self._changed:
            while self._max_age_s is None and len(self._waiting) >= _MOST_WAITING and not self._stopped:
                self._changed.wait(_POLL_S)
            self.arrived += 1
            self._waiting.append(NumberedArrival(self.arrived, arrival))
            if self._max_age_s is not None:
                while len(self._waiting) > 1 and self._bytes() > _MOST_BYTES:
                    self._drop()
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Say that no more frames come; `error` is raised where they are taken."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def take(self, *, dropping: bool = True) -> NumberedArrival | None:
        """Wait for the next arrival within the budget; None at the end. dropping: whether old ones are dropped."""
        with self._changed:
            while not self._stopped:
                if dropping and self._max_age_s is not None:
                    while len(self._waiting) > 1 and self._is_old(self._waiting[0], self._max_age_s):
                        self._drop()
                if self._waiting:
                    self._changed.notify_all()
                    return self._waiting.popleft()
                if self._error is not None:
                    raise self._error
                if self._ended:
                    return None
                self._changed.wait(_POLL_S)
        return None

    def _is_old(self, numbered: NumberedArrival, max_age_s: float) -> bool:
        return isinstance(numbered.arrival, ArrivedFrame) and numbered.arrival.arrived.age_s > max_age_s

    def _drop(self) -> None:
        if isinstance(self._waiting.popleft().arrival, ArrivedFrame):
            self.dropped += 1

    def _bytes(self) -> int:
        arrivals = (numbered.arrival for numbered in self._waiting)
        return sum(arrival.pixels.nbytes for arrival in arrivals if isinstance(arrival, ArrivedFrame))
