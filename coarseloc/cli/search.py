"""`coarseloc search` (a flight against the exact mirrors) and `coarseloc lookup` (one image against Qdrant)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coarseloc.cli.options import backbone_options, camera_options, label_options, time_options, where_options
from coarseloc.cli.terminal import answer, json_option, next_step, out, pass_workspace, table
from coarseloc.core.camera import Camera
from coarseloc.core.filters import Where
from coarseloc.core.types import Fit, Flight
from coarseloc.embedding.encoders import Encoders
from coarseloc.imagery.frame_times import StatedTime
from coarseloc.results import Answer
from coarseloc.workspace import Workspace

if TYPE_CHECKING:
    from coarseloc.imagery.stated_labels import StatedLabels


@click.command()
@click.argument("flight_dir", type=click.Path(path_type=Path))
@click.option("--flight-id", help="Its name, where another flight has the folder's.")
@click.option("--k", type=click.IntRange(1, 1000), default=10, show_default=True, help="Hits per frame.")
@click.option("--per-angle", is_flag=True, help="Search each heading's references as a set of its own.")
@click.option(
    "--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Frames at once, for throughput."
)
@label_options
@click.option("--no-verify", is_flag=True, help="Store the best places alone: no fix in metres.")
@click.option(
    "--verified-places",
    type=click.IntRange(1, 100),
    default=10,
    show_default=True,
    help="Best places of a frame that its fix is looked for among.",
)
@click.option("--map-sd-m", type=click.FloatRange(min=0), help="The maps' own error, metres per axis. [as ingested]")
@camera_options
@time_options
@click.option("--no-rebuild", is_flag=True, help="Refuse a stale mirror instead of building it anew.")
@where_options
@backbone_options
@json_option
@pass_workspace
def search(
    workspace: Workspace,
    /,
    flight_dir: Path,
    where: Where,
    no_rebuild: bool,
    no_verify: bool,
    backbones: tuple[str, ...],
    input_px: int | None,
    precision: str | None,
    fit: Fit | None,
    device: str | None,
    labels: StatedLabels | None,
    camera: Camera,
    time: StatedTime,
    as_json: bool,
    **options: Any,
) -> None:
    """Match every frame in FLIGHT_DIR against the references, exactly, and time it; then fix it in metres.

    Every backbone the references are embedded with is used unless --backbone says which. Interrupted, the
    same command goes on. How wide a frame is on the ground is asked as in `coarseloc localize`.
    """
    from coarseloc.imagery.flights import open_flight

    flight = open_flight(flight_dir, labels=labels, camera=camera, time=time)
    encoders = Encoders(workspace.settings, device, precision, input_px, fit=fit)
    runs = [
        run.facts()
        for run in workspace.search(
            flight,
            where=where,
            rebuild=not no_rebuild,
            verify=not no_verify,
            backbones=backbones,
            encoders=encoders,
            input_px=input_px,
            precision=precision,
            fit=fit,
            **options,
        )
    ]
    answer(as_json, runs, lambda: _show_search(flight, runs))


def _show_search(flight: Flight, runs: Sequence[dict[str, Any]]) -> None:
    show_runs(runs)
    if runs and len(flight.frames) > 1:
        next_step("track", runs[0]["flight_id"], note="frames of one flight tell of each other")
    if runs:
        next_step("export", runs[0]["flight_id"], "--out", "results", note="records for other programs")


def show_runs(runs: Sequence[dict[str, Any]]) -> None:
    """One row per run: how far off, how sure, how fast."""
    rows = [
        (
            run["backbone"] + ("" if run["angle_deg"] is None else f" at {run['angle_deg']:03d}"),
            run["frames"],
            run["unreadable"],
            run["references"],
            *(_number(run[key]) for key in ("median_error_m", "median_heading_error_deg", "median_margin")),
            *(_number(run["median_ms"][key]) for key in ("decode", "embed", "search", "total")),
            run["backend"],
        )
        for run in runs
    ]
    columns = ("backbone", "frames", "unreadable", "references", "error m", "heading °", "margin")
    table(*columns, "decode ms", "embed ms", "search ms", "total ms", "by", rows=rows)
    out.print("medians over frames; errors only where the truth is known")
    for timing in dict.fromkeys(map(_timing_conditions, runs)):
        out.print(f"total = embed + search, without decoding, after a warm-up; {timing}")
    show_fixes(runs)


def show_fixes(runs: Sequence[dict[str, Any]]) -> None:
    """One row per run that was verified: how many frames match the map, how far off, how sure."""
    rows = [
        (
            run["backbone"] + ("" if run["angle_deg"] is None else f" at {run['angle_deg']:03d}"),
            f"{fix['matches']} of {fix['verified']}",
            ", ".join(f"{count} {reason}" for reason, count in fix["no_match"].items()) or "–",
            *(
                _number(fix[key])
                for key in (
                    "median_ground_error_m", "median_aircraft_error_m", "median_heading_error_deg",
                    "median_ellipse_95_m", "median_verify_ms",
                )
            ),
        )
        for run in runs
        if (fix := run["fix"]) and fix["verified"]
    ]  # fmt: skip
    if rows:
        columns = ("backbone", "match the map", "no match", "ground error m", "aircraft error m", "heading °")
        table(*columns, "ellipse m", "verify ms", rows=rows, title="fixes")
        out.print("medians over frames that match; ellipse: the larger half axis of the one that holds 95 %")


def _timing_conditions(run: dict[str, Any]) -> str:
    batch, threads = run["batch"], run["threads"]
    batching = "one frame at a time" if batch == 1 else f"batches of up to {batch}, their time divided by their frames"
    return f"{batching}; threads: {', '.join(f'{name} {count}' for name, count in threads.items())}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--k", type=click.IntRange(1, 1000), default=10, show_default=True)
@where_options
@backbone_options
@json_option
@pass_workspace
def lookup(
    workspace: Workspace,
    image: Path,
    k: int,
    where: Where,
    backbones: tuple[str, ...],
    input_px: int | None,
    precision: str | None,
    fit: Fit | None,
    device: str | None,
    as_json: bool,
) -> None:
    """The references most like IMAGE among those that match the filters, answered by Qdrant."""
    answers = workspace.lookup(
        image,
        where=where,
        k=k,
        backbone=backbones,
        encoders=Encoders(workspace.settings, device, precision, input_px, fit=fit),
        input_px=input_px,
        precision=precision,
        fit=fit,
    )
    facts = {name: [_row(row, result.backend) for row in result.rows()] for name, result in answers.items()}
    answer(as_json, facts, lambda: _show_hits(answers))


def _row(row: dict[str, Any], backend: str) -> dict[str, Any]:
    """A hit in its one shape, who ranked it, and the `tile` that scripts have read from this command before."""
    tile = {name: value for name, value in row.items() if name not in ("rank", "score", "path", "filename")}
    return row | {"tile": tile, "backend": backend}


def _show_hits(answers: Mapping[str, Answer]) -> None:
    for backbone, result in answers.items():
        hits = result.hits
        if not hits:
            out.print(f"{backbone}: no reference matches the filters")
            continue
        drop = hits[0].score - hits[-1].score
        rows = [
            (
                hit.rank,
                f"{hit.score:.4f}",
                hit.tile.tile_id,
                f"{hit.tile.angle_deg:03d}",
                f"{hit.tile.center.lat:.6f}",
                f"{hit.tile.center.lon:.6f}",
                hit.filename,
            )
            for hit in hits
        ]
        title = f"{backbone}: score falls by {drop:.4f} from rank 1 to {len(hits)} (exact, by {result.backend})"
        table("rank", "score", "tile", "heading", "lat", "lon", "file", rows=rows, title=title)
