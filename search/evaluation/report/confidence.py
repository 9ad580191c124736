"""Sections on the confidence of answers: agreement between backbones, margin against error, rejection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from coarseloc.i18n import Translator
from coarseloc.localize import metrics
from coarseloc.localize.places import agreement_matrix
from search.evaluation import rejection, scores
from search.evaluation.report import style
from search.evaluation.report.page import Section, Table
from search.evaluation.report.plotted_run import PlottedRun, estimate_text

_DOTS = 500  # of a scatter, for each series: more overlap


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
            partial(plot_margins, runs, translate),
        ),
        Section(
            "rejection",
            translate("Withholding unsure answers"),
            translate("Answers are withheld below a margin (left) or an agreement (right). An answer is right where the best "
                "footprint holds the truth; recall is of the frames on the map."),
            partial(plot_rejection, runs, translate),
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


def plot_margins(runs: Sequence[PlottedRun], translate: Translator) -> Figure:
    figure, axes = style.small_multiples(len(runs))
    for ax, run in zip(axes, runs, strict=True):
        frames = run.evaluation.frames
        margin, error = frames.margin, np.maximum(metrics.error_m(frames.ranked), 1.0)
        sampled = np.arange(len(frames)) % max(1, len(frames) // _DOTS) == 0
        for mask, marker, tone, alpha in (
            (sampled & frames.on_map, style.marker(run.index), style.colour(run.index), 0.6),
            (sampled & ~frames.on_map, "x", style.INK, 0.9),
        ):
            ax.plot(margin[mask], error[mask], linestyle="none", marker=marker, color=tone, markersize=3, alpha=alpha)
        ax.set_title(run.label)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    style.logarithmic(axes[0].yaxis)
    figure.supxlabel(translate("margin"), fontsize=10)
    figure.supylabel(translate("top-1 error, m (logarithmic)"), fontsize=10)
    return figure


def plot_rejection(runs: Sequence[PlottedRun], translate: Translator) -> Figure:
    figure, axes = style.new_figure(1, 2, 3.5, sharex=True, sharey=True)
    for ax, confidence in zip(axes, ("margin", "agreement"), strict=True):
        for run in runs:
            curve = rejection.curve(scores.rejection_samples(run.evaluation.frames, confidence))
            if len(curve.recall):
                line_style = style.line(run.index) | {"marker": "o" if len(curve.recall) < 12 else ""}
                ax.plot(curve.recall, curve.precision, label=run.label, **line_style)
        ax.set_title(translate("by margin") if confidence == "margin" else translate("by agreement"))
        ax.set(xlabel=translate("recall"), ylim=(-0.02, 1.05), xlim=(0, 1.02))
    axes[0].set_ylabel(translate("precision"))
    axes[0].legend(fontsize=8)
    return figure


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
