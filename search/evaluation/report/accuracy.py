"""Sections on places and headings against the truth, and on speed against accuracy."""

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
from search.evaluation.report import style
from search.evaluation.report.chart import Axis, Chart, Panel, Series
from search.evaluation.report.page import Section, Table, timing_text
from search.evaluation.report.plotted_run import (
    PlottedRun,
    estimate_text,
    group_by_timing,
    interval_text,
    n_eff_text,
    without_nan,
)

HEADLINE = (
    "error_median", "error_p90", "hit_centre@1", "hit_footprint@1", "hit_footprint@10", "hit_overlap@1", "ma@100",
    "sdm@10", "pdm@10", "heading_error_median", "heading_right", "margin_area", "margin_full_precision",
)  # fmt: skip
_GOLDEN = 0.618033988749895  # its multiples spread evenly over a row


def make_sections(runs: Sequence[PlottedRun], translate: Translator) -> list[Section]:
    """For runs with frames of known position."""
    sections = [
        Section(
            "scores",
            translate("Scores"),
            translate("Places are scored on the frames that the map shows, hits of one place merged; headings where the "
                "place is right; rejection on all frames. Beneath each n_eff, the number of independent frames that the "
                "correlated ones of the flight are worth, and from {least} of them on the 95 % interval. The best of a "
                "row is marked with a star.").format(least=f"{MIN_N_EFF:g}"),
            table=_score_table(runs, HEADLINE, translate),
            open=True,
            full_table=_score_table(runs, tuple(scores.BY_KEY), translate),
        ),
        Section(
            "error",
            translate("Error in metres"),
            translate("Great circle from the best place's centre to the truth. Boxes hold the middle half of the frames, "
                "whiskers reach from the 5th to the 95th percentile. Logarithmic."),
            partial(plot_errors, runs, translate),
            error_chart(runs, translate),
            table=_error_table(runs, translate),
        ),
        Section(
            "hit-curve",
            translate("Hits within a distance"),
            translate("Share of frames with a centre within so many metres. The grey line is what the grid of references "
                "allows: no search can pass it."),
            chart=hit_chart(runs, translate),
            table=_hit_table(runs, translate),
        ),
        Section(
            "speed-and-accuracy",
            translate("Speed against accuracy"),
            translate("Median error against median embedding plus search, without decoding the image, with the error's 95 % "
                "interval where n_eff allows one. The line joins the runs that no other beats in both, among those timed alike."),
            partial(plot_pareto, runs, translate),
            pareto_chart(runs, translate),
            table=_pareto_table(runs, translate),
        ),
    ]  # fmt: skip
    if any(run.evaluation.scores["heading_error_median"].n for run in runs):
        sections.append(
            Section(
                "heading",
                translate("Heading error"),
                translate("Between the best hit's angle and the frame's yaw, where the place is right. References 45 degrees "
                    "apart cannot do better than spread evenly from 0 to 22.5."),
                partial(plot_heading_errors, runs, translate),
            )
        )  # fmt: skip
    return sections


# --- figures ------------------------------------------------------------------------------------


def plot_errors(runs: Sequence[PlottedRun], translate: Translator) -> Figure:
    figure, (ax,) = style.new_figure(height_in=0.9 + 0.4 * len(runs))
    style.boxes(ax, [_errors_m(run) for run in runs], [style.colour(run.index) for run in runs], vertical=False)
    ax.set_yticks(range(1, len(runs) + 1), [run.label for run in runs])
    ax.invert_yaxis()
    style.logarithmic(ax.xaxis)
    ax.set_xlabel(translate("top-1 error, m"))
    ax.grid(axis="y", visible=False)
    return figure


def error_chart(runs: Sequence[PlottedRun], translate: Translator) -> Chart:
    """A row for each run: every frame at its error, spread over the height of the row."""
    series = []
    for row, run in enumerate(runs):
        frames = run.evaluation.frames.frame[run.evaluation.frames.on_map]
        spread = (frames.astype(np.float64) * _GOLDEN) % 1.0 - 0.5
        series.append(
            Series(run.label, run.index, _errors_m(run), row + 0.6 * spread, "points", frames=frames, run=run.stored.id)
        )
    return Chart(
        Axis(translate("top-1 error, m"), logarithmic=True),
        Axis("", names=[run.label for run in runs]),
        [Panel("", series)],
    )


