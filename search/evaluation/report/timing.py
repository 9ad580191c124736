"""Sections on scores and times: the figures of a run that need no truth."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coarseloc.core.types import Floats
from coarseloc.i18n import Translator
from search.evaluation.report import style
from search.evaluation.report.chart import Axis, Chart, Panel, Series
from search.evaluation.report.page import Section, Table, timing_text
from search.evaluation.report.plotted_run import PlottedRun, group_by_timing, without_nan

_TITLE = 34  # characters of a line above a small chart


def make_sections(runs: Sequence[PlottedRun], translate: Translator) -> list[Section]:
    return [
        Section(
            "score-distribution",
            translate("Score by backbone and rank"),
            translate("Boxes hold the middle half of the frames, whiskers reach from the 5th to the 95th percentile. "
                "Scores of different backbones are not comparable: read the spread and the drop, not the height."),
            partial(plot_scores_by_rank, runs, translate),
            table=_score_table(runs, translate),
        ),
        Section(
            "mean-score",
            translate("Mean score by rank, and the drop from first to last"),
            translate("A backbone that tells places apart falls steeply after the right ones."),
            partial(plot_mean_scores, runs, translate),
            mean_score_chart(runs, translate),
            table=_drop_table(runs, translate),
        ),
        Section(
            "search-time",
            translate("Search time"),
            translate("The index call alone, after the warm-up. Logarithmic.") + _timing_note(runs, translate),
            partial(plot_search_times, runs, translate),
            table=_time_table(runs, translate, "search_ms"),
        ),
        Section(
            "total-time",
            translate("Total time per reference set"),
            translate("Embedding plus search, without decoding the image, median over frames.") + _timing_note(runs, translate),
            partial(plot_set_times, runs, translate),
            table=_set_table(runs, translate),
        ),
        Section(
            "time-and-score",
            translate("Time against score"),
            translate("Each dot is a frame: embedding plus search, without decoding the image, against the score of its best hit.")
            + _timing_note(runs, translate),
            chart=time_and_score_chart(runs, translate),
        ),
        Section(
            "mean-times",
            translate("Mean times"),
            translate("Mean milliseconds over frames. The number beside a bar, and the column total, is embedding plus search; "
                "decoding the image, the grey end of the bar, is not part of it.") + _timing_note(runs, translate),
            partial(plot_mean_times, runs, translate),
            table=_means_table(runs, translate),
            open=True,
        ),
    ]  # fmt: skip


def _timing_note(runs: Sequence[PlottedRun], translate: Translator) -> str:
    """How the times of a figure were taken where that is the same for all, else that they do not compare."""
    groups = group_by_timing(runs, translate)
    if len(groups) > 1:
        return " " + translate("Times of different titles were taken differently: compare them under one title only.")
    return " " + translate("Taken: {how}.").format(how=timing_text(runs[0].batch, translate))


# --- figures ------------------------------------------------------------------------------------


def plot_scores_by_rank(runs: Sequence[PlottedRun], translate: Translator) -> Figure:
    figure, axes = style.small_multiples(len(runs))
    for ax, run in zip(axes, runs, strict=True):
        ranks = range(1, run.scores.shape[1] + 1)
        style.boxes(ax, [without_nan(run.scores[:, k - 1]) for k in ranks], [style.colour(run.index)] * len(ranks))
        ax.set_title(run.label)
        ax.set_xticks(
            list(ranks)[::3] if len(ranks) > 5 else list(ranks), [str(k) for k in ranks][:: 3 if len(ranks) > 5 else 1]
        )
        ax.grid(axis="x", visible=False)
    figure.supxlabel(translate("rank"), fontsize=10)
    figure.supylabel(translate("score (cosine)"), fontsize=10)
    return figure


def plot_mean_scores(runs: Sequence[PlottedRun], translate: Translator) -> Figure:
    figure, (left, right) = style.new_figure(1, 2, 3.4, width_ratios=(2, 1))
    for run in runs:
        means = np.nanmean(run.scores, axis=0) if len(run.scores) else np.array([])
        left.plot(range(1, len(means) + 1), means, label=run.label, **style.line(run.index))
    left.set(xlabel=translate("rank"), ylabel=translate("mean score"))
    style.legend_above(left)
    drops = [float(np.nanmean(_drop(run))) if len(run.scores) else 0.0 for run in runs]
    _bars(right, runs, drops, "{:.4f}")
    right.set(xlabel=translate("mean drop"))
    return figure


def plot_search_times(runs: Sequence[PlottedRun], translate: Translator) -> Figure:
    figure, panels = _panels(group_by_timing(runs, translate))
    for ax, group in panels:
        style.boxes(ax, [run.search_ms for run in group], [style.colour(run.index) for run in group], vertical=False)
        ax.set_yticks(range(1, len(group) + 1), [run.label for run in group])
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    ax = panels[-1][0]
    style.logarithmic(ax.xaxis)
    ax.set_xlabel(translate("search, ms"))
    return figure


def plot_set_times(runs: Sequence[PlottedRun], translate: Translator) -> Figure:
    groups = []
    for title, group in group_by_timing(runs, translate):
        for name in dict.fromkeys(run.stored.reference_set.name for run in group):
            set_runs = [run for run in group if run.stored.reference_set.name == name]
            references = translate("{name}: {n} references").format(name=name, n=set_runs[0].stored.references)
            groups.append((f"{references}, {title}" if title else references, set_runs))
    figure, panels = _panels(groups)
    for ax, group in panels:
        _bars(ax, group, [run.median_ms for run in group], "{:.1f}")
    panels[-1][0].set_xlabel(translate("embedding + search, median ms a frame"))
    return figure


def mean_score_chart(runs: Sequence[PlottedRun], translate: Translator) -> Chart:
    """The mean score of each run at each rank."""
    means = [np.nanmean(run.scores, axis=0) if len(run.scores) else np.array([]) for run in runs]
    series = [
        Series(run.label, run.index, np.arange(1.0, len(values) + 1), values, run=run.stored.id)
        for run, values in zip(runs, means, strict=True)
    ]
    return Chart(Axis(translate("rank")), Axis(translate("mean score")), [Panel("", series)])


def time_and_score_chart(runs: Sequence[PlottedRun], translate: Translator) -> Chart:
    """A panel for each run: the score of every frame's best hit against its time."""
    panels = []
    for title, group in group_by_timing(runs, translate):
        for run in group:
            best = run.scores[:, 0] if run.scores.size else np.array([])
            series = Series("", run.index, run.total_ms, best, "points", frames=run.frames, run=run.stored.id)
            panels.append(Panel("\n".join([run.label, *textwrap.wrap(title, _TITLE)]), [series]))
    return Chart(
        Axis(translate("embedding + search, ms (logarithmic)"), logarithmic=True),
        Axis(translate("score of the best hit")),
        panels,
    )


