"""How costs grow:  PYTHONPATH=. python benchmarks/growing_costs.py --work /tmp/costs

With frames (search, export, evaluation), with the places looked at in metres, with the area of a map, with backbones
and with references. Material is generated in the folder `--work` and stays there. Prints a table of processor time at
each size, the least of some rounds, and the exponent p of `cost ~ size^p`, fitted to the logarithms: 1 is proportional,
less has a constant part. docs/scaling.md holds it.
"""

from __future__ import annotations

import argparse
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

import coarseloc as cl
from benchmarks import machine, models
from benchmarks.figures import milliseconds, table
from benchmarks.tiles import Captures, Ingests
from coarseloc.core.types import Flight
from coarseloc.embedding.backbone import load_backbone
from coarseloc.simulate.flight import simulate_flight
from coarseloc.simulate.terrain import write_area
from coarseloc.workspace import Workspace
from search.exact_index import ExactIndex
from search.speed import unit_vectors

FRAMES, PLACES, AREAS_KM2, BACKBONES = (50, 100, 200, 400), (1, 2, 4, 8, 16), (1, 2, 4, 8, 16), (1, 2, 3, 6)
REFERENCES, DIM = (1_000, 10_000, 100_000, 1_000_000), 384
SEED, FOOTPRINT_M, BACKBONE = 433, 400.0, "demo"
FIXED_FRAMES, MAP_FRAMES, TILES, QUERIES = 12, 6, 2, 20
ROUNDS = 3

Costs = Mapping[int, float]
"""{size: seconds of processor time}"""


def exponent(costs: Costs) -> float:
    """p of `cost ~ size^p`, by least squares of the logarithms."""
    sizes, seconds = np.array(list(costs), float), np.array(list(costs.values()))
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def cpu_s(call: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The least processor time of some calls, in seconds."""
    spent = []
    for _ in range(rounds):
        started = time.process_time()
        call()
        spent.append(time.process_time() - started)
    return min(spent)


def area_of(work: Path, km2: float) -> Path:
    """A square map of so many square kilometres, painted where it is not there."""
    path = work / f"area-{km2:g}.tif"
    if not path.exists():
        side_m = 1000 * math.sqrt(km2)
        write_area(work / "part.tif", SEED, width_m=side_m, height_m=side_m).rename(path)
    return path


def flight_over(work: Path, area: Path, frames: int) -> Flight:
    """A flight over a map, photographed where it is not there."""
    name = f"over-{area.stem}-{frames}"
    if not (work / name / "labels.json").exists():
        simulate_flight(
            area, work, flight_id=name, frames=frames, footprint_m=FOOTPRINT_M, seed=SEED, side_px=512,
            step_footprints=0.1,
        )  # fmt: skip
    return cl.flight(work / name)


def part_of(flight: Flight, frames: int, name: str) -> Flight:
    """The first frames of a flight, as a flight of its own."""
    return replace(flight, frames=flight.frames[:frames], flight_id=name)


def frame_costs(workspace: Workspace, flight: Flight, work: Path) -> Iterator[tuple[str, Costs]]:
    """A search of a flight's frames, and what is made of it, by the number of frames."""

    def search(frames: int) -> None:
        workspace.search(part_of(flight, frames, f"frames-{frames}"), verify=False)

    def export(frames: int) -> None:
        workspace.export(f"frames-{frames}", work / "exported" / str(frames))

    yield "search of a flight, frames", {n: cpu_s(partial(search, n), 1) for n in FRAMES}
    yield "evaluation of its run, frames", {n: cpu_s(partial(workspace.evaluate, f"frames-{n}")) for n in FRAMES}
    yield "export of its run, frames", {n: cpu_s(partial(export, n)) for n in FRAMES}


def place_costs(workspace: Workspace, flight: Flight) -> Costs:
    """A frame's fix, by the number of places that are looked at."""

    def search(places: int) -> None:
        part = part_of(flight, FIXED_FRAMES, f"places-{places}")
        workspace.search(part, verify=places > 0, verified_places=max(1, places))

    bare_s = cpu_s(partial(search, 0), 1)
    return {places: (cpu_s(partial(search, places), 1) - bare_s) / FIXED_FRAMES for places in PLACES}


def area_costs(workspace: Workspace, work: Path) -> Costs:
    """A frame on a whole map, by its square kilometres."""
    costs = {}
    for km2 in AREAS_KM2:
        area = area_of(work, km2)
        flight = flight_over(work, area, MAP_FRAMES)
        costs[km2] = cpu_s(partial(workspace.localize, flight, map=area)) / MAP_FRAMES
    return costs


def backbone_costs(work: Path) -> Costs:
    """A tile's ingest at eight headings, by the number of small backbones."""
    folder = work / "backbones"
    shutil.rmtree(folder, ignore_errors=True)
    weights = [models.small_backbone(f"small-{i}", folder / f"weights-{i}", seed=i) for i in range(max(BACKBONES))]
    backbones = [load_backbone(located, device="cpu") for located in weights]
    captures = Captures(folder / "captures", TILES, 1024)
    costs = {}
    for count in BACKBONES:
        (folder / str(count)).mkdir()
        costs[count] = cpu_s(Ingests(folder / str(count), captures, backbones[:count]).one_pass) / TILES
    return costs


def reference_costs() -> Costs:
    """An exact query, by the number of references."""
    costs = {}
    for count in REFERENCES:
        index, queries = ExactIndex.of(unit_vectors(count, DIM)), unit_vectors(QUERIES, DIM, seed=1)

        def ask(index: ExactIndex = index, queries: np.ndarray = queries) -> None:
            for query in queries:
                index.search(query[None], 10)

        ask()
        costs[count] = cpu_s(ask) / QUERIES
    return costs


def all_costs(work: Path) -> Iterator[tuple[str, Costs]]:
    area = area_of(work, max(AREAS_KM2))
    state = work / "data"
    shutil.rmtree(state, ignore_errors=True)
    with cl.open(state, device="cpu") as workspace:
        workspace.ingest(cl.orthophoto(area, footprint_m=FOOTPRINT_M), [BACKBONE])
        flight = flight_over(work, area, max(FRAMES))
        yield from frame_costs(workspace, flight, work)
        yield "fix of a frame, places looked at", place_costs(workspace, flight)
        yield "fix on a whole map, km²", area_costs(workspace, work)
    yield "ingest of a tile, small backbones", backbone_costs(work)
    yield f"exact query of {DIM} values, references", reference_costs()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, costs in all_costs(work):
        at_sizes = ", ".join(f"{size:,}: {milliseconds(seconds)}" for size, seconds in costs.items())
        rows.append((name, at_sizes, f"{exponent(costs):.2f}"))
        print(*rows[-1], sep="  ", flush=True)
    print(f"load {machine.load()}", *table(("cost, by", "processor ms", "exponent"), rows, right=(2,)), sep="\n")


if __name__ == "__main__":
    main()