def hit_chart(runs: Sequence[PlottedRun], translate: Translator) -> Chart:
    """The share of frames with a centre within so many metres, of the best place and of the ten best."""
    panels = []
    for k, title in ((1, translate("best place")), (10, translate("any of the top {k}").format(k=10))):
        series = [
            Series(
                translate("the grid"), 0, np.array(list(ceiling), float), np.array(list(ceiling.values())), muted=True
            )
            for ceiling in grid_ceilings(runs)
        ]
        for run in runs:
            curve = run.evaluation.hit_curves[k]
            shares = np.array([share.value for share in curve.values()])
            series.append(Series(run.label, run.index, np.array(list(curve), float), shares, run=run.stored.id))
        panels.append(Panel(title, series))
    share = Axis(translate("share of frames"), percent=True, ends=(-0.02, 1.02))
    return Chart(Axis(translate("within metres")), share, panels)


def grid_ceilings(runs: Sequence[PlottedRun]) -> list[Mapping[int, float]]:
    """The ceiling of each reference set's grid on each flight."""
    return list(
        {(run.stored.flight_id, run.stored.reference_set.name): run.evaluation.ceiling for run in runs}.values()
    )


def plot_pareto(runs: Sequence[PlottedRun], translate: Translator) -> Figure:
    groups = group_by_timing(runs, translate)
    figure, axes = style.new_figure(len(groups), 1, 1.0 + 3.0 * len(groups), sharex=True, sharey=True)
    front_labels = pareto_labels(runs)
    for ax, (title, group) in zip(axes, groups, strict=True):
        front = sorted((run for run in group if run.label in front_labels), key=lambda run: run.median_ms)
        front_points = [run.median_ms for run in front], [_median_error(run).value for run in front]
        ax.plot(*front_points, color=style.MUTED, linewidth=1.2)
        for run in group:
            error = _median_error(run)
            if math.isnan(error.value):
                continue
            interval = [[max(0.0, error.value - error.low)], [max(0.0, error.high - error.value)]]
            ax.errorbar(
                run.median_ms, error.value, interval, color=style.colour(run.index), marker=style.marker(run.index),
                markersize=8, capsize=3, linewidth=1.2, linestyle="none",
            )  # fmt: skip
        ax.set_title(title)
        ax.margins(x=0.18)
        ax.set_ylabel(translate("median top-1 error, m (logarithmic)"))
    style.logarithmic(axes[-1].xaxis)
    style.logarithmic(axes[-1].yaxis)
    axes[-1].set_xlabel(translate("embedding + search, median ms (logarithmic)"))
    for ax, (_, group) in zip(axes, groups, strict=True):  # when the scales, which they share, are set
        style.label_points(
            ax, [(run.median_ms, _median_error(run).value, run.label) for run in group if _median_error(run).n]
        )
    return figure


def pareto_chart(runs: Sequence[PlottedRun], translate: Translator) -> Chart:
    """Each run's median error against its median time; the line joins those that no other beats."""
    front_labels, panels = pareto_labels(runs), []
    for title, group in group_by_timing(runs, translate):
        ordered = sorted((run for run in group if run.label in front_labels), key=lambda run: run.median_ms)
        front = np.array([(run.median_ms, _median_error(run).value) for run in ordered]).reshape(-1, 2)
        series = [Series("", 0, front[:, 0], front[:, 1], muted=True)]
        for run in group:
            x, y, low, high = (
                np.array([value])
                for value in (run.median_ms, *(getattr(_median_error(run), name) for name in ("value", "low", "high")))
            )
            series.append(Series(run.label, run.index, x, y, "points", low, high, run=run.stored.id))
        panels.append(Panel(title, series))
    return Chart(
        Axis(translate("embedding + search, median ms (logarithmic)"), logarithmic=True),
        Axis(translate("median top-1 error, m (logarithmic)"), logarithmic=True),
        panels,
    )


def plot_heading_errors(runs: Sequence[PlottedRun], translate: Translator) -> Figure:
    figure, axes = style.small_multiples(len(runs), 1.8)
    for ax, run in zip(axes, runs, strict=True):
        values = without_nan(metrics.heading_error_deg(run.evaluation.frames.ranked))
        ax.hist(
            values,
            bins=np.arange(0, 180.1, 7.5).tolist(),
            color=style.colour(run.index),
            weights=np.full(len(values), 1 / max(1, len(values))),
        )
        ax.axvline(22.5, color=style.MUTED, linewidth=1, linestyle=(0, (3, 2)))
        ax.set_title(f"{run.label} (n {len(values)})")
        ax.set_xticks([0, 45, 90, 135, 180])
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.supxlabel(translate("heading error, degrees; dashed: half a step of 45"), fontsize=10)
    figure.supylabel(translate("share"), fontsize=10)
    return figure