def plot_mean_times(runs: Sequence[PlottedRun], translate: Translator) -> Figure:
    figure, panels = _panels(group_by_timing(runs, translate))
    for ax, group in panels:
        left = np.zeros(len(group))
        for name, colour, values in (
            (translate("embed"), style.colour(0), [_mean(run.embed_ms) for run in group]),
            (translate("search"), style.colour(1), [_mean(run.search_ms) for run in group]),
            (translate("decode, not in the total"), style.MUTED, [_mean(run.decode_ms) for run in group]),
        ):
            ax.barh([run.label for run in group], values, left=left, height=0.6, color=colour, label=name)
            left += np.nan_to_num(values)
        for y, (end, run) in enumerate(zip(left, group, strict=True)):
            ax.text(end, y, f" {_mean(run.total_ms):.1f}", va="center", fontsize=9)
        ax.invert_yaxis()
        ax.margins(x=0.12)
        ax.grid(axis="y", visible=False)
    panels[-1][0].set_xlabel(translate("mean ms a frame"))
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, fontsize=9)
    return figure


def _panels(groups: Sequence[tuple[str, list[PlottedRun]]]) -> tuple[Figure, list[tuple[Axes, list[PlottedRun]]]]:
    """A figure with a panel for each group of runs, one above the other, with one scale of milliseconds."""
    sizes = [len(group) for _, group in groups]
    height_in = 0.6 + sum(0.3 + 0.38 * size for size in sizes)
    figure, axes = style.new_figure(
        len(groups), 1, height_in, sharex=True, height_ratios=[size + 0.8 for size in sizes]
    )
    for ax, (title, _) in zip(axes, groups, strict=True):
        ax.set_title(title)
    return figure, [(ax, group) for ax, (_, group) in zip(axes, groups, strict=True)]


