"""What a tracked frame costs:  PYTHONPATH=. python benchmarks/tracked_frame.py --work /tmp/tracked [--naip DIR]

Photographs a flight over a generated area in another season (and one over NAIP's newer year, with `--naip`) that the
folder `--work` keeps, and follows it about expected places some metres and half a degree off, as a track by fixes does:
on one thread, each frame several times. Prints a table of milliseconds of processor time, the median over frames of the
least of each one's times, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from benchmarks import machine
from coarseloc.core import geo
from coarseloc.core.types import Flight
from coarseloc.imagery.decode import read_image
from coarseloc.imagery.flights import open_flight
from coarseloc.imagery.windows import OrthophotoWindows
from coarseloc.localize.registration import blocks, registrar
from coarseloc.localize.tracking.kalman import EAST, HEADING, NORTH
from coarseloc.localize.tracking.map_search import MapFrameSearch
from coarseloc.localize.tracking.odometry import OdometryFrame, displacement, luma_of_pixels
from coarseloc.localize.tracking.tracker import LocalPlane
from coarseloc.simulate.flight import simulate_flight
from coarseloc.simulate.terrain import write_area

SEED, FRAMES, REPEATS = 431, 20, 5
STAGES = ("decoding", "odometry", "window and coarse places", "blocks: warp, correlate", "blocks: search, fit")


class StageClock:
    """Processor time by stage; a stage within another counts for itself alone."""

    def __init__(self) -> None:
        self.spent_ms: defaultdict[str, float] = defaultdict(float)
        self._stack: list[float] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started, within = time.thread_time(), len(self._stack)
        self._stack.append(0.0)
        yield
        took_s = time.thread_time() - started
        inner_s = self._stack.pop()
        self.spent_ms[name] += 1e3 * (took_s - inner_s)
        if within:
            self._stack[-1] += took_s

    def timed(self, name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            with self.stage(name):
                return function(*arguments, **options)

        return call


def follow(map_path: Path, flight: Flight, footprint_m: float) -> list[dict[str, float]]:
    """Each frame's milliseconds by stage."""
    source = OrthophotoWindows(map_path)
    plane = LocalPlane(geo.box_center(source.bounds))
    rows: list[dict[str, float]] = []
    for repeat in range(REPEATS):
        rng, before = np.random.default_rng(0), None
        for number, frame in enumerate(flight.frames[:FRAMES]):
            clock = StageClock()
            assert frame.truth.location is not None  # noqa: S101 - it is simulated
            state, (east, north) = np.zeros(4), plane.metres(frame.truth.location)
            state[EAST], state[NORTH] = east + rng.normal(0, 4), north + rng.normal(0, 4)
            state[HEADING] = ((frame.truth.yaw_deg or 0.0) + rng.normal(0, 0.5)) % 360.0
            with ExitStack() as patched:
                for name in ("search", "fit", "evaluate"):
                    timed = clock.timed(STAGES[4], getattr(blocks, name))
                    patched.enter_context(mock.patch.object(blocks, name, timed))
                timed = clock.timed(STAGES[3], registrar.refine)
                patched.enter_context(mock.patch.object(registrar, "refine", timed))
                with clock.stage(STAGES[0]):
                    pixels = read_image(frame.path)
                with clock.stage(STAGES[1]):
                    odometry = OdometryFrame(luma_of_pixels(pixels), footprint_m)
                    if before is not None:
                        displacement(before, odometry)
                before = odometry
                with clock.stage(STAGES[2]):
                    search = MapFrameSearch(pixels, footprint_m, flight.camera, source, plane)
                    search.around(state, np.diag([16.0, 16.0, 0.25, 1e-4]))
            if repeat == 0:
                rows.append(dict(clock.spent_ms))
            else:
                rows[number] = {stage: min(ms, clock.spent_ms[stage]) for stage, ms in rows[number].items()}
    return rows[1:]  # the first one has no odometry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--naip", type=Path, help="holds a raster of 2018 and one of 2020")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    areas = [work / f"area-{season}.tif" for season in (0, 1)]
    for season, area in enumerate(areas):
        if not area.exists():
            write_area(area, SEED, width_m=2600, height_m=2000, season=season)
    sets = {"generated": (areas[0], areas[1], 400.0)}
    if arguments.naip:
        older, newer = (next(arguments.naip.glob(f"*_{year}*.tif")) for year in ("2018", "2020"))
        sets["NAIP"] = (older, newer, 640.0)
    columns = {}
    for name, (map_path, photographed, footprint_m) in sets.items():
        if not (work / name / "labels.json").exists():
            simulate_flight(
                photographed, work, flight_id=name, frames=FRAMES, footprint_m=footprint_m, seed=SEED,
                step_footprints=0.2,
            )  # fmt: skip
        rows = follow(map_path, open_flight(work / name), footprint_m)
        columns[name] = {stage: statistics.median(row[stage] for row in rows) for stage in STAGES}
    print(f"load {machine.load()}")
    print("| ms of one core | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for stage in STAGES:
        print(f"| {stage} | " + " | ".join(f"{column[stage]:.0f}" for column in columns.values()) + " |")
    print("| all | " + " | ".join(f"**{sum(column.values()):.0f}**" for column in columns.values()) + " |")


if __name__ == "__main__":
    main()
