"""The main path of a live flight: frame in, estimate out, to every output."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Literal, Protocol

from coarseloc.core.errors import InputError
from coarseloc.core.tracks import TrackEstimate
from coarseloc.core.types import Flight, Frame, UInt8
from coarseloc.imagery.terrain import terrain_heights_m
from coarseloc.live.backlog import ArrivedFrame, Backlog
from coarseloc.live.sources import FrameSource
from coarseloc.localize.localizer import ms_since
from search.export.map_infos import frame_track_info
from search.export.records import LiveFrameInfo
from search.export.tracks import TrackFrame
from search.tracking.filters import by_fixes
from search.tracking.flight_track import with_aircraft
from search.tracking.frames import Ground, RecordedEvidence, odometry_from_frames, tracked_frames

FrameClock = Literal["capture", "arrival"]


@dataclass(frozen=True, slots=True)
class LiveEstimate:
    """One frame's causal estimate, as outputs take it."""

    tracked: TrackFrame
    record: LiveFrameInfo
    utc: datetime | None  # by the clock that was chosen; None where nothing tells it
    flight: Flight  # what is known of it so far


class LiveOutput(Protocol):
    """What writes estimates. It never waits for who reads them."""

    utc_purpose: str | None  # what needs every frame's time in UTC, such as "NMEA"

    def write(self, estimate: LiveEstimate) -> None: ...

    def close(self) -> None: ...

    def remarks(self) -> Sequence[str]:
        """What its user should know at the end."""
        ...


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """How a flight is tracked live.

    max_age_s: of a frame since its arrival, above which it is dropped where a newer one waits; None: none is dropped.
    clock: what tells outputs the time of a frame in UTC. dem: heights of the ground above sea level.
    """

    max_age_s: float | None = 2.0
    clock: FrameClock = "capture"
    odometry: Literal["frames", "none"] = "frames"
    dem: Path | None = None


@dataclass(slots=True)
class LiveSummary:
    """What came and what became of it."""

    arrived: int = 0
    estimated: int = 0
    dropped: int = 0
    unreadable: int = 0
    untimed: int = 0  # estimates that outputs in UTC do not hold
    states: Counter[str] = field(default_factory=Counter)
    median_age_s: float | None = None
    largest_age_s: float | None = None
    remarks: list[str] = field(default_factory=list)


class HeldPictures:
    """The pixels of frames until they are tracked."""

    def __init__(self) -> None:
        self._pixels: dict[int, UInt8] = {}

    def hold(self, arrived: ArrivedFrame) -> None:
        self._pixels[arrived.frame.index] = arrived.pixels

    def read(self, frame: Frame) -> UInt8:
        """RGB uint8 [H, W, 3]."""
        return self._pixels[frame.index]

    def release(self, frame: Frame) -> None:
        del self._pixels[frame.index]


