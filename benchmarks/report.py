"""What a benchmark leaves behind: the raw numbers as JSON, and docs/benchmarks.md."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Results, contests_table, figures_table, plain_facts, stages_table, table
from benchmarks.size import FULL
from coarseloc.core import ids

_HEAD = """\
# Benchmarks

Written by `make bench`; do not edit. One process, {rounds} interleaved rounds; a ratio is one of medians within its
contest, and beside it that of the minima, where each way was disturbed the least. On a quiet machine the two agree;
on a busy one neither says much, least of all about ways whose threads wait for each other. Absolute figures wander
by a quarter from run to run. Targets are for 2 cores.
Weights are random: the architectures are the true ones, and time does not depend on what they have learnt.
"""
_BUSY = """\
**Other work ran on this machine meanwhile, so nothing here counts as reached or missed: verdicts are in brackets.**
Ways on two threads that wait for each other at every layer (transformers, timm, torch, FAISS as it comes) lose most to
it, and ratios against them come out far too high. Run `make bench` again on a quiet machine.
"""
_GPU_NONE = """\
Not measured: no GPU could be had when this was written. `PYTHONPATH=. python benchmarks/gpu.py` measures it in
one call, and has run on its CPU path.
"""


def facts(results: Results) -> dict[str, Any]:
    """Everything measured, each round's value, as plain data."""
    return {
        **results.records,
        "figures": [_figure_facts(figure) for figure in results.figures],
        "contests": [asdict(contest) for contest in results.contests],
    }


def _figure_facts(figure: Figure) -> dict[str, Any]:
    values = asdict(figure)
    return {"what": values.pop("measure"), **values, "reached": figure.reached}


def write_json(results: Results, folder: Path, name: str = "") -> Path:
    """The facts as `<date>-<cpu>-<cores>.json`; or under another name."""
    machine = results.records["machine"]
    stem = name or f"{machine['date'][:10]}-{ids.slug(machine['cpu'].partition('(')[0])}-{machine['cores']}-cores"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.json"
    path.write_text(json.dumps(facts(results), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def write_markdown(results: Results, path: Path, raw: Path) -> None:
    """The figures, then every way that was timed, then how an ingest spends its time, then the GPU's table."""
    gpu = sorted(raw.parent.glob("gpu-*.md"))
    busy = was_busy(results.records)
    lines = [
        _HEAD.format(rounds=results.records["size"]["rounds"]),
        *table(("", ""), machine_rows(results.records)),
        "",
        "## Figures",
        "",
        *([_BUSY] if busy else []),
        *figures_table(results.figures, busy),
        "",
        "## Side by side",
        "",
        *contests_table([c for c in results.contests if c.unit not in ("FLOP", "byte")]),
        "",
        "## What an ingest spends",
        "",
        "Seconds of one ingest. Reading runs in threads beside embedding, ahead of it: the stages overlap.",
        "A stage that never waits decides the pace.",
        "",
        *_stages(results.records),
        "",
        *_fixes(results.records),
        "## On a GPU",
        "",
        gpu[-1].read_text(encoding="utf-8") if gpu else _GPU_NONE,
        f"Raw numbers: [{raw.name}]({os.path.relpath(raw, path.parent)}).",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def was_busy(records: dict[str, Any]) -> bool:
    """Whether other work used the cores too: the benchmark alone makes a load of about one a core."""
    cores = records["machine"]["cores"]
    return bool(records["load before"] > 0.5 * cores or records["load after"] > cores + 1)


def machine_rows(records: dict[str, Any]) -> list[tuple[str, str]]:
    facts = records["machine"]
    rows = [
        ("date", f"{facts['date']}, commit {facts['commit']}"),
        ("machine", f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB; {facts['system']}"),
        ("instructions", facts.get("instructions", "unknown")),
        ("threads", facts.get("threads", "unknown")),
        ("versions", f"Python {facts['python']}, " + plain_facts(facts["versions"])),
        (
            "load",
            f"{records['load before']} before, {records['load after']} after; the benchmark's own share is up to 2",
        ),
        ("size", _size(records["size"])),
        ("took", f"{records['took_s']} s"),
    ]
    if "ceilings" in records:
        ceilings = records["ceilings"]
        rows.append(("ceilings", f"{ceilings['matmul_gflops']} GFLOP/s float32, {ceilings['read_gb_per_s']} GB/s read"))
    return rows


def _size(size: dict[str, Any]) -> str:
    """The settings that differ from the full benchmark's."""
    differences = {name: value for name, value in size.items() if value != asdict(FULL)[name]}
    return "full" if not differences else "less than the full one: " + plain_facts(differences)


def _stages(records: dict[str, Any]) -> list[str]:
    """One row an ingest; the embedding of several backbones is summed."""
    rows = []
    for name, stages in records.items():
        if isinstance(stages, dict) and "wall clock" in stages:
            embed = sum(seconds for stage, seconds in stages.items() if stage.startswith("embed "))
            read, write, wall = (stages[key] for key in ("read (in threads)", "write", "wall clock"))
            seconds = [f"{value:.2f}" for value in (read, embed, write, wall)]
            waits = [_share_waiting(busy, wall) for busy in (read / stages["readers"], embed, write)]
            rows.append((name, *seconds, *waits, f"{stages['cores busy']}"))
    seconds_of = ("read, in threads", "embed", "write", "wall clock")
    header = ("ingest", *seconds_of, "reading waits", "embedding waits", "writing waits", "cores busy")
    return table(header, rows, right=range(1, 9))


def _fixes(records: dict[str, Any]) -> list[str]:
    if "fixes" not in records:
        return []
    size = records["size"]
    text = (
        f"Processor time of one thread by stage, medians of {size['fixed_frames'] - 1} frames of 512 px in another "
        f"season than a map of {size['map_km2']:g} km²: among ten places, on all of it (its windows are read once a "
        "flight), and about an expected place with the displacement since the frame before."
    )
    return ["## What a fix spends", "", text, "", *stages_table(records["fixes"]), ""]


def _share_waiting(busy_s: float, wall_s: float) -> str:
    """The share of an ingest's time in which a stage does nothing, each of its threads counted alike."""
    return f"{max(0.0, 1 - busy_s / wall_s):.0%}"
