"""The boresight of a recorded flight: its fixes held against its truth, leg by leg."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from coarseloc.core import geo
from coarseloc.core.camera import BoresightLeg, Camera
from coarseloc.core.errors import InputError, StoreError
from coarseloc.core.fixes import FrameFix
from coarseloc.core.types import Frame
from coarseloc.localize.boresight import LEG_FRAMES, Boresight, Sight, estimate_boresight
from coarseloc.store import Database, runs
from coarseloc.store.runs import FrameResult, StoredRun


@dataclass(frozen=True, slots=True)
class FlightBoresight:
    """A flight's boresight, and the run whose fixes it was estimated from."""

    run: StoredRun
    frames: tuple[Frame, ...]  # with a fix and a truth, in the flight's order
    attitude: bool  # labels' pitch and roll were taken off first
    boresight: Boresight

    def legs(self) -> list[BoresightLeg]:
        """As a flight.toml holds them."""
        paths = {frame.index: frame.relative_path for frame in self.frames}
        return [
            BoresightLeg(
                paths[leg.first], paths[leg.last], leg.pitch_deg, leg.roll_deg, math.hypot(leg.sd_deg, leg.scatter_deg)
            )
            for leg in self.boresight.legs
        ]

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "flight_id": self.run.flight_id,
            "run": self.run.id,
            "reference_set": self.run.reference_set.name,
            "backbone": self.run.spec.backbone,
            "frames": len(self.frames),
            "attitude_labels": self.attitude,
            **asdict(self.boresight),
        }


def flight_boresight(db: Database, flight_id: str, camera: Camera, run_id: int | None = None) -> FlightBoresight:
    """Estimate it from a run's fixes, by default from those of the flight's newest finished run that has any.

    camera: the flight's, whose field of view gives heights; its own boresights are left out of the attitude, so that
    the estimate is whole and not what is missing to them.

    Raises InputError where the field of view is unknown or fewer than five frames have both a fix and a truth,
    StoreError where no run of the flight was verified.
    """
    tangent = camera.half_fov_tan
    if tangent is None:
        raise InputError(
            "the camera's field of view is unknown, and with it the angle that a metre is: give --fov-deg, or fov_deg "
            "in the flight's flight.toml"
        )
    run, results = _verified_run(db, flight_id, run_id)
    sights = {
        result.frame: sight for result in results if (sight := sight_of(result.frame, result.fix, camera, tangent))
    }
    if len(sights) < LEG_FRAMES:
        raise InputError(
            f"{len(sights)} frames of flight {flight_id} have both a fix and a true position in run {run.id}: expected "
            f"{LEG_FRAMES} at least"
        )
    attitude = any(camera.attitude(frame.truth.pitch_deg, frame.truth.roll_deg) is not None for frame in sights)
    return FlightBoresight(run, tuple(sights), attitude, estimate_boresight(list(sights.values())))


def _verified_run(db: Database, flight_id: str, run_id: int | None) -> tuple[StoredRun, Sequence[FrameResult]]:
    with db.read() as session:
        candidates = [runs.find_run(session, run_id)] if run_id is not None else runs.latest_runs(session, flight_id)
        for run in reversed(candidates):
            results = runs.results(session, run.id, with_hits=False)
            if any(result.fix is not None and result.fix.pose is not None for result in results):
                return run, results
    raise StoreError(f"no run of flight {flight_id} has a frame that matches the map: run `coarseloc search` first")


def sight_of(frame: Frame, fix: FrameFix | None, camera: Camera, half_fov_tan: float) -> Sight | None:
    """A frame's fix held against its truth; None without either."""
    truth = frame.truth
    if fix is None or fix.pose is None or fix.conditions is None or truth.location is None:
        return None
    pose = fix.pose
    height_m = fix.conditions.footprint_m * pose.scale / 2 / half_fov_tan
    attitude = camera.attitude(truth.pitch_deg, truth.roll_deg)
    pitch, roll = (0.0, 0.0) if attitude is None else (attitude.pitch_deg, attitude.roll_deg)
    offset_m = geo.offset_m(truth.location, pose.ground)
    return Sight(frame.index, offset_m, pose.heading_deg, height_m, pitch, roll)
