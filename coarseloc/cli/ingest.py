"""`coarseloc ingest …` and `coarseloc references …`: tiles in, and what became of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coarseloc.cli.options import cut_options, ingest_backbone_options, with_stated_labels
from coarseloc.cli.terminal import (
    answer,
    err,
    json_option,
    next_step,
    out,
    pass_workspace,
    print_none_here,
    table,
)
from coarseloc.core.errors import InputError
from coarseloc.core.filters import Where
from coarseloc.core.types import Fit
from coarseloc.embedding.encoders import Encoders
from coarseloc.results import IngestResult
from coarseloc.vectors.sync import DrainSummary
from coarseloc.workspace import Workspace

if TYPE_CHECKING:
    from coarseloc.imagery.stated_labels import StatedLabels
    from ingest.worker import IngestEngine


@click.group()
def ingest() -> None:
    """Embed reference tiles and store them. Run again at any time: only what is missing is done."""


def _ingest_options(command: Any) -> Any:
    for option in (
        json_option,
        click.option("--allow-hub", is_flag=True, help="Download weights that are not here from the Hugging Face hub."),
        ingest_backbone_options,
        click.option("--reread", is_flag=True, help="Open every label and picture, whatever sizes and times say."),
        click.option("--keep-missing", is_flag=True, help="Keep references whose pictures the source no longer holds."),
        click.option("--ray-address", help="A Ray cluster's head, such as host:6379; this machine alone by default."),
        click.option(
            "--engine",
            type=click.Choice(["process", "ray"]),
            default="process",
            show_default=True,
            help="Where to work.",
        ),
        click.option(
            "--map-sd-m",
            type=click.FloatRange(min=0),
            help="The source's own registration error, metres per axis. [half a pixel]",
        ),
        click.option("--reference-set", "name", help="Name of the reference set; made from the source by default."),
    ):
        command = option(command)
    return command


@ingest.command()
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--labels", type=click.Path(path_type=Path), help="Label JSON, where it is not in or beside the folders.")
@with_stated_labels
@click.option("--footprint-m", type=click.FloatRange(min=0, min_open=True), help="Side of a tile on the ground.")
@click.option(
    "--turned", type=click.Choice(["cw", "ccw"]), default="cw", show_default=True, help="Sense of the folders' angles."
)
@_ingest_options
@pass_workspace
def captures(
    workspace: Workspace,
    /,
    root: Path,
    labels: StatedLabels | None,
    footprint_m: float | None,
    turned: Any,
    name: str | None,
    map_sd_m: float | None,
    **options: Any,
) -> None:
    """Already turned captures: ROOT/<time>_<altitude>_<overlap>_<n>_<angle>/…_<index>.jpg, with labels."""
    opening = {"name": name, "labels": labels, "footprint_m": footprint_m, "turned": turned}
    _run(partial(workspace.ingest_captures, root, map_sd_m=map_sd_m, **opening), workspace, **options)


@ingest.command()
@click.argument("file", type=click.Path(path_type=Path))
@cut_options
@_ingest_options
@pass_workspace
def orthophoto(
    workspace: Workspace,
    /,
    file: Path,
    footprint_m: float | None,
    altitude_m: float | None,
    fov_deg: float | None,
    overlap: float,
    angles: tuple[int, ...],
    tile_px: int | None,
    crs: str | None,
    border_is_ground: bool,
    name: str | None,
    map_sd_m: float | None,
    **options: Any,
) -> None:
    """A raster in any CRS, cut into tiles on the fly and turned to each heading.

    FILE is a GeoTIFF, VRT, JPEG 2000, ERDAS IMAGINE (.img), GeoPackage or MBTiles, a TIFF, JPEG or PNG with a world
    file (and --crs), or a folder of sheets, which are read as one map.
    """
    from coarseloc.imagery.orthophoto import open_orthophoto

    source = open_orthophoto(
        file,
        name=name,
        footprint_m=footprint_m,
        altitude_m=altitude_m,
        fov_deg=fov_deg,
        overlap=overlap,
        angles=angles,
        tile_px=tile_px,
        crs=crs,
        border_is_ground=border_is_ground,
    )
    source.reference_set = replace(source.reference_set, map_sd_m=map_sd_m)
    _run(partial(workspace.ingest, source), workspace, **options)


def _run(
    ingest: Callable[..., IngestResult],
    workspace: Workspace,
    backbones: tuple[str, ...],
    input_px: int | None,
    precision: str | None,
    fit: Fit | None,
    device: str | None,
    allow_hub: bool,
    engine: str,
    ray_address: str | None,
    keep_missing: bool,
    reread: bool,
    as_json: bool,
) -> None:
    """Ingest, drain, answer; shared by both kinds of source."""
    encoders = Encoders(workspace.settings, device, precision, input_px, allow_hub, fit)
    result = ingest(
        backbones,
        encoders=encoders,
        engine=_engine(engine, ray_address),
        keep_missing=keep_missing,
        reread=reread,
    )
    facts = {
        "reference_sets": [summary.facts() for summary in result.summaries],
        "vector_store": {"note": result.note} if result.drained is None else asdict(result.drained),
    }
    answer(as_json, facts, lambda: _show(result))
    if any(summary.interrupted for summary in result.summaries):
        raise KeyboardInterrupt
    for summary in result.summaries:
        if summary.failures and not summary.read and not summary.up_to_date:
            raise InputError(
                f"none of the {summary.views} images of {summary.reference_set!r} could be used: "
                "`coarseloc ingest failures` says why for each"
            )


def _engine(name: str, ray_address: str | None) -> IngestEngine | None:
    """Where to work; None: in this process."""
    if name == "process":
        return None
    from ingest.ray_engine import over_ray

    return over_ray(ray_address)


def _show(result: IngestResult) -> None:
    show_ingest(result)
    sets = [("--reference-set", summary.reference_set) for summary in result.summaries if not summary.interrupted]
    if sets:
        words = [word for option in sets for word in option]
        next_step("search", "FLIGHT_FOLDER", *words, note="its frames against these references")


def show_ingest(result: IngestResult) -> None:
    """What an ingest did, for people."""
    for summary in result.summaries:
        embedded = ", ".join(f"{count} by {name}" for name, count in summary.embedded.items()) or "none"
        out.print(
            f"{summary.reference_set}: {summary.views} views, {summary.up_to_date} up to date, "
            f"{summary.read} read; embeddings made: {embedded}"
        )
        if summary.unchanged:
            out.print("  no file was opened: all are as they were, by name, size and time (--reread opens them)")
        if summary.removed:
            out.print(f"  removed: {summary.removed}")
        if summary.seconds:
            seconds = ", ".join(f"{stage} {s:.1f}" for stage, s in summary.seconds.items())
            out.print(f"  seconds: {seconds}")
        if summary.failures:
            kinds = ", ".join(f"{count} {kind}" for kind, count in summary.failures.items())
            out.print(f"  failures: {kinds} (`coarseloc ingest failures`)", style="yellow")
    if result.drained is None:
        err.print(result.note, style="yellow")
        return
    show_drained(result.drained)


def show_drained(drained: DrainSummary) -> None:
    """What a drain brought over, and what it had to replay."""
    for collection in drained.rebuilt:
        err.print(f"collection {collection} was lost and has been replayed from the database", style="yellow")
    out.print(f"vector store: {drained.upserted} points written, {drained.deleted} deleted")


@ingest.command()
@click.option("--reference-set", "name", help="Only of this set.")
@json_option
@pass_workspace
def failures(workspace: Workspace, name: str | None, as_json: bool) -> None:
    """What could not be used in the latest ingest, and why."""
    failures = workspace.failures(name)
    facts = [{"reference_set": reference_set, **asdict(failure)} for reference_set, failure in failures]
    rows = [(reference_set, failure.kind, failure.item, failure.message) for reference_set, failure in failures]
    answer(
        as_json,
        facts,
        lambda: table("reference set", "kind", "item", "why", rows=rows) if rows else out.print("no failures"),
    )


@click.group()
def references() -> None:
    """The reference sets that are here."""


@references.command("list")
@json_option
@pass_workspace
def list_(workspace: Workspace, as_json: bool) -> None:
    """Each set with its tiles, views and embeddings."""
    facts = [summary.facts() for summary in workspace.reference_summaries()]
    rows = [
        (
            f["name"],
            f["kind"],
            f["altitude_m"],
            f"{f['overlap']:.0%}",
            round(f["footprint_m"]) if f["footprint_m"] else None,
            sum(f["views"].values()),
            ", ".join(f"{name}: {count}" for name, count in f["embeddings"].items()),
        )
        for f in facts
    ]
    columns = ("name", "kind", "altitude m", "overlap", "footprint m", "views", "embeddings")

    def show() -> None:
        if rows:
            table(*columns, rows=rows)
        else:
            print_none_here(workspace, "reference set", "make one with `coarseloc ingest captures` or `orthophoto`")

    answer(as_json, facts, show)


@references.command()
@click.argument("name")
@click.argument("new_name")
@pass_workspace
def rename(workspace: Workspace, name: str, new_name: str) -> None:
    """Give a set another name. Runs made against it keep the old one; ingest it with --reference-set from now on."""
    workspace.rename_reference_set(name, new_name)
    out.print(f"{name} is {new_name} now; runs made against it keep the name that it had")


@references.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_workspace
def delete(workspace: Workspace, name: str, yes: bool) -> None:
    """Delete a set with its tiles and embeddings. Source images stay, and so do finished runs with their results."""
    workspace.reference_sets(Where(reference_sets=(name,)))  # an unknown one is refused before any question
    if not yes:
        click.confirm(f"Delete reference set {name!r}? Runs against it keep their results.", abort=True)
    count = workspace.delete_reference_set(name)
    out.print(f"deleted {name} with {count} embeddings")
