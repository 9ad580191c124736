"""Sections on the confidence of answers: agreement between backbones, margin against error, rejection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from coarseloc.i18n import Translator
from coarseloc.localize import metrics
from coarseloc.localize.places import agreement_matrix
from search.evaluation import rejection, scores
from search.evaluation.report import style
from search.evaluation.report.chart import Axis, Chart, Panel, Series
from search.evaluation.report.page import Section, Table
from search.evaluation.report.plotted_run import PlottedRun, estimate_text


def make_sections(runs: Sequence[PlottedRun], translate: Translator) -> list[Section]:
    """For runs with frames of known position."""
    sections: list[Section] = []
    if len(runs) > 1:
        sections.append(
            Section(
                "agreement",
                translate("Agreement between backbones"),
                translate("Share of frames for which two runs put the aircraft within {d} m of each other.").format(
                    d=f"{runs[0].evaluation.agreement_m:.0f}"
                ),
                partial(plot_agreement, runs, translate),
            )
        )
    sections += [
        Section(
            "margin-and-error",
            translate("Margin against error"),
            translate("The best place's score less the next place's. A margin can be trusted as far as large errors stay at "
                "its left end. Crosses are frames off the map, where every answer is wrong."),
            chart=margin_chart(runs, translate),
        ),
        Section(
            "rejection",
            translate("Withholding unsure answers"),
            translate("Answers are withheld below a margin (left) or an agreement (right). An answer is right where the best "
                "footprint holds the truth; recall is of the frames on the map."),
            chart=rejection_chart(runs, translate),
            table=_rejection_table(runs, translate),
        ),
    ]  # fmt: skip
    return sections


# --- figures ------------------------------------------------------------------------------------


def plot_agreement(runs: Sequence[PlottedRun], translate: Translator) -> Figure:
    shares = [[_agreement_share(a, b) for b in runs] for a in runs]
    figure, (ax,) = style.new_figure(height_in=1.1 + 0.42 * len(runs))
    tone = to_rgb(style.colour(0))
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            if x == y or math.isnan(share):
                continue
            # Half strength at most, so that the number on it reads in light and dark alike.
            ax.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=(*tone, 0.05 + 0.5 * share)))
            ax.text(x, y, f"{share:.0%}", ha="center", va="center", fontsize=9)
    names = [run.label for run in runs]
    crowded = len(runs) * max(map(len, names)) > 85
    ax.set_xticks(range(len(runs)), names, rotation=25 if crowded else 0, ha="right" if crowded else "center")
    ax.set_yticks(range(len(runs)), names)
    ax.set(xlim=(-0.5, len(runs) - 0.5), ylim=(len(runs) - 0.5, -0.5))
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return figure


def margin_chart(runs: Sequence[PlottedRun], translate: Translator) -> Chart:
    """A panel for each run: every frame's error against its margin, those off the map apart."""
    panels = []
    for run in runs:
        frames = run.evaluation.frames
        error = np.maximum(metrics.error_m(frames.ranked), 1.0)
        series = [
            Series(
                label, run.index, frames.margin[mask], error[mask], "points", frames=frames.frame[mask],
                run=run.stored.id, muted=muted,
            )
            for label, mask, muted in (
                (translate("on the map"), frames.on_map, False),
                (translate("off the map"), ~frames.on_map, True),
            )
            if mask.any()
        ]  # fmt: skip
        panels.append(Panel(run.label, series))
    return Chart(Axis(translate("margin")), Axis(translate("top-1 error, m (logarithmic)"), logarithmic=True), panels)


def rejection_chart(runs: Sequence[PlottedRun], translate: Translator) -> Chart:
    """Precision over recall as fewer answers are kept: by their margin, by their agreement."""
    panels = []
    for confidence, title in (("margin", translate("by margin")), ("agreement", translate("by agreement"))):
        curves = [rejection.curve(scores.rejection_samples(run.evaluation.frames, confidence)) for run in runs]
        series = [
            Series(run.label, run.index, curve.recall, curve.precision, run=run.stored.id)
            for run, curve in zip(runs, curves, strict=True)
            if len(curve.recall)
        ]
        panels.append(Panel(title, series))
    return Chart(
        Axis(translate("recall"), percent=True, ends=(0, 1.02)),
        Axis(translate("precision"), percent=True, ends=(-0.02, 1.05)),
        panels,
    )


# --- tables -------------------------------------------------------------------------------------


def _rejection_table(runs: Sequence[PlottedRun], translate: Translator) -> Table:
    keys = ("margin_area", "margin_full_precision", "agreement_area", "agreement_full_precision")
    rows = [
        [
            run.label,
            *(estimate_text(run.evaluation.scores[key], scores.BY_KEY[key].unit) for key in keys),
            str(run.evaluation.scores[keys[0]].n),
        ]
        for run in runs
    ]
    return Table(["", *(translate(scores.BY_KEY[key].title) for key in keys), "n"], rows)


def _agreement_share(a: PlottedRun, b: PlottedRun) -> float:
    """Share of the frames of one flight that both answered on which they agree."""
    if a.stored.flight_id != b.stored.flight_id:
        return math.nan
    estimates_a, estimates_b = (
        {result.frame.index: result.estimate for result in run.evaluation.results if result.estimate} for run in (a, b)
    )
    pairs = [[estimates_a[index], estimates_b[index]] for index in sorted(estimates_a.keys() & estimates_b.keys())]
    return (
        float(np.mean([agreement_matrix(pair, a.evaluation.agreement_m)[0, 1] for pair in pairs]))
        if pairs
        else math.nan
    )
