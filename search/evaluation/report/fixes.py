"""Sections on fixes: errors of ground and aircraft, ellipses, probability, and frames without a match.

A whole map's fixes are the baseline without any backbone, told beside those of the backbones.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from coarseloc.core.types import Floats, Frame
from coarseloc.i18n import Translator
from coarseloc.localize import metrics
from search.evaluation.fix_evaluation import POINTS, FixEvaluation
from search.evaluation.fix_scores import (
    COVERAGES,
    FIX_SCORES,
    FIX_SCORES_BY_KEY,
    FixPoint,
    FixScore,
    ReliabilityBin,
    distance_m,
)
from search.evaluation.intervals import IntervalEstimate
from search.evaluation.report import pictures, style
from search.evaluation.report.chart import Axis, Chart, Panel, Series
from search.evaluation.report.page import Section, Table
from search.evaluation.report.plotted_run import PlottedRun, n_eff_text

HEADLINE = (
    "fix_ground_error_median", "fix_ground_error_p90", "fix_aircraft_error_median", "fix_aircraft_error_p90",
    "fix_ground_within@5", "fix_aircraft_within@5", "fix_heading_error_median", "fix_right", "fix_wrong_matches",
    "fix_verify_median",
)  # fmt: skip
UNMATCHED_COUNT = 24  # frames without a match whose thumbnails are shown
_NEAREST_M, _FARTHEST_M = 0.01, 5_000.0  # of the logarithmic axis of errors


@dataclass(frozen=True, eq=False)
class PlottedFixes:
    """Fixes of one run or whole map, with what its figures are drawn in, and the run's best places."""

    label: str
    index: int  # its colour, marker and dash
    evaluation: FixEvaluation
    run: PlottedRun | None


def plotted_fixes(
    runs: Sequence[PlottedRun], whole_maps: Sequence[FixEvaluation], translate: Translator
) -> list[PlottedFixes]:
    """Of runs in their colours, then of whole maps, named by their reference set where there are several."""
    plotted = [
        PlottedFixes(run.label, run.index, run.evaluation.fixes, run)
        for run in runs
        if run.evaluation.fixes is not None
    ]
    for index, whole_map in enumerate(whole_maps, start=len(runs)):
        several = len(whole_maps) > 1
        details = f", {whole_map.reference_set}, {whole_map.flight_id}" if several else ""
        plotted.append(PlottedFixes(translate("no backbone") + details, index, whole_map, None))
    return plotted


def make_sections(fixes: Sequence[PlottedFixes], translate: Translator) -> list[Section]:
    """The sections that need no files of frames; none where nothing was looked for on a map."""
    with_truth = [plotted for plotted in fixes if len(plotted.evaluation.fixes)]
    if not with_truth:
        return []
    sections = [
        Section(
            "fixes",
            translate("Fixes in metres"),
            translate("Each frame's best places looked at in metres; without a backbone, the whole map. Shares of all "
                "frames that the map shows: what has no match is nowhere near. Dotted: the best place's centre, as a "
                "search gives it. A fix is right within 0.05 of the frame's width, and whatever the truth may be off.")
            + _lever_note(with_truth, translate),
            chart=error_chart(with_truth, translate),
            table=_headline_table(with_truth, translate),
            open=True,
            full_table=_score_table(with_truth, FIX_SCORES, translate),
        )
    ]  # fmt: skip
    if any(_coverage(plotted, point, COVERAGES[-1]).n for plotted in with_truth for point in POINTS):
        sections.append(
            Section(
                "fix-ellipses",
                translate("Whether ellipses hold the truth"),
                translate("Share of right fixes whose 50 % and 95 % ellipse holds the truth, the truth's own error "
                    "included, with its 95 % interval where n_eff allows one: on the line it is as stated, above it "
                    "ellipses are too large. NEES is 2 on average where covariances are right; of so many independent "
                    "frames its mean then lies in the range named."),
                partial(plot_coverage, with_truth, translate),
                table=_coverage_table(with_truth, translate),
                open=True,
            )
        )  # fmt: skip
    sections.append(
        Section(
            "fix-probability",
            translate("Whether the probability can be trusted"),
            translate("Left: the share of fixes that are right against the probability they state, in tenths. "
                "Right: precision and recall as fewer are accepted by their probability; a frame without a "
                "match keeps no position, so the curve ends where a match begins. None wrong of n is not none wrong: "
                "the bound is exact, at 95 %."),
            partial(plot_probability, with_truth, translate),
            table=_probability_table(with_truth, translate),
            open=True,
            full_table=_bin_table(with_truth, translate),
        )
    )  # fmt: skip
    return sections


