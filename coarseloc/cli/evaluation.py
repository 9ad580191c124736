"""`coarseloc evaluate` and `report`: how good a flight's runs are, in numbers and as one file to read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coarseloc.cli.app import App, answer, err, json_option, out, pass_app, progress_bar, table
from coarseloc.cli.options import flight_id, method_option, report_options

if TYPE_CHECKING:
    from search.evaluation.evaluate import Counts, Evaluation
    from search.evaluation.intervals import IntervalEstimate
    from search.evaluation.scores import Score

FORMS = {"m": "{:.1f}", "°": "{:.1f}", "%": "{:.1%}", "": "{:.3f}"}


@click.command()
@click.argument("names", metavar="FLIGHT|RUN…", nargs=-1, required=True)
@click.option("--reference-set", "name", help="Only a flight's runs against this set.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write every score to this file as well.")
@method_option
@click.option("--all", "everything", is_flag=True, help="Every score, with its 95 % interval and n_eff.")
@json_option
@pass_app
def evaluate(
    app: App,
    names: Sequence[str],
    name: str | None,
    csv_file: Path | None,
    everything: bool,
    method: str,
    as_json: bool,
) -> None:
    """Score runs against the truth: FLIGHT means its newest run of each backbone.

    Frames without truth are counted and left out. Places are scored on frames the map shows, headings where the
    place is right, rejection on all. Intervals are 95 %; n_eff is the number of independent frames that the
    correlated ones of a flight are worth: below 30 of them no interval is said.
    """
    from search.evaluation import scoresheet

    done = app.workspace.evaluate(*map(flight_id, names), reference_set=name, method=method)
    scoresheet.save(app.db, done)
    if csv_file:
        csv_file.parent.mkdir(parents=True, exist_ok=True)
        csv_file.write_text(scoresheet.to_csv(done), encoding="utf-8")
    answer(
        as_json,
        [scoresheet.facts(one) | {"frames": scoresheet.frames(one)} for one in done],
        lambda: _show(done, everything),
    )


_SHORT = ("error_median", "error_mean", "hit_centre@1", "hit_footprint@1", "hit_footprint@10", "pdm@10",
          "heading_error_median", "margin_area")  # fmt: skip


def _show(done: Sequence[Evaluation], everything: bool) -> None:
    """A row per score and a column per run: six backbones fit beside each other, forty scores do not."""
    from search.evaluation.scores import BY_KEY, SCORES

    shown = SCORES if everything else [BY_KEY[key] for key in _SHORT]
    rows: list[tuple[object, ...]] = [
        (
            f"{score.title} ({'↓' if score.better == 'lower' else '↑'})",
            *(_cell(one.scores[score.key], score, one.counts, everything) for one in done),
        )
        for score in shown
    ]
    for what, field in _COUNTS.items():
        rows.append((what, *(getattr(one.counts, field) for one in done)))
    table("", *(f"{one.label} (run {one.run.id})" for one in done), rows=rows)
    out.print("n is said where it is not all frames on the map" + ("" if everything else "; --all shows every score"))


_COUNTS = {
    "frames": "frames",
    "judged": "judged",
    "of these off the map": "off_map",
    "without truth, left out": "without_truth",
    "failed, left out": "failed",
}


def _cell(found: IntervalEstimate, score: Score, counts: Counts, everything: bool) -> str:
    form = FORMS[score.unit]
    if math.isnan(found.value):
        return "–"
    known = everything and not math.isnan(found.low)
    interval = f" [{form.format(found.low)}, {form.format(found.high)}]" if known else ""
    usual = counts.judged if score.group == "rejection" else counts.judged - counts.off_map
    counts_shown = [] if found.n == usual else [f"n {found.n}"]
    if everything:
        counts_shown.append("n_eff –" if math.isnan(found.n_eff) else f"n_eff {found.n_eff:.0f}")
    return form.format(found.value) + interval + (f" ({', '.join(counts_shown)})" if counts_shown else "")


@click.command()
@click.argument("names", metavar="FLIGHT|RUN…", nargs=-1, required=True)
@click.option("--out", "file", type=click.Path(path_type=Path), required=True, help="The HTML file to write.")
@report_options
@method_option
@click.option("--reference-set", "name", help="Only a flight's runs against this set.")
@click.option("--frame", type=int, help="Whose thumbnails to show; the frame of middling error by default.")
@json_option
@pass_app
def report(
    app: App,
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
    from search.evaluation import scoresheet
    from search.evaluation.report.runs import write_report

    done = app.workspace.evaluate(*map(flight_id, names), reference_set=name, method=method)
    scoresheet.save(app.db, done)
    with progress_bar("report") as progress:
        notices = write_report(
            done, app.settings.thumbnails, file, language=language, figures=figures, frame=frame, note=note,
            progress=progress,
        )  # fmt: skip
    for notice in notices:
        err.print(f"[yellow]{notice}[/yellow]")
    size = file.stat().st_size
    facts = {"file": str(file), "bytes": size, "runs": [one.run.id for one in done]}
    answer(as_json, facts, lambda: out.print(f"wrote {file} ({size / 1e6:.1f} MB) of {len(done)} runs"))