def _bars(ax: Axes, runs: Sequence[PlottedRun], values: Sequence[float], form: str) -> None:
    bars = ax.barh([run.label for run in runs], values, height=0.6, color=[style.colour(run.index) for run in runs])
    ax.bar_label(bars, ["–" if math.isnan(v) else form.format(v) for v in values], padding=3, fontsize=9)
    ax.invert_yaxis()
    ax.margins(x=0.2)
    ax.grid(axis="y", visible=False)


# --- tables -------------------------------------------------------------------------------------


def _score_table(runs: Sequence[PlottedRun], translate: Translator) -> Table:
    width = max((run.scores.shape[1] for run in runs), default=0)
    rows = []
    for run in runs:
        medians = np.nanmedian(run.scores, axis=0) if len(run.scores) else np.array([])
        rows.append([run.label, *(f"{v:.4f}" for v in medians), *[""] * (width - len(medians)), str(len(run.scores))])
    return Table([translate("median score at rank"), *(str(k) for k in range(1, width + 1)), "n"], rows)


def _drop_table(runs: Sequence[PlottedRun], translate: Translator) -> Table:
    rows = [
        [run.label, f"{np.nanmean(run.scores[:, 0]):.4f}", f"{np.nanmean(_drop(run)):.4f}",
         f"{np.nanmedian(_drop(run)):.4f}", str(len(run.scores))]
        for run in runs if len(run.scores)
    ]  # fmt: skip
    return Table(["", translate("mean score at rank 1"), translate("mean drop"), translate("median drop"), "n"], rows)


def _time_table(runs: Sequence[PlottedRun], translate: Translator, name: str) -> Table:
    rows = []
    for run in runs:
        values = getattr(run, name)
        if len(values):
            p5, p50, p95 = np.percentile(values, (5, 50, 95))
            rows.append(
                [run.label, *(f"{v:.3g}" for v in (p5, p50, p95)), str(run.stored.references), str(len(values)),
                 timing_text(run.batch, translate)]
            )  # fmt: skip
    columns = ["", translate("5th percentile, ms"), translate("median, ms"), translate("95th percentile, ms"), translate("references"), "n",
               translate("taken")]  # fmt: skip
    return Table(columns, rows)


def _set_table(runs: Sequence[PlottedRun], translate: Translator) -> Table:
    rows = [
        [run.stored.reference_set.name, run.label, _ms(run.median_ms, 1), f"{run.total_ms.sum() / 1000:.1f}",
         f"{run.stored.index_build_ms:.1f}", str(run.stored.references), str(len(run.total_ms)), timing_text(run.batch, translate)]
        for run in runs
    ]  # fmt: skip
    columns = [translate("reference set"), "", translate("embedding + search, median ms a frame"),
               translate("embedding + search, sum of all frames, s"), translate("index build, ms"), translate("references"), "n",
               translate("taken")]  # fmt: skip
    return Table(columns, rows)


def _means_table(runs: Sequence[PlottedRun], translate: Translator) -> Table:
    rows = [
        [run.label, *(_ms(_mean(v), 2) for v in (run.embed_ms, run.search_ms, run.total_ms)),
         _ms(run.median_ms, 2), _ms(_mean(run.decode_ms), 2), str(len(run.total_ms)), timing_text(run.batch, translate)]
        for run in runs
    ]  # fmt: skip
    columns = ["", translate("embed"), translate("search"), translate("total: embed + search"), translate("total, median"),
               translate("decode, not in the total"), "n", translate("taken")]  # fmt: skip
    return Table(columns, rows)


def _drop(run: PlottedRun) -> Floats:
    """[T]: the score's fall from a frame's first hit to its last."""
    lowest: Floats = np.fmin.reduce(run.scores, axis=1)
    return run.scores[:, 0] - lowest


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _ms(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
