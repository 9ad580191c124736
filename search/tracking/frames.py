"""A flight's frames as a tracker takes them: how each moved, and a search that is recorded, so that it need not be made
twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from coarseloc.core.camera import Camera, CameraAttitude
from coarseloc.core.errors import ImageryError, InputError
from coarseloc.core.tracks import MotionSource
from coarseloc.core.types import BBox, Floats, Frame, UInt8
from coarseloc.imagery.decode import read_frame
from coarseloc.imagery.motion_tables import MotionTable
from coarseloc.localize.tracking.kalman import PoseMeasurement
from coarseloc.localize.tracking.motion import UNKNOWN_TURN_SD_DEG, Displacement, displacement_covariance
from coarseloc.localize.tracking.odometry import OdometryFrame, displacement, luma_of_pixels
from coarseloc.localize.tracking.rank_grid import RankedHits
from coarseloc.localize.tracking.stored_fixes import share_inside
from coarseloc.localize.tracking.tracker import LocalPlane, PlaceSearch, TrackedFrame, seconds_between

_TABLE_SD_M, _TABLE_SD_SHARE = 1.0, 0.05  # of a file's displacement, where it does not say
_TABLE_TURN_SD_DEG, _TABLE_SCALE_SD = 1.0, 0.01


class Picture:
    """One frame's pixels, read when something first asks for them, and its expected width on the ground."""

    def __init__(
        self,
        frame: Frame,
        footprint_m: float,
        aspect: float | None = None,
        read: Callable[[Frame], UInt8] | None = None,
    ) -> None:
        """aspect: height over width, where it is known without reading. read: gives pixels, by default the file's."""
        self.frame, self.footprint_m = frame, footprint_m
        self._aspect, self._read = aspect, read or read_frame

    @cached_property
    def pixels(self) -> UInt8:
        """RGB uint8 [H, W, 3]. Raises ImageryError where the file cannot be read."""
        return self._read(self.frame)

    @property
    def aspect(self) -> float:
        return self._aspect or self.pixels.shape[0] / self.pixels.shape[1]

    @cached_property
    def odometry(self) -> OdometryFrame:
        return OdometryFrame(luma_of_pixels(self.pixels), self.footprint_m)


@dataclass(frozen=True, slots=True, eq=False)
class LargerAnswer:
    """What a larger backbone says of a frame: its hits, None where there are none, and the milliseconds that it takes,
    as `Timing.total_ms`."""

    hits: RankedHits | None
    total_ms: float


