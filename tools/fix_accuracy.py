"""Measure the registration of frames on maps: metres, heading, ellipse, rejection and time; fit what it is judged by.

    python tools/fix_accuracy.py collect --work /tmp/fix --naip ../shared/data/naip [--quick]   # resumable
    python tools/fix_accuracy.py calibrate --work /tmp/fix    # fits, writes the package's calibration.json
    python tools/fix_accuracy.py report --work /tmp/fix       # the table of figures to reach, and one line a set

`collect` writes one JSON line a frame and way into WORK/rows.jsonl and leaves out those that it holds. Ways: "top10"
(the ten places of the `demo` backbone, real weights), "map" (the whole map, no embedding) and "label" (the right window
given, pitch and roll from the labels). Sets to calibrate on: generated areas of seeds 1–20 in their own and in another
season, NAIP's west half photographed in 2020 on the map of 2018, and frames off each map. Sets to report: the area of
the demonstration, generated areas of seeds 101 and up, NAIP's east half, 4° of tilt, and frames off each map. Frames
off NAIP's map are of generated land, and of NAIP mirrored: the same kind of land, found nowhere.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Literal

import accuracy_figures
import numpy as np
import rasterio
import torch
from accuracy_figures import Row

from coarseloc.core import geo
from coarseloc.core.config import load as load_settings
from coarseloc.core.rotation import HEADINGS
from coarseloc.core.types import Backbone, Failure, Frame, LonLat
from coarseloc.embedding.encoders import Encoders
from coarseloc.imagery.decode import read_image
from coarseloc.imagery.flights import open_flight
from coarseloc.imagery.orthophoto import open_orthophoto
from coarseloc.imagery.windows import OrthophotoWindows
from coarseloc.localize.registration import geometry
from coarseloc.localize.registration.coarse import CandidateWindow, whole_map
from coarseloc.localize.registration.fix import CALIBRATION_FILE
from coarseloc.localize.registration.frame import FrameRaster
from coarseloc.localize.registration.geometry import FrameGeometry
from coarseloc.localize.registration.registrar import FinePose, Registration, register
from coarseloc.localize.registration.settings import DEFAULTS
from coarseloc.simulate.camera import Changes, ground_homography
from coarseloc.simulate.flight import simulate_flight
from coarseloc.simulate.terrain import write_area

ALTITUDE_M = 300.0
TOP_K = 10
DEMO_SEED = 2025
CALIBRATION_SEEDS, REPORT_SEEDS = range(1, 21), range(101, 106)
SEARCHED_SEEDS = range(1, 11)  # of those to calibrate on; the rest only over the whole map, to save their references


@dataclass(frozen=True, slots=True)
class AccuracySet:
    """Frames photographed over one raster, to be found on another; how many of them each way, the first ones."""

    name: str
    share: Literal["calibrate", "report"]
    map_path: Path
    photographed: Path
    footprint_m: float
    seed: int
    top10: int
    whole_map: int
    labelled: int = 0
    tilt_deg: float = 1.5
    path: Literal["track", "random"] = "random"
    half: Literal["west", "east"] | None = None  # of the photographed raster
    on_map: bool = True

    @property
    def flight_id(self) -> str:
        """Halves of one raster are of one flight."""
        tilt = f"-{self.tilt_deg:g}" if self.tilt_deg != 1.5 else ""
        return f"{self.photographed.stem}-on-{self.map_path.stem}-{self.seed}{tilt}-{self.path}"

    @property
    def frames(self) -> int:
        return max(self.ways().values())

    def ways(self) -> dict[str, int]:
        return {"top10": self.top10, "map": self.whole_map, "label": self.labelled}


def area(work: Path, seed: int, season: int) -> Path:
    """The file of a generated area, which `provided` writes."""
    return work / f"area-{seed}-{season}.tif"


def provided(path: Path) -> Path:
    """A raster, painted where it is a generated area that is not there yet."""
    kind, _, numbers = path.stem.partition("-")
    if kind != "area":
        return path
    seed, season = map(int, numbers.split("-"))
    return written(path, lambda partial: write_area(partial, seed, season=season))


def written(path: Path, write: Callable[[Path], object]) -> Path:
    """A file, written whole where it is not there: an interrupted one stays under another name."""
    if not path.exists():
        partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
        write(partial)
        partial.rename(path)
    return path


def mirrored(work: Path, raster: Path) -> Path:
    """The raster with north and south exchanged in its place: the same land's look, and a map of nothing."""

    def write(path: Path) -> None:
        with rasterio.open(raster) as source, rasterio.open(path, "w", **source.profile) as target:
            target.colorinterp = source.colorinterp
            target.write(source.read()[:, ::-1])

    return written(work / f"mirrored-{raster.name}", write)


