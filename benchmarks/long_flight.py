"""What a frame costs along a long flight:  PYTHONPATH=. python benchmarks/long_flight.py --work /tmp/long

Photographs a flight (1,800 frames by default: half an hour at 1 Hz) over a generated area that the folder `--work`
keeps, and tracks it on that area by fixes, as `coarseloc track --map` does. Prints JSON: for each tenth of the flight
the median milliseconds of processor time a frame, and the process's resident memory at its end; and both as lines
fitted over the tenths after the first: what 1,000 frames more cost. `--online` without what smoothing keeps.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import coarseloc as cl
from benchmarks import machine
from coarseloc.imagery.flights import open_flight
from coarseloc.simulate.flight import simulate_flight
from coarseloc.simulate.terrain import write_area

TENTHS = 10
SEED, FOOTPRINT_M, SIDE_PX = 411, 400.0, 512


def flight_over_area(work: Path, frames: int) -> tuple[Path, Path]:
    """(an area, a flight over it), made where they are not there."""
    area, flight = work / "area.tif", work / "flights" / f"long-{frames}"
    if not area.exists():
        write_area(work / "part.tif", SEED, width_m=6000, height_m=4000).rename(area)
    if not flight.exists():
        simulate_flight(
            area, work / "part", flight_id=flight.name, frames=frames, footprint_m=FOOTPRINT_M, seed=SEED,
            side_px=SIDE_PX, step_footprints=0.1,
        )  # fmt: skip
        flight.parent.mkdir(exist_ok=True)
        (work / "part" / flight.name).rename(flight)
    return area, flight


def resident_mb() -> float:
    """Of this process now, in megabytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def slope_per_1000(values: Sequence[float], frames: int) -> float:
    """Of a line through the tenths' values after the first."""
    middles = (np.arange(1, TENTHS) + 0.5) * frames / TENTHS
    return float(np.polyfit(middles, values[1:], 1)[0] * 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=1800)
    parser.add_argument("--online", action="store_true", help="keep nothing for smoothing")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    area, flight = flight_over_area(arguments.work, arguments.frames)
    state = arguments.work / "data"
    shutil.rmtree(state, ignore_errors=True)  # a stored track would be read again
    cpu_ms: list[float] = []
    resident: list[float] = []
    errors: list[float] = []
    claims = 0
    started = time.process_time()
    with cl.open(state, device="cpu") as workspace:
        for record in workspace.track(open_flight(flight), map_request=cl.MapRequest(area), online=arguments.online):
            now = time.process_time()
            cpu_ms.append((now - started) * 1e3)
            started = now
            claims += record.track.location is not None
            if record.errors:
                errors.append(record.errors.track_m)
            if len(cpu_ms) * TENTHS % arguments.frames < TENTHS:
                resident.append(resident_mb())
    tenths = [statistics.median(tenth.tolist()) for tenth in np.array_split(np.array(cpu_ms), TENTHS)]
    print(
        json.dumps(
            {
                "frames": len(cpu_ms),
                "online": arguments.online,
                "claimed": claims,
                "median_error_m": round(statistics.median(errors), 3),
                "largest_error_m": round(max(errors), 1),
                "median_ms_by_tenth": [round(ms) for ms in tenths],
                "resident_mb_by_tenth": [round(mb) for mb in resident],
                "ms_per_1000_frames": round(slope_per_1000(tenths, arguments.frames), 1),
                "mb_per_1000_frames": round(slope_per_1000(resident, arguments.frames), 1),
                "load": machine.load(),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
