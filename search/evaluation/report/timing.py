"""Figures of scores and times: what a run says without knowing the truth."""

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
from search.evaluation.report.page import Section, Table
from search.evaluation.report.series import Series, known, timed_alike
from search.evaluation.report.texts import how_timed

_DOTS = 500  # of a scatter, for each series: more cannot be told apart
_TITLE = 34  # characters of a line above a small chart


def sections(runs: Sequence[Series], say: Translator) -> list[Section]:
    return [
        Section(
            "score-distribution",
            say("Score by backbone and rank"),
            say("Boxes hold the middle half of the frames, whiskers reach from the 5th to the 95th percentile. "
                "Scores of different backbones are not comparable: read the spread and the drop, not the height."),
            partial(score_boxes, runs, say),
            table=_score_table(runs, say),
        ),
        Section(
            "mean-score",
            say("Mean score by rank, and the drop from first to last"),
            say("A backbone that tells places apart falls steeply after the right ones."),
            partial(mean_scores, runs, say),
            table=_drop_table(runs, say),
        ),
        Section(
            "search-time",
            say("Search time"),
            say("The index call alone, after the warm-up. Logarithmic.") + _apart(runs, say),
            partial(search_times, runs, say),
            table=_time_table(runs, say, "search_ms"),
        ),
        Section(
            "total-time",
            say("Total time per reference set"),
            say("Embedding plus search, without decoding the image, median over frames.") + _apart(runs, say),
            partial(set_times, runs, say),
            table=_set_table(runs, say),
        ),
        Section(
            "time-and-score",
            say("Time against score"),
            say("Each dot is a frame: embedding plus search, without decoding the image, against the score of its best hit.")
            + _apart(runs, say),
            partial(time_and_score, runs, say),
        ),
        Section(
            "mean-times",
            say("Mean times"),
            say("Mean milliseconds over frames. The number beside a bar, and the column total, is embedding plus search; "
                "decoding the image, the grey end of the bar, is not part of it.") + _apart(runs, say),
            partial(latency, runs, say),
            table=_means_table(runs, say),
            open=True,
        ),
    ]  # fmt: skip


def _apart(runs: Sequence[Series], say: Translator) -> str:
    """How the times of a figure were taken, where it is the same for all; else that they do not compare."""
    groups = timed_alike(runs, say)
    if len(groups) > 1:
        return " " + say("Times of different titles were taken differently: compare them under one title only.")
    return " " + say("Taken: {how}.").format(how=how_timed(runs[0].run.parameters.get("batch"), say))


# --- figures ------------------------------------------------------------------------------------


def score_boxes(runs: Sequence[Series], say: Translator) -> Figure:
    made, axes = style.small_multiples(len(runs))
    for ax, one in zip(axes, runs, strict=True):
        ranks = range(1, one.scores.shape[1] + 1)
        style.boxes(ax, [known(one.scores[:, k - 1]) for k in ranks], [style.colour(one.index)] * len(ranks))
        ax.set_title(one.label)
        ax.set_xticks(
            list(ranks)[::3] if len(ranks) > 5 else list(ranks), [str(k) for k in ranks][:: 3 if len(ranks) > 5 else 1]
        )
        ax.grid(axis="x", visible=False)
    made.supxlabel(say("rank"), fontsize=10)
    made.supylabel(say("score (cosine)"), fontsize=10)
    return made


def mean_scores(runs: Sequence[Series], say: Translator) -> Figure:
    made, (left, right) = style.figure(1, 2, 3.4, width_ratios=(2, 1))
    for one in runs:
        means = np.nanmean(one.scores, axis=0) if len(one.scores) else np.array([])
        left.plot(range(1, len(means) + 1), means, label=one.label, **style.line(one.index))
    left.set(xlabel=say("rank"), ylabel=say("mean score"))
    style.legend_above(left)
    drops = [float(np.nanmean(_drop(one))) if len(one.scores) else 0.0 for one in runs]
    _bars(right, runs, drops, "{:.4f}")
    right.set(xlabel=say("mean drop"))
    return made


def search_times(runs: Sequence[Series], say: Translator) -> Figure:
    made, panels = _panels(timed_alike(runs, say))
    for ax, of in panels:
        style.boxes(ax, [one.search_ms for one in of], [style.colour(one.index) for one in of], vertical=False)
        ax.set_yticks(range(1, len(of) + 1), [one.label for one in of])
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    ax = panels[-1][0]
    style.logarithmic(ax.xaxis)
    ax.set_xlabel(say("search, ms"))
    return made


def set_times(runs: Sequence[Series], say: Translator) -> Figure:
    groups = []
    for title, alike in timed_alike(runs, say):
        for name in dict.fromkeys(one.run.reference_set.name for one in alike):
            of = [one for one in alike if one.run.reference_set.name == name]
            references = say("{name}: {n} references").format(name=name, n=of[0].run.references)
            groups.append((f"{references}, {title}" if title else references, of))
    made, panels = _panels(groups)
    for ax, of in panels:
        _bars(ax, of, [one.median_ms for one in of], "{:.1f}")
    panels[-1][0].set_xlabel(say("embedding + search, median ms a frame"))
    return made


