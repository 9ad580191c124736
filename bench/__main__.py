"""`make bench`: measure everything, write bench/results/<date>.json and docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from bench import machine, queries, report, tiles
from bench.figures import Figure, Results, figures_table
from bench.rounds import contest
from bench.size import FULL, QUICK, Size

ROOT = Path(__file__).parents[1]

Part = Callable[[Path], Results]


def parts(size: Size) -> dict[str, Part]:
    """What is measured, in order, by name. Each is given an empty folder that is deleted after it."""
    found: dict[str, Part] = {"ceilings": lambda _: ceilings(size), "views": lambda _: tiles.views(size)}
    for name in size.backbones:
        for side in size.source_px:
            if (name, side) in tiles.TARGETS or len(size.source_px) == 1:
                found[f"ingest {name} {side}"] = partial(tiles.ingest, name, side, size)
    found["six backbones"] = lambda work: tiles.six_backbones(size, work)
    found["one frame"] = lambda work: queries.one_frame(size, work)
    found["exact search"] = lambda _: queries.growth(size)
    found["opening"] = lambda work: queries.opening(size, work)
    found["filtered"] = lambda work: queries.filtered(size, work)
    return found


def ceilings(size: Size) -> Results:
    """What this machine can do at all: everything else is to be seen beside it."""
    flop = contest("large float32 product", "FLOP", machine.matmul_ways(size.ceiling_side), size.rounds)
    read = contest("large read", "byte", machine.read_ways(size.ceiling_mib), size.rounds)
    found = {"matmul_gflops": machine.ceiling(flop) / 1e9, "read_gb_per_s": machine.ceiling(read) / 1e9}
    print("  " + ", ".join(f"{name} {value:.1f}" for name, value in found.items()))
    return Results([flop, read], more={"ceilings": {name: round(value, 1) for name, value in found.items()}})


def run(
    size: Size, only: str = "", scratch: Path | None = None, keep: Callable[[Results], object] = lambda _: None
) -> Results:
    """Measure every part whose name holds `only`; what goes wrong in one of them is shown, and the rest go on.

    `keep` is called after each part with all results so far.
    """
    results = Results(more={"machine": machine.facts(), "load before": machine.load(), "size": asdict(size)})
    started = time.monotonic()
    for name, part in parts(size).items():
        if only not in name:
            continue
        print(f"{time.monotonic() - started:4.0f} s  {name}", flush=True)
        with tempfile.TemporaryDirectory(dir=scratch, prefix="coarseloc-bench-") as work:
            try:
                found = part(Path(work))
            except RuntimeError as error:
                found = Results(figures=[Figure(name, "", None, "x", note=f"failed: {error}")])
        for figure in found.figures:
            print("  " + " ".join(figures_table([figure])[-1].strip("| ").split("|")), flush=True)
        results.take(found)
        results.more |= {"load after": machine.load(), "took_s": round(time.monotonic() - started)}
        keep(results)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute; writes no documentation")
    parser.add_argument("--only", default="", metavar="TEXT", help="parts whose name holds this; likewise")
    parser.add_argument("--scratch", type=Path, help="where files are made meanwhile: 2 GB")
    options = parser.parse_args()
    if machine.load() > 0.5 * machine.cores():
        print(f"this machine is busy (load {machine.load()}): ratios hold roughly, absolute figures do not")
    whole = not (options.quick or options.only)

    def keep(results: Results) -> Path:
        path = report.write_json(results, ROOT / "bench" / "results", "" if whole else "quick")
        if whole:
            report.write_markdown(results, ROOT / "docs" / "benchmarks.md", path)
        return path

    results = run(QUICK if options.quick else FULL, options.only, options.scratch, keep)
    print("\n".join(["", *figures_table(results.figures), "", f"raw: {os.path.relpath(keep(results))}"]))


if __name__ == "__main__":
    main()
