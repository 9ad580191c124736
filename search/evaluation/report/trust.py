"""Figures of how far an answer can be trusted: agreement between backbones, margin against error, rejection."""

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
from coarseloc.localize.agreement import agreeing
from search.evaluation import rejection, scores
from search.evaluation.report import style
from search.evaluation.report.page import Section, Table
from search.evaluation.report.series import Series, shown

_DOTS = 500  # of a scatter, for each series: more cannot be told apart


def sections(runs: Sequence[Series], say: Translator) -> list[Section]:
    """For runs with frames of known position."""
    found: list[Section] = []
    if len(runs) > 1:
        found.append(
            Section(
                "agreement",
                say("Agreement between backbones"),
                say("Share of frames for which two runs put the aircraft within {d} m of each other.").format(
                    d=f"{runs[0].of.agreement_m:.0f}"
                ),
                partial(agreement, runs, say),
            )
        )
    found += [
        Section(
            "margin-and-error",
            say("Margin against error"),
            say("The best place's score less the next place's. A margin can be trusted as far as large errors stay at "
                "its left end. Crosses are frames off the map, where every answer is wrong."),
            partial(margins, runs, say),
        ),
        Section(
            "rejection",
            say("Withholding unsure answers"),
            say("Answers are withheld below a margin (left) or an agreement (right). An answer is right where the best "
                "footprint holds the truth; recall is of the frames on the map."),
            partial(rejections, runs, say),
            table=_rejection_table(runs, say),
        ),
    ]  # fmt: skip
    return found


# --- figures ------------------------------------------------------------------------------------


def agreement(runs: Sequence[Series], say: Translator) -> Figure:
    shares = [[_shared(a, b) for b in runs] for a in runs]
    made, (ax,) = style.figure(height_in=1.1 + 0.42 * len(runs))
    tone = to_rgb(style.colour(0))
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            if x == y or math.isnan(share):
                continue
            # Half strength at most, so that the number on it reads in light and dark alike.
            ax.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=(*tone, 0.05 + 0.5 * share)))
            ax.text(x, y, f"{share:.0%}", ha="center", va="center", fontsize=9)
    names = [one.label for one in runs]
    crowded = len(runs) * max(map(len, names)) > 85
    ax.set_xticks(range(len(runs)), names, rotation=25 if crowded else 0, ha="right" if crowded else "center")
    ax.set_yticks(range(len(runs)), names)
    ax.set(xlim=(-0.5, len(runs) - 0.5), ylim=(len(runs) - 0.5, -0.5))
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return made


def margins(runs: Sequence[Series], say: Translator) -> Figure:
    made, axes = style.small_multiples(len(runs))
    for ax, one in zip(axes, runs, strict=True):
        judged = one.of.frames
        margin, error = judged.margin, np.maximum(metrics.error_m(judged.ranked), 1.0)
        some = np.arange(len(judged)) % max(1, len(judged) // _DOTS) == 0
        for keep, marker, tone, alpha in (
            (some & judged.on_map, style.marker(one.index), style.colour(one.index), 0.6),
            (some & ~judged.on_map, "x", style.INK, 0.9),
        ):
            ax.plot(margin[keep], error[keep], linestyle="none", marker=marker, color=tone, markersize=3, alpha=alpha)
        ax.set_title(one.label)
        ax.xaxis.set_major_locator(MaxNLocator(4))
    style.logarithmic(axes[0].yaxis)
    made.supxlabel(say("margin"), fontsize=10)
    made.supylabel(say("top-1 error, m (logarithmic)"), fontsize=10)
    return made


def rejections(runs: Sequence[Series], say: Translator) -> Figure:
    made, axes = style.figure(1, 2, 3.5, sharex=True, sharey=True)
    for ax, confidence in zip(axes, ("margin", "agreement"), strict=True):
        for one in runs:
            curve = rejection.curve(scores.rejection_samples(one.of.frames, confidence))
            if len(curve.recall):
                look = style.line(one.index) | {"marker": "o" if len(curve.recall) < 12 else ""}
                ax.plot(curve.recall, curve.precision, label=one.label, **look)
        ax.set_title(say("by margin") if confidence == "margin" else say("by agreement"))
        ax.set(xlabel=say("recall"), ylim=(-0.02, 1.05), xlim=(0, 1.02))
    axes[0].set_ylabel(say("precision"))
    axes[0].legend(fontsize=8)
    return made


# --- tables -------------------------------------------------------------------------------------


def _rejection_table(runs: Sequence[Series], say: Translator) -> Table:
    keys = ("margin_area", "margin_full_precision", "agreement_area", "agreement_full_precision")
    rows = [
        [
            one.label,
            *(shown(one.of.scores[key], scores.BY_KEY[key].unit) for key in keys),
            str(one.of.scores[keys[0]].n),
        ]
        for one in runs
    ]
    return Table(["", *(say(scores.BY_KEY[key].title) for key in keys), "n"], rows)


def _shared(a: Series, b: Series) -> float:
    """Share of the frames of one flight that both answered on which they agree."""
    if a.run.flight_id != b.run.flight_id:
        return math.nan
    first, second = ({r.frame.index: r.estimate for r in one.of.results if r.estimate} for one in (a, b))
    pairs = [[first[index], second[index]] for index in sorted(first.keys() & second.keys())]
    return float(np.mean([agreeing(pair, a.of.agreement_m)[0, 1] for pair in pairs])) if pairs else math.nan