# --- tables -------------------------------------------------------------------------------------


def _score_table(runs: Sequence[PlottedRun], keys: Sequence[str], translate: Translator) -> Table:
    rows = []
    for score in map(scores.BY_KEY.__getitem__, keys):
        estimates = [run.evaluation.scores[score.key] for run in runs]
        if not any(estimate.n for estimate in estimates):
            continue
        values = [estimate.value for estimate in estimates if not math.isnan(estimate.value)]
        best = (min if score.better == "lower" else max)(values, default=math.nan)
        star = " ★" if len(set(values)) > 1 else ""
        cells = [_stacked(estimate, score.unit, star if estimate.value == best else "") for estimate in estimates]
        counts = sorted({estimate.n for estimate in estimates})
        unit = f", {score.unit}" if score.unit in ("m", "°") else ""
        rows.append(
            [
                translate(score.title) + unit,
                "↓" if score.better == "lower" else "↑",
                *cells,
                "–".join(map(str, (counts[0], counts[-1])[: len(counts)])),
            ]
        )
    return Table([translate("metric"), "", *(run.label for run in runs), "n"], rows)


def _stacked(estimate: IntervalEstimate, unit: str, star: str) -> str:
    """The figure, its interval and its n_eff on lines of their own."""
    value = estimate_text(estimate, unit, interval=False) + star
    return "\n".join(
        [value, *filter(None, [interval_text(estimate, unit)]), *([n_eff_text(estimate)] if estimate.n else [])]
    )


def _error_table(runs: Sequence[PlottedRun], translate: Translator) -> Table:
    keys = ("error_median", "error_mean", "error_p90", "best10_error_median")
    rows = [
        [
            run.label,
            *(estimate_text(run.evaluation.scores[key], "m") for key in keys),
            str(run.evaluation.scores[keys[0]].n),
        ]
        for run in runs
    ]
    return Table(["", *(translate(scores.BY_KEY[key].title) + ", m" for key in keys), "n"], rows)


def _hit_table(runs: Sequence[PlottedRun], translate: Translator) -> Table:
    rows = []
    for k in (1, 5, 10):
        for run in runs:
            curve = run.evaluation.hit_curves[k]
            shares = [estimate_text(share, "%", interval=False) for share in curve.values()]
            rows.append([f"{run.label}, {translate('top')} {k}", *shares, str(next(iter(curve.values())).n)])
    ceilings = grid_ceilings(runs)
    rows += [[translate("the grid"), *(f"{share:.1%}" for share in ceiling.values()), ""] for ceiling in ceilings]
    return Table([translate("within metres"), *(str(d) for d in ceilings[0]), "n"], rows)


def _pareto_table(runs: Sequence[PlottedRun], translate: Translator) -> Table:
    front_labels = pareto_labels(runs)
    ordered = [(title, run) for title, group in group_by_timing(runs, translate) for run in group]
    rows = [
        [run.label, f"{run.median_ms:.1f}", estimate_text(_median_error(run), "m"), translate("yes") if run.label in front_labels else "",
         str(_median_error(run).n), title or timing_text(run.batch, translate)]
        for title, run in ordered
    ]  # fmt: skip
    marked = frozenset(i for i, (_, run) in enumerate(ordered) if run.label in front_labels)
    columns = [
        "",
        translate("embedding + search, median ms"),
        translate("median error, m"),
        translate("unbeaten"),
        "n",
        translate("taken"),
    ]
    return Table(columns, rows, marked)


def pareto_labels(runs: Sequence[PlottedRun]) -> set[str]:
    """The labels of runs on the Pareto front of speed and accuracy among those timed alike."""
    return pareto_front(
        {run.label: RunCost(run.median_ms, _median_error(run).value, conditions(run.stored)) for run in runs}
    )


# --- numbers ------------------------------------------------------------------------------------


def _errors_m(run: PlottedRun) -> Floats:
    return np.maximum(
        metrics.error_m(run.evaluation.frames.ranked)[run.evaluation.frames.on_map], 1.0
    )  # logarithms begin at a metre


def _median_error(run: PlottedRun) -> IntervalEstimate:
    return run.evaluation.scores["error_median"]