def accuracy_sets(work: Path, naip: Path | None, quick: bool) -> Iterator[AccuracySet]:
    """All sets; of a quick measurement those to report, of a sixth of the frames and two seeds."""

    def few(count: int) -> int:
        return -(-count // 6) if quick else count

    demo, other = area(work, DEMO_SEED, 0), area(work, DEMO_SEED, 1)
    yield AccuracySet("demo flight", "report", demo, demo, 400.0, DEMO_SEED, few(100), few(20), few(30), path="track")
    yield AccuracySet("demo area, other season", "report", demo, other, 400.0, 12, few(100), few(20), few(30))
    yield AccuracySet("demo area, 4° of tilt", "report", demo, demo, 400.0, 13, few(50), few(15), tilt_deg=4.0)
    yield from naip_sets(work, naip, quick, few) if naip is not None else ()
    for seed in () if quick else CALIBRATION_SEEDS:
        map_path, season, far = area(work, seed, 0), area(work, seed, 1), area(work, seed + 540, 0)
        many = (2, 5, 2) if seed in SEARCHED_SEEDS else (0, 0, 0)
        over = (1, 1, 1) if seed in SEARCHED_SEEDS else (2, 5, 2)
        yield AccuracySet("generated, own season", "calibrate", map_path, map_path, 400.0, seed, many[0], over[0])
        yield AccuracySet("generated, other season", "calibrate", map_path, season, 400.0, seed, many[1], over[1])
        yield AccuracySet(
            "generated, off the map", "calibrate", map_path, far, 400.0, seed, many[2], over[2], on_map=False
        )
    for seed in REPORT_SEEDS[:2] if quick else REPORT_SEEDS:
        map_path, season, far = area(work, seed, 0), area(work, seed, 1), area(work, seed + 540, 0)
        name = "generated 101–105"
        yield AccuracySet(f"{name}, other season", "report", map_path, season, 400.0, seed, few(20), few(4))
        yield AccuracySet(f"{name}, off the map", "report", map_path, far, 400.0, seed, few(4), few(4), on_map=False)


def naip_sets(work: Path, naip: Path, quick: bool, few: Callable[[int], int]) -> Iterator[AccuracySet]:
    older, newer = (next(naip.glob(f"*_{year}*.tif")) for year in ("2018", "2020"))
    mirror = mirrored(work, newer)
    shares: dict[Literal["west", "east"], Literal["calibrate", "report"]] = {"west": "calibrate", "east": "report"}
    for half, share in shares.items():
        name = f"NAIP 2018→2020, {half}"
        yield AccuracySet(name, share, older, newer, 640.0, 21, few(100), few(40), few(30), half=half)
        name = f"NAIP {half} mirrored, off the map"
        yield AccuracySet(name, share, older, mirror, 640.0, 23, few(30), few(30), half=half, on_map=False)
        far = area(work, 721 if half == "west" else 722, 0)
        name = f"NAIP, {share}, generated frames off the map"
        yield AccuracySet(name, share, older, far, 640.0, 24, few(10), few(10), on_map=False)
    yield AccuracySet("NAIP 2018→2020, 4° of tilt", "report", older, newer, 640.0, 22, few(50), few(15), tilt_deg=4.0)


@dataclass(frozen=True, slots=True)
class References:
    """Every rotated tile of a map: unit vectors float32 [N, D], and its place's number and centre."""

    vectors: np.ndarray
    place: np.ndarray
    centers: list[LonLat]


def references(path: Path, footprint_m: float, encoder: Backbone, work: Path) -> References:
    """Kept in the work folder."""
    source = open_orthophoto(path, footprint_m=footprint_m, overlap=0.5)

    def write(file: Path) -> None:
        vectors, places = [], []
        for number, tile in enumerate(source.tiles):
            views = [view for view in source.views(tile, HEADINGS) if not isinstance(view, Failure)]
            vectors.append(encoder.embed(np.stack([view.pixels for view in views])))
            places += [number] * len(views)
        np.savez(file, vectors=np.concatenate(vectors), place=np.array(places))

    with np.load(written(work / f"references-{path.stem}.npz", write)) as arrays:
        return References(arrays["vectors"], arrays["place"], [tile.center for tile in source.tiles])


def top_places(frame: np.ndarray, tiles: References, encoder: Backbone, k: int) -> list[LonLat]:
    """The centres of the k best places."""
    scores = tiles.vectors @ encoder.embed(frame[None])[0]
    order = np.argsort(-scores, kind="stable")
    return [tiles.centers[number] for number in list(dict.fromkeys(tiles.place[order].tolist()))[:k]]


def frame_truth(frame: Frame, footprint_m: float) -> tuple[LonLat, LonLat]:
    """(the frame's middle on the ground, the point under the aircraft)."""
    truth = frame.truth
    if truth.location is None or truth.yaw_deg is None or truth.altitude_label_m is None:
        raise SystemExit(f"{frame.path} has no truth")
    half_fov_tan = footprint_m / 2 / ALTITUDE_M
    matrix = ground_homography(truth.pitch_deg or 0.0, truth.roll_deg or 0.0, half_fov_tan, truth.altitude_label_m)
    right, forward = matrix[:2, 2] / matrix[2, 2]
    return geo.offset(truth.location, *geo.turned_m(float(right), float(forward), truth.yaw_deg)), truth.location


def in_half(frame: Frame, source: OrthophotoWindows, half: str | None) -> bool:
    location = frame.truth.location
    return half is None or location is None or (location.lon < geo.box_center(source.bounds).lon) == (half == "west")


def pose_row(pose: FinePose, frame: Frame, ground: LonLat, aircraft: LonLat, shape: FrameGeometry) -> Row:
    """A pose beside the truth; matrices in the window's axes, which are true north's here."""
    truth = frame.truth
    perspective = pose.pose.perspective
    half_fov_tan = shape.half_fov_tan or 1.0
    _, _, yaw = geometry.attitude_of(perspective, half_fov_tan)
    true_k = geometry.perspective_of(truth.pitch_deg or 0.0, truth.roll_deg or 0.0, half_fov_tan)
    nadir = geometry.nadir_offset_m(pose.pose, shape)
    below = geo.offset(pose.location, *(pose.window.from_ground_axes() @ nadir)) if nadir is not None else pose.location
    return {
        "error_m": geo.offset_m(ground, pose.location),
        "aircraft_error_m": geo.offset_m(aircraft, below),
        "heading_error_deg": float(geo.signed_difference_deg(truth.yaw_deg or 0.0, pose.heading_deg - yaw)),
        "tilt_error_deg": math.degrees(math.hypot(*np.subtract(perspective, true_k)) / half_fov_tan),
        "score": pose.score,
        "pixel_m": pose.pixel_m,
        "half_width_px": shape.footprint_m * pose.pose.scale / 2 / pose.pixel_m,
        "scale": pose.pose.scale,
        "ground_fraction": pose.ground_fraction,
        "curvature": pose.curvature.tolist(),
        "scatter": pose.scatter.tolist(),
    }


def registration_row(
    registration: Registration, frame: Frame, truth: tuple[LonLat, LonLat], shape: FrameGeometry, on_map: bool
) -> Row:
    row: Row = {
        "fine": [pose.score for pose in registration.ranking],
        "rival": max(0.0, registration.rival.score) if registration.rival else 0.0,
    }
    if registration.best is not None and on_map:
        row["pose"] = pose_row(registration.best, frame, *truth, shape)
    return row


def collect(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    file = work / "rows.jsonl"
    recorded = {accuracy_figures.row_key(row) for row in accuracy_figures.read_rows(file)}
    encoders = Encoders(load_settings(work), input_px=224)
    encoder = encoders.load(encoders.spec("demo"))
    tiles: References | None = None
    tiles_of: Path | None = None
    for group in accuracy_sets(work, arguments.naip, arguments.quick):
        if arguments.share not in (None, group.share) or (arguments.only and arguments.only not in group.name):
            continue
        wanted = [
            (number, way)
            for way, count in group.ways().items()
            for number in range(count)
            if (group.name, group.seed, number + 1, way) not in recorded
        ]
        if not wanted:
            continue
        for raster in (group.map_path, group.photographed):
            provided(raster)
        if group.top10 and tiles_of != group.map_path:
            tiles, tiles_of = references(group.map_path, group.footprint_m, encoder, work), group.map_path
        frames = frames_of(group, work)
        source = OrthophotoWindows(group.map_path)
        for number, way in wanted:
            row = measure(group, frames[number], number + 1, way, source, tiles, encoder)
            with file.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
        print(time.strftime("%H:%M:%S"), group.name, group.seed, len(wanted), flush=True)


def frames_of(group: AccuracySet, work: Path) -> list[Frame]:
    """A set's frames, photographed where they are not there yet; twice as many and more where it takes a half."""
    folder = work / "flights"
    count = 2 * group.frames + 30 if group.half else group.frames
    name = f"{group.flight_id}-{count}"
    if not (folder / name / "labels.json").exists():
        shutil.rmtree(folder / name, ignore_errors=True)  # of an interrupted one
        simulate_flight(
            group.photographed, folder, flight_id=name, frames=count, footprint_m=group.footprint_m, seed=group.seed,
            altitude_m=ALTITUDE_M, path=group.path, changes=Changes(tilt_deg=group.tilt_deg),
        )  # fmt: skip
    photographed = OrthophotoWindows(group.photographed)
    frames = [frame for frame in open_flight(folder / name).frames if in_half(frame, photographed, group.half)]
    if len(frames) < group.frames:
        raise SystemExit(f"{group.name}: {len(frames)} frames in its half, {group.frames} are wanted")
    return frames[: group.frames]


def measure(
    group: AccuracySet,
    frame: Frame,
    number: int,
    way: str,
    source: OrthophotoWindows,
    tiles: References | None,
    encoder: Backbone,
) -> Row:
    """One frame registered one way; `cpu_ms` is of all after decoding and embedding, reading windows included."""
    pixels = read_image(frame.path)
    height, width = pixels.shape[:2]
    shape = FrameGeometry(width, height, group.footprint_m, group.footprint_m / 2 / ALTITUDE_M)
    truth = frame_truth(frame, group.footprint_m)
    row: Row = {
        "set": group.name, "share": group.share, "map_seed": group.seed, "frame": number, "way": way,
        "footprint_m": group.footprint_m, "map_gsd_m": source.gsd_m, "on_map": group.on_map, "reachable": True,
    }  # fmt: skip
    started = time.process_time()
    centers = top_places(pixels, tiles, encoder, TOP_K) if way == "top10" and tiles is not None else []
    row["embed_cpu_ms"] = (time.process_time() - started) * 1e3
    wall, started = time.perf_counter(), time.process_time()
    raster = FrameRaster(pixels, shape)
    side_m, reach_m = (share * group.footprint_m for share in (DEFAULTS.window_footprints, DEFAULTS.reach_footprints))
    pixel_m = group.footprint_m / DEFAULTS.coarse_px
    if way == "top10":
        windows: Iterable[CandidateWindow] = (
            CandidateWindow(source.window(center, side_m, pixel_m), reach_m) for center in centers
        )
        row["reachable"] = group.on_map and any(
            max(map(abs, geo.offset_m(center, truth[0]))) <= reach_m for center in centers
        )
        registration = register(raster, windows, source.window, source.gsd_m)
    elif way == "label":
        jitter = np.random.default_rng([group.seed, number]).uniform(-0.25, 0.25, 2) * group.footprint_m
        window = source.window(geo.offset(truth[0], *jitter.tolist()), side_m, pixel_m)
        attitude = geometry.perspective_of(
            frame.truth.pitch_deg or 0.0, frame.truth.roll_deg or 0.0, shape.half_fov_tan or 0.0
        )
        candidate = CandidateWindow(window, reach_m)
        registration = register(raster, [candidate], source.window, source.gsd_m, perspective=attitude)
    else:
        windows = whole_map(source, shape)
        registration = register(raster, windows, source.window, source.gsd_m, refined=DEFAULTS.map_refined)
    row["ms"] = (time.perf_counter() - wall) * 1e3
    row["cpu_ms"] = (time.process_time() - started) * 1e3
    return row | registration_row(registration, frame, truth, shape, group.on_map)


# --- the answers --------------------------------------------------------------------------------


def report(arguments: argparse.Namespace) -> None:
    rows = accuracy_figures.read_rows(arguments.work / "rows.jsonl")
    print("\n".join(accuracy_figures.goals_table(rows)), end="\n\n")
    print("\n".join(accuracy_figures.sets_table(rows)))


def calibrate(arguments: argparse.Namespace) -> None:
    """Fit on the share to calibrate on, and write the constants with what they are fitted on."""
    rows = [row for row in accuracy_figures.read_rows(arguments.work / "rows.jsonl") if row["share"] == "calibrate"]
    versions = {name: metadata.version(name) for name in ("torch", "numpy")}
    record = accuracy_figures.calibration_record(rows, date.today().isoformat(), versions)
    arguments.out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=1, ensure_ascii=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function in (("collect", collect), ("report", report), ("calibrate", calibrate)):
        command = commands.add_parser(name)
        command.set_defaults(run=function)
        command.add_argument("--work", type=Path, required=True)
        if name == "collect":
            command.add_argument("--naip", type=Path, help="a folder of two years of one place")
            command.add_argument("--quick", action="store_true", help="a sixth of the frames, none to calibrate on")
            command.add_argument("--share", choices=("calibrate", "report"), help="only its sets")
            command.add_argument("--only", help="sets whose name holds this")
        if name == "calibrate":
            command.add_argument("--out", type=Path, default=CALIBRATION_FILE)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
