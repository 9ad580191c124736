"""Measure tracks: metres, claims, false claims, recovery, ellipses and time, by ranks, by fixes, and by both.

    python tools/track_accuracy.py collect --work /tmp/tracks --naip ../shared/data/naip [--quick]   # resumable
    python tools/track_accuracy.py report --work /tmp/tracks

Each flight is photographed over a raster whose west alone is the map, so that legs lead off it; 30 frames are of cloud.
Some begin in the middle of a lake whose ripples stand still from frame to frame and are other ones on the map.
Its odometry and its Top-10 of the `demo` backbone are kept in WORK/evidence-<flight>.json. `collect` flies it by each
method and writes WORK/rows-<flight>-<method>.json; what is there already is left out. Methods: "ranks" (the grid
filter on the Top-10's ranks), "fixes" (the Kalman tracker on registrations of whole maps) and "both" (the same on
registrations about the Top-10's places and the grid filter's, for maps too large to look at whole). Nothing was tuned
on these seeds.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
import torch
from fix_accuracy import ALTITUDE_M, frame_truth, written
from PIL import Image, ImageFilter
from rasterio.windows import Window

from coarseloc.core import geo
from coarseloc.core.config import load as load_settings
from coarseloc.core.fixes import CHI2_95
from coarseloc.core.rotation import HEADINGS
from coarseloc.core.tracks import TrackEstimate
from coarseloc.core.types import Backbone, Failure, Floats, Frame, LonLat, UInt8
from coarseloc.embedding.encoders import Encoders
from coarseloc.imagery.decode import read_image
from coarseloc.imagery.flights import open_flight
from coarseloc.imagery.orthophoto import open_orthophoto
from coarseloc.imagery.windows import OrthophotoWindows
from coarseloc.localize.tracking.kalman import PoseMeasurement
from coarseloc.localize.tracking.map_search import MapFrameSearch
from coarseloc.localize.tracking.motion import Displacement
from coarseloc.localize.tracking.odometry import OdometryFrame, displacement
from coarseloc.localize.tracking.rank_grid import RankedHits, ReferenceGrid, reference_grid
from coarseloc.localize.tracking.rank_track import RankedFrame, searched_places, smoothed_ranks, track_ranks
from coarseloc.localize.tracking.smoothing import smoothed
from coarseloc.localize.tracking.stored_fixes import share_inside
from coarseloc.localize.tracking.tracker import DEFAULTS as TRACKER
from coarseloc.localize.tracking.tracker import LocalPlane, TrackedFrame, track
from coarseloc.simulate.flight import simulate_flight
from coarseloc.simulate.terrain import write_area
from search.evaluation import intervals

Row = dict[str, Any]

TOP_K = 10
CLOUD_FRAMES = 30
LAKE_FRAMES = 12  # whose middles lie 0.95 footprints from a lake's shore at least
FALSE_FIXES_M, FALSE_RANKS_M = 100.0, 300.0  # a claim farther off is false
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, slots=True)
class TrackSet:
    """A flight over one raster, followed on the west of another one."""

    name: str
    map_path: Path
    photographed: Path
    footprint_m: float
    seed: int
    frames: int
    map_share: float = 0.65  # of the raster's width
    night: bool = False
    step_footprints: float = 0.2
    cloud_frames: int = CLOUD_FRAMES
    lake_frames: int = 0  # the first ones

    @property
    def flight_id(self) -> str:
        return f"{self.photographed.stem}-{self.seed}-{self.frames}"

    @property
    def cloud(self) -> range:
        """Frames, numbered from 0."""
        start = (self.frames - self.cloud_frames) // 2
        return range(start, start + self.cloud_frames)

    @property
    def hidden(self) -> set[int]:
        """Frames that show cloud, or water alone."""
        return {*self.cloud, *range(self.lake_frames)}


def track_sets(work: Path, naip: Path | None, quick: bool) -> Iterator[TrackSet]:
    frames = 80 if quick else 160

    def area(seed: int, season: int) -> Path:
        return work / f"wide-{seed}-{season}.tif"

    for seed in (341,) if quick else (341, 342):
        yield TrackSet("generated, own season", area(seed, 0), area(seed, 0), 400.0, seed, frames)
    for seed in (343,) if quick else (343, 344):
        yield TrackSet("generated, other season", area(seed, 0), area(seed, 1), 400.0, seed, frames)
    if naip is not None:
        older, newer = (next(naip.glob(f"*_{year}*.tif")) for year in ("2018", "2020"))
        for seed in (345,) if quick else (345, 346):
            yield TrackSet("NAIP 2018→2020", older, newer, 640.0, seed, frames, 0.7)
        yield TrackSet("NAIP, steps of 0.4 footprints", older, newer, 640.0, 347, 80, 0.7, step_footprints=0.4)
    yield TrackSet("generated, night", area(348, 0), area(348, 0), 400.0, 348, 80, night=True)
    yield TrackSet("wrong map", area(348, 0), area(341, 0), 400.0, 349, 80)
    for seed in range(351, 353 if quick else 359):
        older, newer = (work / f"lake-{seed}-{season}.tif" for season in (0, 1))
        yield TrackSet(
            "generated, starts in a lake", older, newer, 400.0, seed, 40, cloud_frames=0, lake_frames=LAKE_FRAMES
        )


def provided(path: Path) -> Path:
    """A raster, painted where it is a generated area that is not there yet."""
    kind, _, numbers = path.stem.partition("-")
    if kind not in ("wide", "lake"):
        return path
    seed, season = map(int, numbers.split("-"))
    if kind == "lake":
        return written(path, lambda partial: write_lake(partial, seed, season))
    return written(path, lambda partial: write_area(partial, seed, width_m=4600, height_m=3000, season=season))


def write_lake(path: Path, seed: int, season: int) -> None:
    """An area with a lake where a flight of this seed begins; its ripples are the season's."""
    dry = provided(path.parent / f"wide-{seed}-0.tif")
    with tempfile.TemporaryDirectory() as folder:
        begins = simulate_flight(
            dry, Path(folder), flight_id=f"{seed}", frames=LAKE_FRAMES, footprint_m=400.0, seed=seed,
            altitude_m=ALTITUDE_M, step_footprints=0.2,
        ).frames  # fmt: skip
    with rasterio.open(provided(path.parent / f"wide-{seed}-{season}.tif")) as source:
        pixels, profile, interpretation = source.read(), source.profile, source.colorinterp
        middles = np.array([frame.truth.location for frame in begins])
        east, north = rasterio.warp.transform("EPSG:4326", source.crs, middles[:, 0], middles[:, 1])
        rows, columns = rasterio.transform.rowcol(source.transform, east, north)
        metres_px = source.res[0]
    down, across = np.mgrid[: pixels.shape[1], : pixels.shape[2]]
    shore = np.random.default_rng([seed, 5]).uniform(380.0, 420.0, len(rows))
    lake = np.zeros(pixels.shape[1:], bool)
    for row, column, radius_m in zip(rows, columns, shore, strict=True):
        lake |= np.hypot(down - row, across - column) * metres_px < radius_m
    rng = np.random.default_rng([seed, season, 7])
    ripples = noise(rng, lake.shape, 2, 6.0) + noise(rng, lake.shape, 24, 8.0)
    for band, shade in zip(pixels[:3], (38, 58, 66), strict=True):
        band[lake] = np.clip(shade + ripples[lake], 0, 255).astype(np.uint8)
    with rasterio.open(path, "w", **profile) as target:
        target.colorinterp = interpretation
        target.write(pixels)