class LiveSession:
    """A source's frames tracked as they come; iterate over it once."""

    def __init__(
        self,
        source: FrameSource,
        open_ground: Callable[[Sequence[Frame]], Ground],
        pictures: HeldPictures,
        request: LiveRequest,
        outputs: Sequence[LiveOutput],
        notice: Callable[[str], None],
        trial_frames: int = 1,
    ) -> None:
        """open_ground: what frames are looked for on, its width tried on the first ones; it reads them by `pictures`.
        outputs: open; they are
        closed at the end. trial_frames: that are waited for before the first is tracked."""
        self._source, self._open_ground, self._pictures = source, open_ground, pictures
        self._request, self._outputs, self._notice = request, outputs, notice
        self._trial_frames = trial_frames
        self._backlog = Backlog(request.max_age_s)
        self._latest: tuple[int, ArrivedFrame] | None = None  # that the tracker has
        self._entered_s = 0.0
        self._first: Frame | None = None
        self._ages_s: list[float] = []
        self._ground_said = self._no_height_said = False
        self.summary = LiveSummary()

    def stop(self) -> None:
        """End after the frame that is being tracked; a signal handler may call it."""
        self._backlog.stop()

    def __iter__(self) -> Generator[LiveEstimate, None, None]:
        """Each frame's estimate, when all outputs have it.

        Raises InputError where an output needs UTC and the first frame has none, or where nothing says how wide frames
        are on the ground.
        """
        with ExitStack() as closing:
            closing.callback(self._sum_up)
            for output in self._outputs:
                closing.callback(output.close)
            threading.Thread(target=self._receive, name="coarseloc-frames", daemon=True).start()
            closing.callback(self._backlog.stop)
            for plain, evidence in self._estimates():
                estimate = self._live_estimate(plain, evidence)
                for output in self._outputs:
                    if output.utc_purpose is None or estimate.utc is not None:
                        output.write(estimate)
                yield estimate

    def _receive(self) -> None:
        try:
            for arrival in self._source.arrivals(lambda: self._backlog.is_stopped):
                self._backlog.put(arrival)
        except BaseException as error:  # raised where frames are taken
            self._backlog.end(error)
        else:
            self._backlog.end()

    def _estimates(self) -> Iterator[tuple[TrackEstimate, RecordedEvidence]]:
        trial = list(islice(self._frames(dropping=False), self._trial_frames))
        if not trial:
            return
        self._check_utc(trial[0][1].frame)
        ground = self._open_ground([arrived.frame for _, arrived in trial])
        frames = tracked_frames(
            self._entering(chain(trial, self._frames(dropping=True))),
            ground,
            odometry_from_frames if self._request.odometry == "frames" else None,
            self._request.odometry,
            elapsed_s=self._elapsed_s,
            read=self._pictures.read,
        )
        for estimate, evidence in by_fixes(frames, ground, online=True).estimates:
            if self._latest is not None:
                yield with_aircraft(estimate, ground, self._latest[1].frame), evidence

    def _frames(self, *, dropping: bool) -> Iterator[tuple[int, ArrivedFrame]]:
        """Frames that can be read, with their numbers; others are said."""
        while (numbered := self._backlog.take(dropping=dropping)) is not None:
            number, arrival = numbered
            if isinstance(arrival, ArrivedFrame):
                self._pictures.hold(arrival)
                yield number, arrival
            else:
                self.summary.unreadable += 1
                self._notice(f"left out: {arrival.reason}")

    def _entering(self, frames: Iterator[tuple[int, ArrivedFrame]]) -> Iterator[Frame]:
        """Frames on their way into the tracker, which takes each when the one before has its estimate."""
        for number, arrived in frames:
            self._latest, self._first = (number, arrived), self._first or arrived.frame
            self._entered_s = time.perf_counter()
            yield arrived.frame
            self._pictures.release(arrived.frame)

    def _elapsed_s(self, frame: Frame) -> float | None:
        """Since the first frame, by the flight's clock."""
        first, interval_s = self._first, self._source.flight.clock.interval_s
        if first is None:
            return None
        if frame.time is not None and first.time is not None:
            return (frame.time - first.time).total_seconds()
        return None if interval_s is None else (frame.index - first.index) * interval_s

    def _check_utc(self, frame: Frame) -> None:
        purposes = [output.utc_purpose for output in self._outputs if output.utc_purpose]
        if not purposes or self._request.clock == "arrival":
            return
        try:
            self._source.flight.clock.to_utc(frame.time, purposes[0])
        except InputError as error:
            raise InputError(
                f"{error}. Or take the times at which frames arrive here, by this machine's clock: --clock arrival"
            ) from None

    def _live_estimate(self, plain: TrackEstimate, evidence: RecordedEvidence) -> LiveEstimate:
        assert self._latest is not None  # noqa: S101 - a frame has entered
        number, arrived = self._latest
        flight, frame = self._source.flight, arrived.frame
        estimated_at, age_s = datetime.now(UTC), arrived.arrived.age_s
        offset_known = frame.time is not None and flight.clock.utc_offset_s is not None
        captured_at = flight.clock.to_utc(frame.time, "a record") if offset_known else None
        info = frame_track_info(flight, frame, plain, evidence.error, ms_since(self._entered_s))
        record = LiveFrameInfo(
            **dict(info),
            sequence=number,
            dropped=self._backlog.dropped,
            captured_at=captured_at,
            arrived_at=arrived.arrived.utc,
            estimated_at=estimated_at,
            age_s=age_s,
            capture_age_s=None if captured_at is None else (estimated_at - captured_at).total_seconds(),
        )
        utc = captured_at if self._request.clock == "capture" else arrived.arrived.utc
        self.summary.estimated += 1
        self.summary.states[plain.state] += 1
        self.summary.untimed += utc is None and any(output.utc_purpose for output in self._outputs)
        self._ages_s.append(age_s)
        tracked = self._with_terrain(TrackFrame(frame, plain))
        self._say_ground(tracked)
        return LiveEstimate(tracked, record, utc, flight)

    def _with_terrain(self, tracked: TrackFrame) -> TrackFrame:
        """With the ground's height; the first time that there is none, it is said. A flight goes on without it."""
        if self._request.dem is None or tracked.position is None:
            return tracked
        try:
            (height_m,) = terrain_heights_m(self._request.dem, [tracked.position])
            reason = f"{self._request.dem} has none where frame {tracked.frame.index} lies"
        except InputError as error:
            height_m, reason = None, str(error)
        if height_m is None and not self._no_height_said:
            self._no_height_said = True
            self._notice(f"heights are left empty where the ground's is not known: {reason}")
        return replace(tracked, terrain_m=height_m)

    def _say_ground(self, tracked: TrackFrame) -> None:
        """Say once where outputs that mean the aircraft get the ground's position."""
        purposes = sorted({output.utc_purpose for output in self._outputs if output.utc_purpose})
        if purposes and not self._ground_said and tracked.position is not None and tracked.point == "ground":
            self._ground_said = True
            self._notice(
                f"{' and '.join(purposes)}: positions are of the ground under the frame's middle, since the camera's "
                "field of view (--fov-deg) or attitude is not known: a tilt puts them beside the aircraft"
            )

    def _sum_up(self) -> None:
        summary = self.summary
        summary.arrived, summary.dropped = self._backlog.arrived, self._backlog.dropped
        if self._ages_s:
            summary.median_age_s, summary.largest_age_s = statistics.median(self._ages_s), max(self._ages_s)
        summary.remarks = [remark for output in self._outputs for remark in output.remarks()]
