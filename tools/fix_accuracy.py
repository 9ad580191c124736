"""Measure the registration of frames on maps: metres, heading, ellipse, rejection and time, as one table.

    python tools/fix_accuracy.py collect --work /tmp/fix --naip ../shared/data/naip --frames 24     # resumable
    python tools/fix_accuracy.py report --work /tmp/fix                                             # the table
    python tools/fix_accuracy.py calibrate --work /tmp/fix                                          # the constants

`collect` writes one JSON line a frame and way into WORK/rows.jsonl and leaves out those that it holds. Ways: "top10"
(the ten places of the `demo` backbone, real weights), "map" (the whole map, no embedding) and, where asked for,
"label" (the right place given, pitch and roll from the labels). Sets: the generated area
of the demonstration in its own and in another season, other generated areas (seeds 1–20 to calibrate on, 101 and up to
report), NAIP 2018 → 2020 (its west half to calibrate on, its east half to report), frames of another area (off the
map), and 4° of tilt. Calibrated on one share, reported on the other.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from coarseloc.core import geo
from coarseloc.core.config import load as load_settings
from coarseloc.core.fixes import CHI2_95
from coarseloc.core.rotation import HEADINGS
from coarseloc.core.types import Backbone, Failure, Frame, LonLat
from coarseloc.core.windows import north_up
from coarseloc.embedding.encoders import Encoders
from coarseloc.imagery.decode import read_image
from coarseloc.imagery.flights import open_flight
from coarseloc.imagery.orthophoto import open_orthophoto
from coarseloc.imagery.windows import OrthophotoWindows
from coarseloc.localize.registration import geometry
from coarseloc.localize.registration.fix import FITTED, ground_covariance, heading_sd_deg, tilt_sd_deg
from coarseloc.localize.registration.frame import FrameRaster
from coarseloc.localize.registration.geometry import FrameGeometry, WindowPose
from coarseloc.localize.registration.registrar import (
    DEFAULTS,
    CandidateWindow,
    FinePose,
    Registration,
    register,
    whole_map,
)
from coarseloc.simulate.camera import Changes, ground_homography
from coarseloc.simulate.flight import simulate_flight
from coarseloc.simulate.terrain import write_area

ALTITUDE_M = 300.0
RIGHT = 0.05  # of the footprint: the frame's middle nearer than this is right
TOP_K = 10

Row = dict[str, Any]
"""One frame registered one way, as a line of rows.jsonl."""


@dataclass(frozen=True, slots=True)
class AccuracySet:
    """Frames photographed over one raster, to be found on another."""

    name: str
    share: str  # "calibrate" or "report"
    map_path: Path
    photographed: Path
    footprint_m: float
    seed: int
    frames: int
    tilt_deg: float = 1.5
    path: Literal["track", "random"] = "random"
    half: str | None = None  # "west" or "east": of the photographed raster
    on_map: bool = True


def area(work: Path, seed: int, season: int) -> Path:
    path = work / f"area-{seed}-{season}.tif"
    if not path.exists():
        write_area(path, seed, season=season)
    return path


def accuracy_sets(work: Path, naip: Path | None, frames: int, seeds: Sequence[int]) -> Iterator[AccuracySet]:
    demo = area(work, 2025, 0)
    yield AccuracySet("demo flight", "report", demo, demo, 400.0, 2025, 2 * frames, path="track")
    yield AccuracySet("demo area, other season", "report", demo, area(work, 2025, 1), 400.0, 12, 2 * frames)
    yield AccuracySet("demo area, 4° of tilt", "report", demo, demo, 400.0, 13, frames, tilt_deg=4.0)
    for seed in seeds:
        share = "calibrate" if seed <= 20 else "report"
        frame_count = max(2, frames // 4)
        map_path = area(work, seed, 0)
        yield AccuracySet(
            f"generated {share}, other season", share, map_path, area(work, seed, 1), 400.0, seed, frame_count
        )
        far = area(work, seed + 540, 0)
        yield AccuracySet(
            f"generated {share}, off the map", share, map_path, far, 400.0, seed, frame_count, on_map=False
        )
    if naip is not None:
        older, newer = (next(naip.glob(f"*_{year}*.tif")) for year in ("2018", "2020"))
        for share, half, seed in (("calibrate", "west", 21), ("report", "east", 22)):
            name = f"NAIP 2018→2020, {half}"
            yield AccuracySet(name, share, older, newer, 640.0, seed, 2 * frames, half=half)
            off = area(work, 700 + seed, 0)
            name = f"NAIP {share}, off the map"
            yield AccuracySet(name, share, older, off, 640.0, seed, frames // 2, on_map=False)
        yield AccuracySet("NAIP 2018→2020, 4° of tilt", "report", older, newer, 640.0, 23, frames, tilt_deg=4.0)


@dataclass(frozen=True, slots=True)
class References:
    """Every rotated tile of a map: unit vectors float32 [N, D], and its place's number and centre."""

    vectors: np.ndarray
    place: np.ndarray
    centers: list[LonLat]


