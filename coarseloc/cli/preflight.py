"""`coarseloc preflight`: maps and a flight looked at before hours are spent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from coarseloc.checks import ReportRequest, SourceOptions
from coarseloc.cli.options import backbone_options, cut_options, report_options, with_stated_labels
from coarseloc.cli.terminal import answer, json_option, out, pass_workspace, speak, spoken, table
from coarseloc.core.camera import Camera
from coarseloc.core.errors import InputError
from coarseloc.core.types import Fit
from coarseloc.embedding.encoders import Encoders
from coarseloc.workspace import Workspace

if TYPE_CHECKING:
    from coarseloc.imagery.stated_labels import StatedLabels
    from search.preflight.preflight import Preflight

_STYLES = {"ok": "green", "doubtful": "yellow", "no": "red"}


@click.command()
@click.argument("sources", nargs=-1, metavar="[GEOTIFF|FOLDER|SET…]")
@click.option("--flight", "flight_dir", type=click.Path(path_type=Path), help="A flight's folder.")
@click.option("--flight-labels", type=click.Path(path_type=Path), help="Its labels, where they are elsewhere.")
@click.option("--quick", is_flag=True, help="Headers, labels and the database alone: no tile is read.")
@cut_options
@click.option("--labels", type=click.Path(path_type=Path), help="Label JSON of captures, where it is elsewhere.")
@with_stated_labels
@click.option("--turned", type=click.Choice(["cw", "ccw"]), default="cw", help="Sense of the folders' angles.")
@click.option("--html", "file", type=click.Path(path_type=Path), help="Write a page with a map here.")
@report_options
@backbone_options
@json_option
@pass_workspace
def preflight(
    workspace: Workspace,
    /,
    sources: tuple[str, ...],
    flight_dir: Path | None,
    flight_labels: Path | None,
    labels: StatedLabels | None,
    quick: bool,
    file: Path | None,
    language: str,
    figures: Path | None,
    note: str | None,
    backbones: tuple[str, ...],
    input_px: int | None,
    precision: str | None,
    fit: Fit | None,
    device: str | None,
    as_json: bool,
    **cut: Any,
) -> None:
    """Before hours are spent: whether maps and a flight fit, what speaks against it, and what it would cost.

    Maps are GeoTIFFs, folders of captures, or reference sets that are here (all of these by default). A few tiles are
    read and embedded to measure minutes. Nothing is recorded. The verdict is ok, doubtful or no; after "no" the exit
    code is 2.
    """
    from search.export.check_infos import preflight_info

    speak(language)
    result = workspace.preflight(
        sources,
        flight_dir,
        options=SourceOptions(**cut, labels=labels),
        backbones=backbones,
        encoders=Encoders(workspace.settings, device, precision, input_px, fit=fit),
        camera=Camera(fov_deg=cut["fov_deg"]),
        flight_labels=labels._replace(path=flight_labels) if labels else flight_labels,
        measured=not quick,
        report=ReportRequest(file, language, figures, note) if file else None,
    )
    answer(as_json, preflight_info(result).model_dump(mode="json"), lambda: _show(result, file))
    if result.verdict == "no":
        reasons = [finding.sentence(spoken) for finding in result.findings if finding.level == "no"]
        raise InputError(f"preflight says no: {' '.join(reasons)}")


def _show(result: Preflight, file: Path | None) -> None:
    from search.evaluation.report.preflight import TOPICS

    rows = [
        (spoken(TOPICS[finding.topic]), Text(spoken(finding.level), _STYLES[finding.level]), finding.sentence(spoken))
        for finding in result.findings
    ]
    table("about", "", "", rows=rows)
    for text in result.notes:
        out.print(f"note: {text}")
    verdict = (spoken(result.verdict), f"bold {_STYLES[result.verdict]}")
    out.print(Text.assemble(f"{spoken('verdict')}: ", verdict))
    if file:
        out.print(f"wrote {file}")
