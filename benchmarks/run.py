"""The parts of `make bench`, and the run over them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks import commands, fixes, machine, queries, tiles
from benchmarks.figures import Figure, Results, figures_table, plain_facts
from benchmarks.rounds import contest
from benchmarks.size import Size
from coarseloc.core.errors import InputError

Part = Callable[[Path], Results]
Say = Callable[[str], object]


def parts(size: Size, say: Say) -> dict[str, Part]:
    """List the parts by name, in order. Each is called with an empty folder that is deleted after it."""
    parts_by_name: dict[str, Part] = {"ceilings": lambda _: ceilings(size), "views": lambda _: tiles.views(size)}
    for name in size.backbones:
        for side in size.source_px:
            if (name, side) in tiles.INGESTED or len(size.source_px) == 1:
                parts_by_name[f"ingest {name} {side}"] = partial(tiles.ingest, name, side, size)
    parts_by_name["six backbones"] = lambda work: tiles.six_backbones(size, work)
    parts_by_name["large input"] = lambda work: tiles.large_input(size, work)
    parts_by_name["one frame"] = lambda work: queries.one_frame(size, work)
    parts_by_name["exact search"] = lambda _: queries.growth(size, say)
    parts_by_name["opening"] = lambda work: queries.opening(size, work)
    parts_by_name["filtered"] = lambda work: queries.filtered(size, work)
    if size.fixed_frames:
        parts_by_name["fixes"] = lambda work: fixes.part(size, work)
        parts_by_name["commands"] = lambda work: commands.commands(size, work)
    return parts_by_name


def ceilings(size: Size) -> Results:
    """Measure the machine's own limits, to compare all other figures with."""
    flop = contest("large float32 product", "FLOP", machine.matmul_ways(size.ceiling_side), size.rounds)
    read = contest("large read", "byte", machine.read_ways(size.ceiling_mib), size.rounds)
    rates = {"matmul_gflops": machine.ceiling(flop) / 1e9, "read_gb_per_s": machine.ceiling(read) / 1e9}
    return Results([flop, read], records={"ceilings": {name: round(value, 1) for name, value in rates.items()}})


def run(
    size: Size,
    part_name: str = "",
    scratch: Path | None = None,
    say: Say = print,
    keep: Callable[[Results], object] = lambda _: None,
) -> Results:
    """Measure every part whose name contains `part_name`; a part that fails is shown, and the rest go on.

    Calls `keep` after each part with all results so far. Raises InputError where no part has such a name.
    """
    chosen = {name: part for name, part in parts(size, say).items() if part_name in name}
    if not chosen:
        raise InputError(f"no part of the benchmark is called {part_name!r}: it has {', '.join(parts(size, say))}")
    results = Results(records={"machine": machine.facts(), "load before": machine.load(), "size": asdict(size)})
    started = time.monotonic()
    for name, part in chosen.items():
        say(f"{time.monotonic() - started:4.0f} s  {name}")
        with tempfile.TemporaryDirectory(dir=scratch, prefix="coarseloc-bench-") as work:
            try:
                part_results = part(Path(work))
            except RuntimeError as error:
                part_results = Results(figures=[Figure(name, "", None, "x", note=f"failed: {error}")])
        for figure in part_results.figures:
            say("  " + " ".join(figures_table([figure])[-1].strip("| ").split("|")))
        if peaks := part_results.records.get("ceilings"):
            say("  " + plain_facts(peaks))
        results.take(part_results)
        results.records |= {"load after": machine.load(), "took_s": round(time.monotonic() - started)}
        keep(results)
    return results
