"""Compare registration on a GPU with the CPU's in one call:  PYTHONPATH=. python benchmarks/registration_devices.py

Needs coarseloc's source, torch, numpy and Pillow, nothing else. Frames are photographed over a generated area of
17 km² (footprints of 640 m, 1.5° of tilt, light, blur, noise) and registered on both devices, among ten windows and
over the whole map. Prints JSON, and writes it where `--out` says: metres and degrees between the devices' fixes,
whether two runs on one device are bit-equal, and milliseconds a frame by stage. `--device cpu` tries the script where
there is no GPU; exit status 1 where devices disagree or a device disagrees with itself.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from coarseloc.core import geo
from coarseloc.core.rotation import Affine
from coarseloc.core.types import BBox, LonLat, UInt8
from coarseloc.core.windows import MapWindow, north_up
from coarseloc.localize.registration import geometry
from coarseloc.localize.registration.coarse import CandidateWindow, coarse_fields, coarse_places, whole_map
from coarseloc.localize.registration.frame import FrameRaster
from coarseloc.localize.registration.geometry import FrameGeometry, WindowPose
from coarseloc.localize.registration.registrar import FinePose, Registration, register
from coarseloc.localize.registration.settings import DEFAULTS
from coarseloc.simulate.camera import Changes, develop, season_matrix
from coarseloc.simulate.terrain import render_area

CENTER = LonLat(127.03, 37.49)
SHAPE = FrameGeometry(512, 512, 640.0, 640.0 / 2 / 300.0)
GSD_M = 2.5
AREA_M = (4670.0, 3640.0)  # 17 km²
K = 10
MOST_APART_M, MOST_APART_DEG = 0.02, 0.01
STAGES = ("fields", "coarse", "fine")


class PaintedMap:
    """A generated area as a source of windows, its middle at `CENTER`."""

    def __init__(self, pixels: UInt8, gsd_m: float) -> None:
        height, width = pixels.shape[:2]
        self.gsd_m = gsd_m
        self.extent_m = width * gsd_m, height * gsd_m
        self.bounds: BBox = _box(width * gsd_m, height * gsd_m)
        self._whole = north_up(pixels, None, gsd_m, CENTER)
        self._reduced = {1: Image.fromarray(pixels)}

    def window(self, center: LonLat, side_m: float, gsd_m: float) -> MapWindow:
        side = math.ceil(side_m / gsd_m - 1e-9)
        factor = max(1, int(gsd_m / self.gsd_m))
        if factor not in self._reduced:
            self._reduced[factor] = self._reduced[1].reduce(factor)
        picture, pixel_m = self._reduced[factor], self.gsd_m * factor
        step = gsd_m / pixel_m
        left, top = (value / pixel_m - side * step / 2 for value in self._whole.metres_of(center))
        affine = Affine(step, 0.0, left, 0.0, step, top)
        pixels = picture.transform((side, side), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
        middles = (np.arange(side) + 0.5) * step
        columns, rows = (
            (first + middles >= 0) & (first + middles < size)
            for first, size in ((left, picture.width), (top, picture.height))
        )
        valid = rows[:, None] & columns[None]
        return north_up(np.asarray(pixels), None if valid.all() else valid, gsd_m, center)

    def frame(self, pose: WindowPose, rng: np.random.Generator) -> UInt8:
        """The picture whose pose on the whole map this is, as a camera would write it."""
        half = SHAPE.width_px / 2
        from_pixels = np.array([[1 / half, 0, -1], [0, 1 / half, -SHAPE.aspect], [0, 0, 1]])
        h = np.diag([1 / self.gsd_m, 1 / self.gsd_m, 1.0]) @ geometry.to_ground(pose, SHAPE) @ from_pixels
        data = (h / h[2, 2]).ravel()[:8].tolist()
        size = (SHAPE.width_px, SHAPE.height_px)
        picture = self._reduced[1].transform(size, Image.Transform.PERSPECTIVE, data, Image.Resampling.BICUBIC)
        changes = Changes()
        return develop(np.asarray(picture), rng, changes, season_matrix(rng, changes.season))

    def location(self, pose: WindowPose) -> LonLat:
        return self._whole.location(pose.x_m, pose.y_m)


def _box(width_m: float, height_m: float) -> BBox:
    low, high = (geo.offset(CENTER, sign * width_m / 2, sign * height_m / 2) for sign in (-1, 1))
    return BBox(low.lon, low.lat, high.lon, high.lat)


@dataclass(frozen=True, slots=True)
class Photograph:
    """A frame, where its middle is, and the windows it is looked for in."""

    pixels: UInt8
    location: LonLat
    windows: list[CandidateWindow]


def photographs(area: PaintedMap, count: int) -> list[Photograph]:
    rng = np.random.default_rng(7)
    frames = []
    for _ in range(count):
        x_m, y_m = (rng.uniform(600.0, extent - 600.0) for extent in area.extent_m)
        tilt = SHAPE.half_fov_tan * np.tan(np.radians(rng.normal(0.0, 1.5, 2))) if SHAPE.half_fov_tan else np.zeros(2)
        pose = WindowPose(x_m, y_m, rng.uniform(0.0, 360.0), rng.normal(1.0, 0.04), (float(tilt[0]), float(tilt[1])))
        location = area.location(pose)
        centers = [geo.offset(location, *rng.uniform(-150.0, 150.0, 2))]
        centers += [geo.offset(CENTER, *(rng.uniform(-0.3, 0.3, 2) * area.extent_m)) for _ in range(K - 1)]
        side_m, pixel_m = DEFAULTS.window_footprints * SHAPE.footprint_m, SHAPE.footprint_m / DEFAULTS.coarse_px
        reach_m = DEFAULTS.reach_footprints * SHAPE.footprint_m
        windows = [CandidateWindow(area.window(center, side_m, pixel_m), reach_m) for center in centers]
        frames.append(Photograph(area.frame(pose, rng), location, windows))
    return frames


@dataclass(frozen=True, slots=True)
class Timed:
    """A frame's registration, and the seconds of its stages."""

    registration: Registration
    seconds: dict[str, float]


