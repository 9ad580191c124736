"""A simulated flight over any orthophoto, in the users' own layout and with truth."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.random import Generator
from PIL import Image

from coarseloc.core import files
from coarseloc.core.camera import Camera, fov_deg_of
from coarseloc.core.errors import InputError
from coarseloc.core.types import SIMULATED_SD_M, Flight, Frame, LonLat, Pose, Progress
from coarseloc.imagery.flight_toml import FILE_NAME, write_flight_toml
from coarseloc.imagery.orthophoto import cut_view
from coarseloc.imagery.raster import Raster
from coarseloc.simulate.camera import Changes, develop, ground_homography, photograph, reach, season_matrix

_TRIES = 300  # for a frame whose ground is all there
_LABEL_STEP_DEG = 0.01  # of pitch and roll in the labels
_MIN_GROUND = 0.999  # share of a frame that must be ground


def simulate_flight(
    orthophoto_path: Path,
    out_dir: Path,
    *,
    flight_id: str,
    frames: int,
    footprint_m: float,
    seed: int,
    side_px: int = 512,
    altitude_m: float = 300.0,
    path: Literal["track", "random"] = "track",
    step_footprints: float = 0.4,
    changes: Changes | None = None,
    progress: Progress | None = None,
) -> Flight:
    """Photograph `orthophoto_path` from the air into `out_dir/<flight_id>/`, with a label JSON of the truth, and a
    flight.toml of the camera and the truth's error, which is none.

    `path` is "track" (one smooth line with turns, a little crab, frames `step_footprints` apart) or "random"
    (any place, any yaw: for measuring). `footprint_m` is what a level frame sees from `altitude_m`; a truth's
    location is the aircraft's own, so with tilt the frame's middle lies beside it. Deterministic by `seed`.

    Raises InputError where the folder holds something already, or the orthophoto has no room for the frames.
    """
    if path not in ("track", "random"):
        raise InputError(f'path is "{path}": expected "track" or "random"')
    if frames < 1:
        raise InputError(f"a flight of {frames} frames: expected at least 1")
    folder = out_dir / flight_id
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: choose another flight id, or remove it")
    changes = changes if changes is not None else Changes()
    rng = np.random.default_rng([seed, 3])
    season = season_matrix(rng, changes.season)
    photographs: list[Frame] = []
    raster = Raster(orthophoto_path)
    if path == "track":
        stations = _track_stations(raster, footprint_m, step_footprints, rng)
    else:
        stations = _random_stations(raster, footprint_m, rng)
    for tries, (center, yaw) in enumerate(stations, 1):
        pitch, roll = rng.normal(0, changes.tilt_deg, 2).clip(-12, 12) if changes.tilt_deg else (0.0, 0.0)
        height = altitude_m * math.exp(changes.altitude * rng.normal())
        to_ground = ground_homography(pitch, roll, footprint_m / 2 / altitude_m, height)
        half = reach(to_ground)
        view = cut_view(orthophoto_path, center, 2 * half, yaw, max(1, round(side_px * 2 * half / footprint_m)))
        if view.ground_fraction >= _MIN_GROUND:
            folder.mkdir(parents=True, exist_ok=True)
            picture = develop(photograph(view.pixels, half, to_ground, side_px), rng, changes, season)
            file = folder / f"{flight_id}_{len(photographs) + 1:05d}.jpg"
            with files.replacing(file) as partial:
                Image.fromarray(picture).save(partial, "JPEG", quality=92)
            truth = Pose(center, round(height, 2), round(yaw, 2), round(float(pitch), 2), round(float(roll), 2))
            photographs.append(Frame(len(photographs) + 1, file, file.name, truth))
            if progress is not None:
                progress(len(photographs), frames, file.name)
        if len(photographs) == frames:
            break
        if tries >= _TRIES + 4 * frames:
            raise InputError(
                f"{orthophoto_path} has too little ground for {frames} frames of {footprint_m} m: found room for "
                f"{len(photographs)} in {tries} tries. Give a smaller footprint or a larger orthophoto."
            )
    write_labels(folder / "labels.json", [(frame.path.name, frame.truth) for frame in photographs])
    fov_deg = fov_deg_of(altitude_m, footprint_m)
    write_flight_toml(folder / FILE_NAME, fov_deg=fov_deg, attitude_sd_deg=_LABEL_STEP_DEG, truth_sd_m=SIMULATED_SD_M)
    started = None
    with suppress(ValueError):
        started = datetime.strptime(flight_id, "%y%m%d%H%M%S")
    camera = Camera(fov_deg=fov_deg, attitude_sd_deg=_LABEL_STEP_DEG)
    return Flight(flight_id, folder, tuple(photographs), started, "labels", (), camera, SIMULATED_SD_M)


def write_labels(file: Path, poses: list[tuple[str, Pose]]) -> None:
    """Write image names and poses as the users' label JSON; unknown values are null."""
    images = [
        {
            "imageref": name,
            "position": {
                "x": None,
                "y": None,
                "z": None,
                "latitude": round(pose.location.lat, 8) if pose.location else None,
                "longitude": round(pose.location.lon, 8) if pose.location else None,
                "altitude": pose.altitude_label_m,
            },
            "attitude": {"yaw": pose.yaw_deg, "pitch": pose.pitch_deg, "roll": pose.roll_deg},
        }
        for name, pose in poses
    ]
    files.write_text(file, json.dumps({"images": images}, indent=1))