def unmatched_section(fixes: Sequence[PlottedFixes], translate: Translator) -> Section | None:
    """Thumbnails of frames that have no fix, with the reason; None where every frame has one."""
    reasons: dict[tuple[str, int], tuple[Frame, list[str]]] = {}
    for plotted in fixes:
        for frame, fix in plotted.evaluation.answers:
            if fix.pose is None:
                state = translate("no match") if fix.match is False else translate("not looked for")
                line = f"{plotted.label}: {state}, {reason_text(fix.reason or '', translate)}"
                key = plotted.evaluation.flight_id, frame.index
                reasons.setdefault(key, (frame, []))[1].append(line)
    if not reasons:
        return None
    rows = [reasons[key] for key in sorted(reasons)]
    tiles = "".join(_unmatched(frame, lines, translate) for frame, lines in rows[:UNMATCHED_COUNT])
    hidden = len(rows) - UNMATCHED_COUNT
    return Section(
        "no-match",
        translate("Frames without a match"),
        translate("No position is known of these frames, and none is shown. Water, one crop and forest look the same "
            "everywhere; a frame off the map has no place on it.")
        + (" " + translate("{n} more are left out.").format(n=hidden) if hidden > 0 else ""),
        body=f'<div class="unmatched">{tiles}</div>',
        table=_reason_table(fixes, translate),
        open=True,
    )  # fmt: skip


def reason_text(reason: str, translate: Translator) -> str:
    """Why there is no match, for a reader; a reason that is a sentence already stays one."""
    texts = {
        "ambiguous": translate("nothing tells its best place from the next"),
        "no-ground": translate("nowhere does enough of it lie on the map"),
    }
    return texts.get(reason, reason)


def _unmatched(frame: Frame, lines: Sequence[str], translate: Translator) -> str:
    reasons = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<div class="frame">{pictures.query(frame, translate)}<ul class="reasons">{reasons}</ul></div>'


def _lever_note(fixes: Sequence[PlottedFixes], translate: Translator) -> str:
    if all(plotted.evaluation.counts.line_of_sight for plotted in fixes if plotted.evaluation.fixes.match.any()):
        return ""
    return " " + translate(
        "The truth is the aircraft's position: where labels lack its pitch, roll or altitude above ground, or the "
        "camera's field of view is unknown, a ground error holds the tilt's lever, and no ellipse is judged by it."
    )


# --- figures ------------------------------------------------------------------------------------


def error_chart(fixes: Sequence[PlottedFixes], translate: Translator) -> Chart:
    """The share of frames whose fix is so near, of the ground and of the aircraft; dotted: their best place."""
    titles = {"ground": translate("ground under the middle"), "aircraft": translate("aircraft")}
    panels = []
    for point in POINTS:
        series = [_best_places(plotted.run) for plotted in fixes if plotted.run is not None]
        for plotted in fixes:
            distances, run = distance_m(plotted.evaluation.fixes, point), plotted.evaluation.run
            if np.isfinite(distances).any():
                frames = plotted.evaluation.fixes.frame[plotted.evaluation.fixes.on_map]
                series.append(
                    _distribution(plotted.label, plotted.index, distances, frames, None if run is None else run.id)
                )
        panels.append(Panel(titles[point], series))
    return Chart(
        Axis(translate("within metres (logarithmic)"), logarithmic=True, ends=(_NEAREST_M, _FARTHEST_M)),
        Axis(translate("share of frames"), percent=True, ends=(-0.02, 1.02)),
        panels,
    )


def _best_places(run: PlottedRun) -> Series:
    frames = run.evaluation.frames
    distances = metrics.error_m(frames.ranked)[frames.on_map]
    series = _distribution("", run.index, distances, frames.frame[frames.on_map], run.stored.id)
    return replace(series, dotted=True)


def _distribution(label: str, index: int, distances: Floats, frames: NDArray[np.int64], run: int | None) -> Series:
    """Steps of the share of frames that are so near; an infinite distance is never reached."""
    order = np.argsort(distances)[: np.isfinite(distances).sum()]
    reached = np.clip(distances[order], _NEAREST_M, _FARTHEST_M)
    shares = np.arange(1, len(order) + 1) / max(1, len(distances))
    return Series(label, index, reached, shares, "steps", frames=frames[order], run=run)