def references(path: Path, footprint_m: float, encoder: Backbone) -> References:
    source = open_orthophoto(path, footprint_m=footprint_m, overlap=0.5)
    vectors, places = [], []
    for number, tile in enumerate(source.tiles):
        views = [view for view in source.views(tile, HEADINGS) if not isinstance(view, Failure)]
        vectors.append(encoder.embed(np.stack([view.pixels for view in views])))
        places += [number] * len(views)
    return References(np.concatenate(vectors), np.array(places), [tile.center for tile in source.tiles])


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
    yaw = math.radians(truth.yaw_deg)
    east = right * math.cos(yaw) + forward * math.sin(yaw)
    north = forward * math.cos(yaw) - right * math.sin(yaw)
    return geo.offset(truth.location, east, north), truth.location


def offset_m(origin: LonLat, location: LonLat) -> tuple[float, float]:
    """(east, north) metres."""
    per_lon, per_lat = geo.metres_per_degree(origin.lat)
    return float(geo.signed_difference_deg(origin.lon, location.lon)) * per_lon, (location.lat - origin.lat) * per_lat


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
        "error_m": offset_m(ground, pose.location),
        "aircraft_error_m": offset_m(aircraft, below),
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
    registration: Registration, frame: Frame, truth: tuple[LonLat, LonLat], shape: FrameGeometry
) -> Row:
    ranking = [(pose.score, math.hypot(*offset_m(truth[0], pose.location))) for pose in registration.ranking]
    row: Row = {
        "fine": ranking,
        "rival": max(0.0, registration.rival.score) if registration.rival else 0.0,
        "coarse": [
            (place.score, math.hypot(*offset_m(truth[0], place.location))) for place in registration.places[:12]
        ],
    }
    if registration.best is not None:
        row["pose"] = pose_row(registration.best, frame, *truth, shape)
    return row


