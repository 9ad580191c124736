"""What a benchmark leaves behind: the raw numbers as JSON, and docs/benchmarks.md."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.figures import Results, contests_table, figures_table, plain_facts, table
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
        **results.more,
        "figures": [asdict(figure) | {"reached": figure.reached} for figure in results.figures],
        "contests": [asdict(contest) for contest in results.contests],
    }


def write_json(results: Results, folder: Path, name: str = "") -> Path:
    """The facts as `<date>-<cpu>-<cores>.json`; or under another name."""
    machine = results.more["machine"]
    stem = name or f"{machine['date'][:10]}-{ids.slug(machine['cpu'].partition('(')[0])}-{machine['cores']}-cores"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}.json"
    path.write_text(json.dumps(facts(results), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def write_markdown(results: Results, path: Path, raw: Path) -> None:
    """The figures, then every way that was timed, then how an ingest spends its time, then the GPU's table."""
    gpu = sorted(raw.parent.glob("gpu-*.md"))
    busy = was_busy(results.more)
    lines = [
        _HEAD.format(rounds=results.more["size"]["rounds"]),
        *table(("", ""), machine_rows(results.more)),
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
        "Seconds of one ingest. Reading runs in threads beside embedding: the stages overlap.",
        "",
        *_stages(results.more),
        "",
        "## On a GPU",
        "",
        gpu[-1].read_text(encoding="utf-8") if gpu else _GPU_NONE,
        f"Raw numbers: [{raw.name}]({os.path.relpath(raw, path.parent)}).",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def was_busy(more: dict[str, Any]) -> bool:
    """Whether others wanted the cores too: the benchmark alone makes a load of about one a core."""
    cores = more["machine"]["cores"]
    return bool(more["load before"] > 0.5 * cores or more["load after"] > cores + 1)


def machine_rows(more: dict[str, Any]) -> list[tuple[str, str]]:
    facts = more["machine"]
    rows = [
        ("date", f"{facts['date']}, commit {facts['commit']}"),
        ("machine", f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB; {facts['system']}"),
        ("versions", f"Python {facts['python']}, " + plain_facts(facts["versions"])),
        ("load", f"{more['load before']} before, {more['load after']} after; the benchmark's own share is up to 2"),
        ("size", _size(more["size"])),
        ("took", f"{more['took_s']} s"),
    ]
    if "ceilings" in more:
        found = more["ceilings"]
        rows.append(("ceilings", f"{found['matmul_gflops']} GFLOP/s float32, {found['read_gb_per_s']} GB/s read"))
    return rows


def _size(size: dict[str, Any]) -> str:
    """Whether this is the whole benchmark, and where it is less."""
    less = {name: value for name, value in size.items() if value != asdict(FULL)[name]}
    return "full" if not less else "less than the full one: " + plain_facts(less)


def _stages(more: dict[str, Any]) -> list[str]:
    """One row an ingest; the embedding of several backbones is summed."""
    rows = []
    for name, stages in more.items():
        if isinstance(stages, dict) and "wall clock" in stages:
            embed = sum(seconds for stage, seconds in stages.items() if stage.startswith("embed "))
            others = [stages[key] for key in ("read (in threads)", "wait for reading", "write", "wall clock")]
            read, wait, write, wall = (f"{seconds:.2f}" for seconds in others)
            rows.append((name, read, wait, f"{embed:.2f}", write, wall, f"{stages['cores busy']}"))
    header = ("ingest", "read, in threads", "wait for reading", "embed", "write", "wall clock", "cores busy")
    return table(header, rows, right=range(1, 7))
