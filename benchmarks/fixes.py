"""What a fix costs:  PYTHONPATH=. python -m benchmarks.fixes --work /tmp/fixes [--naip DIR]

Photographs a flight over a generated area in another season (and one over NAIP's newer year, with `--naip`) that the
folder `--work` keeps, and finds its frames in three ways: among ten places, on the whole map, and about expected places
some metres and half a degree off, as a track by fixes does. On one thread, each frame several times. Prints tables of
milliseconds of processor time by stage, the median over frames of the least of each one's times, which other work on
the machine disturbs least.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.figures import Figure, Results, stages_table
from benchmarks.size import Size
from coarseloc.core import geo
from coarseloc.core.camera import Camera
from coarseloc.core.types import Flight, Frame, LonLat
from coarseloc.imagery.decode import read_image
from coarseloc.imagery.flights import open_flight
from coarseloc.imagery.windows import OrthophotoWindows
from coarseloc.localize.registration import blocks, registrar
from coarseloc.localize.registration.coarse import candidates_around
from coarseloc.localize.registration.frame_fix import SearchedMap, fix_frame
from coarseloc.localize.registration.geometry import FrameGeometry
from coarseloc.localize.registration.settings import RegistrationSettings
from coarseloc.localize.tracking.kalman import EAST, HEADING, NORTH
from coarseloc.localize.tracking.map_search import MapFrameSearch
from coarseloc.localize.tracking.odometry import OdometryFrame, displacement, luma_of_pixels
from coarseloc.localize.tracking.tracker import LocalPlane
from coarseloc.simulate.flight import simulate_flight
from coarseloc.simulate.terrain import write_area
from search.map_localization import MapLocalizer

SEED, FOOTPRINT_M, NAIP_FOOTPRINT_M, PLACES = 431, 400.0, 640.0, 10
TEN_PLACES, WHOLE_MAP, TRACKED = "ten places", "whole map", "tracked"
GOALS_MS = {TEN_PLACES: 200.0, WHOLE_MAP: 500.0, TRACKED: 150.0}
DECODING, ODOMETRY, REST = "decoding", "odometry", "the rest"
STAGES: Mapping[str, Sequence[tuple[Any, str]]] = {  # {stage: the functions that are it}
    "windows of the map": ((OrthophotoWindows, "window"),),
    "fields of the frame": ((registrar, "coarse_fields"),),
    "coarse places": ((registrar, "coarse_places"),),
    "blocks: warp, correlate": ((registrar, "refine"),),
    "blocks: search, fit": ((blocks, "search"), (blocks, "fit"), (blocks, "evaluate")),
}

Milliseconds = dict[str, float]
"""{stage: milliseconds of processor time}"""


class StageClock:
    """Processor time of this thread by stage; a stage within another counts for itself alone."""

    def __init__(self) -> None:
        self.spent_ms: defaultdict[str, float] = defaultdict(float)
        self._inner_s: list[float] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started, within = time.thread_time(), len(self._inner_s)
        self._inner_s.append(0.0)
        yield
        took_s = time.thread_time() - started
        self.spent_ms[name] += 1e3 * (took_s - self._inner_s.pop())
        if within:
            self._inner_s[-1] += took_s

    def timed(self, name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            with self.stage(name):
                return function(*arguments, **options)

        return call

    @contextmanager
    def over_registration(self) -> Iterator[None]:
        """Its stages take time meanwhile."""
        with ExitStack() as patched:
            for stage, functions in STAGES.items():
                for owner, name in functions:
                    patched.enter_context(mock.patch.object(owner, name, self.timed(stage, getattr(owner, name))))
            yield


class FramesOnMap:
    """A flight's frames and the map that they are looked for on."""

    def __init__(self, map_path: Path, flight: Flight, footprint_m: float) -> None:
        self.source = OrthophotoWindows(map_path)
        self.flight, self.footprint_m = flight, footprint_m
        self._plane = LocalPlane(geo.box_center(self.source.bounds))
        self._localizer = MapLocalizer(self.source, "map", Camera(), reference_footprint_m=footprint_m)
        self._localizer.localize(flight.frames[0])  # reads the map's windows, which a flight's frames share
        self._before: OdometryFrame | None = None

    def ten_places(self, clock: StageClock, frame: Frame) -> None:
        """Among the place that is right, as far off as a tile's centre is, and nine that are not."""
        rng = np.random.default_rng(frame.index)
        truth, bounds = _truth(frame), self.source.bounds
        east, north = rng.uniform(-0.25, 0.25, 2) * self.footprint_m
        others = rng.uniform(bounds[:2], bounds[2:], (PLACES - 1, 2))
        centers = [geo.offset(truth, east, north), *(LonLat(lon, lat) for lon, lat in others.tolist())]

        def candidates(geometry: FrameGeometry, settings: RegistrationSettings) -> Any:
            reach_m = settings.reach_footprints * geometry.footprint_m
            return candidates_around(self.source, geometry, centers, reach_m, settings)

        with clock.stage(DECODING):
            pixels = read_image(frame.path)
        searched = [SearchedMap(self.source, 0.0, candidates)]
        fix_frame(pixels, self.footprint_m, Camera(), frame.truth, searched, whole_map=False)

    def whole_map(self, clock: StageClock, frame: Frame) -> None:
        self._localizer.localize(frame)

    def tracked(self, clock: StageClock, frame: Frame) -> None:
        """About an expected place, with the displacement since the frame before."""
        rng = np.random.default_rng(frame.index)
        state, (east, north) = np.zeros(4), self._plane.metres(_truth(frame))
        state[EAST], state[NORTH] = east + rng.normal(0, 4), north + rng.normal(0, 4)
        state[HEADING] = ((frame.truth.yaw_deg or 0.0) + rng.normal(0, 0.5)) % 360.0
        with clock.stage(DECODING):
            pixels = read_image(frame.path)
        with clock.stage(ODOMETRY):
            odometry = OdometryFrame(luma_of_pixels(pixels), self.footprint_m)
            if self._before is not None:
                displacement(self._before, odometry)
        self._before = odometry
        search = MapFrameSearch(pixels, self.footprint_m, self.flight.camera, self.source, self._plane)
        search.around(state, np.diag([16.0, 16.0, 0.25, 1e-4]))