def plot_coverage(fixes: Sequence[PlottedFixes], translate: Translator) -> Figure:
    figure, axes = style.new_figure(1, 2, 3.2, sharey=True)
    titles = {"ground": translate("ground under the middle"), "aircraft": translate("aircraft")}
    spread = 0.7 / max(1, len(fixes))
    for ax, point in zip(axes, POINTS, strict=True):
        for position, level in enumerate(COVERAGES):
            ax.plot([position - 0.45, position + 0.45], [level, level], color=style.MUTED, linewidth=1.2)
            for i, plotted in enumerate(fixes):
                share = _coverage(plotted, point, level)
                if share.n:
                    x = position + (i - (len(fixes) - 1) / 2) * spread
                    label = plotted.label if position == 0 else None
                    _plot_estimate(ax, x, share, plotted.index, label)
        ax.set_xticks(range(len(COVERAGES)), [f"{level:.0%}" for level in COVERAGES])
        ax.set_title(titles[point])
        ax.set(xlabel=translate("stated"), ylim=(-0.03, 1.06), xlim=(-0.6, len(COVERAGES) - 0.4))
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    axes[0].set_ylabel(translate("holds the truth"))
    style.legend_above(axes[0] if axes[0].get_legend_handles_labels()[0] else axes[1])
    return figure


def plot_probability(fixes: Sequence[PlottedFixes], translate: Translator) -> Figure:
    figure, (reliability, rejection) = style.new_figure(1, 2, 3.7)
    for plotted in fixes:
        plot_reliability(reliability, plotted.evaluation.reliability, plotted.index, plotted.label)
        curve = plotted.evaluation.precision_recall
        if len(curve.recall):
            look = style.line(plotted.index) | {"marker": style.marker(plotted.index) if len(curve.recall) < 12 else ""}
            rejection.plot(curve.recall, curve.precision, label=plotted.label, **look)
    frame_reliability(reliability, translate)
    rejection.set(xlabel=translate("recall"), ylabel=translate("precision"), xlim=(0, 1.02), ylim=(-0.02, 1.05))
    style.legend_above(reliability)
    return figure


def plot_reliability(ax: Axes, bins: Sequence[ReliabilityBin], index: int, label: str) -> None:
    """The share that is right over the stated probability, in the colours of series `index`."""
    for i, group in enumerate(bins):
        _plot_estimate(ax, group.mean_probability, group.right, index, label if i == 0 else None)
    xy = [group.mean_probability for group in bins], [group.right.value for group in bins]
    ax.plot(*xy, color=style.colour(index), linewidth=0.8, alpha=0.6)


def frame_reliability(ax: Axes, translate: Translator) -> None:
    """Axes for `plot_reliability`, with the line that an honest probability lies on."""
    ax.plot([0, 1], [0, 1], color=style.MUTED, linewidth=1.2, zorder=1)
    ax.set(xlabel=translate("stated probability"), ylabel=translate("share right"), xlim=(-0.04, 1.04))
    ax.set_ylim(-0.06, 1.06)


def _plot_estimate(ax: Axes, x: float, estimate: IntervalEstimate, index: int, label: str | None) -> None:
    has_interval = not math.isnan(estimate.low)
    interval = [[estimate.value - estimate.low], [estimate.high - estimate.value]] if has_interval else None
    ax.errorbar(
        x, estimate.value, None if interval is None else np.clip(interval, 0.0, None), color=style.colour(index),
        marker=style.marker(index), markersize=max(4.0, 9.0 - 1.5 * index), capsize=3, linewidth=1.2, linestyle="none", label=label,
    )  # fmt: skip


# --- tables -------------------------------------------------------------------------------------


def _headline_table(fixes: Sequence[PlottedFixes], translate: Translator) -> Table:
    """A column per backbone and method; the best place's own error first."""
    evaluations = [plotted.evaluation for plotted in fixes]
    scores = _score_table(fixes, [FIX_SCORES_BY_KEY[key] for key in HEADLINE], translate)
    methods = [translate("method"), "", *(evaluation.method for evaluation in evaluations), ""]
    matches = [translate("matches / frames"), "", *(f"{e.counts.matches} / {e.counts.frames}" for e in evaluations), ""]
    best = [translate("best place: error, median") + ", m", "↓", *map(_best_place_error, fixes), ""]
    return Table(scores.columns, [methods, matches, best, *scores.rows])


