"""The answer: where the frame's middle and the aircraft are, each with its covariance, or no match and why. Pure.

Covariance of the ground point, in m²: (1 − score) · (c · (−H)⁻¹ + g · GSD² · I) + (map's registration error)² · I, H
the curvature of the score by shift, per m². Of the aircraft: that and (h · σ_tilt)² per axis. Probability that the
place is right: a logistic function of the fine score and its margin over the next distinct place. c, g and the
logistics' weights are fitted (`tools/fix_accuracy.py calibrate`), kept in calibration.json and named by their digest.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coarseloc.core import geo, ids
from coarseloc.core.camera import CameraAttitude, tilt_lever_m
from coarseloc.core.fixes import METHOD, Corners, NoMatch, Pose2D, RunnerUp
from coarseloc.core.types import Covariance, Floats
from coarseloc.localize.registration.geometry import FrameGeometry, attitude_of, nadir_offset_m, tilt_deg, to_ground
from coarseloc.localize.registration.registrar import FinePose, Registration

_LEAST_UNLIKE = 0.01  # 1 − score at least: no picture is the map itself

CALIBRATION_FILE = Path(__file__).with_name("calibration.json")


@dataclass(frozen=True, slots=True)
class Logistic:
    """p = 1 / (1 + exp(−(bias + score_weight · score + margin_weight · margin)))."""

    bias: float
    score_weight: float
    margin_weight: float

    def __call__(self, score: float, margin: float) -> float:
        exponent = self.bias + self.score_weight * score + self.margin_weight * margin
        return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, exponent))))


@dataclass(frozen=True, slots=True)
class Calibration:
    """Fitted constants of covariance and probability."""

    covariance: float  # c
    tilt_covariance: float  # the same for the tilt's two terms
    heading_covariance: float
    gsd_variance: float  # g, of the ground point, in GSD²: what no curvature tells
    candidates: Logistic  # among a search's places
    whole_map: Logistic
    accepted_probability: float  # from which an answer is a match
    fitted_on: str

    @property
    def digest(self) -> str:
        return ids.digest(asdict(self))


def read_calibration(file: Path) -> Calibration:
    """The constants of a file that `tools/fix_accuracy.py calibrate` wrote. Raises ValueError where they are not those
    that its digest names."""
    record = json.loads(file.read_text(encoding="utf-8"))
    constants: dict[str, Any] = {
        name: Logistic(**value) if isinstance(value, dict) else value for name, value in record["constants"].items()
    }
    calibration = Calibration(**constants)
    if calibration.digest != record["digest"]:
        raise ValueError(
            f"the constants in {file} have the digest {calibration.digest}, the file says {record['digest']}: write it "
            "with tools/fix_accuracy.py calibrate, not by hand"
        )
    return calibration


FITTED = read_calibration(CALIBRATION_FILE)


def fix_of(
    registration: Registration,
    geometry: FrameGeometry,
    *,
    map_gsd_m: float,
    map_sd_m: float,
    whole_map: bool,
    attitude: CameraAttitude | None = None,
    tilt_floor_deg: float = 5.0,
    calibration: Calibration = FITTED,
) -> Pose2D | NoMatch:
    """The answer of a registration.

    `map_sd_m`: the map's own registration error, per axis. `whole_map`: all of a map was looked at, not a search's
    places. `attitude`: the one that the frame was registered with, None where its tilt was fitted. `tilt_floor_deg`:
    the least error of a tilt that one frame gives: 5° over buildings and trees, 0 where the ground is known to be flat.
    """
    best, score, margin = registration.best, registration.score, registration.margin
    if best is None or score is None or margin is None:
        return NoMatch("ambiguous" if registration.places else "no-ground", None, None, 0.0, calibration.digest)
    probability = (calibration.whole_map if whole_map else calibration.candidates)(score, margin)
    rival = registration.rival
    runner_up = None if rival is None else RunnerUp(rival.location, rival.heading_deg % 360.0, rival.score)
    pose = _pose(
        best, geometry, score, margin, len(registration.ranking), probability, map_gsd_m, map_sd_m, attitude,
        tilt_floor_deg, calibration, runner_up,
    )  # fmt: skip
    if probability < calibration.accepted_probability:
        return NoMatch("ambiguous", score, margin, probability, calibration.digest, pose)
    return pose


def ground_covariance(pose: FinePose, map_gsd_m: float, map_sd_m: float, calibration: Calibration = FITTED) -> Floats:
    """float64 [2, 2], m², by (east, north)."""
    shift = _inverse(pose.curvature[:2, :2]) * pose.pixel_m**2
    unlike = max(1.0 - pose.score, _LEAST_UNLIKE)
    axes = pose.window.from_ground_axes()
    isotropic = unlike * calibration.gsd_variance * map_gsd_m**2 + map_sd_m**2
    return np.asarray(unlike * calibration.covariance * axes @ shift @ axes.T + isotropic * np.eye(2))


def tilt_sd_deg(pose: FinePose, half_fov_tan: float, calibration: Calibration = FITTED) -> float:
    """Root mean square over both axes of what the curvature says of a fitted tilt, all parameters free."""
    terms = np.trace(_inverse(pose.curvature)[4:, 4:]) / 2
    variance = calibration.tilt_covariance * max(1.0 - pose.score, _LEAST_UNLIKE) * float(terms)
    return math.degrees(math.atan(math.sqrt(variance) / half_fov_tan))


def heading_sd_deg(pose: FinePose, calibration: Calibration = FITTED) -> float:
    """What the curvature says of the heading, the other parameters of a similarity free."""
    term = _inverse(pose.curvature[:4, :4])[2, 2]
    return math.degrees(math.sqrt(calibration.heading_covariance * max(1.0 - pose.score, _LEAST_UNLIKE) * float(term)))


def _pose(
    best: FinePose,
    geometry: FrameGeometry,
    score: float,
    margin: float,
    hypotheses: int,
    probability: float,
    map_gsd_m: float,
    map_sd_m: float,
    attitude: CameraAttitude | None,
    tilt_floor_deg: float,
    calibration: Calibration,
    runner_up: RunnerUp | None,
) -> Pose2D:
    covariance = ground_covariance(best, map_gsd_m, map_sd_m, calibration)
    source, tilt_sd = "unknown", tilt_floor_deg
    if attitude is not None:
        source, tilt_sd = attitude.source, attitude.sd_deg
    elif geometry.half_fov_tan is not None:
        source, tilt_sd = "estimated", max(tilt_floor_deg, tilt_sd_deg(best, geometry.half_fov_tan, calibration))
    aircraft, aircraft_covariance = None, None
    nadir = nadir_offset_m(best.pose, geometry)
    if nadir is not None and geometry.height_m is not None:
        east, north = best.window.from_ground_axes() @ nadir
        aircraft = geo.offset(best.location, float(east), float(north))
        lever = tilt_lever_m(geometry.height_m * best.pose.scale, tilt_sd)
        aircraft_covariance = _covariance(covariance + lever**2 * np.eye(2))
    return Pose2D(
        best.location,
        _covariance(covariance),
        aircraft,
        aircraft_covariance,
        best.heading_deg,
        heading_sd_deg(best, calibration),
        tilt_deg(best.pose, geometry),
        tilt_sd,
        best.pose.scale,
        score,
        margin,
        hypotheses,
        probability,
        source,
        METHOD,
        calibration.digest,
        corners_of(best, geometry),
        runner_up,
    )


def corners_of(pose: FinePose, geometry: FrameGeometry) -> Corners:
    """Where a frame's corners lie on the ground, its tilt included."""
    matrix = to_ground(pose.pose, geometry)
    aspect = geometry.aspect
    across = np.array([[-1.0, -aspect, 1.0], [1.0, -aspect, 1.0], [1.0, aspect, 1.0], [-1.0, aspect, 1.0]])
    x, y, w = matrix @ across.T
    upper_left, upper_right, lower_right, lower_left = map(pose.window.location, x / w, y / w)
    return upper_left, upper_right, lower_right, lower_left


def aircraft_heading_deg(pose: Pose2D, fine: FinePose, geometry: FrameGeometry) -> float:
    """The aircraft's own heading where the camera is fixed under it: pitch and roll together turn a frame."""
    if geometry.half_fov_tan is None:
        return pose.heading_deg
    return (pose.heading_deg - attitude_of(fine.pose.perspective, geometry.half_fov_tan)[2]) % 360.0


def _inverse(curvature: Floats) -> Floats:
    """(−curvature)⁻¹, its eigenvalues kept positive: a flat direction has a large variance, not a negative one."""
    values, vectors = np.linalg.eigh(-(curvature + curvature.T) / 2)
    floor = max(float(np.abs(values).max()) * 1e-6, 1e-12)
    return np.asarray(vectors @ np.diag(1.0 / np.maximum(values, floor)) @ vectors.T)


def _covariance(matrix: Floats) -> Covariance:
    return Covariance(float(matrix[0, 0]), float(matrix[0, 1]), float(matrix[1, 1]))