def collect(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    file = work / "rows.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    recorded = {(row["set"], row["map_seed"], row["frame"], row["way"]) for row in lines}
    encoders = Encoders(load_settings(work), input_px=224)
    encoder = encoders.load(encoders.spec("demo"))
    references_by_map: dict[Path, References] = {}
    for group in accuracy_sets(work, arguments.naip, arguments.frames, arguments.seeds):
        if arguments.only and arguments.only not in group.name:
            continue
        folder = work / "flights"
        name = f"{group.name}-{group.seed}-{group.frames}".replace(" ", "-").replace(",", "").replace("°", "")
        if not (folder / name / "labels.json").exists():
            simulate_flight(
                group.photographed, folder, flight_id=name, frames=group.frames * (2 if group.half else 1),
                footprint_m=group.footprint_m, seed=group.seed, altitude_m=ALTITUDE_M, path=group.path,
                changes=Changes(tilt_deg=group.tilt_deg),
            )  # fmt: skip
        source = OrthophotoWindows(group.map_path)
        photographed = OrthophotoWindows(group.photographed)
        if "top10" in arguments.ways and group.map_path not in references_by_map:
            references_by_map[group.map_path] = references(group.map_path, group.footprint_m, encoder)
        frames = [frame for frame in open_flight(folder / name).frames if in_half(frame, photographed, group.half)]
        for frame in frames[: arguments.at_most]:
            pixels = read_image(frame.path)
            for way in arguments.ways:
                if (group.name, group.seed, frame.index, way) in recorded:
                    continue
                row = measure(group, frame, pixels, way, source, references_by_map.get(group.map_path), encoder)
                with file.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
        print(time.strftime("%H:%M:%S"), group.name, group.seed, flush=True)


def measure(
    group: AccuracySet,
    frame: Frame,
    pixels: np.ndarray,
    way: str,
    source: OrthophotoWindows,
    tiles: References | None,
    encoder: Backbone,
) -> Row:
    """One frame registered one way; milliseconds are of all but embedding and decoding, reading windows included."""
    height, width = pixels.shape[:2]
    shape = FrameGeometry(width, height, group.footprint_m, group.footprint_m / 2 / ALTITUDE_M)
    truth = frame_truth(frame, group.footprint_m)
    row: Row = {
        "set": group.name, "share": group.share, "map_seed": group.seed, "frame": frame.index, "way": way,
        "footprint_m": group.footprint_m, "map_gsd_m": source.gsd_m, "on_map": group.on_map, "reachable": True,
    }  # fmt: skip
    centers = top_places(pixels, tiles, encoder, TOP_K) if way == "top10" and tiles is not None else []
    started, cpu = time.perf_counter(), time.process_time()
    raster = FrameRaster(pixels, shape)
    if way == "top10":
        side_m, reach_m = (fraction * group.footprint_m for fraction in (1.75, DEFAULTS.reach_footprints))
        pixel_m = group.footprint_m / DEFAULTS.coarse_px
        windows: Iterable[CandidateWindow] = (
            CandidateWindow(source.window(center, side_m, pixel_m), reach_m) for center in centers
        )
        row["reachable"] = any(max(map(abs, offset_m(center, truth[0]))) <= reach_m for center in centers)
        registration = register(raster, windows, source.window, source.gsd_m)
    elif way == "label":
        jitter = np.random.default_rng([group.seed, frame.index]).uniform(-0.25, 0.25, 2) * group.footprint_m
        center = geo.offset(truth[0], *jitter.tolist())
        window = source.window(center, 1.75 * group.footprint_m, group.footprint_m / DEFAULTS.coarse_px)
        attitude = geometry.perspective_of(
            frame.truth.pitch_deg or 0.0, frame.truth.roll_deg or 0.0, shape.half_fov_tan or 0.0
        )
        candidate = CandidateWindow(window, DEFAULTS.reach_footprints * group.footprint_m)
        registration = register(raster, [candidate], source.window, source.gsd_m, perspective=attitude)
    else:
        windows = whole_map(source, shape)
        registration = register(raster, windows, source.window, source.gsd_m, refined=DEFAULTS.map_refined)
    row["milliseconds"] = (time.perf_counter() - started) * 1e3
    row["cpu_milliseconds"] = (time.process_time() - cpu) * 1e3
    return row | registration_row(registration, frame, truth, shape)


# --- the table ----------------------------------------------------------------------------------


def is_right(row: Row) -> bool:
    return row["on_map"] and "pose" in row and math.hypot(*row["pose"]["error_m"]) <= RIGHT * row["footprint_m"]


def report(arguments: argparse.Namespace) -> None:
    """Accuracy by set and way, then rejection by way over the share that nothing was calibrated on."""
    rows = read_rows(arguments.work)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["set"], row["way"]), []).append(row)
    heads = (
        "set", "way", "n", "reachable %", "right %", "ground m median / p90",
        "95 % ellipse holds % (map sd 0 / half GSD)", "NEES / 2", "heading °", "aircraft m median / p90", "tilt °",
        "score", "margin", "accepted %", "ms (CPU ms)",
    )  # fmt: skip
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for (name, way), members in groups.items():
        right = [row for row in members if is_right(row)]
        poses = [row["pose"] for row in right]
        nees = [squared_mahalanobis(row, 0.0) for row in right]
        with_map = [squared_mahalanobis(row, row["map_gsd_m"] / 2) for row in right]
        cells = (
            name, way, len(members), share([row["reachable"] for row in members]),
            share([is_right(row) for row in members]),
            spread([math.hypot(*pose["error_m"]) for pose in poses]),
            f"{share([value <= CHI2_95 for value in nees])} / {share([value <= CHI2_95 for value in with_map])}",
            f"{float(np.mean(nees)) / 2:.2f}" if nees else "–",
            middle([abs(pose["heading_error_deg"]) for pose in poses]),
            spread([math.hypot(*pose["aircraft_error_m"]) for pose in poses]),
            middle([pose["tilt_error_deg"] for pose in poses]),
            middle([score_of(row) for row in members]), middle([margin_of(row) for row in members]),
            share([probability_of(row) >= FITTED.accepted_probability for row in members]),
            f"{np.median([row['milliseconds'] for row in members]):.0f} "
            f"({np.median([row['cpu_milliseconds'] for row in members]):.0f})",
        )  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |")
    for way in ("top10", "map"):
        members = [row for row in rows if row["way"] == way and row["share"] == "report"]
        if members:
            print(f"\n{way}: {rejection(members)}")