def registered(
    frame: Photograph, windows: Sequence[CandidateWindow], area: PaintedMap, refined: int, device: str
) -> Timed:
    """As `register` does it, and its first two stages once more by themselves: their seconds are taken off its own."""
    apart_m = DEFAULTS.apart_footprints * SHAPE.footprint_m
    raster = FrameRaster(frame.pixels, SHAPE, device)
    fields_s, fields = _timed(partial(coarse_fields, raster), device)
    coarse_s, _ = _timed(partial(coarse_places, fields, windows, DEFAULTS, apart_m, refined), device)
    raster = FrameRaster(frame.pixels, SHAPE, device)
    all_s, registration = _timed(partial(register, raster, windows, area.window, area.gsd_m, refined=refined), device)
    seconds = dict(zip(STAGES, (fields_s, coarse_s, all_s - fields_s - coarse_s), strict=True))
    return Timed(registration, seconds | {"all": all_s})


def _timed(call: Any, device: str) -> tuple[float, Any]:
    _wait(device)
    started = time.perf_counter()
    value = call()
    _wait(device)
    return time.perf_counter() - started, value


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def same_bits(first: Registration, second: Registration) -> bool:
    """Every number of two registrations: poses, scores, curvatures, coarse places."""
    if first.best is None or second.best is None:
        return first.best is second.best and first.places == second.places
    alike = all(
        a.pose == b.pose and a.score == b.score and np.array_equal(a.curvature, b.curvature)
        for a, b in zip((first.best, *first.ranking), (second.best, *second.ranking), strict=False)
    )
    return alike and first.places == second.places and len(first.ranking) == len(second.ranking)


