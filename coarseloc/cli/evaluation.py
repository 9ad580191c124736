"""`coarseloc evaluate` and `report`: how good a flight's runs are, in numbers and as one file to read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coarseloc.cli.options import flight_id, method_option, report_options
from coarseloc.cli.terminal import answer, err, json_option, out, pass_workspace, table
from coarseloc.workspace import Workspace

if TYPE_CHECKING:
    from search.evaluation.evaluate import Evaluation, FrameCounts
    from search.evaluation.intervals import IntervalEstimate
    from search.evaluation.scores import Score

FORMS = {"m": "{:.1f}", "°": "{:.1f}", "%": "{:.1%}", "": "{:.3f}"}


@click.command()
@click.argument("names", metavar="FLIGHT|RUN…", nargs=-1, required=True)
@click.option("--reference-set", "name", help="Only a flight's runs against this set.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write every score to this file as well.")
@method_option
@click.option("--all", "all_scores", is_flag=True, help="Every score, with its 95 % interval and n_eff.")
@json_option
@pass_workspace
def evaluate(
    workspace: Workspace,
    names: Sequence[str],
    name: str | None,
    csv_file: Path | None,
    all_scores: bool,
    method: str,
    as_json: bool,
) -> None:
    """Score runs against the truth: FLIGHT means its newest run of each backbone.

    Frames without truth are counted and left out. Places are scored on frames the map shows, headings where the
    place is right, rejection on all. Intervals are 95 %; n_eff is the number of independent frames that the
    correlated ones of a flight are worth: below 30 of them no interval is said.
    """
    from search.evaluation.evaluate import to_csv

    evaluations = workspace.evaluate(*map(flight_id, names), reference_set=name, method=method, save=True)
    if csv_file:
        csv_file.parent.mkdir(parents=True, exist_ok=True)
        csv_file.write_text(to_csv(evaluations), encoding="utf-8")
    answer(
        as_json,
        [evaluation.to_json() | {"frames": evaluation.frames_to_json()} for evaluation in evaluations],
        lambda: _print_scores(evaluations, all_scores),
    )


_SHORT = ("error_median", "error_mean", "hit_centre@1", "hit_footprint@1", "hit_footprint@10", "pdm@10",
          "heading_error_median", "margin_area")  # fmt: skip


def _print_scores(evaluations: Sequence[Evaluation], all_scores: bool) -> None:
    """A row per score and a column per run: six backbones fit beside each other, forty scores do not."""
    from search.evaluation.scores import BY_KEY, SCORES

    scores = SCORES if all_scores else [BY_KEY[key] for key in _SHORT]
    rows: list[tuple[object, ...]] = [
        (
            f"{score.title} ({'↓' if score.better == 'lower' else '↑'})",
            *(_cell(evaluation.scores[score.key], score, evaluation.counts, all_scores) for evaluation in evaluations),
        )
        for score in scores
    ]
    for title, count in _COUNTS.items():
        rows.append((title, *(getattr(evaluation.counts, count) for evaluation in evaluations)))
    table("", *(f"{evaluation.label} (run {evaluation.run.id})" for evaluation in evaluations), rows=rows)
    out.print("n is said where it is not all frames on the map" + ("" if all_scores else "; --all shows every score"))


_COUNTS = {
    "frames": "frames",
    "judged": "judged",
    "of these off the map": "off_map",
    "without truth, left out": "without_truth",
    "failed, left out": "failed",
}


def _cell(estimate: IntervalEstimate, score: Score, counts: FrameCounts, all_scores: bool) -> str:
    form = FORMS[score.unit]
    if math.isnan(estimate.value):
        return "–"
    with_interval = all_scores and not math.isnan(estimate.low)
    interval = f" [{form.format(estimate.low)}, {form.format(estimate.high)}]" if with_interval else ""
    expected_n = counts.judged if score.group == "rejection" else counts.judged - counts.off_map
    notes = [] if estimate.n == expected_n else [f"n {estimate.n}"]
    if all_scores:
        notes.append("n_eff –" if math.isnan(estimate.n_eff) else f"n_eff {estimate.n_eff:.0f}")
    return form.format(estimate.value) + interval + (f" ({', '.join(notes)})" if notes else "")


@click.command()
@click.argument("names", metavar="FLIGHT|RUN…", nargs=-1, required=True)
@click.option("--out", "file", type=click.Path(path_type=Path), required=True, help="The HTML file to write.")
@report_options
@method_option
@click.option("--reference-set", "name", help="Only a flight's runs against this set.")
@click.option("--frame", type=int, help="Whose thumbnails to show; the frame of middling error by default.")
@json_option
@pass_workspace
def report(
    workspace: Workspace,
    names: Sequence[str],
    file: Path,
    language: str,
    figures: Path | None,
    name: str | None,
    frame: int | None,
    note: str | None,
    method: str,
    as_json: bool,
) -> None:
    """One self-contained HTML file of runs: scores, times, errors, agreement, worst frames, with their tables."""
    evaluations = workspace.evaluate(*map(flight_id, names), reference_set=name, method=method, save=True)
    options = {"language": language, "figures": figures, "frame": frame, "note": note}
    for notice in workspace.report(evaluations, file, **options):
        err.print(f"[yellow]{notice}[/yellow]")
    size = file.stat().st_size
    facts = {"file": str(file), "bytes": size, "runs": [evaluation.run.id for evaluation in evaluations]}
    answer(as_json, facts, lambda: out.print(f"wrote {file} ({size / 1e6:.1f} MB) of {len(evaluations)} runs"))
