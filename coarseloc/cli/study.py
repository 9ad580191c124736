"""`coarseloc evaluate`, `report`, `rotation` and `altitude`: answers to how good, how stable, how fast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coarseloc.cli.app import App, answer, json_option, out, pass_app, table

if TYPE_CHECKING:
    from search.evaluate import Evaluation

FORMS = {"m": "{:.1f}", "°": "{:.1f}", "%": "{:.1%}", "": "{:.3f}"}


@click.command()
@click.argument("names", metavar="FLIGHT|RUN…", nargs=-1, required=True)
@click.option("--reference-set", "name", help="Only a flight's runs against this set.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write every score to this file as well.")
@click.option("--all", "everything", is_flag=True, help="Every score, with its 95 % interval.")
@json_option
@pass_app
def evaluate(
    app: App, names: Sequence[str], name: str | None, csv_file: Path | None, everything: bool, as_json: bool
) -> None:
    """Score runs against the truth: FLIGHT means its newest run of each backbone.

    Frames without truth are counted and left out. Places are scored on frames the map shows, headings where the
    place is right, rejection on all. Intervals are 95 %, by a block bootstrap over frames.
    """
    from search import evaluate as evaluation

    done = evaluation.evaluate(app.db, evaluation.find_runs(app.db, names, name))
    evaluation.save(app.db, done)
    if csv_file:
        csv_file.parent.mkdir(parents=True, exist_ok=True)
        csv_file.write_text(evaluation.to_csv(done), encoding="utf-8")
    answer(as_json, [evaluation.facts(one) for one in done], lambda: _show(done, everything))


_SHORT = ("error_median", "error_mean", "hit_centre@1", "hit_footprint@1", "hit_footprint@10", "pdm@10",
          "heading_error_median", "margin_area")  # fmt: skip


def _show(done: Sequence[Evaluation], everything: bool) -> None:
    """A row per score and a column per run: six backbones fit beside each other, forty scores do not."""
    from coarseloc.scores import BY_KEY, SCORES

    shown = SCORES if everything else [BY_KEY[key] for key in _SHORT]
    rows: list[tuple[object, ...]] = [
        (f"{score.title} ({'↓' if score.better == 'lower' else '↑'})", *(_cell(one, score.key) for one in done))
        for score in shown
    ]
    for what, field in (("frames", "frames"), ("judged", "judged"), ("of these off the map", "off_map"),
                        ("without truth, left out", "without_truth"), ("failed, left out", "failed")):  # fmt: skip
        rows.append((what, *(getattr(one.counts, field) for one in done)))
    table("", *(f"{one.label} (run {one.run.id})" for one in done), rows=rows)
    if not everything:
        out.print("n in brackets where it is not all judged frames; --all shows every score with its interval")


def _cell(one: Evaluation, key: str) -> str:
    from coarseloc.scores import BY_KEY

    found, form = one.scores[key], FORMS[BY_KEY[key].unit]
    if math.isnan(found.value):
        return "–"
    interval = "" if math.isnan(found.low) else f" [{form.format(found.low)}, {form.format(found.high)}]"
    return form.format(found.value) + interval + ("" if found.n == one.counts.judged else f" (n {found.n})")
