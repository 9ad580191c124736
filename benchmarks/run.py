"""What `make bench` measures, part by part."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks import machine, queries, tiles
from benchmarks.figures import Figure, Results, figures_table, plain_facts
from benchmarks.rounds import contest
from benchmarks.size import Size
from coarseloc.core.errors import InputError

Part = Callable[[Path], Results]
Say = Callable[[str], object]


def parts(size: Size, say: Say) -> dict[str, Part]:
    """What is measured, in order, by name. Each is given an empty folder that is deleted after it."""
    found: dict[str, Part] = {"ceilings": lambda _: ceilings(size), "views": lambda _: tiles.views(size)}
    for name in size.backbones:
        for side in size.source_px:
            if (name, side) in tiles.TARGETS or len(size.source_px) == 1:
                found[f"ingest {name} {side}"] = partial(tiles.ingest, name, side, size)
    found["six backbones"] = lambda work: tiles.six_backbones(size, work)
    found["one frame"] = lambda work: queries.one_frame(size, work)
    found["exact search"] = lambda _: queries.growth(size, say)
    found["opening"] = lambda work: queries.opening(size, work)
    found["filtered"] = lambda work: queries.filtered(size, work)
    return found


def ceilings(size: Size) -> Results:
    """What this machine can do at all: everything else is to be seen beside it."""
    flop = contest("large float32 product", "FLOP", machine.matmul_ways(size.ceiling_side), size.rounds)
    read = contest("large read", "byte", machine.read_ways(size.ceiling_mib), size.rounds)
    found = {"matmul_gflops": machine.ceiling(flop) / 1e9, "read_gb_per_s": machine.ceiling(read) / 1e9}
    return Results([flop, read], more={"ceilings": {name: round(value, 1) for name, value in found.items()}})


def run(
    size: Size,
    only: str = "",
    scratch: Path | None = None,
    say: Say = print,
    keep: Callable[[Results], object] = lambda _: None,
) -> Results:
    """Measure every part whose name holds `only`; what goes wrong in one of them is shown, and the rest go on.

    `keep` is called after each part with all results so far. Raises InputError where no part has such a name.
    """
    chosen = {name: part for name, part in parts(size, say).items() if only in name}
    if not chosen:
        raise InputError(f"no part of the benchmark is called {only!r}: it has {', '.join(parts(size, say))}")
    results = Results(more={"machine": machine.facts(), "load before": machine.load(), "size": asdict(size)})
    started = time.monotonic()
    for name, part in chosen.items():
        say(f"{time.monotonic() - started:4.0f} s  {name}")
        with tempfile.TemporaryDirectory(dir=scratch, prefix="coarseloc-bench-") as work:
            try:
                found = part(Path(work))
            except RuntimeError as error:
                found = Results(figures=[Figure(name, "", None, "x", note=f"failed: {error}")])
        for figure in found.figures:
            say("  " + " ".join(figures_table([figure])[-1].strip("| ").split("|")))
        if peaks := found.more.get("ceilings"):
            say("  " + plain_facts(peaks))
        results.take(found)
        results.more |= {"load after": machine.load(), "took_s": round(time.monotonic() - started)}
        keep(results)
    return results
