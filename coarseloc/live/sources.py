"""Where live frames come from: a folder that fills, or lines of standard input. Videos are in `video`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coarseloc.core.errors import ImageryError
from coarseloc.core.types import AltitudeDatum, Flight, LonLat, Pose
from coarseloc.imagery.arriving import ArrivingFlight
from coarseloc.imagery.decode import read_image
from coarseloc.imagery.doubts import frames_of_one_camera
from coarseloc.imagery.file_names import image_names, natural_order
from coarseloc.live.backlog import Arrival, ArrivalTime, ArrivedFrame, UnreadableFrame

POLL_S = 0.2
_SETTLED_S = 2.0  # a file that has not changed for so long is as whole as it gets
_COMPARED_NAMES = 64  # the latest, among which a mask finds its picture
_READ_BYTES = 65_536

IsStopped = Callable[[], bool]
"""Whether nobody takes frames any more."""


class FrameSource(Protocol):
    """What delivers frames, in a thread of its own."""

    @property
    def flight(self) -> Flight:
        """What is known of the flight so far; it has no frames."""
        ...

    def arrivals(self, is_stopped: IsStopped) -> Iterator[Arrival]:
        """Each frame as it comes, decoded, and what cannot be read."""
        ...


# --- a folder -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _FileState:
    """A file that may not be whole yet."""

    arrived: ArrivalTime
    size: int = -1
    modified_ns: int = 0
    changed_s: float = 0.0  # on the monotonic clock


class FolderSource:
    """New image files of a folder, each once it is whole, in the order in which they appeared.

    The folder is listed five times a second: that works on every file system, network shares and cards too, where
    notifications of the kernel (inotify) say nothing; lists of ten thousand names take 5 ms. A file is read once its
    size and time stand still from one look to the next, and again while it cannot be decoded, until it has not changed
    for two seconds. A file that is overwritten is no new frame.
    """

    def __init__(
        self, arriving: ArrivingFlight, folder: Path, *, from_start: bool = False, idle_stop_s: float | None = None
    ) -> None:
        """from_start: what lies there already comes first. idle_stop_s: end once nothing came for so long."""
        self._arriving, self._folder = arriving, folder
        self._idle_stop_s = idle_stop_s
        self._passed = set() if from_start else set(image_names(folder))
        self._pending: dict[str, _FileState] = {}
        self._recent: list[str] = []

    @property
    def flight(self) -> Flight:
        """See `FrameSource`."""
        return self._arriving.flight

    def arrivals(self, is_stopped: IsStopped) -> Iterator[Arrival]:
        """See `FrameSource`."""
        latest_s = time.monotonic()
        while not is_stopped():
            began_s = time.monotonic()
            for name in self._new_names():
                self._pending[name] = _FileState(ArrivalTime.now())
            for arrival in self._whole_files(is_stopped):
                yield arrival
                latest_s = time.monotonic()  # the taker may have let it wait, and more may have come meanwhile
            now_s = time.monotonic()
            if self._idle_stop_s is not None and now_s - latest_s > self._idle_stop_s and not self._pending:
                return
            time.sleep(max(0.0, POLL_S - (now_s - began_s)))

    def _new_names(self) -> list[str]:
        new = [name for name in image_names(self._folder) if name not in self._passed and name not in self._pending]
        if not new:
            return []
        frames, _ = frames_of_one_camera([*self._recent, *new])
        self._passed.update(set(new) - set(frames))
        new = sorted(set(new) & set(frames), key=natural_order)
        self._recent = [*self._recent, *new][-_COMPARED_NAMES:]
        return new

    def _whole_files(self, is_stopped: IsStopped) -> Iterator[Arrival]:
        """Frames of pending files, up to the first that may still be written."""
        for name, state in list(self._pending.items()):
            if is_stopped():
                return
            path = self._folder / name
            try:
                facts = path.stat()
            except FileNotFoundError:  # renamed, or taken away
                del self._pending[name]
                continue
            now_s = time.monotonic()
            if (facts.st_size, facts.st_mtime_ns) != (state.size, state.modified_ns):
                state.size, state.modified_ns, state.changed_s = facts.st_size, facts.st_mtime_ns, now_s
                if time.time() - facts.st_mtime < _SETTLED_S:
                    return
            try:
                pixels = read_image(path)
            except ImageryError as error:
                if now_s - state.changed_s < _SETTLED_S and error.kind != "missing-file":
                    return
                arrival: Arrival = UnreadableFrame(str(error))
            else:
                arrival = ArrivedFrame(self._arriving.file_frame(path), pixels, state.arrived)
            del self._pending[name]
            self._passed.add(name)
            yield arrival


# --- standard input -------------------------------------------------------------------------------

_Degrees = Annotated[float, Field(allow_inf_nan=False)]


class FrameLine(BaseModel):
    """A JSON line that announces a frame."""

    model_config = ConfigDict(extra="forbid")

    path: Path
    taken_at: datetime | None = None
    latitude: Annotated[float, Field(ge=-90, le=90)] | None = None
    longitude: Annotated[float, Field(ge=-180, le=180)] | None = None
    altitude: Annotated[float, Field(allow_inf_nan=False)] | None = None
    altitude_datum: AltitudeDatum = "unknown"
    yaw: _Degrees | None = None
    pitch: _Degrees | None = None
    roll: _Degrees | None = None

    def pose(self) -> Pose:
        location = None if self.latitude is None or self.longitude is None else LonLat(self.longitude, self.latitude)
        return Pose(location, self.altitude, self.yaw, self.pitch, self.roll, self.altitude_datum)


class LineSource:
    """Paths of whole pictures, one a line; or JSON objects of `FrameLine`. Relative ones are of the working folder."""

    def __init__(self, arriving: ArrivingFlight, descriptor: int) -> None:
        """descriptor: an open file's; read without Python's buffer, whose lock would be held at exit."""
        self._arriving, self._descriptor = arriving, descriptor

    @property
    def flight(self) -> Flight:
        """See `FrameSource`."""
        return self._arriving.flight

    def arrivals(self, is_stopped: IsStopped) -> Iterator[Arrival]:
        """See `FrameSource`."""
        for line in self._lines():
            if is_stopped():
                return
            if line:
                yield self._arrival(line)

    def _lines(self) -> Iterator[str]:
        rest = b""
        while piece := os.read(self._descriptor, _READ_BYTES):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield os.fsdecode(line).strip()
        yield os.fsdecode(rest).strip()

    def _arrival(self, line: str) -> Arrival:
        arrived = ArrivalTime.now()
        try:
            announced = (
                FrameLine.model_validate(json.loads(line)) if line.startswith("{") else FrameLine(path=Path(line))
            )
            pixels = read_image(announced.path)
            frame = self._arriving.file_frame(announced.path, announced.pose(), announced.taken_at)
            return ArrivedFrame(frame, pixels, arrived)
        except ImageryError as error:
            return UnreadableFrame(str(error))
        except json.JSONDecodeError as error:
            return UnreadableFrame(f"a line of standard input is no JSON ({error.msg}): {line[:200]}")
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "the line"
            keys = ", ".join(FrameLine.model_fields)
            return UnreadableFrame(
                f"a line of standard input: {key}: {first['msg']}; its keys are {keys}: {line[:200]}"
            )