def rejection(members: Sequence[Row]) -> str:
    """Recall of right answers at full precision by the fitted probability, and what its threshold accepts."""
    labels = np.array([is_right(row) for row in members])
    probability = np.array([probability_of(row) for row in members])
    wrong = probability[~labels]
    above = probability > (wrong.max() if len(wrong) else -1.0)
    accepted = probability >= FITTED.accepted_probability
    return (
        f"n = {len(labels)}, right {labels.sum()}, wrong or off the map {len(wrong)}; recall at full precision "
        f"{above[labels].mean():.3f}; accepted at p ≥ {FITTED.accepted_probability:g}: right "
        f"{accepted[labels].mean():.3f}, "
        f"wrong {int(accepted[~labels].sum())} of {len(wrong)}"
    )


def calibrate(arguments: argparse.Namespace) -> None:
    """Print constants fitted on the share to calibrate on."""
    rows = [row for row in read_rows(arguments.work) if row["share"] == "calibrate"]
    for way in ("top10", "map"):
        members = [row for row in rows if row["way"] == way]
        features = np.array([(1.0, score_of(row), margin_of(row)) for row in members])
        labels = np.array([is_right(row) for row in members])
        print(
            way, "n", len(labels), "right", int(labels.sum()), "logistic", logistic_weights(features, labels).round(2)
        )
    names = sorted({row["set"] for row in rows})
    for name in names:
        right = [row for row in rows if row["set"] == name and is_right(row)]
        if right:
            nees = [squared_mahalanobis(row, 0.0) / 2 for row in right]
            tilt, heading = ([values[index] for values in map(angle_ratios, right)] for index in (0, 1))
            print(name, "n", len(right), f"NEES/2 {np.mean(nees):.2f}, tilt variance over what is stated "
                  f"{np.mean(tilt):.2f}, heading {np.mean(heading):.2f}")  # fmt: skip


