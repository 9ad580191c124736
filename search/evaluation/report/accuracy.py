"""Figures of places and headings against the truth, and of what accuracy costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from coarseloc.core.types import Floats
from coarseloc.i18n import Translator
from coarseloc.localize import metrics
from search.environment import conditions
from search.evaluation import scores
from search.evaluation.intervals import MIN_N_EFF, IntervalEstimate
from search.evaluation.pareto import RunCost, pareto_front
from search.evaluation.report import style, trust
from search.evaluation.report.page import Section, Table
from search.evaluation.report.series import Series, ends_shown, known, n_eff_shown, shown, timed_alike
from search.evaluation.report.texts import how_timed

HEADLINE = (
    "error_median", "error_p90", "hit_centre@1", "hit_footprint@1", "hit_footprint@10", "hit_overlap@1", "ma@100",
    "sdm@10", "pdm@10", "heading_error_median", "heading_right", "margin_area", "margin_full_precision",
)  # fmt: skip


def sections(runs: Sequence[Series], say: Translator) -> list[Section]:
    """For runs with frames of known position."""
    found = [
        Section(
            "scores",
            say("Scores"),
            say("Places are scored on the frames that the map shows, hits of one place merged; headings where the "
                "place is right; rejection on all frames. Beneath each n_eff, the number of independent frames that the "
                "correlated ones of the flight are worth, and from {least} of them on the 95 % interval. The best of a "
                "row is marked with a star.").format(least=f"{MIN_N_EFF:g}"),
            table=_score_table(runs, HEADLINE, say),
            open=True,
            more=_score_table(runs, tuple(scores.BY_KEY), say),
        ),
        Section(
            "error",
            say("Error in metres"),
            say("Great circle from the best place's centre to the truth. Boxes hold the middle half of the frames, "
                "whiskers reach from the 5th to the 95th percentile. Logarithmic."),
            partial(errors, runs, say),
            table=_error_table(runs, say),
        ),
        Section(
            "hit-curve",
            say("Hits within a distance"),
            say("Share of frames with a centre within so many metres. The grey line is what the grid of references "
                "allows: no search can pass it."),
            partial(hit_curves, runs, say),
            table=_hit_table(runs, say),
        ),
        Section(
            "speed-and-accuracy",
            say("Speed against accuracy"),
            say("Median error against median embedding plus search, without decoding the image, with the error's 95 % "
                "interval where n_eff allows one. The line joins the runs that no other beats in both, among those timed alike."),
            partial(pareto, runs, say),
            table=_pareto_table(runs, say),
        ),
    ]  # fmt: skip
    if any(one.of.scores["heading_error_median"].n for one in runs):
        found.append(
            Section(
                "heading",
                say("Heading error"),
                say("Between the best hit's angle and the frame's yaw, where the place is right. References 45 degrees "
                    "apart cannot do better than spread evenly from 0 to 22.5."),
                partial(headings, runs, say),
            )
        )  # fmt: skip
    return found + trust.sections(runs, say)


# --- figures ------------------------------------------------------------------------------------


def errors(runs: Sequence[Series], say: Translator) -> Figure:
    made, (ax,) = style.figure(height_in=0.9 + 0.4 * len(runs))
    style.boxes(ax, [_errors(one) for one in runs], [style.colour(one.index) for one in runs], vertical=False)
    ax.set_yticks(range(1, len(runs) + 1), [one.label for one in runs])
    ax.invert_yaxis()
    style.logarithmic(ax.xaxis)
    ax.set_xlabel(say("top-1 error, m"))
    ax.grid(axis="y", visible=False)
    return made


def hit_curves(runs: Sequence[Series], say: Translator) -> Figure:
    made, axes = style.figure(1, 2, 3.6, sharey=True)
    for ax, k in zip(axes, (1, 10), strict=True):
        for i, limit in enumerate(ceilings(runs)):
            name = say("the grid") if i == 0 else None
            ax.plot(list(limit), list(limit.values()), color=style.MUTED, linewidth=1.2, label=name)
        for one in runs:
            curve = one.of.hit_curves[k]
            ax.plot(list(curve), [share.value for share in curve.values()], label=one.label, **style.line(one.index))
        ax.set_title(say("best place") if k == 1 else say("any of the top {k}").format(k=k))
        ax.set(xlabel=say("within metres"), ylim=(-0.02, 1.02))
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    axes[0].set_ylabel(say("share of frames"))
    axes[0].legend(fontsize=8, loc="best")
    return made


def ceilings(runs: Sequence[Series]) -> list[Mapping[int, float]]:
    """What each grid of references allows on each flight."""
    return list({(one.run.flight_id, one.run.reference_set.name): one.of.ceiling for one in runs}.values())


def pareto(runs: Sequence[Series], say: Translator) -> Figure:
    groups = timed_alike(runs, say)
    made, axes = style.figure(len(groups), 1, 1.0 + 3.0 * len(groups), sharex=True, sharey=True)
    best = pareto_best(runs)
    for ax, (title, alike) in zip(axes, groups, strict=True):
        front = sorted((one for one in alike if one.label in best), key=lambda one: one.median_ms)
        spots = [one.median_ms for one in front], [_accuracy(one).value for one in front]
        ax.plot(*spots, color=style.MUTED, linewidth=1.2)
        for one in alike:
            found = _accuracy(one)
            if math.isnan(found.value):
                continue
            spread = [[max(0.0, found.value - found.low)], [max(0.0, found.high - found.value)]]
            ax.errorbar(
                one.median_ms, found.value, spread, color=style.colour(one.index), marker=style.marker(one.index),
                markersize=8, capsize=3, linewidth=1.2, linestyle="none",
            )  # fmt: skip
        ax.set_title(title)
        ax.margins(x=0.18)
        ax.set_ylabel(say("median top-1 error, m (logarithmic)"))
    style.logarithmic(axes[-1].xaxis)
    style.logarithmic(axes[-1].yaxis)
    axes[-1].set_xlabel(say("embedding + search, median ms (logarithmic)"))
    for ax, (_, alike) in zip(axes, groups, strict=True):  # when the scales, which they share, are set
        style.label_points(ax, [(one.median_ms, _accuracy(one).value, one.label) for one in alike if _accuracy(one).n])
    return made


def headings(runs: Sequence[Series], say: Translator) -> Figure:
    made, axes = style.small_multiples(len(runs), 1.8)
    for ax, one in zip(axes, runs, strict=True):
        values = known(metrics.heading_error_deg(one.of.frames.ranked))
        ax.hist(
            values,
            bins=np.arange(0, 180.1, 7.5).tolist(),
            color=style.colour(one.index),
            weights=np.full(len(values), 1 / max(1, len(values))),
        )
        ax.axvline(22.5, color=style.MUTED, linewidth=1, linestyle=(0, (3, 2)))
        ax.set_title(f"{one.label} (n {len(values)})")
        ax.set_xticks([0, 45, 90, 135, 180])
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    made.supxlabel(say("heading error, degrees; dashed: half a step of 45"), fontsize=10)
    made.supylabel(say("share"), fontsize=10)
    return made


# --- tables -------------------------------------------------------------------------------------


def _score_table(runs: Sequence[Series], keys: Sequence[str], say: Translator) -> Table:
    rows = []
    for score in map(scores.BY_KEY.__getitem__, keys):
        found = [one.of.scores[score.key] for one in runs]
        if not any(each.n for each in found):
            continue
        known = [each.value for each in found if not math.isnan(each.value)]
        best = (min if score.better == "lower" else max)(known, default=math.nan)
        star = " ★" if len(set(known)) > 1 else ""
        cells = [_stacked(each, score.unit, star if each.value == best else "") for each in found]
        n = sorted({each.n for each in found})
        unit = f", {score.unit}" if score.unit in ("m", "°") else ""
        rows.append(
            [
                say(score.title) + unit,
                "↓" if score.better == "lower" else "↑",
                *cells,
                "–".join(map(str, (n[0], n[-1])[: len(n)])),
            ]
        )
    return Table([say("metric"), "", *(one.label for one in runs), "n"], rows)


def _stacked(found: IntervalEstimate, unit: str, mark: str) -> str:
    """The figure, its interval and its n_eff on lines of their own."""
    value = shown(found, unit, interval=False) + mark
    return "\n".join([value, *filter(None, [ends_shown(found, unit)]), *([n_eff_shown(found)] if found.n else [])])


def _error_table(runs: Sequence[Series], say: Translator) -> Table:
    keys = ("error_median", "error_mean", "error_p90", "best10_error_median")
    rows = [
        [one.label, *(shown(one.of.scores[key], "m") for key in keys), str(one.of.scores[keys[0]].n)] for one in runs
    ]
    return Table(["", *(say(scores.BY_KEY[key].title) + ", m" for key in keys), "n"], rows)


def _hit_table(runs: Sequence[Series], say: Translator) -> Table:
    rows = []
    for k in (1, 5, 10):
        for one in runs:
            curve = one.of.hit_curves[k]
            shares = [shown(share, "%", interval=False) for share in curve.values()]
            rows.append([f"{one.label}, {say('top')} {k}", *shares, str(next(iter(curve.values())).n)])
    limits = ceilings(runs)
    rows += [[say("the grid"), *(f"{share:.1%}" for share in limit.values()), ""] for limit in limits]
    return Table([say("within metres"), *(str(d) for d in limits[0]), "n"], rows)


def _pareto_table(runs: Sequence[Series], say: Translator) -> Table:
    best = pareto_best(runs)
    ordered = [(title, one) for title, alike in timed_alike(runs, say) for one in alike]
    rows = [
        [one.label, f"{one.median_ms:.1f}", shown(_accuracy(one), "m"), say("yes") if one.label in best else "",
         str(_accuracy(one).n), title or how_timed(one.run.parameters.get("batch"), say)]
        for title, one in ordered
    ]  # fmt: skip
    marked = frozenset(i for i, (_, one) in enumerate(ordered) if one.label in best)
    columns = ["", say("embedding + search, median ms"), say("median error, m"), say("unbeaten"), "n", say("taken")]
    return Table(columns, rows, marked)


def pareto_best(runs: Sequence[Series]) -> set[str]:
    """The labels of runs that no other, timed alike, beats in both speed and accuracy."""
    return pareto_front({one.label: RunCost(one.median_ms, _accuracy(one).value, conditions(one.run)) for one in runs})


# --- figures' own numbers -----------------------------------------------------------------------


def _errors(one: Series) -> Floats:
    return np.maximum(metrics.error_m(one.of.frames.ranked)[one.of.frames.on_map], 1.0)  # logarithms begin at a metre


def _accuracy(one: Series) -> IntervalEstimate:
    return one.of.scores["error_median"]