def between(first: FinePose, second: FinePose) -> dict[str, float]:
    return {
        "ground_m": _apart_m(first.location, second.location),
        "heading_deg": abs(float(geo.signed_difference_deg(first.heading_deg, second.heading_deg))),
        "scale": abs(first.pose.scale - second.pose.scale),
        "score": abs(first.score - second.score),
    }


def _apart_m(first: LonLat, second: LonLat) -> float:
    return float(geo.ellipsoid_distance_m(first.lon, first.lat, second.lon, second.lat))


def compared(frames: Sequence[Photograph], area: PaintedMap, device: str, over: str) -> dict[str, Any]:
    """One way of searching, "windows" or "map", on the CPU and twice on the device."""
    map_windows = list(whole_map(area, SHAPE)) if over == "map" else []
    refined = DEFAULTS.map_refined if over == "map" else DEFAULTS.refined
    runs: dict[str, list[Timed]] = {"cpu": [], "device": [], "device again": []}
    windows_of = [map_windows or frame.windows for frame in frames]
    registered(frames[0], windows_of[0], area, refined, device)  # plans of transforms, kernels
    for frame, windows in zip(frames, windows_of, strict=True):
        for name, where in (("cpu", "cpu"), ("device", device), ("device again", device)):
            runs[name].append(registered(frame, windows, area, refined, where))
    pairs = [
        (one.registration.best, two.registration.best) for one, two in zip(runs["cpu"], runs["device"], strict=True)
    ]
    both = [between(one, two) for one, two in pairs if one is not None and two is not None]
    right = {
        name: sum(
            run.registration.best is not None
            and _apart_m(run.registration.best.location, frame.location) < 0.05 * SHAPE.footprint_m
            for run, frame in zip(runs[name], frames, strict=True)
        )
        for name in ("cpu", "device")
    }
    return {
        "frames": len(frames),
        "windows": [len(windows_of[0]), *windows_of[0][0].window.pixels.shape[:2]],
        "right": right,
        "one answered": sum((one is None) != (two is None) for one, two in pairs),
        "apart": {
            key: {"median": statistics.median(values), "most": max(values)}
            for key in both[0]
            if (values := [pair[key] for pair in both])
        }
        if both
        else {},
        "bit-equal twice": sum(
            same_bits(one.registration, two.registration)
            for one, two in zip(runs["device"], runs["device again"], strict=True)
        ),
        "ms": {
            name: {
                stage: round(1e3 * statistics.median(run.seconds[stage] for run in runs[key]), 2)
                for stage in (*STAGES, "all")
            }
            for name, key in (("cpu", "cpu"), ("device", "device again"))
        },
    }


def measure(device: str, count: int, area_m: tuple[float, float] = AREA_M) -> dict[str, Any]:
    area = PaintedMap(render_area(11, *area_m, GSD_M), GSD_M)
    frames = photographs(area, count)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    return {
        "device": {"asked": device, "name": name, "cuda": torch.version.cuda, "torch": torch.__version__},
        "cpu": {"name": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "area": {"km2": round(area_m[0] * area_m[1] / 1e6, 1), "gsd_m": GSD_M, "footprint_m": SHAPE.footprint_m},
        **{over: compared(frames, area, device, over) for over in ("windows", "map")},
    }


def agrees(figures: dict[str, Any]) -> bool:
    """Fixes within 0.02 m and 0.01°, and a device's runs bit-equal."""
    return all(
        bool(part["apart"])
        and part["one answered"] == 0
        and part["bit-equal twice"] == part["frames"]
        and part["apart"]["ground_m"]["most"] <= MOST_APART_M
        and part["apart"]["heading_deg"]["most"] <= MOST_APART_DEG
        for part in (figures["windows"], figures["map"])
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu", help="cuda:0 or cpu")
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--out", type=Path, help="a file for the same JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures = measure(options.device, options.frames)
    figures["agrees"] = agrees(figures)
    text = json.dumps(figures, indent=1)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", encoding="utf-8")
    return 0 if figures["agrees"] else 1


if __name__ == "__main__":
    sys.exit(main())
