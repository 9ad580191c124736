"""A flight's track, stored as the methods "track" (each frame by what came before it) and "track-smoothed" (each by all
of the flight). Frames are saved as they come, with what they were made of: stopped, the same track goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from coarseloc.core import geo, ids
from coarseloc.core.camera import sight_offset_m, tilt_lever_m
from coarseloc.core.errors import InputError
from coarseloc.core.tracks import MotionSource, TrackEstimate, TrackEvidence
from coarseloc.core.types import Covariance, Flight, Frame
from coarseloc.imagery.motion_tables import MotionTable
from coarseloc.localize.localizer import ms_since
from coarseloc.localize.registration.fix import FITTED
from coarseloc.localize.tracking import odometry as frame_odometry
from coarseloc.localize.tracking import rank_track
from coarseloc.localize.tracking.tracker import DEFAULTS
from coarseloc.store import Database, localizations, tracks
from coarseloc.store.flights import StoredFlight
from coarseloc.store.localizations import TRACK, TRACK_SMOOTHED
from search.recorder import Recorder
from search.tracking.filters import Frames, TrackFilter
from search.tracking.frames import (
    Ground,
    Odometry,
    odometry_from_frames,
    odometry_from_table,
    reusable_evidence,
    tracked_frames,
)


@dataclass(frozen=True, slots=True)
class TrackRequest:
    """What a flight is tracked with."""

    evidence: TrackEvidence = "fixes"
    source: MotionSource = "frames"
    table: MotionTable | None = None  # of motions, where these are from a file
    online: bool = False  # causal alone: nothing is kept for smoothing
    cascade: tuple[str, str] | None = None  # a small backbone, and a larger one that is asked where that is not sure
    takes_yaw: bool = False  # of the labels
    speed_mps: tuple[float, float] | None = None  # (least, most) over ground

    def to_json(self) -> dict[str, Any]:
        """All that decides the track beside flight and ground; `online` does not."""
        settings = {"odometry": asdict(frame_odometry.DEFAULTS)}
        if self.evidence != "fixes":
            settings["ranks"] = asdict(rank_track.DEFAULTS)
        if self.evidence != "ranks":
            settings["tracker"] = asdict(DEFAULTS)
        options = {"cascade": self.cascade, "speed_mps": self.speed_mps}
        return {name: list(value) for name, value in options.items() if value is not None} | {
            "evidence": self.evidence,
            "odometry": self.source,
            "odometry_digest": self.table and self.table.digest,
            "settings": settings,
            "fit_digest": FITTED.digest,
        }


@dataclass(frozen=True, slots=True)
class TrackedPlace:
    """One frame's estimate as soon as it is known; `error`: why its picture could not be looked at. `track_ms`: None
    where the evidence was stored before. `larger_ms`: of the larger backbone, where a cascade asked it."""

    frame: Frame
    estimate: TrackEstimate
    error: str | None
    track_ms: float | None
    larger_ms: float | None = None


def track_flight(
    db: Database,
    stored: StoredFlight,
    ground: Ground,
    request: TrackRequest,
    track_filter: Callable[[Frames], TrackFilter],
    *,
    runs: Sequence[int] = (),
    reference_sets: Sequence[Mapping[str, Any]],
    ground_parameters: Mapping[str, Any],
    notice: Callable[[str], None],
) -> Iterator[TrackedPlace]:
    """Track a recorded flight's frames in their order, causal; the smoothed track is stored at the end.

    track_filter: of `filters`. runs: whose places are the ground; reference_sets: as they are, {uid and facts}.
    ground_parameters: what decides the ground beside them.
    """
    frames = stored.flight.frames
    elapsed = stored.flight.clock.elapsed_s([frame.time for frame in frames], [frame.index for frame in frames])
    seconds = {} if elapsed is None else dict(zip((frame.index for frame in frames), elapsed, strict=True))

    def elapsed_s(frame: Frame) -> float | None:
        return seconds.get(frame.index)

    if request.speed_mps is not None and elapsed is None:
        raise InputError(
            "--speed needs to know how long after each other the frames were taken, and nothing says it: give "
            "--interval SECONDS"
        )
    if request.table is not None:
        _check_table(request.table, stored, elapsed, notice)
        odometry: Odometry | None = odometry_from_table(request.table, elapsed_s)
    else:
        odometry = odometry_from_frames if request.source == "frames" else None
    parameters = request.to_json() | dict(ground_parameters)
    headings = labelled_headings(stored.flight, ground) if request.takes_yaw else {}
    if request.takes_yaw:
        parameters["headings"] = ids.digest({str(index): heading for index, heading in headings.items()})
    with db.write() as session:
        localization = localizations.start_localization(session, stored.id, TRACK, runs, reference_sets, parameters)
        evidence_by_frame = tracks.track_evidence(session, localization)
        earlier = reusable_evidence(frames, evidence_by_frame)
        if len(earlier) < len(evidence_by_frame):
            first = frames[min(len(earlier), len(frames) - 1)]
            notice(f"frames were added, removed or changed: tracked anew from {first.relative_path} on")
            stale = [stored.frame_keys[index] for index in evidence_by_frame.keys() - earlier.keys()]
            tracks.delete_track_estimates(session, localization, stale)
            localizations.reopen_localization(session, localization)
    source = tracked_frames(
        frames, ground, odometry, request.source, elapsed_s=elapsed_s, stored=earlier, headings=headings,
        speed_mps=request.speed_mps,
    )  # fmt: skip
    filtered = track_filter(source)
    with Recorder(_saving(db, localization)) as recorder:
        started = time.perf_counter()
        for frame, (plain, evidence) in zip(frames, filtered.estimates, strict=True):
            estimate = with_aircraft(plain, ground, frame)
            track_ms = None if frame.index in earlier else ms_since(started)
            if track_ms is not None:
                recorder.add((stored.frame_keys[frame.index], estimate, evidence.to_json()))
            larger_ms = None if evidence.larger is None else evidence.larger.total_ms
            yield TrackedPlace(frame, estimate, evidence.error, track_ms, larger_ms)
            started = time.perf_counter()
    with db.write() as session:
        localizations.finish_localization(session, localization)
        if not request.online:
            smooth = localizations.start_localization(
                session, stored.id, TRACK_SMOOTHED, runs, reference_sets, parameters
            )
            tracks.delete_track_estimates(session, smooth)
            tracks.save_track_estimates(
                session,
                smooth,
                (
                    (stored.frame_keys[frame.index], with_aircraft(estimate, ground, frame), None)
                    for frame, estimate in zip(frames, filtered.smooth(), strict=True)
                ),
            )
            localizations.finish_localization(session, smooth)


def labelled_headings(flight: Flight, ground: Ground) -> dict[int, float]:
    """{frame index: what its upper edge faces in degrees, as the labels and the camera's mounting say}.

    Raises InputError where no label says a yaw.
    """
    headings = {
        frame.index: ground.camera.frame_heading_deg(frame.truth.yaw_deg, frame.truth.pitch_deg, frame.truth.roll_deg)
        for frame in flight.frames
    }
    heading_by_index = {index: heading for index, heading in headings.items() if heading is not None}
    if not heading_by_index:
        raise InputError(f"--yaw labels: no label of flight {flight.flight_id} says a yaw. Leave the option away")
    return heading_by_index


def _check_table(
    table: MotionTable, stored: StoredFlight, elapsed: Sequence[float] | None, notice: Callable[[str], None]
) -> None:
    """Raises InputError where a file of motions is of no use for a flight; says what of it is not used or guessed."""
    followers = stored.flight.frames[1:]
    motions = [motion for frame in followers if (motion := table.motion(frame)) is not None]
    if not motions:
        first = next(iter(table.motions))
        raise InputError(
            f"{table.path} has rows of {len(table.motions)} frames, such as {first!r}, and none is of this flight, "
            f"whose first frame is {stored.flight.frames[0].filename}: its file names must be the frames'"
        )
    if table.per_second and elapsed is None:
        raise InputError(
            f"{table.path} gives speeds, and nothing says how long after each other the frames were taken: give "
            "--interval SECONDS, or displacements in metres"
        )
    if len(motions) < len(followers):
        notice(f"{table.path} has the motion of {len(motions)} of the {len(followers)} frames after the first")
    if any(motion.sd is None for motion in motions):
        notice(f"{table.path} states no errors (sd_m, sd_mps): 1 m and 5 % of each step are taken")


def with_aircraft(estimate: TrackEstimate, ground: Ground, frame: Frame) -> TrackEstimate:
    """With the aircraft's place, where the camera's field of view and attitude are known."""
    attitude, half_fov_tan = ground.attitude(frame), ground.camera.half_fov_tan
    covariance = estimate.ground_covariance_m2
    if attitude is None or half_fov_tan is None or estimate.ground is None or covariance is None:
        return estimate
    height_m = ground.footprint_m(frame) * (estimate.scale or 1.0) / (2 * half_fov_tan)
    right_m, forward_m = sight_offset_m(attitude.pitch_deg, attitude.roll_deg, height_m)
    east_m, north_m = geo.turned_m(right_m, forward_m, estimate.heading_deg or 0.0)
    lever_m2 = tilt_lever_m(height_m, attitude.sd_deg) ** 2
    return replace(
        estimate,
        aircraft=geo.offset(estimate.ground, -east_m, -north_m),
        aircraft_covariance_m2=Covariance(
            covariance.east_east + lever_m2, covariance.east_north, covariance.north_north + lever_m2
        ),
    )


def _saving(
    db: Database, localization: int
) -> Callable[[Sequence[tuple[int, TrackEstimate, Mapping[str, Any]]]], None]:
    def save(rows: Sequence[tuple[int, TrackEstimate, Mapping[str, Any]]]) -> None:
        with db.write() as session:
            tracks.save_track_estimates(session, localization, rows)

    return save