@dataclass(slots=True)
class RecordedEvidence:
    """What a frame's track estimate was made of; measurements are None where that was not looked at. It holds for
    this picture after that frame alone."""

    frame_index: int | None = None
    fingerprint: str | None = None  # of the frame's file
    after: int | None = None  # index of the frame before
    aspect: float | None = None
    motion: Displacement | None = None
    nearby: Sequence[PoseMeasurement] | None = None
    everywhere: Sequence[PoseMeasurement] | None = None
    larger: LargerAnswer | None = None  # None where it was not asked for
    error: str | None = None  # why its picture could not be looked at

    def to_json(self) -> dict[str, Any]:
        return {
            "frame_index": self.frame_index,
            "fingerprint": self.fingerprint,
            "after": self.after,
            "aspect": self.aspect,
            "motion": None if self.motion is None else _json(asdict(self.motion)),
            "nearby": _measurements_json(self.nearby),
            "everywhere": _measurements_json(self.everywhere),
            "larger": _larger_json(self.larger),
            "error": self.error,
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> RecordedEvidence:
        motion = facts["motion"]
        return cls(
            facts["frame_index"],
            facts["fingerprint"],
            facts["after"],
            facts["aspect"],
            None if motion is None else Displacement(**motion | {"covariance": np.array(motion["covariance"])}),
            _measurements(facts["nearby"]),
            _measurements(facts["everywhere"]),
            _larger(facts.get("larger")),  # tracks stored before there were cascades have none
            facts["error"],
        )


class Ground(Protocol):
    """What frames are looked for on."""

    bounds: BBox
    map_sd_m: float  # the map's own registration error, per axis
    plane: LocalPlane
    camera: Camera

    def footprint_m(self, frame: Frame) -> float:
        """A frame's expected width on the ground. Raises InputError where nothing says."""
        ...

    def attitude(self, frame: Frame) -> CameraAttitude | None:
        """The camera's, where something tells it."""
        ...

    def search(self, picture: Picture) -> PlaceSearch:
        """What looks for a frame. Raises ImageryError where its picture cannot be read."""
        ...


def reusable_evidence(frames: Sequence[Frame], stored: Mapping[int, Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """Stored evidence of the flight's first frames, up to one that is new, was changed or follows another one now:
    what comes after was looked for where that one let expect it."""
    reusable: dict[int, Mapping[str, Any]] = {}
    after: int | None = None
    for frame in frames:
        facts = stored.get(frame.index)
        if facts is None or (facts["fingerprint"], facts["after"]) != (frame.fingerprint, after):
            break
        reusable[frame.index], after = facts, frame.index
    return reusable


Odometry = Callable[[Picture, Picture], Displacement | None]
"""(a frame, the next one) → how it moved, None where that is not known; raises ImageryError where a picture cannot be
read."""


def odometry_from_frames(first: Picture, second: Picture) -> Displacement | None:
    """See `Odometry`: from both pictures."""
    return displacement(first.odometry, second.odometry)


def odometry_from_table(table: MotionTable, elapsed_s: Callable[[Frame], float | None]) -> Odometry:
    """See `Odometry`: from a file. elapsed_s: of a frame, by the flight's own clock; speeds need it."""

    def odometry(first: Picture, second: Picture) -> Displacement | None:
        motion = table.motion(second.frame)
        if motion is None:
            return None
        seconds = 1.0
        if table.per_second:
            start, end = elapsed_s(first.frame), elapsed_s(second.frame)
            if start is None or end is None or end <= start:
                return None
            seconds = end - start
        across, along = motion.across * seconds, motion.along * seconds
        default_m = _TABLE_SD_M + _TABLE_SD_SHARE * math.hypot(across, along)
        sd_m = default_m if motion.sd is None else motion.sd * seconds
        turn_sd_deg = UNKNOWN_TURN_SD_DEG if motion.turn_deg is None else _TABLE_TURN_SD_DEG
        covariance = displacement_covariance(sd_m, turn_sd_deg, _TABLE_SCALE_SD)
        return Displacement(across, along, motion.turn_deg or 0.0, 0.0, covariance, axes=table.axes)

    return odometry


def tracked_frames(
    frames: Iterable[Frame],
    ground: Ground,
    odometry: Odometry | None,
    source: MotionSource,
    *,
    elapsed_s: Callable[[Frame], float | None] = lambda _: None,
    stored: Mapping[int, Mapping[str, Any]] | None = None,
    read: Callable[[Frame], UInt8] | None = None,
    headings: Mapping[int, float] | None = None,
    speed_mps: tuple[float, float] | None = None,
) -> Iterator[tuple[TrackedFrame, RecordedEvidence]]:
    """Frames in their order for a tracker, each with the record that fills as it is looked for.

    odometry: None where only the order is known. elapsed_s: of a frame, by the flight's own clock. stored: evidence of
    frames by their index, that is taken instead of looking again. read: gives a frame's pixels, by default its file's.
    headings: in degrees, by frame index, where labels' are taken. speed_mps: (least, most) over ground, for motion that
    odometry does not tell. A frame whose width nothing says, or whose picture
    cannot be read, is looked for nowhere; its record says why.
    """
    before: Picture | None = None
    after: int | None = None
    before_s: float | None = None
    for frame in frames:
        earlier = (stored or {}).get(frame.index)
        if earlier is None:
            evidence = RecordedEvidence(frame.index, frame.fingerprint, after)
        else:
            evidence = RecordedEvidence.from_json(earlier)
        try:
            picture: Picture | None = Picture(frame, ground.footprint_m(frame), evidence.aspect, read)
        except InputError as error:
            picture, evidence.error = None, str(error)
        if earlier is None and picture is not None:
            _look(picture, before, odometry, evidence)
        footprint_m = picture.footprint_m if picture else before.footprint_m if before else 1.0
        search = _RecordedSearch(ground, picture, footprint_m, evidence)
        heading_deg = (headings or {}).get(frame.index)
        time_s = elapsed_s(frame)
        apart_s = seconds_between(before_s, time_s)
        bounds_m = None if speed_mps is None or apart_s is None else (speed_mps[0] * apart_s, speed_mps[1] * apart_s)
        tracked = TrackedFrame(frame.index, footprint_m, search, evidence.motion, source, time_s, heading_deg, bounds_m)
        yield tracked, evidence
        before_s = time_s
        before, after = (picture if evidence.error is None else None), frame.index


def _look(picture: Picture, before: Picture | None, odometry: Odometry | None, evidence: RecordedEvidence) -> None:
    """The picture's shape, and how it moved, into its record."""
    try:
        evidence.aspect = picture.aspect
        if odometry is not None and before is not None:
            evidence.motion = odometry(before, picture)
    except ImageryError as error:
        evidence.error = str(error)


@dataclass(slots=True)
class _RecordedSearch:
    """A `FrameSearch` whose answers are taken from the frame's record, or made and recorded."""

    ground: Ground
    picture: Picture | None
    footprint_m: float
    evidence: RecordedEvidence
    _search: PlaceSearch | None = field(default=None, init=False)

    def coverage(self, state: Floats) -> float:
        """See `FrameSearch`: by the map's box."""
        ground = self.ground
        return share_inside(ground.bounds, ground.plane, state, self.footprint_m, self.evidence.aspect or 1.0)

    def around(self, state: Floats, covariance: Floats) -> Sequence[PoseMeasurement]:
        """See `FrameSearch`."""
        if self.evidence.nearby is None:
            self.evidence.nearby = self._measured(lambda search: search.around(state, covariance))
        return self.evidence.nearby

    def everywhere(self) -> Sequence[PoseMeasurement]:
        """See `FrameSearch`."""
        if self.evidence.everywhere is None:
            self.evidence.everywhere = self._measured(lambda search: search.everywhere())
        return self.evidence.everywhere

    def _measured(self, measure: Callable[[PlaceSearch], Sequence[PoseMeasurement]]) -> Sequence[PoseMeasurement]:
        if self.picture is None or self.evidence.error is not None:
            return ()
        try:
            if self._search is None:
                self._search = self.ground.search(self.picture)
            return measure(self._search)
        except ImageryError as error:
            self.evidence.error = str(error)
            return ()


def _measurements_json(measurements: Sequence[PoseMeasurement] | None) -> list[dict[str, Any]] | None:
    return None if measurements is None else [_json(asdict(measurement)) for measurement in measurements]


def _measurements(facts: Sequence[Mapping[str, Any]] | None) -> list[PoseMeasurement] | None:
    if facts is None:
        return None
    return [
        PoseMeasurement(np.array(row["mean"]), np.array(row["covariance"]), row["log_ratio"], row["strong"])
        for row in facts
    ]


def _larger_json(answer: LargerAnswer | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    hits = answer.hits and {"rows": answer.hits.rows.tolist(), "references": answer.hits.references}
    return {"hits": hits, "total_ms": answer.total_ms}


def _larger(facts: Mapping[str, Any] | None) -> LargerAnswer | None:
    if facts is None:
        return None
    hits = facts["hits"] and RankedHits(np.array(facts["hits"]["rows"]), facts["hits"]["references"])
    return LargerAnswer(hits, facts["total_ms"])


def _json(facts: dict[str, Any]) -> dict[str, Any]:
    """Arrays as lists: their floats are read back the same."""
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in facts.items()}
