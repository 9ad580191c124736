"""`coarseloc bench`: the speed of the user's own backbones on the user's own device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from coarseloc.cli.terminal import answer, err, json_option, out, pass_workspace, table
from coarseloc.core.errors import InputError
from coarseloc.workspace import Workspace


@click.command()
@click.option("--backbone", "backbones", multiple=True, help="Encoder; every one whose weights are here by default.")
@click.option(
    "--input-px",
    "input_sizes",
    type=click.IntRange(min=16),
    multiple=True,
    help="Side of the model's input; may be given several times. [224, 336, 512, 768, 1024]",
)
@click.option("--images", "folder", type=click.Path(path_type=Path), help="A folder of frames. [generated, 1,024 px]")
@click.option("--frames", type=click.IntRange(min=1), default=20, show_default=True, help="Measured, at most.")
@click.option("--references", type=click.IntRange(min=1), default=10_000, show_default=True, help="Tiles searched.")
@click.option("--k", type=click.IntRange(1, 1000), default=10, show_default=True, help="Hits per frame.")
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Frames at once, for images/s.")
@click.option("--random-weights", is_flag=True, help="Measure without the models' weights: speed does not need them.")
@click.option("--device", default=None, help="auto, cpu, cuda, cuda:1 … [COARSELOC_DEVICE]")
@click.option("--precision", type=click.Choice(["fp32", "bf16", "int8"]), help="fp32 by default.")
@json_option
@pass_workspace
def bench(workspace: Workspace, /, folder: Path | None, as_json: bool, **options: Any) -> None:
    """How fast your backbones are on your device, at each input size.

    Medians of single frames after a warm-up: decoding the file, embedding, exact search, and total = embed + search.
    Nothing is stored. Other ways to do the same are measured beside it by `make bench`.
    """
    from coarseloc.imagery.flights import open_flight
    from search.environment import machine

    images: Sequence[Path] = ()
    if folder is not None:
        images = [frame.path for frame in open_flight(folder).frames]
        if not images:
            raise InputError(f"{folder} holds no images: expected a folder of frames")
    rows = []
    for speed in workspace.speeds(images=images, **options):
        err.print(f"{speed.backbone} at {speed.input_px} px: {speed.total_ms:.4g} ms")
        rows.append(speed)
    facts = {
        "machine": machine(rows[0].device, rows[0].backend),
        "images": str(folder) if folder else "generated, 1024 px",
        "references": options["references"],
        "k": options["k"],
        "batch": options["batch"],
        "random_weights": options["random_weights"],
        "rows": [asdict(speed) for speed in rows],
    }

    def show() -> None:
        table(
            "backbone", "input px", "decode ms", "embed ms", "search ms", "total ms", "images/s", "memory MiB",
            rows=[
                (
                    row.backbone,
                    row.input_px,
                    *(float(f"{ms:.4g}") for ms in (row.decode_ms, row.embed_ms, row.search_ms, row.total_ms)),
                    float(f"{row.images_per_s:.4g}"),
                    "–" if row.memory_mib is None else round(row.memory_mib),
                )
                for row in rows
            ],
        )  # fmt: skip
        out.print(
            f"{rows[0].precision} on {rows[0].device}, search by {rows[0].backend} for {options['k']} hits among "
            f"{options['references']:,} random vectors; medians of single frames after a warm-up; total = embed + "
            f"search; images/s in batches of {options['batch']}, without decoding; memory is the peak of "
            + ("the GPU's" if rows[0].device.startswith("cuda") else "the process")
            + ("; random weights" if options["random_weights"] else "")
        )

    answer(as_json, facts, show)
