"""`coarseloc truth-check`: a flight's labels held against the imagery."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coarseloc.checks import ReportRequest
from coarseloc.cli.options import flight_id, report_options
from coarseloc.cli.terminal import answer, json_option, out, pass_workspace, speak, spoken, table
from coarseloc.workspace import Workspace

if TYPE_CHECKING:
    from search.evaluation.truth_check import TruthCheck

_SHOWN = 20


@click.command("truth-check")
@click.argument("flight", metavar="FLIGHT")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write a table here that --labels reads.")
@click.option("--html", "file", type=click.Path(path_type=Path), help="Write a page with a map here.")
@report_options
@json_option
@pass_workspace
def truth_check(
    workspace: Workspace,
    flight: str,
    csv_file: Path | None,
    file: Path | None,
    language: str,
    figures: Path | None,
    note: str | None,
    as_json: bool,
) -> None:
    """Frames of FLIGHT whose label the imagery contradicts, and what is wrong with all labels together.

    From what is stored: fixes (`coarseloc search`, `localize --reference-set`), tracks, best places of backbones.
    Nothing is changed: correct with --csv and search again with --labels.
    """
    from search.export.check_infos import truth_check_info

    speak(language)
    report = ReportRequest(file, language, figures, note) if file else None
    check = workspace.check_truth(flight_id(flight), csv=csv_file, report=report)
    written = [path for path in (csv_file, file) if path]
    answer(as_json, truth_check_info(check).model_dump(mode="json"), lambda: _show(check, written))


def _show(check: TruthCheck, written: list[Path]) -> None:
    from search.evaluation.report.truth_check import findings, off_map_texts

    table("verdict", "frames", rows=[(spoken(verdict), n) for verdict, n in check.counts.items()])
    for text in (*off_map_texts(check, spoken), *findings(check, spoken)):
        out.print(text)
    if check.legs:
        rows = [
            (
                f"{leg.first}–{leg.last}", leg.frames, f"{leg.heading_deg:.0f}",
                *(f"{value:+,.1f}" for value in (leg.east_m, leg.north_m, leg.right_m, leg.forward_m)),
                f"{leg.sd_m:.2f}", spoken("constant") if leg.constant else "",
            )
            for leg in check.legs
        ]  # fmt: skip
        columns = ("leg", "n", "heading °", "east m", "north m", "right m", "forward m", "± m", "")
        table(*columns, rows=rows, title="what the imagery lies beyond the labels")
    contradicted = [checked for checked in check.frames if checked.verdict == "contradicted"]
    if contradicted:
        rows = [
            (checked.frame.index, checked.frame.relative_path, spoken(checked.reason))
            for checked in contradicted[:_SHOWN]
        ]
        table("frame", "file", "why", rows=rows, title=f"contradicted ({len(contradicted)})")
    for path in written:
        out.print(f"wrote {path}")