def _best_place_error(plotted: PlottedFixes) -> str:
    if plotted.run is None or not plotted.run.evaluation.scores["error_median"].n:
        return "–"
    return f"{plotted.run.evaluation.scores['error_median'].value:,.1f}"


def _score_table(fixes: Sequence[PlottedFixes], scores: Sequence[FixScore], translate: Translator) -> Table:
    rows = []
    for score in scores:
        estimates = [plotted.evaluation.scores[score.key] for plotted in fixes]
        if any(estimate.n for estimate in estimates):
            cells = [_stacked(plotted.evaluation, score) for plotted in fixes]
            counts = sorted({estimate.n for estimate in estimates})
            direction = {"lower": "↓", "higher": "↑", "nominal": "="}[score.better]
            rows.append(
                [
                    _title(score, translate),
                    direction,
                    *cells,
                    "–".join(map(str, (counts[0], counts[-1])[: len(counts)])),
                ]
            )
    return Table([translate("metric"), "", *(plotted.label for plotted in fixes), "n"], rows)


def _coverage_table(fixes: Sequence[PlottedFixes], translate: Translator) -> Table:
    keys = [f"fix_{point}_{name}" for point in POINTS for name in ("coverage@50", "coverage@95", "nees")]
    return _score_table(fixes, [FIX_SCORES_BY_KEY[key] for key in keys], translate)


def _probability_table(fixes: Sequence[PlottedFixes], translate: Translator) -> Table:
    keys = ("fix_probability_area", "fix_probability_full_precision", "fix_wrong_matches", "fix_off_map_matches",
            "fix_brier", "fix_calibration_error")  # fmt: skip
    return _score_table(fixes, [FIX_SCORES_BY_KEY[key] for key in keys], translate)


def _bin_table(fixes: Sequence[PlottedFixes], translate: Translator) -> Table:
    rows = [
        [
            plotted.label,
            f"{group.low:.1f} … {group.high:.1f}",
            f"{group.mean_probability:.3f}",
            f"{group.right.value:.1%}",
            "" if math.isnan(group.right.low) else f"{group.right.low:.1%}, {group.right.high:.1%}",
            str(group.right.n),
        ]
        for plotted in fixes
        for group in plotted.evaluation.reliability
    ]
    columns = [
        "",
        translate("stated probability"),
        translate("mean"),
        translate("share right"),
        translate("interval"),
        "n",
    ]
    return Table(columns, rows)


def _reason_table(fixes: Sequence[PlottedFixes], translate: Translator) -> Table:
    rows = []
    for plotted in fixes:
        counts = plotted.evaluation.counts
        states = ((translate("no match"), counts.no_match), (translate("not looked for"), counts.not_verified))
        rows += [
            [plotted.label, state, reason_text(reason, translate), str(n)]
            for state, reasons in states
            for reason, n in reasons.items()
        ]
    return Table(["", "", translate("why"), translate("frames")], rows)


def _title(score: FixScore, translate: Translator) -> str:
    return translate(score.title) + (f", {score.unit}" if score.unit in ("m", "°", "ms") else "")


def _stacked(fixes: FixEvaluation, score: FixScore) -> str:
    """The figure, its interval, its n_eff and the range expected of it on lines of their own."""
    estimate = fixes.scores[score.key]
    if math.isnan(estimate.value):
        return "–"
    lines = [score.text(estimate.value)]
    if not math.isnan(estimate.low):
        ends = f"{score.text(estimate.low)}, {score.text(estimate.high)}"
        lines.append(f"≤ {score.text(estimate.high)}" if score.is_bound else ends)
    low, high = fixes.nees_regions.get(score.key, (math.nan, math.nan))
    if not math.isnan(low):
        lines.append(f"{low:.2f} … {high:.2f}")
    return "\n".join([*lines, n_eff_text(estimate)])


# --- numbers ------------------------------------------------------------------------------------


def _coverage(plotted: PlottedFixes, point: FixPoint, level: float) -> IntervalEstimate:
    return plotted.evaluation.scores[f"fix_{point}_coverage@{level * 100:.0f}"]