def noise(rng: np.random.Generator, shape: tuple[int, int], cell_px: int, sd: float) -> np.ndarray:
    """float32 [H, W], smooth below a cell."""
    cells = rng.normal(0, sd, (shape[0] // cell_px + 2, shape[1] // cell_px + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(cells).resize(shape[::-1], Image.Resampling.BICUBIC))


def map_of(work: Path, group: TrackSet) -> Path:
    """The west of a raster."""
    raster = provided(group.map_path)

    def write(path: Path) -> None:
        with rasterio.open(raster) as source:
            window = Window(0, 0, round(group.map_share * source.width), source.height)
            with rasterio.open(path, "w", **source.profile | {"width": window.width}) as target:
                target.colorinterp = source.colorinterp
                target.write(source.read(window=window))

    return written(work / f"west-{raster.stem}.tif", write)


def flown(work: Path, group: TrackSet) -> list[Frame]:
    """A set's frames, photographed where they are not there yet."""
    folder = work / "flights"
    if not (folder / group.flight_id / "labels.json").exists():
        simulate_flight(
            provided(group.photographed), folder, flight_id=group.flight_id, frames=group.frames,
            footprint_m=group.footprint_m, seed=group.seed, altitude_m=ALTITUDE_M,
            step_footprints=group.step_footprints,
        )  # fmt: skip
    return list(open_flight(folder / group.flight_id).frames)


def pixels_of(group: TrackSet, frames: Sequence[Frame], number: int) -> UInt8:
    """A frame as it is followed: cloud in its place, or darkened."""
    pixels = read_image(frames[number].path)
    rng = np.random.default_rng([group.seed, number])
    if number in group.cloud:
        shades = Image.fromarray(rng.uniform(190, 245, (6, 6)).astype(np.uint8)).resize(pixels.shape[1::-1])
        cloud = np.asarray(shades.filter(ImageFilter.GaussianBlur(20)), np.float32)[..., None]
        return np.clip(cloud + rng.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8)
    if group.night:
        return np.clip(0.04 * pixels + rng.normal(2, 4, pixels.shape), 0, 255).astype(np.uint8)
    return np.asarray(pixels)


# --- evidence -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EmbeddedTiles:
    """Every rotated tile of a map: unit vectors float32 [N, D]; (east, north, heading) float64 [N, 3]."""

    vectors: np.ndarray
    places: np.ndarray


def embedded_tiles(work: Path, path: Path, footprint_m: float, plane: LocalPlane, encoder: Backbone) -> EmbeddedTiles:
    source = open_orthophoto(path, footprint_m=footprint_m, overlap=0.5)

    def write(file: Path) -> None:
        vectors, places = [], []
        for tile in source.tiles:
            views = [view for view in source.views(tile, HEADINGS) if not isinstance(view, Failure)]
            vectors.append(encoder.embed(np.stack([view.pixels for view in views])))
            places += [(*plane.metres(tile.center), float(view.angle_deg)) for view in views]
        np.savez(file, vectors=np.concatenate(vectors), places=np.array(places))

    with np.load(written(tiles_file(work, path), write)) as arrays:
        return EmbeddedTiles(arrays["vectors"], arrays["places"])


def tiles_file(work: Path, map_path: Path) -> Path:
    return work / f"tiles-{map_path.stem}.npz"


def evidence_of(
    work: Path, group: TrackSet, frames: Sequence[Frame], plane: LocalPlane, encoder: Backbone
) -> list[Row]:
    """Of each frame its motion from the one before and its hits (east, north, heading, rank from 1)."""

    def write(file: Path) -> None:
        tiles = embedded_tiles(work, map_of(work, group), group.footprint_m, plane, encoder)
        rows: list[Row] = []
        before: OdometryFrame | None = None
        for number in range(len(frames)):
            pixels = pixels_of(group, frames, number)
            started = time.process_time()
            frame = OdometryFrame(pixels.astype(np.float32) @ _LUMA, group.footprint_m)
            motion = None if before is None else displacement(before, frame)
            took_ms = (time.process_time() - started) * 1e3
            scores = tiles.vectors @ encoder.embed(pixels[None])[0]
            order = np.argsort(-scores, kind="stable")[:TOP_K]
            rows.append(
                {
                    "motion": motion and motion_row(motion),
                    "hits": [[*tiles.places[index].tolist(), rank] for rank, index in enumerate(order, 1)],
                    "references": len(scores),
                    "odometry_ms": took_ms,
                }
            )
            before = frame
        file.write_text(json.dumps(rows))

    return list(json.loads(written(work / f"evidence-{group.flight_id}.json", write).read_text()))


def motion_row(motion: Displacement) -> Row:
    return {
        "across_m": motion.across_m, "along_m": motion.along_m, "turn_deg": motion.turn_deg,
        "log_scale": motion.log_scale, "covariance": motion.covariance.tolist(), "quality": motion.quality,
    }  # fmt: skip


def motion_of(row: Row) -> Displacement | None:
    motion = row["motion"]
    return motion and Displacement(**motion | {"covariance": np.array(motion["covariance"])})


# --- flights ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FlownSet:
    """A set with all that its methods need."""

    group: TrackSet
    frames: list[Frame]
    evidence: list[Row]
    source: OrthophotoWindows
    plane: LocalPlane
    truths: np.ndarray  # float64 [F, 2], (east, north) of the frames' middles

    @classmethod
    def of(cls, work: Path, group: TrackSet, encoder: Backbone) -> FlownSet:
        frames = flown(work, group)
        source = OrthophotoWindows(map_of(work, group))
        plane = LocalPlane(geo.box_center(source.bounds))
        truths = [plane.metres(frame_truth(frame, group.footprint_m)[0]) for frame in frames]
        return cls(group, frames, evidence_of(work, group, frames, plane, encoder), source, plane, np.array(truths))

    def coverage(self, number: int) -> float:
        """The share of a frame that lies on the map."""
        state = np.array([*self.truths[number], self.frames[number].truth.yaw_deg, 0.0])
        return share_inside(self.source.bounds, self.plane, state, self.group.footprint_m, 1.0)


class TimedSearch:
    """A `FrameSearch` that keeps the processor's milliseconds."""

    def __init__(self, search: MapFrameSearch) -> None:
        self._search = search
        self.ms = 0.0

    def coverage(self, state: Floats) -> float:
        return self._search.coverage(state)

    def around(self, state: Floats, covariance: Floats) -> Sequence[PoseMeasurement]:
        return self._timed(lambda: self._search.around(state, covariance))

    def everywhere(self) -> Sequence[PoseMeasurement]:
        return self._timed(self._search.everywhere)

    def _timed(self, search: Callable[[], Sequence[PoseMeasurement]]) -> Sequence[PoseMeasurement]:
        started = time.process_time()
        measurements = search()
        self.ms += (time.process_time() - started) * 1e3
        return measurements


def ranked_frames(flight: FlownSet) -> list[RankedFrame]:
    return [
        RankedFrame(
            number, flight.group.footprint_m, (RankedHits(np.array(row["hits"], float), row["references"]),),
            motion_of(row), time_s=float(number),
        )
        for number, row in enumerate(flight.evidence)
    ]  # fmt: skip


def grid_of(work: Path, flight: FlownSet) -> ReferenceGrid:
    with np.load(tiles_file(work, map_of(work, flight.group))) as arrays:
        return reference_grid(arrays["places"][:, :2], flight.group.footprint_m / 2, 360.0 / len(HEADINGS))


def by_ranks(work: Path, flight: FlownSet) -> list[Row]:
    grid, frames = grid_of(work, flight), ranked_frames(flight)
    steps, took_ms = [], []
    started = time.process_time()
    for step in track_ranks(frames, grid, flight.plane):
        took_ms.append((time.process_time() - started) * 1e3)
        steps.append(step)
        started = time.process_time()
    smooth = smoothed_ranks(steps, grid, flight.plane)
    return rows_of(flight, [step.estimate for step in steps], smooth, took_ms)


def by_fixes(work: Path, flight: FlownSet, *, of_places: bool) -> list[Row]:
    """of_places: of the Top-10 and of where the rank filter has the frame; otherwise of the whole map."""
    group, searches = flight.group, []
    camera = open_flight(work / "flights" / group.flight_id).camera
    settings = replace(TRACKER, map_sd_m=max(1.0, flight.source.gsd_m / 2))
    ranked = track_ranks(ranked_frames(flight), grid_of(work, flight), flight.plane) if of_places else None

    def tracked() -> Iterator[TrackedFrame]:
        for number in range(len(flight.frames)):
            places: list[LonLat] | None = None
            if ranked is not None:
                step = next(ranked)
                places = searched_places(step.estimate, step.frame, flight.plane, TOP_K)
            pixels = pixels_of(group, flight.frames, number)
            search = TimedSearch(
                MapFrameSearch(pixels, group.footprint_m, camera, flight.source, flight.plane, places=places)
            )
            searches.append(search)
            motion = motion_of(flight.evidence[number])
            yield TrackedFrame(number, group.footprint_m, search, motion, time_s=float(number))

    steps = list(track(tracked(), flight.plane, settings))
    smooth = smoothed(steps, flight.plane, settings)
    return rows_of(flight, [step.estimate for step in steps], smooth, [search.ms for search in searches])


METHODS: dict[str, Callable[[Path, FlownSet], list[Row]]] = {
    "ranks": by_ranks,
    "fixes": functools.partial(by_fixes, of_places=False),
    "both": functools.partial(by_fixes, of_places=True),
}


def rows_of(
    flight: FlownSet, causal: Sequence[TrackEstimate], smooth: Sequence[TrackEstimate], took_ms: Sequence[float]
) -> list[Row]:
    """One row a frame; errors and normalised squared errors are None where nothing is claimed."""
    group = flight.group
    rows = []
    for number, (estimate, later, ms) in enumerate(zip(causal, smooth, took_ms, strict=True)):
        truth, hit = flight.truths[number], flight.evidence[number]["hits"][0]
        rows.append(
            {
                "set": group.name, "seed": group.seed, "frame": number, "hidden": number in group.hidden,
                "on_map": flight.coverage(number) >= TRACKER.least_coverage and group.name != "wrong map",
                "top1_m": math.dist(hit[:2], truth), "state": estimate.state, "searched": estimate.searched,
                "causal": claim_of(estimate, flight.plane, truth), "smoothed": claim_of(later, flight.plane, truth),
                "ms": ms + flight.evidence[number]["odometry_ms"],
            }
        )  # fmt: skip
    return rows


def claim_of(estimate: TrackEstimate, plane: LocalPlane, truth: np.ndarray) -> Row | None:
    if estimate.ground is None or estimate.ground_covariance_m2 is None:
        return None
    error = np.subtract(plane.metres(estimate.ground), truth)
    nees = float(error @ np.linalg.solve(estimate.ground_covariance_m2.matrix(), error))
    return {"error_m": float(np.hypot(*error)), "nees": nees, "probability": estimate.probability}


def collect(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    work: Path = arguments.work
    (work / "flights").mkdir(parents=True, exist_ok=True)
    encoders = Encoders(load_settings(work), input_px=224)
    encoder = encoders.load(encoders.spec("demo"))
    for group in track_sets(work, arguments.naip, arguments.quick):
        if arguments.only and arguments.only not in group.name:
            continue
        flight = FlownSet.of(work, group, encoder)
        for method, fly in METHODS.items():
            file = work / f"rows-{group.flight_id}-{method}.json"
            if not file.exists() and arguments.method in (None, method):
                rows = fly(work, flight)
                written(file, lambda partial, rows=rows: partial.write_text(json.dumps(rows)))  # type: ignore[misc]
                print(time.strftime("%H:%M:%S"), group.name, group.seed, method, flush=True)


# --- the answers --------------------------------------------------------------------------------


def report(arguments: argparse.Namespace) -> None:
    tables: dict[tuple[str, str], list[list[Row]]] = {}
    for method in METHODS:
        for file in sorted(arguments.work.glob(f"rows-*-{method}.json")):
            rows = json.loads(file.read_text())
            tables.setdefault((rows[0]["set"], method), []).append(rows)
    print("\n".join(report_table(tables)))


def report_table(tables: dict[tuple[str, str], list[list[Row]]]) -> list[str]:
    """Lines of a Markdown table, one a set and method."""
    heads = [
        "set", "method", "flights", "Top-1 m median", "causal m median / p90", "smoothed m median / p90",
        "claimed causal / smoothed % of clear frames", "false causal", "false smoothed",
        "off the map m median / most", "frames to recover", "95 % ellipse holds %", "CPU ms",
    ]  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for (name, method), flights in sorted(tables.items()):
        lines.append("| " + " | ".join([name, method, str(len(flights)), *cells(flights, method)]) + " |")
    return lines


def cells(flights: Sequence[Sequence[Row]], method: str) -> list[str]:
    rows = [row for flight in flights for row in flight]
    clear = [row for row in rows if row["on_map"] and not row["hidden"]]
    false_m = FALSE_RANKS_M if method == "ranks" else FALSE_FIXES_M
    away = [row["causal"]["error_m"] for row in rows if row["causal"] and not row["on_map"] and not row["hidden"]]
    nees = [row["causal"]["nees"] for row in rows if row["causal"]]
    inside = intervals.share(np.array(nees) <= CHI2_95) if nees else None
    tracked = [row["ms"] for row in rows if row["searched"] == "nearby" or method == "ranks"]
    recoveries = [frames for flight in flights if (frames := frames_to_recover(flight)) is not None]
    return [
        quantiles([row["top1_m"] for row in clear]),
        quantiles([row["causal"]["error_m"] for row in clear if row["causal"]]),
        quantiles([row["smoothed"]["error_m"] for row in clear if row["smoothed"]]),
        " / ".join(claimed_share(clear, mode) for mode in ("causal", "smoothed")),
        *(false_share(rows, mode, false_m) for mode in ("causal", "smoothed")),
        f"{np.median(away):.0f} / {max(away):.0f} ({len(away)})" if away else "–",
        ", ".join(map(str, recoveries)) or "–",
        percent(inside) if inside else "–",
        f"{np.median(tracked):.0f}" if tracked else "–",
    ]


def quantiles(values: Sequence[float]) -> str:
    return f"{np.median(values):.3g} / {np.quantile(values, 0.9):.3g}" if values else "–"


def claimed_share(clear: Sequence[Row], mode: str) -> str:
    if not clear:
        return "–"
    share = intervals.share(np.array([float(row[mode] is not None) for row in clear]))
    return f"{percent(share)} ({share.n})"


def percent(share: intervals.IntervalEstimate) -> str:
    """A share and its interval, where there are enough for one."""
    ends = "–" if math.isnan(share.low) else f"{100 * share.low:.0f}, {100 * share.high:.0f}"
    return f"{100 * share.value:.0f} [{ends}]"


def false_share(rows: Sequence[Row], mode: str, false_m: float) -> str:
    """Of what is claimed, anywhere; where nothing is, none of all frames."""
    errors = np.array([row[mode]["error_m"] > false_m for row in rows if row[mode]], float)
    if not len(errors):
        return f"0 of 0 claims in {len(rows)} frames"
    share = intervals.share_upper_bound(errors)
    return f"{int(errors.sum())} of {share.n} (≤ {100 * share.high:.2g} %)"


def frames_to_recover(flight: Sequence[Row]) -> int | None:
    """From the first clear frame after the cloud to the first claim, counted from 0; None where that frame lies off the
    map, or nothing was claimed before the cloud."""
    clouds = [row["frame"] for row in flight if row["hidden"]]
    if not clouds:
        return None
    last = clouds[-1]
    before = any(row["causal"] for row in flight[: clouds[0]])
    after = flight[last + 1 :]
    if not before or not after or not after[0]["on_map"]:
        return None
    return next((number for number, row in enumerate(after) if row["causal"]), len(after))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function in (("collect", collect), ("report", report)):
        command = commands.add_parser(name)
        command.set_defaults(run=function)
        command.add_argument("--work", type=Path, required=True)
        if name == "collect":
            command.add_argument("--naip", type=Path, help="a folder of two years of one place")
            command.add_argument("--quick", action="store_true", help="half as many frames, a flight a set")
            command.add_argument("--only", help="sets whose name holds this")
            command.add_argument("--method", choices=tuple(METHODS), help="only this one")
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