def _random_stations(raster: Raster, footprint_m: float, rng: Generator) -> Iterator[tuple[LonLat, float]]:
    """Draw places uniform over the raster, with any yaw."""
    margin = _margin(raster, footprint_m, 0.5)
    while True:
        x, y = rng.uniform(margin, raster.width - margin), rng.uniform(margin, raster.height - margin)
        yield _position(raster, x, y), float(rng.uniform(0, 360))


def _track_stations(
    raster: Raster, footprint_m: float, step_footprints: float, rng: Generator
) -> Iterator[tuple[LonLat, float]]:
    """Follow an endless smooth line: the turn rate wanders, and near the border it leads back to the middle."""
    step = step_footprints * footprint_m / raster.metres_per_pixel()
    margin = _margin(raster, footprint_m, 0.85)
    room = (raster.width - 2 * margin, raster.height - 2 * margin)
    x, y = (margin + float(rng.uniform(0.2, 0.8)) * side for side in room)
    course, rate, crab = float(rng.uniform(0, 360)), 0.0, float(rng.normal(0, 3))
    while True:
        yield _position(raster, x, y), (course + crab) % 360
        rate = 0.8 * rate + float(rng.normal(0, 4))
        ahead_x = x + 3 * step * math.sin(math.radians(course))
        ahead_y = y - 3 * step * math.cos(math.radians(course))
        if not (margin < ahead_x < raster.width - margin and margin < ahead_y < raster.height - margin):
            home = math.degrees(math.atan2(raster.width / 2 - x, y - raster.height / 2))
            off = (home - course + 180) % 360 - 180
            rate = max(-25.0, min(25.0, off))
        course = (course + rate) % 360
        x = min(max(x + step * math.sin(math.radians(course)), margin), raster.width - margin)
        y = min(max(y - step * math.cos(math.radians(course)), margin), raster.height - margin)


def _margin(raster: Raster, footprint_m: float, footprints: float) -> float:
    """Return the pixels to keep from the border; InputError where the raster is too small."""
    margin = footprints * footprint_m / raster.metres_per_pixel()
    if 2 * margin >= min(raster.width, raster.height):
        size = [round(side * raster.metres_per_pixel()) for side in (raster.width, raster.height)]
        raise InputError(
            f"{raster.path} covers {size[0]} x {size[1]} m, too little for frames of {footprint_m} m: "
            "give a smaller footprint or a larger orthophoto"
        )
    return margin


def _position(raster: Raster, x: float, y: float) -> LonLat:
    lon, lat = raster.positions_of([x], [y])
    return LonLat(float(lon[0]), float(lat[0]))
