"""`coarseloc localizability`: how well a reference set's ground tells where it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coarseloc.checks import ReportRequest
from coarseloc.cli.options import backbone_options, report_options
from coarseloc.cli.terminal import answer, json_option, out, pass_workspace, speak, spoken, table
from coarseloc.workspace import Workspace

if TYPE_CHECKING:
    from search.localizability import Localizability


@click.command()
@click.argument("reference_set", metavar="SET", required=False)
@click.option(
    "--excluded",
    type=click.Choice(["view", "place", "neighbours"]),
    default="place",
    show_default=True,
    help="What may not answer a view: itself; its place at all headings; or itself and overlapping neighbours.",
)
@click.option("--geotiff", "geotiffs", type=click.Path(path_type=Path), help="Folder for rasters of error and twins.")
@click.option("--html", "file", type=click.Path(path_type=Path), help="Write a page with maps here.")
@report_options
@backbone_options
@json_option
@pass_workspace
def localizability(
    workspace: Workspace,
    /,
    reference_set: str | None,
    excluded: Any,
    geotiffs: Path | None,
    file: Path | None,
    language: str,
    figures: Path | None,
    note: str | None,
    device: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Where the ground of SET tells where it is, and where it has twins: its views as queries against the others.

    Nothing is embedded: the stored vectors are searched, exactly, a block of views at a time. SET may be left out where
    there is only one.
    """
    from search.export.check_infos import localizability_info

    speak(language)
    report = ReportRequest(file, language, figures, note) if file else None
    measured, rasters = workspace.localizability(
        reference_set, excluded=excluded, geotiffs=geotiffs, report=report, **options
    )
    written = [*rasters, *([file] if file else [])]
    answer(as_json, localizability_info(measured, rasters).model_dump(mode="json"), lambda: _show(measured, written))


def _show(measured: Localizability, written: Sequence[Path]) -> None:
    from search.evaluation.report.localizability import findings
    from search.localizability import EXCLUSIONS

    rows = [
        (
            backbone.backbone,
            backbone.views,
            f"{backbone.ground_share:.1%}",
            *(f"{backbone.shares[name]:.1%}" for name in EXCLUSIONS),
            f"{backbone.median_error_m:,.0f}",
            f"{backbone.p90_error_m:,.0f}",
            f"{backbone.search_s:.1f}",
        )
        for backbone in measured.backbones
    ]
    columns = (
        "backbone",
        "views",
        "ground",
        *(spoken(f"without {spoken(name)}") for name in EXCLUSIONS),
        "error m",
        "p90 m",
        "s",
    )
    table(*columns, rows=rows, title=f"views of {measured.reference_set} whose best answer is within a footprint")
    for text in findings(measured, spoken):
        out.print(text)
    gains = [
        (spoken(gain.name), f"{gain.share_without:.1%}", f"{gain.share_with:.1%}", gain.queries)
        for gain in measured.gains
    ]
    if gains:
        table("what more would buy", "without", "with", "n", rows=gains)
    for path in written:
        out.print(f"wrote {path}")