def measure(frames: FramesOnMap, repeats: int) -> dict[str, Milliseconds]:
    """{way: milliseconds by stage}, medians over the flight's frames but the first, which has no odometry."""
    ways = {TEN_PLACES: frames.ten_places, WHOLE_MAP: frames.whole_map, TRACKED: frames.tracked}
    spent: dict[str, Milliseconds] = {}
    for way, find in ways.items():
        least: dict[int, Milliseconds] = {}
        for _ in range(repeats):
            for frame in frames.flight.frames:
                clock = StageClock()
                with clock.over_registration(), clock.stage(REST):
                    find(clock, frame)
                before = least.get(frame.index, clock.spent_ms)
                least[frame.index] = {stage: min(ms, before[stage]) for stage, ms in clock.spent_ms.items()}
        rows = list(least.values())[1:]
        stages = (DECODING, ODOMETRY, *STAGES, REST)
        spent[way] = {stage: statistics.median(row.get(stage, 0.0) for row in rows) for stage in stages}
    return spent


def generated(work: Path, km2: float, frames: int) -> FramesOnMap:
    """A map of so many square kilometres, and a flight over it in another season."""
    side_m = 1000 * math.sqrt(km2)
    map_path, photographed = (work / f"area-{km2:g}-{season}.tif" for season in (0, 1))
    for season, path in enumerate((map_path, photographed)):
        if not path.exists():
            write_area(path, SEED, width_m=side_m, height_m=side_m, season=season)
    name = f"generated-{km2:g}-{frames}"
    return FramesOnMap(map_path, _flight(work, name, photographed, frames, FOOTPRINT_M), FOOTPRINT_M)


def naip(work: Path, folder: Path, frames: int) -> FramesOnMap:
    """The raster of 2018, and a flight over that of 2020."""
    older, newer = (next(folder.glob(f"*_{year}*.tif")) for year in ("2018", "2020"))
    return FramesOnMap(older, _flight(work, f"naip-{frames}", newer, frames, NAIP_FOOTPRINT_M), NAIP_FOOTPRINT_M)


def _flight(work: Path, name: str, photographed: Path, frames: int, footprint_m: float) -> Flight:
    if not (work / name / "labels.json").exists():
        simulate_flight(
            photographed, work, flight_id=name, frames=frames, footprint_m=footprint_m, seed=SEED, step_footprints=0.2
        )
    return open_flight(work / name)


def _truth(frame: Frame) -> LonLat:
    if frame.truth.location is None:
        raise RuntimeError(f"{frame.path} has no truth: the flight is not a simulated one")
    return frame.truth.location


def part(size: Size, work: Path) -> Results:
    """The figures of a generated flight; a process of its own, so that nothing uses a second thread."""
    command = [sys.executable, "-m", "benchmarks.fixes", "--work", str(work), "--json"]
    command += ["--km2", f"{size.map_km2}", "--frames", f"{size.fixed_frames}", "--repeats", f"{size.rounds}"]
    try:
        done = subprocess.run(
            command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True, check=True
        )
    except subprocess.CalledProcessError as error:
        raise RuntimeError(str(error)) from None
    spent = json.loads(done.stdout)
    what = {WHOLE_MAP: f"a fix on the whole map of {size.map_km2:g} km²", TRACKED: "a tracked frame"}
    figures = [
        Figure(
            f"{what.get(way, f'a fix among {way}')}, one core", "", sum(spent[way].values()), "ms", goal, at_most=True
        )
        for way, goal in GOALS_MS.items()
    ]
    return Results([], figures, {"fixes": spent})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--naip", type=Path, help="holds a raster of 2018 and one of 2020")
    parser.add_argument("--km2", type=float, default=17.0, help="the generated map's area")
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="the generated flight's milliseconds alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    sets = {"generated": partial(generated, work, arguments.km2, arguments.frames)}
    if arguments.naip:
        sets["NAIP"] = partial(naip, work, arguments.naip, arguments.frames)
    for name, frames in sets.items():
        spent = measure(frames(), arguments.repeats)
        print(json.dumps(spent) if arguments.json else "\n".join(["", name, "", *stages_table(spent)]))


if __name__ == "__main__":
    main()
