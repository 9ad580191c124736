"""The commands that look after the installation, from `backbones` to `doctor`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from coarseloc.cli.ingest import show_drained
from coarseloc.cli.terminal import answer, json_option, out, pass_workspace, table
from coarseloc.core.errors import StoreError
from coarseloc.workspace import Workspace


@click.command()
@json_option
@pass_workspace
def backbones(workspace: Workspace, as_json: bool) -> None:
    """Each encoder, and where its weights were found or how to get them."""
    from coarseloc.embedding.encoders import LICENCE_NOTE

    listings = workspace.backbones()

    def show() -> None:
        rows = [
            (
                listing.name,
                listing.params_m and round(listing.params_m, 1),
                listing.dim,
                listing.pretraining,
                f"{listing.kind}: {listing.path}" if listing.path else f"not here: {listing.reason}",
            )
            for listing in listings
        ]
        table("backbone", "M params", "dim", "pretraining", "weights", rows=rows)
        for listing in listings:
            if not listing.path:
                out.print(f"\n{listing.name}: {listing.remedy}")
        out.print(f"\n{LICENCE_NOTE}")

    answer(as_json, [asdict(listing) for listing in listings], show)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Another address needs COARSELOC_TOKEN.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--access-log", is_flag=True, help="A line of JSON on stderr for each request.")
@click.option(
    "--base-map",
    type=click.Path(path_type=Path),
    help="Below the maps: .mbtiles or .pmtiles of pictures, or a GeoTIFF.",
)
@pass_workspace
def serve(workspace: Workspace, host: str, port: int, access_log: bool, base_map: Path | None) -> None:
    """The web pages."""
    from web.monitoring import log_accesses
    from web.server import serve as serve_pages

    if access_log:
        log_accesses()

    _ = workspace.db  # migrates the embedded default, or says what is wrong, before anything listens
    settings = workspace.settings
    if base_map:
        settings = settings.model_copy(update={"base_map": base_map})
    serve_pages(settings, host=host, port=port, ready=lambda url: out.print(f"coarseloc is at {url}"))


@click.command()
@json_option
@pass_workspace
def drain(workspace: Workspace, as_json: bool) -> None:
    """Bring the vector store up to the database; ingest does this by itself where it can."""
    summary = workspace.drain()
    answer(as_json, asdict(summary), lambda: show_drained(summary))


@click.command()
@click.option("--sample", type=click.IntRange(min=1), default=1000, show_default=True, help="Vectors compared of each.")
@json_option
@pass_workspace
def reconcile(workspace: Workspace, sample: int, as_json: bool) -> None:
    """Compare the vector store with the database and the database's tallies with its rows, and say what differs.

    Wrong tallies are mended; nothing else is changed.
    """
    comparison = workspace.reconcile(sample)

    def show() -> None:
        rows = [
            (difference.collection, len(difference.missing), len(difference.orphaned), len(difference.differing),
             difference.compared)
            for difference in comparison.collections
        ]  # fmt: skip
        table("collection", "missing", "orphaned", "differing", "vectors compared", rows=rows)
        if comparison.pending:
            out.print(f"{sum(comparison.pending.values())} embeddings are pending: `coarseloc drain`")
        for miscount in comparison.miscounts:
            out.print(
                f"the tally of {miscount.reference_set} in {miscount.collection} said {miscount.found.live} "
                f"embeddings and there are {miscount.rows.live}: mended, and its mirror will be built anew",
                style="yellow",
            )
        out.print("differences found" if comparison.differing else "no differences")

    facts = {
        "differences": [asdict(difference) for difference in comparison.collections],
        "miscounts": [asdict(miscount) for miscount in comparison.miscounts],
        "pending": comparison.pending,
    }
    answer(as_json, facts, show)
    if comparison.differing:
        raise StoreError(
            f"the vector store differs from the database in "
            f"{', '.join(difference.collection for difference in comparison.differing)}: `coarseloc rebuild` replays it"
        )


@click.command()
@json_option
@pass_workspace
def rebuild(workspace: Workspace, as_json: bool) -> None:
    """Drop the vector store's collections and replay the database into new ones."""
    summary = workspace.rebuild()
    answer(as_json, asdict(summary), lambda: show_drained(summary))


@click.command()
@pass_workspace
def migrate(workspace: Workspace) -> None:
    """Bring the database's schema to this version's; the embedded default does this by itself."""
    out.print(f"the schema is at {workspace.migrate()}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@pass_workspace
def backup(workspace: Workspace, file: Path) -> None:
    """Write the embedded database as of now to FILE, while others use it. See docs/operations.md for the way back."""
    size = workspace.back_up(file)
    out.print(f"wrote {file} ({size / 1e6:.1f} MB)")


@click.command()
@click.option("--deep", is_flag=True, help="Read every row, vector and weight: minutes on a large data folder.")
@json_option
@pass_workspace
def doctor(workspace: Workspace, deep: bool, as_json: bool) -> None:
    """Versions, device, FAISS, stores, what is pending, disk: what a report of a fault should hold."""
    diagnosis = workspace.diagnose(deep)
    answer(as_json, diagnosis.checks, lambda: table("what", "found", rows=list(diagnosis.checks.items())))
    if diagnosis.problems:
        raise StoreError(f"doctor found problems with: {', '.join(diagnosis.problems)}")