def time_and_score(runs: Sequence[Series], say: Translator) -> Figure:
    made, axes = style.small_multiples(len(runs))
    titled = [(title, one) for title, alike in timed_alike(runs, say) for one in alike]
    for ax, (title, one) in zip(axes, titled, strict=True):
        some = slice(None, None, max(1, len(one.scores) // _DOTS))
        ax.plot(
            one.total_ms[some], one.scores[some, 0], linestyle="none", marker=style.marker(one.index),
            color=style.colour(one.index), markersize=2.5, alpha=0.6,
        )  # fmt: skip
        ax.set_title("\n".join([one.label, *textwrap.wrap(title, _TITLE)]))
    style.logarithmic(axes[0].xaxis)
    made.supxlabel(say("embedding + search, ms (logarithmic)"), fontsize=10)
    made.supylabel(say("score of the best hit"), fontsize=10)
    return made


def latency(runs: Sequence[Series], say: Translator) -> Figure:
    made, panels = _panels(timed_alike(runs, say))
    for ax, of in panels:
        left = np.zeros(len(of))
        for name, colour, values in (
            (say("embed"), style.colour(0), [_mean(one.embed_ms) for one in of]),
            (say("search"), style.colour(1), [_mean(one.search_ms) for one in of]),
            (say("decode, not in the total"), style.MUTED, [_mean(one.decode_ms) for one in of]),
        ):
            ax.barh([one.label for one in of], values, left=left, height=0.6, color=colour, label=name)
            left += np.nan_to_num(values)
        for y, (end, one) in enumerate(zip(left, of, strict=True)):
            ax.text(end, y, f" {_mean(one.total_ms):.1f}", va="center", fontsize=9)
        ax.invert_yaxis()
        ax.margins(x=0.12)
        ax.grid(axis="y", visible=False)
    panels[-1][0].set_xlabel(say("mean ms a frame"))
    handles, labels = panels[0][0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside upper left", ncols=3, fontsize=9)
    return made


def _panels(groups: Sequence[tuple[str, list[Series]]]) -> tuple[Figure, list[tuple[Axes, list[Series]]]]:
    """One above the other, a panel for each group of runs under its title, with one scale of milliseconds."""
    sizes = [len(of) for _, of in groups]
    height_in = 0.6 + sum(0.3 + 0.38 * size for size in sizes)
    made, axes = style.figure(len(groups), 1, height_in, sharex=True, height_ratios=[size + 0.8 for size in sizes])
    for ax, (title, _) in zip(axes, groups, strict=True):
        ax.set_title(title)
    return made, [(ax, of) for ax, (_, of) in zip(axes, groups, strict=True)]


def _bars(ax: Axes, runs: Sequence[Series], values: Sequence[float], form: str) -> None:
    bars = ax.barh([one.label for one in runs], values, height=0.6, color=[style.colour(one.index) for one in runs])
    ax.bar_label(bars, ["–" if math.isnan(v) else form.format(v) for v in values], padding=3, fontsize=9)
    ax.invert_yaxis()
    ax.margins(x=0.2)
    ax.grid(axis="y", visible=False)


# --- tables -------------------------------------------------------------------------------------


def _score_table(runs: Sequence[Series], say: Translator) -> Table:
    width = max((one.scores.shape[1] for one in runs), default=0)
    rows = []
    for one in runs:
        middle = np.nanmedian(one.scores, axis=0) if len(one.scores) else np.array([])
        rows.append([one.label, *(f"{v:.4f}" for v in middle), *[""] * (width - len(middle)), str(len(one.scores))])
    return Table([say("median score at rank"), *(str(k) for k in range(1, width + 1)), "n"], rows)


def _drop_table(runs: Sequence[Series], say: Translator) -> Table:
    rows = [
        [one.label, f"{np.nanmean(one.scores[:, 0]):.4f}", f"{np.nanmean(_drop(one)):.4f}",
         f"{np.nanmedian(_drop(one)):.4f}", str(len(one.scores))]
        for one in runs if len(one.scores)
    ]  # fmt: skip
    return Table(["", say("mean score at rank 1"), say("mean drop"), say("median drop"), "n"], rows)


def _time_table(runs: Sequence[Series], say: Translator, name: str) -> Table:
    rows = []
    for one in runs:
        values = getattr(one, name)
        if len(values):
            p5, p50, p95 = np.percentile(values, (5, 50, 95))
            rows.append(
                [one.label, *(f"{v:.3g}" for v in (p5, p50, p95)), str(one.run.references), str(len(values)),
                 _how(one, say)]
            )  # fmt: skip
    columns = ["", say("5th percentile, ms"), say("median, ms"), say("95th percentile, ms"), say("references"), "n",
               say("taken")]  # fmt: skip
    return Table(columns, rows)


def _set_table(runs: Sequence[Series], say: Translator) -> Table:
    rows = [
        [one.run.reference_set.name, one.label, _ms(one.median_ms, 1), f"{one.total_ms.sum() / 1000:.1f}",
         f"{one.run.index_build_ms:.1f}", str(one.run.references), str(len(one.total_ms)), _how(one, say)]
        for one in runs
    ]  # fmt: skip
    columns = [say("reference set"), "", say("embedding + search, median ms a frame"),
               say("embedding + search, sum of all frames, s"), say("index build, ms"), say("references"), "n",
               say("taken")]  # fmt: skip
    return Table(columns, rows)


def _means_table(runs: Sequence[Series], say: Translator) -> Table:
    rows = [
        [one.label, *(_ms(_mean(v), 2) for v in (one.embed_ms, one.search_ms, one.total_ms)),
         _ms(one.median_ms, 2), _ms(_mean(one.decode_ms), 2), str(len(one.total_ms)), _how(one, say)]
        for one in runs
    ]  # fmt: skip
    columns = ["", say("embed"), say("search"), say("total: embed + search"), say("total, median"),
               say("decode, not in the total"), "n", say("taken")]  # fmt: skip
    return Table(columns, rows)


def _how(one: Series, say: Translator) -> str:
    return how_timed(one.run.parameters.get("batch"), say)


def _drop(one: Series) -> Floats:
    """[T]: the score's fall from a frame's first hit to its last."""
    lowest: Floats = np.fmin.reduce(one.scores, axis=1)
    return one.scores[:, 0] - lowest


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _ms(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