def logistic_weights(features: np.ndarray, labels: np.ndarray, ridge: float = 0.05) -> np.ndarray:
    """float64 [F]: maximum likelihood by Newton's method, weights of standardised features drawn to 0 a little, so that
    sets that separate have finite ones."""
    centre, spread_ = features[:, 1:].mean(0), features[:, 1:].std(0)
    standard = np.column_stack([features[:, 0], (features[:, 1:] - centre) / spread_])
    penalty = np.diag([0.0, *[ridge] * (features.shape[1] - 1)])
    weights = np.zeros(features.shape[1])
    for _ in range(100):
        p = 1.0 / (1.0 + np.exp(-standard @ weights))
        gradient = standard.T @ (labels - p) - penalty @ weights
        hessian = (standard * (p * (1 - p))[:, None]).T @ standard + penalty + 1e-9 * np.eye(len(weights))
        weights = weights + np.linalg.solve(hessian, gradient)
    slopes = weights[1:] / spread_
    return np.array([weights[0] - slopes @ centre, *slopes])


def read_rows(work: Path) -> list[Row]:
    return [json.loads(line) for line in (work / "rows.jsonl").read_text().splitlines()]


def fine_pose(row: Row) -> FinePose:
    """A row's pose as far as covariances need it, on a north-up window."""
    pose = row["pose"]
    window = north_up(np.zeros((1, 1, 3), np.uint8), None, pose["pixel_m"], LonLat(0.0, 0.0))
    scatter, curvature = np.array(pose["scatter"]), np.array(pose["curvature"])
    window_pose = WindowPose(0.0, 0.0, 0.0, pose["scale"])
    return FinePose(
        window.center, window_pose, 0.0, pose["score"], curvature, scatter, pose["pixel_m"], 1.0, window
    )  # fmt: skip


def squared_mahalanobis(row: Row, map_sd_m: float) -> float:
    """Of the ground point's error under its stated covariance: 2 on average where that is right."""
    error = np.array(row["pose"]["error_m"])
    return float(error @ np.linalg.solve(ground_covariance(fine_pose(row), row["map_gsd_m"], map_sd_m), error))


def angle_ratios(row: Row) -> tuple[float, float]:
    """(squared tilt error over 2 stated variances, squared heading error over the stated variance)."""
    pose, half_fov_tan = row["pose"], row["footprint_m"] / 2 / ALTITUDE_M
    tilt = pose["tilt_error_deg"] / tilt_sd_deg(fine_pose(row), half_fov_tan)
    heading = pose["heading_error_deg"] / heading_sd_deg(fine_pose(row))
    return tilt**2 / 2, heading**2


def score_of(row: Row) -> float:
    return row["fine"][0][0] if row["fine"] else 0.0


def probability_of(row: Row) -> float:
    return (FITTED.whole_map if row["way"] == "map" else FITTED.candidates)(score_of(row), margin_of(row))


def margin_of(row: Row) -> float:
    return score_of(row) - row["rival"] if row["fine"] else 0.0


def share(values: Sequence[bool]) -> str:
    return f"{100 * float(np.mean(values)):.0f}" if values else "–"


def middle(values: Sequence[float]) -> str:
    return f"{float(np.median(values)):.3g}" if values else "–"


def spread(values: Sequence[float]) -> str:
    return f"{float(np.median(values)):.3g} / {float(np.percentile(values, 90)):.3g}" if values else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function in (("collect", collect), ("report", report), ("calibrate", calibrate)):
        command = commands.add_parser(name)
        command.set_defaults(run=function)
        command.add_argument("--work", type=Path, required=True)
        if name == "collect":
            command.add_argument("--naip", type=Path)
            command.add_argument("--frames", type=int, default=24)
            command.add_argument("--seeds", type=int, nargs="*", default=[*range(1, 21), *range(101, 111)])
            command.add_argument("--ways", nargs="*", default=["top10", "map"])
            command.add_argument("--only", help="sets whose name holds this")
            command.add_argument("--at-most", type=int, help="frames of each set, the first ones")
            command.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
